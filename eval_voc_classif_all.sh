#!/usr/bin/env bash
# VOC 2007 classification: fc6 to fc8 are trained anew, together with all convolutions.
#
#   VOCDIR=/data/VOCdevkit MODEL=exp/001/checkpoint.pth.tar ./eval_voc_classif_all.sh
#
# Further flags go to eval_voc_classif.py, and win: --seeds 31 32 33. SPLIT=train tests on val.
# The same command resumes an interrupted run.
#
# Any GPU. Without one about two days: 0.89 s an iteration on one busy core, in bf16.
# Expect of the paper's AlexNet: 73.7 mAP on test (its Table 3).
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/eval_voc_classif_all.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
export FC6_8=0 LR=${LR:-0.001} STEPSIZE=${STEPSIZE:-20000}
exec "$(dirname "$(readlink -f "$script")")/eval_voc_classif_fc6_8.sh" "$@"
