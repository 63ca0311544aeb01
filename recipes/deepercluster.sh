#!/usr/bin/env bash
# DeeperCluster as published: VGG-16 on Sobel-filtered images, 96 million of them, 320,000 clusters.
#
#   DIR=/yfcc100m sbatch --nodes 8 recipes/slurm.sh recipes/deepercluster.sh --init exp/rotnet/checkpoint.pth.tar
#
# 100 epochs, batch 3,072 in all, lr 0.1, weight decay 1e-5; every 3 epochs clusters in all 4,096 whitened
# dimensions: 16 super-classes, which are 4 super-clusters and 4 rotations. SOBEL= leaves the Sobel filters
# out. DIR is YFCC100M's folder of zips, or other images (docs/data.md).
# --init takes the weights of recipes/rotnet.sh with SOBEL=--sobel, trained on the same images. (That the
# published run started from those of a RotNet is remembered from the paper, not checked.)
#
# Hardware: published on 64 GPUs. Weights, gradients and momenta of the heads take 63 GB; --shard_heads spreads
# them over the processes. On paper each process then needs 9 GB on its GPU beside the activations, and 60 GB of
# host memory, mostly for features and centroids of 4,096 dimensions; 8 GB with --dim_pca 256.
# Hours: not published. Estimated, not measured: 2,200 to 3,100 of one H100, which is 34 to 48 on 64.
# Expect, from linear probes on conv13, as published: 45.6 % top-1 on ImageNet, 42.1 % on Places205,
# 73.0 mAP on VOC 2007.
# It has not been run here. docs/methods/deepercluster.md says what differs from the released code.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/deepercluster.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "deepercluster.sh: error: DIR: name a folder of images: DIR=/yfcc100m $script" >&2; exit 2; }
export METHOD=deepercluster
sobel=SOBEL=--sobel
if [ -n "${SOBEL+set}" ]; then sobel=; fi
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=vgg16 K=320000 LR=0.1 WD=-5 BATCH=3072 EPOCHS=100 $sobel"
export RECIPE_FLAGS="--super_classes 16 --reassignment 3 --niter 10 --dim_pca 4096 --shard_heads"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
