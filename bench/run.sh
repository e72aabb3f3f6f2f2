#!/usr/bin/env bash
# All measurements behind the README and docs/results.md, in about half an hour on two cores. `make bench` runs this.
#
#     bench/run.sh [fidelity|speed|stream|needle|kernels|digests|memory|pressure|spill|exact|flash|recall]...
#         (default: all but the last four, which take longer)
#
# Run it on a quiet machine: engines are compared side by side, but a busy neighbour still costs precision.
set -euo pipefail
cd "$(dirname "$0")/.."
smol=build/models/smollm2-135m-instruct-q4_1.gguf
gemma=build/models/gemma-3-270m-q4_k_m.gguf

machine() {
    printf 'machine: %s, %s CPUs, %s; %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" \
        "$(build/pagoda version | head -1)" "$(date -u +%Y-%m-%d)"
}

fidelity() {
    build/bench/fidelity --model "$smol" --tokens 4096
    build/bench/fidelity --model "$gemma" --tokens 4096
}

speed() {
    build/pagoda bench "$smol" -o md --kv-codec f16 -d 0,2048,4096,7500,8000
    build/pagoda bench "$gemma" -o md --kv-codec f16 -d 0,2048,4096,16000
}

stream() {
    build/bench/stream --policy sink
    build/bench/stream --policy window
    build/bench/stream --policy sink --keep-gaps 1
}

needle() { build/bench/needle; }

# Hours, not minutes: every setting reads every text twice. What was finished before is not run again.
recall() {
    local texts=(--raw --length 5000 --lengths 5000 --trials 2)
    python3 bench/recall.py "$smol" --tasks documents --curve
    python3 bench/recall.py "$smol" "${texts[@]}" --tasks passkey,keys,lookup,copy
    python3 bench/recall.py "$smol" "${texts[@]}" --tasks facts --questions 150
    texts=(--length 7700 --lengths 7700 --trials 2 --only "spill 1/8" --only "spill 1/16" --only "sink 1/16")
    python3 bench/recall.py "$gemma" "${texts[@]}" --tasks passkey
    python3 bench/recall.py "$gemma" "${texts[@]}" --tasks facts --questions 100
}

# Decoding with an eighth of the f16 bytes in memory, beside all of it in memory; on this disk, and as on slower ones.
# 200 tokens of a real text, one by one.
spilled() {
    head -c 60000 build/texts/debian-handbook.txt |
        build/pagoda bench "$1" -f - -o md -d 7900 -p 0 -n 40 -r 5 --on-full spill --kv "$2" --no-stock --no-peers \
            "${@:3}"
}

spill() {
    spilled "$smol" 22M
    spilled "$smol" 22M --flash-speed 500M --max-stall-ms 250
    spilled "$smol" 22M --flash-speed 130M --max-stall-ms 250
    spilled "$gemma" 18M
    spilled "$gemma" 18M --flash-speed 500M --max-stall-ms 250
    spilled "$gemma" 18M --flash-speed 130M --max-stall-ms 250
}

# --select all: the same bytes as without flash, over a whole run of 8,000 tokens, both models.
exact() {
    scripts/build.sh release tests
    PAGODA_MODELS=build/models PAGODA_TEXTS=build/texts PAGODA_THREADS=$(nproc) PAGODA_TEST_TIMEOUT=7200 \
        PAGODA_SPILL_TOKENS=8000 PAGODA_SPILL_DECODE=100 build/tests/engine/test_spill
}

# A question within what the model was trained for, then three times as much text as that.
flash() {
    python3 bench/long_document.py --tokens 16000 --kv 20
    python3 bench/long_document.py --tokens 100000 --kv 32
}

kernels() { build/bench/kernels; }

digests() {
    build/bench/digests --skip 300000
    build/bench/digests --model "$gemma"
    build/bench/digests --model "$gemma" --text build/texts/newton-opticks.txt --skip 50000
}

memory() { python3 tests/cli/test_memory_limit.py; }

pressure() { python3 tests/cli/test_pressure.py --cycles 20; }

machine
for what in "${@:-fidelity speed stream needle kernels digests memory pressure}"; do
    for one in $what; do
        printf '\n== %s\n' "$one"
        "$one"
    done
done
