#!/usr/bin/env bash
# Fine-tunes a whole network on all labelled images or some of them, by the protocol of SwAV, VISSL or
# DeeperCluster.
#
#   DATA=/imagenet MODEL=exp/resnet50/checkpoint.pth.tar PERCENT=1 recipes/eval_semisup.sh
#   DATA=/imagenet MODEL=... SUBSET=10percent.txt recipes/eval_semisup.sh        the images of a list
#   DATA=/imagenet MODEL=... PROTOCOL=vissl PERCENT=10 recipes/eval_semisup.sh
#   DATA=/imagenet MODEL=ours.pth PROTOCOL=deepercluster recipes/eval_semisup.sh --sobel2rgb
#
# DATA holds train/ and val/, as for eval_linear.sh. Without PERCENT and SUBSET all images are used.
# --sobel2rgb merges the Sobel filters of a network into its first convolution; leave it out for
# networks without Sobel filters. Uses all visible GPUs. Further flags go to eval_semisup.py, and win.
# The same command resumes after the last whole epoch.
# Expect of ours.pth on ImageNet, with all labels and PROTOCOL=deepercluster: 74.9 % top-1 (the paper's
# abstract). Not run or timed here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_semisup.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

require DATA "name a folder with train/ and val/" /imagenet
require_model
absolute SUBSET EXP
PROTOCOL=${PROTOCOL:-swav}
set_workers 12
share_workers
launch "$processes" eval_semisup.py --data "$DATA" --model "$MODEL" --protocol "$PROTOCOL" \
    --workers "$workers" --verbose ${PERCENT:+--percent "$PERCENT"} ${SUBSET:+--subset "$SUBSET"} \
    ${EXP:+--exp "$EXP"} "$@"
