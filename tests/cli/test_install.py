#!/usr/bin/env python3
"""What `make install` puts down: found by pkg-config, used by a program without any of this tree, in C and in C++."""

import glob
import os
import shutil
import subprocess

from support.suite import LIMIT_S, ROOT, Skip, Suite, scratch

suite = Suite()
C_COMPILERS, CXX_COMPILERS = ("clang-19", "clang", "gcc", "cc"), ("clang++-19", "clang++", "g++", "c++")


def find(names):
    for name in names:
        if shutil.which(name):
            return name
    raise Skip(f"none of {', '.join(names)} is here")


def call(*command, **settings):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S,
                          env={**os.environ, **settings})
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def installed():
    """The folder that stands for / once everything is installed below /opt/pagoda in it; made once."""
    stage = scratch("stage")
    if not os.path.exists(stage):
        manifest = os.path.join(ROOT, "build", "install_manifest.txt")
        before = open(manifest, encoding="utf-8").read() if os.path.exists(manifest) else None
        call("cmake", "--install", os.path.join(ROOT, "build"), "--prefix", "/opt/pagoda", DESTDIR=stage)
        # `make uninstall` goes by this list: it is the user's, not ours.
        if before is None:
            os.remove(manifest)
        else:
            with open(manifest, "w", encoding="utf-8") as file:
                file.write(before)
    return stage


def flags(*wanted):
    folder = os.path.join(installed(), "opt/pagoda/lib/pkgconfig")
    return call("pkg-config", *wanted, "pagoda", PKG_CONFIG_PATH=folder).split()


@suite.test
def everything_is_there_and_nothing_else():
    stage = installed()
    found = {os.path.relpath(path, os.path.join(stage, "opt/pagoda"))
             for path in glob.glob(stage + "/**", recursive=True) if not os.path.isdir(path)}
    headers = {path for path in found if path.startswith("include/")}
    wanted = {"include/pagoda/" + name for name in os.listdir(os.path.join(ROOT, "include/pagoda"))}
    assert headers == wanted, headers ^ wanted
    for name in ("bin/pagoda", "lib/libpagoda.a", "lib/libpagoda.so", "lib/libpagoda.so.0", "lib/pkgconfig/pagoda.pc"):
        assert name in found, (name, found)
    others = {path for path in found - headers
              if not path.startswith(("bin/pagoda", "lib/libpagoda.", "lib/pkgconfig/", "share/man/"))}
    assert not others, others


@suite.test
def the_program_runs_where_it_was_put():
    out = call(os.path.join(installed(), "opt/pagoda/bin/pagoda"), "version")
    assert out.startswith("pagoda "), out


@suite.test
def the_example_builds_against_the_shared_library():
    program = scratch("minimal-shared")
    call(find(C_COMPILERS), "-std=c11", "-Wall", "-Wextra", "-Werror", os.path.join(ROOT, "examples/minimal.c"),
         *flags("--cflags", "--libs"), "-o", program)
    out = call(program, LD_LIBRARY_PATH=os.path.join(installed(), "opt/pagoda/lib"))
    assert "5000 tokens" in out and "16 pinned" in out, out
    needed = call("readelf", "-d", program)
    assert "libpagoda.so.0" in needed, needed


@suite.test
def the_example_builds_against_the_static_library():
    program = scratch("minimal-static")
    libraries = [word for word in flags("--static", "--libs") if word != "-lpagoda"]
    call(find(C_COMPILERS), "-std=c11", os.path.join(ROOT, "examples/minimal.c"), *flags("--cflags"),
         os.path.join(installed(), "opt/pagoda/lib/libpagoda.a"), *libraries, "-o", program)
    assert "16 pinned" in call(program)
    assert "libpagoda" not in call("readelf", "-d", program)


@suite.test
def the_shared_library_shows_its_interface_only():
    out = call("nm", "-D", "--defined-only", os.path.join(installed(), "opt/pagoda/lib/libpagoda.so"))
    names = [line.split()[-1] for line in out.splitlines()]
    assert names and all(name.startswith("pagoda_") for name in names), names


@suite.test
def every_public_header_stands_alone():
    include = flags("--cflags")
    for header in sorted(os.listdir(os.path.join(installed(), "opt/pagoda/include/pagoda"))):
        for compiler, language, ending in ((find(C_COMPILERS), "c11", "c"), (find(CXX_COMPILERS), "c++11", "cc")):
            source = scratch(f"alone.{ending}", f"#include <pagoda/{header}>\n".encode())
            call(compiler, f"-std={language}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", *include,
                 source)


@suite.test
def a_program_in_cxx_links():
    source = scratch("version.cc", b'#include <pagoda/pagoda.h>\n#include <cstdio>\n'
                                   b'int main() { return std::puts(pagoda_version()) < 0; }\n')
    program = scratch("version")
    call(find(CXX_COMPILERS), "-std=c++11", source, *flags("--cflags", "--libs"), "-o", program)
    assert call(program, LD_LIBRARY_PATH=os.path.join(installed(), "opt/pagoda/lib")).strip()


if __name__ == "__main__":
    suite.main()
