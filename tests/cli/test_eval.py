#!/usr/bin/env python3
"""Quality of a setting against the exact cache: identity, eviction, pass keys, texts, the JSON contract, Ctrl-C."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

from support.suite import PROGRAM, Suite, chat_model, environment, fails, run, scratch
from support.terminal import Terminal

suite = Suite()
NUMBER = (int, float)
SMALL = ["-c", 128, "--kv-codec", "f16"] # old text is dropped, nothing becomes smaller
SUMS = {"predictions": int, "nll_exact": NUMBER, "nll_tested": NUMBER, "kld": NUMBER, "top1": NUMBER}
SETTING = {"budget_bytes": int, "tokens_capacity": int, "codec": str, "codec_tight": str, "on_full": str,
           "policy": str, "window": int, "sinks": int, "page": int, "step": int}
FIELDS = {
    "model": str, "seed": int, "partial": bool, "acted": bool, "warnings": list, "setting": SETTING,
    "document_tokens": int, "predictions": int,
    "perplexity": {name: NUMBER for name in ("exact", "tested", "ratio")},
    "kld": {"mean": NUMBER, "acting_predictions": int, "median": NUMBER, "p99": NUMBER, "p999": NUMBER, "max": NUMBER},
    "top1": {"agreement": NUMBER, "low": NUMBER, "high": NUMBER},
    "delta_p": {"rms": NUMBER, "mean": NUMBER},
    "positions": [dict(SUMS, first=int, last=int)],
    "documents": [dict(SUMS, text=str, offset_bytes=int, exact_bytes=int, tested_bytes=int, tokens={
        name: int for name in ("total", "ram", "quantized", "spilled", "unread", "dropped")})],
}
ANSWERS = {"written": int, "written_low": NUMBER, "written_high": NUMBER, "chosen": int, "chosen_low": NUMBER,
           "chosen_high": NUMBER, "nll": NUMBER}
CELL = {"trials": int, "prompt_tokens": NUMBER, "dropped": NUMBER, "quantized": NUMBER, "spilled": NUMBER,
        "unread": NUMBER, "key_held": NUMBER, "exact": ANSWERS, "tested": ANSWERS}
SHARES = {"written_of_exact": NUMBER, "written_of_exact_low": NUMBER, "written_of_exact_high": NUMBER}
PASSKEY = dict(CELL, **SHARES, nll_gap={"mean": NUMBER}, cells=[dict(CELL, length=int, depth=NUMBER)])
RECALL = dict({name: kind for name, kind in CELL.items() if name != "key_held"}, task=str, group=str, length=int,
              nll_gap={"mean": NUMBER}, rereads={"exact": int, "tested": int})


def prose(seed, sentences):
    """Text that a model can read: simple sentences, none like the one before."""
    chance = random.Random(seed)
    who = ["The old sailor", "A young teacher", "My neighbour", "The baker", "Her brother", "The mayor", "A stranger"]
    did = ["bought", "painted", "lost", "described", "found", "carried home", "asked for"]
    what = ["a blue boat", "three loaves of bread", "the letter", "a map of the valley", "an umbrella", "the old clock"]
    when = ["in the morning", "before it rained", "last winter", "on a Sunday", "after the war", "without a word"]
    return "\n".join(f"{chance.choice(who)} {chance.choice(did)} {chance.choice(what)} {chance.choice(when)}."
                     for _ in range(sentences)).encode() + b"\n"


def texts(count=3, sentences=80):
    return [scratch(f"story-{seed}.txt", prose(seed, sentences)) for seed in range(count)]


def flags(paths):
    return [word for path in paths for word in ("--text", path)]


def check(report, contract, path=""):
    assert set(contract) <= set(report), f"missing {set(contract) - set(report)} in {path or 'the object'}"
    for name, kind in contract.items():
        values, kind = (report[name], kind[0]) if isinstance(kind, list) else ([report[name]], kind)
        assert values, f"{path}{name} is empty"
        for value in values:
            if isinstance(kind, dict):
                check(value, kind, f"{path}{name}.")
            else:
                assert isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), (path + name, value)


def evaluate(*arguments, code=0, **options):
    """The report, and the warnings on standard error."""
    result = run("eval", chat_model(), *arguments, "--json", code=code, **options)
    report = result.json()
    warnings = re.findall(r"^pagoda: warning: (.*)$", result.err, re.M)
    assert warnings == report["warnings"], result
    return report


@suite.test
def a_setting_that_drops_nothing_is_the_exact_cache():
    report = evaluate(*flags(texts()), "--tokens", 384)
    check(report, FIELDS)
    assert report["kld"]["mean"] == 0 == report["kld"]["max"] == report["delta_p"]["rms"], report
    assert report["top1"]["agreement"] == 1 == report["perplexity"]["ratio"], report
    assert report["perplexity"]["exact"] == report["perplexity"]["tested"] > 1, report
    assert report["predictions"] == 3 * 383 and not report["partial"], report
    assert report["acted"] is False and len(report["warnings"]) == 1, report
    assert "never acted" in report["warnings"][0] and "--kv" in report["warnings"][0], report
    for document in report["documents"]:
        assert document["tokens"]["ram"] == 384 and document["tokens"]["dropped"] == 0, document
        assert document["exact_bytes"] == document["tested_bytes"], document


@suite.test
def a_small_budget_costs_quality_and_says_what_it_dropped():
    report = evaluate(*flags(texts()), "--tokens", 384, *SMALL)
    check(report, FIELDS)
    assert report["acted"] is True and report["warnings"] == [] and "noise" not in report, report
    assert report["setting"]["on_full"] == "evict" and report["setting"]["policy"] == "sink", report
    assert report["setting"]["tokens_capacity"] == 128, report
    kld, ratio = report["kld"], report["perplexity"]
    assert 0 < kld["median"] < kld["p99"] < kld["p999"] < kld["max"], kld
    assert 0.001 < kld["low"] < kld["mean"] < kld["high"] < kld["acting_mean"] * 2, kld
    assert kld["mean"] < kld["acting_mean"] and 0 < kld["acting_predictions"] < report["predictions"], kld
    assert ratio["ratio_low"] < ratio["ratio"] < ratio["ratio_high"] and ratio["ratio"] != 1, ratio
    assert abs(ratio["tested"] / ratio["exact"] / ratio["ratio"] - 1) < 1e-4, ratio
    assert report["top1"]["low"] < report["top1"]["agreement"] < report["top1"]["high"] < 1, report
    assert report["delta_p"]["rms"] > 0.001, report
    for document in report["documents"]:
        tokens = document["tokens"]
        assert tokens["total"] == 384 == tokens["ram"] + tokens["dropped"] and tokens["dropped"] >= 256, document
        assert document["tested_bytes"] * 2 < document["exact_bytes"], document
        assert document["tokens"]["by_codec"] == {"f16": tokens["ram"]}, document
    assert len({document["nll_exact"] for document in report["documents"]}) == 3, report


@suite.test
def a_codec_is_measured_in_noise_floors():
    report = evaluate(*flags(texts()), "--tokens", 320, "--kv-codec", "k5v4", "--noise")
    assert report["setting"]["codec"] == "k5v4" == report["setting"]["codec_tight"], report
    for document in report["documents"]:
        tokens = document["tokens"]
        assert tokens["dropped"] == 0 < tokens["quantized"] == tokens["by_codec"]["k5v4"] < 320, tokens
        assert tokens["ram"] == 320 - tokens["quantized"], tokens
        assert document["tested_bytes"] < 0.8 * document["exact_bytes"], document
    noise = report["noise"]
    assert 0 < noise["low"] < noise["kld"] < noise["high"] and 0.9 < noise["top1"] < 1, noise
    assert abs(noise["perplexity_ratio"] - 1) < 0.02, noise
    assert noise["floors"] > 1.2 and abs(report["kld"]["mean"] / noise["kld"] / noise["floors"] - 1) < 1e-3, report
    rounded = evaluate(*flags(texts(1)), "--docs", 1, "--tokens", 256, "--kv-codec", "r15", "--noise")
    assert rounded["noise"]["floors"] == 1 and rounded["kld"]["mean"] == rounded["noise"]["kld"] > 0, rounded


@suite.test
def the_same_seed_gives_the_same_report():
    arguments = [*flags(texts(1)), "--docs", 1, "--tokens", 300, *SMALL, "--passkey", "--lengths", 400, "--depths",
                 1]
    first, again = (evaluate(*arguments, "--seed", 5) for _ in range(2))
    assert first == again and first["seed"] == 5, (first, again)


@suite.test
def the_table_says_what_json_says():
    arguments = ["eval", chat_model(), *flags(texts(2)), "--docs", 2, "--tokens", 520, *SMALL]
    report = run(*arguments, "--json", code=0).json()
    result = run(*arguments, code=0)
    for word in (f"{report['kld']['mean']:.6f}"[:6], f"{report['perplexity']['tested']:.4f}"[:5], "95 % interval",
                 "story-0.txt", "story-1.txt", "dropped", "0 to 1,023", "same top-1", "2 of 520 tokens"):
        assert word in result.out, (word, result)
    assert all(line == line.rstrip() and len(line) < 120 for line in result.out.splitlines()), result
    assert result.err.count("warning") == 1 and "2 documents" in result.err, result
    assert "never acted" not in result.out, result


@suite.test
def a_setting_that_never_acts_is_called_so_in_the_table():
    result = run("eval", chat_model(), *flags(texts()), "--tokens", 64, code=0)
    assert "the setting never acted" in result.out and "never acted" in result.err, result


@suite.test
def pass_keys_are_lost_with_the_tokens_that_held_them():
    report = evaluate(*flags(texts()), "--passkey-only", "--lengths", "400,600", "--depths", 2, "-c", 160,
                      "--kv-codec", "f16")
    grid = report["passkey"]
    check(grid, PASSKEY)
    assert "perplexity" not in report and report["acted"] is True and report["warnings"] == [], report
    cells = grid["cells"]
    assert [(cell["length"], cell["depth"]) for cell in cells] == [(400, 0), (400, 1), (600, 0), (600, 1)], cells
    assert grid["trials"] == 4 and grid["exact"]["chosen"] == 4 and grid["exact"]["written"] >= 3, grid
    assert grid["exact"]["chosen_low"] < 0.6 and grid["exact"]["chosen_high"] == 1, grid
    for cell in cells:
        assert cell["length"] - 60 < cell["prompt_tokens"] <= cell["length"], cell
        assert cell["dropped"] >= cell["length"] - 60 - 160, cell
        gone = cell["depth"] == 0
        assert cell["key_held"] == (0 if gone else 1), cell
        assert cell["tested"]["written"] == 0 or not gone, cell
        assert (cell["tested"]["nll"] > 6) == gone, cell
    assert grid["tested"]["chosen"] < 4 and grid["chosen_of_exact"] == grid["tested"]["chosen"] / 4, grid


def recall(*arguments):
    """The rows of a report by name, of a cache that holds 160 tokens in f16."""
    report = evaluate(*flags(texts(1, 400)), *arguments, "-c", 160, "--kv-codec", "f16", "--raw")
    assert "perplexity" not in report and report["acted"] is True and report["warnings"] == [], report
    assert report["setting"]["raw"] is True, report
    for row in report["recall"]:
        check(row, RECALL)
        assert row["dropped"] > row["length"] - 60 - 160 and row["rereads"] == {"exact": 0, "tested": 0}, row
        assert row["length"] - 60 < row["prompt_tokens"] <= row["length"], row
        assert abs(row["nll_gap"]["mean"] - row["tested"]["nll"] + row["exact"]["nll"]) < 1e-3, row
    return {row["group"]: row for row in report["recall"]}


@suite.test
def strings_that_were_dropped_are_not_recalled():
    copy = recall("--tasks", "copy", "--lengths", 450, "--questions", 8)["copy"]
    assert copy["task"] == "copy" and copy["trials"] == 8 and 0 < copy["fact_held"] < 0.6, copy
    assert copy["exact"]["written"] >= 3 and copy["exact"]["written"] > copy["tested"]["written"], copy
    assert copy["exact"]["chosen"] > copy["tested"]["chosen"], copy
    assert copy["written_of_exact_low"] < copy["written_of_exact"] < copy["written_of_exact_high"] < 1, copy
    assert 1 < copy["nll_gap"]["low"] < copy["nll_gap"]["mean"] < copy["nll_gap"]["high"], copy


@suite.test
def facts_of_turn_1_are_dropped_and_those_of_turn_29_held():
    rows = recall("--tasks", "facts", "--lengths", 800, "--questions", 3)
    assert list(rows) == ["facts", "facts, corrected", "facts, never told"], list(rows)
    facts, corrected, never = rows.values()
    assert [row["trials"] for row in rows.values()] == [3, 2, 1], rows
    assert facts["fact_held"] < 0.2, facts # the first page stays
    assert facts["tested"]["nll"] > facts["exact"]["nll"] + 1 and facts["written_of_exact"] < 0.5, facts
    assert corrected["fact_held"] == 1 and corrected["task"] == "facts", corrected
    assert corrected["nll_gap"]["low"] is None and never["fact_held"] is None, rows


@suite.test
def a_cache_that_holds_all_recalls_as_the_exact_one():
    arguments = ["eval", chat_model(), *flags(texts(1, 300)), "--tasks", "keys,lookup,words", "--lengths", 800,
                 "--questions", 2, "--seed", 4]
    report = run(*arguments, "--json", code=0).json()
    assert [row["task"] for row in report["recall"]] == ["keys", "lookup", "words"], report
    for row in report["recall"]:
        assert row["trials"] == 2 and row["exact"] == row["tested"] and row["nll_gap"]["mean"] == 0, row
    assert report["acted"] is False and "never acted" in report["warnings"][0], report
    result = run(*arguments, code=0)
    surprise = f"{report['recall'][0]['exact']['nll']:.2f}"
    for word in ("recall: answers", "lookup ", "words ", "of exact's", "+0.00", surprise):
        assert word in result.out, (word, result)
    assert all(line == line.rstrip() and len(line) <= 120 for line in result.out.splitlines()), result


@suite.test
def only_what_is_decoded_counts():
    arguments = [*flags(texts(2)), "--docs", 2, "--tokens", 300, "--noise", *SMALL]
    report = evaluate(*arguments, "--decode", 10)
    assert report["predictions"] == 20 and report["setting"]["decode"] == 10, report
    assert [document["predictions"] for document in report["documents"]] == [10, 10], report
    assert report["kld"]["acting_predictions"] == 20 and report["noise"]["kld"] > 0, report
    assert report["kld"]["mean"] > report["noise"]["kld"], report
    assert [document["tokens"]["total"] for document in report["documents"]] == [300, 300], report
    fails(2, ["--decode 300", "300 tokens"], "eval", chat_model(), *arguments, "--decode", 300)


@suite.test
def pass_keys_come_with_documents_and_in_the_table():
    arguments = ["eval", chat_model(), *flags(texts()), "--tokens", 64, "--passkey", "--lengths", 400, "--depths", 1]
    result = run(*arguments, code=0)
    for word in ("perplexity, tested", "pass keys:", " 50 %", "written: exact", "of ten "):
        assert word in result.out, (word, result)
    assert "never acted" in result.err, result


@suite.test
def documents_are_spread_over_the_texts():
    report = evaluate(*flags(texts(2, 400)), "--docs", 5, "--tokens", 32)
    places = [(os.path.basename(document["text"]), document["offset_bytes"]) for document in report["documents"]]
    assert [name for name, _ in places] == [f"story-{i % 2}.txt" for i in range(5)], places
    for name in ("story-0.txt", "story-1.txt"):
        offsets = [offset for text, offset in places if text == name]
        assert all(later - offset > 5000 for offset, later in zip(offsets, offsets[1:])), places
    report = evaluate(*flags(texts(4)), "--tokens", 32)
    assert len(report["documents"]) == 4, "at least one document of each text"


@suite.test
def more_than_three_documents_are_not_warned_about_and_fewer_are():
    one = evaluate(*flags(texts(1)), "--docs", 1, "--tokens", 32)
    assert any("1 document:" in warning for warning in one["warnings"]), one
    three = evaluate(*flags(texts(1)), "--docs", 3, "--tokens", 32)
    assert not any("document" in warning for warning in three["warnings"]), three
    assert three["kld"]["low"] is None, "three blocks say nothing about how sure a figure is"


# --- texts that are not there, or no texts ---


@suite.test
def without_texts_it_says_how_to_get_some():
    copy = scratch("elsewhere")
    os.makedirs(copy, exist_ok=True)
    program = shutil.copy(PROGRAM, copy) # beside it is no folder with texts
    process = subprocess.run([program, "eval", chat_model()], cwd=copy, env=environment(), capture_output=True,
                             timeout=60, check=False)
    err = process.stderr.decode()
    assert process.returncode == 2 and err.count("\n") == 1 and process.stdout == b"", err
    assert "--text FILE" in err and "make texts" in err, err
    os.makedirs(os.path.join(copy, "texts"), exist_ok=True) # and now there is
    with open(os.path.join(copy, "texts", "newton-opticks.txt"), "wb") as file:
        file.write(prose(1, 80))
    process = subprocess.run([program, "eval", chat_model(), "--tokens", "32", "--json"], cwd=copy, env=environment(),
                             capture_output=True, timeout=60, check=False)
    report = json.loads(process.stdout)
    found = [os.path.basename(document["text"]) for document in report["documents"]]
    assert found == ["newton-opticks.txt"] * 3, found


@suite.test
def texts_may_come_from_standard_input_or_a_variable():
    assert evaluate("--text", "-", "--tokens", 32, stdin=prose(1, 80))["documents"][0]["text"] == "-"
    here, other = texts(2)
    setting = environment(PAGODA_TEXT=here)
    assert evaluate("--tokens", 32, env=setting)["documents"][0]["text"] == here
    given = evaluate("--tokens", 32, "--text", other, env=setting)["documents"]
    assert {document["text"] for document in given} == {other}, given


@suite.test
def bad_texts_are_refused():
    model = chat_model()
    good = texts(1)[0]
    fails(2, "no-such.txt", "eval", model, "--text", scratch("no-such.txt"))
    fails(2, "no-such.txt", "eval", model, "--text", good, "--text", scratch("no-such.txt"))
    fails(2, "empty.txt is empty", "eval", model, "--text", scratch("empty.txt", b""))
    fails(2, "NUL byte", "eval", model, "--text", scratch("zeros.txt", b"some\0text"))
    fails(2, ["short.txt is too short", "has 9 tokens", "--tokens"], "eval", model, "--docs", 1, "--text",
          scratch("short.txt", b"A text of nine tokens, no more."))
    fails(2, ["short.txt", "tokens"], "eval", model, "--passkey-only", "--text", scratch("short.txt"))
    fails(2, "at most 16", "eval", model, *flags([good] * 17))


@suite.test
def bad_numbers_are_refused():
    for flag, value, word in (
            ("--docs", "0", "range"), ("--docs", "-1", "not a number"), ("--tokens", "15", "at least"),
            ("--step", "0", "range"), ("--step", "257", "range"), ("--depths", "0", "range"),
            ("--trials", "0", "range"), ("--lengths", "1024,x", "not a number"),
            ("--lengths", "1024,,2048", "not a number"), ("--lengths", "0", "range"),
            ("--lengths", ",".join(["512"] * 17), "at most 16"), ("--questions", "0", "range"),
            ("--decode", "x", "not a number"), ("--tasks", "fact", "did you mean 'facts'"),
            ("--tasks", "keys,", "one of"), ("--tasks", "", "one of")):
        fails(2, ["--" + flag.strip("-"), word], "eval", chat_model(), *flags(texts(1)), flag, value)
    fails(2, "did you mean '--passkey'", "eval", "m.gguf", "--paskey")
    fails(2, "did you mean '--tasks'", "eval", "m.gguf", "--task", "keys")
    fails(2, ["facts of 200 tokens", "story-0.txt", "need a text of"], "eval", chat_model(), *flags(texts(1)),
          "--tasks", "facts", "--lengths", 200)
    fails(2, ["'--lengths'", "pagoda eval"], "run", "m.gguf", "--lengths", "1")
    fails(2, ["a pass key needs", "story-0.txt"], "eval", chat_model(), *flags(texts(1)), "--passkey-only", "--lengths",
          "64")
    fails(4, "no-such.gguf", "eval", "no-such.gguf", *flags(texts(1)))


@suite.test
def a_budget_that_cannot_do_it_is_refused_before_anything_is_read():
    arguments = [chat_model(), *flags(texts()), "--tokens", 384]
    fails(3, ["--on-full stop", "128", "384", "--kv"], "eval", *arguments, *SMALL, "--on-full", "stop")
    fails(3, "budget", "eval", *arguments, "--kv", "100K")


# --- waiting and interrupting ---


@suite.test
def an_interrupted_evaluation_tells_what_it_has():
    process = subprocess.Popen([PROGRAM, "eval", chat_model(), *flags(texts(3, 600)), "--tokens", "4096", "--json",
                                *map(str, SMALL)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert process.returncode == 130 and report["partial"] is True, (report, err)
    assert 0 < report["predictions"] < 3 * 4095 and report["kld"]["mean"] > 0, report
    assert time.monotonic() - began < 20, "it took too long to stop"


@suite.test
def interrupted_questions_come_in_pairs():
    process = subprocess.Popen([PROGRAM, "eval", chat_model(), *flags(texts(1, 300)), "--tasks", "copy", "--lengths",
                                "500", "--questions", "500", "--json", *map(str, SMALL)], env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(12)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert process.returncode == 130 and report["partial"] is True, (report, err)
    for row in report["recall"]:
        assert 0 < row["trials"] < 500 and row["tested"]["nll"] is not None, row
        assert abs(row["nll_gap"]["mean"] - row["tested"]["nll"] + row["exact"]["nll"]) < 1e-3, row


@suite.test
def a_terminal_shows_progress_a_partial_table_and_warnings():
    path = scratch("long.txt", prose(7, 1200))
    with Terminal("eval", chat_model(), "--text", path, "--docs", 1, "--tokens", 8193, *SMALL) as terminal:
        terminal.wait_for(r"reading \[.* of 8,193 tokens")
        terminal.send("\x03")
        terminal.wait_for(r"PARTIAL")
        terminal.wait_for(r"longer than the 8192 tokens that the model was trained for")
        assert terminal.exit_code() == 130, terminal.text()


if __name__ == "__main__":
    suite.main()
