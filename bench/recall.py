#!/usr/bin/env python3
"""What several settings of the cache recall, beside each other: `pagoda eval --tasks` once for each, and one table.

    bench/recall.py MODEL.gguf [--length 4096] [--share 8] [--questions 50] [--tasks LIST] [--setting NAME]...
                               [--raw] [--threads N]

Each setting has a hard budget of 1 / share of the bytes that `length` tokens take as f16, everything counted. A new
setting is one more line of SETTINGS. Cells are answers that the tested cache wrote right, of those that the exact cache
of the same run wrote right, with Wilson's 95 % interval; in the second table they are the mean change of the answers'
NLL. Finished rows are printed at once, as JSON, on standard error: a run that is interrupted has not been for nothing.
"""

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "build", "pagoda")
F16 = ["--kv-codec", "f16"]
SETTINGS = {
    "window": ["--on-full", "evict", "--policy", "window", *F16],
    "fifo": ["--on-full", "evict", "--policy", "fifo", *F16],
    "sink": ["--on-full", "evict", "--policy", "sink", *F16],
    "sink, codecs as they come": ["--on-full", "evict", "--policy", "sink"],
    "sink, 64 first tokens": ["--on-full", "evict", "--policy", "sink", "--sinks", "64"],
}


def call(*arguments):
    result = subprocess.run([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def bytes_per_token(model):
    """Of f16 rows, whatever codec `show` was asked about: a budget is a share of these."""
    return call("show", model, "--json", *F16)["kv"]["bytes_per_token"]


def measure(arguments, flags, budget):
    raw = ["--raw"] if arguments.raw else []
    threads = ["--threads", arguments.threads] if arguments.threads else []
    return call("eval", arguments.model, "--json", "--quiet", "--kv", budget, "--tasks", arguments.tasks, "--lengths",
                arguments.length, "--questions", arguments.questions, *raw, *threads, *flags)


def answers(report):
    """The rows of a report by name; the pass keys are one of them."""
    rows = {row["group"]: row for row in report.get("recall", [])}
    return {"passkey": report["passkey"], **rows} if "passkey" in report else rows


def recalled(row):
    if row["exact"]["written"] == 0:
        return "-"
    low, high = (100 * row[f"written_of_exact_{end}"] for end in ("low", "high"))
    return f"{100 * row['written_of_exact']:.0f} % ({low:.0f}..{high:.0f})"


def changed(row):
    gap = row["nll_gap"]
    interval = "" if gap["low"] is None else f" ({gap['low']:+.2f}..{gap['high']:+.2f})"
    return f"{gap['mean']:+.2f}{interval}"


def print_table(title, reports, cell):
    columns = list(answers(next(iter(reports.values()))))
    print(f"\n{title}\n\n| setting | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, report in reports.items():
        rows = answers(report)
        print(f"| {name} | " + " | ".join(cell(rows[column]) for column in columns) + " |")


def exact_words(reports):
    rows = answers(next(iter(reports.values())))
    return ", ".join(f"{name} {row['exact']['written']} of {row['trials']}" for name, row in rows.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--share", type=int, default=8)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="only these")
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    budget = arguments.length * bytes_per_token(arguments.model) // arguments.share
    reports = {}
    for name in arguments.setting or SETTINGS:
        reports[name] = measure(arguments, SETTINGS[name], budget)
        print(json.dumps({"setting": name, "report": reports[name]}), file=sys.stderr, flush=True)
    print(f"{os.path.basename(arguments.model)}, texts of {arguments.length} tokens, KV budget {budget} bytes: 1 / "
          f"{arguments.share} of f16\nwritten right by the exact cache: {exact_words(reports)}")
    print_table("Written right, of those that the exact cache wrote right (95 % interval)", reports, recalled)
    print_table("Change of the answers' NLL, tested minus exact (95 % interval)", reports, changed)


if __name__ == "__main__":
    main()
