#!/usr/bin/env bash
# Linear classifiers on all conv layers of a frozen network, as in the paper's Table 1.
#
#   DATA=/imagenet MODEL=exp/alexnet/checkpoint.pth.tar ./eval_linear.sh
#   DATA=/places205 MODEL=... CONV="3 4" ./eval_linear.sh
#   ./eval_linear.sh                     the digits, with the newest network in exp/: minutes
#
# DATA holds train/ and val/, with a folder for each class (ImageNet, Places205, iNaturalist 2018,
# your own), or is the unpacked Tiny-ImageNet. On a machine with several GPUs it takes them all.
# Expect of the released AlexNet on ImageNet: top-1 of 41.0 % on conv3 (the paper's Table 1).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

if [ -z "${DATA:-}" ]; then
    DATA=datasets/digits
    "$PYTHON" -m tools.make_digits "$DATA"
    if [ -z "${MODEL:-}" ]; then
        MODEL=$(ls -t exp/*/checkpoint.pth.tar 2>/dev/null | head -n 1 || true)
        [ -n "$MODEL" ] || fail "no network in exp/ yet: run ./main.sh first, or name one in MODEL"
    else
        absolute MODEL
    fi
    EPOCHS=${EPOCHS:-5} WORKERS=${WORKERS:-2}
    set -- --size 96 --untrained --batch_size 64 "$@"
else
    absolute DATA
    [ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
    absolute MODEL
fi

CONV=${CONV:-all}
LR=${LR:-0.01}
WD=${WD:--7}
EPOCHS=${EPOCHS:-90}
WORKERS=${WORKERS:-12}
if [ -n "${EXP:-}" ]; then absolute EXP; set -- --exp "$EXP" "$@"; fi

processes=$(count_processes)
workers=$(share_of "$WORKERS" "$processes")
# shellcheck disable=SC2086  # CONV may be several layers
launch "$processes" eval_linear.py --data "$DATA" --model "$MODEL" --conv $CONV --lr "$LR" \
    --wd="$WD" --tencrops --epochs "$EPOCHS" --workers "$workers" --verbose "$@"
