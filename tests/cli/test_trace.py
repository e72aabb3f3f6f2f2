#!/usr/bin/env python3
"""--trace and pagoda plot: lines that add up, a run that nothing disturbs, a page that needs nothing else."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess

from support.suite import PROGRAM, ROOT, Skip, Suite, chat_model, environment, fails, run, scratch

suite = Suite()
LONG = b"The quick brown fox jumps over the lazy dog. " * 70 # some 700 tokens
TIGHT = ["--kv", "5M", "--on-full", "evict", "-n", "60", "--temp", "0", "--ignore-eos"]
LINES_PER_SECOND = 20


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert text.endswith("\n"), "the last line is not whole"
    return [json.loads(line) for line in text.splitlines()]


traces = {}


def tight_trace():
    """The path of a trace of a run whose budget was too small, and the run's own report. Made once."""
    if not traces:
        path = scratch("tight.jsonl")
        traces["tight"] = path, run("run", chat_model(), *TIGHT, "--json", "--trace", path, stdin=LONG, code=0).json()
    return traces["tight"]


def events_of(lines):
    return [event for line in lines for event in line.get("events", [])]


# --- the trace --------------------------------------------------------------------------------------------------

@suite.test
def the_first_line_tells_what_ran():
    path, _ = tight_trace()
    first = lines_of(path)[0]
    version = run("version", code=0).out.split()[1]
    assert first["pagoda"] == version and first["trace"] == 1 and first["command"] == "run", first
    assert first["model"]["file"] == chat_model() and first["model"]["layers"] == 30, first
    assert first["model"]["weights_bytes"] > 1 << 20 < first["model"]["compute_bytes"], first
    assert first["flags"]["on_full"] == "evict" and first["flags"]["policy"] == "sink", first
    assert first["flags"]["kv_codec"] == "auto" and first["flags"]["page"] == 16, first
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["started"]), first
    assert "fox" not in json.dumps(first), "the prompt is nobody's business"


@suite.test
def every_line_adds_up_and_keeps_the_budget():
    path, report = tight_trace()
    lines = lines_of(path)[1:]
    assert len(lines) > 10, len(lines)
    before = 0
    for line in lines:
        assert line["t"] >= before, (before, line)
        before = line["t"]
        assert sum(line["bytes"].values()) == line["used_bytes"], line
        assert line["used_bytes"] <= line["peak_bytes"] <= line["budget_bytes"] == 5 << 20, line
        tokens = line["tokens"]
        held = tokens["ram"] + tokens["quantized"] + tokens["spilled"] + tokens["collapsed"]
        assert held + tokens["dropped"] == tokens["total"], line
        assert tokens["unread"] <= tokens["spilled"] and tokens["pinned"] <= tokens["total"], line
        assert 1 << 20 < line["rss_bytes"] <= 1.1 * report["memory"]["peak_rss_bytes"], line
        assert line["available_bytes"] > 0, line
        assert line["tokens_per_second"] > 0 or line["batch_tokens"] == 0, line
    total = sum(line["batch_tokens"] for line in lines)
    assert total == lines[-1]["tokens"]["total"] == report["tokens"]["prompt"] + report["tokens"]["generated"], total


@suite.test
def the_last_line_says_what_json_says():
    path, report = tight_trace()
    last = lines_of(path)[-1]
    for place in ("ram", "quantized", "spilled", "unread", "collapsed", "dropped", "pinned"):
        assert last["tokens"][place] == report["tokens"][place], (place, last, report)
    assert last["peak_bytes"] == report["kv"]["peak_bytes"], (last, report)
    assert last["events"][-1]["what"] == "end", last


@suite.test
def events_tell_everything_that_happened():
    path, report = tight_trace()
    lines = lines_of(path)[1:]
    events = events_of(lines)
    dropped = [event for event in events if event["what"] == "dropped"]
    assert sum(event["tokens"] for event in dropped) == report["tokens"]["dropped"] > 0, dropped
    assert sum(event["pages"] for event in dropped) == lines[-1]["pages"]["dropped"] > 0, dropped
    assert "tokens were dropped" in dropped[0]["words"], dropped


@suite.test
def pages_that_become_smaller_are_events_too():
    path = scratch("smaller.jsonl")
    report = run("run", chat_model(), "--kv", "32M", "--kv-codec", "k8v4", "-n", "4", "--json", "--trace", path,
                 stdin=LONG, code=0).json()
    lines = lines_of(path)[1:]
    smaller = [event for event in events_of(lines) if event["what"] == "re-encoded"]
    assert sum(event["pages"] for event in smaller) == lines[-1]["pages"]["reencoded"] > 0, smaller
    assert "re-encoded" in smaller[0]["words"], smaller
    assert lines[-1]["tokens"]["quantized"] == report["tokens"]["quantized"] > 0, (lines[-1], report)
    assert lines[-1]["bytes"]["kv_quantized"] > 0 and lines_of(path)[0]["flags"]["kv_codec"] == "k8v4", lines[-1]


@suite.test
def lines_come_at_most_twenty_times_a_second():
    path, _ = tight_trace()
    times = [line["t"] for line in lines_of(path)[1:]]
    least = min(later - earlier for earlier, later in zip(times[1:-1], times[2:-1]))
    assert least >= 1 / LINES_PER_SECOND - 0.002, least # written in thousandths


@suite.test
def a_trace_changes_nothing():
    arguments = ["run", chat_model(), "-p", "Tell me a story", "-n", "30", "--temp", "0"]
    plain = run(*arguments, code=0)
    traced = run(*arguments, "--trace", scratch("same.jsonl"), code=0)
    by_variable = run(*arguments, env=environment(PAGODA_TRACE=scratch("variable.jsonl")), code=0)
    assert traced.out == plain.out == by_variable.out and traced.err == plain.err == "", (plain, traced)
    assert len(lines_of(scratch("variable.jsonl"))) > 2


@suite.test
def a_run_that_ends_with_a_full_budget_says_so():
    path = scratch("full.jsonl")
    report = run("run", chat_model(), "--kv", "2M", "-n", "300", "-p", "Hi", "--temp", "0", "--ignore-eos", "--json",
                 "--kv-codec", "f16", "--trace", path, code=0).json()
    assert report["stop"] == "full", report
    refused = [event for event in events_of(lines_of(path)[1:]) if event["what"] == "refused"]
    assert len(refused) == 1 and refused[0]["tokens"] == 1, refused


@suite.test
def a_chat_is_traced_from_its_system_prompt_on():
    path = scratch("chat.jsonl")
    said = ["Hello", "/pin last", "/reset", "How are you?"]
    run("chat", chat_model(), "-q", "-n", "8", "--temp", "0", "--system", "Be brief.", "--trace", path,
        stdin="".join(line + "\n" for line in said).encode(), code=0)
    lines = lines_of(path)
    assert lines[0]["command"] == "chat", lines[0]
    kinds = [event["what"] for event in events_of(lines[1:])]
    assert "pinned" in kinds and "taken back" in kinds and kinds[-1] == "end", kinds
    taken_back = sum(event["tokens"] for event in events_of(lines[1:]) if event["what"] == "taken back")
    total = sum(line["batch_tokens"] for line in lines[1:]) - taken_back
    assert total == lines[-1]["tokens"]["total"] > 0, (total, lines[-1])


# --- files that cannot be written -------------------------------------------------------------------------------

@suite.test
def a_trace_that_cannot_be_opened_is_an_error_before_anything_runs():
    folder = os.path.dirname(scratch("x"))
    for path, words in ((os.path.join(folder, "none", "x"), "No such file"), (folder, "Is a directory")):
        for command in ("run", "chat"):
            fails(1, ["--trace", words], command, "no-such-model.gguf", "--trace", path, stdin=b"Hello\n")


@suite.test
def a_file_that_is_no_trace_is_left_alone():
    path = scratch("thesis.txt", b"years of work\n")
    fails(1, ["is not a trace", "left alone"], "run", chat_model(), "-p", "x", "--trace", path)
    with open(path, "rb") as file:
        assert file.read() == b"years of work\n"


@suite.test
def an_older_trace_is_replaced_once_there_is_a_new_one():
    path = scratch("again.jsonl", b'{"pagoda":"0.0.1","trace":1}\n' * 1000)
    run("run", "no-such-model.gguf", "-p", "x", "--trace", path, code=4)
    assert os.path.getsize(path) > 20000, "gone before there was a new one"
    run("run", chat_model(), "-p", "x", "-n", "2", "--trace", path, code=0)
    lines = lines_of(path)
    assert lines[0]["model"]["layers"] == 30 and len(lines) < 10, lines


@suite.test
def a_disk_that_is_full_is_told_once_and_the_run_goes_on():
    arguments = ["run", chat_model(), "-p", "Tell me a story", "-n", "30", "--temp", "0"]
    plain = run(*arguments, code=0).out
    result = run(*arguments, "--trace", "/dev/full", code=0)
    assert result.out == plain and result.err.count("\n") == 1, result
    assert "/dev/full" in result.err and "No space left" in result.err and "goes on without" in result.err, result


@suite.test
def a_file_that_may_not_grow_is_told_once_and_leaves_what_was_written():
    path = scratch("short.jsonl")
    process = subprocess.run(
        [PROGRAM, "run", chat_model(), "-p", "Tell me a story", "-n", "60", "--temp", "0", "--ignore-eos",
         "--on-full", "stop", "--trace", path], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=180, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    assert process.returncode == 0 and process.stdout, process
    assert process.stderr.count(b"\n") == 1 and b"File too large" in process.stderr, process
    assert os.path.getsize(path) == 2000
    page = scratch("short.html")
    result = run("plot", path, "-o", page, code=0)
    assert "not whole" in result.err and "how the run ended" in result.err, result
    assert page_data(page)["has_end"] is False


@suite.test
def a_pipe_may_have_a_slow_reader_or_none():
    path = scratch("pipe")
    os.mkfifo(path)
    fails(1, "nobody reads", "run", chat_model(), "-p", "x", "--trace", path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try: # 64 KiB of pipe are full long before the reply is over
        result = run("run", chat_model(), "--raw", "-p", "x", "-n", "250", "--temp", "0", "--ignore-eos", "--trace",
                     path, code=0)
        text = b""
        while chunk := os.read(reader, 1 << 16):
            text += chunk
    finally:
        os.close(reader)
    assert result.out and result.err == "", result
    for line in text.splitlines():
        assert "pagoda" in (parsed := json.loads(line)) or parsed["t"] >= 0


@suite.test
def a_run_that_is_killed_leaves_lines_that_can_be_drawn():
    path = scratch("killed.jsonl")
    process = subprocess.Popen(
        [PROGRAM, "run", chat_model(), "-p", "Tell me a story", "-n", "-2", "--ignore-eos", "--trace", path],
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(20)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    result = run("plot", path, "-o", scratch("killed.html"), code=0)
    assert "how the run ended" in result.err, result


# --- the page ---------------------------------------------------------------------------------------------------

def read_page(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def page_data(path):
    found = re.findall(r'<script id="data" type="application/json">(.*?)</script>', read_page(path), re.S)
    assert len(found) == 1, len(found)
    return json.loads(found[0])


HEAD = {"pagoda": "9.9", "trace": 1, "command": "run", "model": {"name": "m"}, "flags": {}}


def made_line(index, used=1000, **changes):
    """A line as a run could have written it."""
    line = {
        "t": index / 20, "batch_tokens": 1, "budget_bytes": 5000, "used_bytes": used, "peak_bytes": used,
        "rss_bytes": 1, "available_bytes": 1,
        "tokens": {"total": index, "ram": index, "quantized": 0, "spilled": 0, "unread": 0, "collapsed": 0,
                   "dropped": 0, "pinned": 0},
        "pages": {"dropped": 0, "reencoded": 0, "passed_by_windows": 0},
        "bytes": {"kv_exact": used, "kv_quantized": 0, "digests": 0, "tables": 0, "staging": 0, "draft": 0},
        "tokens_per_second": 20.0,
    }
    line.update(changes)
    return line


def made_trace(name, *lines, head=None):
    return scratch(name, "".join(json.dumps(line) + "\n" for line in [head or HEAD, *lines]).encode())


@suite.test
def the_page_has_all_of_the_trace():
    path, _ = tight_trace()
    lines = lines_of(path)
    page = scratch("tight.html")
    result = run("plot", path, code=0)
    assert page in result.err and result.out == "", result
    data = page_data(page)
    assert data["run"] == lines[0] and data["lines"] == len(lines) - 1 and data["has_end"] is True, data["run"]
    columns = data["columns"]
    for name in ("t", "used_bytes", "budget_bytes", "rss_bytes", "tokens_per_second"):
        assert columns[name] == [line[name] for line in lines[1:]], name
    for group in ("bytes", "tokens"):
        for name, column in columns[group].items():
            assert column == [line[group][name] for line in lines[1:]], (group, name)
    rows = [[line["t"], event["what"], event.get("pages", 0), event.get("tokens", 0), event["words"]]
            for line in lines[1:] for event in line.get("events", [])]
    assert data["events"] == rows, data["events"]


@suite.test
def the_page_loads_nothing():
    path, _ = tight_trace()
    run("plot", path, "-o", scratch("alone.html"), code=0)
    page = read_page(scratch("alone.html"))
    assert "default-src 'none'" in page
    text = page.replace("https://github.com/leeoniya/uPlot", "") # where the library says where it is from
    for pattern in (r"https?://", r"\bsrc\s*=\s*[\"']", r"\bhref\s*=", r"@import", r"url\(", r"\bfetch\(", r"<link",
                    r"XMLHttpRequest", r"WebSocket", r"\bimport\s*\(", r"sendBeacon", r"//[a-z0-9.-]+\.[a-z]{2,}/"):
        match = re.search(pattern, text)
        assert match is None, text[max(0, match.start() - 80):match.end() + 80]
    assert "{{" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S), "a hole was not filled"
    assert "Permission is hereby granted" in page, "the library's licence goes with it"


@suite.test
def names_cannot_break_out_of_the_page():
    wild = "</script><script>alert(1)</script><!--"
    path = made_trace("wild.jsonl", made_line(1, events=[{"what": wild, "words": wild}]),
                      head=HEAD | {"model": {"name": wild, "file": "\u2028 & \" ' \\"}})
    run("plot", path, "-o", scratch("wild.html"), code=0)
    assert "<script>alert" not in read_page(scratch("wild.html"))
    data = page_data(scratch("wild.html"))
    assert data["run"]["model"]["name"] == wild and data["events"][0][4] == wild, data


@suite.test
def long_traces_are_thinned_and_keep_their_peaks():
    lines = [made_line(index, used=4999 if index % 977 == 5 else 1000) for index in range(12345)]
    run("plot", made_trace("long.jsonl", *lines), "-o", scratch("long.html"), code=0)
    data = page_data(scratch("long.html"))
    used = data["columns"]["used_bytes"]
    assert data["lines"] == 12345 and 2000 < len(used) <= 4000, len(used)
    assert used.count(4999) == len([line for line in lines if line["used_bytes"] == 4999]), used.count(4999)
    assert data["columns"]["t"] == sorted(set(data["columns"]["t"]))


@suite.test
def the_page_may_go_anywhere():
    path = made_trace("place.v2.jsonl", made_line(1))
    run("plot", path, code=0)
    page = read_page(scratch("place.v2.html"))
    assert run("plot", path, "-o", "-", code=0).out == page
    assert run("plot", "-", "--out=-", stdin=open(path, "rb").read(), code=0).out == page
    os.rename(path, scratch("named.html"))
    run("plot", scratch("named.html"), code=0)
    assert read_page(scratch("named.html.html")) == page
    assert read_page(scratch("named.html")).startswith('{"pagoda"'), "the trace was overwritten"
    fails(1, "cannot write", "plot", scratch("named.html"), "-o", os.path.join(scratch("none"), "x.html"))
    fails(1, "No space left", "plot", scratch("named.html"), "-o", "/dev/full")


@suite.test
def a_trace_that_cannot_be_drawn_is_an_error_that_says_why():
    good = made_line(1)
    cases = {
        "empty": (b"", "it is empty"),
        "text": (b"hello\nworld\n", "first line"),
        "other": (b'{"a": 1}\n', "first line"),
        "cut": (b'{"pagoda":"0.1.0","tra', "cut off in its first line"),
        "alone": (json.dumps(HEAD).encode() + b"\n", "nothing was measured"),
        "newer": (json.dumps(HEAD | {"trace": 2}).encode() + b"\n", "version 2"),
        "binary": (bytes(range(256)) * 100, "trace"),
    }
    for name, (content, words) in cases.items():
        fails(1, ["cannot draw", words], "plot", scratch(name, content))
    fails(1, ["line 3", "not a line of a trace"], "plot", scratch(
        "hole", b"\n".join([json.dumps(HEAD).encode(), json.dumps(good).encode(), b'{"t":', json.dumps(good).encode(),
                            b""])))
    fails(1, ["line 2", "tokens.ram"], "plot", made_trace("less", made_line(1, tokens={"total": 1})))
    fails(1, ["line 2", "used_bytes"], "plot", made_trace("minus", made_line(1, used_bytes=-5)))
    fails(1, ["line 3", "earlier"], "plot", made_trace("back", made_line(5), made_line(1)))
    fails(1, ["cannot read", "No such file"], "plot", scratch("nowhere"))
    fails(1, "Is a directory", "plot", os.path.dirname(scratch("x")))


@suite.test
def a_trace_may_be_cut_off_anywhere():
    whole = (json.dumps(HEAD) + "\n" + json.dumps(made_line(1)) + "\n").encode()
    tail = json.dumps(made_line(2)).encode()
    for length in (1, 30, len(tail) - 1):
        result = run("plot", scratch("tail", whole + tail[:length]), "-o", scratch("tail.html"), code=0)
        assert "not whole" in result.err, result
        assert page_data(scratch("tail.html"))["lines"] == 1
    result = run("plot", scratch("tail", whole + tail), "-o", scratch("tail.html"), code=0)
    assert page_data(scratch("tail.html"))["lines"] == 2 and "not whole" not in result.err, result


@suite.test
def wrong_words_are_usage():
    fails(2, "no trace: pagoda plot FILE", "plot")
    fails(2, "more than one trace", "plot", "a", "b")
    fails(2, "'--out'", "plot", "a", "--oud", "b")
    fails(2, "not a flag of 'pagoda plot'", "plot", "a", "--kv", "1M")
    fails(2, "not a flag of 'pagoda show'", "show", chat_model(), "--trace", "a")


@suite.test
def the_scripts_of_the_page_are_scripts():
    if shutil.which("node") is None:
        raise Skip("there is no node to check them")
    path = made_trace("scripts.jsonl", made_line(1))
    run("plot", path, "-o", scratch("scripts.html"), code=0)
    scripts = re.findall(r"<script>(.*?)</script>", read_page(scratch("scripts.html")), re.S)
    assert len(scripts) == 2, len(scripts)
    for script in scripts:
        checked = subprocess.run(["node", "--check", scratch("script.js", script.encode())], capture_output=True,
                                 timeout=60, check=False)
        assert checked.returncode == 0, checked.stderr.decode()


@suite.test
def the_library_is_the_one_that_was_published():
    folder = os.path.join(ROOT, "third_party", "uplot")
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as file:
        sums = re.findall(r"\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|", file.read())
    assert sorted(name for name, _ in sums) == ["LICENSE", "uPlot.iife.min.js", "uPlot.min.css"], sums
    for name, wanted in sums:
        with open(os.path.join(folder, name), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == wanted, name


if __name__ == "__main__":
    suite.main()
