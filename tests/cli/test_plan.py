#!/usr/bin/env python3
"""pagoda plan: its figures are those of the allocator, of published shapes, and of the textbook; and bad headers."""

import os
import struct
import time

from support.gguf import F16, F32, Q4_0, gguf, gguf_header
from support.suite import Suite, chat_model, fails, plain_model, run, scratch

suite = Suite()
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def header_of(architecture, layers, embedding, heads, kv_heads, context=131072, **keys):
    """Metadata of a model; keys are named with their dots as underscores of two."""
    metadata = {"general.architecture": architecture, "general.name": "Test"}
    keys = {"block_count": layers, "embedding_length": embedding, "attention.head_count": heads,
            "attention.head_count_kv": kv_heads, "context_length": context, "feed_forward_length": 4 * embedding,
            **{key.replace("__", "."): value for key, value in keys.items()}}
    metadata.update({f"{architecture}.{key}": value for key, value in keys.items() if value is not None})
    return metadata


def plan(*arguments, code=0):
    return run("plan", *arguments, "--json", code=code).json()


def plan_header(metadata, *arguments):
    return plan(scratch("plan.gguf", gguf(metadata, tensors=1)), *arguments)


def row_bytes(found, tokens):
    return next(row["row_bytes"] for row in found["contexts"] if row["tokens"] == tokens)


# --- the allocator ---


@suite.test
def a_plan_is_what_the_engine_reserves():
    for model in (chat_model(), plain_model()):
        for flags in (["--kv", "6M"], ["--kv", "24M"], ["--kv", "64M", "--kv-codec", "k8v4"], ["--kv", "33333333"],
                      ["--kv", "16M", "--page", "64", "-tb", "2"], ["--kv", "48M", "-c", "900"],
                      ["--kv", "9M", "--kv-codec", "f16"]):
            planned = plan(model, *flags)
            real = run("run", model, "--raw", "-p", "Hello", "-n", "2", "--temp", "0", "--json", *flags,
                       code=0).json()
            for ours, theirs in (("budget_bytes", "budget_bytes"), ("tables_bytes", "tables_bytes"),
                                 ("staging_bytes", "staging_bytes"), ("tokens", "capacity_tokens")):
                assert planned["reservation"][ours] == real["kv"][theirs], (flags, ours, planned["reservation"], real)
            assert planned["kv"]["bytes_per_token"] == real["kv"]["bytes_per_token"], (flags, planned, real)
            memory = real["memory"]
            assert planned["memory"]["weights_bytes"] == memory["weights_bytes"], (planned, memory)
            off = planned["memory"]["compute_bytes"] / memory["compute_bytes"] - 1
            assert abs(off) < 0.05, (off, planned["memory"], memory)


@suite.test
def an_automatic_budget_is_foreseen():
    for model in (chat_model(), plain_model()):
        for codec in ("auto", "f16", "q8"):
            for tokens in (256, 700):
                flags = ["-c", tokens, "--kv-codec", codec]
                real = run("run", model, "--raw", "-p", "Hello", "-n", "2", "--json", *flags, code=0).json()["kv"]
                planned = plan(model, *flags)
                assert planned["reservation"]["budget_bytes"] == planned["wanted_bytes"] == real["budget_bytes"]
                assert planned["reservation"]["tokens"] == real["capacity_tokens"] == tokens


@suite.test
def the_peak_of_a_run_is_foreseen():
    """Held in f16 without windows, tokens take whole pages, and nothing else is taken."""
    words = "the quick brown fox jumps over the lazy dog " * 30
    real = run("run", chat_model(), "--raw", "-p", words, "-n", "40", "--json", "--ignore-eos", "--kv", "64M",
               "--kv-codec", "f16", code=0).json()
    planned = plan(chat_model(), "--kv", "64M", "--kv-codec", "f16")
    pages = -(-real["tokens"]["ram"] // 16)
    fixed = planned["reservation"]["tables_bytes"] + planned["reservation"]["staging_bytes"]
    assert real["kv"]["peak_bytes"] == fixed + pages * 16 * planned["kv"]["bytes_per_token"], (real, planned)


@suite.test
def the_process_is_as_large_as_foreseen():
    """Peak of the kernel's account, with the budget used up."""
    words = "the quick brown fox jumps over the lazy dog " * 80
    for model, budgets in ((chat_model(), ("4M", "8M", "12M")), (plain_model(), ("6M", "8M", "10M"))):
        for budget in budgets:
            flags = ["--kv", budget, "--kv-codec", "f16"]
            real = run("run", model, "--raw", "-p", words, "-n", "2", "--on-full", "evict", "--json", *flags, code=0)
            foreseen = plan(model, *flags)["memory"]["process_bytes"]
            off = foreseen / real.json()["memory"]["peak_rss_bytes"] - 1
            assert abs(off) < 0.05, (model, budget, off)


@suite.test
def a_row_of_the_tables_is_what_the_engine_does():
    found = plan(chat_model())
    for line in found["budgets"][:3]:
        for codec in ("auto", "f16", "k8v4", "k5v4"):
            shown = run("show", chat_model(), "--json", "--kv", line["budget_bytes"], "--kv-codec", codec, "-t", "1")
            tokens = shown.json()["kv"]["tokens"] if shown.code == 0 else 0
            assert line["tokens"][codec] == tokens, (codec, line, tokens)


# --- published shapes ---

# metadata, KiB per token once windows are full, MiB fixed, then MiB at 8k, 32k, 128k
SHAPES = {
    "Llama-3.2-1B": (header_of("llama", 16, 2048, 32, 8), 32, 0, 256, 1024, 4096),
    "Llama-3.2-3B": (header_of("llama", 28, 3072, 24, 8), 112, 0, 896, 3584, 14336),
    "Llama-3.1-8B": (header_of("llama", 32, 4096, 32, 8), 128, 0, 1024, 4096, 16384),
    "Qwen3-0.6B": (header_of("qwen3", 28, 1024, 16, 8, attention__key_length=128, attention__value_length=128),
                   112, 0, 896, 3584, 14336),
    "Qwen3-4B": (header_of("qwen3", 36, 2560, 32, 8, attention__key_length=128, attention__value_length=128),
                 144, 0, 1152, 4608, 18432),
    "Gemma3-1B": (header_of("gemma3", 26, 1152, 4, 1, attention__key_length=256, attention__value_length=256,
                            attention__sliding_window=512), 4, 11, 43, 139, 523),
    "Gemma3-4B": (header_of("gemma3", 34, 2560, 8, 4, attention__key_length=256, attention__value_length=256,
                            attention__sliding_window=1024), 20, 116, 276, 756, 2676),
    "SmolLM2-135M": (header_of("llama", 30, 576, 9, 3), 22.5, 0, 180, 720, 2880),
    "SmolLM2-360M": (header_of("llama", 32, 960, 15, 5), 40, 0, 320, 1280, 5120),
    "SmolLM2-1.7B": (header_of("llama", 24, 2048, 32, None), 192, 0, 1536, 6144, 24576),
    "SmolLM3-3B": (header_of("smollm3", 36, 2048, 16, 4), 72, 0, 576, 2304, 9216),
    "Phi-4-mini": (header_of("phi3", 32, 3072, 24, 8, attention__sliding_window=262144), 128, 0, 1024, 4096, 16384),
    "Qwen3.5-4B": (header_of("qwen35", 32, 2560, 16, 4, attention__key_length=256, attention__value_length=256),
                   32, 0, 256, 1024, 4096),
    "Qwen2.5-0.5B": (header_of("qwen2", 24, 896, 14, 2), 12, 0, 96, 384, 1536),
    "Gemma2-2B": (header_of("gemma2", 26, 2304, 8, 4, attention__key_length=256, attention__value_length=256,
                            attention__sliding_window=4096), 52, 208, 624, 1872, 6864),
    "gpt-oss-20b": (header_of("gpt-oss", 24, 2880, 64, 8, attention__key_length=64, attention__value_length=64,
                              attention__sliding_window=128), 24, 3, 195, 771, 3075),
    "Command-R7B": (header_of("cohere2", 32, 4096, 32, 8, attention__sliding_window=4096), 32, 384, 640, 1408, 4480),
    "DeepSeek-V2-Lite": (header_of("deepseek2", 27, 2048, 16, 1, attention__key_length=576,
                                   attention__value_length=512, attention__key_length_mla=192,
                                   attention__value_length_mla=128, attention__kv_lora_rank=512,
                                   rope__dimension_count=64), 30.375, 0, 243, 972, 3888),
    # the same model in a file from before llama.cpp kept the latent vectors
    "DeepSeek-V2-Lite, old": (header_of("deepseek2", 27, 2048, 16, 16, attention__key_length=192,
                                        attention__value_length=128, rope__dimension_count=64),
                              270, 0, 2160, 8640, 34560),
    "OpenELM-270M": (header_of("openelm", 16, 1280, [12] * 3 + [16] * 7 + [20] * 6, [3] * 3 + [4] * 7 + [5] * 6,
                               attention__key_length=64, attention__value_length=64), 16.75, 0, 134, 536, 2144),
}


@suite.test
def published_shapes_have_their_figures():
    assert len(SHAPES) >= 12
    for name, (metadata, grows, fixed, *contexts) in SHAPES.items():
        found = plan_header(metadata)
        assert found["kv"]["growing_bytes_per_token"] == grows * KIB, (name, found["kv"])
        assert found["kv"]["window_bytes"] == fixed * MIB, (name, found["kv"])
        for tokens, size in zip((8192, 32768, 131072), contexts):
            without_states = row_bytes(found, tokens) - found["kv"]["state_bytes"]
            assert without_states == size * MIB, (name, tokens, found["contexts"])


@suite.test
def a_budget_is_never_far_above_the_rows():
    """Pages, tables and scratch come on top of the rows, and are told apart from them."""
    for name, (metadata, *_) in SHAPES.items():
        found = plan_header(metadata)
        for row in found["contexts"] if found["budgets"] else []:
            if row["tokens"] >= 32768:
                assert row["row_bytes"] < row["budget_bytes"]["f16"] < 1.12 * row["row_bytes"] + 20 * MIB, (name, row)
                assert row["budget_bytes"]["f16"] > row["budget_bytes"]["q8"] > row["budget_bytes"]["k5v4"], (name, row)


@suite.test
def the_standard_model_of_seven_billion():
    found = plan("--shape", "layers=32,heads=32,head_size=128", "--on-full", "stop")
    for tokens, size in ((1024, GIB // 2), (32768, 16 * GIB), (131072, 64 * GIB)):
        row = next(row for row in found["contexts"] if row["tokens"] == tokens)
        assert row["row_bytes"] == size, row
        assert size < row["budget_bytes"]["f16"] < size * 1.03, row
    text = run("plan", "--shape", "layers=32,heads=32,head_size=128", code=0).out
    for words in ("512.0 KiB per token", "512.0 MiB", "16.0 GiB", "64.0 GiB", "2.00 GiB", "4.00 GiB"):
        assert words in text, text
    small = plan("--shape", "layers=32,heads=32,head_size=128,context=32k", "--kv", "2G", "--on-full", "stop")
    assert not small["fits"] and 12000 < small["reservation"]["tokens"] < 13000, small
    lines = {line["budget_bytes"]: line["tokens"] for line in small["budgets"]}
    assert lines[2 * GIB]["f16"] == 4080 and lines[4 * GIB]["auto"] > 3 * lines[4 * GIB]["f16"], lines


@suite.test
def windows_follow_the_header_or_the_architecture():
    def windows(*arguments, **keys):
        return [layer["window"] for layer in plan_header(header_of(*arguments, **keys))["layers"]]
    size = {"attention__sliding_window": 64}
    assert windows("gemma3", 7, 512, 8, 2, **size) == [64] * 5 + [0, 64]
    assert windows("gemma3", 4, 512, 8, 2) == [0] * 4, "no window is named"
    assert windows("gemma3", 4, 512, 8, 2, attention__sliding_window_pattern=2, **size) == [64, 0, 64, 0]
    listed = [True, False, True, True]
    assert windows("gemma3", 4, 512, 8, 2, attention__sliding_window_pattern=listed, **size) == [64, 0, 64, 64]
    assert windows("gemma2", 4, 512, 8, 2) == [4096, 0, 4096, 0]
    assert windows("smallthinker", 5, 512, 8, 2, **size) == [0, 64, 64, 64, 0]
    assert windows("cohere2", 4, 512, 8, 2, **size) == [64, 64, 64, 0]
    assert windows("llama", 3, 512, 8, 2, **size) == [0] * 3, "llama has no windows, whatever the header says"
    assert windows("exaone4", 30, 512, 8, 2, **size) == [0] * 30, "only its large model has windows"
    assert windows("exaone4", 64, 512, 8, 2, **size) == [64, 64, 64, 0] * 16
    assert windows("llama4", 4, 512, 8, 2, **size) == [8192, 8192, 8192, 0]


@suite.test
def layers_may_differ_in_everything():
    found = plan_header(header_of("gemma4", 6, 512, 8, [2, 2, 1, 2, 2, 2], attention__key_length=512,
                                  attention__value_length=512, attention__key_length_swa=256,
                                  attention__value_length_swa=256, attention__sliding_window=512,
                                  attention__shared_kv_layers=2,
                                  attention__sliding_window_pattern=[True, True, False] * 2))
    assert [layer["key_size"] for layer in found["layers"]] == [256, 256, 512, 256, 0, 0], found["layers"]
    assert [layer["kv_heads"] for layer in found["layers"]] == [2, 2, 1, 2, 0, 0], found["layers"]
    found = plan_header(header_of("qwen3moe", 3, 512, 8, 2, nextn_predict_layers=1))
    assert len(found["layers"]) == 2, "draft layers are not attended to"


@suite.test
def states_are_fixed():
    found = plan_header(header_of("mamba", 24, 768, None, None, ssm__conv_kernel=4, ssm__inner_size=1536,
                                  ssm__state_size=16, ssm__time_step_rank=48))
    assert found["kv"]["state_bytes"] == 24 * 4 * (3 * 1536 + 16 * 1536), found["kv"]
    assert found["kv"]["growing_bytes_per_token"] == 0 and not found["runs"], found
    assert row_bytes(found, 1024) == row_bytes(found, 131072) == found["kv"]["state_bytes"], found
    found = plan_header(header_of("jamba", 8, 512, 8, [0, 0, 0, 2, 0, 0, 0, 2], ssm__conv_kernel=4,
                                  ssm__inner_size=1024, ssm__state_size=16))
    assert found["kv"]["state_bytes"] == 6 * 4 * (3 * 1024 + 16 * 1024), found["kv"]
    assert found["kv"]["growing_bytes_per_token"] == 2 * 2 * 64 * 2 * 2, found["kv"]
    found = plan_header(header_of("qwen3next", 48, 2048, 16, 2, attention__key_length=256,
                                  attention__value_length=256, ssm__conv_kernel=4, ssm__inner_size=4096,
                                  ssm__state_size=128, ssm__group_count=16))
    assert found["kv"]["attention_layers"] == 12 and found["kv"]["state_layers"] == 36, found["kv"]
    assert found["kv"]["state_bytes"] == 36 * 4 * (3 * 8192 + 128 * 4096), found["kv"]
    found = plan_header(header_of("falcon-h1", 4, 512, 8, 2, ssm__conv_kernel=4, ssm__inner_size=1024,
                                  ssm__state_size=64, ssm__group_count=1))
    assert found["kv"]["attention_layers"] == found["kv"]["state_layers"] == 4, "both in each layer"
    found = plan_header(header_of("lfm2", 4, 512, 8, [0, 2, 0, 2], shortconv__l_cache=3))
    assert found["kv"]["state_bytes"] == 2 * 4 * 512 * 2, found["kv"]
    found = plan_header(header_of("rwkv7", 12, 768, None, None, wkv__head_size=64))
    assert found["kv"]["state_bytes"] == 12 * 4 * (2 * 768 + 768 * 64), found["kv"]


@suite.test
def what_the_engine_refuses_is_planned_with_a_note():
    for name in ("DeepSeek-V2-Lite", "Qwen3.5-4B"):
        path = scratch("refused.gguf", gguf(SHAPES[name][0], tensors=1))
        text = run("plan", path, code=0).out
        assert "pagoda cannot run this kind yet" in text and "pagoda chat" not in text, text
        fails(4, "cannot be run", "run", path, "-p", "x")


@suite.test
def what_is_not_known_is_not_guessed():
    for architecture, why in (("frobnicator", "does not know"), ("nanbeige", "does not know"), ("bert", "embeddings"),
                              ("deepseek32", "index of its own")):
        path = scratch("unknown.gguf", gguf(header_of(architecture, 4, 512, 8, 2), tensors=1))
        fails(4, ["memory layout", architecture, why], "plan", path)


# --- the command ---


@suite.test
def a_plan_on_paper():
    text = run("plan", plain_model(), "--mem", "600M", code=0).out
    for words in ("gemma3", "15 x 1 KV head of 256 (4 query heads), a window of 512 tokens", "3.00 KiB per token",
                  "7.50 MiB in windows", "trained context  32,768 tokens", "k8v4", "32,768", "weights 235.2 MiB",
                  "tokenizer", "error bar", "not counted", "past that", "--on-full spill", "pagoda chat"):
        assert words in text, (words, text)
    assert max(map(len, text.splitlines())) <= 120, text


@suite.test
def what_goes_to_flash_is_foreseen():
    """Memory holds as much as it is said to, and a token takes as much flash."""
    flags = [chat_model(), "--kv", "14M", "-c", "2048"]
    reservation = plan(*flags)["reservation"]
    assert reservation["on_full"] == "spill" and reservation["on_full_reason"] is None, reservation
    within = reservation["tokens_in_memory"]
    assert 300 < within < reservation["tokens"] == 2048, reservation

    def told(tokens):
        text = scratch("so-many.txt", b" word" * tokens)
        return run("run", *flags, "--raw", "-f", text, "-n", "0", "--json", code=0).json()
    assert told(within - 1)["tokens"]["spilled"] == 0, reservation
    more = told(2 * within)
    assert more["tokens"]["spilled"] > within / 2 and more["tokens"]["dropped"] == 0, more
    written = more["kv"]["flash_bytes_written"] / (more["kv"]["pages_spilled"] / 30 * 16)
    assert abs(written / reservation["flash_bytes_per_token"] - 1) < 0.02, (written, reservation)
    text = run("plan", *flags, code=0).out
    assert f"the first {within:,} tokens are all in memory" in text and "for 1,000 tokens" in text, text
    for tokens, share in ((5200, 8), (8000, 12)):  # of the bytes of 5,000 and 8,000 tokens in f16
        kv = tokens // 1000 * 1000 * 23040 // share
        tight = plan(chat_model(), "--kv", f"{kv}", "-c", f"{tokens}", "--on-full", "spill", "--kv-codec", "k8v4")
        assert tight["reservation"]["tokens"] == tokens, tight["reservation"]
        used = tight["reservation"]["tables_bytes"] + tight["reservation"]["staging_bytes"]
        assert used + tight["reservation"]["arena_bytes"] <= kv, tight["reservation"]
    small = plan(chat_model(), "--kv", "3M")["reservation"]
    assert small["on_full"] == "stop" and "too small" in small["on_full_reason"], small
    assert small["flash_bytes_per_token"] == 0 and small["tokens_in_memory"] == small["tokens"], small


@suite.test
def a_tight_budget_is_told_and_one_that_is_not():
    """Of the coarse summaries in a budget that is tight for its tokens; a plan for less text has finer ones."""
    flags = [chat_model(), "-c", "8000"]
    tight = plan(*flags, "--kv", "7200000")["reservation"]
    assert tight["digest_tokens"] == 128 and tight["exact_recent"] == tight["batch_tokens"] == 16, tight
    easy = tight["easy_bytes"]
    assert 1.5 * 7200000 < easy < 3 * 7200000, tight
    at = plan(*flags, "--kv", f"{easy}")["reservation"]
    below = plan(*flags, "--kv", f"{easy * 9 // 10}")["reservation"]
    assert at["digest_tokens"] == 16 and at["easy_bytes"] is None and at["tokens"] == 8000, at
    assert below["digest_tokens"] == 32 and abs(below["easy_bytes"] / easy - 1) < 0.03, (below, tight)
    assert plan(chat_model(), "-c", "3000", "--kv", "7200000")["reservation"]["digest_tokens"] < 128
    text = run("plan", *flags, "--kv", "7200000", code=0).out
    assert "That is tight: 128 tokens share a summary" in text and f"--kv {-(-easy // 1024)}K on" in text, text
    long = ["--raw", "-f", scratch("long.txt", b" word" * 2000), "-n", "1"]
    said = run("run", *flags, "--kv", "7200000", *long, code=0).err
    assert "is tight for 8,000 tokens" in said and "128 of them share a summary" in said, said
    said = run("chat", *flags, "--kv", "7200000", stdin=b"", code=0).err
    assert "is tight for 8,000 tokens" in said, said
    short = ["-p", "Hello", "-n", "1"]
    for other in (["--kv", "7200000", "--quiet", *long], ["--kv", f"{easy}", *long], ["--kv", "7200000", *short]):
        said = run("run", *flags, *other, code=0).err
        assert "tight" not in said, (other, said)


@suite.test
def the_recommended_command_is_good():
    for flags in (["--mem", "280M"], ["--kv", "8M", "-c", "512"], []):
        text = run("plan", chat_model(), *flags, code=0).out
        line = next(line for line in text.splitlines() if line.startswith("try "))
        words = line.split()[1:]
        assert words[:2] == ["pagoda", "chat"], line
        run("run", *words[2:], "-p", "x", "-n", "1", code=0)


@suite.test
def memory_of_the_process_leaves_a_budget():
    found = plan(chat_model(), "--mem", "300M")
    assert found["memory"]["process_bytes"] == 300 * MIB and found["reservation"]["budget_bytes"] < 200 * MIB, found
    both = plan(chat_model(), "--mem", "300M", "--kv", "16M")
    assert both["reservation"]["budget_bytes"] == 16 * MIB, both
    less = plan(chat_model(), "--mem", "50M")
    assert not less["fits"] and less["reservation"] is None and "leaves nothing" in less["problem"], less
    text = run("plan", chat_model(), "--mem", "50M", code=0).out
    assert "no: --mem 50.0 MiB leaves nothing" in text and "try" not in text, text


@suite.test
def scripts_are_told_by_the_exit_code():
    model = chat_model()
    run("plan", model, "--kv", "256M", "--fail-if-over", code=0)
    run("plan", model, "--kv", "6M", code=0)
    for flags in (["--kv", "6M"], ["--mem", "300M", "-c", "8192", "--kv-codec", "f16", "--on-full", "stop"],
                  ["--mem", "50M"], ["--kv", "100K"]):
        run("plan", model, *flags, "--fail-if-over", code=3)
    run("plan", "--shape", "layers=32,heads=32,head_size=128", "--kv", "4G", "-c", "8k", "--kv-codec", "f16",
        "--on-full", "stop", "--fail-if-over", code=3)
    run("plan", "--shape", "layers=32,heads=32,head_size=128", "--kv", "4G", "-c", "8k", "--fail-if-over", code=0)


@suite.test
def several_models_get_a_line_each():
    result = run("plan", chat_model(), plain_model(), "--kv", "6M", code=0)
    lines = result.out.splitlines()
    assert len(lines) == 2 and "llama" in lines[0] and "gemma3" in lines[1] and "does not fit" in lines[0], result
    assert "22.5 KiB per token" in lines[0] and "7.50 MiB fixed" in lines[1], result
    result = run("plan", chat_model(), scratch("no.gguf"), code=4)
    assert len(result.out.splitlines()) == 1 and "no.gguf" in result.err, result


@suite.test
def shapes_in_words():
    found = plan("--shape", "layers=4,heads=8,kv_heads=2,key_size=96,value_size=64,window=128,full_every=4,context=4k")
    assert found["kv"]["growing_bytes_per_token"] == 2 * (96 + 64) * 2, found["kv"]
    assert [layer["window"] for layer in found["layers"]] == [128, 128, 128, 0], found["layers"]
    assert found["trained_tokens"] == 4096 and found["contexts"][-1]["tokens"] == 4096, found
    for shape, words in (("layers=32", "layers, heads and head_size"), ("layrs=3", "did you mean 'layers'"),
                         ("layers", "no number"), ("layers=0,heads=1,head_size=1", "from 1 to"),
                         ("layers=1,layers=2", "twice"), ("xyzzy=1", "no part of a shape"), ("", "no number"),
                         ("layers=1,heads=8,kv_heads=3,head_size=64", "multiple"), ("layers=99999", "from 1 to"),
                         ("layers=1,heads=8,head_size=64,full_every=2", "give window")):
        fails(2, words, "plan", "--shape", shape)
    fails(2, "in place of a model", "plan", "m.gguf", "--shape", "layers=1,heads=1,head_size=64")
    fails(2, "no model", "plan")


@suite.test
def a_model_in_parts():
    whole = header_of("llama", 2, 512, 8, 2)
    first = {**whole, "split.no": struct.pack("<IH", 2, 0), "split.count": struct.pack("<IH", 2, 2)}
    second = {"split.no": struct.pack("<IH", 2, 1), "split.count": struct.pack("<IH", 2, 2)}
    path = scratch("m-00001-of-00002.gguf", gguf(first, tensors=3))
    fails(4, ["part 2 of 2", "m-00002-of-00002.gguf"], "plan", path)
    scratch("m-00002-of-00002.gguf", gguf(second, tensors=5))
    assert plan(path)["memory"]["weights_bytes"] == 8 * 16
    fails(4, "give the first one", "plan", scratch("m-00002-of-00002.gguf"))


@suite.test
def a_large_file_takes_no_time():
    """60 GB of weights, which are not there: only the header is read."""
    tensors = [("token_embd.weight", [8192, 128256], F16), ("output.weight", [8192, 128256], F16)]
    for layer in range(80):
        tensors += [(f"blk.{layer}.{name}.weight", sizes, kind) for name, sizes, kind in (
            ("attn_norm", [8192], F32), ("ffn_up", [8192, 28672], F16), ("ffn_gate", [8192, 28672], F16),
            ("attn_q", [8192, 8192], Q4_0))]
    metadata = header_of("llama", 80, 8192, 64, 8)
    metadata["tokenizer.ggml.tokens"] = [f"token-{index}" for index in range(128256)]
    header, size = gguf_header(metadata, tensors)
    path = scratch("large.gguf", header)
    with open(path, "r+b") as file:
        file.truncate(len(header) + size)
    assert os.path.getsize(path) > 60 * 10**9
    fastest = 1e9
    for _ in range(5):
        start = time.monotonic()
        found = plan(path)
        fastest = min(fastest, time.monotonic() - start)
    assert found["memory"]["weights_bytes"] > 60 * 10**9 and not found["fits"], found["memory"]
    assert fastest < 0.1, f"{1000 * fastest:.0f} ms"
    os.remove(path)


# --- bad headers ---


def refused(data, *words):
    result = run("plan", scratch("bad.gguf", data), code=4)
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pagoda: error: ") and "bad.gguf" in lines[0], result
    assert result.out == "" and all(word in result.err for word in words), (words, result)


@suite.test
def every_truncation_is_told():
    whole = gguf(header_of("llama", 2, 512, [8, 8], 2), tensors=2)
    for length in range(len(whole) - 16): # what is behind the last tensor is padding
        refused(whole[:length])


@suite.test
def wild_counts_and_lengths():
    good = header_of("llama", 2, 512, 8, 2)
    start = b"GGUF" + struct.pack("<I", 3)
    big = struct.pack("<Q", 1 << 62)
    one = struct.pack("<Q", 1)
    refused(start + big + struct.pack("<Q", 0) + b"\0" * 100, "tensors")
    refused(start + one + big + b"\0" * 100, "keys")
    refused(start + one + one + big + b"x" * 100, "length")
    refused(gguf({**good, "a": struct.pack("<I", 8) + big + b"x" * 50}, tensors=1), "cut short")
    refused(gguf({**good, "a": struct.pack("<II", 9, 4) + big}, tensors=1), "more numbers")
    refused(gguf({**good, "a": struct.pack("<II", 9, 8) + big}, tensors=1), "more texts")
    refused(gguf({**good, "a": struct.pack("<II", 9, 9) + one + one}, tensors=1), "unknown type 9") # arrays of arrays
    refused(gguf({**good, "a": struct.pack("<I", 13)}, tensors=1), "unknown type 13")
    refused(gguf({**good, "general.alignment": 48}, tensors=1), "power of 2")
    refused(gguf({**good, "": 1}, tensors=1), "without a name")


@suite.test
def headers_that_contradict_themselves():
    for keys, words in (({"block_count": None}, "block_count"), ({"block_count": 0}, "0 layers"),
                        ({"block_count": 100000}, "100000 layers"), ({"block_count": "two"}, "block_count"),
                        ({"embedding_length": None}, "embedding_length"),
                        ({"attention.head_count": None}, "head_count"), ({"attention.head_count": [8]}, "head_count"),
                        ({"attention.head_count": 7}, "head_count_kv"),
                        ({"attention.head_count_kv": 3}, "head_count_kv"),
                        ({"attention.head_count": 1 << 31}, "head_count"),
                        ({"attention.key_length": 1 << 20}, "key_length"),
                        ({"attention.value_length": 0}, "value_length"), ({"nextn_predict_layers": 2}, "nextn")):
        metadata = header_of("llama", 2, 512, 8, 2)
        for key, value in keys.items():
            metadata[f"llama.{key}"] = value
        refused(gguf({key: value for key, value in metadata.items() if value is not None}, tensors=1), words)
    refused(gguf(header_of("mimo2", 2, 512, 8, 2, attention__sliding_window=64), tensors=1), "sliding_window_pattern")
    good = header_of("llama", 2, 512, 8, 2)
    data = bytearray(gguf({**good, "llama.block_counx": 3}, tensors=1))
    at = data.index(b"counx")
    data[at:at + 5] = b"count"
    refused(bytes(data), "twice")


@suite.test
def tensors_that_cannot_be():
    metadata = header_of("llama", 2, 512, 8, 2)
    def with_tensor(name, sizes, kind, offset):
        header = gguf(metadata)
        data = header[:8] + struct.pack("<Q", 1) + header[16:]
        end = 24 + sum(8 + len(key) for key in metadata) + _values_bytes(metadata)
        tensor = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(sizes))
        tensor += b"".join(struct.pack("<Q", size) for size in sizes) + struct.pack("<IQ", kind, offset)
        return data[:end] + tensor + b"\0" * 64
    refused(with_tensor(b"x", [4, 4, 4, 4, 4], F32, 0), "too many dimensions")
    refused(with_tensor(b"x", [1 << 40, 1 << 40], F32, 0), "impossible size")
    refused(with_tensor(b"x", [1 << 63], F32, 0), "impossible size")
    refused(with_tensor(b"x", [4], 9999, 0), "type 9999")
    refused(with_tensor(b"x", [4], 4, 0), "type 4")
    refused(with_tensor(b"x", [33], Q4_0, 0), "rows")
    refused(with_tensor(b"x", [4], F32, 7), "impossible place")
    refused(with_tensor(b"x", [4], F32, (1 << 64) - 32), "cut short")
    refused(with_tensor(b"x" * 64, [4], F32, 0), "too long")
    refused(with_tensor(b"x", [1 << 30], F32, 0), "cut short")


def _values_bytes(metadata):
    return sum(4 + (8 + len(value) if isinstance(value, str) else 4) for value in metadata.values())


if __name__ == "__main__":
    suite.main()
