#!/usr/bin/env python3
"""pagoda bench: formats, arithmetic, other people's llama-bench, refusals, Ctrl-C. Speeds themselves are not judged."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time

from support.suite import PROGRAM, Suite, chat_model, environment, fails, plain_model, run, scratch

suite = Suite()
SMALL = ("-d", "0,64", "-n", "4", "--prefill", "32", "-r", "1")
TINY = ("-d", "0", "-n", "2", "--prefill", "0", "-r", "1", "--no-stock")
KV_BYTES = 23040 # of a token of the chat model in f16

FAKE = """#!{python}
import json, sys
sys.stderr.write("loading\\n")
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
def result(prompt, gen, speed):
    speeds = [speed * (1 + i) for i in range(int(flags["-r"]))]
    return {{"build_commit": "abc|1234", "build_number": 6123, "n_prompt": prompt, "n_gen": gen,
             "n_depth": int(flags.get("-d", 0)), "flash_attn": flags["-fa"] == "1", "samples_ts": speeds,
             "avg_ts": 1.0}}
print(json.dumps([result(int(flags["-p"]), 0, 90000.0), result(0, int(flags["-n"]), 70000.0)]))
"""


def program(folder, text):
    """A llama-bench in a folder of its own; returns the folder."""
    path = scratch(folder)
    os.makedirs(path, exist_ok=True)
    name = os.path.join(path, "llama-bench")
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(name, 0o755)
    return path


def path_with(*folders):
    """An environment whose PATH begins with the folders, and has no llama-bench else."""
    rest = [folder for folder in os.environ.get("PATH", "/usr/bin:/bin").split(":")
            if not os.path.exists(os.path.join(folder, "llama-bench"))]
    return environment(PATH=":".join([*folders, *rest]))


def check_arithmetic(report):
    """Everything that follows from something else in the object does."""
    def near(a, b):
        return abs(a - b) <= 2e-5 * abs(b)
    for row in report["rows"]:
        samples = sorted(row["samples"])
        middle = (samples[len(samples) // 2] + samples[(len(samples) - 1) // 2]) / 2
        assert near(row["tokens_per_second"], middle) and near(row["min"], samples[0]), row
        assert near(row["max"], samples[-1]), row
        peers = [other["tokens_per_second"] for other in report["rows"]
                 if other["peer"] and (other["test"], other["depth"]) == (row["test"], row["depth"])]
        assert near(row["ratio"], row["tokens_per_second"] / max(peers)) if peers else row["ratio"] is None, row
        if row["test"] == "prefill":
            assert row["kv_bytes"] is row["gb_per_s"] is row["dram_share"] is None, row
        else:
            wanted = KV_BYTES * (row["depth"] + row["tokens"] // 2) * (17 / 32 if "q8_0" in row["engine"] else 1)
            assert row["kv_bytes"] == wanted, (wanted, row)
            assert near(row["gb_per_s"], (row["weights_bytes"] + wanted) * row["tokens_per_second"] / 1e9), row
            assert near(row["dram_share"], row["gb_per_s"] / report["dram"]["gb_per_s"]), row


@suite.test
def engines_and_peers_in_one_table():
    log = scratch("asked")
    good = program("good", FAKE.format(python=sys.executable, log=log))
    bad = program("bad", "#!/bin/sh\necho first >&2\necho 'no such \033[31mflag' >&2\nexit 3\n")
    garbage = program("garbage", "#!/bin/sh\necho 'not at all JSON'\n")
    result = run("bench", chat_model(), *SMALL[:-1], "3", "-o", "json", env=path_with(good, bad, garbage), code=0)
    report = result.json()
    assert result.err == "", result
    check_arithmetic(report)
    engines = ["pagoda auto", "stock flash f16", "stock classic f16", "stock flash q8_0",
               "llama-bench 6123 (abc?1234) flash", "llama-bench 6123 (abc?1234) classic"]
    rows = [(row["test"], row["depth"], row["engine"]) for row in report["rows"]]
    assert rows == [(test, depth, engine) for depth in (0, 64) for test in ("decode", "prefill") for engine in engines]
    for row in report["rows"]:
        assert row["peer"] == (row["engine"] != "pagoda auto") and len(row["samples"]) == 3, row
        assert row["tokens"] == {"decode": 4, "prefill": 32}[row["test"]], row
        if "llama-bench" in row["engine"]:
            speed = {"decode": 70000, "prefill": 90000}[row["test"]]
            assert (row["min"], row["tokens_per_second"], row["max"]) == (speed, 2 * speed, 3 * speed), row
    assert 0 < report["dram"]["gb_per_s"] and report["dram"]["buffer_bytes"] >= 1 << 24, report["dram"]
    assert report["threads"] == 1 and report["kernels"] and report["cpu"] and report["llama_cpp"], report
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", report["date"]), report
    notes = "\n".join(report["notes"])
    assert len(report["notes"]) == 4, f"one note for each that is missing: {notes}"
    assert re.search(r"bad/llama-bench -fa 1 is missing .* code 3: no such \?\[31mflag", notes), notes
    assert re.search(r"garbage/llama-bench -fa 0 is missing .* JSON", notes), notes
    with open(log, encoding="utf-8") as file:
        asked = file.read().splitlines()
    assert asked == [f"-m {chat_model()} -p 32 -n 4 {depth}-t 1 -fa {flash} -r 3 -o json"
                     for depth in ("", "-d 64 ") for flash in (1, 0)], asked


@suite.test
def answers_to_another_question_are_refused():
    text = FAKE.format(python=sys.executable, log=scratch("other")).replace('int(flags.get("-d", 0))', "7")
    report = run("bench", chat_model(), "-d", "0", "-n", "2", "-p", "2", "-r", "1", "--no-stock", "-o", "json",
                 env=path_with(program("other-depth", text)), code=0).json()
    assert all(row["engine"] == "pagoda auto" and row["ratio"] is None for row in report["rows"]), report
    assert len(report["notes"]) == 2 and "what it was asked for" in report["notes"][0], report


@suite.test
def text_and_markdown_have_their_rows():
    for form, row in (("text", r"decode +0 pagoda auto +[\d.]+ +[\d.]+ +[\d.]+ +0\.02M +[\d.]+ +\d+ % +- *"),
                      ("md", r"\| decode +\| +0 \| pagoda auto +(\| +[\d.]+ ){3}\| +0\.02M \| +[\d.]+ \| +\d+ % "
                             r"\| +- \|")):
        result = run("bench", chat_model(), *TINY, "-o", form, env=path_with(), code=0)
        assert len(re.findall(f"^{row}$", result.out, re.M)) == 1, result
        for word in ("machine: ", "threads 1", "kernels ", "llama.cpp ", "memory reads: ", "GB/s",
                     "llama-bench is missing"):
            assert result.out.count(word) >= 1, (word, result)
        lines = [line for line in result.out.splitlines() if line.startswith("|")]
        assert len(lines) == (3 if form == "md" else 0), result
        assert len({line.count("|") for line in lines}) <= 1, result


@suite.test
def csv_can_be_read():
    result = run("bench", chat_model(), *TINY, "-o", "csv", env=path_with(), code=0)
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert len(rows) == 1 and None not in rows[0] and None not in rows[0].values(), rows
    row = rows[0]
    assert (row["test"], row["depth"], row["engine"], row["threads"]) == ("decode", "0", "pagoda auto", "1"), row
    assert float(row["tokens_per_second"]) > 0 and row["kv_bytes"] == str(KV_BYTES) and row["ratio"] == "", row
    assert "llama-bench is missing" in result.err, result


@suite.test
def runs_go_back_although_windows_have_moved_on():
    report = run("bench", plain_model(), "-d", "528", "-n", "33", "-p", "0", "-r", "2", "--no-stock", "--no-peers",
                 "-o", "json", code=0).json()
    assert [len(row["samples"]) for row in report["rows"]] == [2] and report["notes"] == [], report
    whole = report["rows"][0]["kv_bytes"]
    # 3 of 18 layers see everything, the others 512 tokens; a KV head of 256 numbers each, keys and values
    assert whole == 2 * 2 * 256 * (3 * (528 + 17) + 15 * 512), report


@suite.test
def smaller_codecs_read_less():
    report = run("bench", chat_model(), "-d", "528", "-n", "4", "-p", "0", "-r", "2", "--kv-codec", "q8", "--no-stock",
                 "--no-peers", "-o", "json", code=0).json()
    assert [row["engine"] for row in report["rows"]] == ["pagoda q8"], report
    exact = KV_BYTES * (528 + 2)
    # what is recent or may be taken back is exact: 16 tokens at the start, 132 at the end
    assert 0.6 * exact < report["rows"][0]["kv_bytes"] < 0.7 * exact, (exact, report)


def a_text(sentences):
    ships = (f"Ship {i * 37 % 101} left harbour {i} with {i * i % 89} sailors, and came back in {1700 + i}. "
             for i in range(sentences))
    return scratch(f"ships-{sentences}.txt", "".join(ships).encode())


SPILL = ("-d", "1000", "-n", "3", "-p", "0", "--kv", "14M", "--on-full", "spill", "--no-stock", "--no-peers")


@suite.test
def pages_on_flash_are_measured_beside_pages_in_memory():
    report = run("bench", chat_model(), *SPILL, "--recall", "0.99", "-r", "2", "-f", a_text(60), "-o", "json",
                 env=path_with(), code=0).json()
    assert report["notes"] == [], report
    rows = {row["engine"]: row for row in report["rows"]}
    assert list(rows) == ["pagoda k8v4 spill", "pagoda k8v4 spill, all read", "pagoda k8v4 in memory"], report
    memory = rows["pagoda k8v4 in memory"]
    for row in rows.values():
        assert row["depth"] == 1000 and len(row["samples"]) == 2 and not row["peer"], row
        assert abs(row["memory_ratio"] - row["tokens_per_second"] / memory["tokens_per_second"]) < 1e-5, row
        slowest, fastest = 1000 / row["min"], 1000 / row["max"]
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"], row
        assert row["max_ms"] >= slowest * 0.999 and row["p50_ms"] <= 2 * slowest and fastest > 0, row
    flash, everything = (rows[name]["flash"] for name in list(rows)[:2])
    assert memory["flash"] is None and memory["kv_bytes"] > rows["pagoda k8v4 spill"]["kv_bytes"], report
    assert everything["unread_tokens"] == everything["unread_mass"] == 0, everything
    assert flash["unread_tokens"] > 0 and 0 < flash["unread_mass"] < 0.2, flash
    assert 0 < flash["bytes_read"] < everything["bytes_read"], (flash, everything)
    assert flash["late_pages"] == 0 and flash["max_stall_ms"] >= flash["stall_ms"] >= 0, flash


@suite.test
def a_slow_device_is_not_waited_for_longer_than_the_bound():
    result = run("bench", chat_model(), *SPILL, "-r", "1", "-f", a_text(60), "--flash-speed", "500K", "--max-stall-ms",
                 "20", "-o", "md", env=path_with(), code=0)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.out.splitlines() if line[:1] == "|"]
    titles = next(line for line in lines if "p99 ms" in line)
    row = dict(zip(titles, next(line for line in lines if len(line) == len(titles) and line[1] == "pagoda k8v4 spill")))
    assert int(row["late"]) > 0 and 10 < float(row["max stall"]) < 60, result.out


@suite.test
def spilling_goes_on_and_so_depths_must_not_overlap():
    fails(2, ["--n-depth", "6 tokens"], "bench", chat_model(), *SPILL, "-d", "1000,1005", "-r", "2")


@suite.test
def a_text_must_be_long_enough():
    fails(2, ["--file", "needs 1,003"], "bench", chat_model(), *SPILL, "-r", "1", "-f", a_text(3))


@suite.test
def wrong_flags_are_refused():
    for arguments, word in ((("-d", "x"), "not a number"), (("-d", ""), "not a number"),
                            (("-d", "0,,5"), "not a number"),
                            (("-d", "99999999999"), "range"), (("-d", ",".join(map(str, range(17)))), "at most 16"),
                            (("-r", "0"), "range"), (("-r", "100"), "range"), (("-n", "-1"), "not a number"),
                            (("-p", "99999999"), "range"), (("-o", "jsn"), "did you mean 'json'"),
                            (("-n", "0", "-p", "0"), "nothing to measure"), (("--temp", "1"), "pagoda run"),
                            (("--policy", "fifo"), "pagoda run"), (("--repetition", "3"), "'--repetitions'"),
                            (("two.gguf",), "unexpected")):
        fails(2, word, "bench", "m.gguf", *arguments)
    fails(2, ["'--n-depth'", "pagoda bench"], "run", "m.gguf", "-d", "0")
    fails(4, "no-such.gguf", "bench", scratch("no-such.gguf"))


@suite.test
def depths_past_the_training_are_refused():
    fails(2, ["--n-depth", "8,193", "8,192"], "bench", chat_model(), "-d", "0,8193")


@suite.test
def a_budget_that_is_too_small_is_refused():
    fails(3, ["4,128 tokens", "16.0 MiB", "--kv"], "bench", chat_model(), "-d", "4096", "-p", "0", "--kv", "16M")


def interrupt(process, when):
    """Waits for a line of the program's that begins with `when`, presses Ctrl-C, and returns the exit code."""
    for line in process.stdout:
        if line.startswith(when):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    code = process.wait(timeout=30)
    assert time.monotonic() - started < 10, "Ctrl-C took its time"
    process.stdout.close()
    return code


@suite.test
def ctrl_c_ends_it():
    with subprocess.Popen([PROGRAM, "bench", chat_model(), "-d", "8000", "-r", "99", "--no-peers"],
                          stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert interrupt(process, "test ") == 130


@suite.test
def ctrl_c_ends_a_peer_too():
    mark = scratch("peer-process")
    slow = program("slow", f"#!/bin/sh\necho $$ >{mark}\nexec sleep 600\n")
    with subprocess.Popen([PROGRAM, "bench", chat_model(), *TINY], stdout=subprocess.PIPE, text=True,
                          env=path_with(slow)) as process:
        while not os.path.exists(mark) or os.path.getsize(mark) == 0:
            assert process.poll() is None, "it did not wait for its peer"
            time.sleep(0.05)
        assert interrupt(process, "test ") == 130
    with open(mark, encoding="utf-8") as file:
        peer = int(file.read())
    try:
        os.kill(peer, 0)
    except ProcessLookupError:
        return
    os.kill(peer, signal.SIGKILL)
    raise AssertionError("the peer goes on")


if __name__ == "__main__":
    suite.main()
