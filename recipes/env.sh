# Sourced by every script here: finds a Python to run with, in $PYTHON.
#
# With PYTHON set, that interpreter is used and nothing is installed. Otherwise the packages of
# requirements.txt (test.sh: requirements-dev.txt, which has those of the tests, too) are put into
# .venv, on first use, and again if the pins have changed or an earlier attempt was cut short.

started_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

absolute() {  # makes the paths in variables what they were meant to be where the script was started
    local name
    for name; do
        case ${!name} in /*) ;; *) printf -v "$name" %s "$started_in/${!name}" ;; esac
    done
}

fail() {
    echo "$(basename "$0"): error: $1" >&2
    exit 2
}

find_python() {  # the first Python >= 3.11 on the PATH; not that of .venv, which is made from it
    local name path
    for name in python3 python python3.14 python3.13 python3.12 python3.11; do
        while read -r path; do
            if ! [ "${path%/*}" -ef .venv/bin ] \
                && "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                echo "$path"
                return
            fi
        done < <(type -ap "$name")
    done
    fail "no Python of version 3.11 or newer found; install one, or name one: PYTHON=/path/to/python $0"
}

set_up_venv() {
    local base
    if ! [ -f $installed ] || ! .venv/bin/python -c '' 2>/dev/null; then
        base=$(find_python) || exit
        rm -rf .venv
        "$base" -m venv .venv >&2 \
            || fail "$base cannot make a virtual environment; on Debian: apt install python3-venv"
    fi
    echo "Setting up .venv from $requirements (once; several GB, some minutes) ..." >&2
    rm -f $installed
    install_packages || fail "installing the packages failed, see above; run $0 again to retry"
    cp "$requirements" $installed  # last: it marks .venv as complete
}

install_packages() {  # with uv, which takes a third of pip's time; pip where that fails, as it knows
    local quiet=--quiet  # the mirrors of pip.conf
    if [ -t 1 ]; then quiet=; fi
    .venv/bin/python -m pip install --disable-pip-version-check --quiet uv \
        && .venv/bin/python -m uv pip sync $quiet --python .venv/bin/python "$requirements" \
        || .venv/bin/python -m pip install --disable-pip-version-check $quiet -r "$requirements"
}

venv_is_complete() {
    local pins
    [ -f $installed ] && .venv/bin/python -c '' 2>/dev/null || return
    for pins in "$requirements" requirements-dev.txt; do  # the latter has all of requirements.txt
        if [ "$(<"$pins")" = "$(<$installed)" ]; then return; fi
    done
    return 1
}

requirements=${requirements:-requirements.txt}
installed=.venv/installed-requirements.txt
if [ -n "${PYTHON:-}" ]; then
    case $PYTHON in */*) absolute PYTHON ;; esac
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such program"
else
    # one script at a time sets up; where there is no flock, do not start two at once the first time
    exec 9>.venv.lock
    if command -v flock >/dev/null; then flock 9; fi
    venv_is_complete || set_up_venv
    exec 9>&-
    PYTHON=$PWD/.venv/bin/python
fi

count_processes() {  # one for each visible GPU, unless PROCESSES says how many
    local count=${PROCESSES:-}
    if [ -z "$count" ]; then
        count=1
        if command -v nvidia-smi rocm-smi >/dev/null; then  # else spare the seconds
            count=$("$PYTHON" -c 'import torch; print(max(torch.cuda.device_count(), 1))')
        fi
    fi
    [[ $count =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES=$count: not a whole number of 1 or more"
    echo "$count"
}

share_of() {  # how many of the WORKERS each of so many processes has
    [[ $1 =~ ^[0-9]+$ ]] || fail "WORKERS=$1: not a whole number of 0 or more"
    echo $((($1 + $2 - 1) / $2))
}

launch() {  # how many processes on this machine, then a script and its arguments; does not return,
    local processes=$1  # so that who stops this script stops them
    shift
    if [ "$processes" = 1 ]; then
        exec "$PYTHON" "$@"
    fi
    local cores
    cores=$(getconf _NPROCESSORS_ONLN)
    # torchrun would give each a single thread, too few for the PCA
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
    exec "$PYTHON" -m parallel.launch --standalone --nproc_per_node "$processes" "$@"
}

# On CPU, glibc hands the gradients' memory back to the kernel after every step, only to ask for it
# anew; keeping it makes training a third faster. Other C libraries ignore these.
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8000000000}
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4000000000}
