# scripts/lib.sh - what the other scripts share. Sourced, never run.
#
# Every script may be run again at any time: finished work is recognised and kept, unfinished
# work is made under a temporary name and renamed last, so a broken download leaves no trace.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/build/deps

say() { printf '%s\n' "pagoda: $*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# with_lock NAME: waits until no other script holds NAME, and holds it until this one ends.
with_lock() {
    mkdir -p "$root/build"
    have flock || return 0
    exec 9>"$root/build/.lock-$1"
    flock -n 9 && return 0
    say "waiting for another build ($1)"
    flock 9
}

# sha256_of FILE: prints the digest alone.
sha256_of() { python3 -c '
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    while block := file.read(1 << 20):
        digest.update(block)
print(digest.hexdigest())' "$1"; }

# check_sha256 FILE DIGEST: refuses a file that is not byte for byte the one we pinned.
check_sha256() {
    local got
    got=$(sha256_of "$1")
    [ "$got" = "$2" ] || die "${1##*/} has sha256 $got, expected $2; it was not used"
}

# can_install: root on a system with apt, unless PAGODA_NO_INSTALL is set.
can_install() { [ "$(id -u)" = 0 ] && have apt-get && [ -z "${PAGODA_NO_INSTALL:-}" ]; }

update_index() {
    [ -z "${updated:-}" ] || return 0
    updated=1
    say "updating the package index"
    apt-get -qq update </dev/null >&2 || true
}

apt_install() {
    local log=$root/build/setup.log
    mkdir -p "$root/build"
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends "$@" \
        </dev/null >"$log" 2>&1
}

# pip_download DIR PACKAGE==VERSION [pip options]: fetches one package file into DIR.
# Nothing is installed, so this also works where the system's Python is externally managed.
pip_download() {
    local dir=$1 package=$2
    shift 2
    python3 -c 'import pip' 2>/dev/null || die "python3 has no pip; run scripts/setup.sh"
    local log=$dir/pip.log
    python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps "$@" --dest "$dir" "$package" \
        </dev/null >"$log" 2>&1 && return 0
    sed 's/^/  pip: /' "$log" | tail -n 5 >&2
    die "cannot download $package; check the network and run the same command again"
}

# run_ninja DIR [TARGET...]: builds with progress on standard error: ninja's own line on a
# terminal, else one line for each tenth of the work. V=1 shows the commands.
run_ninja() (
    cd "$1"
    shift
    args=()
    [ -z "${JOBS:-}" ] || args+=(-j "$JOBS")
    if [ "${V:-0}" != 0 ]; then
        ninja "${args[@]}" -v "$@" >&2
    elif [ -t 2 ]; then
        NINJA_STATUS='[%p %f/%t] ' ninja "${args[@]}" "$@" >&2
    else
        NINJA_STATUS='[%f/%t] ' ninja "${args[@]}" "$@" 2>&1 | awk '
            /^\[[0-9]+\/[0-9]+\] / {
                split(substr($1, 2, length($1) - 2), at, "/")
                tenth = int(10 * at[1] / at[2])
                if (at[2] >= 10 && tenth > shown) {
                    shown = tenth
                    printf "[%3d%%] %s of %s\n", 10 * tenth, at[1], at[2]
                    fflush()
                }
                next
            }
            /^ninja: no work to do|^-- / { next }
            { print; fflush() }' >&2
    fi
)
