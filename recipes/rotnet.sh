#!/usr/bin/env bash
# RotNet as in DeeperCluster's release: VGG-16 learns which of four rotations an image has.
#
#   DIR=/imagenet/train recipes/rotnet.sh
#   DIR=/yfcc100m SOBEL=--sobel BATCH=3072 EXP=exp/rotnet sbatch --nodes 8 recipes/slurm.sh recipes/rotnet.sh
#                                      weights that recipes/deepercluster.sh starts from
#
# 100 epochs, lr 0.1 and weight decay 1e-5, the released code's defaults; batch 256 in all, where it has
# 48 on each GPU. An image is seen once an epoch, in one rotation. Nothing is clustered before the end.
#
# Hardware: one GPU or more.
# Hours on ImageNet: estimated, not measured: 24 to 36 of one H100.
# Expect of the run on ImageNet, from linear probes on conv13, remembered from the paper and not checked: 32.7 %
# top-1 on ImageNet, 32.6 % on Places205, 60.9 mAP on VOC 2007. It has not been run here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/rotnet.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "rotnet.sh: error: DIR: name a folder of images: DIR=/imagenet/train $script" >&2; exit 2; }
export METHOD=deepercluster
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=vgg16 K=1 LR=0.1 WD=-5 BATCH=256 EPOCHS=100" RECIPE_FLAGS="--super_classes 4"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
