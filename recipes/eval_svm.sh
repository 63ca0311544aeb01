#!/usr/bin/env bash
# Linear SVMs on VOC 2007, and low-shot SVMs, on every conv layer of a frozen network.
#
#   VOCDIR=/data/VOCdevkit MODEL=exp/001/checkpoint.pth.tar recipes/eval_svm.sh
#   VOCDIR=... MODEL=... recipes/eval_svm.sh --conv 4 --k        one layer, without low-shot: minutes
#
# VOC 2007 with its test annotations: VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar, unpacked
# in the same place. Results: svm/svm.json beside the model, or in EXP.
# The forward pass uses a GPU if there is one; the SVMs run on the CPU: for each layer, ten minutes of
# one core for the SVMs, and three hours for low-shot. AlexNet's five layers then take an hour on 16
# cores (summed up from single SVMs on random rows of the full size). The same command resumes an
# interrupted run. The paper has no number to expect.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_svm.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

require VOCDIR "name the folder of VOC 2007" /data/VOCdevkit
require_model
absolute EXP
set_workers 12

launch 1 eval_svm.py --vocdir "$VOCDIR" --model "$MODEL" --workers "$WORKERS" --verbose \
    ${EXP:+--exp "$EXP"} "$@"
