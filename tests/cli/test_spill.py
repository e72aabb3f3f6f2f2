#!/usr/bin/env python3
"""Spilling with the real program and model: what is read back is what was written; what is not read is told."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

from support.suite import PROGRAM, Skip, Suite, chat_model, environment, fails, plain_model, run, scratch

suite = Suite()

# Room for about 500 tokens of the prompt's 1,400.
TIGHT = ["--kv", "13M", "-c", "2048", "--on-full", "spill"]
SAME = ["--raw", "--temp", "0", "-n", "16", "--ignore-eos", "--json", "--kv-codec", "k8v4"]


def prompt():
    """A text in which no sentence is like another."""
    ships = (f"Ship {i * 37 % 101} left harbour {i} with {i * i % 89} sailors, and came back in {1700 + i}. "
             for i in range(60))
    return scratch("long.txt", "".join(ships).encode())


def told(*flags):
    result = run("run", chat_model(), "-f", prompt(), *SAME, *flags, code=0)
    return result.json(), result.err


@suite.test
def reading_all_gives_the_text_of_a_cache_in_memory():
    memory, _ = told("--kv", "64M")
    flash, _ = told(*TIGHT, "--select", "all")
    assert flash["tokens"]["spilled"] > 400 and flash["tokens"]["unread"] == 0, flash["tokens"]
    assert flash["tokens"]["dropped"] == 0 and flash["kv"]["flash_bytes_read"] > 0, flash
    assert flash["text"] == memory["text"], (flash["text"], memory["text"])


@suite.test
def a_reply_tells_what_was_on_flash_and_not_read():
    report, err = told(*TIGHT)
    tokens = report["tokens"]
    assert tokens["spilled"] > 400 and tokens["dropped"] == 0 and not report["exact"], report
    held = tokens["ram"] + tokens["quantized"] + tokens["spilled"]
    assert held == tokens["prompt"] + tokens["generated"], tokens
    assert "on flash" in err, err
    assert report["kv"]["peak_bytes"] <= report["kv"]["budget_bytes"], report["kv"]
    assert report["kv"]["flash_bytes_written"] <= 1.05 * report["kv"]["pages_spilled"] * 4992 + 4096, report["kv"]


@suite.test
def what_is_spilled_is_counted_by_the_day():
    before = run("show", "--device", "--json", code=0).json()["bytes_written_today"]
    report, _ = told(*TIGHT)
    after = run("show", "--device", "--json", code=0).json()
    spilled = after["bytes_written_today"] - before - after["bytes_written"]
    assert spilled == report["kv"]["flash_bytes_written"] > 0, (before, after, report["kv"])


@suite.test
def a_bound_on_flash_lets_the_policy_drop_if_it_shall():
    report, _ = told(*TIGHT, "--flash", "2M", "--flash-full", "drop")
    assert 0 < report["kv"]["flash_bytes"] <= 2 << 20, report["kv"]
    assert report["tokens"]["dropped"] > 0 and report["tokens"]["collapsed"] == 0, report["tokens"]


@suite.test
def a_bound_on_flash_leaves_summaries():
    report, err = told(*TIGHT, "--flash", "2M")
    tokens, kv = report["tokens"], report["kv"]
    assert 0 < kv["flash_bytes"] <= 2 << 20 and kv["peak_bytes"] <= kv["budget_bytes"], kv
    assert tokens["collapsed"] > 100 and kv["pages_collapsed"] > 0 and tokens["dropped"] == 0, report
    held = tokens["ram"] + tokens["quantized"] + tokens["spilled"] + tokens["collapsed"]
    assert held == tokens["prompt"] + tokens["generated"] and not report["exact"], report
    assert "only summarised" in err, err


@suite.test
def the_page_map_shows_what_is_only_summarised():
    question = "Tell me about ships. " + open(prompt(), encoding="utf-8").read().replace("\n", " ")
    result = run("chat", chat_model(), *TIGHT, "--flash", "2M", "--temp", "0", "-n", "8", "--ascii",
                 stdin=(question + "\n/context\n/stats\n").encode(), code=0)
    assert "only summarised" in result.out and "ddd" in result.out, result.out
    assert "d only a summary is left" in result.out, result.out


@suite.test
def a_file_system_that_fills_up_lets_the_policy_drop():
    """256 MiB are left to others, so the small disk has a little more; memory is taken only for what is written."""
    directory = os.path.join(os.path.dirname(scratch("x")), "small-disk")
    os.makedirs(directory, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=258m", "pagoda-test", directory],
                             stderr=subprocess.PIPE, check=False)
    if mounted.returncode != 0:
        raise Skip(f"needs root, to mount a small file system: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        report, err = told(*TIGHT, "--kv-dir", directory, "--flash-full", "drop")
    finally:
        subprocess.run(["umount", directory], check=True)
    tokens = report["tokens"]
    assert 1 << 20 < report["kv"]["flash_bytes"] <= 2 << 20, report["kv"]
    assert tokens["dropped"] > 0 and report["kv"]["pages_lost"] == 0 and "dropped" in err, (tokens, err)
    held = tokens["ram"] + tokens["quantized"] + tokens["spilled"]
    assert held + tokens["dropped"] == tokens["prompt"] + tokens["generated"], tokens


@suite.test
def a_directory_that_cannot_be_used_is_an_error():
    fails(1, "no-such-directory", "run", chat_model(), "-p", "x", *TIGHT, "--kv-dir", "/no-such-directory")


# --- the default of chat and run ---

DEFAULT = ["--kv", "13M", "-c", "2048"]


@suite.test
def run_spills_unless_told_otherwise():
    report, err = told(*DEFAULT)
    assert report["on_full"] == "spill" and report["on_full_reason"] is None, report
    assert report["tokens"]["spilled"] > 400 and report["tokens"]["dropped"] == 0, report["tokens"]
    assert "not spilling" not in err and "on flash" in err, err
    result = run("run", chat_model(), "-f", prompt(), *SAME, *DEFAULT, "--on-full", "stop", code=3)
    assert "--on-full spill" in result.err and "--on-full evict" in result.err, result


@suite.test
def nothing_goes_to_flash_while_there_is_room():
    report, err = told("--kv", "64M", "--kv-codec", "auto")
    assert report["on_full"] == "spill" and report["exact"] and err == "", (report, err)
    assert report["kv"]["flash_bytes"] == report["kv"]["flash_bytes_written"] == 0, report["kv"]


@suite.test
def a_chat_still_has_its_first_turn():
    """It is on flash; read in full, the replies are those of a cache in memory. What evicts has lost it by then."""
    talk = ["The password of the harbour is 7512. Remember it.",
            *("List ships: " + "".join(f"ship {i * j % 71} has {i * 7 + j} sailors, " for i in range(40))
              for j in (3, 5, 7)),
            "What is the password of the harbour?", "/stats", "/context"]

    def chat(*flags):
        result = run("chat", chat_model(), "-n", "16", "--temp", "0", "--kv-codec", "k8v4", *flags,
                     stdin="".join(line + "\n" for line in talk).encode(), code=0)
        replies, stats, drawn = result.out.split("KV budget")
        on_flash = int(re.search(r"([\d,]+) on flash", stats).group(1).replace(",", ""))
        assert (on_flash > 400) == ("\u2591" in drawn.split("free")[0]), result
        return replies, next(line for line in drawn.splitlines() if line.startswith("turn 1 ")), result
    in_memory, row, result = chat("--kv", "64M")
    assert set(row.split()[-1]) <= set("\u2588\u2584") and "goes to flash" not in result.err, (row, result)
    spilled, row, result = chat(*DEFAULT, "--select", "all", "--max-stall-ms", "0")
    assert spilled == in_memory and set(row.split()[-1]) == {"\u2591"}, (row, result)
    assert "when full: spill, then policy sink" in result.err and "when full: spill" in result.out, result
    assert result.err.count("the KV budget is full: from here on old text goes to flash") == 1, result
    _, row, result = chat(*DEFAULT, "--on-full", "evict", "--policy", "fifo")
    assert "\u00d7" in row and "from here on old text leaves (policy fifo)" in result.err, (row, result)


NOWHERE = {"PAGODA_KV_DIR": "/no-such-directory"}


@suite.test
def without_a_directory_the_old_rules_hold_and_it_is_told():
    settings = environment(**NOWHERE)
    for command, rule in (("run", "stop"), ("chat", "evict")):
        flags = ["-p", "Hello"] if command == "run" else []
        arguments = [command, chat_model(), "-n", "4", "--kv", "32M", *flags]
        result = run(*arguments, stdin=b"Hello\n/policy\n" if command == "chat" else b"", env=settings, code=0)
        notes = [line for line in result.err.splitlines() if "not spilling" in line]
        assert len(notes) == 1 and f"--on-full {rule}" in notes[0] and "/no-such-directory" in notes[0], result
        assert command == "run" or "when the budget is full: evict, policy sink" in result.out, result
        quiet = run(*arguments, "-q", stdin=b"Hello\n", env=settings, code=0)
        assert quiet.err == "", quiet
    report = run("run", chat_model(), "-p", "Hello", "-n", "4", "--json", env=settings, code=0).json()
    assert report["on_full"] == "stop" and "/no-such-directory" in report["on_full_reason"], report


@suite.test
def what_was_asked_for_is_not_replaced():
    arguments = ["run", chat_model(), "-p", "x", "-n", "1"]
    fails(1, "/no-such-directory", *arguments, "--on-full", "spill", env=environment(**NOWHERE))
    fails(1, "/no-such-directory", *arguments, env=environment(PAGODA_ON_FULL="spill", **NOWHERE))
    fails(3, "does not hold one page", *arguments, "--on-full", "spill", "--kv", "1M")


@suite.test
def another_directory_does_where_the_first_is_none():
    report = run("run", chat_model(), "-p", "x", "-n", "1", "--json", code=0,
                 env=environment(XDG_CACHE_HOME="/proc/none")).json()
    assert report["on_full"] == "spill", report


@suite.test
def a_file_system_without_space_is_as_none():
    folder = os.path.join(os.path.dirname(scratch("x")), "small")
    os.makedirs(folder, exist_ok=True)

    def inside(*flags):
        words = [PROGRAM, "run", chat_model(), "-p", "Hello", "-n", "4", "--json", *flags]
        return subprocess.run(["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=3m none "$1" && shift && exec "$@"',
                               "sh", folder, *words], env=environment(PAGODA_KV_DIR=folder), capture_output=True,
                              check=False)
    if shutil.which("unshare") is None or inside("--on-full", "evict").returncode != 0:
        raise Skip("a small file system needs to be mounted, and that needs to be root")
    wished = json.loads(inside().stdout)
    assert wished["on_full"] == "stop" and "no space to spare" in wished["on_full_reason"], wished
    asked = json.loads(inside("--on-full", "spill").stdout)
    assert asked["on_full"] == "spill" and asked["on_full_reason"] is None, asked


@suite.test
def a_budget_too_small_for_flash_does_without():
    for model, size in ((chat_model(), "1M"), (chat_model(), "3M"), (plain_model(), "1M"), (plain_model(), "3M")):
        flags = [model, "--raw", "-p", "Hello", "-n", "4", "--kv", size, "--json"]
        result = run("run", *flags, code=0)
        report = result.json()
        assert report["on_full"] == "stop" and "too small" in report["on_full_reason"], report
        assert result.err.count("not spilling to flash, so --on-full stop") == 1, result
        evicting = run("run", *flags, "--on-full", "evict", code=0).json()
        assert report["kv"]["capacity_tokens"] == evicting["kv"]["capacity_tokens"], (report["kv"], evicting["kv"])


@suite.test
def a_window_asks_for_old_text_to_go():
    report = run("run", chat_model(), "-p", "Hello", "-n", "64", "--ignore-eos", "--window", "32", "--json",
                 code=0).json()
    assert report["on_full"] == "evict" and report["on_full_reason"] is None, report
    assert report["tokens"]["dropped"] > 0, report["tokens"]


@suite.test
def flash_that_is_full_lets_the_oldest_go_and_says_so():
    report, err = told(*DEFAULT, "--flash", "2M", "--flash-full", "drop")
    assert 0 < report["kv"]["flash_bytes"] <= 2 << 20 and report["tokens"]["dropped"] > 0, report
    assert "tokens dropped by sink" in err and "on flash" in err, err


@suite.test
def a_chat_says_why_text_leaves():
    def remarks(*flags):
        talk = "".join(f"Say these: {', '.join(str(i * j % 71) for i in range(130))}\n" for j in (3, 5, 7))
        return run("chat", chat_model(), "-n", "8", "--temp", "0", *flags, stdin=talk.encode(), code=0).err
    told_by_length = remarks("-c", "512")
    assert told_by_length.count("the context of 512 tokens is full (-c): from here on old text leaves") == 1
    assert "goes to flash" not in told_by_length, told_by_length
    summaries = remarks(*DEFAULT, "--flash", "1M")
    assert summaries.count("only a summary of the oldest text stays") == 1, summaries
    assert "flash takes no more (" in summaries and "goes to flash, and is read again" in summaries, summaries
    told_by_flash = remarks(*DEFAULT, "--flash", "1M", "--flash-full", "drop")
    words = "neither memory nor flash takes more (the flash tier takes no more: --flash or"
    assert words in told_by_flash, told_by_flash
    told_by_memory = remarks(*DEFAULT, "--on-full", "evict")
    assert told_by_memory.count("the KV budget is full: from here on old text leaves") == 1, told_by_memory


@suite.test
def nothing_is_left_when_the_process_is_killed():
    directory = os.path.join(os.path.dirname(scratch("x")), "flash")
    os.makedirs(directory, exist_ok=True)
    process = subprocess.Popen([PROGRAM, "run", chat_model(), "-f", prompt(), *SAME, *TIGHT, "-n", "2000", "--kv-dir",
                                directory], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    deadline = time.time() + 60
    spilled = 0
    while time.time() < deadline and process.poll() is None and spilled == 0:
        time.sleep(0.2)
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            try:
                link = os.readlink(f"/proc/{process.pid}/fd/{name}")
                spilled += os.stat(f"/proc/{process.pid}/fd/{name}").st_size if link.startswith(directory) else 0
            except OSError:
                pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert spilled > 0, "nothing was spilled in time"
    assert os.listdir(directory) == [], os.listdir(directory)


suite.main()
