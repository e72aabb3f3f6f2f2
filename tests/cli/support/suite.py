"""A test suite of the command line: runs the program, says what it saw.

A test is a function marked @suite.test; it fails by an assertion, and is skipped by raising Skip.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PROGRAM = os.path.abspath(os.environ.get("PAGODA_BIN", os.path.join(ROOT, "build", "pagoda")))
MODELS = os.path.abspath(os.environ.get("PAGODA_TEST_MODELS", os.environ.get(
    "PAGODA_MODELS", os.path.join(ROOT, "build", "models"))))
LIMIT_S = 180


class Skip(Exception):
    """The reason why a test cannot run here."""


def model(name):
    """Path of a fetched model."""
    path = os.path.join(MODELS, name)
    if not os.path.exists(path):
        raise Skip(f"{path} is not there: make models")
    return path


def chat_model():
    """A small model with a chat template."""
    return model("smollm2-135m-instruct-q4_1.gguf")


def plain_model():
    """A small model without one, with sliding windows."""
    return model("gemma-3-270m-q4_k_m.gguf")


def environment(**changes):
    """A clean environment: nothing of the caller's but where programs are. None takes a variable out."""
    variables = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": SCRATCH,
        "XDG_STATE_HOME": os.path.join(SCRATCH, "state"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PAGODA_THREADS": "1", # several threads on a busy machine wait for each other
    }
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "LD_LIBRARY_PATH"):
        if name in os.environ:
            variables[name] = os.environ[name]
    variables.update(changes)
    return {name: value for name, value in variables.items() if value is not None}


class Result:
    """What a run of the program left behind."""

    def __init__(self, arguments, code, out, err):
        self.arguments, self.code, self.out_bytes, self.err_bytes = arguments, code, out, err
        self.err = err.decode("utf-8", "replace")

    @property
    def out(self):
        return self.out_bytes.decode("utf-8") # strictly: all text must be valid

    def json(self):
        """The one line of standard output."""
        assert self.out.endswith("\n") and self.out.count("\n") == 1, f"not exactly one line: {self.out!r}"
        return json.loads(self.out)

    def __str__(self):
        return (f"pagoda {' '.join(self.arguments)}\nexit code {self.code}\n--- standard output\n"
                f"{self.out_bytes.decode('utf-8', 'replace')[-2000:]}\n--- standard error\n{self.err[-2000:]}")


def run(*arguments, stdin=b"", env=None, code=None, out=None):
    """Runs the program. `code`: the exit code that it must have; `out`: a file in place of a pipe."""
    arguments = [str(argument) for argument in arguments]
    process = subprocess.run(
        [PROGRAM, *arguments], input=stdin, stdout=out if out is not None else subprocess.PIPE,
        stderr=subprocess.PIPE, env=env or environment(), timeout=LIMIT_S, check=False)
    result = Result(arguments, process.returncode, process.stdout or b"", process.stderr)
    assert result.code >= 0, f"killed by {signal.Signals(-result.code).name}\n{result}"
    if code is not None:
        assert result.code == code, f"expected exit code {code}\n{result}"
    return result


def fails(code, words, *arguments, **options):
    """Runs the program, which must end with `code`, one line on standard error that has all `words`, and nothing on
    standard output."""
    result = run(*arguments, code=code, **options)
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pagoda: error: "), f"expected one line of error\n{result}"
    for word in [words] if isinstance(words, str) else words:
        assert word in result.err, f"expected {word!r} in the message\n{result}"
    assert result.out == "", f"expected no output\n{result}"
    return result


class Suite:
    """Collects tests and runs them; --only WORD runs those with WORD in their name."""

    def __init__(self):
        self.tests = []

    def test(self, function):
        self.tests.append(function)
        return function

    def main(self):
        words = sys.argv[2:] if sys.argv[1:2] == ["--only"] else []
        passed = failed = skipped = 0
        try:
            for function in self.tests:
                name = function.__name__.replace("_", " ")
                if words and not any(word in name for word in words):
                    continue
                try:
                    function()
                    passed += 1
                    print(f"ok {name}", flush=True)
                except Skip as reason:
                    skipped += 1
                    print(f"SKIP {name}: {reason}", flush=True)
                except Exception as error: # a test may fail in any way
                    failed += 1
                    why = str(error) if isinstance(error, AssertionError) and str(error) else traceback.format_exc()
                    print(f"FAIL {name}: {why}", flush=True)
        finally:
            shutil.rmtree(SCRATCH, ignore_errors=True)
        print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
        sys.exit(1 if failed else 0)


SCRATCH = tempfile.mkdtemp(prefix="pagoda-cli-")


def scratch(name, content=None):
    """Path of a file in this suite's own folder, with `content` (bytes) if given."""
    path = os.path.join(SCRATCH, name)
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    return path
