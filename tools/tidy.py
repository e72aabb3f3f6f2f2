#!/usr/bin/env python3
"""Checks the rules of the code that a compiler does not check.

    tools/tidy.py              check the project; prints file:line: message for each finding
    tools/tidy.py --self-test  prove on small wrong examples that each rule finds what it should

Each rule is one test in the closing line. The rules are the functions marked @rule below; the layering
that they defend is the table LAYERS: an include may point to a later line of it, never to an earlier one.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

LAYERS = [
    {"cli", "server"},
    {"engine"},
    {"src/cache"},
    {"src/tier", "src/store", "src/policy", "src/governor"},
    {"src/page", "src/codec", "src/kernels"},
    {"src/os"},
    {"src/base"},
    {"include/pagoda"},
]
PURE = {"src/policy", "src/governor"}  # numbers in, decision out: these see src/base and themselves
ENGINE_SIDE = ("engine", "bench", "tests/engine")  # may include llama.h and ggml.h
ALLOCATING = ("src/base", "src/os", "engine", "cli", "server", "tests", "fuzz", "bench", "examples")
SYSTEM_SIDE = ("src/os", "src/base", "engine", "cli", "server", "tests", "fuzz", "bench")

# What C11 calls the standard library, plus POSIX types.
LIBC_HEADERS = {
    "assert.h", "complex.h", "ctype.h", "errno.h", "fenv.h", "float.h", "inttypes.h", "iso646.h", "limits.h",
    "locale.h", "math.h", "setjmp.h", "signal.h", "stdalign.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h",
    "stdint.h", "stdio.h", "stdlib.h", "stdnoreturn.h", "string.h", "sys/types.h", "tgmath.h", "threads.h", "time.h",
    "uchar.h", "wchar.h", "wctype.h",
}

COLUMNS_MAX = 120
FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 120

SKIPPED_FOLDERS = {"build", ".git", "__pycache__"}
TEXT_ENDINGS = (".c", ".h", ".py", ".sh", ".cmake", ".txt", ".json", ".in", "Makefile", ".ci/run", ".yml")


class File:
    """One file: its path below the project, its lines, and for C the lines without comments and literals."""

    def __init__(self, path, text):
        self.path = path
        self.lines = text.split("\n")
        if self.lines[-1] == "":
            self.lines.pop()
        self.is_c = path.endswith((".c", ".h"))
        self.code = blank_comments_and_literals(text).split("\n")[:len(self.lines)] if self.is_c else []

    def is_below(self, *folders):
        return any(self.path.startswith(folder + "/") for folder in folders)


def blank_comments_and_literals(text):
    """The same text with comments and the insides of literals turned into spaces; lines stay lines."""
    pattern = re.compile(r'/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        found = match.group()
        if found[0] in "\"'":
            return found[0] + " " * (len(found) - 2) + found[-1]
        return re.sub(r"[^\n]", " ", found)

    return pattern.sub(blank, text)


# --- includes ---------------------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(file):
    """(line number, quoted, name) of every include of a file."""
    for number, (line, code) in enumerate(zip(file.lines, file.code), 1):
        match = INCLUDE.match(line)
        if match and "#" in code:  # not inside a comment
            yield number, match.group(1) == '"', match.group(2)


def module_of(path):
    """The folder of LAYERS that holds a path, or None."""
    for layer in LAYERS:
        for module in layer:
            if path.startswith(module + "/"):
                return module
    return None


def rank_of(module):
    return next(rank for rank, layer in enumerate(LAYERS) if module in layer)


def resolve(file, name, project):
    """The project's file that an include means, found as the compiler would; None for the system's."""
    here = os.path.dirname(file.path)
    for folder in (here, "", "include", "src"):
        path = os.path.normpath(os.path.join(folder, name))
        if path in project:
            return path
    # A file that does not exist (yet) still has a module by its name.
    for folder in ("src", "", "include"):
        path = os.path.normpath(os.path.join(folder, name))
        if module_of(path):
            return path
    return None


RULES = []


def rule(name):
    """Marks a function(project) that yields (path, line number, message) as a rule."""
    def register(function):
        RULES.append((name, function))
        return function
    return register


@rule("includes point right")
def check_layers(project):
    sideways = {}
    for file in project.values():
        module = module_of(file.path)
        if not module:
            continue
        for number, _, name in includes(file):
            target = module_of(resolve(file, name, project) or "")
            if not target or target == module:
                continue
            if rank_of(target) < rank_of(module):
                yield file.path, number, f"{module} may not include {name}: {target} lies to its left"
            elif rank_of(target) == rank_of(module):
                sideways.setdefault((module, target), (file.path, number))
    for (module, target), (path, number) in sideways.items():
        if (target, module) in sideways:
            yield path, number, f"{module} and {target} include each other; neighbours may depend one way only"


@rule("policy and governor are pure")
def check_pure(project):
    for file in project.values():
        module = module_of(file.path)
        if module not in PURE:
            continue
        for number, _, name in includes(file):
            target = module_of(resolve(file, name, project) or "")
            if target and target not in (module, "src/base", "include/pagoda"):
                yield file.path, number, f"{module} may include only src/base and itself, not {name}"


@rule("only the engine sees llama.cpp")
def check_llama(project):
    for file in project.values():
        if not file.is_c or file.is_below(*ENGINE_SIDE):
            continue
        for number, _, name in includes(file):
            if re.match(r"(llama|ggml|gguf)\b", os.path.basename(name)):
                yield file.path, number, f"only {', '.join(ENGINE_SIDE)} may include {name}"


@rule("public headers stand alone")
def check_public(project):
    for file in project.values():
        public = file.is_below("include/pagoda")
        if not public and not file.is_below("examples"):
            continue
        for number, _, name in includes(file):
            target = resolve(file, name, project)
            if target and target.startswith("include/pagoda/"):
                continue
            if public and name not in LIBC_HEADERS:
                yield file.path, number, f"a public header may include only pagoda/ and C headers, not {name}"
            elif not public and module_of(target or ""):
                yield file.path, number, f"an example may include only public headers, not {name}"


@rule("system calls stay in src/os")
def check_system_headers(project):
    for file in project.values():
        if not file.is_below("src") or file.is_below(*SYSTEM_SIDE):
            continue
        for number, quoted, name in includes(file):
            is_system = re.match(r"(sys/|linux/|asm/|unistd\.h|fcntl\.h|dirent\.h|poll\.h|sched\.h)", name)
            if not quoted and is_system and name != "sys/types.h":
                yield file.path, number, f"only src/os talks to the system, so <{name}> belongs there"


# --- calls ------------------------------------------------------------------------------------------------------

def find_calls(file, names):
    """(line number, name) of calls; members of that name (x->free(...)) are not meant."""
    pattern = re.compile(r"(?<![\w.])(?<!->)(" + "|".join(names) + r")\s*\(")
    for number, line in enumerate(file.code, 1):
        for match in pattern.finditer(line):
            yield number, match.group(1), line[match.end():]


@rule("no unsafe calls")
def check_unsafe(project):
    names = ["sprintf", "vsprintf", "strcpy", "strcat", "strtok", "atoi", "atol", "atof", "gets", "alloca"]
    for file in project.values():
        for number, name, _ in find_calls(file, names) if file.is_c else ():
            yield file.path, number, f"{name} is banned"


@rule("allocation goes through src/base")
def check_allocation(project):
    names = ["malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "strdup", "strndup"]
    for file in project.values():
        if not file.is_c or file.is_below(*ALLOCATING):
            continue
        for number, name, _ in find_calls(file, names):
            yield file.path, number, f"bare {name}; only {', '.join(ALLOCATING[:3])} and programs may call it"


@rule("the library neither prints nor exits")
def check_library_manners(project):
    names = ["printf", "vprintf", "puts", "putchar", "perror", "fprintf", "vfprintf", "fputs",
             "exit", "_exit", "_Exit", "quick_exit", "abort"]
    for file in project.values():
        if not file.is_c or not file.is_below("src", "engine") or file.path.startswith("src/base/check."):
            continue
        for number, name, rest in find_calls(file, names):
            to_a_file = name in ("fprintf", "vfprintf", "fputs")
            if not to_a_file or re.search(r"\bstd(out|err)\b", rest):
                yield file.path, number, f"{name} in library code; return a status or log"


# --- shape ------------------------------------------------------------------------------------------------------

@rule(f"lines have at most {COLUMNS_MAX} columns")
def check_columns(project):
    for file in project.values():
        for number, line in enumerate(file.lines, 1):
            if len(line) > COLUMNS_MAX:
                yield file.path, number, f"{len(line)} columns"


@rule(f"files have at most {FILE_LINES_MAX} lines")
def check_file_length(project):
    for file in project.values():
        if len(file.lines) > FILE_LINES_MAX:
            yield file.path, FILE_LINES_MAX + 1, f"{len(file.lines)} lines"


@rule(f"functions have at most {FUNCTION_LINES_MAX} lines")
def check_function_length(project):
    for file in project.values():
        for start, end, name in functions(file):
            if end - start + 1 > FUNCTION_LINES_MAX:
                yield file.path, start, f"{name} has {end - start + 1} lines"


def functions(file):
    """(first line, last line, name) of each function body: a brace outside all others that follows a parameter list."""
    depth, start, name, head, in_directive = 0, 0, "", "", False
    for number, line in enumerate(file.code, 1):
        in_directive = in_directive or line.lstrip().startswith("#")
        if in_directive:
            in_directive = line.rstrip().endswith("\\")
            continue
        for character in line:
            if character == "{":
                if depth == 0:
                    match = re.search(r"(\w+)\s*\((?:[^;=]*)\)\s*(?:__attribute__\s*\(\(.*\)\)\s*)?$", head, re.S)
                    start, name = (number, match.group(1)) if match else (0, "")
                depth += 1
            elif character == "}":
                depth = max(0, depth - 1)
                if depth == 0:
                    if start:
                        yield start, number, name
                    start, head = 0, ""
            elif depth == 0:
                head = "" if character == ";" else head + character
        if depth == 0:
            head += "\n"


@rule("no tabs in C files")
def check_tabs(project):
    for file in project.values():
        for number, line in enumerate(file.lines if file.is_c else (), 1):
            if "\t" in line:
                yield file.path, number, "tab"


@rule("no trailing white space")
def check_trailing(project):
    for file in project.values():
        for number, line in enumerate(file.lines, 1):
            if line != line.rstrip():
                yield file.path, number, "white space at the end of the line"


@rule("no unfinished business")
def check_markers(project):
    marker = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
    for file in project.values():
        for number, line in enumerate(file.lines, 1):
            match = marker.search(line)
            if match:
                yield file.path, number, f"{match.group()}: do it or write an issue"


# --- running ----------------------------------------------------------------------------------------------------

def load_project():
    project = {}
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(set(subfolders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), ROOT)
            if path.endswith(TEXT_ENDINGS):
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                    project[path] = File(path, file.read())
    return project


def check_project():
    project = load_project()
    passed = failed = 0
    for name, function in RULES:
        findings = list(function(project))
        for path, line, message in findings:
            print(f"{path}:{line}: {message}")
        if findings:
            failed += 1
            print(f"FAIL {name}: {len(findings)} finding{'s' * (len(findings) > 1)}")
        else:
            passed += 1
            print(f"ok {name}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def self_test():
    """For each rule: files that break it, files that do not, and where the findings must be."""
    long_body = "int f(int a)\n{\n" + "    a++;\n" * FUNCTION_LINES_MAX + "}\n"
    good_body = "int f(int a)\n{\n" + "    a++;\n" * (FUNCTION_LINES_MAX - 2) + "}\n"
    table = "static const int t[] = {\n" + "    1,\n" * FUNCTION_LINES_MAX + "};\n"
    marker = "TO" + "DO"
    cases = [
        (check_layers, {"src/os/a.c": '#include "page/arena.h"\n'}, ["src/os/a.c:1"]),
        (check_layers, {"src/base/a.c": '#include "os/file.h"\n'}, ["src/base/a.c:1"]),
        (check_layers, {"engine/a.c": '#include "cli/args.h"\n', "src/cache/b.c": '\n#include "engine/a.h"\n'},
         ["engine/a.c:1", "src/cache/b.c:2"]),
        (check_layers, {"src/page/a.c": '#include "../cache/b.h"\n', "src/cache/b.h": ""}, ["src/page/a.c:1"]),
        (check_layers, {"src/page/a.c": '#include "codec/c.h"\n', "src/codec/c.c": '#include "page/a.h"\n'},
         ["src/codec/c.c:1", "src/page/a.c:1"]),
        (check_layers, {"src/page/a.c": '#include "codec/c.h"\n#include <pagoda/pagoda.h>\n#include "base/b.h"\n',
                        "cli/m.c": '#include "engine/e.h"\n/* #include "nothing.h" */\n',
                        "src/os/a.c": '// \n/*\n#include "page/x.h"\n*/\n'}, []),
        (check_pure, {"src/policy/a.c": '#include "page/x.h"\n'}, ["src/policy/a.c:1"]),
        (check_pure, {"src/governor/a.c": '#include "policy/x.h"\n'}, ["src/governor/a.c:1"]),
        (check_pure, {"src/policy/a.c": '#include "policy/x.h"\n#include "base/b.h"\n#include <stddef.h>\n'}, []),
        (check_llama, {"cli/a.c": "#include <llama.h>\n", "tests/unit/a.c": '#include "ggml-cpu.h"\n'},
         ["cli/a.c:1", "tests/unit/a.c:1"]),
        (check_llama, {"engine/a.c": "#include <llama.h>\n", "tests/engine/a.c": '#include "ggml.h"\n'}, []),
        (check_public, {"include/pagoda/a.h": '#include "base/b.h"\n#include <unistd.h>\n'},
         ["include/pagoda/a.h:1", "include/pagoda/a.h:2"]),
        (check_public, {"examples/a.c": '#include "engine/e.h"\n'}, ["examples/a.c:1"]),
        (check_public, {"include/pagoda/a.h": "#include <stddef.h>\n#include <pagoda/b.h>\n"}, []),
        (check_system_headers, {"src/page/a.c": "#include <sys/mman.h>\n"}, ["src/page/a.c:1"]),
        (check_system_headers, {"src/os/a.c": "#include <sys/mman.h>\n", "src/page/a.c": "#include <stdint.h>\n"}, []),
        (check_unsafe, {"cli/a.c": "int x;\nvoid f(void) { strcpy(a, b); n = atoi (s); }\n"},
         ["cli/a.c:2", "cli/a.c:2"]),
        (check_unsafe, {"cli/a.c": '/* strcpy(a) */ char *s = "gets(x)"; // atoi(1)\nvoid my_strcpy(int a);\n'}, []),
        (check_allocation, {"src/page/a.c": "p = malloc(1);\n"}, ["src/page/a.c:1"]),
        (check_allocation, {"src/page/a.c": "x->free(p); y.malloc(1); pgd_free(p);\n", "engine/a.c": "free(p);\n"}, []),
        (check_library_manners, {"src/os/a.c": 'printf("x");\nexit(1);\nfprintf(stderr, "x");\n'},
         ["src/os/a.c:1", "src/os/a.c:2", "src/os/a.c:3"]),
        (check_library_manners, {"engine/a.c": "abort();\n"}, ["engine/a.c:1"]),
        (check_library_manners, {"src/base/check.c": "abort();\n", "src/os/a.c": 'fprintf(f, "x"); snprintf(b);\n',
                                 "cli/a.c": "exit(1);\n"}, []),
        (check_columns, {"cli/a.c": "x" * COLUMNS_MAX + "\n" + "x" * (COLUMNS_MAX + 1) + "\n"}, ["cli/a.c:2"]),
        (check_file_length, {"cli/a.c": "\n" * (FILE_LINES_MAX + 1)}, [f"cli/a.c:{FILE_LINES_MAX + 1}"]),
        (check_file_length, {"cli/a.c": "\n" * FILE_LINES_MAX}, []),
        (check_function_length, {"cli/a.c": "struct s {\n    int a;\n};\n" + long_body}, ["cli/a.c:5"]),
        (check_function_length, {"cli/a.c": good_body + "TEST(x)\n{\n}\n" + table + good_body}, []),
        (check_tabs, {"cli/a.c": "\tint x;\n", "Makefile": "a:\n\tb\n"}, ["cli/a.c:1"]),
        (check_trailing, {"cli/a.c": "int x; \n"}, ["cli/a.c:1"]),
        (check_trailing, {"cli/a.c": "int x;\n"}, []),
        (check_markers, {"cli/a.c": f"int x; /* {marker}: more */\n"}, ["cli/a.c:1"]),
        (check_markers, {"cli/a.c": f"int {marker}_LIST;\n"}, []),
    ]
    names = {function: name for name, function in RULES}
    passed = failed = 0
    for function, files, wanted in cases:
        project = {path: File(path, text) for path, text in files.items()}
        found = sorted(f"{path}:{line}" for path, line, _ in function(project))
        if found == wanted:
            passed += 1
        else:
            failed += 1
            print(f"FAIL {names[function]}: {files!r}: found {found}, expected {wanted}")
    for name, function in RULES:
        if not any(case[0] is function and case[2] for case in cases):
            failed += 1
            print(f"FAIL {name}: no example shows that this rule can fail")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(check_project())
