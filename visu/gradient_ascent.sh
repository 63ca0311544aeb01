#!/usr/bin/env bash
# Pictures that the filters of a conv layer respond to, by gradient ascent (the paper's Figure 4).
#
#   MODEL=exp/001/checkpoint.pth.tar CONV=1 visu/gradient_ascent.sh
#   cd visu && MODEL=../exp/001/checkpoint.pth.tar EXP=pictures CONV="4 5" ./gradient_ascent.sh --preset conv5
#
# Results go to EXP, by default visu/ beside the checkpoint. Runs on one GPU, or for minutes to hours
# on a CPU, depending on the layer. Further flags are passed to gradient_ascent.py and win.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../recipes/env.sh"

[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
absolute MODEL
if [ -n "${EXP:-}" ]; then absolute EXP; else EXP=${MODEL%/*}/visu; fi

# shellcheck disable=SC2086  # CONV may be several layers
launch 1 visu/gradient_ascent.py --model "$MODEL" --exp "$EXP" --conv ${CONV:-1} "$@"
