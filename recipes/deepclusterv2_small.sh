#!/usr/bin/env bash
# DeepCluster-v2 on a few thousand small images of your own, of 32 to 96 pixels: recipes/small.sh with METHOD=deepclusterv2.
#
#   DIR=/your/images recipes/deepclusterv2_small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/deepclusterv2_small.sh       more to see, and more kinds of it
#
# Two crops of SIZE pixels of an image. K is the number of clusters of each of three heads: ten times the
# number of kinds that you expect; without K, one for every 20 images.
# Look for a loss below ln K, and for no line that begins with "unhealthy:". In five minutes
# on one core it learned less than recipes/small.sh (docs/own-images.md); whole runs have not been timed.
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
