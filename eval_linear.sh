#!/usr/bin/env bash
# Linear classifiers on all conv layers of a frozen network, as in the paper's Table 1.
#
#   DATA=/imagenet MODEL=exp/alexnet/checkpoint.pth.tar ./eval_linear.sh
#   DATA=/places205 MODEL=... CONV="3 4" ./eval_linear.sh
#   ./eval_linear.sh                     ./main.sh's digits, with the newest network in exp/: minutes
#
# DATA holds train/ and val/, with a folder for each class (ImageNet, Places205, iNaturalist 2018,
# your own), or is the unpacked Tiny-ImageNet. Uses all visible GPUs.
# Expect of the released AlexNet on ImageNet: top-1 of 41.0 % on conv3 (the paper's Table 1).
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/eval_linear.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

if [ -z "${DATA:-}" ]; then
    DATA=datasets/scattered
    "$PYTHON" -m tools.make_digits "$DATA" --scattered
    absolute MODEL
    MODEL=${MODEL:-$(ls -t exp/*/checkpoint.pth.tar 2>/dev/null | head -n 1 || true)}
    [ -n "$MODEL" ] || fail "no network in exp/ yet: run ./main.sh first, or name one in MODEL"
    EPOCHS=${EPOCHS:-5} WORKERS=${WORKERS:-2}
    set -- --size 32 --untrained --batch_size 64 "$@"
else
    absolute DATA
    require_model
fi

absolute EXP
set_workers 12
share_workers
# shellcheck disable=SC2086  # CONV may be several layers
launch "$processes" eval_linear.py --data "$DATA" --model "$MODEL" --conv ${CONV:-all} \
    --lr "${LR:-0.01}" --wd="${WD:--7}" --tencrops --epochs "${EPOCHS:-90}" --workers "$workers" \
    --verbose ${EXP:+--exp "$EXP"} "$@"
