#!/usr/bin/env python3
"""Spilling with the real program and model: what is read back is what was written; what is not read is told."""
import os
import signal
import subprocess
import time

from support.suite import PROGRAM, Skip, Suite, chat_model, environment, fails, run, scratch

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
def a_bound_on_flash_lets_the_policy_drop():
    report, _ = told(*TIGHT, "--flash", "2M")
    assert 0 < report["kv"]["flash_bytes"] <= 2 << 20, report["kv"]
    assert report["tokens"]["dropped"] > 0, report["tokens"]


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
        report, err = told(*TIGHT, "--kv-dir", directory)
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
