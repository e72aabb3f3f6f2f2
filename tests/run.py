#!/usr/bin/env python3
"""Runs test suites one by one and adds up what they report.

    tests/run.py [-v] [--only WORD]... SUITE...

A suite is a test program, a Python script, or either with arguments ('tools/tidy.py --self-test').
Its last line must read "N passed, N failed" (", N skipped" may follow). A suite that ends without such a
line, ran no test, reports failures, or exits non-zero has failed; the output of a failed suite is shown whole
(of any suite with -v), indented, so that the only closing line at the left margin is the last one: the sum.

Suites run in the project's root directory and may rely on these variables:
    PAGODA_BIN      the program that was built, build/pagoda
    PAGODA_MODELS   where `make models` put the models, build/models
    PAGODA_TEXTS    where `make texts` put the texts, build/texts
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLOSING_LINE = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
SUITE_LIMIT_S = 3600


class Result:
    """What one suite reported, or the failure that it is."""

    def __init__(self, lines, exit_code, timed_out):
        self.passed = self.failed = self.skipped = 0
        self.problem = ""
        match = CLOSING_LINE.match(lines[-1]) if lines else None
        if match:
            self.passed, self.failed, self.skipped = (int(number or 0) for number in match.groups())
        if timed_out:
            self.problem = f"not done after {SUITE_LIMIT_S} s"
        elif exit_code < 0:
            self.problem = f"killed by {signal.Signals(-exit_code).name}"
        elif not match:
            self.problem = f"no closing line (exit code {exit_code})"
        elif self.passed + self.failed + self.skipped == 0:
            self.problem = "ran no test"
        elif exit_code != 0 and self.failed == 0:
            self.problem = f"exit code {exit_code}"
        if self.problem:
            self.failed += 1

    def summary(self):
        text = f"{self.passed} passed"
        if self.failed:
            text += f", {self.failed} failed"
        if self.skipped:
            text += f", {self.skipped} skipped"
        return text + (f": {self.problem}" if self.problem else "")


def suite_name(command):
    """build/asan/tests/unit/pool -> unit/pool; anything else keeps the name it was given."""
    return re.sub(r"^.*?tests/", "", command)


def run_suite(command, verbose):
    """Runs one suite; returns its result and its output as lines."""
    arguments = shlex.split(command)
    if arguments[0].endswith(".py"):
        arguments.insert(0, sys.executable)
    elif os.sep not in arguments[0]:
        arguments[0] = os.path.join(".", arguments[0])
    environment = dict(os.environ)
    for variable, path in (("PAGODA_BIN", "pagoda"), ("PAGODA_MODELS", "models"), ("PAGODA_TEXTS", "texts")):
        environment.setdefault(variable, os.path.join(ROOT, "build", path))
    environment.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    try:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    except OSError as error:
        lines = [f"cannot run {arguments[0]}: {error.strerror}"]
        return Result(lines, 1, False), lines

    timed_out = threading.Event()

    def stop():
        timed_out.set()
        os.killpg(process.pid, signal.SIGKILL)

    watchdog = threading.Timer(SUITE_LIMIT_S, stop)
    watchdog.daemon = True
    watchdog.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if verbose:
                print("    | " + lines[-1], flush=True)
        process.wait()
    except BaseException: # an interrupt must not leave the suite behind
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        watchdog.cancel()
    return Result(lines, process.returncode, timed_out.is_set()), lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="show the output of every suite as it comes")
    parser.add_argument("--only", action="append", default=[], metavar="WORD",
                        help="run only the suites with WORD in their name")
    parser.add_argument("suites", nargs="+", metavar="SUITE")
    options = parser.parse_args()

    suites = [suite for suite in options.suites
              if not options.only or any(word in suite_name(suite) for word in options.only)]
    if not suites:
        print(f"no suite has {' or '.join(options.only)} in its name", file=sys.stderr)
    width = max((len(suite_name(suite)) for suite in suites), default=0)
    passed = failed = skipped = 0
    for suite in suites:
        name = suite_name(suite)
        on_terminal = sys.stdout.isatty() and not options.verbose
        if on_terminal:
            print(f"...   {name}", end="", flush=True)
        start = time.monotonic()
        result, lines = run_suite(suite, options.verbose)
        seconds = time.monotonic() - start
        passed, failed, skipped = passed + result.passed, failed + result.failed, skipped + result.skipped
        erase = "\r" if on_terminal else ""
        verdict = "FAIL" if result.failed else "ok"
        print(f"{erase}{verdict:<5} {name:<{width}}  {result.summary()}  ({seconds:.1f} s)", flush=True)
        if not options.verbose:
            shown = lines if result.failed else [line for line in lines if line.startswith("SKIP ")]
            for line in shown:
                print("    | " + line)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or passed + skipped == 0 else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
