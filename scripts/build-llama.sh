#!/usr/bin/env bash
# scripts/build-llama.sh - builds libllama once, and prints the path of a CMake file that says where it is.
#
#   build-llama.sh          fetch and build if needed; print the file's path on standard output
#   build-llama.sh --key    print the name of the build that fits this machine, build nothing
#
# The library is built for the very processor that runs this. So its directory carries a key made of its place,
# the source, the compiler and the instruction sets; on another machine the key differs and it is built anew.
#   CC, CXX      the compilers (default: see find-cc.sh)
#   LLAMA_DIR    a llama.cpp source tree to use in place of the pinned one
#   NATIVE=0     build for any recent processor of this architecture, to ship the program elsewhere
. "$(dirname "$0")/lib.sh"

native=${NATIVE:-1}
compilers=$("$root/scripts/find-cc.sh")
cc=${compilers%%$'\n'*} cxx=${compilers##*$'\n'}
have "$cc" || die "the compiler '$cc' is not installed"
have "$cxx" || die "the C++ compiler '$cxx' (of CC=$cc) is not installed; set CXX"

if [ -n "${LLAMA_DIR:-}" ]; then
    [ -f "$LLAMA_DIR/include/llama.h" ] || die "LLAMA_DIR=$LLAMA_DIR is not a llama.cpp source tree"
    source_dir=$(cd "$LLAMA_DIR" && pwd)
    source_id=$source_dir
else
    source_dir=$deps/llama.cpp
    source_id=$(sed -n 's/^sha256=//p' "$root/scripts/fetch-llama.sh")
fi

# Before release 13, gcc's AMX code for llama.cpp's matrix products crashes on processors that have AMX.
flags="-w"
if ! "$cc" --version | grep -q clang; then
    version=$("$cc" -dumpversion)
    if [ "${version%%.*}" -lt 13 ] && "$cc" -mno-amx-tile -E -x c /dev/null >/dev/null 2>&1; then
        flags="$flags -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    fi
fi

# The compiler's own view of this processor: its name and its instruction sets, as predefined macros.
describe_cpu() {
    [ "$native" = 0 ] && { echo "portable $(uname -m)"; return; }
    local option
    for option in -march=native -mcpu=native; do
        "$cc" $option -dM -E -x c /dev/null 2>/dev/null && return
    done
    echo "$(uname -m)"
}

recipe=2 # raise it when the CMake options below change
key=$({ echo "$recipe $root $source_id $flags"; "$cc" --version; describe_cpu; } | python3 -c '
import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:12])')
build_dir=$deps/llama-$key
result=$build_dir/pagoda-llama.cmake

[ "${1:-}" = --key ] && { echo "$key"; exit 0; }

finish() { echo "$result"; exit 0; }
# The pinned source never changes under us; a tree of the user's own may, so there ninja decides.
[ -z "${LLAMA_DIR:-}" ] && [ -f "$result" ] && finish

[ -n "${LLAMA_DIR:-}" ] || "$root/scripts/fetch-llama.sh"
with_lock "llama-$key"
[ -z "${LLAMA_DIR:-}" ] && [ -f "$result" ] && finish

[ -f "$result" ] || say "building llama.cpp with $cc (once, a minute or two)"
mkdir -p "$build_dir"
log=$build_dir/configure.log
env -u CFLAGS -u CXXFLAGS -u LDFLAGS cmake -S "$source_dir" -B "$build_dir" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
    -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DGGML_NATIVE="$([ "$native" = 0 ] && echo OFF || echo ON)" -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
    -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
    </dev/null >"$log" 2>&1 || {
    grep -A4 -i error "$log" | head -n 12 >&2
    die "llama.cpp did not configure; see $log"
}
run_ninja "$build_dir" llama </dev/null || die "llama.cpp did not build (compiler: $cc); the messages are above"

# Linkers read static libraries from left to right: users before what they use.
one_lib() { find "$build_dir" -name "$1" -type f | sort; }
libraries=$(one_lib libllama.a; one_lib libggml.a; one_lib 'libggml-*.a' | grep -v libggml-base; one_lib libggml-base.a)
[ -n "$libraries" ] || die "llama.cpp built no static libraries in $build_dir"
version=$(sed -n 's/^Version: *//p' "$build_dir/llama.pc" 2>/dev/null || true)

{
    echo "# Written by scripts/build-llama.sh."
    echo "set(PAGODA_LLAMA_VERSION \"${version:-unknown}\")"
    echo "set(PAGODA_LLAMA_INCLUDE_DIRS \"$source_dir/include\" \"$source_dir/ggml/include\")"
    echo "set(PAGODA_LLAMA_LIBRARIES"
    echo "$libraries" | sed 's/.*/    "&"/'
    echo ")"
} >"$result.tmp"
cmp -s "$result.tmp" "$result" && rm "$result.tmp" || mv "$result.tmp" "$result"
finish
