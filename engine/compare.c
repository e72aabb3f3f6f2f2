/* engine/compare.c - see compare.h. */
#include "engine/compare.h"

#include "base/number.h"
#include "base/status.h"
#include "engine/generate.h"
#include "engine/score.h"

bool pgd_compare_has_acted(struct pgd_bridge *bridge)
{
    struct pagoda_account account;
    pagoda_cache_account(pgd_bridge_cache(bridge), &account);
    return account.dropped + account.quantized + account.spilled + account.collapsed > 0;
}

/* How many of the next `left` tokens all caches take at once. */
static uint32_t choose_step(const struct pgd_contender *contenders, size_t contender_count, uint64_t left,
                            uint32_t step)
{
    uint32_t tokens = (uint32_t) pgd_min_u64(left, step);
    for (size_t i = 0; i < contender_count; i++) {
        tokens = pgd_generate_chunk(pgd_bridge_cache(contenders[i].bridge), tokens);
    }
    return tokens;
}

/* One contender's observations of the step that was just read; rows[i] predicts tokens[i + 1]. */
static void observe(const struct pgd_contender *contender, const struct pgd_score_row *rows, const int32_t *tokens,
                    uint32_t row_count, uint64_t position)
{
    const bool acted = pgd_compare_has_acted(contender->bridge);
    for (uint32_t i = 0; i < row_count; i++) {
        const struct pgd_score_row *reference = &rows[i];
        const struct pgd_score_row tested = pgd_score_row(pgd_bridge_logits(contender->bridge, i), reference->count);
        const struct pgd_observation observation = {
            .position = position + i + 1,
            .nll_reference = pgd_score_nll(reference, tokens[i + 1]),
            .nll_tested = pgd_score_nll(&tested, tokens[i + 1]),
            .kld = pgd_score_kld(reference, &tested),
            .same_top =
                pgd_score_top(reference->logits, reference->count) == pgd_score_top(tested.logits, tested.count),
            .acted = acted,
        };
        pgd_tally_add(contender->tally, &observation);
    }
}

/* Reads tokens[0 .. count); the predictions of the first `row_count` of them are observed, which are `count` or one
 * less, or none. */
static enum pagoda_status read_step(struct pgd_bridge *reference, const struct pgd_contender *contenders,
                                    size_t contender_count, const int32_t *tokens, uint32_t count, uint32_t row_count,
                                    struct pagoda_error *error)
{
    const uint64_t position = pagoda_cache_position(pgd_bridge_cache(reference));
    const uint32_t vocabulary = pgd_model_get_info(pgd_bridge_model(reference))->vocabulary;
    const uint32_t outputs = row_count == 0 ? 0 : count;
    enum pagoda_status status = pgd_bridge_decode(reference, tokens, count, outputs, error);
    for (size_t i = 0; i < contender_count && status == PAGODA_OK; i++) {
        status = pgd_bridge_decode(contenders[i].bridge, tokens, count, outputs, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_score_row rows[PGD_BRIDGE_BATCH];
    for (uint32_t i = 0; i < row_count; i++) {
        rows[i] = pgd_score_row(pgd_bridge_logits(reference, i), vocabulary);
    }
    for (size_t i = 0; i < contender_count; i++) {
        observe(&contenders[i], rows, tokens, row_count, position);
    }
    return PAGODA_OK;
}

static enum pagoda_status start_document(struct pgd_bridge *reference, const struct pgd_contender *contenders,
                                         size_t contender_count, struct pagoda_error *error)
{
    enum pagoda_status status = pagoda_cache_reset(pgd_bridge_cache(reference), error);
    for (size_t i = 0; i < contender_count && status == PAGODA_OK; i++) {
        status = pagoda_cache_reset(pgd_bridge_cache(contenders[i].bridge), error);
        pgd_tally_start(contenders[i].tally);
    }
    return status;
}

/* A stretch of the document that is read in the same way. */
struct stretch {
    uint64_t left;
    uint32_t step;
    bool counts;
};

static struct stretch find_stretch(const struct pgd_compare_options *options, uint64_t done, uint64_t count)
{
    const uint64_t first = options->decode == 0 ? 0 : count - 1 - options->decode; /* it predicts one that counts */
    if (done < first) {
        return (struct stretch) {first - done, PGD_BRIDGE_BATCH, false};
    }
    return (struct stretch) {count - done, options->decode == 0 ? options->step : 1, true};
}

enum pagoda_status pgd_compare_document(struct pgd_bridge *reference, const struct pgd_contender *contenders,
                                        size_t contender_count, const int32_t *tokens, uint64_t count,
                                        const struct pgd_compare_options *options, struct pagoda_error *error)
{
    if (options->decode >= count) {
        return pgd_fail(error, PAGODA_INVALID, "of %llu tokens, %llu cannot be predicted", (unsigned long long) count,
                        (unsigned long long) options->decode);
    }
    enum pagoda_status status = start_document(reference, contenders, contender_count, error);
    uint64_t done = 0;
    while (done < count && status == PAGODA_OK) {
        if (options->cancel != NULL && *options->cancel != 0) {
            return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
        }
        const struct stretch stretch = find_stretch(options, done, count);
        const uint32_t step = choose_step(contenders, contender_count, stretch.left, stretch.step);
        const uint32_t predicted = done + step < count ? step : step - 1; /* the last token predicts nothing known */
        const uint32_t rows = stretch.counts ? predicted : 0;
        status = read_step(reference, contenders, contender_count, tokens + done, step, rows, error);
        done += step;
        if (status == PAGODA_OK && options->progress != NULL) {
            options->progress(options->user, done, count);
        }
    }
    if (status == PAGODA_OK && pgd_compare_has_acted(reference)) {
        return pgd_fail(error, PAGODA_MISMATCH, "the cache to compare with did not stay exact");
    }
    return status;
}
