#!/usr/bin/env bash
# DeepCluster-v2 on a few thousand small images of your own, of 32 to 96 pixels: recipes/small.sh with METHOD=deepclusterv2.
#
#   DIR=/your/images recipes/deepclusterv2_small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/deepclusterv2_small.sh       more to see, and more kinds of it
#
# Two crops of SIZE pixels of an image. K is the number of clusters of each of three heads: ten times the
# number of kinds that you expect; without K, one for every 20 images.
# 20 epochs take one core without bf16 about 70 minutes for 3,000 images of 32 pixels, and 25 for 2,700 of 64
# (from 2 and 6 of them). Look for a loss below ln K, and for no line that begins with "unhealthy:". After
# these first epochs the networks were worse than untrained: docs/own-images.md has the numbers, and says why
# recipes/small.sh comes first.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/deepclusterv2_small.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "deepclusterv2_small.sh: error: DIR: name a folder of images: DIR=/your/images $script" >&2; exit 2; }
export METHOD=deepclusterv2
exec "$(dirname "$(readlink -f "$script")")/small.sh" "$@"
