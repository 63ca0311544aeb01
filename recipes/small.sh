#!/usr/bin/env bash
# A few thousand small images of your own, of 32 to 96 pixels: ResNet-18 with a stem to match.
#
#   DIR=/your/images recipes/small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/small.sh       more to see, and more kinds of it
#
# docs/own-images.md says what to expect and how to choose K, LR and EPOCHS. The rest is as in main.sh,
# which this starts. METHOD=swav, deepclusterv2 or deepercluster trains another method:
# recipes/swav_small.sh, recipes/deepclusterv2_small.sh and recipes/deepercluster_small.sh.
# 20 epochs take one core without bf16 about 2.4 hours for 3,000 images of 32 pixels, and 50 minutes for 2,700
# of 64 (from 3.5 and 10.5 passes over them).
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/small.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "small.sh: error: DIR: name a folder of images: DIR=/your/images $script" >&2; exit 2; }
SIZE=${SIZE:-32}
[[ $SIZE =~ ^[0-9]+$ ]] || { echo "small.sh: error: SIZE=$SIZE: not a whole number" >&2; exit 2; }
# Of 32 pixels the usual stem leaves one to the last stage. Of 64 it leaves four, and is four times as
# fast as the small stem.
arch=resnet18
if [ "$SIZE" -lt 64 ]; then arch=resnet18_small; fi
epochs=20
case ${METHOD:=deepcluster} in
deepcluster) variables="K=100 LR=0.03" flags="--reassign 4" ;;
deepercluster)  # an epoch is one pass, here four
    variables="K=100 LR=0.03" epochs=80 flags="--super_classes 4 --reassignment 4"
    if [ -z "${SOBEL+set}" ]; then variables="$variables SOBEL=--sobel"; fi
    ;;
swav | deepclusterv2)  # K fits the images: main.py says why
    variables="LR=0.05"
    flags="--nmb_crops 2 --size_crops $SIZE --min_scale_crops 0.3 --max_scale_crops 1 --optimizer sgd"
    if [ "$METHOD" = swav ]; then flags="$flags --epsilon 0.03"; fi
    ;;
*) echo "small.sh: error: METHOD=$METHOD: give deepcluster, deepclusterv2, swav or deepercluster" >&2; exit 2 ;;
esac
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export METHOD RECIPE="ARCH=$arch BATCH=64 EPOCHS=$epochs $variables"
export RECIPE_FLAGS="--size $SIZE $flags --probe 1"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
