/* cli/eval_passkey.c - the grid of hidden numbers: lengths of text x depths in it; see eval.h. */
#include <stdlib.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/eval.h"
#include "cli/interrupt.h"
#include "engine/passkey.h"
#include "engine/rng.h"

static const uint64_t usual_lengths[] = {1024, 2048, 4096};
#define USUAL_LENGTHS (sizeof(usual_lengths) / sizeof(usual_lengths[0]))

/* How late in a text its filler may start: the last part has to be long enough. */
#define LATEST_START 0.7

uint64_t pgd_eval_length(const struct pgd_eval *eval, uint32_t index)
{
    const struct pgd_counts *given = &eval->options->lengths;
    if (given->count > 0) {
        return index < given->count ? given->items[index] : 0;
    }
    if (index >= USUAL_LENGTHS || (index > 0 && usual_lengths[index] > eval->info->trained_tokens)) {
        return 0;
    }
    return pgd_min_u64(usual_lengths[index], eval->info->trained_tokens);
}

static double depth_of(uint64_t index, uint64_t depths)
{
    return depths == 1 ? 0.5 : (double) index / (double) (depths - 1);
}

enum pagoda_status pgd_eval_plan_passkeys(struct pgd_eval *eval, struct pagoda_error *error)
{
    const uint32_t depths = (uint32_t) eval->options->depths;
    uint32_t lengths = 0;
    while (pgd_eval_length(eval, lengths) != 0) {
        lengths++;
    }
    eval->cells = calloc((size_t) lengths * depths, sizeof(*eval->cells));
    if (eval->cells == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u lengths and %u depths", lengths, depths);
    }
    for (uint32_t i = 0; i < lengths * depths; i++) {
        eval->cells[i].length = pgd_eval_length(eval, i / depths);
        eval->cells[i].depth = depth_of(i % depths, depths);
        eval->progress_total += 2 * eval->options->trials * eval->cells[i].length;
    }
    eval->cell_count = lengths * depths;
    return PAGODA_OK;
}

struct pgd_eval_filler pgd_eval_choose_filler(const struct pgd_eval *eval, uint32_t number, bool from_start)
{
    struct pgd_rng rng = {((uint64_t) eval->seed << 32) + number};
    const struct pgd_eval_text *text = &eval->texts.items[number % eval->texts.count];
    const double share = LATEST_START * (double) pgd_rng_below(&rng, 1000) / 1000;
    struct pgd_eval_filler filler = {.text = text, .seed = pgd_rng_next(&rng)};
    filler.bytes = pgd_eval_text_from(text, from_start ? 0 : share, &filler.count);
    return filler;
}

/* The prompt of trial `number`. */
static enum pagoda_status build(const struct pgd_eval *eval, const struct pgd_eval_cell *cell, uint32_t number,
                                struct pgd_passkey *passkey, struct pagoda_error *error)
{
    struct pagoda_error reason;
    enum pagoda_status status = PAGODA_INVALID;
    for (int attempt = 0; attempt < 2 && status == PAGODA_INVALID; attempt++) {
        const struct pgd_eval_filler filler = pgd_eval_choose_filler(eval, number, attempt == 1);
        const struct pgd_passkey_wanted wanted = {
            .filler = filler.bytes,
            .filler_bytes = filler.count,
            .tokens = cell->length,
            .depth = cell->depth,
            .seed = filler.seed,
            .raw = eval->options->raw,
        };
        status = pgd_passkey_build(eval->model, &wanted, passkey, &reason);
    }
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "%.200s, length %llu: %.240s",
                        pgd_eval_text_name(pgd_eval_choose_filler(eval, number, false).text),
                        (unsigned long long) cell->length, reason.message);
    }
    return PAGODA_OK;
}

static enum pagoda_status ask_one(struct pgd_eval *eval, struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                  uint64_t length, struct pgd_recall_answer *answer, struct pagoda_error *error)
{
    const struct pgd_feed_options feed = {
        .progress = pgd_eval_progress,
        .user = eval,
        .cancel = pgd_interrupt_flag(),
    };
    enum pagoda_status status = pgd_passkey_ask(bridge, passkey, &feed, answer, error);
    eval->progress_base += length;
    return status;
}

static enum pagoda_status run_trial(struct pgd_eval *eval, struct pgd_eval_cell *cell, uint32_t number,
                                    struct pagoda_error *error)
{
    struct pgd_passkey passkey = {.tokens = NULL};
    struct pgd_recall_answer exact;
    struct pgd_recall_answer tested;
    enum pagoda_status status = build(eval, cell, number, &passkey, error);
    if (status == PAGODA_OK) {
        status = ask_one(eval, eval->exact, &passkey, cell->length, &exact, error);
    }
    if (status == PAGODA_OK) {
        status = ask_one(eval, eval->tested, &passkey, cell->length, &tested, error);
    }
    if (status == PAGODA_OK) {
        cell->prompt_tokens += passkey.count;
        cell->key_tokens += passkey.key_count;
        status = pgd_eval_add_answers(cell, &eval->passkey_gaps, &exact, &tested, error);
    }
    pgd_passkey_free(&passkey);
    return status;
}

enum pagoda_status pgd_eval_ask_passkeys(struct pgd_eval *eval, struct pagoda_error *error)
{
    const uint32_t trials = (uint32_t) eval->options->trials;
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; i < eval->cell_count * trials && status == PAGODA_OK; i++) {
        status = run_trial(eval, &eval->cells[i / trials], i, error);
    }
    return status;
}

static void add_answers(struct pgd_eval_answers *sum, const struct pgd_eval_answers *answers)
{
    sum->written += answers->written;
    sum->chosen += answers->chosen;
    sum->nll += answers->nll;
}

struct pgd_eval_cell pgd_eval_sum_cells(const struct pgd_eval *eval)
{
    struct pgd_eval_cell sum = {.length = 0};
    for (uint32_t i = 0; i < eval->cell_count; i++) {
        const struct pgd_eval_cell *cell = &eval->cells[i];
        sum.trials += cell->trials;
        sum.prompt_tokens += cell->prompt_tokens;
        sum.dropped += cell->dropped;
        sum.quantized += cell->quantized;
        sum.spilled += cell->spilled;
        sum.key_tokens += cell->key_tokens;
        sum.key_held += cell->key_held;
        sum.unread += cell->unread;
        sum.rereads_exact += cell->rereads_exact;
        sum.rereads_tested += cell->rereads_tested;
        add_answers(&sum.exact, &cell->exact);
        add_answers(&sum.tested, &cell->tested);
        sum.written_both += cell->written_both;
        sum.chosen_both += cell->chosen_both;
    }
    return sum;
}
