/* cli/bench_row.h - one line of the benchmark's table: one engine at one depth. Pure; any thread. */
#ifndef PGD_CLI_BENCH_ROW_H
#define PGD_CLI_BENCH_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

enum pgd_bench_test { PGD_BENCH_DECODE = 0, PGD_BENCH_PREFILL, PGD_BENCH_TESTS };

/* "decode", "prefill". */
const char *pgd_bench_test_name(enum pgd_bench_test test);

struct pgd_bench_row {
    enum pgd_bench_test test;
    char engine[96];
    bool own; /* pagoda, not a peer */
    uint64_t depth;
    uint64_t tokens;                     /* of one run */
    double samples[PGD_REPETITIONS_MAX]; /* tokens a second, in the order of the runs */
    uint32_t runs;

    /* Decode only: what one token reads, in bytes; 0: unknown. */
    uint64_t weights_bytes;
    uint64_t kv_bytes;

    /* What follows from the above; 0: unknown. */
    double median;
    double least;
    double most;
    double gb_per_s;   /* (weights_bytes + kv_bytes) * median */
    double dram_share; /* of what the machine can read */
    double ratio;      /* median / the best peer's median, same test and depth: the best peer has 1 */
};

/* Fills in what follows. `rows` are all rows of one depth; dram_gb_per_s 0: unknown. */
void pgd_bench_rows_settle(struct pgd_bench_row *rows, size_t count, double dram_gb_per_s);

#endif
