#!/usr/bin/env bash
# VOC 2007 classification by the protocol of DeeperCluster's release: fc6 to fc8 are trained anew, on
# frozen convolutions, or together with them.
#
#   VOCDIR=/data/VOCdevkit MODEL=ours.pth recipes/eval_voc_deepercluster.sh
#   VOCDIR=/data/VOCdevkit MODEL=ours.pth FC6_8=0 recipes/eval_voc_deepercluster.sh      all layers
#
# MODEL is one of ./download_model.sh --deepercluster, or a network of your own. Further flags go to
# eval_voc_classif.py, and win: --seeds 31 32 33 34 35. SPLIT=train tests on val. The same command
# resumes an interrupted run.
#
# Any GPU. Not run or timed here; the published figures could not be checked.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_voc_deepercluster.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

require VOCDIR "name the folder of VOC 2007" /data/VOCdevkit
require_model
absolute EXP
set_workers 4
launch 1 eval_voc_classif.py --vocdir "$VOCDIR" --model "$MODEL" --protocol deepercluster \
    --split "${SPLIT:-trainval}" --fc6_8 "${FC6_8:-1}" --workers "$WORKERS" ${EXP:+--exp "$EXP"} "$@"
