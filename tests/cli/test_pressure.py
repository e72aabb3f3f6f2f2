#!/usr/bin/env python3
"""Memory that others take away while a reply is written: real groups with a hog in them, and made-up machines.

    tests/cli/test_pressure.py [--only WORD]
    tests/cli/test_pressure.py --cycles N      as a measurement: N hogs in turn, on every version that is here
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

from support.cgroup import Group, Hog
from support.suite import MODELS, PROGRAM, ROOT, Skip, Suite, chat_model, environment, fails, run, scratch

suite = Suite()
MIB = 1 << 20
RATE = 64 * MIB
MARK = 32 * MIB # below 512 MiB of limit
TEXT = os.path.join(os.environ.get("PAGODA_TEXTS", os.path.join(ROOT, "build", "texts")), "debian-handbook.txt")
SLOWEST_S = 0.5 # of pagoda's own CPU time: on a machine without a CPU to spare, the wall clock measures its neighbours
SMALL = ["--governor", "--kv", "16M", "-n", "8", "--temp", "0", "--ignore-eos"]


def copy_of_model():
    """A copy that nobody else reads, so that its pages are charged to the group; none of them is in memory."""
    path = scratch("model.gguf")
    if not os.path.exists(path):
        shutil.copyfile(chat_model(), path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def prompt_of(words):
    if not os.path.exists(TEXT):
        raise Skip("needs `make texts`")
    with open(TEXT, encoding="utf-8") as text:
        return scratch("prompt.txt", " ".join(text.read().split()[2000:2000 + words]).encode())


class Life:
    """One run of pagoda in a group, watched from outside."""

    def __init__(self, group, prompt, tokens, *flags):
        self.group = group
        self.begun = threading.Event()
        self.times = [] # of each piece of the reply
        self.text = b""
        self.process = group.start(
            [PROGRAM, "run", copy_of_model(), "--raw", "-f", prompt, "-n", str(tokens), "--ignore-eos", "--temp", "0",
             "--governor", "--kv", "128M", "--kv-codec", "auto", "-v", *flags],
            stdout=subprocess.PIPE, stderr=open(scratch("errors"), "wb"), env=environment())
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while piece := os.read(self.process.stdout.fileno(), 4096):
            self.times.append(time.monotonic())
            self.text += piece
            self.begun.set()
        self.begun.set()

    def end(self, code=0):
        self.reader.join(300)
        self.code = self.process.wait(10)
        with open(scratch("errors"), encoding="utf-8") as file:
            self.notes = file.read()
        assert self.code == code, f"exit code {self.code}: {self.notes[-1500:]}"

    def cpu_seconds(self):
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError: # it has ended
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pieces_in_last(self, seconds):
        return sum(1 for at in self.times if at >= self.times[-1] - seconds)

    def kill(self):
        self.process.kill()
        self.reader.join()
        self.process.wait()


def longest_below(samples, bound):
    """The longest for which all samples were below a bound: seconds by the clock, and of pagoda's CPU time."""
    longest, since = (0.0, 0.0), None
    for at, cpu, value in samples:
        since = (since or (at, cpu)) if value < bound else None
        if since:
            longest = (max(longest[0], at - since[0]), max(longest[1], cpu - since[1]))
    return longest


def hog_size(life, above_mark):
    """How much leaves `above_mark` bytes more (or, negative, less) than the mark, if nobody gives anything back."""
    headroom = life.group.headroom()
    assert headroom > MARK + above_mark, f"only {headroom / MIB:.0f} MiB are left before anybody pressed"
    return headroom - MARK - above_mark


def press(life, hog, size, hold_s):
    """Samples of the headroom while a hog of this size lives."""
    samples = []
    hog.take(RATE, size, hold_s)
    while not hog.is_over():
        samples.append((time.monotonic(), life.cpu_seconds(), life.group.headroom()))
        time.sleep(0.02)
    return samples


def working_set(version, prompt, tokens):
    """What the kernel counts when nobody presses, and the reply."""
    with Group(4 << 30, (version,)) as group:
        life = Life(group, prompt, tokens, "--no-governor")
        life.end()
        return int(group.read(group.peak)), life


def pressed_run(version, words, tokens, part, above_mark, hold_s):
    """(the unpressed life, the pressed one under a limit of `part` of the working set, samples of headroom, kills)"""
    prompt = prompt_of(words)
    usual, free = working_set(version, prompt, tokens)
    with Group(int(usual * part), (version,)) as group:
        hog = Hog(group)
        life = Life(group, prompt, tokens)
        try:
            life.begun.wait(300)
            samples = press(life, hog, hog_size(life, above_mark), hold_s)
            life.end()
            kills = group.kills()
        finally:
            hog.end()
            life.kill()
    return free, life, samples, kills


# ---- a real hog ----

def check_hog(version):
    free, life, samples, kills = pressed_run(version, words=1900, tokens=260, part=1.15, above_mark=-12 * MIB, hold_s=2)
    assert kills == 0 and life.code == 0
    below, cpu = longest_below(samples, MARK)
    print(f"   group of version {version}: {below * 1000:.0f} ms below the mark at most, {cpu * 1000:.0f} ms of CPU; "
          f"{life.notes.count('KV budget')} moves of the budget")
    assert "memory is tight" in life.notes and "KV budget" in life.notes, life.notes
    assert cpu <= SLOWEST_S, f"{cpu * 1000:.0f} ms of CPU below the mark: {life.notes}"
    assert "dropped" not in life.notes, life.notes # run stops, it never drops
    assert len(life.text) > 0 and len(free.text) > 0


@suite.test
def a_hog_in_a_group_of_version_1():
    check_hog(1)


@suite.test
def a_hog_in_a_group_of_version_2():
    check_hog(2)


@suite.test
def a_hog_that_stays_away_from_the_mark_changes_nothing():
    for version in (1, 2):
        try:
            free, life, samples, kills = pressed_run(version, words=300, tokens=120, part=1.5, above_mark=8 * MIB,
                                                    hold_s=1)
        except Skip:
            continue
        assert kills == 0 and min(value for _, _, value in samples) >= MARK, "the hog came too near"
        assert "memory is" not in life.notes, life.notes
        assert life.text == free.text
        return
    raise Skip("needs root and a memory cgroup")


# ---- made-up machines ----

def machine(limit, usage, stat=""):
    """A tree of files as a group of version 2 would have them; its root."""
    root = scratch("machine")
    for name, text in (("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", f"{limit}\n"),
                       ("sys/fs/cgroup/memory.current", f"{usage}\n"), ("sys/fs/cgroup/memory.stat", stat)):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    return environment(PAGODA_SYSTEM_ROOT=root)


@suite.test
def a_tight_machine_is_told_of():
    tight = machine(1024 * MIB, 970 * MIB) # 54 MiB are left, the mark is 64
    result = run("run", chat_model(), *SMALL, "--raw", "--json", "Hello", env=tight, code=0)
    pressure = result.json()["pressure"]
    assert pressure["state"] == "tight" and pressure["source"] == "memory.max of / (cgroup v2)", pressure
    assert pressure["steps_down"] > 0 and result.json()["kv"]["budget_now_bytes"] < 16 * MIB, result
    assert "memory is tight: 54.0 MiB of 1024.0 MiB left by memory.max of / (cgroup v2)" in result.err, result


@suite.test
def without_the_governor_nothing_moves():
    tight = machine(1024 * MIB, 970 * MIB)
    result = run("run", chat_model(), *SMALL, "--no-governor", "--json", "Hello", env=tight, code=0)
    assert result.json()["pressure"] == {} and result.err == "", result
    assert result.json()["kv"]["budget_now_bytes"] == 16 * MIB


@suite.test
def a_chat_without_memory_takes_no_new_turn():
    process = subprocess.Popen([PROGRAM, "chat", chat_model(), *SMALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=machine(1024 * MIB, 256 * MIB))
    process.stdin.write(b"Hello\n")
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1) != b""
    machine(1024 * MIB, 1024 * MIB)
    time.sleep(1.5)
    out, err = process.communicate(b"And now?\n/context\n", timeout=180)
    assert process.returncode == 1 and b"nothing new can be read now" in err, err
    assert b"memory: critical, 0 B left\n  by memory.max of / (cgroup v2)\n  KV budget" in out, out


@suite.test
def a_signal_is_a_warning():
    easy = machine(8192 * MIB, MIB)
    command = [PROGRAM, "run", chat_model(), "--governor", "--kv", "64M", "-n", "400", "--ignore-eos", "-v",
               "Tell a tale."]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=easy)
    assert os.read(process.stdout.fileno(), 1) != b""
    process.send_signal(signal.SIGUSR1)
    _, notes = process.communicate(timeout=180)
    assert process.returncode == 0 and b"the host warns of low memory" in notes, notes


# ---- the budget of the process ----

@suite.test
def the_process_budget_bounds_the_kernel_s_count():
    report = run("run", chat_model(), "--mem", "1G", "-n", "1", "--json", "Hello", code=0).json()
    least = report["memory"]["process_bytes"]
    for mem in (least + 24 * MIB, least + 48 * MIB):
        report = run("run", chat_model(), "--mem", mem, "--kv", "1G", "--raw", "-f", prompt_of(500), "-n", "16",
                     "--ignore-eos", "--json", code=0).json()
        assert report["memory"]["peak_rss_bytes"] <= mem, report["memory"]
        assert report["kv"]["budget_bytes"] <= mem - 0.9 * least, report["kv"]
        assert report["memory"]["peak_rss_bytes"] >= 0.8 * (mem - report["kv"]["budget_bytes"]), report["memory"]


@suite.test
def a_process_budget_that_is_too_small_says_what_it_takes():
    fails(3, ["--mem 64.0 MiB is too little", "give it at least"], "run", chat_model(), "--mem", "64M", "Hello")
    fails(2, "'--mem' is not a flag of 'pagoda show'", "show", chat_model(), "--mem", "1G")


# ---- as a measurement ----

def measure(version, cycles):
    """Many hogs during one reply that is longer than they take."""
    prompt = prompt_of(1900)
    usual, free = working_set(version, prompt, 400)
    below = []
    with Group(int(usual * 1.15), (version,)) as group:
        life = Life(group, prompt, 5400, "--on-full", "evict")
        try:
            life.begun.wait(300)
            size = 0
            for _ in range(cycles):
                hog = Hog(group)
                size = size or hog_size(life, -16 * MIB)
                try:
                    below.append(longest_below(press(life, hog, size, 1), MARK)[0])
                finally:
                    hog.end()
                time.sleep(4)
                if life.process.poll() is not None:
                    break
            time.sleep(5)
            life.process.send_signal(signal.SIGINT)
            life.end(130)
            kills = group.kills()
        finally:
            life.kill()
    rate = free.pieces_in_last(5)
    print(f"group of version {version}, limit {usual * 1.15 / MIB:.0f} MiB, {len(below)} hogs at 64 MiB/s: "
          f"{kills} kills; "
          f"below the mark {statistics.median(below) * 1000:.0f} ms (median), {max(below) * 1000:.0f} ms (most); "
          f"speed after the last one {life.pieces_in_last(5) / rate * 100:.0f} % of the unpressed run's")
    print("   " + life.notes.strip().replace("\n", "\n   "))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cycles"]:
        for number in (1, 2):
            try:
                measure(number, int(sys.argv[2]))
            except Skip as missing:
                print(f"group of version {number}: not measured: {missing}")
        shutil.rmtree(os.path.dirname(scratch("x")), ignore_errors=True)
    else:
        suite.main()
