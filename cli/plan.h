/* cli/plan.h - what `pagoda plan` found out about one model, and how it is told.
 *
 * Ownership: the command's; the tellers borrow it. Threads: one.
 */
#ifndef PGD_CLI_PLAN_H
#define PGD_CLI_PLAN_H

#include "cli/buffer.h"
#include "cli/options.h"
#include "engine/plan.h"

/* Budgets and contexts are told for these. */
#define PGD_PLAN_CODECS 6u
#define PGD_PLAN_ROWS_MAX 10u

struct pgd_plan_context {
    uint64_t tokens;
    uint64_t row_bytes;              /* the f16 rows and states alone */
    uint64_t bytes[PGD_PLAN_CODECS]; /* of a budget that holds so many; 0: cannot be told */
};

struct pgd_plan_line {
    uint64_t budget_bytes;
    uint64_t tokens[1 + PGD_PLAN_CODECS]; /* auto first; 0: not one page in each layer */
};

struct pgd_planned {
    const struct pgd_options *options;
    const char *path; /* or what --shape said */
    const struct pgd_shape *shape;
    struct pgd_plan *plan;
    struct pgd_plan_rows rows;
    uint64_t compute_bytes;
    uint64_t mem_bytes; /* --mem; 0: not given */
    uint64_t available_bytes;

    uint64_t wanted_tokens; /* -c, or the trained context; 0: not known */
    uint64_t wanted_bytes;  /* a KV budget that holds them as they settle */
    uint64_t budget_bytes;  /* that was asked for, or chosen */
    bool has_reservation;   /* the budget holds anything at all */
    struct pagoda_reservation reservation;
    uint64_t easy_bytes;         /* about the least budget in which no digest is of more than it must be; 0: this one */
    enum pagoda_on_full on_full; /* of that reservation */
    char fallback[256];          /* why it is not the default, or "" */
    bool fits;
    char problem[256];    /* why there is no reservation, or "" */
    uint64_t most_tokens; /* that the budget holds in the finest codec that holds them all, or else in any ... */
    enum pagoda_codec most_codec; /* ... and that one */

    struct pgd_plan_context contexts[PGD_PLAN_ROWS_MAX];
    size_t context_count;
    struct pgd_plan_line lines[PGD_PLAN_ROWS_MAX];
    size_t line_count;
};

/* Weights and their copies, compute buffers, states and the program: all but the KV budget. */
uint64_t pgd_planned_fixed_bytes(const struct pgd_planned *planned);

/* Copies beside mapped weights; with --no-mmap there are none beside. */
uint64_t pgd_planned_copied_bytes(const struct pgd_planned *planned);

/* The codecs of the tables, and their words. */
extern const enum pagoda_codec pgd_plan_codecs[PGD_PLAN_CODECS];

/* Adds a page of text, one line of it, or one line of JSON. */
void pgd_plan_text(const struct pgd_planned *planned, struct pgd_buffer *text);
void pgd_plan_summary(const struct pgd_planned *planned, struct pgd_buffer *text);
void pgd_plan_json(const struct pgd_planned *planned, struct pgd_buffer *line);

/* "layers=32,heads=32,head_size=128,..." Errors: INVALID (the nearest name is told), RANGE. */
PGD_MUST_CHECK enum pagoda_status pgd_plan_parse_shape(const char *text, struct pgd_shape *shape,
                                                       struct pagoda_error *error);

#endif
