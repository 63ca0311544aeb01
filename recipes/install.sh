# Sourced by env.sh where PYTHON is not set: makes the environment VENV, or updates it if the pins
# change or an earlier attempt was interrupted. setup.sh describes the variables.

if [ -n "${VENV:-}" ]; then absolute VENV; else VENV=$PWD/.venv; fi
case ${base_python:-} in */*) absolute base_python ;; esac
record=$VENV/deepcluster-pins  # the pins that were installed, and "complete" if none is missing

choose_pins() {  # sets pins and torch_pins: what is asked for, and what the environment has already
    local extra
    for extra in ${extras:-}; do
        case $extra in images | dev) ;; *) fail "$extra: no such extra; there are images and dev" ;; esac
    done
    if [ -z "${TORCH:-}" ]; then
        if has cpu; then TORCH=cpu; else TORCH=cuda; fi
    fi
    torch_pins=
    case $TORCH in
    cuda) pins=(requirements.txt) ;;
    cpu) pins=(requirements-cpu.txt) torch_pins=requirements-cpu-torch.txt ;;
    *) fail "TORCH=$TORCH: must be cuda or cpu" ;;
    esac
    if asked images || asked dev || has images; then pins+=(requirements-images.txt); fi
    if asked dev || has dev; then pins+=(requirements-dev.txt); fi
}

has() { [ -f "$record/requirements-$1.txt" ]; }
asked() { [[ " ${extras:-} " = *" $1 "* ]]; }

is_complete() {
    local name
    [ -f "$record/complete" ] && python_fits || return
    for name in "${pins[@]}" $torch_pins; do
        [ "$(<"$name")" = "$(cat "$record/$name" 2>/dev/null)" ] || return
    done
}

python_fits() {  # the environment's Python runs, and is of the version that setup.sh was asked for
    "$VENV/bin/python" -c '' 2>/dev/null || return
    [ -z "${base_python:-}" ] || [ "$("$VENV/bin/python" -V)" = "$("$base_python" -V)" ]
}

check_place() {  # making the environment deletes what its folder has
    if [ "$VENV" != "$PWD/.venv" ] && ! [ -d "$record" ] && [ -n "$(ls -A "$VENV" 2>/dev/null)" ]; then
        fail "VENV=$VENV: not an environment of these scripts; name a new folder"
    fi
}

set_up() {
    local base
    check_place
    if [ -n "$torch_pins" ]; then find_cpu_wheels; fi
    if ! [ -f "$record/complete" ] || ! python_fits; then
        base=$(find_python) || exit
        "$base" -m venv --clear "$VENV" >&2 || {
            mkdir -p "$record"
            fail "$base cannot make a virtual environment; on Debian: apt install python3-venv"
        }
    fi
    echo "Setting up ${VENV#"$PWD/"} from ${pins[*]}${torch_pins:+ $torch_pins} (once; some minutes) ..." >&2
    mkdir -p "$record"
    rm -f "$record"/*
    cp "${pins[@]}" $torch_pins "$record"
    install_packages || fail "installing the packages failed, see above; run $script again to retry"
    touch "$record/complete"
}

find_cpu_wheels() {  # sets cpu_wheels, the arguments with which pip finds them
    case ${TORCH_INDEX:-} in
    '') fail "TORCH=cpu: name an index or a folder of PyTorch's CPU wheels in TORCH_INDEX; see docs/installing.md" ;;
    *://*) cpu_wheels=(--index-url "$TORCH_INDEX") ;;
    *)
        absolute TORCH_INDEX
        [ -d "$TORCH_INDEX" ] || fail "TORCH_INDEX=$TORCH_INDEX: no such folder"
        cpu_wheels=(--no-index --find-links "$TORCH_INDEX")
        ;;
    esac
}

find_python() {  # the one asked for, or the first >= 3.11 on the PATH, but not the environment's
    local name path
    if [ -n "${base_python:-}" ]; then
        is_recent "$base_python" || fail "PYTHON=$base_python: is no Python of version 3.11 or newer"
        echo "$base_python"
        return
    fi
    for name in python3 python python3.14 python3.13 python3.12 python3.11; do
        while read -r path; do
            if ! [ "${path%/*}" -ef "$VENV/bin" ] && is_recent "$path"; then
                echo "$path"
                return
            fi
        done < <(type -ap "$name")
    done
    fail "no Python of version 3.11 or newer found; install one, or name one: PYTHON=/path/to/python $script"
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# With uv, which takes a third of pip's time. If it fails, with pip, which reads pip.conf.
install_packages() {
    local python=$VENV/bin/python quiet=--quiet
    if [ -t 1 ]; then quiet=; fi
    local pip=("$python" -m pip install --disable-pip-version-check)
    if ! "${pip[@]}" --quiet uv 2>/dev/null \
        || ! "$python" -m uv pip sync $quiet --require-hashes --python "$python" "${pins[@]}"; then
        echo "Installing with pip, since uv failed ..." >&2
        "${pip[@]}" $quiet --no-deps --require-hashes "${pins[@]/#/-r}" || return
    fi
    if [ -n "$torch_pins" ]; then
        "${pip[@]}" $quiet --no-deps "${cpu_wheels[@]}" -r "$torch_pins" || return
        "$python" -c 'import sys, torch, torchvision; sys.exit(torch.version.cuda is not None)' \
            || fail "TORCH_INDEX: its PyTorch is not one for CPUs"
    fi
}

choose_pins
if ! is_complete; then
    [ -e "$VENV.lock" ] || check_place  # where another script makes it now, there is a lock
    # Only one script at a time sets up (not checked on machines without flock)
    { mkdir -p "$(dirname "$VENV")" && exec 9>"$VENV.lock"; } 2>/dev/null \
        || fail "VENV=$VENV: cannot write there; name another folder"
    if command -v flock >/dev/null; then flock 9; fi
    is_complete || set_up
    exec 9>&-
fi
PYTHON=$VENV/bin/python
