/* cli/plan.c - pagoda plan: what models take in memory, by their headers alone. */
#include <stdio.h>
#include <stdlib.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/load.h"
#include "cli/machine.h"
#include "cli/plan.h"
#include "cli/verbs.h"

#define WANTED_TOKENS 8192u /* of a shape that does not say how long its texts are */
#define CONTEXT_LEAST 1024u
#define CONTEXT_MOST 131072u
#define LINES 6u /* budgets that are told about, each twice the one before */
#define BUDGET_LEAST (UINT64_C(1) << 20)
#define EASY_PART 64u /* of a tight budget: how exactly the easy one is told */

const enum pagoda_codec pgd_plan_codecs[PGD_PLAN_CODECS] = {
    PAGODA_CODEC_F16, PAGODA_CODEC_Q8, PAGODA_CODEC_K8V5, PAGODA_CODEC_K8V4, PAGODA_CODEC_K6V4, PAGODA_CODEC_K5V4,
};

uint64_t pgd_planned_fixed_bytes(const struct pgd_planned *planned)
{
    const uint64_t weights = pgd_add_capped_u64(planned->shape->weights_bytes, pgd_planned_copied_bytes(planned));
    const uint64_t others = planned->compute_bytes + planned->rows.state_bytes + planned->shape->program_bytes;
    return pgd_add_capped_u64(weights, others);
}

uint64_t pgd_planned_copied_bytes(const struct pgd_planned *planned)
{
    return planned->options->no_mmap ? 0 : planned->shape->copied_bytes;
}

/* ---- the question ---- */

/* --kv, and what --mem leaves for it; *bytes is 0 when neither says anything. */
static enum pagoda_status find_budget(struct pgd_planned *planned, uint64_t *bytes, struct pagoda_error *error)
{
    uint64_t kv = 0;
    enum pagoda_status status = pgd_load_budget("--kv", &planned->options->kv, &kv, error);
    if (status == PAGODA_OK) {
        status = pgd_load_budget("--mem", &planned->options->mem, &planned->mem_bytes, error);
    }
    if (status != PAGODA_OK || planned->mem_bytes == 0) {
        *bytes = kv;
        return status;
    }
    const uint64_t fixed = pgd_planned_fixed_bytes(planned);
    if (fixed >= planned->mem_bytes) {
        return pgd_fail(error, PAGODA_OVER_BUDGET, "--mem %s leaves nothing: all but the KV budget takes %s",
                        pgd_size_words(planned->mem_bytes).text, pgd_size_words(fixed).text);
    }
    const uint64_t left = planned->mem_bytes - fixed;
    *bytes = kv != 0 ? pgd_min_u64(kv, left) : left;
    return PAGODA_OK;
}

/* What the engine would do, if it can do anything; OVER_BUDGET is an answer. */
static enum pagoda_status settle(struct pgd_planned *planned, uint64_t bytes, struct pagoda_error *why)
{
    struct pgd_reserved reserved;
    const enum pagoda_status status = pgd_plan_settle(planned->plan, bytes, planned->wanted_tokens, &reserved, why);
    if (status != PAGODA_OK) {
        return status;
    }
    planned->has_reservation = true;
    planned->reservation = reserved.reservation;
    planned->budget_bytes = reserved.reservation.budget_bytes;
    planned->on_full = reserved.cache.on_full;
    planned->fits = reserved.reservation.tokens_capacity >= planned->wanted_tokens;
    if (reserved.fallback.status != PAGODA_OK) {
        snprintf(planned->fallback, sizeof(planned->fallback), "%s", reserved.fallback.message);
    }
    return PAGODA_OK;
}

/* Whether a budget holds all tokens with digests that are no coarser than they must be. */
static bool is_easy(const struct pgd_planned *planned, uint64_t bytes)
{
    struct pgd_reserved reserved;
    struct pagoda_error ignored;
    return pgd_plan_settle(planned->plan, bytes, planned->wanted_tokens, &reserved, &ignored) == PAGODA_OK &&
           reserved.reservation.tokens_capacity >= planned->wanted_tokens &&
           reserved.reservation.digest_tokens <= PAGODA_DIGEST_TOKENS;
}

/* Looks for the least such budget above a tight one, to a part in EASY_PART. */
static void find_easy_budget(struct pgd_planned *planned)
{
    uint64_t low = planned->budget_bytes;
    uint64_t high = pgd_max_u64(planned->wanted_bytes, low);
    if (!planned->has_reservation || planned->reservation.digest_tokens <= PAGODA_DIGEST_TOKENS ||
        !is_easy(planned, high)) {
        return;
    }
    while (high - low > low / EASY_PART) {
        const uint64_t middle = low + (high - low) / 2;
        *(is_easy(planned, middle) ? &high : &low) = middle;
    }
    planned->easy_bytes = high;
}

static enum pagoda_status reserve(struct pgd_planned *planned, struct pagoda_error *error)
{
    const struct pgd_codec_choice codec = pgd_options_codec(planned->options);
    const bool has_budgets = pgd_plan_has_budgets(planned->plan);
    struct pagoda_error why;
    enum pagoda_status status = find_budget(planned, &planned->budget_bytes, &why);
    planned->wanted_bytes = pgd_plan_row_bytes(planned->plan, planned->wanted_tokens);
    if (status == PAGODA_OK && has_budgets) {
        status = settle(planned, planned->budget_bytes, &why);
    } else if (status == PAGODA_OK) {
        planned->fits =
            planned->wanted_bytes <= (planned->budget_bytes != 0 ? planned->budget_bytes : planned->available_bytes);
    }
    if (status == PAGODA_OVER_BUDGET) {
        snprintf(planned->problem, sizeof(planned->problem), "%s", why.message);
    } else if (status != PAGODA_OK) {
        return pgd_fail(error, status, "%s", why.message);
    }
    return has_budgets ? pgd_plan_budget(planned->plan, (struct pgd_plan_codec) {codec.settled, codec.tight},
                                         planned->wanted_tokens, &planned->wanted_bytes, error)
                       : PAGODA_OK;
}

/* Whether what was asked for fits: into --mem, or else into what the machine has now. */
static void judge(struct pgd_planned *planned)
{
    const uint64_t limit = planned->mem_bytes != 0 ? planned->mem_bytes : planned->available_bytes;
    const bool asked = planned->options->kv.kind == PGD_BUDGET_BYTES && planned->mem_bytes == 0;
    if (!asked && limit != 0) {
        const uint64_t needed = planned->has_reservation ? planned->budget_bytes : planned->wanted_bytes;
        planned->fits = planned->fits && pgd_add_capped_u64(pgd_planned_fixed_bytes(planned), needed) <= limit;
    }
}

/* ---- the tables ---- */

static enum pagoda_status add_context(struct pgd_planned *planned, uint64_t tokens, struct pagoda_error *error)
{
    struct pgd_plan_context *context = &planned->contexts[planned->context_count++];
    enum pagoda_status status = PAGODA_OK;
    context->tokens = tokens;
    context->row_bytes = pgd_plan_row_bytes(planned->plan, tokens);
    for (size_t i = 0; i < PGD_PLAN_CODECS && status == PAGODA_OK && pgd_plan_has_budgets(planned->plan); i++) {
        const struct pgd_plan_codec codec = {pgd_plan_codecs[i], pgd_plan_codecs[i]};
        status = pgd_plan_budget(planned->plan, codec, tokens, &context->bytes[i], error);
    }
    return status;
}

/* Round numbers below the longest context that matters, and that one. */
static enum pagoda_status fill_contexts(struct pgd_planned *planned, struct pagoda_error *error)
{
    const bool open_ended = planned->shape->trained_tokens == 0 && planned->options->ctx_size == 0;
    const uint64_t most = open_ended ? CONTEXT_MOST : planned->wanted_tokens;
    enum pagoda_status status = PAGODA_OK;
    for (uint64_t tokens = CONTEXT_LEAST; tokens < most && tokens <= CONTEXT_MOST && status == PAGODA_OK; tokens *= 2) {
        status = add_context(planned, tokens, error);
    }
    return status == PAGODA_OK ? add_context(planned, most, error) : status;
}

/* How many tokens a budget holds; 0 when it does not hold one page in each layer. */
static uint64_t tokens_in(const struct pgd_planned *planned, struct pgd_plan_codec codec, uint64_t budget_bytes)
{
    struct pagoda_reservation reservation;
    struct pagoda_error ignored;
    const bool open_ended = planned->shape->trained_tokens == 0 && planned->options->ctx_size == 0;
    const uint64_t most = open_ended ? UINT64_MAX : planned->wanted_tokens;
    const enum pagoda_status status =
        pgd_plan_reserve(planned->plan, codec, budget_bytes, most, &reservation, &ignored);
    return status == PAGODA_OK ? reservation.tokens_capacity : 0;
}

/* Powers of 2 below the budget that holds the longest context in f16. */
static void fill_lines(struct pgd_planned *planned)
{
    const uint64_t most = planned->contexts[planned->context_count - 1].bytes[0];
    uint64_t budget = BUDGET_LEAST;
    while (budget <= most / 2) {
        budget *= 2;
    }
    for (uint32_t i = 1; i < LINES && budget > BUDGET_LEAST; i++) {
        budget /= 2;
    }
    for (; planned->line_count < LINES && budget <= pgd_max_u64(most, BUDGET_LEAST); budget *= 2) {
        struct pgd_plan_line *line = &planned->lines[planned->line_count++];
        line->budget_bytes = budget;
        line->tokens[0] = tokens_in(planned, (struct pgd_plan_codec) {PAGODA_CODEC_F16, PAGODA_CODEC_K5V4}, budget);
        for (size_t i = 0; i < PGD_PLAN_CODECS; i++) {
            const struct pgd_plan_codec codec = {pgd_plan_codecs[i], pgd_plan_codecs[i]};
            line->tokens[1 + i] = tokens_in(planned, codec, budget);
        }
    }
}

/* What else could be done with a budget that is too small: the finest codec that holds all, or the most there is. */
static void find_way(struct pgd_planned *planned)
{
    for (size_t i = 0; i < PGD_PLAN_CODECS; i++) {
        const struct pgd_plan_codec codec = {pgd_plan_codecs[i], pgd_plan_codecs[i]};
        const uint64_t tokens = tokens_in(planned, codec, planned->budget_bytes);
        if (tokens > planned->most_tokens) {
            planned->most_tokens = tokens;
            planned->most_codec = pgd_plan_codecs[i];
        }
        if (tokens >= planned->wanted_tokens) {
            return;
        }
    }
}

/* ---- one model ---- */

static enum pagoda_status find_out(struct pgd_planned *planned, struct pagoda_error *error)
{
    const uint64_t trained = planned->shape->trained_tokens;
    planned->rows = pgd_plan_rows(planned->plan);
    planned->compute_bytes = pgd_plan_compute_bytes(planned->plan);
    planned->available_bytes = pgd_machine_available_bytes();
    planned->wanted_tokens = planned->options->ctx_size != 0 ? planned->options->ctx_size
                             : trained != 0                  ? trained
                                                             : WANTED_TOKENS;
    enum pagoda_status status = reserve(planned, error);
    if (status == PAGODA_OK) {
        status = fill_contexts(planned, error);
    }
    if (status == PAGODA_OK) {
        judge(planned);
        find_easy_budget(planned);
        if (pgd_plan_has_budgets(planned->plan)) {
            fill_lines(planned);
            find_way(planned);
        }
    }
    return status;
}

static enum pgd_exit tell(const struct pgd_planned *planned, bool briefly)
{
    struct pgd_buffer text = {0};
    if (planned->options->json) {
        pgd_plan_json(planned, &text);
    } else if (briefly) {
        pgd_plan_summary(planned, &text);
    } else {
        pgd_plan_text(planned, &text);
    }
    const bool printed = !text.failed && fwrite(pgd_buffer_text(&text), 1, text.count, stdout) == text.count;
    pgd_buffer_free(&text);
    if (!printed) {
        return PGD_EXIT_FAILURE;
    }
    return planned->options->fail_if_over && !planned->fits ? PGD_EXIT_OVER_BUDGET : PGD_EXIT_OK;
}

static enum pgd_exit plan_shape(const struct pgd_options *options, const char *path, const struct pgd_shape *shape,
                                bool briefly)
{
    struct pgd_planned planned = {.options = options, .path = path, .shape = shape};
    const struct pgd_bridge_options bridge = pgd_load_bridge_options(options, 0);
    struct pgd_plan *plan = NULL;
    struct pagoda_error error;
    enum pagoda_status status = pgd_plan_open(shape, &bridge, &plan, &error);
    if (status == PAGODA_OK) {
        planned.plan = plan;
        status = find_out(&planned, &error);
    }
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    const enum pgd_exit code = status == PAGODA_OK ? tell(&planned, briefly) : pgd_exit_of(status);
    pgd_plan_close(plan);
    return code;
}

static enum pgd_exit plan_model(const struct pgd_options *options, const char *path, bool briefly)
{
    struct pgd_header *header = NULL;
    struct pgd_shape *shape = calloc(1, sizeof(*shape));
    struct pagoda_error error;
    enum pagoda_status status = shape == NULL ? pgd_fail(&error, PAGODA_NOMEM, "no memory for a shape") : PAGODA_OK;
    if (status == PAGODA_OK) {
        status = pgd_header_open(path, &header, &error);
    }
    if (status == PAGODA_OK) {
        status = pgd_shape_of(path, header, shape, &error);
    }
    free(header);
    enum pgd_exit code = PGD_EXIT_MODEL;
    if (status == PAGODA_OK) {
        code = plan_shape(options, path, shape, briefly);
    } else {
        pgd_say_error("%s", error.message);
    }
    free(shape);
    return code;
}

static enum pgd_exit plan_words(const struct pgd_options *options)
{
    struct pgd_shape *shape = calloc(1, sizeof(*shape));
    struct pagoda_error error;
    if (shape == NULL) {
        pgd_say_error("no memory for a shape");
        return PGD_EXIT_FAILURE;
    }
    const enum pagoda_status status = pgd_plan_parse_shape(options->shape, shape, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    const enum pgd_exit code = status == PAGODA_OK ? plan_shape(options, options->shape, shape, false) : PGD_EXIT_USAGE;
    free(shape);
    return code;
}

enum pgd_exit pgd_plan_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    (void) terminal;
    enum pgd_exit worst = PGD_EXIT_OK;
    if (options->model == NULL) {
        worst = plan_words(options);
    } else {
        worst = plan_model(options, options->model, options->word_count > 0);
        for (int i = 0; i < options->word_count; i++) {
            const enum pgd_exit code = plan_model(options, options->words[i], true);
            worst = code > worst ? code : worst;
        }
    }
    return pgd_terminal_finish_output() ? worst : PGD_EXIT_FAILURE;
}
