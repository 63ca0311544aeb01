#!/usr/bin/env bash
# The model zoo's DeepCluster: ResNet-50 on Sobel-filtered images, k-means with k = 10,000.
#
#   DIR=/imagenet/train ./main_resnet50.sh
#
# 200 epochs, batch 512 in all, lr 0.1, weight decay 1e-5, stronger crops and colours than the
# paper's. SOBEL= leaves the Sobel filters out. On a machine with several GPUs it takes them all;
# many machines: SCRIPT as for main_slurm.sh, see there. Further flags go to main.py, and win.
# Expect on ImageNet, of the zoo's: linear probes of 12.8, 30.8, 43.9, 57.7 and 51.7 % top-1 on
# layers 1 to 5, and 74.3 mAP with SVMs on VOC 2007; it has not been run here.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[ -n "${DIR:-}" ] || fail "DIR: name a folder of images: DIR=/imagenet/train $0"
DIR=$(absolute "$DIR")
K=${K:-10000}
LR=${LR:-0.1}
WD=${WD:--5}
BATCH=${BATCH:-512}
EPOCHS=${EPOCHS:-200}
SOBEL=${SOBEL---sobel}
cores=$(getconf _NPROCESSORS_ONLN)
WORKERS=${WORKERS:-$((cores > 12 ? cores : 12))}
if [ -n "${EXP:-}" ]; then set -- --exp "$(absolute "$EXP")" "$@"; fi

processes=$(count_processes)
workers=$(share_of "$WORKERS" "$processes")
launch "$processes" main.py "$DIR" --arch "${ARCH:-resnet50}" $SOBEL --nmb_cluster "$K" --lr "$LR" \
    --wd "$WD" --batch "$BATCH" --epochs "$EPOCHS" --transforms modelzoo --workers "$workers" \
    --verbose "$@"
