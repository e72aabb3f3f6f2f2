/* bench/speed.c - decode and prefill by depth, pagoda beside the stock paths of the same library.
 *
 *     build/bench/speed [--model FILE] [--text FILE] [--depths 0,1024,2048,4096,8000] [--runs 5] [--tokens 32]
 *                       [--threads N]
 *
 * All engines live in one process and take turns at every depth, so that a slow moment of the machine meets all of
 * them; figures are medians over the runs. Filling up to a depth is not timed. Each run rewinds to the depth.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/bench.h"
#include "engine/stock.h"

#define ENGINES 4
#define DEPTHS_MAX 16
#define RUNS_MAX 25
#define PREFILL 512u
#define CHUNK 256u

struct engine {
    const char *name;
    struct pgd_stock *stock; /* or ... */
    struct pgd_bridge *bridge;
};

static void decode(struct engine *engine, const int32_t *tokens, uint32_t count, uint32_t outputs)
{
    struct pagoda_error error;
    enum pagoda_status status = engine->stock != NULL
                                    ? pgd_stock_decode(engine->stock, tokens, count, outputs, &error)
                                    : pgd_bridge_decode(engine->bridge, tokens, count, outputs, &error);
    bench_check(status, &error, engine->name);
}

static void rewind_to(struct engine *engine, uint64_t position)
{
    struct pagoda_error error;
    if (engine->stock != NULL) {
        pgd_stock_rewind(engine->stock, position);
        return;
    }
    struct pagoda_cache *cache = pgd_bridge_cache(engine->bridge);
    bench_check(pagoda_cache_rollback(cache, pagoda_cache_position(cache) - position, &error), &error, "rollback");
}

static void fill(struct engine *engine, const int32_t *tokens, uint64_t from, uint64_t to)
{
    while (from < to) {
        const uint32_t now = to - from < CHUNK ? (uint32_t) (to - from) : CHUNK;
        decode(engine, tokens + from, now, 1);
        from += now;
    }
}

/* Tokens a second of `count` single decodes after `depth`. */
static double time_decode(struct engine *engine, const int32_t *tokens, uint64_t depth, uint32_t count)
{
    const double start = bench_seconds();
    for (uint32_t i = 0; i < count; i++) {
        decode(engine, tokens + depth + i, 1, 1);
    }
    return count / (bench_seconds() - start);
}

static double time_prefill(struct engine *engine, const int32_t *tokens, uint64_t depth)
{
    const double start = bench_seconds();
    fill(engine, tokens, depth, depth + PREFILL);
    return PREFILL / (bench_seconds() - start);
}

static uint32_t open_engines(int argc, char **argv, const struct pgd_model *model, uint64_t tokens,
                             struct engine *engines)
{
    struct pagoda_error error;
    const uint32_t threads = (uint32_t) bench_number(argc, argv, "--threads", 0);
    const struct pgd_stock_options stock[] = {
        {.path = PGD_STOCK_FLASH}, {.path = PGD_STOCK_CLASSIC}, {.path = PGD_STOCK_FLASH, .quantized = true}};
    const struct pgd_bridge_options options = {.tokens_max = tokens, .threads = threads};
    engines[0] = (struct engine) {.name = "pagoda f16"};
    bench_check(pgd_bridge_open(model, &options, &engines[0].bridge, &error), &error, "pagoda");
    for (uint32_t i = 0; i < 3; i++) {
        struct pgd_stock_options with = stock[i];
        with.context_tokens = (uint32_t) ((tokens + 255) / 256 * 256);
        with.batch_tokens = CHUNK;
        with.outputs_max = 1;
        with.threads = threads;
        engines[1 + i] = (struct engine) {.name = pgd_stock_name(&with)};
        bench_check(pgd_stock_open(model, &with, &engines[1 + i].stock, &error), &error, engines[1 + i].name);
    }
    return ENGINES;
}

struct result {
    double decode[ENGINES][RUNS_MAX];
    double prefill[ENGINES][RUNS_MAX];
};

static void print_row(const char *what, uint64_t depth, double values[ENGINES][RUNS_MAX], uint32_t runs)
{
    double medians[ENGINES];
    double best_stock = 0;
    for (int e = 0; e < ENGINES; e++) {
        medians[e] = bench_median(values[e], runs);
        best_stock = e > 0 && medians[e] > best_stock ? medians[e] : best_stock;
    }
    printf("| %-12s | %6llu |", what, (unsigned long long) depth);
    for (int e = 0; e < ENGINES; e++) {
        printf(" %9.1f |", medians[e]);
    }
    printf(" %5.2f |\n", medians[0] / best_stock);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t depths[DEPTHS_MAX];
    uint32_t depth_count = 0;
    char list[256];
    snprintf(list, sizeof(list), "%s", bench_option(argc, argv, "--depths", "0,1024,2048,4096,7500"));
    char *rest = list;
    for (char *item; (item = strsep(&rest, ",")) != NULL && depth_count < DEPTHS_MAX;) {
        depths[depth_count++] = strtoull(item, NULL, 10);
    }
    const uint32_t runs = (uint32_t) bench_number(argc, argv, "--runs", 5);
    const uint32_t count = (uint32_t) bench_number(argc, argv, "--tokens", 32);
    struct pgd_model *model = bench_open_model(argc, argv);
    const uint64_t total = depths[depth_count - 1] + PREFILL + count;
    int32_t *tokens =
        bench_tokens(model, bench_option(argc, argv, "--text", "build/texts/debian-handbook.txt"), 0, total);
    struct engine engines[ENGINES];
    open_engines(argc, argv, model, total, engines);

    printf("%s; tokens a second, medians of %u runs; ratio: pagoda / best stock path\n\n",
           pgd_model_get_info(model)->name, runs);
    printf("| what         |  depth |");
    for (int e = 0; e < ENGINES; e++) {
        printf(" %s |", engines[e].name);
    }
    printf(" ratio |\n|---|---|---|---|---|---|---|\n");
    static struct result result;
    uint64_t filled = 0;
    for (uint32_t d = 0; d < depth_count; d++) {
        for (int e = 0; e < ENGINES; e++) {
            fill(&engines[e], tokens, filled, depths[d]);
        }
        filled = depths[d];
        for (uint32_t run = 0; run < runs; run++) {
            for (int e = 0; e < ENGINES; e++) {
                result.decode[e][run] = time_decode(&engines[e], tokens, filled, count);
                rewind_to(&engines[e], filled);
                result.prefill[e][run] = time_prefill(&engines[e], tokens, filled);
                rewind_to(&engines[e], filled);
            }
        }
        print_row("decode", filled, result.decode, runs);
        print_row("prefill 512", filled, result.prefill, runs);
    }
    pgd_bridge_close(engines[0].bridge);
    for (int e = 1; e < ENGINES; e++) {
        pgd_stock_close(engines[e].stock);
    }
    pgd_model_close(model);
    free(tokens);
    return 0;
}
