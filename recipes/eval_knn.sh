#!/usr/bin/env bash
# Classifies val images by their nearest neighbours among the train images, on a network's embedding.
#
#   DATA=/imagenet MODEL=exp/001/checkpoint.pth.tar recipes/eval_knn.sh
#
# DATA holds train/ and val/, as for eval_linear.sh. Nothing is trained: one pass over the images. Uses
# all visible GPUs. The paper has no number to expect.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

require DATA "name a folder with train/ and val/" /imagenet
require_model
absolute EXP
WORKERS=${WORKERS:-12}
share_workers
launch "$processes" eval_knn.py --data "$DATA" --model "$MODEL" --workers "$workers" --verbose \
    ${EXP:+--exp "$EXP"} "$@"
