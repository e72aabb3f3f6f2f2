#!/usr/bin/env bash
# scripts/arm.sh - tests the kernels for 64-bit ARM on another processor, in an emulator. What make arm calls.
#
#   scripts/arm.sh                  builds, then runs every test of tests/kernels on both processors below
#   scripts/arm.sh --on CPU TEST    runs one test of the build, such as kernels/test_packed
#
# cortex-a72 has what every 64-bit ARM has; max has the dot product of bytes too. Where the compiler or the emulator
# cannot be had, that is one skipped test; on an ARM itself there is nothing to emulate: make test does all of it.
. "$(dirname "$0")/lib.sh"

compiler=aarch64-linux-gnu-gcc
emulator=qemu-aarch64
packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)

# levels_of CPU: what the tests must find there, so that a level cannot go missing unseen.
levels_of() {
    case $1 in
        cortex-a72) echo "ref neon" ;;
        max) echo "ref neon dotprod" ;;
        *) die "unknown processor '$1' (cortex-a72, max)" ;;
    esac
}

skip() {
    echo "SKIP arm: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

if [ "${1:-}" = --on ]; then
    levels=$(levels_of "${2:?--on needs a processor}")
    PAGODA_TEST_LEVELS=$levels exec "$emulator" -cpu "$2" "$root/build/arm/tests/${3:?--on needs a test}"
fi

case $(uname -m) in
    aarch64 | arm64) skip "this is an ARM: make test runs its kernels" ;;
esac
tools_are_there() { have $compiler && have $emulator; }
if ! tools_are_there && can_install; then
    say "installing with apt: a compiler and an emulator for ARM"
    apt_install "${packages[@]}" || { update_index; apt_install "${packages[@]}"; } || true
fi
tools_are_there || skip "$compiler or $emulator is missing; with apt: apt-get install ${packages[*]}"

"$root/scripts/build.sh" arm tests
suites=()
for cpu in cortex-a72 max; do
    for source in "$root"/tests/kernels/*.c; do
        suites+=("scripts/arm.sh --on $cpu kernels/$(basename "$source" .c)")
    done
done
options=()
[ "${V:-0}" = 0 ] || options+=(-v)
[ -z "${T:-}" ] || options+=(--only "$T")
exec python3 "$root/tests/run.py" "${options[@]}" "${suites[@]}"
