#!/usr/bin/env bash
# Linear classifiers on all conv layers of a frozen network, as in the paper's Table 1.
#
#   DATA=/imagenet MODEL=exp/alexnet/checkpoint.pth.tar ./eval_linear.sh
#   DATA=/places205 MODEL=... CONV="3 4" ./eval_linear.sh
#   ./eval_linear.sh                     the digits, with the newest network in exp/: minutes
#
# DATA holds train/ and val/, with a folder for each class (ImageNet, Places205, iNaturalist 2018,
# your own), or is the unpacked Tiny-ImageNet. Uses all visible GPUs.
# Expect of the released AlexNet on ImageNet: top-1 of 41.0 % on conv3 (the paper's Table 1).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/recipes/env.sh"

if [ -z "${DATA:-}" ]; then
    DATA=datasets/digits
    "$PYTHON" -m tools.make_digits "$DATA"
    absolute MODEL
    MODEL=${MODEL:-$(ls -t exp/*/checkpoint.pth.tar 2>/dev/null | head -n 1 || true)}
    [ -n "$MODEL" ] || fail "no network in exp/ yet: run ./main.sh first, or name one in MODEL"
    EPOCHS=${EPOCHS:-5} WORKERS=${WORKERS:-2}
    set -- --size 96 --untrained --batch_size 64 "$@"
else
    absolute DATA
    require_model
fi

absolute EXP
WORKERS=${WORKERS:-12}
share_workers
# shellcheck disable=SC2086  # CONV may be several layers
launch "$processes" eval_linear.py --data "$DATA" --model "$MODEL" --conv ${CONV:-all} \
    --lr "${LR:-0.01}" --wd="${WD:--7}" --tencrops --epochs "${EPOCHS:-90}" --workers "$workers" \
    --verbose ${EXP:+--exp "$EXP"} "$@"
