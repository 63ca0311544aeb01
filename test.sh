#!/usr/bin/env bash
# The whole test suite, after lint, spelling and types, in two processes of one thread each.
# Arguments go to pytest: ./test.sh tests/test_assign.py; ./test.sh --long runs the campaigns of many
# minutes, too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

install_chromium() {  # for the tests of pages, which skip where there is none; Ubuntu's is a snap
    if command -v chromium chromium-browser google-chrome >/dev/null; then return; fi
    local systems get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y)
    systems=" $(. /etc/os-release 2>/dev/null && echo "$ID ${ID_LIKE:-}") " || return 0
    case $systems in *" ubuntu "*) return ;; *" debian "*) ;; *) return ;; esac
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 0  # it would ask for a password
        get=(sudo -n "${get[@]}")
    fi
    echo "Installing Debian's chromium, for the tests of pages (once) ..." >&2
    { "${get[@]}" install chromium || { "${get[@]}" update && "${get[@]}" install chromium; }; } \
        >/dev/null 2>&1 || echo "That failed; the tests of pages are skipped." >&2
}

install_chromium
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m codespell_lib
"$PYTHON" -m mypy
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n 2 "$@"
