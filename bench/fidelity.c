/* bench/fidelity.c - is pagoda's attention the model's attention?
 *
 *     build/bench/fidelity [--model FILE] [--text FILE] [--tokens 4096] [--step 64] [--threads N]
 *
 * Real text, teacher-forced, through three engines in lockstep: the stock library with fused attention, the
 * stock library without, and pagoda with nothing dropped. Each engine decodes every step from its own cache. The
 * two stock paths differ by rounding; pagoda may not differ from them by more.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/common/bench.h"
#include "engine/score.h"
#include "engine/stock.h"

enum { FLASH, CLASSIC, PAGODA, ENGINES };

struct pair {
    const char *name;
    int a;
    int b;
    double kld;
    double top_differs;
};

struct engines {
    struct pgd_stock *stock[2];
    struct pgd_bridge *bridge;
};

static void open_engines(const struct pgd_model *model, uint64_t tokens, uint32_t step, uint32_t threads,
                         struct engines *engines)
{
    struct pagoda_error error;
    for (int path = 0; path < 2; path++) {
        const struct pgd_stock_options options = {
            .path = path == FLASH ? PGD_STOCK_FLASH : PGD_STOCK_CLASSIC,
            .context_tokens = (uint32_t) ((tokens + 255) / 256 * 256),
            .batch_tokens = step,
            .outputs_max = step,
            .threads = threads,
        };
        bench_check(pgd_stock_open(model, &options, &engines->stock[path], &error), &error, "stock engine");
    }
    const struct pgd_bridge_options options = {.tokens_max = tokens, .threads = threads, .outputs_max = step};
    bench_check(pgd_bridge_open(model, &options, &engines->bridge, &error), &error, "pagoda");
}

static void run_step(struct engines *engines, const int32_t *tokens, uint32_t count)
{
    struct pagoda_error error;
    for (int path = 0; path < 2; path++) {
        bench_check(pgd_stock_decode(engines->stock[path], tokens, count, count, &error), &error, "stock engine");
    }
    bench_check(pgd_bridge_decode(engines->bridge, tokens, count, count, &error), &error, "pagoda");
}

static const float *logits(struct engines *engines, int which, uint32_t row)
{
    return which == PAGODA ? pgd_bridge_logits(engines->bridge, row) : pgd_stock_logits(engines->stock[which], row);
}

int main(int argc, char **argv)
{
    const uint64_t count = bench_number(argc, argv, "--tokens", 4096);
    const uint32_t step = (uint32_t) bench_number(argc, argv, "--step", 64);
    struct pgd_model *model = bench_open_model(argc, argv);
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    int32_t *tokens =
        bench_tokens(model, bench_option(argc, argv, "--text", "build/texts/debian-handbook.txt"), 0, count + 1);
    struct engines engines;
    open_engines(model, count, step, (uint32_t) bench_number(argc, argv, "--threads", 0), &engines);

    struct pair pairs[] = {
        {.name = "stock fused against stock classic (the noise)", .a = FLASH, .b = CLASSIC},
        {.name = "stock fused against pagoda", .a = FLASH, .b = PAGODA},
        {.name = "stock classic against pagoda", .a = CLASSIC, .b = PAGODA},
    };
    double nll[ENGINES] = {0};
    uint64_t done = 0;
    while (done < count) {
        const uint32_t now = count - done < step ? (uint32_t) (count - done) : step;
        run_step(&engines, tokens + done, now);
        for (uint32_t row = 0; row < now; row++) {
            struct pgd_score_row rows[ENGINES];
            for (int e = 0; e < ENGINES; e++) {
                rows[e] = pgd_score_row(logits(&engines, e, row), vocabulary);
                nll[e] += pgd_score_nll(&rows[e], tokens[done + row + 1]);
            }
            for (int p = 0; p < 3; p++) {
                const struct pgd_score_row *a = &rows[pairs[p].a];
                const struct pgd_score_row *b = &rows[pairs[p].b];
                pairs[p].kld += pgd_score_kld(a, b);
                pairs[p].top_differs += pgd_score_top(a->logits, vocabulary) != pgd_score_top(b->logits, vocabulary);
            }
        }
        done += now;
        fprintf(stderr, "\r%llu / %llu tokens", (unsigned long long) done, (unsigned long long) count);
    }
    fprintf(stderr, "\n");

    printf("%s, %llu tokens, %u a step\n", pgd_model_get_info(model)->name, (unsigned long long) count, step);
    printf("NLL: stock fused %.4f, stock classic %.4f, pagoda %.4f\n", nll[FLASH] / (double) count,
           nll[CLASSIC] / (double) count, nll[PAGODA] / (double) count);
    bool good = true;
    for (int p = 0; p < 3; p++) {
        printf("%-48s mean KLD %.6f, top-1 differs %.2f %%\n", pairs[p].name, pairs[p].kld / (double) count,
               100.0 * pairs[p].top_differs / (double) count);
    }
    const double noise = pairs[0].kld;
    const double nearest = pairs[1].kld < pairs[2].kld ? pairs[1].kld : pairs[2].kld;
    good = nearest <= noise;
    printf("%s: pagoda's distance to the nearer stock path is %.2f of the distance between the two stock paths\n",
           good ? "good" : "BAD", nearest / noise);
    pgd_bridge_close(engines.bridge);
    pgd_stock_close(engines.stock[0]);
    pgd_stock_close(engines.stock[1]);
    pgd_model_close(model);
    free(tokens);
    return good ? 0 : 1;
}
