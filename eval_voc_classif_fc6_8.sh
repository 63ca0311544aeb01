#!/usr/bin/env bash
# VOC 2007 classification: fc6 to fc8 are trained anew, on frozen convolutions.
#
#   VOCDIR=/data/VOCdevkit MODEL=exp/001/checkpoint.pth.tar ./eval_voc_classif_fc6_8.sh
#
# Further flags go to eval_voc_classif.py, and win: --seeds 31 32 33. SPLIT=train tests on val.
# The same command resumes an interrupted run.
#
# Any GPU. Without one about a day: 0.44 s an iteration on one busy core, in bf16.
# Expect of the released AlexNet: 70.4 mAP on test, and 72.0 with --train_batchnorm 1.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/eval_voc_classif_fc6_8.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

require VOCDIR "name the folder of VOC 2007" /data/VOCdevkit
require_model
absolute EXP
set_workers 4
launch 1 eval_voc_classif.py --vocdir "$VOCDIR" --model "$MODEL" --split "${SPLIT:-trainval}" \
    --fc6_8 "${FC6_8:-1}" --lr "${LR:-0.003}" --stepsize "${STEPSIZE:-5000}" --nit "${NIT:-150000}" \
    --batch "${BATCH:-16}" --workers "$WORKERS" ${EXP:+--exp "$EXP"} "$@"
