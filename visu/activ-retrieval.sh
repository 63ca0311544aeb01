#!/usr/bin/env bash
# The images that each filter of a conv layer responds to most, as in the paper's Figure 4.
#
#   DATA=/imagenet/train MODEL=exp/001/checkpoint.pth.tar CONV=5 visu/activ-retrieval.sh
#   cd visu && DATA=../images MODEL=../exp/001/checkpoint.pth.tar EXP=pictures ./activ-retrieval.sh
#
# Results go to EXP, by default visu/ beside the checkpoint. Runs on one GPU, or on a CPU at a few
# hundred images a second. Further flags are passed to activ-retrieval.py and win.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../recipes/env.sh"

[ -n "${DATA:-}" ] || fail "DATA: name the images: DATA=/imagenet/train $0"
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
absolute DATA MODEL
if [ -n "${EXP:-}" ]; then absolute EXP; else EXP=${MODEL%/*}/visu; fi

# shellcheck disable=SC2086  # CONV may be several layers
launch 1 visu/activ-retrieval.py --data "$DATA" --model "$MODEL" --exp "$EXP" --conv ${CONV:-1} \
    --workers "${WORKERS:-4}" "$@"
