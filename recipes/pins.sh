#!/usr/bin/env bash
# Makes the files of pins from pyproject.toml, with uv. Versions stay as they are where they fit.
#
#   recipes/pins.sh              after a change of pyproject.toml
#   recipes/pins.sh --upgrade    with the newest version of each package
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
command -v uv >/dev/null || { echo "pins.sh: error: needs uv: pip install uv" >&2; exit 2; }

upgrade=("$@")
from_torch_index='torch|torchvision|torchcodec'
only_cuda='faiss-gpu|triton|(nvidia|cuda)-[a-z0-9-]+'

pin() {  # a file, what it is for, arguments of uv; packages on stdin are added
    local file=$1 subject=$2
    shift 2
    echo "$file" >&2
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        ${upgrade[@]+"${upgrade[@]}"} pyproject.toml - -o "$file" "$@" >/dev/null
    { heading "$subject"; cat "$file"; } >"$file.new"
    mv "$file.new" "$file"
}

heading() {
    echo "# $1"
    echo "# For each platform and Python >= 3.11. Made on $(date -u +%F) from pyproject.toml, by recipes/pins.sh."
}

leave_out() {  # a pattern, files: the packages there whose names fit
    local pattern=$1
    shift
    sed -nE "s/^($pattern)==.*/--no-emit-package \1/p" "$@" | sort -u
}

all='[a-z0-9-]+'
base=requirements.txt images=requirements-images.txt
pin $base 'Training and evaluation; on Linux with CUDA.' </dev/null
pin requirements-cpu.txt 'The same without CUDA; see requirements-cpu-torch.txt, too.' \
    -c $base $(leave_out "$from_torch_index|$only_cuda" $base) <<<faiss-cpu
pin $images "What the extra 'images' adds." \
    --extra images -c $base $(leave_out "$all" $base) </dev/null
pin requirements-dev.txt 'What the tests add to these.' \
    --extra dev -c $base -c $images $(leave_out "$all" $base $images) </dev/null
{
    heading 'Beside requirements-cpu.txt, from an index of CPU wheels. Their hashes are that index'"'"'s.'
    grep -oE "^($from_torch_index)==[^ ;]+" $base
} >requirements-cpu-torch.txt
