#!/usr/bin/env bash
# scripts/find-cc.sh - prints the C and the C++ compiler to use, on two lines.
#
# CC and CXX win. Else clang, which builds llama.cpp's matrix code both right and fast; else gcc.
set -euo pipefail

clang_is_recent() { # 16 is the first one that we trust with llama.cpp's AMX code
    local major
    major=$("$1" -dumpversion 2>/dev/null) || return 1
    [ "${major%%.*}" -ge 16 ] 2>/dev/null
}

find_cc() {
    local name
    if [ -n "${CC:-}" ]; then
        echo "$CC"
        return
    fi
    for name in clang-19 clang-22 clang-21 clang-20 clang-18 clang-17 clang-16; do
        if command -v "$name" >/dev/null; then echo "$name"; return; fi
    done
    if command -v clang >/dev/null && clang_is_recent clang; then echo clang; return; fi
    for name in gcc cc; do
        if command -v "$name" >/dev/null; then echo "$name"; return; fi
    done
    echo "pagoda: error: no C compiler found; run scripts/setup.sh" >&2
    exit 1
}

find_cxx() { # $1: the C compiler; clang-19 -> clang++-19, gcc-12 -> g++-12, cc -> c++
    if [ -n "${CXX:-}" ]; then
        echo "$CXX"
        return
    fi
    local dir="" base=$1
    case $base in */*) dir=${base%/*}/ base=${base##*/} ;; esac
    case $base in
        *clang*) base=${base/clang/clang++} ;;
        *gcc*) base=${base/gcc/g++} ;;
        *) base=${base/cc/c++} ;;
    esac
    echo "$dir$base"
}

cc=$(find_cc)
echo "$cc"
find_cxx "$cc"
