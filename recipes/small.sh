#!/usr/bin/env bash
# A few thousand small images of your own, of 32 to 96 pixels: ResNet-18 with a stem to match.
#
#   DIR=/your/images recipes/small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/small.sh       more to see, and more kinds of it
#
# docs/own-images.md says what to expect and how to choose K, LR and EPOCHS. The rest is as in main.sh,
# which this starts.
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
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=$arch K=100 LR=0.03 BATCH=64 EPOCHS=20"
export RECIPE_FLAGS="--size $SIZE --reassign 4 --probe 1"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
