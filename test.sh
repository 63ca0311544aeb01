#!/usr/bin/env bash
# The whole test suite, after lint and types. Arguments go to pytest: ./test.sh tests/test_data.py
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest "$@"
