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
#
# Needs bash, and curl or wget. An interrupted download resumes when you give the same command again;
# files that are there already are checked and kept. Each file must have the size that the server
# states. Its SHA-256 is recorded in SHA256SUMS beside it and must stay the same. If you know a file's
# SHA-256 already, put it there first, as `sha256sum` prints it.
#
# Variables: MODELROOT, ARCHS, BASE, ASSIGNMENTS, FEATURES, RETRIES, WAIT; see "Released models" in
# docs/checkpoints.md.
#
# Exit status: 0 all files are there; 1 the network or the server does not give them; 2 a file differs
# from its recorded SHA-256 or the server's size, a setting is wrong, or the folder is not writable.
set -euo pipefail

MODELROOT=${MODELROOT:-$HOME/deepcluster_models}
BASE=${BASE:-https://dl.fbaipublicfiles.com/deepcluster}
ARCHS=${ARCHS-alexnet vgg16}
RETRIES=${RETRIES:-5}  # attempts, counted anew from one that gets further on
WAIT=${WAIT:-5}        # seconds between two of them

# Paths below BASE. The names of the assignments could not be checked where this was written: if the
# server has others, give those.
ASSIGNMENTS=${ASSIGNMENTS:-alexnet/alexnet_cluster_assignment.pickle \
    vgg16/vgg16_cluster_assignment.pickle}
FEATURES=${FEATURES:-alexnet/alexnet_features.pkl vgg16/vgg16_features.pkl}

main() {
    local assignments= features= word arch path
    for word in "$@"; do
        case $word in
        --assignments) assignments=$ASSIGNMENTS ;;
        --features) features=$FEATURES ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
        *) fail 2 "$word: not one of --assignments, --features, --help" ;;
        esac
    done
    check_settings
    for arch in $ARCHS; do
        for path in checkpoint.pth.tar model.caffemodel model.prototxt; do
            fetch "$arch/$path" ARCHS
        done
    done
    for path in $assignments; do fetch "$path" ASSIGNMENTS; done
    for path in $features; do fetch "$path" FEATURES; done
}

fail() {  # exit status, message
    echo "${0##*/}: error: $2" >&2
    exit "$1"
}

check_settings() {
    [[ $RETRIES =~ ^[1-9][0-9]*$ ]] || fail 2 "RETRIES=$RETRIES: not a whole number of 1 or more"
    [[ $WAIT =~ ^[0-9]+([.][0-9]+)?$ ]] || fail 2 "WAIT=$WAIT: not a number of seconds"
    [[ $BASE =~ ^https?://. ]] || fail 2 "BASE=$BASE: not an address that begins with http(s)://"
    BASE=${BASE%/}
    local tool
    for tool in curl wget; do
        if command -v $tool >/dev/null; then client=$tool; return; fi
    done
    fail 2 "neither curl nor wget is installed; install one of them"
}

fetch() {  # a path below BASE, and the variable that names it
    folder=$MODELROOT/$(dirname "$1") name=$(basename "$1") address=$BASE/$1 variable=$2
    local file=$folder/$name sum
    open_folder
    recorded=$(recorded_sum)
    if ! [ -e "$file" ]; then
        download
    elif [ -n "$recorded" ]; then
        sum=$(sum_of "$file")
        [ "$sum" = "$recorded" ] || fail 2 "$file: its SHA-256 is $sum, not $recorded as SHA256SUMS \
beside it has it; remove the file to download it again"
        echo "$file: there already, its SHA-256 as recorded"
    else
        check_size "$file"
    fi
}

open_folder() {  # made where it is missing, and ours alone until the next one or the end
    mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ] \
        || fail 2 "$folder: cannot write there; give another folder: MODELROOT=/some/folder $0"
    local status=0
    exec 9<"$folder"
    if command -v flock >/dev/null; then flock -n 9 || status=$?; fi
    [ $status != 1 ] || fail 2 "$folder: another download into it is under way"
}

check_size() {  # of a file that someone else put there
    local size
    size=$(size_of "$1")
    attempts ask
    [ "$size" = "$length" ] || fail 2 "$1: has $size bytes, not $length as on the server; remove the \
file to download it again"
    record "$(sum_of "$1")"
    echo "$1: there already, of the server's size; its SHA-256 is now recorded"
}

download() {
    attempts attempt
    mv -f "$part" "$folder/$name"
    echo "$folder/$name: $length bytes, SHA-256 $(recorded_sum)"
}

attempts() {  # of a command that fails, and says in `why` what keeps it from getting further
    local tries=0 most=0 size
    part=
    until "$@"; do
        size=$(size_of "$part")
        if [ "$size" -gt "$most" ]; then most=$size tries=0; fi
        tries=$((tries + 1))
        [ $tries -lt "$RETRIES" ] || fail 1 "$address: $why; what has arrived is kept, and the same \
command goes on"
        sleep "$WAIT"
    done
}

attempt() {  # to have the whole file in `part`
    ask || return
    # Named after what the server has, so that two versions of a file are never joined
    part=$folder/.$name.$(cksum <<<"$length $version" | tr -d ' ').part
    local old before sum
    for old in "$folder/.$name".*.part; do
        if [ "$old" != "$part" ]; then rm -f "$old"; fi
    done
    before=$(size_of "$part")
    if [ "$before" -gt "$length" ]; then rm -f "$part" && before=0; fi
    if [ "$before" != "$length" ] || ! [ -e "$part" ]; then get || return; fi
    if [ "$(size_of "$part")" != "$length" ]; then
        why="only $(size_of "$part") of its $length bytes arrived"
        return 1
    fi
    sum=$(sum_of "$part")
    if [ -z "$recorded" ]; then record "$sum"; return; fi
    if [ "$sum" = "$recorded" ]; then return; fi
    rm -f "$part"
    why="the parts that were downloaded do not make up what was recorded"
    [ "$before" = 0 ] || return 1  # once more, in one piece
    fail 2 "$address: its SHA-256 is $sum, not $recorded as $folder/SHA256SUMS has it; if the new \
file is wanted, remove that line"
}

ask() {  # the server what there is: sets `length` in bytes, and `version`
    local said code
    said=$(headers 2>&1 | tr -d '\r') || true
    code=$(awk '/^ *HTTP\// {code = $2} END {print code}' <<<"$said")
    case $code in
    2??) ;;
    "") why="no answer, is this machine online? ($(tail -n 1 <<<"$said"))"; return 1 ;;
    403 | 404 | 410) fail 1 "$address: the server has no such file (it answers $code); if it is \
elsewhere, set BASE or $variable" ;;
    408 | 429 | 5??) why="the server answers $code"; return 1 ;;
    *) fail 1 "$address: the server answers $code" ;;
    esac
    case $(header content-type "$said") in
    *text/html*) fail 1 "$address: a web page comes instead of the file; does this network want you to \
log in?" ;;
    esac
    length=$(header content-length "$said")
    version=$(header etag "$said")
    version=${version:-$(header last-modified "$said")}
    [[ $length =~ ^[0-9]+$ ]] || fail 1 "$address: the server does not say how large it is"
}

header() {  # its name in lower case, and what `headers` printed; redirections come before the last
    awk -v name="$1:" '/^ *HTTP\// {value = ""} tolower($1) == name {$1 = ""; value = substr($0, 2)}
        END {print value}' <<<"$2"
}

headers() {
    case $client in
    curl) curl --silent --show-error --head --location --connect-timeout 20 --max-time 60 "$address" ;;
    wget) wget --spider --server-response --tries=1 --timeout=20 "$address" ;;
    esac
}

get() {  # what is missing of `part`
    local status=0 quiet
    if [ -t 2 ]; then echo "$address" >&2; fi  # above the progress bar
    case $client in
    curl)
        quiet=--silent
        if [ -t 2 ]; then quiet=--progress-bar; fi
        curl $quiet --fail --location --connect-timeout 20 --speed-limit 1 --speed-time 60 \
            --continue-at - --output "$part" "$address" &
        ;;
    wget)
        quiet=--no-verbose
        if [ -t 2 ]; then quiet=--show-progress; fi
        wget --quiet $quiet --continue --tries=1 --timeout=60 --output-document "$part" "$address" &
        ;;
    esac
    wait $! || status=$?
    case $client-$status in
    *-0) return ;;
    curl-23 | wget-3) fail 2 "$folder: cannot write there (is the disk full?)" ;;
    curl-33) rm -f "$part" ;;  # the server does not resume: from the start, then
    esac
    why="the transfer broke off after $(size_of "$part") of $length bytes ($client's exit status \
$status)"
    return 1
}

size_of() {  # in bytes; 0 where there is no such file
    if [ -e "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

sum_of() {
    local sums=sha256sum
    command -v sha256sum >/dev/null || sums="shasum -a 256"  # macOS
    $sums <"$1" | cut -d ' ' -f 1
}

recorded_sum() {
    if [ -e "$folder/SHA256SUMS" ]; then
        awk -v name="$name" '{sub(/^\*/, "", $2)} $2 == name {sum = tolower($1)} END {print sum}' \
            "$folder/SHA256SUMS"
    fi
}

record() {  # the SHA-256 of the file under way
    local sums=$folder/SHA256SUMS
    { { [ ! -e "$sums" ] || cat "$sums"; } && echo "$1  $name"; } >"$folder/.SHA256SUMS.part" \
        && mv -f "$folder/.SHA256SUMS.part" "$sums" \
        || fail 2 "$sums: cannot write it (is the disk full?)"
}

# A transfer does not outlive this script
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
main "$@"
