/* bench/stream.c - an endless text through a fixed budget: does the model stay fluent, does memory stay flat?
 *
 *     build/bench/stream [--model FILE] [--text FILE] [--tokens 32768] [--hold 1024] [--policy sink|window|fifo]
 *                        [--chunk 32] [--keep-gaps 1] [--threads N]
 *
 * Prints the NLL of each eighth of the text and the resident memory at its end. With `--keep-gaps 1` positions are
 * left as they are past the trained length, to show what closing them is for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/bench.h"
#include "engine/score.h"

#define PARTS 8

static enum pagoda_policy_kind policy_named(const char *name)
{
    return strcmp(name, "window") == 0 ? PAGODA_POLICY_WINDOW
           : strcmp(name, "fifo") == 0 ? PAGODA_POLICY_FIFO
                                       : PAGODA_POLICY_SINK;
}

int main(int argc, char **argv)
{
    const uint64_t count = bench_number(argc, argv, "--tokens", 32768);
    const uint64_t hold = bench_number(argc, argv, "--hold", 1024);
    const uint32_t chunk = (uint32_t) bench_number(argc, argv, "--chunk", 32);
    const char *policy = bench_option(argc, argv, "--policy", "sink");
    struct pgd_model *model = bench_open_model(argc, argv);
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    int32_t *tokens =
        bench_tokens(model, bench_option(argc, argv, "--text", "build/texts/debian-handbook.txt"), 0, count + 1);
    const struct pgd_bridge_options options = {
        .tokens_max = hold,
        .threads = (uint32_t) bench_number(argc, argv, "--threads", 0),
        .outputs_max = chunk,
        .on_full = PAGODA_ON_FULL_EVICT,
        .policy = {.kind = policy_named(policy)},
        .keep_gaps = bench_number(argc, argv, "--keep-gaps", 0) != 0,
    };
    struct pgd_bridge *bridge = NULL;
    struct pagoda_error error;
    bench_check(pgd_bridge_open(model, &options, &bridge, &error), &error, "pagoda");

    printf("%s: %llu tokens (trained to %u), %llu held, policy %s, gaps %s\n", pgd_model_get_info(model)->name,
           (unsigned long long) count, pgd_model_get_info(model)->trained_tokens, (unsigned long long) hold, policy,
           options.keep_gaps ? "kept" : "closed");
    double nll[PARTS] = {0};
    uint64_t done = 0;
    for (int part = 0; part < PARTS; part++) {
        const uint64_t end = count * (uint64_t) (part + 1) / PARTS;
        const uint64_t start = done;
        while (done < end) {
            const uint32_t now = end - done < chunk ? (uint32_t) (end - done) : chunk;
            bench_check(pgd_bridge_decode(bridge, tokens + done, now, now, &error), &error, "decode");
            for (uint32_t row = 0; row < now; row++) {
                const struct pgd_score_row scored = pgd_score_row(pgd_bridge_logits(bridge, row), vocabulary);
                nll[part] += pgd_score_nll(&scored, tokens[done + row + 1]);
            }
            done += now;
        }
        nll[part] /= (double) (end - start);
        printf("  tokens %6llu - %6llu: NLL %.4f, resident %.1f MiB\n", (unsigned long long) start,
               (unsigned long long) end - 1, nll[part], (double) bench_resident_bytes() / 1048576.0);
        fflush(stdout);
    }
    const double second_quarter = (nll[2] + nll[3]) / 2;
    const double last_quarter = (nll[6] + nll[7]) / 2;
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    printf("  last quarter against second: %+.2f %%; KV peak %.2f of %.2f MiB\n",
           100 * (last_quarter / second_quarter - 1), (double) memory.peak_bytes / 1048576.0,
           (double) memory.budget_bytes / 1048576.0);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
    free(tokens);
    return 0;
}
