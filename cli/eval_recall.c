/* cli/eval_recall.c - questions about what was read: which, asked of both caches, and added up; see eval.h.
 *
 * A text is read once by each cache, then its questions are put to both in turn, so that an interruption leaves pairs.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/eval.h"
#include "cli/interrupt.h"

#define ROUND_QUESTIONS 50u    /* so many questions ask for different things; more of them ask in other words */
#define QUESTION_PROGRESS 64u  /* what a question counts for beside the tokens of a text */
#define QUIZZES_MAX (1u << 16) /* of one task: keeps their seeds apart */
#define GAPS_MIN 8u            /* fewer say nothing about how sure their mean is */
#define GAP_DRAWS 2000u
#define SPREAD \
    7u /* items are asked in steps of it, so that a few come from all over the text; it has no
                                 * divisor in common with any quiz's number of items */

/* ---- adding up ---- */

static void add_answer(struct pgd_eval_answers *answers, const struct pgd_recall_answer *answer)
{
    answers->written += answer->written ? 1 : 0;
    answers->chosen += answer->chosen ? 1 : 0;
    answers->nll += answer->nll;
}

static enum pagoda_status add_gap(struct pgd_eval_gaps *gaps, double gap, struct pagoda_error *error)
{
    if (gaps->count == gaps->room) {
        const uint32_t room = gaps->room == 0 ? 16 : 2 * gaps->room;
        double *items = realloc(gaps->items, room * sizeof(*items));
        if (items == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for the answers to %u questions", room);
        }
        gaps->items = items;
        gaps->room = room;
    }
    gaps->items[gaps->count++] = gap;
    return PAGODA_OK;
}

enum pagoda_status pgd_eval_add_answers(struct pgd_eval_cell *cell, struct pgd_eval_gaps *gaps,
                                        const struct pgd_recall_answer *exact, const struct pgd_recall_answer *tested,
                                        struct pagoda_error *error)
{
    cell->trials++;
    cell->dropped += tested->account.dropped;
    cell->quantized += tested->account.quantized;
    cell->spilled += tested->account.spilled;
    cell->unread += tested->account.unread;
    cell->key_held += tested->fact_held;
    cell->rereads_exact += exact->rereads;
    cell->rereads_tested += tested->rereads;
    add_answer(&cell->exact, exact);
    add_answer(&cell->tested, tested);
    cell->written_both += exact->written && tested->written ? 1 : 0;
    cell->chosen_both += exact->chosen && tested->chosen ? 1 : 0;
    return add_gap(gaps, tested->nll - exact->nll, error);
}

static void evaluate_gaps(const void *user, const uint32_t *picks, size_t count, double *values)
{
    const struct pgd_eval_gaps *gaps = user;
    values[0] = 0;
    for (size_t i = 0; i < count; i++) {
        values[0] += gaps->items[picks[i]] / (double) count;
    }
}

struct pgd_interval pgd_eval_gap_interval(const struct pgd_eval_gaps *gaps, uint64_t seed)
{
    struct pgd_interval interval = {NAN, NAN};
    struct pagoda_error ignored; /* without memory there is no interval, and still a report */
    const struct pgd_bootstrap bootstrap = {
        .evaluate = evaluate_gaps,
        .user = gaps,
        .item_count = gaps->count,
        .value_count = 1,
        .draws = GAP_DRAWS,
        .seed = seed,
    };
    if (gaps->count < GAPS_MIN || pgd_statistics_bootstrap(&bootstrap, &interval, &ignored) != PAGODA_OK) {
        return (struct pgd_interval) {NAN, NAN};
    }
    return interval;
}

/* ---- rows ---- */

static enum pagoda_status find_row(struct pgd_eval *eval, const struct pgd_task *task, const char *group,
                                   uint64_t length, struct pgd_eval_row **row, struct pagoda_error *error)
{
    for (uint32_t i = 0; i < eval->row_count; i++) {
        if (eval->rows[i].group == group && eval->rows[i].cell.length == length) {
            *row = &eval->rows[i];
            return PAGODA_OK;
        }
    }
    struct pgd_eval_row *rows = realloc(eval->rows, (eval->row_count + 1) * sizeof(*rows));
    if (rows == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the answers to questions");
    }
    eval->rows = rows;
    *row = &rows[eval->row_count++];
    **row = (struct pgd_eval_row) {.task = task, .group = group, .cell = {.length = length}};
    return PAGODA_OK;
}

void pgd_eval_free_rows(struct pgd_eval *eval)
{
    for (uint32_t i = 0; i < eval->row_count; i++) {
        free(eval->rows[i].gaps.items);
    }
    free(eval->rows);
}

/* ---- planning ---- */

bool pgd_eval_measures(const struct pgd_eval *eval, uint32_t bit)
{
    return (eval->options->measured & bit) != 0;
}

static bool has_task(const struct pgd_eval *eval, uint32_t index)
{
    return pgd_eval_measures(eval, (uint32_t) PGD_MEASURE_TASK << index);
}

static uint32_t rounds_of(const struct pgd_eval *eval, const struct pgd_task *task)
{
    return (uint32_t) pgd_min_u64(task->rounds_max, pgd_div_up_u64(eval->options->questions, ROUND_QUESTIONS));
}

static uint32_t quizzes_of(const struct pgd_eval *eval, const struct pgd_task *task)
{
    return (uint32_t) pgd_div_up_u64(eval->options->questions, (uint64_t) task->questions * rounds_of(eval, task));
}

/* What a text with its questions counts for in the progress, for both caches. */
static uint64_t work_of(const struct pgd_eval *eval, const struct pgd_task *task, uint64_t length)
{
    return 2 * (length + (uint64_t) QUESTION_PROGRESS * task->questions * rounds_of(eval, task));
}

void pgd_eval_plan_tasks(struct pgd_eval *eval)
{
    for (uint32_t i = 0; pgd_task_at(i) != NULL; i++) {
        for (uint32_t j = 0; has_task(eval, i) && pgd_eval_length(eval, j) != 0; j++) {
            eval->progress_total +=
                quizzes_of(eval, pgd_task_at(i)) * work_of(eval, pgd_task_at(i), pgd_eval_length(eval, j));
        }
    }
}

/* ---- asking ---- */

/* One text and its questions. */
struct sitting {
    struct pgd_eval *eval;
    const struct pgd_task *task;
    uint64_t length;
    uint32_t left; /* questions of the task that are still to be asked, controls not counted */
    struct pgd_quiz quiz;
};

/* `number` is the same for all lengths, so that the same is asked in all of them. */
static enum pagoda_status build(struct sitting *sitting, uint32_t number, struct pagoda_error *error)
{
    const struct pgd_eval *eval = sitting->eval;
    struct pagoda_error reason;
    enum pagoda_status status = PAGODA_INVALID;
    for (int attempt = 0; attempt < 2 && status == PAGODA_INVALID; attempt++) {
        const struct pgd_eval_filler filler = pgd_eval_choose_filler(eval, number, attempt == 1);
        const struct pgd_quiz_wanted wanted = {
            .filler = filler.bytes,
            .filler_bytes = filler.count,
            .tokens = sitting->length,
            .seed = filler.seed,
            .rounds = rounds_of(eval, sitting->task),
            .raw = eval->options->raw,
            .page_tokens = (uint32_t) eval->options->page,
        };
        pgd_quiz_close(&sitting->quiz);
        status = sitting->task->build(eval->model, &wanted, &sitting->quiz, &reason);
    }
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "%s of %llu tokens, with %.160s: %.240s", sitting->task->name,
                        (unsigned long long) sitting->length,
                        pgd_eval_text_name(pgd_eval_choose_filler(eval, number, false).text), reason.message);
    }
    return PAGODA_OK;
}

static enum pagoda_status read_text(struct sitting *sitting, struct pgd_bridge *bridge, struct pagoda_error *error)
{
    const struct pgd_feed_options feed = {
        .progress = pgd_eval_progress,
        .user = sitting->eval,
        .cancel = pgd_interrupt_flag(),
    };
    const struct pgd_recall_question question = pgd_quiz_question(&sitting->quiz, 0);
    enum pagoda_status status = pgd_recall_start(bridge, &question, &feed, error);
    sitting->eval->progress_base += question.shared;
    return status;
}

static enum pagoda_status ask_item(struct sitting *sitting, uint32_t index, struct pagoda_error *error)
{
    struct pgd_eval *eval = sitting->eval;
    const struct pgd_feed_options feed = {.cancel = pgd_interrupt_flag()};
    const struct pgd_recall_question question = pgd_quiz_question(&sitting->quiz, index);
    struct pgd_recall_answer exact;
    struct pgd_recall_answer tested;
    struct pgd_eval_row *row = NULL;
    enum pagoda_status status = pgd_recall_ask(eval->exact, &question, &feed, &exact, error);
    if (status == PAGODA_OK) {
        status = pgd_recall_ask(eval->tested, &question, &feed, &tested, error);
    }
    if (status == PAGODA_OK) {
        status = find_row(eval, sitting->task, sitting->quiz.items[index].group, sitting->length, &row, error);
    }
    if (status == PAGODA_OK) {
        row->cell.prompt_tokens += question.count;
        row->cell.key_tokens += question.fact_count;
        status = pgd_eval_add_answers(&row->cell, &row->gaps, &exact, &tested, error);
    }
    pgd_eval_progress(eval, 2 * QUESTION_PROGRESS, 0);
    eval->progress_base += 2 * QUESTION_PROGRESS;
    return status;
}

/* Rows in the order of the items, whatever order they are asked in. */
static enum pagoda_status open_rows(struct sitting *sitting, struct pagoda_error *error)
{
    struct pgd_eval_row *row = NULL;
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; i < sitting->quiz.item_count && status == PAGODA_OK; i++) {
        status = find_row(sitting->eval, sitting->task, sitting->quiz.items[i].group, sitting->length, &row, error);
    }
    return status;
}

/* As many questions as are left of the task, and as many controls. */
static enum pagoda_status ask_items(struct sitting *sitting, struct pagoda_error *error)
{
    const uint32_t count = sitting->quiz.item_count;
    const uint32_t wanted = (uint32_t) pgd_min_u64(sitting->left, count);
    uint32_t asked[2] = {0, 0}; /* questions, controls */
    enum pagoda_status status = open_rows(sitting, error);
    for (uint32_t i = 0; i < count && status == PAGODA_OK; i++) {
        const uint32_t index = (uint32_t) ((uint64_t) i * SPREAD % count);
        const bool is_control = strcmp(sitting->quiz.items[index].group, sitting->task->name) != 0;
        if (asked[is_control] < wanted) {
            asked[is_control]++;
            status = ask_item(sitting, index, error);
        }
    }
    sitting->left -= asked[false];
    return status;
}

static enum pagoda_status run_task(struct pgd_eval *eval, uint32_t index, uint64_t length, struct pagoda_error *error)
{
    struct sitting sitting = {
        .eval = eval,
        .task = pgd_task_at(index),
        .length = length,
        .left = (uint32_t) eval->options->questions,
    };
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; sitting.left > 0 && status == PAGODA_OK; i++) {
        const uint64_t done = eval->progress_base + work_of(eval, sitting.task, length);
        status = build(&sitting, index * QUIZZES_MAX + i, error);
        if (status == PAGODA_OK) {
            status = read_text(&sitting, eval->exact, error);
        }
        if (status == PAGODA_OK) {
            status = read_text(&sitting, eval->tested, error);
        }
        if (status == PAGODA_OK) {
            status = ask_items(&sitting, error);
        }
        eval->progress_base = done;
        pgd_quiz_close(&sitting.quiz);
    }
    return status;
}

enum pagoda_status pgd_eval_ask_tasks(struct pgd_eval *eval, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; pgd_task_at(i) != NULL && status == PAGODA_OK; i++) {
        for (uint32_t j = 0; has_task(eval, i) && pgd_eval_length(eval, j) != 0 && status == PAGODA_OK; j++) {
            status = run_task(eval, i, pgd_eval_length(eval, j), error);
        }
    }
    return status;
}
