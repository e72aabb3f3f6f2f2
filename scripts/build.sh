#!/usr/bin/env bash
# scripts/build.sh PRESET [TARGET...] - configures if needed, then builds. What make calls.
#
# A build directory remembers what it was configured for. When that changes (the compiler, the llama.cpp
# tree, the processor), it is configured from scratch; CMake itself would keep the old compiler.
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: scripts/build.sh PRESET [TARGET...]}
shift
case $preset in
    release) dir=$root/build ;;
    dev | asan | tsan | arm) dir=$root/build/$preset ;;
    fuzz) dir=$root/build/fuzzer ;; # build/fuzz holds the programs of fuzz/
    *) die "unknown preset '$preset' (release, dev, asan, tsan, arm, fuzz)" ;;
esac

with_lock "$preset"
options=()
if [ "$preset" = arm ]; then
    llama=none
elif [ -n "${SYSTEM_LLAMA:-}" ]; then
    options+=(-DPAGODA_SYSTEM_LLAMA=ON)
    llama=system
else
    llama=$("$root/scripts/build-llama.sh" --key)
fi
want="$root $("$root/scripts/find-cc.sh" | tr '\n' ' ')llama=$llama CFLAGS=${CFLAGS:-} LDFLAGS=${LDFLAGS:-}"

if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.configured" 2>/dev/null)" != "$want" ]; then
    rm -rf "$dir/CMakeCache.txt" "$dir/CMakeFiles" "$dir/.configured"
    mkdir -p "$dir"
    log=$dir/configure.log
    # Standard error stays ours: it carries the progress of the llama.cpp build.
    (cd "$root" && cmake --preset "$preset" "${options[@]}") </dev/null >"$log" ||
        die "the project did not configure; the reason is above"
    echo "$want" >"$dir/.configured"
elif [ -n "${LLAMA_DIR:-}" ] && [ "$llama" != none ]; then
    "$root/scripts/build-llama.sh" >/dev/null
fi
run_ninja "$dir" "$@" </dev/null || die "the build failed; the messages are above"
