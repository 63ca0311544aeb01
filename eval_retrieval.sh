#!/usr/bin/env bash
# Image retrieval on Oxford5k and Paris6k with R-MAC, as in the paper's Table 5.
#
#   DATASET=/data/retrieval MODEL=exp/001/checkpoint.pth.tar ./eval_retrieval.sh
#   DATASET=/data/retrieval MODEL=pretrained DATASET_NAME=Paris ./eval_retrieval.sh
#
# DATASET has Oxford/ and Paris/ side by side, each with its images and lab/ (see
# docs/evaluation/retrieval.md). One GPU, or long hours on a CPU. Further flags go to eval_retrieval.py, and win:
# ./eval_retrieval.sh --aqe 10
# Expect, in the paper, of VGG-16: trained by DeepCluster mAP 61.0 % on Oxford and 72.0 % on Paris;
# with ImageNet's labels (pretrained) 72.4 % and 81.5 %; untrained 6.9 % and 22.0 %.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/eval_retrieval.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

require DATASET "name the folder with Oxford/ and Paris/" /data
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint, or pretrained: MODEL=pretrained $script"
if [ "$MODEL" != pretrained ]; then absolute MODEL; fi
absolute TEMP_DIR
set_workers 4
DATASET_NAME=${DATASET_NAME:-Oxford}

launch 1 eval_retrieval.py --model "$MODEL" --dataset "$DATASET" --dataset_name "$DATASET_NAME" \
    --S "${S:-1024}" --L "${L:-3}" --n_pca "${N_PCA:-512}" \
    --temp_dir "${TEMP_DIR:-exp/retrieval/$DATASET_NAME}" --workers "$WORKERS" "$@"
