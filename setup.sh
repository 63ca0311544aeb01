#!/usr/bin/env bash
# Installs the pinned packages, and does nothing else. The other scripts do the same on first use.
#
#   ./setup.sh           what training and evaluation need, into .venv; on Linux with CUDA
#   ./setup.sh images    the same and timm and pyarrow; ./setup.sh dev: all that ./test.sh needs
#
# VENV=/scratch/me/dc    another folder for the environment; export it, since the other scripts need it, too
# PYTHON=python3.13      the Python that makes the environment
# TORCH=cpu              without CUDA. TORCH_INDEX names an index or a folder that has the CPU wheels of
#                        torch, torchvision and TorchCodec. TORCH=cuda goes back.
#
# Expect 7 GB with CUDA, about 1.4 GB without.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/setup.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
base_python=${PYTHON:-} extras=$*
unset PYTHON
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

echo "$VENV is ready: $("$PYTHON" -V), $TORCH"
