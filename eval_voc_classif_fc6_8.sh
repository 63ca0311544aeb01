#!/usr/bin/env bash
# VOC 2007 classification: fc6 to fc8 are trained anew, on features that stay as they are.
#
#   VOCDIR=/data/VOCdevkit MODEL=exp/001/checkpoint.pth.tar ./eval_voc_classif_fc6_8.sh
#
# Further flags go to eval_voc_classif.py, and win: --seeds 31 32 33. SPLIT=train tests on val.
# The same command goes on where it was cut.
#
# Any GPU. Without one about a day: 0.44 s an iteration on one busy core, in bf16.
# Expect of the released AlexNet: 70.4 mAP on test, and 72.0 with --train_batchnorm 1.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

[ -n "${VOCDIR:-}" ] || fail "VOCDIR: name the folder of VOC 2007: VOCDIR=/data/VOCdevkit $0"
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
SPLIT=${SPLIT:-trainval}
LR=${LR:-0.003}
STEPSIZE=${STEPSIZE:-5000}
NIT=${NIT:-150000}
BATCH=${BATCH:-16}
WORKERS=${WORKERS:-4}
if [ -n "${EXP:-}" ]; then absolute EXP; set -- --exp "$EXP" "$@"; fi

absolute VOCDIR MODEL
launch 1 eval_voc_classif.py --vocdir "$VOCDIR" --model "$MODEL" \
    --split "$SPLIT" --fc6_8 "${FC6_8:-1}" --lr "$LR" --stepsize "$STEPSIZE" --nit "$NIT" --batch "$BATCH" \
    --workers "$WORKERS" "$@"
