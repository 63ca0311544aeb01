#!/usr/bin/env bash
# Lint, spelling and types, then the whole test suite, in two processes of one thread each.
# Arguments go to pytest: ./test.sh tests/test_assign.py. ./test.sh --long adds the campaigns that take
# many minutes or hours. The tests of pages are skipped without a browser (Debian: apt install chromium).
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/test.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
extras=dev
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m codespell_lib
"$PYTHON" -m mypy
# Where this is set, the tests' many processes would each compile torch again, for some seconds
unset PYTHONDONTWRITEBYTECODE
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
