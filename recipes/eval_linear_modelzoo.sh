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
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

require DATA "name a folder with train/ and val/" /imagenet
require_model
absolute EXP
PROTOCOL=${PROTOCOL:-modelzoo}
WORKERS=${WORKERS:-12}
share_workers
# shellcheck disable=SC2086  # CONV may be several layers
launch "$processes" eval_linear.py --data "$DATA" --model "$MODEL" --protocol "$PROTOCOL" \
    --workers "$workers" --verbose ${CONV:+--conv $CONV} ${EXP:+--exp "$EXP"} "$@"
