#!/usr/bin/env bash
# Lint, spelling and types, then the whole test suite, in two processes of one thread each.
# Arguments go to pytest: ./test.sh tests/test_assign.py. ./test.sh --long adds the campaigns that take
# many minutes or hours. The tests of pages are skipped without a browser (Debian: apt install chromium).
set -euo pipefail
requirements=requirements-dev.txt
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m codespell_lib
"$PYTHON" -m mypy
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
