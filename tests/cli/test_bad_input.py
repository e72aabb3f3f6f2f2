#!/usr/bin/env python3
"""Bad input: each kind has its own message and its exit code, and none crashes."""

import json
import os
import resource
import signal
import subprocess
import time

from support.gguf import gguf
from support.suite import PROGRAM, Suite, chat_model, environment, fails, plain_model, run, scratch

suite = Suite()

# --- models: exit code 4 ---


@suite.test
def a_missing_model():
    for command in (["run", "-p", "x"], ["chat"], ["show"]):
        fails(4, "no-such.gguf", command[0], scratch("no-such.gguf"), *command[1:])


@suite.test
def a_directory():
    fails(4, "directory", "run", os.path.dirname(scratch("x")), "-p", "x")


@suite.test
def not_a_gguf_file():
    fails(4, "not a GGUF", "run", scratch("text.gguf", b"Once upon a time, there was no model.\n" * 9), "-p", "x")


@suite.test
def an_empty_file():
    fails(4, "empty", "run", scratch("empty.gguf", b""), "-p", "x")


@suite.test
def truncated_files():
    with open(chat_model(), "rb") as file:
        whole = file.read()
    for length in (5, 23, 100, 100_000, 2_000_000, len(whole) // 2, len(whole) - 1):
        fails(4, ["cut short", "truncated.gguf"], "run", scratch("truncated.gguf", whole[:length]), "-p", "x")


@suite.test
def an_architecture_that_nobody_knows():
    path = scratch("odd.gguf", gguf({"general.architecture": "frobnicator", "general.name": "Odd"}, tensors=2))
    fails(4, "frobnicator", "run", path, "-p", "x")


@suite.test
def embedding_models():
    for architecture in ("bert", "nomic-bert", "jina-bert-v2"):
        path = scratch("embedding.gguf", gguf({"general.architecture": architecture}, tensors=2))
        fails(4, "embedding", "chat", path)


@suite.test
def a_recurrent_model():
    fails(4, "mamba", "run", scratch("mamba.gguf", gguf({"general.architecture": "mamba"}, tensors=2)), "-p", "x")


@suite.test
def a_version_from_the_future():
    fails(4, "version", "run", scratch("future.gguf", gguf({"general.architecture": "llama"}, version=99)), "-p", "x")


@suite.test
def metadata_that_steers_a_terminal_is_disarmed():
    path = scratch("evil.gguf", gguf({"general.architecture": "evil\x1b[31m"}, tensors=1))
    result = fails(4, "evil", "run", path, "-p", "x")
    assert b"\x1b" not in result.err_bytes, result


@suite.test
def a_name_that_steers_a_terminal_is_disarmed():
    result = fails(4, "red", "run", "\x1b[31mred.gguf", "-p", "x")
    assert b"\x1b" not in result.err_bytes, result


@suite.test
def a_model_without_a_template_does_not_chat():
    fails(4, ["no chat template", "run --raw"], "chat", plain_model())


@suite.test
def a_model_without_a_template_has_no_system_prompt():
    fails(2, ["--system", "template"], "run", plain_model(), "-p", "x", "--system", "y")


@suite.test
def a_model_without_a_template_runs_with_a_note():
    result = run("run", plain_model(), "-p", "Once upon a time", "-n", "3", "--temp", "0", code=0)
    assert "no chat template" in result.err and result.out.strip(), result


# --- budgets: exit code 3, and nothing was run ---


@suite.test
def a_budget_below_one_page_per_layer():
    for size in ("1", "1K", "500K"):
        fails(3, ["does not hold one page", "30 layers"], "run", chat_model(), "-p", "x", "--kv", size)
    fails(3, "does not hold one page", "chat", chat_model(), "--kv", "100K")


@suite.test
def a_prompt_over_the_budget():
    path = scratch("long.txt", b"All work and no play makes Jack a dull boy. " * 100)
    fails(3, ["tokens", "--kv", "--on-full evict"], "run", chat_model(), "-f", path, "--kv", "4M",
          "--on-full", "stop")
    fails(3, ["tokens", "-c"], "run", chat_model(), "-f", path, "-c", "64", "--on-full", "stop")


@suite.test
def a_system_prompt_over_the_budget():
    words = "You are a helpful assistant. " * 100
    for rule in ("stop", "evict", "spill"):
        fails(3, "system prompt", "run", chat_model(), "-p", "x", "--system", words, "--kv", "5M", "--on-full", rule)
    fails(3, "system prompt", "chat", chat_model(), "--system", words, "--kv", "4M", "-q")


# --- prompts ---


@suite.test
def no_prompt_at_all():
    fails(2, "empty", "run", chat_model())
    fails(2, "empty", "run", chat_model(), "-p", "")
    fails(2, "empty", "run", chat_model(), "-f", scratch("nothing.txt", b""))
    fails(2, "empty", "run", chat_model(), "-f", "-", stdin=b"\n")


@suite.test
def a_prompt_file_that_cannot_be_read():
    fails(2, "no-such.txt", "run", chat_model(), "-f", scratch("no-such.txt"))
    fails(1, "directory", "run", chat_model(), "-f", os.path.dirname(scratch("x")))


@suite.test
def nul_bytes():
    fails(2, ["NUL byte", "offset 5"], "run", chat_model(), stdin=b"Hello\0world")
    fails(2, ["NUL byte", "offset 0"], "run", chat_model(), "-f", scratch("nul.txt", b"\0"))


@suite.test
def text_that_is_not_utf8_is_read_with_a_warning():
    for raw in ([], ["--raw"]):
        result = run("run", chat_model(), "-n", "3", *raw, stdin=b"caf\xe9 \xff\xfe \xed\xa0\x80", code=0)
        assert "pagoda: warning: the prompt is not all UTF-8: 6 bytes read as U+FFFD" in result.err, result
        assert result.out.strip(), result


@suite.test
def valid_text_passes_without_a_word():
    result = run("run", chat_model(), "-n", "3", stdin="Grüße, 世界, \U0001F44B\n".encode(), code=0)
    assert "warning" not in result.err, result


# --- streams ---


@suite.test
def a_full_disk():
    for arguments in (["run", chat_model(), "-p", "x", "-n", "3"],
                      ["run", chat_model(), "-p", "x", "-n", "3", "--json"],
                      ["help"], ["version"], ["show", chat_model()]):
        with open("/dev/full", "wb") as full:
            result = run(*arguments, out=full, code=1)
        assert "cannot write to standard output: No space left" in result.err, result


@suite.test
def a_reader_that_went_away():
    for arguments in (["run", chat_model(), "-p", "Count to a hundred", "-n", "50", "--ignore-eos"], ["help"]):
        reader, writer = os.pipe()
        os.close(reader) # before the program starts, or a short text is in the pipe already
        process = subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=writer,
                                   stderr=subprocess.PIPE, env=environment())
        os.close(writer)
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 1 and err == b"", (arguments, process.returncode, err)


@suite.test
def closed_streams():
    for closed in (0, 1, 2, "all"):
        def close(which=closed):
            for fd in (0, 1, 2) if which == "all" else (which,):
                os.close(fd)
        process = subprocess.run([PROGRAM, "run", chat_model(), "-p", "x", "-n", "3"], preexec_fn=close,
                                 stdout=None if closed == 1 else subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=environment(), check=False, timeout=100)
        wanted = 1 if closed in (1, "all") else 0
        assert process.returncode == wanted, (closed, process.returncode, process.stderr)


@suite.test
def the_model_is_not_written_to_when_standard_output_was_closed():
    path = scratch("copy.gguf", open(chat_model(), "rb").read())
    before = os.stat(path).st_mtime_ns
    subprocess.run([PROGRAM, "run", path, "-p", "x", "-n", "3"], preexec_fn=lambda: os.close(1), env=environment(),
                   stderr=subprocess.DEVNULL, check=False, timeout=100)
    assert os.stat(path).st_mtime_ns == before
    os.remove(path)


@suite.test
def no_memory_for_the_process():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (120 << 20, 120 << 20))
    process = subprocess.run([PROGRAM, "run", chat_model(), "-p", "x", "-n", "3"], preexec_fn=limit, env=environment(),
                             capture_output=True, check=False, timeout=100)
    assert process.returncode in (1, 4), (process.returncode, process.stderr)
    assert process.stderr.startswith(b"pagoda: error: "), process.stderr


@suite.test
def a_limit_on_the_size_of_files():
    def measure(most):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        return subprocess.run([PROGRAM, "show", "--device", "--json"], preexec_fn=limit, env=environment(),
                              capture_output=True, check=False, timeout=100)
    process = measure(4 << 20)
    assert process.returncode == 0 and 0 < json.loads(process.stdout)["bytes_written"] <= 4 << 20, process
    process = measure(0)
    assert process.returncode == 1 and b"File too large" in process.stderr and process.stdout == b"", process


@suite.test
def interrupted_before_anything_was_run():
    process = subprocess.Popen([PROGRAM, "run", chat_model()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment())
    time.sleep(0.3) # it waits for a prompt that never comes
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err == b"", (process.returncode, err)


if __name__ == "__main__":
    suite.main()
