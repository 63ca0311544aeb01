# Sourced by every script: sets PYTHON to the interpreter, and has the functions that scripts share.
#
# If PYTHON is set already, that interpreter is used and nothing is installed. Otherwise install.sh makes
# .venv on first use, with the packages of the extras in "extras" (setup.sh, test.sh).

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

if [ -n "${PYTHON:-}" ]; then
    case $PYTHON in */*) absolute PYTHON ;; esac
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such program"
else
    . recipes/install.sh
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
