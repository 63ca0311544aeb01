#!/usr/bin/env bash
# The images that each filter of a conv layer responds to most, as in the paper's Figure 4.
#
#   DATA=/imagenet/train MODEL=exp/001/checkpoint.pth.tar CONV=5 visu/activ-retrieval.sh
#   cd visu && DATA=../images MODEL=../exp/001/checkpoint.pth.tar EXP=pictures ./activ-retrieval.sh
#
# Results go to EXP, by default visu/ beside the checkpoint. Runs on one GPU, or on a CPU at a few
# hundred images a second. Further flags are passed to activ-retrieval.py and win.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/visu/activ-retrieval.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/../recipes/env.sh"

[ -n "${DATA:-}" ] || fail "DATA: name the images: DATA=/imagenet/train $script"
[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $script"
absolute DATA MODEL
if [ -n "${EXP:-}" ]; then absolute EXP; else EXP=${MODEL%/*}/visu; fi
set_workers 4

# shellcheck disable=SC2086  # CONV may be several layers
launch 1 visu/activ-retrieval.py --data "$DATA" --model "$MODEL" --exp "$EXP" --conv ${CONV:-1} \
    --workers "$WORKERS" "$@"
