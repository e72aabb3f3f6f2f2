/* cli/bench_row.c - see bench_row.h. */
#include "cli/bench_row.h"

#include <string.h>

#include "engine/statistics.h"

const char *pgd_bench_test_name(enum pgd_bench_test test)
{
    return test == PGD_BENCH_DECODE ? "decode" : "prefill";
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
    for (size_t i = 0; i < count; i++) {
        settle(&rows[i], dram_gb_per_s);
        if (!rows[i].own && rows[i].median > best[rows[i].test]) {
            best[rows[i].test] = rows[i].median;
        }
    }
    for (size_t i = 0; i < count; i++) {
        rows[i].ratio = best[rows[i].test] > 0 ? rows[i].median / best[rows[i].test] : 0;
    }
}
