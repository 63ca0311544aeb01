#!/usr/bin/env bash
# The run of main.sh on many nodes, under Slurm. From the repository's folder:
#
#   DIR=/imagenet/train EPOCHS=500 sbatch --nodes 2 main_slurm.sh
#
# Nodes, GPUs, cores and time as sbatch's options say, else as below. Packages have to be installed
# already (./test.sh or ./main.sh on a node with internet access does that).
#
# Three minutes before its time is up the job is put back into the queue, and goes on from its newest
# checkpoint when it starts again: as it keeps its number, it finds its folder exp/slurm-<number>.
# One is saved after each epoch, and every 25,000 iterations: for more of them give --checkpoints.
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
# Slurm runs a copy of this script, which is not where the others are
. "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")}/env.sh"

[ -n "${SLURM_JOB_ID:-}" ] || fail "to be started by Slurm: DIR=/your/images sbatch $0"
[ -n "${DIR:-}" ] || fail "DIR: name the images: DIR=/your/images sbatch $0"
DIR=$(absolute "$DIR")
EXP=${EXP:-exp/slurm-$SLURM_JOB_ID}
PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
WORKERS=${WORKERS:-$((${SLURM_CPUS_PER_TASK:-1} / PROCESSES))}  # of each process
nodes=${SLURM_JOB_NUM_NODES:-1}

newest=$(ls -t "$EXP/checkpoint.pth.tar" "$EXP"/checkpoints/*.pth.tar 2>/dev/null | head -n 1 || true)
if [ -n "$newest" ]; then set -- --resume "$newest" "$@"; fi

put_back() {
    echo "main_slurm.sh: the time is nearly up; the job goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
}
trap put_back USR1

# torchrun would give each process a single thread, too few for the PCA
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((WORKERS > 0 ? WORKERS : 1))}
head=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | sed -n 1p)  # reads to the end
srun --kill-on-bad-exit --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" "$PYTHON" launch.py \
    --nnodes "$nodes" --nproc_per_node "$PROCESSES" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))" \
    main.py "$DIR" --arch "${ARCH:-alexnet}" --sobel --nmb_cluster "${K:-10000}" \
    --lr "${LR:-0.05}" --wd "${WD:--5}" --batch "${BATCH:-256}" --epochs "${EPOCHS:-200}" \
    --workers "$WORKERS" --exp "$EXP" --verbose "$@" &
run=$!

# A signal ends `wait`; the run goes on until Slurm stops it
status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do
    status=0
    wait "$run" || status=$?
done
exit "$status"
