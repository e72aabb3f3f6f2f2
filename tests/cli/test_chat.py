#!/usr/bin/env python3
"""A chat without a terminal: lines in, replies out; the slash commands and the page map."""

import re
import signal
import subprocess

from support.suite import PROGRAM, Suite, chat_model, environment, run

suite = Suite()
GLYPHS = {"held": "\u2588", "open": "\u258c", "pinned": "\u25a3", "dropped": "\u00d7", "free": "\u25a1",
          "reserved": "\u2592"}
ASCII = {"held": "#", "open": "+", "pinned": "P", "dropped": "x", "free": ".", "reserved": "="}


def chat(*lines, flags=(), code=0, **options):
    """A chat in which these lines are said; replies are short."""
    return run("chat", chat_model(), "-n", "8", "-s", "1", *flags,
               stdin="".join(line + "\n" for line in lines).encode(),
               code=code, **options)


class Map:
    """A page map, read back from its text."""

    def __init__(self, text, glyphs=None):
        self.glyphs = glyphs or GLYPHS
        body = text[text.index("KV budget"):]
        head, rows, legend = body.split("\n\n")[:3]
        head = " ".join(head.split())
        match = re.search(r"KV budget (\S+ \S+), used (\S+ \S+) \((\d+) %\) held ([\d,]+) of ([\d,]+) tokens pinned "
                          r"([\d,]+) dropped ([\d,]+) when full: (.*)", head)
        assert match, head
        self.budget, self.used, self.percent = match.group(1), match.group(2), int(match.group(3))
        self.held, self.total, self.pinned, self.dropped = (int(match.group(i).replace(",", "")) for i in (4, 5, 6, 7))
        self.rule = match.group(8)
        self.legend = " ".join(legend.split())
        self.rows = {}
        label = None
        for line in rows.splitlines():
            match = re.match(r"(system|turns? [\d-]+|free|reserved)\s+([\d,]*) (.*)", line)
            if match:
                label = match.group(1)
                self.rows[label] = [int(match.group(2).replace(",", "") or 0), match.group(3).strip()]
            else:
                self.rows[label][1] += line.strip()

    def cells(self, kind):
        """Cells of a kind in all rows; a number in braces stands for so many dropped pages."""
        text = "".join(cells for _, cells in self.rows.values())
        runs = re.findall(re.escape(self.glyphs["dropped"]) + r"\{([\d,]+)\}", text)
        text = re.sub(r"\S\{[\d,]+\}", "", text)
        count = text.count(self.glyphs[kind])
        return count + sum(int(run.replace(",", "")) for run in runs) if kind == "dropped" else count


@suite.test
def lines_in_replies_out():
    result = chat("Hello", "How are you?")
    assert len(result.out.strip().splitlines()) >= 2, result
    assert "> " not in result.out and b"\x1b" not in result.out_bytes + result.err_bytes, result
    assert "pagoda " in result.err and "KV budget" in result.err, result


@suite.test
def nothing_in_nothing_out():
    for stdin in (b"", b"\n\n   \n"):
        result = run("chat", chat_model(), "-q", stdin=stdin, code=0)
        assert result.out == "" and result.err == "", result


@suite.test
def a_last_line_without_a_newline_counts():
    result = run("chat", chat_model(), "-q", "-n", "4", stdin=b"Hello", code=0)
    assert result.out.strip(), result


@suite.test
def quiet_has_replies_only():
    result = chat("Hello", flags=["-q"])
    assert result.err == "" and result.out.strip(), result


@suite.test
def the_conversation_is_remembered():
    flags = ["--temp", "0", "-n", "24"]
    asked = chat("My name is Zebulon.", "What is my name?", flags=flags).out
    reset = chat("My name is Zebulon.", "/reset", "What is my name?", flags=flags).out
    assert "Zebulon" in asked and asked != reset, (asked, reset)


@suite.test
def a_turn_reads_only_what_is_new():
    result = chat("Hello", "/stats", "How are you?", "/stats")
    totals = [int(count.replace(",", "")) for count in re.findall(r"tokens +([\d,]+) in all", result.out)]
    reads = [int(count) for count in re.findall(r"last turn +prompt (\d+) tokens", result.out)]
    replies = [int(count) for count in re.findall(r"; reply (\d+) tokens", result.out)]
    assert len(totals) == len(reads) == 2, result
    assert totals[1] - totals[0] == reads[1] + replies[1], (totals, reads, replies)


@suite.test
def commands_never_enter_the_conversation():
    plain = chat("Hello", "How are you?", flags=["-q"]).out
    busy = chat("/help", "Hello", "/context", "/stats", "/policy", "/foo", "/pin", "/unpin", "How are you?",
                flags=["-q"]).out
    for line in plain.splitlines():
        assert line in busy, (line, busy)
    assert busy.splitlines()[-1] == plain.splitlines()[-1], (plain, busy)


@suite.test
def help_lists_every_command():
    out = chat("/help").out
    for name in ("/help", "/context", "/pin", "/unpin", "/policy", "/stats", "/reset", "/clear", "/exit", "/bye",
                 "/quit"):
        assert name in out, (name, out)


@suite.test
def unknown_commands_are_told_and_not_sent():
    result = chat("/contxt", "/xyzzy", "/", flags=["-q"])
    assert result.out == "" and "did you mean '/context'" in result.err and "/help" in result.err, result


@suite.test
def leaving():
    for word in ("/exit", "/quit", "/bye"):
        assert chat(word, "Hello", flags=["-q"]).out == ""


@suite.test
def messages_of_several_lines():
    def prompt_tokens(*lines):
        return int(re.search(r"last turn +prompt (\d+)", chat(*lines, "/stats", flags=["-n", "1"]).out).group(1))
    one = prompt_tokens("one two three")
    fenced = prompt_tokens('"""one', 'two', 'three"""')
    continued = prompt_tokens("one\\", "two\\", "three")
    assert fenced == continued > one, (one, fenced, continued)
    assert prompt_tokens('"""one two three"""') == one
    assert prompt_tokens(' /context') > 0 # a blank in front makes it a message
    assert prompt_tokens('"""', "/exit", '"""') > 0


@suite.test
def bad_messages_are_refused_and_the_chat_goes_on():
    result = run("chat", chat_model(), "-q", "-n", "4", stdin=b"a\0b\nHello\n", code=1)
    assert "NUL byte" in result.err and result.out.strip(), result
    result = run("chat", chat_model(), "-q", "-n", "4", stdin=b"caf\xe9\n", code=0)
    assert "1 byte read as U+FFFD" in result.err, result


@suite.test
def a_message_that_does_not_fit_is_taken_back():
    flags = ["--kv", "4M", "--on-full", "stop", "-q"]
    result = chat("Hello", "word " * 400, "/context", "Again", flags=flags, code=1)
    assert "raise --kv" in result.err, result
    drawn = Map(result.out)
    assert "turn 1" in drawn.rows and "turn 2" not in drawn.rows, result


@suite.test
def a_system_prompt_is_followed_and_pinned():
    result = chat("Hello", "/context", flags=["--system", "You are a pirate. Answer in rhymes, and never in prose."])
    drawn = Map(result.out)
    assert "the system prompt is pinned" in result.err, result
    assert drawn.rows["system"][0] > 10 and set(drawn.rows["system"][1]) == {GLYPHS["pinned"]}, result
    result = chat("/context", flags=["--system", "You are a pirate.", "--no-pin"])
    assert Map(result.out).pinned == 0 and "is pinned" not in result.err, result


@suite.test
def the_map_adds_up():
    drawn = Map(chat("Hello", "How are you?", "/context", flags=["--kv", "8M"]).out)
    assert drawn.budget == "8.00 MiB" and drawn.dropped == 0 and drawn.held == drawn.total, vars(drawn)
    assert list(drawn.rows) == ["system", "turn 1", "turn 2", "free", "reserved"], drawn.rows
    owned = sum(count for label, (count, _) in drawn.rows.items() if label not in ("free", "reserved"))
    assert owned == drawn.total, vars(drawn)
    pages = -(-drawn.total // 16)
    assert drawn.cells("held") + drawn.cells("open") + drawn.cells("pinned") == pages, vars(drawn)
    assert drawn.cells("free") == (drawn.rows["free"][0] + drawn.held) // 16 - pages, vars(drawn)
    assert drawn.cells("reserved") > 0 and "a page of 16 tokens" in drawn.legend, vars(drawn)


@suite.test
def the_map_shows_what_was_dropped():
    talk = ["Tell me about the sea", "Tell me about the land", "Tell me about the sky"]
    result = chat(*talk, "/context", flags=["--kv", "5M", "-n", "70", "--ignore-eos", "--on-full", "evict"])
    drawn = Map(result.out)
    assert drawn.dropped > 0 and drawn.held + drawn.dropped == drawn.total, vars(drawn)
    assert drawn.cells("dropped") * 16 == drawn.dropped, vars(drawn)
    assert drawn.rule == "evict, policy sink" and drawn.cells("pinned") * 16 >= drawn.pinned > 0, vars(drawn)
    assert "dropped by sink" in result.err and result.err.count("the KV budget is full") == 1, result


@suite.test
def the_map_fits_its_width():
    for columns in ("40", "80", "200"):
        result = chat("Hello", "/context", env=environment(COLUMNS=columns))
        for line in result.out[result.out.index("KV budget"):].splitlines():
            assert len(line) <= int(columns), (columns, line)


@suite.test
def many_turns_share_a_row():
    result = chat(*["Hi"] * 30, "/context", flags=["-n", "2"])
    drawn = Map(result.out)
    merged = [label for label in drawn.rows if label.startswith("turns 1-")]
    assert len(merged) == 1 and "turn 30" in drawn.rows and len(drawn.rows) < 25, drawn.rows
    owned = sum(count for label, (count, _) in drawn.rows.items() if label not in ("free", "reserved"))
    assert owned == drawn.total, vars(drawn)


@suite.test
def many_pages_share_a_cell():
    result = chat("Hello", "/context", flags=["--kv", "auto"], env=environment(COLUMNS="40"))
    drawn = Map(result.out)
    assert "pages of 16 tokens" in drawn.legend and len(result.out.splitlines()) < 35, result
    assert drawn.cells("open") == 1, "a small run must not vanish"


@suite.test
def ascii_where_the_locale_asks_for_it():
    for flags, settings in ((["--ascii"], {}), ([], {"LANG": "C"}), ([], {"LANG": None}), ([], {"PAGODA_ASCII": "1"}),
                            ([], {"LC_ALL": "POSIX"})):
        text = chat("/context", flags=flags, env=environment(**settings)).out
        assert text.isascii(), (flags, settings, text)
        assert Map(text, ASCII).cells("pinned") > 0, text
    assert not chat("/context").out.isascii()


@suite.test
def colours_only_when_asked_for():
    def has_color(*flags, **settings):
        return b"\x1b[" in chat("/context", flags=list(flags), env=environment(**settings)).out_bytes
    assert not has_color()
    assert has_color("--color", "always") and has_color("--colour=always")
    assert not has_color("--color", "never") and not has_color("--no-color")
    assert has_color(PAGODA_COLOR="always") and not has_color("--no-color", PAGODA_COLOR="always")
    truecolor = chat("/context", flags=["--color", "always"], env=environment(COLORTERM="truecolor")).out
    assert "\x1b[38;2;" in truecolor, truecolor


@suite.test
def pins_hold():
    talk = ["/pin 1", "Tell me about the land", "Tell me about the sky", "/context"]
    flags = ["--kv", "5M", "--on-full", "evict", "-n", "70", "--ignore-eos"]
    drawn = Map(chat("The password is 7512.", *talk, flags=flags).out)
    assert GLYPHS["dropped"] not in drawn.rows["turn 1"][1] and drawn.dropped > 0, drawn.rows
    drawn = Map(chat("The password is 7512.", talk[0], "/unpin turn 1", *talk[1:], flags=flags).out)
    assert GLYPHS["dropped"] in drawn.rows["turn 1"][1], drawn.rows


@suite.test
def pins_name_turns():
    result = chat("/pin", "Hello", "/pin", "/pin last", "/pin 1", "/pin turn 1", "/unpin system", "/pin system",
                  "/pin 2",
                  "/pin x", "/pin 99999999999999999999", flags=["-q"])
    assert result.out.count("pinned turn 1 (") == 4 and "unpinned the system prompt" in result.out, result
    assert result.err.count("there is no such turn") == 3 and "'x' is not a turn" in result.err, result


@suite.test
def a_pin_that_leaves_no_room_is_refused():
    result = chat("Tell me about the sea", "/pin", "/unpin", "Hello", flags=["--kv", "3M", "-n", "120", "--ignore-eos"])
    assert "no room" in result.err and len(result.out.strip().splitlines()) > 2, result


@suite.test
def the_policy_can_be_changed():
    result = chat("/policy", "/policy fifo", "/policy window 64", "/policy random", "/policy sink",
                  "/policy stop", "/policy",
                  "/policy evict", "/policy spill",
                  "/policy lru", "/policy fifo 7", "/policy window x", "/policy spill 7", flags=["-q"])
    sink = "policy sink, the first 4 tokens stay"
    assert [line.removeprefix("when the budget is full: ") for line in result.out.splitlines()] == [
        f"spill; when flash is full too, {sink}", "spill; when flash is full too, policy fifo",
        "evict, policy window, only the latest 64 stay",
        "evict, policy random, the first 4 tokens stay", f"evict, {sink}", "stop; nothing is ever dropped",
        "stop; nothing is ever dropped", f"evict, {sink}", f"spill; when flash is full too, {sink}"], result
    assert "'lru' is not one of" in result.err and result.err.count("takes no number") == 2, result
    assert "'x'" in result.err, result
    result = chat("/policy", "/policy spill", "/policy", flags=["-q", "--on-full", "evict"])
    assert result.out == f"when the budget is full: evict, {sink}\n" * 2, result
    assert "without a flash tier" in result.err, result


@suite.test
def a_window_policy_keeps_its_window():
    drawn = Map(chat("Tell me about the sea", "/policy window 32", "Hello", "/context",
                     flags=["-n", "70", "--ignore-eos"]).out)
    assert drawn.dropped > 0 and drawn.held <= 32 + 32 + drawn.pinned, vars(drawn)
    assert drawn.rule == "evict, policy window", vars(drawn)


@suite.test
def stats_tell_bytes_by_purpose():
    out = chat("Hello", "/stats", flags=["--kv", "8M"]).out
    for word in ("KV budget   8.00 MiB", "kv exact", "tables", "staging", "weights", "compute", "resident",
                 "last turn"):
        assert word in out, (word, out)


@suite.test
def reset_starts_anew():
    result = chat("Hello", "/reset", "/context", "/pin", flags=["-q"])
    drawn = Map(result.out)
    assert not any(label.startswith("turn") for label in drawn.rows) and drawn.total == drawn.rows["system"][0], result
    assert "there is no such turn" in result.err, result


@suite.test
def the_seed_makes_a_chat_repeatable():
    assert chat("Tell me a story").out == chat("Tell me a story").out
    again = chat("Tell me a story", "/reset", "Tell me a story", flags=["-q"]).out.splitlines()
    assert again[0] == again[-1], again


@suite.test
def an_endless_reply_ends():
    result = chat("Hello", flags=["-n", "-1", "-q", "--ignore-eos", "--kv", "2M", "--temp", "0"])
    assert "the reply stops here, after 8,192 tokens" in result.err, result


@suite.test
def a_reader_that_went_away():
    process = subprocess.Popen([PROGRAM, "chat", chat_model(), "-q", "--ignore-eos"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    process.stdout.close()
    process.stdin.write(b"Hello\n")
    process.stdin.flush()
    assert process.wait(timeout=60) == 1 and process.stderr.read() == b"", process.returncode
    process.stdin.close()
    process.stderr.close()


@suite.test
def an_interrupt_ends_a_chat_without_a_terminal():
    process = subprocess.Popen([PROGRAM, "chat", chat_model(), "-q", "--ignore-eos", "-n", "-2"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    process.stdin.write(b"Hello\n")
    process.stdin.flush()
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"error" not in err, (process.returncode, err)


if __name__ == "__main__":
    suite.main()
