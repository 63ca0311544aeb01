#!/usr/bin/env bash
# Any training or evaluation on many nodes, under Slurm: SCRIPT with its variables and flags, or main.sh.
#
#   DIR=/imagenet/train EPOCHS=500 sbatch --nodes 2 recipes/slurm.sh
#   DIR=/imagenet/train sbatch --nodes 2 recipes/slurm.sh recipes/resnet50.sh
#   DATA=/imagenet MODEL=exp/001/checkpoint.pth.tar sbatch --nodes 2 recipes/slurm.sh eval_linear.sh
#
# A script whose evaluation is one process (retrieval, VOC, SVMs) runs on the first node. `sbatch SCRIPT`,
# without this one, runs any script on one node.
#
# sbatch's options for nodes, GPUs, cores and time win over those below. Install the packages first: run
# ./main.sh once on a node with internet access.
#
# Three minutes before its time is up, a training gets a signal to stop: it finishes its step and saves a
# checkpoint, and the job goes back into the queue. A requeued job keeps its number, so it finds its
# folder exp/slurm-<number> and resumes from the newest checkpoint. A run that has not stopped after
# 150 seconds resumes from the checkpoint before. A job that Slurm preempts (SIGTERM, and a time of
# grace) is put back in the same way. A cancelled job stays cancelled. An evaluation is ended by the
# signal; its job goes back into the queue, too, and goes on as after any interruption.
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
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/slurm.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

[ -n "${SLURM_JOB_ID:-}" ] || fail "to be started by Slurm: DIR=/your/images sbatch $script"
task=$PWD/main.sh
if [[ ${1:-} = *.sh ]]; then
    for task in "$started_in/$1" "$PWD/$1" "$PWD/recipes/$1"; do
        if [ -f "$task" ]; then break; fi
    done
    [ -f "$task" ] || fail "$1: no such script, here or in recipes/"
    shift
fi
PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
WORKERS=${WORKERS:-${SLURM_CPUS_PER_TASK:-1}}
export PYTHON PROCESSES WORKERS ACROSS_NODES=${SLURM_JOB_NUM_NODES:-1}  # `launch` in env.sh

case ${task##*/} in
eval_* | activ-retrieval.sh | gradient_ascent.sh) ;;
*)  # a training
    [ -n "${DIR:-}" ] || fail "DIR: name the images: DIR=/your/images sbatch $script"
    absolute EXP
    export EXP=${EXP:-$PWD/exp/slurm-$SLURM_JOB_ID}
    # The last --resume wins: a checkpoint that you give counts at the first start only
    if has_checkpoint "$EXP"; then set -- "$@" --resume auto; else set -- --resume auto "$@"; fi
    ;;
esac

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
        [[ $(tail -n 1 "${EXP:-}/log.txt" 2>/dev/null) == *"stopped: SIGTERM" ]] || return
    elif [ "$status" != 143 ]; then
        return 1
    fi
    [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]
}

(cd "$started_in" && exec bash "$task" "$@") &
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
