#!/usr/bin/env bash
# All measurements behind the README and docs/results.md, in about half an hour on two cores. `make bench` runs this.
#
#     bench/run.sh [fidelity|speed|stream|needle|kernels|digests|memory|pressure|recall]...
#         (default: all but recall)
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

# Hours, not minutes: every setting reads every text twice.
recall() {
    python3 bench/recall.py "$smol" --raw
    python3 bench/recall.py "$gemma"
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
