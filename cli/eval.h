/* cli/eval.h - what `pagoda eval` has found out, for those who measure it and those who tell it. */
#ifndef PGD_CLI_EVAL_H
#define PGD_CLI_EVAL_H

#include "cli/eval_texts.h"
#include "cli/progress.h"
#include "engine/bridge.h"
#include "engine/recall.h"
#include "engine/statistics.h"
#include "engine/tally.h"
#include "engine/tasks.h"

/* What the tested cache, and the exact one, held at the end of a document. */
struct pgd_eval_held {
    struct pagoda_account account; /* tested */
    uint64_t exact_bytes;          /* K and V in whatever form, and digests */
    uint64_t tested_bytes;
};

/* Answers to the pass keys of one length and depth, or of all; or to questions of one task. */
struct pgd_eval_answers {
    uint32_t written; /* right by greedy reply */
    uint32_t chosen;  /* right by choice among ten */
    double nll;       /* sum */
};
struct pgd_eval_cell {
    uint64_t length; /* as asked for */
    double depth;
    uint32_t trials;
    uint64_t prompt_tokens; /* sums over the trials */
    uint64_t dropped;       /* when the question had been read */
    uint64_t quantized;
    uint64_t spilled;
    uint64_t key_tokens;
    uint64_t key_held;
    uint64_t unread;        /* spilled, and not read when the answer began */
    uint64_t rereads_exact; /* how often a prompt was read again since the cache could not go back */
    uint64_t rereads_tested;
    struct pgd_eval_answers exact;
    struct pgd_eval_answers tested;
    uint32_t written_both; /* of those that the exact cache got right, how many the tested did too */
    uint32_t chosen_both;
};

/* NLL of the right answer, tested minus exact, of one question after the other. */
struct pgd_eval_gaps {
    double *items;
    uint32_t count;
    uint32_t room;
};

/* The questions of one task and length that count as one thing. */
struct pgd_eval_row {
    const struct pgd_task *task;
    const char *group; /* the task's name, or that of a control */
    struct pgd_eval_cell cell;
    struct pgd_eval_gaps gaps;
};

/* One evaluation. Ownership: borrows options and terminal, owns the rest (see eval.c). */
struct pgd_eval {
    const struct pgd_options *options;
    const struct pgd_terminal *terminal;
    struct pgd_eval_texts texts;
    struct pgd_model *model;
    const struct pgd_model_info *info;
    struct pgd_bridge *exact;
    struct pgd_bridge *tested;
    struct pgd_bridge *noise; /* NULL unless asked for: rounded to 15 bits and nothing else */
    uint32_t seed;
    bool partial; /* interrupted: what follows is what was measured up to there */

    uint64_t document_tokens;
    uint32_t document_count; /* as asked for; 0 when only pass keys are */
    struct pgd_eval_document *documents;
    struct pgd_eval_held *held; /* of the `held_count` documents that were read to their end */
    uint32_t held_count;
    struct pgd_tally *tally;
    struct pgd_tally_summary summary;
    struct pgd_tally *noise_tally;
    struct pgd_tally_summary noise_summary;

    struct pgd_eval_cell *cells;
    uint32_t cell_count; /* as asked for; cells without trials were not reached */
    struct pgd_eval_gaps passkey_gaps;

    struct pgd_eval_row *rows; /* of what was reached; those without trials only nearly */
    uint32_t row_count;
    struct pagoda_memory memory; /* of the tested cache */

    struct pgd_progress progress;
    uint64_t progress_base;
    uint64_t progress_total;
};

/* For the engine's progress: counts on from progress_base; `user` is the evaluation. */
void pgd_eval_progress(void *user, uint64_t done, uint64_t count);

/* The pass keys: how they are laid out, and the asking. Errors: those of engine/passkey.h. */
uint64_t pgd_eval_length(const struct pgd_eval *eval, uint32_t index); /* 0: no such length */
PGD_MUST_CHECK enum pagoda_status pgd_eval_plan_passkeys(struct pgd_eval *eval, struct pagoda_error *error);
PGD_MUST_CHECK enum pagoda_status pgd_eval_ask_passkeys(struct pgd_eval *eval, struct pagoda_error *error);
struct pgd_eval_cell pgd_eval_sum_cells(const struct pgd_eval *eval);

/* Text for prompts of number `number`: another one each time, from another place, by the seed; `from_start` takes the
 * text from its start, which is the longest it has. */
struct pgd_eval_filler {
    const struct pgd_eval_text *text;
    const char *bytes;
    size_t count;
    uint64_t seed; /* for what is put into it */
};
struct pgd_eval_filler pgd_eval_choose_filler(const struct pgd_eval *eval, uint32_t number, bool from_start);

/* Adds a question's answers to a cell, and to its gaps. Errors: NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_eval_add_answers(struct pgd_eval_cell *cell, struct pgd_eval_gaps *gaps,
                                                       const struct pgd_recall_answer *exact,
                                                       const struct pgd_recall_answer *tested,
                                                       struct pagoda_error *error);

/* 95 % interval of the mean gap; NaN when there are too few to say. */
struct pgd_interval pgd_eval_gap_interval(const struct pgd_eval_gaps *gaps, uint64_t seed);

/* The tasks of engine/tasks.h. */
bool pgd_eval_measures(const struct pgd_eval *eval, uint32_t bit);
void pgd_eval_plan_tasks(struct pgd_eval *eval);
PGD_MUST_CHECK enum pagoda_status pgd_eval_ask_tasks(struct pgd_eval *eval, struct pagoda_error *error);
void pgd_eval_free_rows(struct pgd_eval *eval);

/* Mean KLD of the tested cache in noise floors; NaN when the floor was not measured, or is none. */
double pgd_eval_floors(const struct pgd_eval *eval);

/* Whether the tested setting did anything: dropped, quantized or spilled, in documents and in pass keys. */
bool pgd_eval_has_acted(const struct pgd_eval *eval);

/* Warning `index` into `text`; false when there is none of that number. */
#define PGD_EVAL_WARNING_BYTES 320u
bool pgd_eval_warning(const struct pgd_eval *eval, uint32_t index, char *text);

/* The report as a table, and as one line of JSON. */
void pgd_eval_write_table(const struct pgd_eval *eval, struct pgd_buffer *text);
void pgd_eval_write_json(const struct pgd_eval *eval, struct pgd_buffer *line);

#endif
