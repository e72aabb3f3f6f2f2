/* bench/stock_run.c - the stock library doing what `pagoda run` does, for comparison under a memory limit.
 *
 *     build/bench/stock_run [--model FILE] --text FILE [--context 8192] [--predict 32]
 *
 * Reads the whole text as a prompt, generates greedily, and prints what it needed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bench/common/bench.h"
#include "engine/score.h"
#include "engine/stock.h"

#define BATCH 512u /* llama.cpp's own default */

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t) info.st_size : 0;
}

int main(int argc, char **argv)
{
    struct pagoda_error error;
    struct pgd_model *model = bench_open_model(argc, argv);
    const char *path = bench_option(argc, argv, "--text", "build/texts/debian-handbook.txt");
    const uint64_t predict = bench_number(argc, argv, "--predict", 32);
    const struct pgd_stock_options options = {
        .path = PGD_STOCK_FLASH,
        .context_tokens = (uint32_t) bench_number(argc, argv, "--context", 8192),
        .batch_tokens = BATCH,
        .outputs_max = 1,
    };
    struct pgd_stock *stock = NULL;
    bench_check(pgd_stock_open(model, &options, &stock, &error), &error, "stock engine");
    uint64_t count = 0;
    int32_t *tokens = bench_all_tokens(model, path, file_bytes(path), &count);
    for (uint64_t done = 0; done < count;) {
        const uint32_t now = count - done < BATCH ? (uint32_t) (count - done) : BATCH;
        bench_check(pgd_stock_decode(stock, tokens + done, now, 1, &error), &error, "stock engine");
        done += now;
    }
    for (uint64_t i = 0; i < predict; i++) {
        const int32_t token = pgd_score_top(pgd_stock_logits(stock, 0), pgd_model_get_info(model)->vocabulary);
        char piece[PGD_PIECE_BYTES_MAX];
        fwrite(piece, 1, pgd_model_piece(model, token, true, piece), stdout);
        fflush(stdout); /* whoever presses it waits for the first token */
        bench_check(pgd_stock_decode(stock, &token, 1, 1, &error), &error, "stock engine");
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("\nstock: %llu prompt tokens, peak resident %.1f MiB\n", (unsigned long long) count,
           (double) usage.ru_maxrss / 1024.0);
    pgd_stock_close(stock);
    pgd_model_close(model);
    free(tokens);
    return 0;
}
