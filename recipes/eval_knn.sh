#!/usr/bin/env bash
# Classifies val images by their nearest neighbours among the train images, on a network's embedding.
#
#   DATA=/imagenet MODEL=exp/001/checkpoint.pth.tar recipes/eval_knn.sh
#
# DATA holds train/ and val/, as for eval_linear.sh. Nothing is trained: one pass over the images. Uses
# all visible GPUs. The paper has no number to expect.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_knn.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

require DATA "name a folder with train/ and val/" /imagenet
require_model
absolute EXP
set_workers 12
share_workers
launch "$processes" eval_knn.py --data "$DATA" --model "$MODEL" --workers "$workers" --verbose \
    ${EXP:+--exp "$EXP"} "$@"
