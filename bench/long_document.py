#!/usr/bin/env python3
"""A document that is much longer than memory allows, read by Gemma 3 270M with --on-full spill under a kernel limit.

    bench/long_document.py [--tokens 100000] [--kv MIB] [--slack MIB] [--limit MIB] [--threads N]

The limit is the weights, what the process holds beside them (compute buffers, the engine's rearranged copies of
weights, its vocabulary of 262,144 words), the KV budget, and `slack` MiB; or any other one. It counts the page cache. A
number stands near the beginning of the document and is asked for at its end: within what the model was trained for, it
must be answered. Needs root and a memory cgroup. Exit code 1 when something is not as promised.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))

from support.cgroup import Group

PROGRAM = os.path.join(ROOT, "build", "pagoda")
MODEL = os.path.join(ROOT, "build", "models", "gemma-3-270m-q4_k_m.gguf")
TEXT = os.path.join(ROOT, "build", "texts", "bible-kjv.txt")
MIB = 1 << 20
TRAINED = 32768
BYTES_PER_TOKEN = 3.64 # of this text
PAGE_BYTES = 16 * (256 + 128 + 2 * 2) # k8v4: one KV head of 256 numbers
KEY = "48151"
PARTS = 8


def document(tokens):
    with open(TEXT, encoding="utf-8") as file:
        text = file.read(int(tokens * BYTES_PER_TOKEN))
    first = text.index("\n", 2000)
    return (f"{text[:first]}\n\nThe pass key is {KEY}. Remember it. {KEY} is the pass key.\n{text[first:]}"
            f"\n\nWhat is the pass key? The pass key is")


def copy_of_model(folder):
    """One that nobody else has read, and none of it in memory: what is read of it is charged to the group."""
    path = os.path.join(folder, "model.gguf")
    shutil.copyfile(MODEL, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def anonymous_bytes(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


class Watch(threading.Thread):
    """What the process has in memory that no file stands behind, twice a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.samples, self.over = pid, [], threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            self.samples.append(anonymous_bytes(self.pid))

    def end(self):
        self.over.set()
        self.join()
        return [size for size in self.samples if size > 0]


def outside_of_kv(model, threads):
    """Bytes of the process without a file behind them and without KV state, when it has read hardly anything."""
    with subprocess.Popen([PROGRAM, "run", model, "--raw", "-p", "In", "--kv", "16M", "-n", "30", "--ignore-eos", "-q",
                           "--json", *threads], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        watch = Watch(process.pid)
        out, _ = process.communicate()
    return max(watch.end()) - json.loads(out.decode().splitlines()[-1])["kv"]["peak_bytes"]


def read_document(group, arguments, model, prompt, threads):
    command = [PROGRAM, "run", model, "--raw", "-f", prompt, "--kv", f"{arguments.kv}M", "-c",
               str(arguments.tokens + 4096), "--on-full", "spill", "-n", "8", "--temp", "0", "--ignore-eos", "--json",
               "-q", *threads]
    process = group.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watch = Watch(process.pid)
    started = time.monotonic()
    out, err = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode} after {seconds:.0f} s: {err.decode(errors='replace')[-400:]}")
    return json.loads(out.decode().splitlines()[-1]), watch.end(), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100000)
    parser.add_argument("--kv", type=int, default=32)
    parser.add_argument("--slack", type=int, default=32)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    threads = ["-t", str(arguments.threads)] if arguments.threads else []
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        prompt.write(document(arguments.tokens))
        prompt.flush()
        model = copy_of_model(folder)
        weights = os.path.getsize(model)
        tables = outside_of_kv(model, threads)
        with open(model, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        limit = arguments.limit * MIB or weights + tables + (arguments.kv + arguments.slack) * MIB
        with Group(limit) as group:
            report, samples, seconds = read_document(group, arguments, model, prompt.name, threads)
            peak, kills = int(group.read(group.peak)), group.kills()
    tokens, kv = report["tokens"], report["kv"]
    content = kv["pages_spilled"] * PAGE_BYTES
    parts = [max(samples[len(samples) * i // PARTS:len(samples) * (i + 1) // PARTS] or [0]) for i in range(PARTS)]
    print(f"{tokens['prompt']} tokens in {seconds:.0f} s; limit {limit / MIB:.0f} MiB (weights {weights / MIB:.0f}, "
          f"beside them {tables / MIB:.0f}, KV {arguments.kv}, {arguments.slack} more), the "
          f"kernel's peak {peak / MIB:.0f} MiB")
    print(f"memory without files behind it, by eighths of the time: {', '.join(f'{x / MIB:.1f}' for x in parts)} MiB")
    print(f"in memory {tokens['ram'] + tokens['quantized']}, on flash {tokens['spilled']}, of these unread by the last "
          f"token {tokens['unread']} (attention {100 * kv['unread_mass']:.1f} %), dropped {tokens['dropped']}; KV peak "
          f"{kv['peak_bytes'] / MIB:.2f} of {kv['budget_bytes'] / MIB:.2f} MiB")
    print(f"flash: {kv['flash_bytes_written'] / MIB:.1f} MiB written for {content / MIB:.1f} MiB of pages, "
          f"{kv['flash_bytes_read'] / MIB:.0f} MiB read, direct: {kv['flash_direct']}")
    print(f"answer: {report['text'].strip()!r}, planted: {KEY}")
    promises = {
        "nobody was killed": kills == 0 and peak <= limit,
        "nothing was dropped": tokens["dropped"] == 0 and tokens["spilled"] > 0,
        "the budget held": kv["peak_bytes"] <= kv["budget_bytes"],
        "memory was flat": max(parts[2:]) - min(parts[2:]) <= 8 * MIB,
        "written at most 1.05 times": 0 < kv["flash_bytes_written"] <= 1.05 * content,
        "the number was answered": tokens["prompt"] > TRAINED or KEY in report["text"],
    }
    for promise, kept in promises.items():
        print(f"{'ok' if kept else 'FAIL'} {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
