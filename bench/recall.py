#!/usr/bin/env python3
"""What several settings of the cache recall, beside each other, in one table: docs/results.md has those of two models.

    bench/recall.py MODEL.gguf [--results FILE] [--minutes N] [--table] [--only SETTING]... [--curve]
                               [--tasks LIST] [--length 8000] [--lengths 5000] [--depths 5] [--questions 20]
                               [--of TOKENS] [--raw] [--threads N]

Every cell is one run of `pagoda eval`, of one setting and one task, and one line of FILE (JSON). Runs that FILE has
already are not repeated, so a table can be made in parts, in any order and on several days: the same words with
--table print what there is. A hard budget is a share of the f16 bytes of the text that is read, everything counted;
with --of, of so many tokens, whatever the length. The context is that text and an answer: what a larger one might
still bring would have its share of the memory. A new setting is one more line of KINDS.
"""

import argparse
import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.abspath(os.environ.get("PAGODA_BIN", os.path.join(ROOT, "build", "pagoda")))
SPILL = ["--on-full", "spill", "--kv-codec", "auto"]
EVICT = ["--on-full", "evict", "--kv-codec", "k8v4"] # of the codec that pages on flash have
# {share} is as many tokens as the share of the budget.
KINDS = {
    "spill": SPILL,
    "fifo": [*EVICT, "--policy", "fifo"],
    "window": [*EVICT, "--policy", "window", "--window", "{share}"],
    "sink": [*EVICT, "--policy", "sink"],
    "random": [*EVICT, "--policy", "random"],
}
# Name, share of the f16 bytes, flags.
SETTINGS = {f"{kind} 1/{share}": (share, flags) for share in (8, 16, 32, 64) for kind, flags in KINDS.items()}
CURVE = list(SETTINGS)
SETTINGS |= {f"{which} pages 1/{share}": (share, [*SPILL, "--select", which])
             for share in (8, 16) for which in ("random", "oracle")}
SETTINGS["spill 1/8, all read"] = (8, [*SPILL, "--select", "all"])
USUAL = ["spill 1/8", "fifo 1/8", "window 1/8", "sink 1/8", "random 1/8", "random pages 1/8", "oracle pages 1/8",
         "spill 1/16"]
ANSWER_TOKENS = 64
TASKS = ["documents", "passkey", "keys", "lookup", "copy", "words", "facts"]


class Bench:
    """The arguments, what FILE has, and when to stop."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.bytes_per_token = show_bytes_per_token(arguments.model)
        self.known = read_results(arguments.results)
        self.end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")

    def length_of(self, task):
        return self.arguments.lengths if task == "passkey" else [self.arguments.length]

    def budget(self, setting, length):
        return (self.arguments.of or length) * self.bytes_per_token // SETTINGS[setting][0]

    def words(self, setting, task, length):
        """The run of one cell, without the number of threads: that changes no result."""
        share, flags = SETTINGS[setting]
        tokens = str((self.arguments.of or length) // share)
        words = ["--kv", self.budget(setting, length), "--ctx-size", (self.arguments.of or length) + ANSWER_TOKENS]
        words += [flag.replace("{share}", tokens) for flag in flags]
        words += ["--tasks", task]
        if task == "documents":
            words += ["--docs", self.arguments.docs, "--tokens", length, "--decode", self.arguments.decode]
        elif task == "passkey":
            words += ["--lengths", length, "--depths", self.arguments.depths, "--trials", self.arguments.trials]
        else:
            words += ["--lengths", length, "--questions", self.arguments.questions]
        raw = ["--raw"] if self.arguments.raw and task != "documents" else []
        return [str(word) for word in [os.path.basename(self.arguments.model), *words, *raw]]

    def result(self, setting, task, length):
        return self.known.get(tuple(self.words(setting, task, length)))

    def results(self, setting, task):
        found = [self.result(setting, task, length) for length in self.length_of(task)]
        return [result for result in found if result is not None]

    def measure(self, setting, task, length):
        words = self.words(setting, task, length)
        threads = ["--threads", str(self.arguments.threads)] if self.arguments.threads else []
        began = time.monotonic()
        model = os.path.abspath(self.arguments.model)
        done = subprocess.run([PROGRAM, "eval", model, "--json", "--quiet", *words[1:], *threads], cwd=ROOT, # its texts
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        result = {"setting": setting, "task": task, "length": length, "words": words,
                  "seconds": round(time.monotonic() - began, 1)}
        if done.returncode == 0:
            result["report"] = json.loads(done.stdout)
        elif done.returncode == 3: # the budget: what it takes is an answer too
            result["problem"] = done.stderr.strip().removeprefix("pagoda: error: ")
        else:
            sys.exit(f"{' '.join(words)}\n{done.stderr}")
        return result

    def run(self):
        for task in self.arguments.tasks:
            for setting in self.arguments.only:
                for length in self.length_of(task):
                    if time.monotonic() < self.end and self.result(setting, task, length) is None:
                        self.add(self.measure(setting, task, length))

    def add(self, result):
        self.known[tuple(result["words"])] = result
        with open(self.arguments.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{result['seconds']:7.1f} s  {result['setting']}, {result['task']}, {result['length']} tokens",
              file=sys.stderr, flush=True)


def show_bytes_per_token(model):
    """Of f16 rows, whatever codec `show` was asked about: a budget is a share of these."""
    shown = subprocess.run([PROGRAM, "show", model, "--json", "--kv-codec", "f16"], stdout=subprocess.PIPE, check=True)
    return json.loads(shown.stdout)["kv"]["bytes_per_token"]


def read_results(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    return {tuple(result["words"]): result for result in results}


# ---- cells ----

def rows_of(result):
    """The rows of a report by name; pass keys are one."""
    report = result.get("report", {})
    rows = {row["group"]: row for row in report.get("recall", [])}
    return {"passkey": report["passkey"], **rows} if "passkey" in report else rows


def wilson(right, count):
    """The 95 % interval of a share, as `pagoda eval` has it, for sums over runs."""
    z = 1.959964
    middle = (right + z * z / 2) / (count + z * z)
    reach = z / (count + z * z) * (right * (count - right) / count + z * z / 4) ** 0.5
    return 100 * (middle - reach), 100 * (middle + reach)


def recalled(results, group):
    """Answers that the tested cache wrote right, of those that the exact one did."""
    rows = [rows_of(result)[group] for result in results if group in rows_of(result)]
    exact = sum(row["exact"]["written"] for row in rows)
    both = sum(round((row["written_of_exact"] or 0) * row["exact"]["written"]) for row in rows)
    if exact == 0:
        return "-"
    low, high = wilson(both, exact)
    return f"{100 * both / exact:.0f} % ({low:.0f}..{high:.0f})"


def guessed(results, group):
    """For a fact that was never told: who is right has guessed, so both are told, of all."""
    rows = [rows_of(result)[group] for result in results if group in rows_of(result)]
    return f"{sum(row['tested']['written'] for row in rows)} of {sum(row['trials'] for row in rows)}" if rows else "-"


def exact_answers(results, group):
    rows = [rows_of(result)[group] for result in results if group in rows_of(result)]
    return f"{sum(row['exact']['written'] for row in rows)} of {sum(row['trials'] for row in rows)}" if rows else ""


def divergence(results):
    reports = [result["report"] for result in results if "report" in result]
    if not reports:
        return ["-", "-"]
    kld, ratio = reports[0]["kld"], reports[0]["perplexity"]["ratio"]
    interval = "" if kld["low"] is None else f" ({kld['low']:.4f}..{kld['high']:.4f})"
    return [f"{kld['mean']:.4f}{interval}", f"{ratio:.3f}"]


def share(results, name):
    """Of all tokens, on average: how many were not read, or not there at all, when it counted."""
    parts = []
    for result in results:
        report = result.get("report", {})
        for document in report.get("documents", []):
            parts.append((document["tokens"][name], document["tokens"]["total"]))
        for row in rows_of(result).values():
            parts.append((row[name] * row["trials"], row["prompt_tokens"] * row["trials"]))
    total = sum(part[1] for part in parts)
    return f"{100 * sum(part[0] for part in parts) / total:.0f} %" if total else "-"


def holds(results):
    """Tokens that fit at all, in memory or on flash, when that is less than what was read."""
    short = [f"{result['report']['setting']['tokens_capacity']:,} of {result['length']:,}" for result in results
             if "report" in result and result["report"]["setting"]["tokens_capacity"] < result["length"]]
    return ", ".join(sorted(set(short))) or ("all" if any("report" in result for result in results) else "-")


# ---- tables ----

GROUPS = {"passkey": ["passkey"], "keys": ["keys"], "lookup": ["lookup"], "copy": ["copy"], "words": ["words"],
          "facts": ["facts", "facts, late", "facts, corrected", "facts, never told"]}


def cells(bench, setting, task):
    results = bench.results(setting, task)
    columns = 2 if task == "documents" else len(GROUPS[task])
    if not results:
        return ["not run"] * columns
    if all("problem" in result for result in results):
        return ["does not open"] * columns
    if task == "documents":
        return divergence(results)
    return [(guessed if group.endswith("never told") else recalled)(results, group) for group in GROUPS[task]]


def print_row(words):
    print("| " + " | ".join(words) + " |")


def print_main(bench, tasks):
    groups = [group for task in tasks if task != "documents" for group in GROUPS[task]]
    heads = (["mean KLD", "perplexity"] if "documents" in tasks else []) + groups
    print_row(["setting", *heads, "not read", "dropped", "holds"])
    print("|---" * (len(heads) + 4) + "|")
    everything = [result for setting in bench.arguments.only for task in tasks
                  for result in bench.results(setting, task)]
    first = {}
    for result in everything: # the exact cache answers the same in all of them
        if "report" in result:
            first.setdefault((result["task"], result["length"]), result)
    exact = [exact_answers(first.values(), group) for group in groups]
    print_row(["exact", *(["0", "1"] if "documents" in tasks else []), *exact, "0 %", "0 %", "all"])
    for setting in bench.arguments.only:
        results = [result for task in tasks for result in bench.results(setting, task)]
        print_row([setting, *(cell for task in tasks for cell in cells(bench, setting, task)),
                   share(results, "unread"), share(results, "dropped"), holds(results)])
    for problem in sorted({result["problem"] for result in everything if "problem" in result}):
        print(f"\n{problem}")


def print_grid(bench, setting):
    """Pass keys by length and depth."""
    by_cell = {}
    for result in bench.results(setting, "passkey"):
        for cell in rows_of(result).get("passkey", {}).get("cells", []):
            both = round((cell["written_of_exact"] or 0) * cell["exact"]["written"])
            by_cell[cell["length"], cell["depth"]] = (both, cell["exact"]["written"], cell["trials"])
    if not by_cell:
        return
    depths = sorted({depth for _, depth in by_cell})
    print(f"\npass keys, {setting}: written right / of those that the exact cache wrote / of all\n")
    print_row(["tokens", *(f"depth {100 * depth:.0f} %" for depth in depths)])
    print("|---" * (len(depths) + 1) + "|")
    for length in sorted({length for length, _ in by_cell}):
        found = [by_cell.get((length, depth)) for depth in depths]
        print_row([f"{length:,}", *("" if cell is None else "{} / {} / {}".format(*cell) for cell in found)])


def print_tables(bench):
    arguments = bench.arguments
    of = f"{arguments.of:,} tokens" if arguments.of else "the text that is read"
    print(f"{os.path.basename(arguments.model)}: documents and questions of {arguments.length:,} tokens, pass keys of "
          f"{', '.join(f'{length:,}' for length in arguments.lengths)}; budgets are shares of the f16 KV of {of}.\n"
          "Answers: written right, of those that the exact cache wrote right (95 % interval).\n")
    print_main(bench, arguments.tasks)
    if "passkey" in arguments.tasks:
        for setting in arguments.only:
            print_grid(bench, setting)


# ---- arguments ----

def task_list(text):
    tasks = TASKS if text == "all" else text.split(",")
    unknown = set(tasks) - set(TASKS)
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown.pop()}' is not one of {', '.join(TASKS)}")
    return tasks


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--results", default="recall.jsonl", help="where finished runs are kept")
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    parser.add_argument("--only", action="append", choices=list(SETTINGS), metavar="SETTING",
                        help=f"of: {'; '.join(SETTINGS)}")
    parser.add_argument("--curve", action="store_true", help="spilling and every policy, from 1/8 to 1/64")
    parser.add_argument("--tasks", type=task_list, default=TASKS, help=",".join(TASKS))
    parser.add_argument("--length", type=int, default=8000, help="tokens of documents, and of questions' texts")
    parser.add_argument("--docs", type=int, default=3)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")], default=[5000],
                        help="tokens of texts with pass keys")
    parser.add_argument("--depths", type=int, default=5)
    parser.add_argument("--trials", type=int, default=4, help="pass keys for each length and depth")
    parser.add_argument("--of", type=int, metavar="TOKENS")
    parser.add_argument("--raw", action="store_true", help="without the chat template")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args(words)
    arguments.only = arguments.only or (CURVE if arguments.curve else USUAL)
    return arguments


def main():
    bench = Bench(parse())
    if not bench.arguments.table:
        bench.run()
    print_tables(bench)


if __name__ == "__main__":
    main()
