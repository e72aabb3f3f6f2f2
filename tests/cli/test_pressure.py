#!/usr/bin/env python3
"""Memory that others take away while a reply is written: real groups with a hog in them, and made-up machines.

    tests/cli/test_pressure.py [--only WORD]
    tests/cli/test_pressure.py --cycles N      as a measurement: N hogs in turn, on every version that is here, and the
                                               stock library under the same
"""

import json
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
TEXT = os.path.join(os.environ.get("PAGODA_TEXTS", os.path.join(ROOT, "build", "texts")), "debian-handbook.txt")
STOCK = os.path.join(os.path.dirname(PROGRAM), "bench", "stock_run")
SLOWEST_S = 0.5 # of pagoda's own CPU time: on a machine without a CPU to spare, the wall clock measures its neighbours
SMALL = ["--kv", "16M", "-n", "8", "--temp", "0", "--ignore-eos"]


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


def mark_of(limit):
    """Below it, memory must be given back: governor.h, for less than 8 GiB, when nothing vanishes quickly."""
    return min(max(limit // 32, 8 * MIB), limit // 16)


class Life:
    """One run of pagoda in a group, watched from outside."""

    def __init__(self, group, prompt, tokens, *flags):
        self.group = group
        self.begun = threading.Event()
        self.mark = mark_of(int(group.read(group.limit)))
        self.times = [] # of each piece of the reply
        self.text = b""
        self.process = group.start(
            [PROGRAM, "run", copy_of_model(), "--raw", "-f", prompt, "-n", str(tokens), "--ignore-eos", "--temp", "0",
             "--kv", "128M", "--kv-codec", "auto", "-v", *flags],
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


def hog_size(group, beyond):
    """All that is left, and `beyond` bytes more (or, negative, less)."""
    headroom = group.headroom()
    assert headroom + beyond > 0, f"only {headroom / MIB:.0f} MiB are left before anybody pressed"
    return headroom + beyond


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


def pressed_run(version, words, tokens, part, beyond, hold_s):
    """(the unpressed life, the pressed one under a limit of `part` of the working set, samples of headroom, kills)"""
    prompt = prompt_of(words)
    usual, free = working_set(version, prompt, tokens)
    with Group(int(usual * part), (version,)) as group:
        hog = Hog(group)
        life = Life(group, prompt, tokens)
        try:
            life.begun.wait(300)
            samples = press(life, hog, hog_size(group, beyond), hold_s)
            life.end()
            kills = group.kills()
        finally:
            hog.end()
            life.kill()
    return free, life, samples, kills


# ---- a real hog ----

def check_hog(version):
    free, life, samples, kills = pressed_run(version, words=1900, tokens=260, part=1.15, beyond=-4 * MIB, hold_s=2)
    assert kills == 0 and life.code == 0
    below, cpu = longest_below(samples, life.mark)
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
def a_limit_close_to_the_working_set_changes_nothing():
    for version in (1, 2):
        try:
            prompt = prompt_of(300)
            usual, free = working_set(version, prompt, 120)
            with Group(int(usual * 1.15), (version,)) as group:
                life = Life(group, prompt, 120)
                life.end()
                kills = group.kills()
        except Skip:
            continue
        assert kills == 0 and "KV budget" not in life.notes, life.notes
        assert life.text == free.text
        return
    raise Skip("needs root and a memory cgroup")


@suite.test
def a_hog_that_stays_away_from_the_mark_changes_nothing():
    for version in (1, 2):
        try:
            free, life, samples, kills = pressed_run(version, words=300, tokens=120, part=1.5, beyond=-60 * MIB,
                                                    hold_s=1)
        except Skip:
            continue
        assert kills == 0 and min(value for _, _, value in samples) >= 4 * life.mark, "the hog came too near"
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
    tight = machine(1024 * MIB, 1000 * MIB) # 24 MiB are left, the mark is 32
    result = run("run", chat_model(), *SMALL, "--raw", "--json", "Hello", env=tight, code=0)
    pressure = result.json()["pressure"]
    assert pressure["state"] == "tight" and pressure["source"] == "memory.max of / (cgroup v2)", pressure
    assert pressure["steps_down"] > 0 and result.json()["kv"]["budget_now_bytes"] < 16 * MIB, result
    assert "memory is tight: 24.0 MiB of 1024.0 MiB left by memory.max of / (cgroup v2)" in result.err, result


@suite.test
def without_the_governor_nothing_moves():
    tight = machine(1024 * MIB, 1000 * MIB)
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
    command = [PROGRAM, "run", chat_model(), "--kv", "64M", "-n", "400", "--ignore-eos", "-v",
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

BEYOND = 8 * MIB  # a hog takes so much more than is left
QUIET_S = 3      # before each hog, for the speed that is to come back
AFTER_S = 11
STEADY_S = 60


def trace_lines(path):
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines if "t" in line]


def clock_offset(life, lines):
    """What is added to a time of the trace to make it one of ours: the first token was read when its text came."""
    first = next(line for line in lines[1:] if line["batch_tokens"] and line["tokens"]["total"] > life.prompt_tokens)
    return life.times[0] - first["t"]


def speed_between(lines, start, end):
    """Tokens per second between two times of the trace."""
    inside = [line for line in lines if start <= line["t"] <= end]
    if len(inside) < 2:
        return 0.0
    return (inside[-1]["tokens"]["total"] - inside[0]["tokens"]["total"]) / (inside[-1]["t"] - inside[0]["t"])


def seconds_until_back(lines, began, ended):
    """How long after a hog's end 2 s have at least nine tenths of the speed before it; None: not in 10 s."""
    wanted = 0.9 * speed_between(lines, began - QUIET_S, began)
    for tenths in range(0, 81):
        start = ended + tenths / 10
        if speed_between(lines, start, start + 2) >= wanted:
            return tenths / 10 + 2
    return None


def shares_returned(lines):
    """Of what each way down of the budget released, the part by which the resident size fell within a second."""
    shares, at = [], 1
    while at < len(lines):
        if lines[at]["budget_bytes"] >= lines[at - 1]["budget_bytes"]:
            at += 1
            continue
        before = lines[at - 1]
        while at + 1 < len(lines) and lines[at + 1]["budget_bytes"] < lines[at]["budget_bytes"]:
            at += 1
        released = before["used_bytes"] - lines[at]["used_bytes"]
        resident = min(line["rss_bytes"] for line in lines[at:] if line["t"] <= lines[at]["t"] + 1)
        if released >= 4 * MIB:
            shares.append((before["rss_bytes"] - resident) / released)
        at += 1
    return shares


def turns_between(lines, start, end):
    """Changes of direction of the budget."""
    budgets = [line["budget_bytes"] for line in lines if start <= line["t"] <= end]
    moves = [1 if b > a else -1 for a, b in zip(budgets, budgets[1:]) if a != b]
    return sum(1 for a, b in zip(moves, moves[1:]) if a != b)


def row(version, what, measured, wanted, good):
    print(f"| v{version} | {what} | {measured} | {wanted} | {'yes' if good else 'NO'} |")


class Pressed:
    """One long reply, and a hog that stays for `hold_s`."""

    def __init__(self, version, limit, prompt, hold_s):
        trace = scratch("trace.jsonl")
        with Group(limit, (version,)) as group:
            self.life = Life(group, prompt, 100000, "--on-full", "evict", "--trace", trace)
            try:
                self.life.begun.wait(600)
                time.sleep(QUIET_S)
                self.press(group, hold_s)
                time.sleep(AFTER_S)
                self.kills = group.kills()
                self.life.process.send_signal(signal.SIGINT)
                self.life.end(130)
            finally:
                self.life.kill()
        self.lines = trace_lines(trace)
        self.life.prompt_tokens = self.prompt_tokens()
        offset = clock_offset(self.life, self.lines)
        self.began -= offset
        self.ended -= offset

    def prompt_tokens(self):
        """The prompt was read in batches of many tokens."""
        return max((line["tokens"]["total"] for line in self.lines[:400] if line["batch_tokens"] >= 64), default=0)

    def press(self, group, hold_s):
        hog = Hog(group)
        self.began = time.monotonic()
        try:
            samples = press(self.life, hog, hog_size(group, BEYOND), hold_s)
        finally:
            hog.end()
        self.ended = time.monotonic()
        self.below = longest_below(samples, self.life.mark)[0]


def measure(version, cycles):
    """Replies that are pressed by one hog each, and one by a hog that stays."""
    prompt = prompt_of(1900)
    usual, _ = working_set(version, prompt, 400)
    lives = [Pressed(version, int(usual * 1.15), prompt, 1) for _ in range(cycles)]
    steady = Pressed(version, int(usual * 1.15), prompt, STEADY_S)
    back = [seconds_until_back(life.lines, life.began, life.ended) for life in lives]
    shares = [share for life in [*lives, steady] for share in shares_returned(life.lines)]
    turns = turns_between(steady.lines, steady.ended - STEADY_S, steady.ended)
    below = [life.below for life in [*lives, steady]]
    kills = sum(life.kills for life in [*lives, steady])
    dropped = [life.lines[-1]["tokens"]["dropped"] for life in lives]
    print(f"\ngroup of version {version}, limit {usual * 1.15 / MIB:.0f} MiB (1.15 x {usual / MIB:.0f}), "
          f"{len(lives)} hogs at 64 MiB/s that want {BEYOND // MIB} MiB more than is left, "
          f"and one that stays for {STEADY_S} s\n")
    print("| group | what | measured | wanted | kept |\n|---|---|---|---|---|")
    row(version, "killed by the kernel", kills, 0, kills == 0)
    row(version, f"longest below the mark of {steady.life.mark / MIB:.1f} MiB, by the clock",
        f"{statistics.median(below) * 1000:.0f} ms (median), {max(below) * 1000:.0f} ms (most)", "<= 500 ms",
        max(below) <= 0.5)
    row(version, "of what was released, gone from the resident size within 1 s",
        f"{min(shares, default=0) * 100:.0f} % (least of {len(shares)})", ">= 95 %", min(shares, default=0) >= 0.95)
    good = [seconds for seconds in back if seconds is not None]
    row(version, "90 % of the speed back after a hog's end",
        f"in {len(good)} of {len(back)} cycles; after {max(good, default=0):.1f} s (most)", "10 s",
        len(good) == len(back))
    row(version, f"changes of direction while a hog stayed for {STEADY_S} s", turns, "<= 2 a minute", turns <= 2)
    row(version, "tokens that the reply itself let go for new ones, in a smaller budget", f"{max(dropped)} (most)",
        "--on-full evict", True)
    for name, life in (("the first", lives[0]), ("the one that stayed", steady)):
        print(f"\n   {name}:\n   " + life.life.notes.strip().replace("\n", "\n   "))
    print()


def measure_stock(version):
    """The stock library, a limit of 1.15 times what it takes, and one such hog."""
    if not os.path.exists(STOCK):
        raise Skip("build/bench/stock_run is not there: make bench builds it")
    command = [STOCK, "--model", copy_of_model(), "--text", prompt_of(1900), "--context", "8192", "--predict"]
    with Group(4 << 30, (version,)) as group:
        group.run([*command, "32"])
        usual = int(group.read(group.peak))
    copy_of_model()
    with Group(int(usual * 1.15), (version,)) as group:
        process = group.start([*command, "4000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        hog = Hog(group)
        try:
            os.read(process.stdout.fileno(), 1) # it has read the prompt
            hog.take(RATE, hog_size(group, BEYOND), 1)
            while not hog.is_over() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(1)
            killed = process.poll() == -signal.SIGKILL
            kills = group.kills()
        finally:
            hog.end()
            process.kill()
            process.communicate()
    row(version, f"stock library, limit {usual * 1.15 / MIB:.0f} MiB (1.15 x {usual / MIB:.0f}), the first such hog",
        "killed" if killed else f"not killed; {kills} kills in its group", "beside it", True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cycles"]:
        for number in (1, 2):
            try:
                measure(number, int(sys.argv[2]))
                measure_stock(number)
            except Skip as missing:
                print(f"SKIP group of version {number}: not measured: {missing}")
        shutil.rmtree(os.path.dirname(scratch("x")), ignore_errors=True)
    else:
        suite.main()
