#!/usr/bin/env python3
"""A hard kernel limit: pagoda finishes a prompt of about 7,000 tokens in 256 MiB, where the stock engine is killed.

Needs root and a memory cgroup (v1 or v2); without them the tests are skipped, loudly and counted. The limit counts
everything that the process touches, mapped weights and page cache included.
"""

import json
import os
import shutil
import signal
import sys
import tempfile

from support.cgroup import Group
from support.suite import Skip

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGODA = os.environ.get("PAGODA_BIN", os.path.join(ROOT, "build", "pagoda"))
STOCK = os.path.join(os.path.dirname(PAGODA), "bench", "stock_run")
MODELS = os.environ.get("PAGODA_MODELS", os.path.join(ROOT, "build", "models"))
TEXTS = os.environ.get("PAGODA_TEXTS", os.path.join(ROOT, "build", "texts"))
MODEL = os.path.join(MODELS, "smollm2-135m-instruct-q4_1.gguf")
TEXT = os.path.join(TEXTS, "debian-handbook.txt")
LIMIT = 256 << 20
KV = 64 << 20
RESULTS = {"passed": 0, "failed": 0, "skipped": 0}


def copy_of_model(folder):
    """A copy that nobody else has read, and none of it in memory: what is read of it is charged to the group."""
    path = os.path.join(folder, os.path.basename(MODEL))
    with open(MODEL, "rb") as source, open(path, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
        os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def long_prompt(file):
    """About 7,000 tokens of real text, with a question at its end."""
    with open(TEXT, encoding="utf-8") as text:
        words = text.read().split()
    file.write(" ".join(words[2000:7200]))
    file.write("\n\nIn one sentence: which operating system is this text about?\n")
    file.flush()


def with_group(test):
    with Group(LIMIT) as group, tempfile.TemporaryDirectory() as folder, \
            tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        long_prompt(prompt)
        test(group, copy_of_model(folder), prompt.name)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def finishes_inside_the_limit(group, model, prompt, codec, acted):
    done = group.run([PAGODA, "run", model, "-f", prompt, "--kv", str(KV), "--on-full", "evict", "--policy", "sink",
                      "--kv-codec", codec, "-n", "32", "--temp", "0", "--json"])
    check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
    report = json.loads(done.stdout.decode().splitlines()[-1])
    check(report["tokens"]["prompt"] > 6500, f"prompt of {report['tokens']['prompt']} tokens")
    check(report["tokens"][acted] > 0, f"nothing was {acted}: the test did not test")
    check(len(report["text"].strip()) > 0, "no answer")
    check(report["kv"]["peak_bytes"] <= report["kv"]["budget_bytes"] <= KV, f"KV {report['kv']}")
    peak = int(group.read(group.peak))
    check(peak <= LIMIT, f"kernel's account {peak}")
    print(f"   pagoda: {report['tokens']['prompt']} prompt tokens, kernel's peak {peak / 2**20:.0f} MiB, "
          f"peak resident {report['memory']['peak_rss_bytes'] / 2**20:.0f} MiB, "
          f"KV peak {report['kv']['peak_bytes'] / 2**20:.1f} MiB, re-encoded {report['tokens']['quantized']}, "
          f"dropped {report['tokens']['dropped']}; "
          f"answer: {report['text'].strip()[:120]!r}")


def test_pagoda_drops_inside_the_limit(group, model, prompt):
    finishes_inside_the_limit(group, model, prompt, "f16", "dropped")


def test_pagoda_re_encodes_inside_the_limit(group, model, prompt):
    finishes_inside_the_limit(group, model, prompt, "auto", "quantized")


def test_stock_is_killed_inside_the_limit(group, model, prompt):
    if not os.path.exists(STOCK):
        raise Skip("build/bench/stock_run is not built")
    done = group.run([STOCK, "--model", model, "--text", prompt, "--context", "8192"])
    check(done.returncode == -signal.SIGKILL,
          f"the stock engine ended with {done.returncode}: {done.stdout.decode(errors='replace')[-200:]}")
    print("   stock with an 8k context: killed by the kernel")


def main():
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            if not os.path.exists(MODEL) or not os.path.exists(TEXT):
                raise Skip("needs `make models texts`")
            with_group(test)
            print(f"ok {name}")
            RESULTS["passed"] += 1
        except Skip as reason:
            print(f"SKIP {name}: {reason}")
            RESULTS["skipped"] += 1
        except AssertionError as problem:
            print(f"FAIL {name}: {problem}")
            RESULTS["failed"] += 1
    print(f"{RESULTS['passed']} passed, {RESULTS['failed']} failed, {RESULTS['skipped']} skipped")
    return 1 if RESULTS["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
