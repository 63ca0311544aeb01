#!/usr/bin/env bash
# Pictures that the filters of a conv layer respond to, by gradient ascent (the paper's Figure 4).
#
#   MODEL=exp/001/checkpoint.pth.tar CONV=1 visu/gradient_ascent.sh
#   cd visu && MODEL=../exp/001/checkpoint.pth.tar EXP=pictures CONV="4 5" ./gradient_ascent.sh --preset conv5
#
# Results go to EXP, by default visu/ beside the checkpoint. Runs on one GPU, or for minutes to hours
# on a CPU, depending on the layer. Further flags are passed to gradient_ascent.py and win.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/visu/gradient_ascent.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/../recipes/env.sh"

[ -n "${MODEL:-}" ] || fail "MODEL: name a checkpoint: MODEL=exp/001/checkpoint.pth.tar $script"
absolute MODEL
if [ -n "${EXP:-}" ]; then absolute EXP; else EXP=${MODEL%/*}/visu; fi

# shellcheck disable=SC2086  # CONV may be several layers
launch 1 visu/gradient_ascent.py --model "$MODEL" --exp "$EXP" --conv ${CONV:-1} "$@"
