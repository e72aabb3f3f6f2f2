#!/usr/bin/env bash
# scripts/fetch-texts.sh [--optional] - puts long real texts for evaluation into build/texts:
#
#   debian-handbook.txt   The Debian Administrator's Handbook: modern technical prose, ~170,000 words
#   bible-kjv.txt         the King James Bible: names and near-repetitions, one verse a line, ~820,000 words
#   newton-opticks.txt    Newton's Opticks: old scientific prose, ~100,000 words
#
# They come out of Debian packages, which are downloaded and unpacked but not installed: no root needed. The
# archive decides the version, so the digests that are printed say which text a measurement was made on.
# With --optional a missing text is a notice, not an error: the tests that need it are skipped.
. "$(dirname "$0")/lib.sh"

texts=$root/build/texts
packages=(debian-handbook bible-kjv-text golang-github-andybalholm-brotli-dev)
names=(debian-handbook.txt bible-kjv.txt newton-opticks.txt)

give_up() {
    say "$1; tests that need build/texts are skipped"
    [ "${optional:-}" = 1 ] && exit 0
    exit 1
}

all_there() {
    local name
    for name in "${names[@]}"; do
        [ -f "$texts/$name" ] || return 1
    done
}

# download PACKAGE: into the current directory, with one update of the package index if root may do that.
download() {
    apt-get -qq download "$1" </dev/null >>apt.log 2>&1 && return 0
    [ "$(id -u)" = 0 ] && [ ! -f updated ] || return 1
    say "updating the package index"
    touch updated
    apt-get -qq update </dev/null >>apt.log 2>&1 || true
    apt-get -qq download "$1" </dev/null >>apt.log 2>&1
}

optional=0
[ "${1:-}" = --optional ] && optional=1
all_there && exit 0
have apt-get && have dpkg || give_up "no apt here to fetch the evaluation texts with"

with_lock fetch-texts
all_there && exit 0
mkdir -p "$deps" "$texts"
tmp=$(mktemp -d "$deps/.fetch-XXXXXX")
trap 'rm -rf "$tmp"' EXIT

for i in "${!packages[@]}"; do
    package=${packages[i]} name=${names[i]}
    [ ! -f "$texts/$name" ] || continue
    say "fetching $name (Debian package $package)"
    cd "$tmp"
    download "$package" || give_up "cannot download the Debian package $package (try: apt-get update)"
    dpkg -x "$package"_*.deb "$tmp/$package"
    cd "$root"
    python3 "$root/scripts/extract_text.py" "${name%.txt}" "$tmp/$package" >"$tmp/$name" ||
        give_up "the Debian package $package does not look as expected"
    mv "$tmp/$name" "$texts/$name"
    say "$name: $(wc -w <"$texts/$name" | tr -d ' ') words, sha256 $(sha256_of "$texts/$name")"
done
