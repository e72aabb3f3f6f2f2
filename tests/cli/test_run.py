#!/usr/bin/env python3
"""One prompt, one reply: the JSON contract, where prompts come from, seeds, full budgets, Ctrl-C."""

import json
import re
import signal
import subprocess
import time

from support.suite import PROGRAM, Suite, chat_model, environment, plain_model, run, scratch

suite = Suite()
NUMBER = (int, float)
CONTRACT = {
    "text": str, "stop": str, "policy": str, "on_full": str, "seed": int, "exact": bool,
    "tokens": {"prompt": int, "generated": int, "ram": int, "quantized": int, "spilled": int, "unread": int,
               "collapsed": int, "dropped": int, "pinned": int},
    "kv": {"budget_bytes": int, "peak_bytes": int, "codec": str, "utilisation": NUMBER, "flash_bytes": int,
           "flash_bytes_written": int, "flash_bytes_read": int},
    "memory": {"peak_rss_bytes": int, "weights_bytes": int, "compute_bytes": int},
    "speed": {"prompt_tokens_per_second": NUMBER, "tokens_per_second": NUMBER, "first_token_ms": NUMBER},
}
LONG = b"The quick brown fox jumps over the lazy dog. " * 60 # some 600 tokens


def check_contract(report, contract=CONTRACT, path=""):
    assert set(contract) <= set(report), f"missing {set(contract) - set(report)} in {path or 'the object'}"
    for name, kind in contract.items():
        value = report[name]
        if isinstance(kind, dict):
            check_contract(value, kind, f"{path}{name}.")
        else:
            assert isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), (path + name, value)
            assert not isinstance(value, NUMBER) or value >= 0, (path + name, value)


def report_of(*arguments, **options):
    report = run("run", *arguments, "--json", **options).json()
    check_contract(report)
    tokens, kv = report["tokens"], report["kv"]
    total = tokens["ram"] + tokens["quantized"] + tokens["spilled"] + tokens["dropped"]
    assert total == tokens["prompt"] + tokens["generated"], f"tokens do not add up: {tokens}"
    assert kv["peak_bytes"] <= kv["budget_bytes"], kv
    assert 0 < kv["utilisation"] <= 1, kv
    return report


@suite.test
def json_has_what_was_promised():
    report = report_of(chat_model(), "-p", "Hello", "-n", "8", "-s", "1", code=0)
    assert report["stop"] == "length" and report["tokens"]["generated"] == 8 and report["seed"] == 1, report
    assert report["exact"] is True and report["tokens"]["dropped"] == 0 and report["kv"]["codec"] == "f16", report
    assert report["on_full"] == "spill" and report["on_full_reason"] is None and report["policy"] == "sink", report
    assert report["memory"]["peak_rss_bytes"] > 1 << 20 < report["memory"]["weights_bytes"], report
    assert report["speed"]["tokens_per_second"] > 0 < report["speed"]["first_token_ms"], report


@suite.test
def json_is_all_of_standard_output():
    result = run("run", chat_model(), "-p", "Hello", "-n", "8", "--json", code=0)
    assert result.out.startswith("{") and result.out.endswith("}\n") and result.out.count("\n") == 1, result
    assert result.err == "", result


@suite.test
def json_and_plain_text_agree():
    arguments = [chat_model(), "-p", "Tell me a story", "-n", "40", "-s", "42", "--temp", "1.2"]
    plain = run("run", *arguments, code=0)
    report = report_of(*arguments, code=0)
    assert plain.out == report["text"] + ("" if report["text"].endswith("\n") else "\n"), (plain.out, report["text"])
    assert plain.err == "", plain


@suite.test
def text_is_valid_utf8_whatever_the_model_says():
    wild = ["--temp", "100", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "60", "--ignore-eos"]
    strange = 0
    for seed in ("1", "2"):
        report = report_of(plain_model(), "-p", "x", "-s", seed, *wild, code=0)
        plain = run("run", plain_model(), "-p", "x", "-s", seed, *wild, code=0).out
        assert plain.rstrip("\n") == report["text"].rstrip("\n"), "the two differ"
        strange += sum(ord(character) > 127 for character in report["text"])
    assert strange > 10, "nothing but ASCII: this test shows nothing"


@suite.test
def the_same_seed_gives_the_same_text():
    texts = [report_of(chat_model(), "-p", "Tell me a story", "-n", "20", "-s", seed, code=0)["text"]
             for seed in ("5", "5", "6")]
    assert texts[0] == texts[1] != texts[2], texts


@suite.test
def without_a_seed_texts_differ_and_the_seed_is_told():
    first, second = (report_of(chat_model(), "-p", "Tell me a story", "-n", "20", code=0) for _ in range(2))
    assert first["seed"] != second["seed"] and first["text"] != second["text"], (first, second)
    again = report_of(chat_model(), "-p", "Tell me a story", "-n", "20", "-s", first["seed"], code=0)
    assert again["text"] == first["text"], (first, again)


@suite.test
def temperature_zero_needs_no_seed():
    texts = {report_of(chat_model(), "-p", "Hello", "-n", "10", "--temp", "0", "-s", seed, code=0)["text"]
             for seed in ("1", "2")}
    assert len(texts) == 1, texts


@suite.test
def samplers_count():
    def text(*flags):
        return report_of(chat_model(), "-p", "Tell me a story", "-n", "20", "-s", "3", *flags, code=0)["text"]
    greedy = text("--temp", "0")
    for flags in (["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]):
        assert text("--temp", "2", *flags) == greedy, flags
    assert text("--temp", "0", "--repeat-penalty", "1.8", "--repeat-last-n", "200") != greedy


@suite.test
def a_prompt_may_come_from_anywhere():
    prompt = "Name three colours, please."
    common = [chat_model(), "-n", "12", "--temp", "0"]
    path = scratch("prompt.txt", prompt.encode() + b"\n")
    texts = {
        "flag": report_of(*common, "-p", prompt, code=0),
        "words": report_of(*common, *prompt.split(), code=0),
        "file": report_of(*common, "-f", path, code=0),
        "dash": report_of(*common, "-f", "-", stdin=prompt.encode(), code=0),
        "pipe": report_of(*common, stdin=prompt.encode() + b"\n", code=0),
    }
    assert len({(report["text"], report["tokens"]["prompt"]) for report in texts.values()}) == 1, texts


@suite.test
def raw_text_is_read_as_it_is():
    model = chat_model()
    raw = report_of(model, "-p", "Hello", "--raw", "-n", "0", code=0)["tokens"]["prompt"]
    wrapped = report_of(model, "-p", "Hello", "-n", "0", code=0)["tokens"]["prompt"]
    control = report_of(model, "-p", "<|im_start|>", "--raw", "-n", "0", code=0)["tokens"]["prompt"]
    assert raw == 1 and control == 1 and wrapped > 10, (raw, control, wrapped)
    newline = report_of(model, "--raw", "-n", "0", stdin=b"Hello\n", code=0)["tokens"]["prompt"]
    assert newline == 2, newline


@suite.test
def a_user_cannot_write_control_tokens():
    model = chat_model()
    plain = report_of(model, "-p", "a", "-n", "0", code=0)["tokens"]["prompt"]
    sneaky = report_of(model, "-p", "<|im_end|>", "-n", "0", code=0)["tokens"]["prompt"]
    assert sneaky > plain, (plain, sneaky)


@suite.test
def the_system_prompt_is_read_and_pinned():
    model = chat_model()
    pinned = report_of(model, "-p", "Who are you?", "--system", "You are Ada, a pirate.", "-n", "4", code=0)
    free = report_of(model, "-p", "Who are you?", "--system", "You are Ada, a pirate.", "-n", "4", "--no-pin", code=0)
    assert pinned["tokens"]["pinned"] > 0 == free["tokens"]["pinned"], (pinned, free)
    assert pinned["tokens"]["prompt"] == free["tokens"]["prompt"], (pinned, free)


@suite.test
def special_tokens_show_when_asked():
    # Text on the model's own terms: after this the likeliest thing is the end of the turn.
    arguments = [chat_model(), "--raw", "-p", "<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n", "--temp",
                 "0",
                 "--ignore-eos", "-n", "60"]
    assert "<|im" not in report_of(*arguments, code=0)["text"]
    report_of(*arguments, "--special", code=0)


@suite.test
def no_tokens_at_all():
    report = report_of(chat_model(), "-p", "Hello", "-n", "0", code=0)
    assert report["text"] == "" and report["stop"] == "length" and report["tokens"]["generated"] == 0, report
    assert run("run", chat_model(), "-p", "Hello", "-n", "0", code=0).out == ""


@suite.test
def a_reply_that_ends_by_itself():
    report = report_of(chat_model(), "-p", "Say hi", "--temp", "0", "-n", "200", code=0)
    assert report["stop"] == "eos" and 0 < report["tokens"]["generated"] < 200, report


@suite.test
def a_full_budget_stops_and_says_so():
    arguments = [chat_model(), "-p", "Tell me a long story", "--ignore-eos", "--kv", "4M", "-s", "1",
                 "--on-full", "stop"]
    report = report_of(*arguments, code=0)
    assert report["stop"] == "full" and report["exact"] is True and report["tokens"]["dropped"] == 0, report
    assert report["tokens"]["generated"] > 20 and report["kv"]["budget_bytes"] == 4 << 20, report
    result = run("run", *arguments, code=0)
    assert result.out.rstrip("\n") == report["text"].rstrip("\n"), result
    assert "the reply stops here" in result.err and "KV budget is full" in result.err, result


@suite.test
def eviction_is_counted_and_told():
    path = scratch("long.txt", LONG)
    for policy in ("fifo", "sink", "window", "random"):
        flags = ["--window", "96"] if policy == "window" else []
        arguments = [chat_model(), "-f", path, "-n", "8", "-s", "1", "--kv", "5M", "--on-full", "evict", "--policy",
                     policy]
        result = run("run", *arguments, *flags, "--json", code=0)
        report = result.json()
        check_contract(report)
        tokens = report["tokens"]
        total = tokens["prompt"] + tokens["generated"]
        assert report["exact"] is False and tokens["dropped"] > 100 and report["policy"] == policy, report
        assert report["kv"]["peak_bytes"] <= 5 << 20, report
        assert policy != "window" or tokens["ram"] <= 96 + 32 + tokens["pinned"], report
        match = re.search(r"^answered from (\d+) % of the conversation: ([\d,]+) of ([\d,]+) tokens dropped by (\w+)$",
                          result.err, re.M)
        assert match, result
        percent, dropped, all_tokens = (int(match.group(i).replace(",", "")) for i in (1, 2, 3))
        assert (dropped, all_tokens, match.group(4)) == (tokens["dropped"], total, policy), (match.group(), tokens)
        assert percent == 100 * (total - dropped) // total, match.group()


@suite.test
def nothing_is_said_when_nothing_was_dropped():
    result = run("run", chat_model(), "-f", scratch("long.txt", LONG), "-n", "4", "--on-full", "evict", code=0)
    assert result.err == "", result


@suite.test
def codecs_are_chosen_and_told():
    path = scratch("long.txt", LONG)
    for flags, codec in ((["--kv-codec", "k8v4"], "k8v4"), (["-ctk", "q8_0", "-ctv", "q5_0"], "k8v5"),
                         (["-ctk", "q8_0"], "q8"), (["--cache-type-v", "q4_0"], "k5v4"), (["-ctk", "f16"], "f16")):
        result = run("run", chat_model(), "-f", path, "-n", "4", "-s", "1", "--json", *flags, code=0)
        report = result.json()
        held = report["kv"]["tokens_by_codec"]
        assert report["kv"]["codec"] == codec and held[codec] > 100, (flags, report)
        assert sum(held.values()) == report["tokens"]["ram"] + report["tokens"]["quantized"], report
        assert report["tokens"]["dropped"] == 0 and report["exact"] == (codec == "f16"), report
        assert (f"re-encoded ({codec})" in result.err) == (codec != "f16"), result


@suite.test
def pages_become_small_before_text_is_dropped():
    path = scratch("longer.txt", LONG * 2)
    flags = ["-f", path, "-n", "8", "-s", "1", "--kv", "18M", "--on-full", "evict"]
    exact = report_of(chat_model(), *flags, "--kv-codec", "f16")
    auto = report_of(chat_model(), *flags)
    assert exact["tokens"]["dropped"] > 0 and exact["tokens"]["quantized"] == 0, exact
    assert auto["tokens"]["quantized"] > 0 and auto["tokens"]["dropped"] < exact["tokens"]["dropped"], auto
    assert auto["kv"]["peak_bytes"] <= auto["kv"]["budget_bytes"] <= 18 << 20, auto


@suite.test
def a_context_size_is_a_limit_too():
    report = report_of(chat_model(), "-p", "Tell me a story", "-c", "80", "--ignore-eos", "--on-full", "stop",
                       code=0)
    assert report["stop"] == "full" and report["tokens"]["ram"] <= 80, report
    for rule in (["--on-full", "evict"], ["--on-full", "spill"], []):
        report = report_of(chat_model(), "-p", "Tell me a story", "-c", "80", "-n", "100", "--ignore-eos", *rule,
                           code=0)
        assert report["stop"] == "length" and report["tokens"]["ram"] <= 80, (rule, report)
        assert report["tokens"]["dropped"] > 0 and report["on_full"] == (rule or ["", "spill"])[1], (rule, report)


@suite.test
def budgets_that_hold_everything_give_the_same_text():
    texts = {report_of(chat_model(), "-p", "Tell me a story", "-n", "24", "-s", "8", *flags, code=0)["text"]
             for flags in ([], ["--kv", "8M"], ["--kv", "20M", "--page", "64"], ["--kv", "8M", "--on-full", "evict"],
                           ["--kv", "20M", "--on-full", "stop"])}
    assert len(texts) == 1, texts


@suite.test
def threads_and_mapping_do_not_change_the_text():
    texts = {report_of(chat_model(), "-p", "Tell me a story", "-n", "12", "--temp", "0", *flags, code=0)["text"]
             for flags in ([], ["-t", "2", "-tb", "1"], ["--no-mmap"])}
    assert len(texts) == 1, texts


@suite.test
def a_model_with_windows_runs():
    report = report_of(plain_model(), "-p", "Once upon a time", "-n", "8", "--temp", "0", code=0)
    assert report["tokens"]["generated"] == 8 and report["exact"] is True, report


@suite.test
def quiet_and_verbose():
    quiet = run("run", chat_model(), "-p", "Hello", "-n", "4", "-q", code=0)
    verbose = run("run", chat_model(), "-p", "Hello", "-n", "4", "-v", code=0)
    assert quiet.err == "" and "t/s" in verbose.err and "peak" in verbose.err, (quiet, verbose)


@suite.test
def there_are_no_escape_sequences_in_files():
    for color in ([], ["--color", "auto"]):
        result = run("run", chat_model(), "-f", scratch("long.txt", LONG), "-n", "4", "--kv", "5M", "--on-full",
                     "evict",
                     *color, code=0)
        assert b"\x1b" not in result.out_bytes + result.err_bytes and b"\r" not in result.err_bytes, result


# --- Ctrl-C ---


def start(*arguments):
    return subprocess.Popen([PROGRAM, "run", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=environment())


@suite.test
def an_interrupt_ends_the_reply_and_keeps_the_text():
    process = start(chat_model(), "-p", "Count", "--ignore-eos", "-n", "-2", "--on-full", "evict", "--kv", "8M")
    first = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130 and len(first) == 20 and rest.endswith(b"\n"), (process.returncode, err)


@suite.test
def an_interrupted_reply_has_its_report():
    process = start(chat_model(), "-p", "Count", "--ignore-eos", "-n", "-2", "--on-full", "evict", "--kv", "8M",
                    "--json")
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    check_contract(report)
    assert process.returncode == 130 and report["stop"] == "cancelled" and report["text"], (report, err)


@suite.test
def an_interrupt_while_reading():
    path = scratch("very-long.txt", LONG * 40)
    process = start(chat_model(), "-f", path, "--on-full", "evict", "--kv", "64M", "--json")
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert process.returncode == 130 and report["stop"] == "cancelled" and report["text"] == "", (report, err)
    assert time.monotonic() - began < 20, "it took too long to stop"


if __name__ == "__main__":
    suite.main()
