#!/usr/bin/env python3
"""bench/recall.py: which runs it makes, that none is made twice, and how it adds them up. No model: a program that
answers as `pagoda` would stands in for it and notes what it was asked."""

import json
import os
import subprocess
import sys

from support.suite import ROOT, Suite, environment, scratch

suite = Suite()
BENCH = os.path.join(ROOT, "bench", "recall.py")
STAND_IN = """#!/usr/bin/env python3
import json, sys
words = sys.argv[1:]
with open(__file__ + ".asked", "a") as file:
    file.write(json.dumps(words) + "\\n")
def after(flag):
    return words[words.index(flag) + 1]
if words[0] == "show":
    print(json.dumps({"kv": {"bytes_per_token": 64000}}))
    sys.exit(0)
if int(after("--kv")) < 2000000:
    sys.exit(print("pagoda: error: too small by far", file=sys.stderr) or 3)
length = int(after("--lengths"))
exact = {100: 4, 400: 2}[length]
cell = {"length": length, "depth": 0.5, "trials": 5, "exact": {"written": exact}, "written_of_exact": 0.5}
passkey = dict(cell, tested={"written": 2}, prompt_tokens=length, unread=length / 4, dropped=0, cells=[cell])
print(json.dumps({"setting": {"tokens_capacity": 300}, "passkey": passkey}))
"""


def bench(stand_in, *words, name="results.jsonl"):
    """What it prints, and the runs of `eval` that it asked for."""
    asked = stand_in + ".asked"
    if os.path.exists(asked):
        os.remove(asked)
    results = os.path.join(os.path.dirname(stand_in), name)
    done = subprocess.run([sys.executable, BENCH, "small.gguf", "--results", results, "--tasks", "passkey", *words],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                          env=environment(PAGODA_BIN=stand_in))
    with open(asked, encoding="utf-8") as file:
        calls = [json.loads(line) for line in file]
    return done.stdout, [call for call in calls if call[0] == "eval"]


def new_stand_in(name):
    path = scratch(name, STAND_IN.encode())
    os.chmod(path, 0o755)
    return path


@suite.test
def no_run_is_made_twice_and_parts_make_the_whole():
    stand_in = new_stand_in("pagoda-parts")
    lengths = ["--lengths", "400,100", "--of", "400"]
    _, calls = bench(stand_in, *lengths, "--only", "spill 1/8", name="parts.jsonl")
    assert [call[call.index("--lengths") + 1] for call in calls] == ["400", "100"], calls
    assert all(call[call.index("--kv") + 1] == str(400 * 64000 // 8) for call in calls), calls
    both = [*lengths, "--only", "spill 1/8", "--only", "sink 1/8"]
    first, calls = bench(stand_in, *both, name="parts.jsonl")
    assert len(calls) == 2 and all("sink" in call for call in calls), calls
    again, calls = bench(stand_in, *both, "--table", name="parts.jsonl")
    assert calls == [] and again == first and "not run" not in again, again
    other, calls = bench(stand_in, *both, "--trials", "9", "--table", name="parts.jsonl")
    assert calls == [] and other.count("not run") == 2, other


@suite.test
def lengths_are_added_up_and_what_does_not_fit_is_told():
    stand_in = new_stand_in("pagoda-sums")
    out, _ = bench(stand_in, "--lengths", "100,400", "--of", "400", "--only", "spill 1/8", "--only", "spill 1/64",
                   name="sums.jsonl")
    rows = {line.split(" | ")[0].strip("| "): line for line in out.splitlines()}
    assert "| 6 of 10 | 0 % | 0 % | all |" in rows["exact"], out
    assert "| 50 % (19..81) | 25 % | 0 % | 300 of 400 |" in rows["spill 1/8"], out
    assert "| does not open |" in rows["spill 1/64"] and "\ntoo small by far\n" in out, out
    assert "| 100 | 2 / 4 / 5 |" in out and "| 400 | 1 / 2 / 5 |" in out, out


if __name__ == "__main__":
    suite.main()
