#!/usr/bin/env bash
# The run of main.sh on many nodes, under Slurm. From the repository's folder:
#
#   DIR=/imagenet/train EPOCHS=500 sbatch --nodes 2 recipes/slurm.sh
#
# sbatch's options for nodes, GPUs, cores and time win over those below. Install the packages first: run
# ./main.sh once on a node with internet access.
#
# Three minutes before its time is up, the run gets a signal to stop: it finishes its step and saves a
# checkpoint, and the job goes back into the queue. A requeued job keeps its number, so it finds its
# folder exp/slurm-<number> and resumes from the newest checkpoint. A run that has not stopped after
# 150 seconds resumes from the checkpoint before. A job that Slurm preempts (SIGTERM, and a time of
# grace) is put back in the same way. A cancelled job stays cancelled.
#SBATCH --job-name=deepcluster
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
set -euo pipefail
# Slurm runs a copy of this script, in another folder
. "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/recipes/env.sh"

[ -n "${SLURM_JOB_ID:-}" ] || fail "to be started by Slurm: DIR=/your/images sbatch $0"
[ -n "${DIR:-}" ] || fail "DIR: name the images: DIR=/your/images sbatch $0"
absolute DIR
if [ -n "${EXP:-}" ]; then absolute EXP; else EXP=exp/slurm-$SLURM_JOB_ID; fi
PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES=$PROCESSES: not a whole number of 1 or more"
WORKERS=${WORKERS:-$((${SLURM_CPUS_PER_TASK:-1} / PROCESSES))}  # of each process
[[ $WORKERS =~ ^[0-9]+$ ]] || fail "WORKERS=$WORKERS: not a whole number of 0 or more"
nodes=${SLURM_JOB_NUM_NODES:-1}

# The last --resume wins: a checkpoint that you give counts at the first start only
if [ -e "$EXP/checkpoint.pth.tar" ] || [ -n "$(ls -A "$EXP/checkpoints" 2>/dev/null)" ]; then
    set -- "$@" --resume auto
else
    set -- --resume auto "$@"
fi

put_back() {
    trap '' USR1
    waits=1
    echo "slurm.sh: the time is nearly up; the run stops, and the job goes back into the queue"
    kill -USR1 "$run" 2>/dev/null || true  # srun passes it on
    local second
    for ((second = 0; second < 150; second++)); do
        kill -0 "$run" 2>/dev/null || break
        sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
}
run=
trap put_back USR1

was_preempted() {  # the run was stopped, at its start or later, and the job is not cancelled
    if [ "$status" = 0 ]; then
        [[ $(tail -n 1 "$EXP/log.txt" 2>/dev/null) == *"stopped: SIGTERM" ]] || return
    elif [ "$status" != 143 ]; then
        return 1
    fi
    [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]
}

# torchrun would give each process a single thread, too few for the PCA
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((WORKERS > 0 ? WORKERS : 1))}
# sed reads to the end; head would close the pipe
head=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | sed -n 1p)
srun --kill-on-bad-exit --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" "$PYTHON" -m parallel.launch \
    --nnodes "$nodes" --nproc_per_node "$PROCESSES" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))" \
    main.py "$DIR" --arch "${ARCH:-alexnet}" --sobel --nmb_cluster "${K:-10000}" \
    --lr "${LR:-0.05}" --wd "${WD:--5}" --batch "${BATCH:-256}" --epochs "${EPOCHS:-200}" \
    --workers "$WORKERS" --exp "$EXP" --verbose "$@" &
run=$!

waits=1
while [ -n "$waits" ]; do  # a signal ends `wait`
    waits= status=0
    wait "$run" || status=$?
done
if was_preempted; then
    echo "slurm.sh: the run was preempted; the job goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
