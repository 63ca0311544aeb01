#!/usr/bin/env bash
# Linear classifiers on all layers of a frozen network, by the model zoos' protocol: batch norm before
# each, stronger crops and colours, a learning rate that falls in steps, one central crop.
#
#   DATA=/imagenet MODEL=exp/resnet50/checkpoint.pth.tar recipes/eval_linear_modelzoo.sh
#   DATA=/places205 PROTOCOL=modelzoo-places205 MODEL=... recipes/eval_linear_modelzoo.sh
#   DATA=/inat18 PROTOCOL=modelzoo-inat18 MODEL=... recipes/eval_linear_modelzoo.sh
#   DATA=/imagenet PROTOCOL=modelzoo-avgpool MODEL=... recipes/eval_linear_modelzoo.sh    average pool alone
#
# DATA holds train/ and val/, as for eval_linear.sh. PROTOCOL sets epochs, learning rate, weight decay
# and crops (see eval_linear.py); CONV="3 4" takes some layers. Uses all visible GPUs. Further flags go
# to eval_linear.py, and win.
# Expect of the zoo's ResNet-50, in % top-1, on layers 1 to 5: on ImageNet 12.78, 30.81, 43.88, 57.71
# and 51.68, on the average pool 46.92; on Places205 18.80, 33.93, 41.44, 47.22 and 42.61. Neither
# has been run or timed here.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/eval_linear_modelzoo.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/env.sh"

require DATA "name a folder with train/ and val/" /imagenet
require_model
absolute EXP
PROTOCOL=${PROTOCOL:-modelzoo}
set_workers 12
share_workers
# shellcheck disable=SC2086  # CONV may be several layers
launch "$processes" eval_linear.py --data "$DATA" --model "$MODEL" --protocol "$PROTOCOL" \
    --workers "$workers" --verbose ${CONV:+--conv $CONV} ${EXP:+--exp "$EXP"} "$@"
