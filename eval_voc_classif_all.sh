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
set -euo pipefail
FC6_8=0 LR=${LR:-0.001} STEPSIZE=${STEPSIZE:-20000}
. "$(dirname "${BASH_SOURCE[0]}")/eval_voc_classif_fc6_8.sh"
