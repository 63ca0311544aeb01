#!/usr/bin/env bash
# Some thousand small images of your own, of 32 to 96 pixels: ResNet-18 with a stem to match.
#
#   DIR=/your/images ./main_small.sh                     32 pixels
#   DIR=/your/images SIZE=64 K=200 ./main_small.sh       more to see, and more kinds of it
#
# README, "Your own images", has what to expect, and how to choose K, LR and EPOCHS. All else is as
# for main.sh, which this starts.
set -euo pipefail

[ -n "${DIR:-}" ] || { echo "main_small.sh: error: DIR: name a folder of images: DIR=/your/images $0" >&2; exit 2; }
case " $*" in
*" --res"*) ;;  # a run that goes on keeps its settings
*)
    SIZE=${SIZE:-32}
    # of 32 pixels the usual stem leaves a single one to the last stage; of 64 it leaves four, and is
    # four times as fast as the small one
    if [ "$SIZE" -lt 64 ]; then ARCH=${ARCH:-resnet18_small}; fi
    export ARCH=${ARCH:-resnet18} K=${K:-100} LR=${LR:-0.03} BATCH=${BATCH:-64} EPOCHS=${EPOCHS:-20}
    set -- --size "$SIZE" --reassign 4 --probe 1 "$@"
    ;;
esac
exec "$(dirname "${BASH_SOURCE[0]}")/main.sh" "$@"
