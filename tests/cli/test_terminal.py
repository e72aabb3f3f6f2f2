#!/usr/bin/env python3
"""A chat at a terminal: prompt, editing, history, Ctrl-C, colours, and terminals that can do little."""

import os
import re
import signal
import stat
import time

from support.suite import Suite, chat_model, environment, run, scratch
from support.terminal import Terminal

suite = Suite()
CTRL_A, CTRL_C, CTRL_D, CTRL_U, TAB, UP = "\x01", "\x03", "\x04", "\x15", "\t", "\x1b[A"


def chat(*flags, **options):
    return Terminal("chat", chat_model(), "-s", "1", *flags, **options)


def own_state(name):
    """An environment with a history of its own, and the path of its file."""
    folder = scratch(name)
    return environment(XDG_STATE_HOME=folder), os.path.join(folder, "pagoda", "history")


@suite.test
def a_conversation():
    with chat("-n", "8") as terminal:
        terminal.wait_for("Ctrl-C stops a reply")
        terminal.prompt()
        terminal.line("Hello")
        terminal.wait_for(r"Hello\n\S+")
        terminal.prompt()
        terminal.line("/stats")
        terminal.wait_for("last turn")
        terminal.prompt()
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0


@suite.test
def leaving_by_word():
    with chat() as terminal:
        terminal.prompt()
        terminal.line("/bye")
        assert terminal.exit_code() == 0


@suite.test
def ctrl_c_stops_the_reply_and_not_the_program():
    with chat("--ignore-eos", "-n", "-2", "--kv", "8M") as terminal:
        terminal.prompt()
        for _ in range(2):
            terminal.line("Tell me a story")
            terminal.wait_for(r"story\n\w+ \w+ \w+")
            terminal.send(CTRL_C)
            terminal.wait_for(r"\[stopped\]")
            terminal.prompt()
        terminal.line("/stats")
        terminal.wait_for("tokens +[0-9,]+ in all")
        terminal.prompt()
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0


@suite.test
def ctrl_c_while_reading_takes_the_message_back():
    with chat("-n", "4") as terminal:
        terminal.prompt()
        for _ in range(40): # a terminal takes a line of some length only
            terminal.send("the quick brown fox jumps over the lazy dog and runs away " + "\\\r")
        terminal.line("end")
        terminal.wait_for(r"reading \[")
        terminal.send(CTRL_C)
        terminal.wait_for("taken back")
        terminal.prompt()
        terminal.line("/context")
        drawn = terminal.wait_for("KV budget.*one cell").group()
        assert "turn 1" not in drawn, drawn
        terminal.prompt()
        terminal.line("Hello")
        terminal.wait_for(r"Hello\n\S+")
        terminal.prompt()


@suite.test
def ctrl_c_clears_the_line():
    with chat("-n", "4") as terminal:
        terminal.prompt()
        terminal.send("/exit")
        terminal.watch(0.3)
        terminal.send(CTRL_C)
        terminal.wait_for(r"\^C")
        terminal.prompt()
        terminal.line("/policy")
        terminal.wait_for("when the budget is full")
        terminal.prompt()


@suite.test
def ctrl_c_twice_in_a_row_leaves():
    with chat() as terminal:
        terminal.prompt()
        terminal.send(CTRL_C)
        terminal.wait_for("once more leaves")
        terminal.prompt()
        terminal.line("/policy")
        terminal.wait_for("when the budget")
        terminal.prompt()
        terminal.send(CTRL_C)
        terminal.wait_for("once more leaves")
        terminal.prompt()
        terminal.send(CTRL_C)
        assert terminal.exit_code() == 130


@suite.test
def the_history_is_private_and_comes_back():
    settings, path = own_state("history")
    for _ in range(2):
        with chat("-n", "2", env=settings) as terminal:
            terminal.prompt()
            terminal.line("/policy")
            terminal.prompt()
            terminal.line("Grüße 世界")
            terminal.prompt()
            terminal.send(CTRL_D)
            assert terminal.exit_code() == 0
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, oct(os.stat(path).st_mode)
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        os.chmod(path, 0o644) # what somebody made readable is private again after the next line
    with chat("-n", "2", env=settings) as terminal:
        terminal.prompt()
        terminal.send(UP)
        terminal.wait_for("Grüße 世界")
        terminal.send(UP)
        terminal.wait_for("/policy")
        terminal.send("\r")
        terminal.wait_for("when the budget is full")
        terminal.prompt()


@suite.test
def the_history_goes_below_home_without_xdg():
    for name, state in (("home1", None), ("home2", "relative/path")):
        home = scratch(name)
        os.mkdir(home)
        with chat(env=environment(HOME=home, XDG_STATE_HOME=state)) as terminal:
            terminal.prompt()
            terminal.line("/policy")
            terminal.prompt()
        assert os.path.exists(os.path.join(home, ".local/state/pagoda/history")), os.listdir(home)


@suite.test
def a_home_that_cannot_be_written_is_no_error():
    # A file where the directory would be: not even root can write below it.
    for settings in (environment(XDG_STATE_HOME=scratch("file", b"") + "/x"),
                     environment(XDG_STATE_HOME=None, HOME="/proc/version"),
                     environment(XDG_STATE_HOME=None, HOME=None)):
        with chat("-n", "2", env=settings) as terminal:
            terminal.prompt()
            terminal.line("Hello")
            terminal.prompt()
            terminal.send(UP)
            terminal.wait_for("Hello")
            terminal.send(CTRL_U + CTRL_D)
            assert terminal.exit_code() == 0
            assert "rror" not in terminal.text(), terminal.text()


@suite.test
def a_history_that_is_a_link_is_left_alone():
    settings, path = own_state("linked")
    target = scratch("target", b"precious\n")
    os.makedirs(os.path.dirname(path))
    os.symlink(target, path)
    with chat("-n", "2", env=settings) as terminal:
        terminal.prompt()
        terminal.line("/policy")
        terminal.prompt()
    with open(target, "rb") as file:
        assert file.read() == b"precious\n"


@suite.test
def a_damaged_history_is_no_error():
    settings, path = own_state("damaged")
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(b"_HiStOrY_V2_\n\\777\\\xff\xfe\0garbage\n" + os.urandom(5000))
    with chat("-n", "2", env=settings) as terminal:
        terminal.prompt()
        terminal.line("Hello")
        terminal.prompt()
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0


@suite.test
def lines_can_be_edited():
    with chat("-n", "2") as terminal:
        terminal.prompt()
        terminal.send("olicy" + CTRL_A + "/p\r")
        terminal.wait_for("when the budget is full")
        terminal.prompt()


@suite.test
def tab_completes_commands():
    with chat() as terminal:
        terminal.prompt()
        terminal.send("/pol" + TAB + "\r")
        terminal.wait_for("when the budget is full")
        terminal.prompt()
        terminal.send("/re" + TAB + "\r")
        terminal.wait_for("forgotten")
        terminal.prompt()


@suite.test
def messages_of_several_lines():
    settings, path = own_state("lines")
    with chat("-n", "2", env=settings) as terminal:
        terminal.prompt()
        terminal.line('"""first')
        terminal.wait_for(r"\n\. ")
        terminal.line("/exit")
        terminal.wait_for(r"\n\. ")
        terminal.line('last"""')
        terminal.prompt()
        terminal.line("a\\")
        terminal.wait_for(r"\n\. ")
        terminal.send(CTRL_C)
        terminal.wait_for(r"\^C")
        terminal.prompt()
    with open(path, encoding="utf-8") as file:
        saved = file.read()
    assert r"first\012/exit\012last" in saved and "a" not in saved.splitlines(), saved


@suite.test
def colours_by_terminal():
    expected = (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False),
                ({"PAGODA_NO_COLOR": "1"}, False))
    for settings, wanted in expected:
        with chat(env=environment(**settings)) as terminal:
            terminal.prompt()
            terminal.line("/context")
            terminal.wait_for("one cell")
            colored = re.search(rb"\x1b\[(38;5;\d+|3\d)m", terminal.data) is not None
            assert colored == wanted, (settings, terminal.data)


@suite.test
def only_the_prompt_is_bold():
    with chat("-n", "4") as terminal:
        terminal.prompt()
        terminal.line("Hello")
        terminal.prompt()
        bold = False
        for piece in re.split(rb"(\x1b\[[0-9;]*m)", terminal.data):
            if piece.startswith(b"\x1b["):
                bold = piece == b"\x1b[1m"
            elif bold:
                assert piece.strip() in (b">", b""), terminal.data
        assert b"\x1b[1m>" in terminal.data, terminal.data


@suite.test
def a_dumb_terminal_gets_plain_text():
    for term in ("dumb", None):
        with chat("-n", "4", env=environment(TERM=term)) as terminal:
            terminal.prompt()
            terminal.line("Hello")
            terminal.wait_for(r"Hello\n\S+")
            terminal.prompt()
            terminal.send(CTRL_C)
            terminal.wait_for("once more leaves")
            terminal.prompt()
            terminal.line("/context")
            terminal.wait_for("one cell")
            terminal.prompt()
            terminal.send(CTRL_D)
            assert terminal.exit_code() == 0
            assert b"\x1b" not in terminal.data, terminal.data


@suite.test
def glyphs_by_locale():
    for settings, wanted in (({}, True), ({"LANG": "C"}, False), ({"PAGODA_ASCII": "1"}, False)):
        with chat(env=environment(**settings)) as terminal:
            terminal.prompt()
            terminal.line("/context")
            terminal.wait_for("one cell")
            assert ("\u25a3" in terminal.text()) == wanted, (settings, terminal.text())


@suite.test
def letters_beyond_ascii_in_a_plain_locale():
    settings, path = own_state("plain-locale")
    settings["LANG"] = "C"
    with chat("-n", "2", env=settings) as terminal:
        terminal.prompt()
        terminal.line("Grüße")
        terminal.wait_for("Grüße")
        terminal.prompt()
        assert "U+FFFD" not in terminal.text(), terminal.text()
    assert os.path.exists(path)


@suite.test
def a_map_as_wide_as_the_terminal():
    with chat(columns=50) as terminal:
        terminal.prompt()
        for columns in (50, 90):
            terminal.resize(columns, 30)
            time.sleep(0.2)
            terminal.line("/context")
            drawn = terminal.wait_for("KV budget.*one cell").group()
            longest = max(len(line) for line in drawn.splitlines())
            assert columns - 12 < longest <= columns, (columns, longest, drawn)
            terminal.prompt()


@suite.test
def going_to_the_background_and_back():
    with chat("-n", "2") as terminal:
        terminal.prompt()
        terminal.send("/pol")
        terminal.watch(0.3)
        os.kill(terminal.pid, signal.SIGSTOP)
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.watch(0.3)
        terminal.line("icy")
        terminal.wait_for("when the budget is full")
        terminal.prompt()


@suite.test
def lines_break_between_words():
    arguments = ["run", chat_model(), "-p", "Tell me a story", "-n", "120", "-s", "7", "--ignore-eos", "-q"]
    words = run(*arguments, code=0).out.split()
    assert len(words) > 60, words
    with Terminal(*arguments, columns=40) as terminal:
        assert terminal.exit_code() == 0
        lines = terminal.text().split("\n")
    assert all(len(line) <= 40 for line in lines), lines
    assert " ".join(lines).split() == words, (lines, words)


@suite.test
def remarks_break_between_words():
    with chat("--kv", "4M", "-n", "100", "--ignore-eos", "--on-full", "evict", columns=50) as terminal:
        terminal.prompt()
        for _ in range(2):
            terminal.line("Tell me a story")
            terminal.prompt()
        lines = re.sub(r"loading \[.*?%", "", terminal.text()).split("\n") # a slow start shows progress
    assert all(len(line) <= 50 for line in lines), lines
    assert "the KV budget is full: from here on old text" in lines, lines


@suite.test
def progress_is_shown_and_gone():
    words = scratch("long.txt", b"The quick brown fox jumps over the lazy dog. " * 150)
    with Terminal("run", chat_model(), "-f", words, "-n", "2") as terminal:
        terminal.wait_for(r"reading \[.*tokens, \d+ tok/s, \d+ s left")
        assert terminal.exit_code() == 0
        assert b"\x1b[K" in terminal.data, terminal.data
    with Terminal("run", chat_model(), "-f", words, "-n", "2", "-q") as terminal:
        assert terminal.exit_code() == 0
        assert "reading" not in terminal.text(), terminal.text()


@suite.test
def run_without_a_prompt_at_a_terminal_says_how():
    with Terminal("run", chat_model()) as terminal:
        terminal.wait_for("no prompt: use -p TEXT")
        assert terminal.exit_code() == 2


@suite.test
def run_is_interrupted_by_ctrl_c():
    with Terminal("run", chat_model(), "-p", "Count", "--ignore-eos", "-n", "-2", "--on-full", "evict") as terminal:
        terminal.wait_for(r"\w+ \w+ \w+")
        terminal.send(CTRL_C)
        assert terminal.exit_code() == 130


if __name__ == "__main__":
    suite.main()
