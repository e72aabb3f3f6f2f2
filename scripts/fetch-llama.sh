#!/usr/bin/env bash
# scripts/fetch-llama.sh - puts the pinned llama.cpp source into build/deps/llama.cpp.
#
# It comes out of the source package of llama-cpp-python, which carries an unmodified copy. Only what the
# library is made of is taken. A source tree of your own: make LLAMA_DIR=/path/to/llama.cpp
. "$(dirname "$0")/lib.sh"

package=llama-cpp-python==0.3.36
archive=llama_cpp_python-0.3.36.tar.gz
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
target=$deps/llama.cpp
stamp=$target/.pagoda-source

[ "$(cat "$stamp" 2>/dev/null)" = "$sha256" ] && exit 0
with_lock fetch-llama
[ "$(cat "$stamp" 2>/dev/null)" = "$sha256" ] && exit 0

mkdir -p "$deps"
tmp=$(mktemp -d "$deps/.fetch-XXXXXX")
trap 'rm -rf "$tmp"' EXIT

say "fetching llama.cpp ($package, 77 MB)"
pip_download "$tmp" "$package" --no-binary llama-cpp-python
check_sha256 "$tmp/$archive" "$sha256"

python3 - "$tmp/$archive" "$tmp/llama.cpp" <<'PY'
"""Unpacks the parts of vendor/llama.cpp that libllama is built from."""
import os, sys, tarfile

archive, target = sys.argv[1:]
wanted = {"CMakeLists.txt", "LICENSE", "cmake", "ggml", "include", "src", "vendor"}
with tarfile.open(archive) as tar:
    for member in tar:
        parts = member.name.split("/")
        if parts[1:3] != ["vendor", "llama.cpp"] or len(parts) < 4 or parts[3] not in wanted or ".." in parts:
            continue
        if not member.isfile():
            continue
        path = os.path.join(target, *parts[3:])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tar.extractfile(member) as source, open(path, "wb") as out:
            out.write(source.read())
PY
[ -f "$tmp/llama.cpp/include/llama.h" ] || die "$archive holds no llama.cpp where it was expected"

echo "$sha256" >"$tmp/llama.cpp/.pagoda-source"
rm -rf "$target"
mv "$tmp/llama.cpp" "$target"
