/* cli/bench_report.h - the benchmark's table in four formats, and the header that says where it comes from.
 *
 *   text, md   the header, the rows of each depth as soon as they are there; with --on-full spill a second table about
 *              single tokens; then the notes
 *   csv        a line of names, then the rows with the header repeated in each; notes go to standard error
 *   json       one object on one line at the end; fields are added, never renamed
 *
 * Ownership: borrows the header's texts. Threads: the main thread.
 */
#ifndef PGD_CLI_BENCH_REPORT_H
#define PGD_CLI_BENCH_REPORT_H

#include "cli/bandwidth.h"
#include "cli/bench_row.h"
#include "cli/buffer.h"
#include "cli/terminal.h"
#include "engine/model.h"

struct json_t;

struct pgd_bench_report {
    enum pgd_output format;
    const struct pgd_terminal *terminal;
    const struct pgd_model_info *model;
    const struct pgd_options *options;
    const char *level; /* of the kernels */
    uint32_t threads;
    struct pgd_bandwidth dram;

    char cpu[128];
    char date[16];
    struct pgd_buffer notes; /* each ends with a newline */
    struct pgd_buffer flash; /* text and md: the second table, about single tokens, when pages went to flash */
    struct json_t *rows;
};

/* Prints what comes before the rows. The members above the blank line are filled in by the caller. */
void pgd_bench_report_start(struct pgd_bench_report *report);

/* The settled rows of one depth. */
void pgd_bench_report_add(struct pgd_bench_report *report, const struct pgd_bench_row *rows, size_t count);

/* Something that a reader of the table must know. */
void pgd_bench_report_note(struct pgd_bench_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints what comes after the rows; false when there was no memory for it. */
PGD_MUST_CHECK bool pgd_bench_report_finish(struct pgd_bench_report *report);

void pgd_bench_report_free(struct pgd_bench_report *report);

#endif
