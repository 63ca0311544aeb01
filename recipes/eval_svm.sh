#!/usr/bin/env bash
# Linear SVMs on VOC 2007, and low-shot SVMs, on every conv layer of a frozen network.
#
#   VOCDIR=/data/VOCdevkit MODEL=exp/001/checkpoint.pth.tar recipes/eval_svm.sh
#   VOCDIR=... MODEL=... recipes/eval_svm.sh --conv 4 --k        one layer, without low-shot: minutes
#
# VOC 2007 with its test annotations: VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar, unpacked
# in the same place. Results: svm/svm.json beside the model, or EXP.
# A GPU is taken for the forward pass where there is one; the SVMs are the cores' work: for each layer,
# ten minutes of one core for the SVMs, and three hours for low-shot. AlexNet's five layers are then an
# hour on 16 cores (summed up from single SVMs on random rows of the full size). What is done is kept:
# the same command goes on after an interruption. The paper has no number to expect.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[ -n "${VOCDIR:-}" ] || fail "VOCDIR: name the folder of VOC 2007: VOCDIR=/data/VOCdevkit $0"
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
absolute VOCDIR MODEL
WORKERS=${WORKERS:-12}
if [ -n "${EXP:-}" ]; then absolute EXP; set -- --exp "$EXP" "$@"; fi

launch 1 eval_svm.py --vocdir "$VOCDIR" --model "$MODEL" --workers "$WORKERS" --verbose "$@"
