#!/usr/bin/env bash
# DeeperCluster on a few thousand small images of your own, of 32 to 96 pixels: recipes/small.sh with METHOD=deepercluster.
#
#   DIR=/your/images recipes/deepercluster_small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 recipes/deepercluster_small.sh       more to see, and more kinds of it
#   DIR=/your/images recipes/deepercluster_small.sh --rotnet false    images without an upright side
#
# 4 super-classes: one super-cluster in 4 rotations. With 16, each of the sub-heads sees 4 images of a batch of
# 64, and the network learned less. K is the number of clusters, ten times that of the kinds that you
# expect. An epoch is one pass over the images; every 4 epochs there are new clusters. Look for rotations
# that are recognised better than by guessing (0.250), a loss below that of guessing, and no line that begins
# with "unhealthy:". docs/own-images.md compares it with the other methods; whole runs have not been timed.
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
