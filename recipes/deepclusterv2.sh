#!/usr/bin/env bash
# DeepCluster-v2 as published: ResNet-50, three heads of 3,000 clusters, batch 4,096.
#
#   DIR=/imagenet/train sbatch --nodes 8 recipes/slurm.sh recipes/deepclusterv2.sh
#                                      400 epochs, two crops of 160 pixels and four of 96
#   CROPS=2x224                        400 epochs, two crops of 224
#   CROPS=2x224+6x96 EPOCHS=800        the best one
#
# main.py finds the rest from the number of images, and says so; for ImageNet it is as published: lr 4.8
# after 10 epochs from 0.3.
#
# Published hours: 3 min 13 s an epoch on 64 V100 with the first set of crops, 400 epochs 21 h; those of
# the others are not published.
# Expect on ImageNet, from eval_linear.py --protocol swav, top-1, as published: 74.3; CROPS=2x224 70.2;
# CROPS=2x224+6x96 EPOCHS=800 75.2. No numbers of smaller batches or other epochs are published.
# It has not been run here. docs/methods/deepclusterv2.md says what differs from the released code.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/deepclusterv2.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "deepclusterv2.sh: error: DIR: name a folder of images: DIR=/imagenet/train $script" >&2; exit 2; }
export METHOD=deepclusterv2
case ${CROPS:=2x160+4x96} in
2x160+4x96) flags="--nmb_crops 2 4 --size_crops 160 96 --min_scale_crops 0.08 0.05 --max_scale_crops 1 0.14" ;;
2x224) flags="--nmb_crops 2 --size_crops 224 --min_scale_crops 0.08 --max_scale_crops 1" ;;
2x224+6x96) flags="--nmb_crops 2 6 --size_crops 224 96 --min_scale_crops 0.14 0.05 --max_scale_crops 1 0.14" ;;
*) echo "deepclusterv2.sh: error: CROPS=$CROPS: give 2x160+4x96, 2x224 or 2x224+6x96" >&2; exit 2 ;;
esac
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=resnet50 BATCH=4096 EPOCHS=400" RECIPE_FLAGS="$flags"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
