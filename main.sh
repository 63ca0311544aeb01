#!/usr/bin/env bash
# DeepCluster as in the paper: AlexNet on Sobel-filtered images, k-means with k = 10,000.
#
#   DIR=/imagenet/train ./main.sh        the paper's run
#   DIR=/your/images K=1000 ./main.sh    your images; see docs/own-images.md on k
#   ./main.sh                            scikit-learn's digits, scattered: minutes on a laptop
#
# METHOD=swav, deepclusterv2 or deepercluster trains another method, with main.py's settings for it; their
# published runs are recipes/swav.sh, recipes/deepclusterv2.sh and recipes/deepercluster.sh.
#
# Uses all visible GPUs, with one process each (fewer: CUDA_VISIBLE_DEVICES or PROCESSES). The processes
# share the batch and the WORKERS. Many machines: recipes/slurm.sh.
#
# Further flags go to main.py, and win: ./main.sh --resume exp/001/checkpoint.pth.tar --epochs 20
# A run that may be killed and restarted: EXP=exp/mine ./main.sh --resume auto
# The paper's Table 1 is 500 epochs (EPOCHS=500; 12 days on a P100); the flag's default is 200.
# Expect of 500 epochs on ImageNet: a linear probe on conv3 reaches 41 % top-1 (the paper's Table 1).
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail +o posix
script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then  # Slurm runs a copy, of a file that scontrol knows
    script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p') || true
    [ -f "$script" ] || script=$SLURM_SUBMIT_DIR/main.sh
    [ -f "$script" ] || { echo "${script##*/}: error: run sbatch in the repository's folder" >&2; exit 2; }
fi
. "$(dirname "$(readlink -f "$script")")/recipes/env.sh"

read_flags() {  # the values of --exp, --resume and --method, and whether there is an --init
    local before= word
    exp_flag= resume_flag= init_flag=
    for word in "$@"; do
        case $before in
        --exp) exp_flag=$word ;;
        --resume) resume_flag=$word ;;
        --method) METHOD=$word ;;
        esac
        case $word in
        --exp=*) exp_flag=${word#*=} ;;
        --resume=*) resume_flag=${word#*=} ;;
        --method=*) METHOD=${word#*=} ;;
        --init | --init=*) init_flag=yes ;;
        esac
        before=$word
    done
    if [ "$resume_flag" = auto ]; then
        [ -n "$exp_flag${EXP:-}" ] || fail "--resume auto: name the run's folder: EXP=exp/mine $script"
        # The first start needs all settings
        has_checkpoint "${exp_flag:-$EXP}" || resume_flag=
    fi
    resumed=
    if [ "$resume_flag" = auto ]; then
        resumed=${exp_flag:-$EXP}
    elif [ -n "$resume_flag" ]; then
        resumed=$(dirname "$resume_flag")
        if [ "$(basename "$resumed")" = checkpoints ]; then resumed=$(dirname "$resumed"); fi
    fi
}

data_of() {  # the images of the run in a folder; nothing if there is no such run
    [ -e "$1/config.json" ] || return 0
    "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1])).get("settings", {}).get("data", ""))' "$1/config.json"
}

absolute EXP
read_flags "$@"
embedded=${EMBEDDED:-}  # recipes/small.sh comes back with it
if [ -n "$embedded" ]; then
    DIR=$embedded/train
elif [ -z "${DIR:-}" ]; then
    DIR=$(data_of "$resumed")
    DIR=${DIR:-datasets/scattered/train}
    case $DIR in
    datasets/scattered/train) embedded=datasets/scattered scatter=--scattered ;;
    datasets/digits/train) embedded=datasets/digits scatter= ;;
    esac
    if [ -n "$embedded" ]; then
        # shellcheck disable=SC2086  # scatter may be nothing
        "$PYTHON" -m tools.make_digits "$embedded" $scatter
        # Of small images, reading takes about as long as training: half of the cores for each
        half=$((($(cores) + 1) / 2))
        WORKERS=${WORKERS:-$half}
        share_workers
        export PROCESSES=$processes  # which takes seconds to find where there are GPUs
        if [ "$processes" = 1 ]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$half}; fi
    fi
    if [ -z "$resume_flag" ]; then
        echo "$embedded is made from scikit-learn's handwritten digits: each four times, with a place," \
            "size and turn of its own. Method: ${METHOD:-deepcluster}."
    fi
    if [ "${METHOD:-deepcluster}" != deepcluster ]; then  # whose settings for few images are there
        if [ -z "$resume_flag" ]; then
            epochs=9  # passes of two crops
            if [ "$METHOD" = deepercluster ]; then epochs=28; fi
            export ARCH=${ARCH:-convnet_small} EPOCHS=${EPOCHS:-$epochs}
        fi
        export DIR METHOD WORKERS EMBEDDED=$embedded
        exec "$(dirname "$(readlink -f "$script")")/recipes/small.sh" "$@"
    fi
    if [ -z "$resume_flag" ]; then
        # 7 epochs are 28 passes over the images: docs/own-images.md
        ARCH=${ARCH:-convnet_small} SOBEL=${SOBEL-} K=${K:-50} LR=${LR:-0.2} BATCH=${BATCH:-64} EPOCHS=${EPOCHS:-7}
        set -- --reassign 4 --size 32 "$@"
    fi
else
    absolute DIR
fi

WORKERS=${WORKERS:-$(cores)}
if [ -z "$resume_flag" ]; then  # a resumed run keeps the settings that are not given
    own_arch=${ARCH:-} own_sobel=${SOBEL:-}
    for default in ${RECIPE:-}; do  # the settings of recipes/resnet50.sh, for example
        name=${default%%=*}
        [ -n "${!name:-}" ] || declare "$default"
    done
    set -- ${RECIPE_FLAGS:-} "$@"
    ARCH=${ARCH:-alexnet}
    BATCH=${BATCH:-256}
    if [ "${METHOD:-deepcluster}" = deepcluster ]; then
        K=${K:-10000}
        LR=${LR:-0.05}
        WD=${WD:--5}
        EPOCHS=${EPOCHS:-200}
        SOBEL=${SOBEL---sobel}
        set -- --clustering Kmeans "$@"
    else  # main.py has other defaults, and chooses K and LR for the images
        set -- --method "$METHOD" "$@"
    fi
    if [ -n "$init_flag" ]; then ARCH=$own_arch SOBEL=$own_sobel; fi  # the file has them
    set -- ${SOBEL:-} "$@"
fi
set -- ${ARCH:+--arch "$ARCH"} ${K:+--nmb_cluster "$K"} ${LR:+--lr "$LR"} ${WD:+--wd "$WD"} \
    ${BATCH:+--batch "$BATCH"} ${EPOCHS:+--epochs "$EPOCHS"} "$@"

# main.py could choose the folder, but the comparison below needs it, too.
if [ -n "$exp_flag" ]; then
    EXP=$exp_flag
elif [ -n "${EXP:-}" ]; then
    set -- --exp "$EXP" "$@"
elif [ -n "$resumed" ]; then
    EXP=$resumed
elif [ -n "$embedded" ]; then
    EXP=$("$PYTHON" -c 'from system import files; print(files.new_numbered_folder("exp"))' 2>/dev/null) \
        || fail "exp: cannot write there; give another folder: EXP=/some/folder $script"
    trap 'rmdir "$EXP" exp 2>/dev/null || true' EXIT  # if the run did not start
    set -- --exp "$EXP" "$@"
fi

share_workers
set -- "$processes" main.py "$DIR" --workers "$workers" --verbose "$@"
if [ -z "$embedded" ]; then launch "$@"; fi

(launch "$@")
if [ -e "$EXP/checkpoint.pth.tar" ]; then  # there is none after --help
    printf '\nThe trained network beside the untrained one:\n'
    "$PYTHON" -m tools.eval_quick --data "$embedded" --model "$EXP/checkpoint.pth.tar" --workers "$(cores)"
    printf '\nNext, some thousand small images of your own (docs/own-images.md):\n'
    printf '  DIR=/your/images recipes/small.sh\n'
fi
