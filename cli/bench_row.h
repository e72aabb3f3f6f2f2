/* cli/bench_row.h - one line of the benchmark's table: one engine at one depth. Pure; any thread. */
#ifndef PGD_CLI_BENCH_ROW_H
#define PGD_CLI_BENCH_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"
#include "engine/contender.h"

enum pgd_bench_test { PGD_BENCH_DECODE = 0, PGD_BENCH_PREFILL, PGD_BENCH_TESTS };

/* "decode", "prefill". */
const char *pgd_bench_test_name(enum pgd_bench_test test);

struct pgd_bench_row {
    enum pgd_bench_test test;
    char engine[96];
    bool own;       /* pagoda, not a peer */
    bool in_memory; /* pagoda with everything in memory: what spilling is compared with */
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
    double gb_per_s;     /* (weights_bytes + kv_bytes) * median */
    double dram_share;   /* of what the machine can read */
    double ratio;        /* median / the best peer's median, same test and depth: the best peer has 1 */
    double memory_ratio; /* median / that of the row in_memory, same test and depth */

    /* Decode only: the tokens of all runs, as far as they were timed one by one (p50_ms is 0 where they were not). */
    double p50_ms;
    double p99_ms;
    double most_ms;

    /* The same with pages on flash (spills): on average for a token, but for what is said to be the most, or a sum. */
    bool spills;
    double stall_ms;
    double stall_most_ms;
    double flash_bytes;
    double unread_tokens;
    uint64_t late_pages; /* sum */
    double unread_mass;  /* share of the attention that was expected in what was not read */
};

/* What the tokens of all runs took; there is at least one. Sorts `tokens`. */
void pgd_bench_row_count_tokens(struct pgd_bench_row *row, struct pgd_contender_token *tokens, size_t count);

/* Fills in what follows. `rows` are all rows of one depth; dram_gb_per_s 0: unknown. */
void pgd_bench_rows_settle(struct pgd_bench_row *rows, size_t count, double dram_gb_per_s);

#endif
