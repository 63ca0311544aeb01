# Sourced by every script: sets PYTHON to the interpreter, and has the functions that scripts share.
#
# If PYTHON is set already, that interpreter is used and nothing is installed. Otherwise .venv gets
# the packages of requirements.txt (test.sh: requirements-dev.txt, which adds those of the tests) on
# first use, and again if the pins change or an earlier attempt was interrupted.

started_in=$PWD
script=${script:-$0}  # its name in messages
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "$(basename "$script"): error: $1" >&2
    exit 2
}

absolute() {  # names of variables: relative paths count from where the script was started
    local name
    for name; do
        case ${!name:-} in '' | /*) ;; *) printf -v "$name" %s "$started_in/${!name}" ;; esac
    done
}

require() {  # a variable that has to hold a path, how to choose it, an example
    [ -n "${!1:-}" ] || fail "$1: $2: $1=$3 $script"
    absolute "$1"
}

require_model() { require MODEL "name a checkpoint" exp/001/checkpoint.pth.tar; }

has_checkpoint() {  # the folder of a run
    [ -e "$1/checkpoint.pth.tar" ] || [ -n "$(ls -A "$1/checkpoints" 2>/dev/null)" ]
}

find_python() {  # the first Python >= 3.11 on the PATH, but not the one in .venv
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
    fail "no Python of version 3.11 or newer found; install one, or name one: PYTHON=/path/to/python $script"
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
    install_packages || fail "installing the packages failed, see above; run $script again to retry"
    cp "$requirements" $installed  # marks .venv as complete
}

# With uv, which takes a third of pip's time. If it fails, with pip, which reads pip.conf.
install_packages() {
    local quiet=--quiet
    if [ -t 1 ]; then quiet=; fi
    .venv/bin/python -m pip install --disable-pip-version-check --quiet uv \
        && .venv/bin/python -m uv pip sync $quiet --python .venv/bin/python "$requirements" \
        || .venv/bin/python -m pip install --disable-pip-version-check $quiet -r "$requirements"
}

venv_is_complete() {
    local pins
    [ -f $installed ] && .venv/bin/python -c '' 2>/dev/null || return
    for pins in "$requirements" requirements-dev.txt; do  # the second includes requirements.txt
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
    # Only one script at a time sets up (not checked on machines without flock)
    exec 9>.venv.lock
    if command -v flock >/dev/null; then flock 9; fi
    venv_is_complete || set_up_venv
    exec 9>&-
    PYTHON=$PWD/.venv/bin/python
fi

# The cores that this process may use: those that it is bound to, or fewer by the quotas of its control
# groups (/proc/self/cgroup) or by its Slurm job. system/cores.py has the same for Python.
cores() {
    local cores limit
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    for limit in ${SLURM_CPUS_ON_NODE:-} $(quotas /sys/fs/cgroup /proc/self/cgroup); do
        cores=$((limit < cores ? limit : cores))
    done
    echo "$cores"
}

quotas() {  # where control groups are mounted, a file that names this process's; in cores, rounded up
    local kinds path quota period
    [ -r "$2" ] || return 0
    while IFS=: read -r _ kinds path; do
        path=${path%/}
        while :; do  # the group, and those around it
            quota=max
            if [ -n "$kinds" ]; then  # version 1
                read -r quota <"$1/$kinds$path/cpu.cfs_quota_us"
                read -r period <"$1/$kinds$path/cpu.cfs_period_us"
            else
                read -r quota period <"$1$path/cpu.max"
            fi 2>/dev/null || true
            case $quota in max | -1) ;; *) echo $(((quota + period - 1) / period)) ;; esac
            [ -n "$path" ] || break
            path=${path%/*}
        done
    done <"$2"
}

set_workers() {  # the default of WORKERS: this number, but no more than there are cores
    local cores
    cores=$(cores)
    WORKERS=${WORKERS:-$((cores < $1 ? cores : $1))}
}

# Sets processes (PROCESSES, or one per visible GPU), on each of the job's nodes under recipes/slurm.sh,
# and workers: the share of WORKERS for each.
nodes=
share_workers() {
    processes=${PROCESSES:-} nodes=${ACROSS_NODES:-}
    if [ -z "$processes" ]; then
        processes=1
        if command -v nvidia-smi rocm-smi >/dev/null; then  # importing torch takes seconds
            processes=$("$PYTHON" -c 'import system.interrupt, torch; print(max(torch.cuda.device_count(), 1))')
        fi
    fi
    [[ $processes =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES=$processes: not a whole number of 1 or more"
    [[ $WORKERS =~ ^[0-9]+$ ]] || fail "WORKERS=$WORKERS: not a whole number of 0 or more"
    workers=$(((WORKERS + processes - 1) / processes))
}

# Number of processes, script, arguments. Replaces this shell, so that a signal to it reaches them.
launch() {
    local processes=$1 cores head
    shift
    cores=$(cores)
    if [ "$processes" != 1 ] || [ -n "$nodes" ] || [ -n "$(quotas /sys/fs/cgroup /proc/self/cgroup)" ]; then
        # torchrun would give each process a single thread, too few for the PCA; and without torchrun,
        # torch and Faiss don't know quotas
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
    fi
    if [ -n "$nodes" ]; then
        # sed reads to the end; head would close the pipe
        head=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | sed -n 1p)
        exec srun --kill-on-bad-exit --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" "$PYTHON" -m parallel.launch \
            --nnodes "$nodes" --nproc_per_node "$processes" --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" \
            --rdzv_endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))" "$@"
    elif [ -z "${ACROSS_NODES:-}" ] && [ "${SLURM_JOB_NUM_NODES:-1}" != 1 ]; then
        echo "$(basename "$script"): runs on one of $SLURM_JOB_NUM_NODES nodes; see recipes/slurm.sh" >&2
    fi
    if [ "$processes" = 1 ]; then
        exec "$PYTHON" "$@"
    fi
    exec "$PYTHON" -m parallel.launch --standalone --nproc_per_node "$processes" "$@"
}

# On a CPU, glibc returns the gradients' memory to the kernel after every step and then asks for it
# again. Keeping it makes training a third faster. Other C libraries ignore these variables.
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8000000000}
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4000000000}
