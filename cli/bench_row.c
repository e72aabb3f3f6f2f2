/* cli/bench_row.c - see bench_row.h. */
#include "cli/bench_row.h"

#include <stdlib.h>
#include <string.h>

#include "engine/statistics.h"

const char *pgd_bench_test_name(enum pgd_bench_test test)
{
    return test == PGD_BENCH_DECODE ? "decode" : "prefill";
}

static int by_seconds(const void *a, const void *b)
{
    const double x = ((const struct pgd_contender_token *) a)->seconds;
    const double y = ((const struct pgd_contender_token *) b)->seconds;
    return (x > y) - (x < y);
}

/* The time within which a share of the tokens was there: the nearest rank, so that it is one that was measured. */
static double milliseconds_at(const struct pgd_contender_token *sorted, size_t count, double share)
{
    const size_t rank = (size_t) (share * (double) count + 0.999999);
    return sorted[rank > 0 ? rank - 1 : 0].seconds * 1e3;
}

void pgd_bench_row_count_tokens(struct pgd_bench_row *row, struct pgd_contender_token *tokens, size_t count)
{
    qsort(tokens, count, sizeof(*tokens), by_seconds);
    row->p50_ms = milliseconds_at(tokens, count, 0.5);
    row->p99_ms = milliseconds_at(tokens, count, 0.99);
    row->most_ms = tokens[count - 1].seconds * 1e3;
    for (size_t i = 0; i < count; i++) {
        const double stall_ms = tokens[i].stalled_seconds * 1e3;
        row->stall_most_ms = stall_ms > row->stall_most_ms ? stall_ms : row->stall_most_ms;
        row->stall_ms += stall_ms / (double) count;
        row->flash_bytes += (double) tokens[i].flash_bytes / (double) count;
        row->unread_tokens += (double) tokens[i].unread / (double) count;
        row->late_pages += tokens[i].late_pages;
    }
}

static void settle(struct pgd_bench_row *row, double dram_gb_per_s)
{
    double sorted[PGD_REPETITIONS_MAX];
    memcpy(sorted, row->samples, row->runs * sizeof(sorted[0]));
    row->median = pgd_statistics_median(sorted, row->runs);
    row->least = sorted[0];
    row->most = sorted[row->runs - 1];
    if (row->kv_bytes != 0) {
        row->gb_per_s = (double) (row->weights_bytes + row->kv_bytes) * row->median * 1e-9;
        row->dram_share = dram_gb_per_s > 0 ? row->gb_per_s / dram_gb_per_s : 0;
    }
}

void pgd_bench_rows_settle(struct pgd_bench_row *rows, size_t count, double dram_gb_per_s)
{
    double best[PGD_BENCH_TESTS] = {0};
    double in_memory[PGD_BENCH_TESTS] = {0};
    for (size_t i = 0; i < count; i++) {
        settle(&rows[i], dram_gb_per_s);
        if (!rows[i].own && rows[i].median > best[rows[i].test]) {
            best[rows[i].test] = rows[i].median;
        }
        if (rows[i].in_memory) {
            in_memory[rows[i].test] = rows[i].median;
        }
    }
    for (size_t i = 0; i < count; i++) {
        const enum pgd_bench_test test = rows[i].test;
        rows[i].ratio = best[test] > 0 ? rows[i].median / best[test] : 0;
        rows[i].memory_ratio = in_memory[test] > 0 && rows[i].own ? rows[i].median / in_memory[test] : 0;
    }
}
