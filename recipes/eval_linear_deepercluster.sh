#!/usr/bin/env bash
# Linear classifiers on the 13 conv layers of a frozen VGG-16, by the protocol of DeeperCluster's
# release.
#
#   DATA=/imagenet MODEL=ours.pth recipes/eval_linear_deepercluster.sh
#   DATA=/places205 PROTOCOL=deepercluster-places205 MODEL=ours.pth recipes/eval_linear_deepercluster.sh
#   DATA=/data/VOCdevkit PROTOCOL=deepercluster-voc MODEL=ours.pth recipes/eval_linear_deepercluster.sh
#
# MODEL is one of ./download_model.sh --deepercluster, or a VGG-16 of your own. DATA holds train/ and
# val/, as for eval_linear.sh, or is VOC 2007, of which layer 13 alone is the default. CONV="11 12 13"
# takes some layers. Uses all visible GPUs. Further flags go to eval_linear.py, and win.
# Expect of ours.pth on conv13: 45.6 % top-1 on ImageNet, 42.1 % on Places205, 73.0 % mAP on VOC 2007
# (published in Table 4 of PIRL, arXiv 1912.01991). None has been run or timed here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_linear_deepercluster.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
export PROTOCOL=${PROTOCOL:-deepercluster}
exec "$(dirname "$(readlink -f "$script")")/eval_linear_modelzoo.sh" "$@"
