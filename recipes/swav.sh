#!/usr/bin/env bash
# SwAV as published: ResNet-50, 3,000 prototypes, two crops of 224 pixels and six of 96.
#
#   DIR=/imagenet/train sbatch --nodes 8 recipes/slurm.sh recipes/swav.sh     400 epochs, batch 4,096
#   EPOCHS=800                         or 100, 200
#   CROPS=2x224                        400 epochs without the small crops
#   BATCH=256 EPOCHS=200               or 400: one machine, with a queue; then recipes/swav.sh alone
#   ARCH=resnet50w2                    400 epochs of the network of twice the width, with 2 x 224 + 4 x 96;
#                                      published on 128 GPUs, without hours
#
# main.py finds the rest from the number of images, and says so; for ImageNet it is as published: of
# batch 4,096 lr 4.8 after 10 epochs from 0.3, of batch 256 lr 0.6 and a queue of 3,840 from epoch 15.
#
# Published hours, with fp16: batch 4,096 on 64 V100 3 min 40 s an epoch (100 epochs 6 h, 800 epochs
# 49 h); batch 256 on 4 GPUs 52 min 10 s an epoch (200 epochs 7.2 days).
# Expect on ImageNet, from eval_linear.py --protocol swav, top-1, as published:
#   batch 4,096: 72.1 (100 epochs), 73.9 (200), 74.6 (400), 75.3 (800); CROPS=2x224 70.1;
#   ARCH=resnet50w2 77.3; batch 256: 72.7 (200), 74.3 (400).
# It has not been run here. docs/methods/swav.md says what differs from the released code.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/recipes/swav.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi

[ -n "${DIR:-}" ] || { echo "swav.sh: error: DIR: name a folder of images: DIR=/imagenet/train $script" >&2; exit 2; }
export METHOD=swav
crops=2x224+6x96 hidden=2048
if [ "${ARCH:-}" = resnet50w2 ]; then crops=2x224+4x96 hidden=8192; fi
case ${CROPS:=$crops} in
2x224) flags="--nmb_crops 2 --size_crops 224 --min_scale_crops 0.08 --max_scale_crops 1" ;;
2x224+[46]x96)
    small=${CROPS:6:1}
    flags="--nmb_crops 2 $small --size_crops 224 96 --min_scale_crops 0.14 0.05 --max_scale_crops 1 0.14"
    ;;
*) echo "swav.sh: error: CROPS=$CROPS: give 2x224, 2x224+4x96 or 2x224+6x96" >&2; exit 2 ;;
esac
# main.sh applies these to new runs only: a resumed run keeps the settings that are not given
export RECIPE="ARCH=resnet50 BATCH=4096 EPOCHS=400" RECIPE_FLAGS="$flags --hidden_mlp $hidden"
exec "$(dirname "$(readlink -f "$script")")/../main.sh" "$@"
