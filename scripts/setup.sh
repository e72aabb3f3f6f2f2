#!/usr/bin/env bash
# scripts/setup.sh - checks the tools that the build needs, and installs what lacks.
#
# Root on a system with apt gets the missing packages installed. Everybody else (and PAGODA_NO_INSTALL=1)
# is shown the line to run. Says nothing when nothing lacks.
. "$(dirname "$0")/lib.sh"

missing=()  # what a person calls it
packages=() # what apt calls it

need() {
    missing+=("$1")
    shift
    packages+=("$@")
}

cmake_is_recent() {
    local version
    version=$(cmake --version 2>/dev/null | awk 'NR == 1 { print $3 }') || return 1
    [ "$(printf '%s\n' 3.21 "$version" | sort -V | head -n 1)" = 3.21 ]
}

python_has_pip() {
    have python3 && python3 -c 'import sys, importlib.util as u; sys.exit(u.find_spec("pip") is None)' 2>/dev/null
}

library_is_there() { pkg-config --exists "$1" 2>/dev/null; }

# The compilers that find-cc.sh names can build and link. They are tried once, then remembered.
compilers_work() {
    local found cc cxx dir works=0 proof=$root/build/.compilers-work
    found=$("$root/scripts/find-cc.sh" 2>/dev/null) || return 1
    cc=${found%%$'\n'*} cxx=${found##*$'\n'}
    have "$cc" && have "$cxx" || return 1
    [ "$(cat "$proof" 2>/dev/null)" != "$found" ] || return 0
    dir=$(mktemp -d)
    echo '#include <stdio.h>
int main(void) { return puts("") < 0; }' >"$dir/a.c"
    echo '#include <vector>
int main() { return (int)std::vector<int>().size(); }' >"$dir/b.cc"
    "$cc" -o "$dir/a" "$dir/a.c" 2>/dev/null && "$cxx" -o "$dir/b" "$dir/b.cc" 2>/dev/null || works=$?
    rm -rf "$dir"
    [ $works = 0 ] || return 1
    mkdir -p "$root/build"
    echo "$found" >"$proof"
}

compiler_is_clang() { "$("$root/scripts/find-cc.sh" | head -n 1)" --version 2>/dev/null | grep -q clang; }

check() {
    missing=() packages=()
    cmake_is_recent || need "cmake 3.21 or newer" cmake
    have ninja || need ninja ninja-build
    have make || need make make
    have pkg-config || need pkg-config pkg-config
    have python3 || need python3 python3
    python_has_pip || need "pip for python3" python3-pip
    library_is_there libedit || need libedit libedit-dev
    library_is_there jansson || need jansson libjansson-dev
    library_is_there libxxhash || need xxhash libxxhash-dev
    compilers_work || need "a C and C++ compiler" g++ libc6-dev
}

join() {
    local all
    all=$(printf ', %s' "$@")
    echo "${all#, }"
}

if [ -n "${CC:-}" ] && ! compilers_work; then
    die "the compiler CC=$CC (with its C++ compiler, CXX=${CXX:-by its name}) does not work"
fi
check
if [ ${#missing[@]} -gt 0 ] && can_install; then
    say "installing with apt: $(join "${missing[@]}")"
    apt_install "${packages[@]}" || { update_index; apt_install "${packages[@]}"; } || {
        tail -n 3 "$root/build/setup.log" >&2
        die "apt could not install: ${packages[*]}"
    }
    check
fi
if [ ${#missing[@]} -gt 0 ]; then
    say "missing: $(join "${missing[@]}")"
    have apt-get || die "install them with your system's package manager, then try again"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo "
    die "install them with: ${sudo}apt-get install -y ${packages[*]}"
fi

# gcc will do, but llama.cpp built by clang reads prompts several times faster. Asked for once.
declined=$root/build/.clang-not-available
if [ -z "${CC:-}" ] && ! compiler_is_clang && can_install && [ ! -f "$declined" ]; then
    say "installing with apt: clang, for a faster build of llama.cpp"
    apt_install clang-19 libclang-rt-19-dev ||
        { update_index; apt_install clang-19 libclang-rt-19-dev; } ||
        apt_install clang ||
        say "clang is not to be had; going on with gcc"
    compiler_is_clang || touch "$declined"
fi
