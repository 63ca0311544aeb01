#!/usr/bin/env bash
# The model zoo's DeepCluster: ResNet-50 on Sobel-filtered images, k-means with k = 10,000.
#
#   DIR=/imagenet/train recipes/resnet50.sh
#
# 200 epochs, batch 512 in all, lr 0.1, weight decay 1e-5, stronger crops and colours than the
# paper's. SOBEL= leaves the Sobel filters out. The rest is as in main.sh, which this starts. Many
# machines: recipes/slurm.sh, with these variables and --transforms modelzoo.
# Expect on ImageNet, from the zoo's tables: linear probes of 12.8, 30.8, 43.9, 57.7 and 51.7 % top-1 on
# layers 1 to 5, and 74.3 mAP with SVMs on VOC 2007; it has not been run here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/resnet50.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "resnet50.sh: error: DIR: name a folder of images: DIR=/imagenet/train $script" >&2; exit 2; }
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=resnet50 LR=0.1 BATCH=512 EPOCHS=200" RECIPE_FLAGS="--transforms modelzoo"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
