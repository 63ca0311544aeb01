#!/usr/bin/env bash
# DeeperCluster on a few thousand small images of your own, of 32 to 96 pixels: recipes/small.sh with METHOD=deepercluster.
#
#   DIR=/your/images recipes/deepercluster_small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/deepercluster_small.sh       more to see, and more kinds of it
#   DIR=/your/images recipes/deepercluster_small.sh --rotnet false --super_classes 4    images without an upright side
#
# 16 super-classes: 4 super-clusters, each in 4 rotations. K is the number of clusters in all, ten times that
# of the kinds that you expect. An epoch is one pass over the images; every 4 epochs there are new clusters.
# Look for rotations that are recognised better than by guessing (0.250), a loss below that of guessing, and no line
# that begins with "unhealthy:". In five
# minutes on one core it learned less than recipes/small.sh (docs/own-images.md); whole runs have not been timed.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/deepercluster_small.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "deepercluster_small.sh: error: DIR: name a folder of images: DIR=/your/images $script" >&2; exit 2; }
export METHOD=deepercluster
exec "$(dirname "$(readlink -f "$script")")/small.sh" "$@"
