#!/usr/bin/env python3
"""What a reply drew on: the passage that it was made from is named, wherever its pages are."""
from support.suite import Suite, chat_model, plain_model, run, scratch

suite = Suite()
ASK = "What is the password of the lighthouse?"
FACT = "The password of the lighthouse is marmalade. "


def document(ships=40, fact=FACT):
    """A text with a fact in its middle, and the question at its end."""
    lines = [f"Ship {i * 37 % 101} left harbour {i} with {i * i % 89} sailors, and came back in {1700 + i}. "
             for i in range(ships)]
    return scratch("why.txt", "".join(lines[:ships // 2] + [fact] + lines[ships // 2:] + [ASK]).encode())


def asked(*flags):
    result = run("run", chat_model(), "-f", document(), "--temp", "0", "-n", "16", "-q", "--why", *flags, code=0)
    return result


def fact_among(report, where):
    """Pages end where they do: the fact may be in two of them, and only the second has the word."""
    passages = [passage for passage in report["why"][:3] if "armalade" in passage["text"]]
    assert len(passages) == 1, report["why"]
    assert passages[0]["where"] == where and passages[0]["role"] == "prompt", passages
    assert passages[0]["share"] > 0.02 and 400 < passages[0]["first"] < 640 and passages[0]["tokens"] == 16, passages


def check_sum(report):
    rest = report["why_rest"]
    total = sum(passage["share"] for passage in report["why"]) + sum(rest.values())
    assert abs(total - 1) < 1e-3, (total, report)
    shares = [passage["share"] for passage in report["why"]]
    assert shares == sorted(shares, reverse=True) and 0 < len(shares) <= 5, shares
    assert rest["first_page"] > 0.05 and rest["latest"] > 0.05, rest


@suite.test
def the_passage_with_the_answer_is_named():
    report = asked("--json").json()
    assert "armalade" in report["text"], report["text"]
    check_sum(report)
    fact_among(report, "memory")


@suite.test
def so_it_does_when_it_is_on_flash():
    report = asked("--json", "--kv", "13M", "-c", "2048", "--on-full", "spill").json()
    check_sum(report)
    assert report["tokens"]["spilled"] > 200, report["tokens"]
    fact_among(report, "flash")


@suite.test
def people_are_told_on_standard_error():
    result = asked()
    assert "drew most on" in result.err and "prompt, in memory\n" in result.err, result
    assert "marmalade" in result.err and "the first page had" in result.err, result
    assert "drew" not in result.out, result


@suite.test
def nobody_who_did_not_ask_is_told():
    report = run("run", chat_model(), "-p", "Hello", "-n", "4", "--temp", "0", "--json", code=0).json()
    assert "why" not in report, report


@suite.test
def a_model_with_windows_tells_of_the_layers_without():
    report = run("run", plain_model(), "-f", document(), "--raw", "--temp", "0", "-n", "8", "--ignore-eos", "--json",
                 "--why", code=0).json()
    check_sum(report)


@suite.test
def a_chat_tells_who_said_it():
    filler = "Tell me about ships, harbours and sailors, please. " * 6
    talk = f"/why\n{FACT} Remember it.\n{filler}\n{ASK}\n/why\n"
    result = run("chat", chat_model(), "--temp", "0", "-n", "24", stdin=talk.encode())
    assert "there is no reply yet" in result.err, result
    told = result.out[result.out.index("the reply drew most on"):]
    assert "turn 1, " in told and ", user, in memory\n" in told and 1 <= told.count(" %  ") <= 5, told
    assert "marm" in told, told # the page may end inside the word


@suite.test
def the_help_knows_why():
    assert "/why" in run("chat", chat_model(), stdin=b"/help\n", code=0).out
    assert "--why" in run("run", "--help", code=0).out


@suite.test
def a_passage_cannot_steer_the_terminal():
    path = scratch("steer.txt", ("\x1b[31mThe red\r text \x9b2J sea\ud83d\ude00. ".encode("utf-16", "surrogatepass")
                                 .decode("utf-16") * 40).encode() + b" Which colour?")
    result = run("run", chat_model(), "-f", path, "--temp", "0", "-n", "8", "-q", "--why", "--raw", code=0)
    told = result.err[result.err.index("the reply drew most on"):]
    assert "?[31mThe red? text" in told, told
    assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 or c == "\ufffd" for c in told), repr(told)


suite.main()
