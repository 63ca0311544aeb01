#!/usr/bin/env bash
# The whole test suite, after lint, spelling and types, in two processes of one thread each.
# Arguments go to pytest: ./test.sh tests/test_assign.py; ./test.sh --long runs the campaigns of many
# minutes, too. The tests of pages need a browser (Debian: apt install chromium); without one they
# are skipped.
set -euo pipefail
requirements=requirements-dev.txt
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m codespell_lib
"$PYTHON" -m mypy
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
