#!/usr/bin/env bash
# Downloads the released networks, AlexNet and VGG-16: checkpoint.pth.tar (PyTorch), model.caffemodel
# and model.prototxt (Caffe; tools/caffe reads them) of each. The repository that publishes these
# files is licensed under CC BY-NC 4.0.
#
#   ./download_model.sh                               into ~/deepcluster_models/{alexnet,vgg16}
#   MODELROOT=/data/models ARCHS=alexnet ./download_model.sh
#   ./download_model.sh --assignments                 also the published clusters of the images
#   ./download_model.sh --features                    also the published features, which
#                                                     python -m tools.cluster_features reads
#   ./download_model.sh --swav swav_800ep_pretrain    only this ResNet-50 of SwAV, into
#                                                     ~/deepcluster_models
#
# --deepclusterv2 NAME, --selav2 NAME and --deepercluster NAME likewise; an unknown name prints the
# published ones. --deepercluster alone downloads its four VGG-16s.
#
# Needs bash, and curl or wget. The same command resumes an interrupted download. The SHA-256 of each
# file is recorded in SHA256SUMS beside it, and checked each time. "Released models" in
# docs/checkpoints.md has the variables (MODELROOT, ARCHS, BASE, ASSIGNMENTS, FEATURES) and more.
#
# Exit status: 0 all files are there; 1 a download failed; 2 a file differs from its recorded SHA-256,
# a flag is wrong, or the folder is not writable.
[ -n "${BASH_VERSION:-}" ] || { echo "${0##*/}: error: needs bash: bash $0" >&2; exit 2; }
set -euo pipefail

MODELROOT=${MODELROOT:-$HOME/deepcluster_models}
BASE=${BASE:-https://dl.fbaipublicfiles.com/deepcluster}
# Paths below BASE. Whether the server has these names for the assignments could not be checked.
ASSIGNMENTS=${ASSIGNMENTS:-alexnet/alexnet_cluster_assignment.pickle \
    vgg16/vgg16_cluster_assignment.pickle}
FEATURES=${FEATURES:-alexnet/alexnet_features.pkl vgg16/vgg16_features.pkl}
# published names; the last of SwAV's is a linear classifier
SWAV="swav_100ep_pretrain swav_200ep_pretrain swav_400ep_pretrain swav_800ep_pretrain \
swav_200ep_bs256_pretrain swav_400ep_bs256_pretrain swav_400ep_2x224_pretrain \
swav_RN50w2_400ep_pretrain swav_RN50w4_400ep_pretrain swav_RN50w5_400ep_pretrain \
swav_800ep_eval_linear"
DEEPCLUSTERV2="deepclusterv2_400ep_pretrain deepclusterv2_400ep_2x224_pretrain \
deepclusterv2_800ep_pretrain"
SELAV2="selav2_400ep_pretrain selav2_400ep_2x224_pretrain"
DEEPERCLUSTER="ours deepcluster_flickr rotnet_flickr rotnet_imagenet"

fail() {  # exit status, message
    echo "${0##*/}: error: $2" >&2
    exit "$1"
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

transfer() {  # address, file; resumes, and makes five attempts
    local bar=--silent code tries=0
    if ! command -v curl >/dev/null; then
        wget --no-verbose --continue --tries=5 --waitretry=1 --timeout=60 \
            --retry-on-http-error=500,502,503,504 --output-document="$2" "$1"
        return
    fi
    if [ -t 2 ]; then bar=--progress-bar; fi
    # curl's --retry would discard the bytes of the attempt before
    until code=$(curl $bar --show-error --fail --location --connect-timeout 20 --speed-limit 1 \
        --speed-time 60 --continue-at - --write-out '%{http_code}' --output "$2" "$1"); do
        case $?-$code in
        33-*) rm -f "$2" ;;  # the server cannot resume: start over
        *-4??) return 1 ;;
        esac
        [ $((tries += 1)) -lt 5 ] || return 1
        sleep 1
    done
}

fetch() {  # a path below BASE
    local folder name recorded
    folder=$MODELROOT/$(dirname "$1") name=$(basename "$1")
    folder=${folder%/.}
    mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ] && cd "$folder" \
        || fail 2 "$folder: cannot write there; give another folder: MODELROOT=/some/folder $0"
    exec 9<.  # for the lock, which lasts until the next file or the end
    if command -v flock >/dev/null; then
        flock -n 9 || [ $? != 1 ] || fail 2 "$folder: another download into it is under way"
    fi
    touch SHA256SUMS
    recorded=$(awk -v name="$name" '$2 == name || $2 == "*" name {s = $1} END {print s}' SHA256SUMS)
    if ! [ -e "$name" ]; then
        transfer "$BASE/$1" ".$name.part" || fail 1 "$BASE/$1: the download failed, see above; the \
same command resumes it; BASE, ARCHS, ASSIGNMENTS and FEATURES name the files"
        if head -c 99 ".$name.part" | grep -qiE '<(!doctype|html)'; then
            rm ".$name.part"
            fail 1 "$BASE/$1: a web page comes instead of the file; does this network want a login?"
        fi
        if [ -n "$recorded" ] && ! sha256 --check --status <<<"$recorded  .$name.part"; then
            rm ".$name.part"
            fail 2 "$BASE/$1: its SHA-256 is not $recorded as in $folder/SHA256SUMS; if you want the \
new file, remove that line"
        fi
        mv ".$name.part" "$name"
    elif [ -n "$recorded" ] && ! sha256 --check --status <<<"$recorded  $name"; then
        fail 2 "$folder/$name: its SHA-256 is not $recorded as in SHA256SUMS beside it; remove the \
file to download it again"
    fi
    [ -n "$recorded" ] || sha256 "$name" >>SHA256SUMS
    echo "$folder/$name: $(($(wc -c <"$name"))) bytes, its SHA-256 is in SHA256SUMS"
}

add() {  # flag, published names, name, its folder and ending on the server
    case " $2 " in
    *" $3 "*) paths+=" ${4-}$3${5-.pth.tar}" archs= ;;
    *) fail 2 "$1 $3: not a published name; give one of $2" ;;
    esac
}

paths='' archs='alexnet vgg16'
while [ $# -gt 0 ]; do
    case $1 in
    --assignments) paths+=" $ASSIGNMENTS" ;;
    --features) paths+=" $FEATURES" ;;
    --swav) add "$1" "$SWAV" "${2-}"; shift ;;
    --deepclusterv2) add "$1" "$DEEPCLUSTERV2" "${2-}"; shift ;;
    --selav2) add "$1" "$SELAV2" "${2-}"; shift ;;
    --deepercluster)
        case ${2-} in '' | -*) names=$DEEPERCLUSTER ;; *) names=$2; shift ;; esac
        for name in $names; do add --deepercluster "$DEEPERCLUSTER" "$name" "${name%_*}/" .pth; done
        ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
    *) fail 2 "$1: not one of --assignments, --features, --swav NAME, --deepclusterv2 NAME, \
--selav2 NAME, --deepercluster [NAME], --help" ;;
    esac
    shift
done
networks=
for arch in ${ARCHS-$archs}; do
    networks+=" $arch/checkpoint.pth.tar $arch/model.caffemodel $arch/model.prototxt"
done
command -v curl wget >/dev/null || fail 2 "neither curl nor wget is installed; install one of them"
case $MODELROOT in /*) ;; *) MODELROOT=$PWD/$MODELROOT ;; esac
for path in $networks $paths; do fetch "$path"; done
