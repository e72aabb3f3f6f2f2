#!/usr/bin/env python3
"""Flags, their variables, sizes, help and suggestions."""

import datetime
import os
import re
import tempfile

from support.suite import Suite, chat_model, environment, fails, run, scratch

suite = Suite()
COMMANDS = ("chat", "run", "show", "plan", "eval", "bench", "plot")


def flags_of(command):
    """(name, takes a value) of the flags that the help lists."""
    found = re.findall(r"^  (?:-\S+, )?--([a-z-]+)( [A-Z]+)?  ", run("help", command, code=0).out, re.M)
    assert len(found) > (1 if command == "plot" else 10), found
    return [(name, bool(value)) for name, value in found if name != "help"]


@suite.test
def without_a_command_the_overview_goes_to_standard_error():
    result = run(code=2)
    assert "pagoda chat model.gguf" in result.err and result.out == "", result


@suite.test
def help_is_the_same_however_asked_for():
    assert run("help", code=0).out == run("--help", code=0).out == run("-h", code=0).out
    for command in COMMANDS:
        text = run("help", command, code=0).out
        assert text == run(command, "--help", code=0).out == run(command, "-h", code=0).out
        assert text.startswith(f"  pagoda {command} "), f"an example comes first: {text[:80]!r}"


@suite.test
def help_lines_fit_and_name_defaults():
    text = run("help", "run", code=0).out
    for line in text.splitlines():
        assert len(line) <= 120, line
    assert re.search(r"--temp X .*\[0\.8\]", text) and re.search(r"--top-k N .*\[40\]", text), text
    assert "PAGODA_KV" in text, text


@suite.test
def version_names_the_kernels():
    lines = run("version", code=0).out.splitlines()
    assert re.fullmatch(r"pagoda \d+\.\d+\.\d+", lines[0]) and re.match(r"kernels: ref\b", lines[1]), lines
    assert run("--version", code=0).out == run("run", "--version", code=0).out == run("version", code=0).out


@suite.test
def unknown_commands_name_the_nearest():
    fails(2, ["'rnu'", "'run'"], "rnu")
    fails(2, ["'chta'", "'chat'"], "chta", "x.gguf")
    fails(2, ["'frobnicate'", "pagoda help"], "frobnicate")
    fails(2, "pagoda chat some.gguf", "some.gguf")
    fails(2, ["'shwo'", "'show'"], "help", "shwo")


@suite.test
def unknown_flags_name_the_nearest():
    for typed, meant in (("--kvv", "kv"), ("--polcy", "policy"), ("--on-ful", "on-full"), ("--sed", "seed"),
                         ("--temperatur", "temp"), ("--context-size", "ctx-size"), ("--theads", "threads"),
                         ("--jsn=1", "json"), ("--hlep", "help"), ("--no_pin", "no-pin")):
        fails(2, [f"'{typed.split('=')[0]}'", f"'--{meant}'"], "run", typed, "m.gguf", "-p", "x")
    fails(2, "unknown flag '--xyzzyxyzzy'", "run", "m.gguf", "--xyzzyxyzzy")
    fails(2, "unknown flag '-z'", "run", "m.gguf", "-z")


@suite.test
def flags_belong_to_commands():
    fails(2, ["'--prompt'", "pagoda chat", "pagoda run"], "chat", "m.gguf", "-p", "x")
    fails(2, ["'--json'", "pagoda chat"], "chat", "m.gguf", "--json")
    fails(2, ["'--temp'", "pagoda show"], "show", "m.gguf", "--temp", "1")


@suite.test
def values_are_needed_or_refused():
    fails(2, ["'-n'", "N"], "run", "m.gguf", "-n")
    fails(2, ["'--kv'", "SIZE"], "run", "m.gguf", "--kv")
    fails(2, ["'--json'", "no value"], "run", "m.gguf", "--json=1")


@suite.test
def wrong_values_are_told_with_their_flag():
    for flag, value, word in (
            ("--temp", "hot", "not a number"), ("--temp", "-1", "range"), ("--temp", "nan", "range"),
            ("--top-p", "1.5", "range"), ("--min-p", "-0.1", "range"), ("--top-k", "x", "whole number"),
            ("--top-k", "99999999999", "range"), ("-n", "1.5", "whole number"), ("-s", "4294967296", "range"),
            ("-s", "99999999999999999999999", "range"), ("-t", "257", "range"), ("-t", "-1", "not a number"),
            ("--page", "17", "multiple of 16"), ("--page", "0", "range"), ("--page", "272", "range"),
            ("--on-full", "evct", "did you mean 'evict'"),
            ("--policy", "lru", "fifo, window, sink, random"), ("--color", "blue", "auto, always, never"),
            ("-ctk", "q9_0", "q8_0"), ("-ctv", "k8v4", "q4_0"), ("--kv-codec", "k8v6", "did you mean 'k8v5'"),
            ("--cpu", "sse9", "auto, ref"), ("-c", "many", "number"),
            ("-c", "1", "less than one page of 16 tokens"), ("-c", "15", "less than one page")):
        fails(2, word, "run", "m.gguf", "-p", "x", flag, value)


@suite.test
def sizes_that_are_none_are_refused():
    for size in ("0", "0K", "0.0G", "-5", "1Q", "M", "", "1.M", ".5M", "12 34", "1MiBs", "0x10", "1e9", "5%%", "0%",
                 "101%",
                 "-1%", "%", "99999999999999999999", "99999999999G", "16777216T"):
        fails(2, "--kv", "run", "m.gguf", "-p", "x", "--kv", size)


@suite.test
def sizes_are_read_as_they_are_written():
    model = chat_model()
    for size, wanted in (("8M", 8 << 20), ("8MiB", 8 << 20), ("8388608", 8 << 20), ("8192k", 8 << 20), ("8MB", 8000000),
                         ("0.0078125G", 8 << 20), ("8.5M", 8912896), ("8500 KiB", 8500 << 10)):
        kv = run("run", model, "-p", "x", "-n", "0", "--json", "--kv", size, code=0).json()["kv"]
        assert kv["budget_bytes"] == wanted, (size, kv)


@suite.test
def a_share_is_of_the_available_memory():
    model = chat_model()
    one, two = (run("run", model, "-p", "x", "-n", "0", "--json", "--kv", share, code=0).json()["kv"]["budget_bytes"]
                for share in ("1%", "2%"))
    assert one > 0 and 1.5 < two / one < 2.5, (one, two)


@suite.test
def a_budget_beyond_the_machine_is_warned_about():
    result = run("run", chat_model(), "-p", "x", "-n", "0", "--json", "--kv", "1000T", code=0)
    assert "pagoda: warning: --kv 1000 TiB is more than this machine's memory" in result.err, result


@suite.test
def contradictions_are_refused():
    fails(2, ["--window", "fifo"], "run", "m.gguf", "-p", "x", "--policy", "fifo", "--window", "64")
    for flag, value in (("--flash", "1G"), ("--kv-dir", "/tmp"), ("--select", "all"), ("--recall", "0.9"),
                        ("--flash-write", "1G"), ("--flash-speed", "1G"), ("--max-stall-ms", "9")):
        for rule in ("stop", "evict"):
            fails(2, [f"{flag} says nothing to --on-full {rule}", "use spill"], "run", "m.gguf", "-p", "x", "--on-full",
                  rule, flag, value)
    fails(2, ["--window", "random"], "run", "m.gguf", "-p", "x", "--policy", "random", "--window", "64")
    fails(2, ["--sinks", "window"], "run", "m.gguf", "-p", "x", "--policy", "window", "--sinks", "4")
    fails(2, "more than one prompt", "run", "m.gguf", "-p", "x", "words")
    fails(2, "more than one prompt", "run", "m.gguf", "-p", "x", "-f", "y")
    fails(2, ["--system", "--raw"], "run", "m.gguf", "-p", "x", "--raw", "--system", "y")
    fails(2, "unexpected 'two.gguf'", "chat", "one.gguf", "two.gguf")
    fails(2, "no model", "run", "-p", "x")


@suite.test
def every_flag_has_its_variable():
    for command in COMMANDS:
        for name, has_value in flags_of(command):
            if name in ("model", "prompt", "file", "system", "text", "kv-dir", "trace", "out", "shape"):
                continue
            variable = "PAGODA_" + name.upper().replace("-", "_")
            word = variable if has_value else [variable, "yes nor no"]
            fails(2, word, command, "m.gguf", env=environment(**{variable: "gar bage"}))


@suite.test
def variables_count_and_flags_win():
    model = chat_model()
    settings = environment(PAGODA_KV="16M", PAGODA_ON_FULL="evict", PAGODA_POLICY="fifo", PAGODA_PREDICT="0",
                           PAGODA_JSON="yes", PAGODA_SEED="7", PAGODA_PROMPT="x", PAGODA_RAW="off")
    report = run("run", model, env=settings, code=0).json()
    assert report["kv"]["budget_bytes"] == 16 << 20 and report["on_full"] == "evict", report
    assert report["policy"] == "fifo" and report["seed"] == 7, report
    report = run("run", model, "--kv", "8M", "--policy=window", "-s", "9", env=settings, code=0).json()
    assert report["kv"]["budget_bytes"] == 8 << 20 and report["policy"] == "window" and report["seed"] == 9, report


@suite.test
def empty_variables_do_not_count():
    fails(4, "no-such.gguf", "run", "no-such.gguf", "-p", "x", env=environment(PAGODA_KV="", PAGODA_JSON=""))


@suite.test
def the_model_may_come_from_a_flag_or_a_variable():
    fails(4, "no-such.gguf", "run", "-m", "no-such.gguf", "some", "words")
    fails(4, "no-such.gguf", "run", "--model=no-such.gguf", "-p", "x")
    fails(4, "no-such.gguf", "run", "some", "words", env=environment(PAGODA_MODEL="no-such.gguf"))
    fails(4, "other.gguf", "run", "other.gguf", "words", env=environment(PAGODA_MODEL="no-such.gguf"))
    fails(4, "other.gguf", "show", "other.gguf", env=environment(PAGODA_MODEL="no-such.gguf"))


@suite.test
def two_dashes_end_the_flags():
    model = chat_model()
    words = run("run", model, "-n", "0", "--json", "--raw", "--", "--kv", "is", "a", "flag", code=0).json()
    text = run("run", model, "-n", "0", "--json", "--raw", "-p", "--kv is a flag", code=0).json()
    assert words["tokens"]["prompt"] == text["tokens"]["prompt"] > 3, (words, text)


@suite.test
def show_tells_what_a_budget_holds():
    model = chat_model()
    text = run("show", model, code=0).out
    for word in ("layers           30", "trained context  8,192 tokens", "KV per token     22.5 KiB", "--kv auto",
                 "ref"):
        assert word in text, (word, text)
    report = run("show", model, "--json", code=0).json()
    assert report["architecture"] == "llama" and report["layers"] == 30 and report["chat_template"] is True, report
    assert report["kv"]["bytes_per_token"] == 23040 and report["kv"]["tokens"] == 8192, report
    assert all(0 < row["tokens"] <= 8192 for row in report["kv"]["smaller"]), report
    exact = run("show", model, "--json", "--kv-codec", "f16", code=0).json()
    assert all(0 < row["tokens"] < 8192 for row in exact["kv"]["smaller"]), exact
    pairs = list(zip(report["kv"]["smaller"], exact["kv"]["smaller"]))
    assert pairs and all(smaller["tokens"] >= row["tokens"] for smaller, row in pairs), (report, exact)
    assert report["cpu_levels"][0] == "ref", report


@suite.test
def show_agrees_with_run():
    model = chat_model()
    row = run("show", model, "--json", "--kv", "8M", code=0).json()["kv"]
    assert row["budget_bytes"] == 8 << 20, row
    text = scratch("long.txt", b"word " * 2 * row["tokens"])
    result = run("run", model, "--raw", "-f", text, "-n", "0", "--kv", "8M", "--on-full", "stop", code=3)
    assert f"holds {row['tokens']:,}" in result.err, result


def empty_directory():
    return tempfile.mkdtemp(dir=os.path.dirname(scratch("near.txt", b"")))


@suite.test
def show_measures_a_device():
    where = empty_directory()
    text = run("show", "--device", "--kv-dir", where, code=0).out
    for word in (f"directory        {where}", "latency", "4.00 KiB", "1.00 MiB", "in flight"):
        assert word in text, (word, text)
    report = run("show", "--device", "--json", env=environment(PAGODA_KV_DIR=where), code=0).json()
    assert report["directory"] == where and report["backend"] in ("io_uring", "threads"), report
    assert report["latency_us"] <= report["latency_p99_us"] and report["write_bytes_per_second"] > 0, report
    assert [row["bytes"] for row in report["reads"][::2]] == [4 ** i << 12 for i in range(5)], report
    best = max(row["bytes_per_second"] or 0 for row in report["reads"])
    chosen = [row for row in report["reads"] if (row["bytes"], row["depth"]) == (report["run_bytes"], report["depth"])]
    assert len(chosen) == 1 and chosen[0]["bytes_per_second"] >= 0.79 * best > 0, report
    assert (1 << 20) <= report["bytes_written"] <= (32 << 20), report
    assert os.listdir(where) == [], "the file of the measurement is gone"


@suite.test
def what_is_written_is_counted_by_the_day():
    home = empty_directory()
    settings = environment(XDG_CACHE_HOME=home)
    count = os.path.join(home, "pagoda", "flash-writes.txt")
    reports = [run("show", "--device", "--json", env=settings, code=0).json() for _ in range(2)]
    written = sum(report["bytes_written"] for report in reports)
    assert reports[0]["bytes_written_today"] == reports[0]["bytes_written"], reports
    assert reports[1]["bytes_written_today"] == reports[1]["bytes_written_30_days"] == written, reports
    assert os.stat(count).st_mode & 0o777 == 0o600
    today = datetime.datetime.now(datetime.timezone.utc).date()
    days = [(today - datetime.timedelta(days=age), size) for age, size in ((40, 1), (29, 20), (3, 300), (-2, 4000))]
    with open(count, "w", encoding="utf-8") as file:
        file.write("what is this\n" + "".join(f"{day} {size}\n" for day, size in days) + "2026-1")
    report = run("show", "--device", "--json", env=settings, code=0).json()
    assert report["bytes_written_today"] == report["bytes_written"], report
    assert report["bytes_written_30_days"] == report["bytes_written"] + 320, report
    with open(count, encoding="utf-8") as file:
        assert [line.split()[0] for line in file] == [str(days[1][0]), str(days[2][0]), str(today)]


@suite.test
def a_count_that_cannot_be_kept_is_no_error():
    home = empty_directory()
    os.makedirs(os.path.join(home, "pagoda", "flash-writes.txt"))  # a directory in its place
    report = run("show", "--device", "--json", env=environment(XDG_CACHE_HOME=home), code=0).json()
    assert report["bytes_written_today"] == 0 < report["bytes_written"], report
    os.rmdir(os.path.join(home, "pagoda", "flash-writes.txt"))
    precious = scratch("precious.txt", b"precious")
    os.symlink(precious, os.path.join(home, "pagoda", "flash-writes.txt"))
    run("show", "--device", "--json", env=environment(XDG_CACHE_HOME=home), code=0)
    with open(precious, "rb") as file:
        assert file.read() == b"precious"


@suite.test
def a_device_needs_a_directory_and_no_model():
    fails(2, ["/no/such/place", "No such file"], "show", "--device", "--kv-dir", "/no/such/place")
    fails(2, ["--device", "no model"], "show", "model.gguf", "--device")
    fails(2, ["--device", "no model"], "show", "-m", "model.gguf", "--device")
    fails(2, ["'--device'", "pagoda show"], "run", "model.gguf", "--device")
    fails(2, "no model", "show")


if __name__ == "__main__":
    suite.main()
