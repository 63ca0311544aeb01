#!/usr/bin/env bash
# DeeperCluster at ImageNet's size: VGG-16 on Sobel-filtered images, 10,000 clusters.
#
#   DIR=/imagenet/train recipes/deepercluster_imagenet.sh
#
# As recipes/deepercluster.sh, but with fewer clusters, and with batch 256 and lr 0.05, those of
# DeepCluster's VGG-16 on ImageNet: 16 super-classes, which are 4 super-clusters of 2,500 clusters each,
# and 4 rotations. BATCH has to be a multiple of 16. SOBEL= leaves the Sobel filters out.
#
# Hardware: one GPU or more. Weights, gradients and momenta of the heads take 2 GB on each. The features take
# 32 GB of host memory in all processes together: 10.5 GB as computed (float16), 21 GB whitened (float32).
# Hours: estimated, not measured: 27 to 39 of one H100.
# Expect no particular number: no run of this size is published. It has not been run here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/deepercluster_imagenet.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "deepercluster_imagenet.sh: error: DIR: name a folder of images: DIR=/imagenet/train $script" >&2; exit 2; }
export METHOD=deepercluster
sobel=SOBEL=--sobel
if [ -n "${SOBEL+set}" ]; then sobel=; fi
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=vgg16 K=10000 LR=0.05 WD=-5 BATCH=256 EPOCHS=100 $sobel"
export RECIPE_FLAGS="--super_classes 16 --reassignment 3 --niter 10 --dim_pca 4096"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
