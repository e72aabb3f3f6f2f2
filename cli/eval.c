/* cli/eval.c - pagoda eval: what a setting costs in quality, against the exact cache of the same run.
 *
 * Two caches on one model: an exact one that holds all of the text as f16 rows, and the one that the flags ask for;
 * with --noise a third, whose pages are rounded to 15 bits, which shows what no setting can be better than.
 * All read the same documents in lockstep (engine/compare.h), and answer the same questions (engine/passkey.h).
 */
#include "cli/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/reply.h"
#include "cli/verbs.h"
#include "engine/compare.h"
#include "engine/passkey.h"

#define USUAL_DOCUMENT_TOKENS 4096u
#define DOCUMENT_TOKENS_MIN 16u
#define QUESTION_TOKENS 32u /* that a question and its answer take; where it is more, the text is read again */

/* ---- planning ---- */

static bool has_tasks(const struct pgd_eval *eval)
{
    return eval->options->measured >= PGD_MEASURE_TASK;
}

static uint64_t longest_text(const struct pgd_eval *eval)
{
    uint64_t longest = eval->document_count > 0 ? eval->document_tokens : 0;
    for (uint32_t i = 0; i < eval->cell_count; i++) {
        longest = pgd_max_u64(longest, eval->cells[i].length + PGD_RECALL_REPLY_TOKENS);
    }
    for (uint32_t i = 0; has_tasks(eval) && pgd_eval_length(eval, i) != 0; i++) {
        longest = pgd_max_u64(longest, pgd_eval_length(eval, i) + PGD_RECALL_REPLY_TOKENS);
    }
    return longest;
}

static enum pagoda_status cut_documents(struct pgd_eval *eval, struct pagoda_error *error)
{
    eval->documents = calloc((size_t) eval->document_count + 1, sizeof(*eval->documents));
    eval->held = calloc((size_t) eval->document_count + 1, sizeof(*eval->held));
    if (eval->documents == NULL || eval->held == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u documents", eval->document_count);
    }
    enum pagoda_status status =
        pgd_tally_open(eval->document_count * eval->document_tokens, eval->document_count, &eval->tally, error);
    if (status == PAGODA_OK && eval->options->noise && eval->document_count > 0) {
        status = pgd_tally_open(eval->document_count * eval->document_tokens, eval->document_count, &eval->noise_tally,
                                error);
    }
    for (uint32_t i = 0; i < eval->document_count && status == PAGODA_OK; i++) {
        status = pgd_eval_texts_cut(&eval->texts, eval->model, i, eval->document_count, eval->document_tokens,
                                    &eval->documents[i], error);
        eval->progress_total += eval->document_tokens;
    }
    return status;
}

static enum pagoda_status plan(struct pgd_eval *eval, struct pagoda_error *error)
{
    const struct pgd_options *options = eval->options;
    const uint64_t usual = pgd_min_u64(USUAL_DOCUMENT_TOKENS, eval->info->trained_tokens);
    eval->document_tokens = options->document_tokens != 0 ? options->document_tokens : usual;
    eval->document_count = pgd_eval_measures(eval, PGD_MEASURE_DOCUMENTS) ? (uint32_t) options->documents : 0;
    if (eval->document_tokens < DOCUMENT_TOKENS_MIN) {
        return pgd_fail(error, PAGODA_INVALID, "--tokens %llu: a document has at least %u tokens",
                        (unsigned long long) eval->document_tokens, DOCUMENT_TOKENS_MIN);
    }
    if (options->decode >= eval->document_tokens) {
        return pgd_fail(error, PAGODA_INVALID, "--decode %llu: of a document's %llu tokens the first cannot count",
                        (unsigned long long) options->decode, (unsigned long long) eval->document_tokens);
    }
    enum pagoda_status status = cut_documents(eval, error);
    if (status == PAGODA_OK && pgd_eval_measures(eval, PGD_MEASURE_PASSKEY)) {
        status = pgd_eval_plan_passkeys(eval, error);
    }
    if (status == PAGODA_OK) {
        pgd_eval_plan_tasks(eval);
    }
    return status;
}

/* ---- the caches ---- */

static uint64_t capacity_of(struct pgd_bridge *bridge)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    return memory.tokens_capacity;
}

/* Better now than in the middle of the first text. */
static enum pgd_exit check_room(const struct pgd_eval *eval, uint64_t longest)
{
    const uint64_t whole = eval->noise == NULL ? UINT64_MAX : capacity_of(eval->noise);
    const uint64_t exact = pgd_min_u64(capacity_of(eval->exact), whole);
    const uint64_t tested = capacity_of(eval->tested);
    if (exact < longest) {
        pgd_say_error("the exact cache to compare with needs room for %s tokens, and half of the available memory "
                      "holds %s: choose shorter texts with --tokens and --lengths",
                      pgd_count_words(longest).text, pgd_count_words(exact).text);
        return PGD_EXIT_OVER_BUDGET;
    }
    if (pgd_options_on_full(eval->options) == PAGODA_ON_FULL_STOP && tested < longest) {
        pgd_say_error("with --on-full stop, a budget that holds %s tokens cannot read texts of %s: raise --kv or -c, "
                      "or let old text go with --on-full evict",
                      pgd_count_words(tested).text, pgd_count_words(longest).text);
        return PGD_EXIT_OVER_BUDGET;
    }
    return PGD_EXIT_OK;
}

static enum pgd_exit open_caches(struct pgd_eval *eval)
{
    struct pgd_options wanted = *eval->options;
    const uint64_t longest = longest_text(eval);
    wanted.outputs = (uint32_t) eval->options->step;
    if (has_tasks(eval) && eval->info->window > 0) {
        wanted.rollback_tokens = QUESTION_TOKENS; /* or window layers could not go back to before a question */
    }
    const struct pgd_options exact = pgd_options_exact(&wanted, longest);
    enum pgd_exit code = pgd_load_bridge(&wanted, eval->model, &eval->tested);
    if (code == PGD_EXIT_OK) {
        code = pgd_load_bridge(&exact, eval->model, &eval->exact);
    }
    if (code == PGD_EXIT_OK && eval->noise_tally != NULL) {
        const struct pgd_options noise = pgd_options_noise(&wanted, longest);
        code = pgd_load_bridge(&noise, eval->model, &eval->noise);
    }
    return code == PGD_EXIT_OK ? check_room(eval, longest) : code;
}

/* ---- measuring ---- */

void pgd_eval_progress(void *user, uint64_t done, uint64_t count)
{
    (void) count;
    struct pgd_eval *eval = user;
    pgd_progress_tokens(&eval->progress, eval->progress_base + done, eval->progress_total);
}

static uint64_t bytes_of(const struct pagoda_memory *memory)
{
    return memory->by_category[PAGODA_MEMORY_KV_EXACT] + memory->by_category[PAGODA_MEMORY_KV_QUANTIZED] +
           memory->by_category[PAGODA_MEMORY_DIGESTS];
}

static struct pgd_eval_held what_is_held(struct pgd_eval *eval)
{
    struct pgd_eval_held held;
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(eval->exact), &memory);
    held.exact_bytes = bytes_of(&memory);
    pagoda_cache_memory(pgd_bridge_cache(eval->tested), &memory);
    held.tested_bytes = bytes_of(&memory);
    pagoda_cache_account(pgd_bridge_cache(eval->tested), &held.account);
    return held;
}

static enum pagoda_status read_documents(struct pgd_eval *eval, struct pagoda_error *error)
{
    const struct pgd_contender contenders[] = {{eval->tested, eval->tally}, {eval->noise, eval->noise_tally}};
    const struct pgd_compare_options options = {
        .step = (uint32_t) eval->options->step,
        .decode = eval->options->decode,
        .progress = pgd_eval_progress,
        .user = eval,
        .cancel = pgd_interrupt_flag(),
    };
    for (uint32_t i = 0; i < eval->document_count; i++) {
        const struct pgd_eval_document *document = &eval->documents[i];
        enum pagoda_status status = pgd_compare_document(eval->exact, contenders, eval->noise == NULL ? 1 : 2,
                                                         document->tokens, document->count, &options, error);
        if (status != PAGODA_OK) {
            return status;
        }
        eval->held[eval->held_count++] = what_is_held(eval);
        eval->progress_base += document->count;
    }
    return PAGODA_OK;
}

static enum pagoda_status measure(struct pgd_eval *eval, struct pagoda_error *error)
{
    pgd_interrupt_catch(NULL);
    pgd_progress_start(&eval->progress, eval->terminal, eval->options->quiet);
    enum pagoda_status status = read_documents(eval, error);
    if (status == PAGODA_OK) {
        status = pgd_eval_ask_passkeys(eval, error);
    }
    if (status == PAGODA_OK) {
        status = pgd_eval_ask_tasks(eval, error);
    }
    pgd_progress_end(&eval->progress);
    pgd_interrupt_release();
    if (status == PAGODA_CANCELLED) {
        eval->partial = true;
        status = PAGODA_OK;
    }
    if (status == PAGODA_OK) {
        pagoda_cache_memory(pgd_bridge_cache(eval->tested), &eval->memory);
        status = pgd_tally_summarize(eval->tally, eval->seed, &eval->summary, error);
    }
    if (status == PAGODA_OK && eval->noise_tally != NULL) {
        status = pgd_tally_summarize(eval->noise_tally, eval->seed, &eval->noise_summary, error);
    }
    return status;
}

/* ---- telling ---- */

double pgd_eval_floors(const struct pgd_eval *eval)
{
    const double floor = eval->noise_tally == NULL ? 0 : pgd_tally_mean_kld(&eval->noise_summary.all);
    return floor > 0 ? pgd_tally_mean_kld(&eval->summary.all) / floor : NAN;
}

bool pgd_eval_has_acted(const struct pgd_eval *eval)
{
    const struct pgd_eval_cell answers = pgd_eval_sum_cells(eval);
    bool acted = eval->summary.acting.count > 0 || answers.dropped + answers.quantized + answers.spilled > 0;
    for (uint32_t i = 0; i < eval->row_count; i++) {
        const struct pgd_eval_cell *cell = &eval->rows[i].cell;
        acted = acted || cell->dropped + cell->quantized + cell->spilled > 0;
    }
    return acted;
}

static bool print_report(const struct pgd_eval *eval)
{
    struct pgd_buffer text = {0};
    if (eval->options->json) {
        pgd_eval_write_json(eval, &text);
    } else {
        pgd_eval_write_table(eval, &text);
    }
    const bool printed = !text.failed && pgd_terminal_write(eval->terminal, pgd_buffer_text(&text), text.count);
    pgd_buffer_free(&text);
    return pgd_terminal_finish_output() && printed;
}

static enum pgd_exit tell(const struct pgd_eval *eval)
{
    char warning[PGD_EVAL_WARNING_BYTES];
    if (!print_report(eval)) {
        return PGD_EXIT_FAILURE;
    }
    for (uint32_t i = 0; pgd_eval_warning(eval, i, warning); i++) {
        pgd_say_warning("%s", warning);
    }
    return eval->partial ? PGD_EXIT_INTERRUPTED : PGD_EXIT_OK;
}

/* ---- the command ---- */

static enum pgd_exit fail(enum pagoda_status status, const struct pagoda_error *error)
{
    pgd_say_error("%s", error->message);
    return status == PAGODA_NOT_FOUND ? PGD_EXIT_USAGE : pgd_exit_of(status);
}

static enum pgd_exit evaluate(struct pgd_eval *eval)
{
    struct pagoda_error error;
    enum pgd_exit code = pgd_load_model(eval->options, eval->terminal, &eval->model);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    eval->info = pgd_model_get_info(eval->model);
    enum pagoda_status status = plan(eval, &error);
    if (status != PAGODA_OK) {
        return fail(status, &error);
    }
    code = open_caches(eval);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    status = measure(eval, &error);
    return status == PAGODA_OK ? tell(eval) : fail(status, &error);
}

static void close_all(struct pgd_eval *eval)
{
    for (uint32_t i = 0; eval->documents != NULL && i < eval->document_count; i++) {
        free(eval->documents[i].tokens);
    }
    free(eval->documents);
    free(eval->held);
    free(eval->cells);
    free(eval->passkey_gaps.items);
    pgd_eval_free_rows(eval);
    pgd_tally_close(eval->tally);
    pgd_tally_close(eval->noise_tally);
    pgd_bridge_close(eval->noise);
    pgd_bridge_close(eval->exact);
    pgd_bridge_close(eval->tested);
    pgd_model_close(eval->model);
    pgd_eval_texts_free(&eval->texts);
}

enum pgd_exit pgd_eval_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct pgd_eval eval = {.options = options, .terminal = terminal, .seed = pgd_reply_seed(options)};
    struct pagoda_error error;
    enum pagoda_status status = pgd_eval_texts_read(options, &eval.texts, &error);
    const enum pgd_exit code = status == PAGODA_OK ? evaluate(&eval) : fail(status, &error);
    close_all(&eval);
    return code;
}
