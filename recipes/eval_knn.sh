#!/usr/bin/env bash
# Val images by their nearest neighbours among the train images, on the embedding of a network.
#
#   DATA=/imagenet MODEL=exp/001/checkpoint.pth.tar recipes/eval_knn.sh
#
# DATA holds train/ and val/, as for eval_linear.sh. Nothing is trained: one pass over the images. On a
# machine with several GPUs it takes them all. The papers have no number to expect.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[ -n "${DATA:-}" ] || fail "DATA: name a folder with train/ and val/: DATA=/imagenet $0"
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $0"
absolute DATA MODEL
WORKERS=${WORKERS:-12}
if [ -n "${EXP:-}" ]; then absolute EXP; set -- --exp "$EXP" "$@"; fi

processes=$(count_processes)
workers=$(share_of "$WORKERS" "$processes")
launch "$processes" eval_knn.py --data "$DATA" --model "$MODEL" --workers "$workers" --verbose "$@"
