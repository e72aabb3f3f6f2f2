/* engine/plan.c - see plan.h. */
#include "engine/plan.h"

#include <stdlib.h>

#include "base/number.h"
#include "base/status.h"

#define PAIRS_MAX (PAGODA_HEAD_SIZE_MAX / 2)

struct pgd_plan {
    const struct pgd_shape *shape;
    struct pgd_bridge_options options;
    uint32_t count;
    struct pagoda_layer layers[PGD_HEADER_LAYERS_MAX]; /* those with keys and values */
    double paces[2][PAIRS_MAX]; /* frequencies of two kinds of layers: only whether they are equal matters */
    float sinks[PAGODA_HEADS_MAX];
};

static void add_layer(struct pgd_plan *plan, const struct pgd_shape_layer *layer)
{
    plan->layers[plan->count++] = (struct pagoda_layer) {
        .kv_heads = layer->kv_heads,
        .query_heads = layer->query_heads,
        .key_size = layer->key_size,
        .value_size = layer->value_size,
        .window = layer->window,
        .scale = 1,
        .sinks = layer->has_sinks ? plan->sinks : NULL,
        .rope = {.pair_count = layer->rotated_pairs, .frequencies = plan->paces[layer->rotates_apart ? 1 : 0]},
    };
}

enum pagoda_status pgd_plan_open(const struct pgd_shape *shape, const struct pgd_bridge_options *options,
                                 struct pgd_plan **out, struct pagoda_error *error)
{
    struct pgd_plan *plan = calloc(1, sizeof(*plan));
    if (plan == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a plan");
    }
    plan->shape = shape;
    plan->options = *options;
    for (uint32_t i = 0; i < PAIRS_MAX; i++) {
        plan->paces[1][i] = 1;
    }
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        if (shape->layers[i].kv_heads != 0) {
            add_layer(plan, &shape->layers[i]);
        }
    }
    const struct pgd_plan_rows rows = pgd_plan_rows(plan);
    if (rows.attending + rows.recurrent == 0) {
        free(plan);
        return pgd_fail(error, PAGODA_INVALID, "a model of the kind '%s' without a layer that remembers anything",
                        shape->architecture);
    }
    *out = plan;
    return PAGODA_OK;
}

void pgd_plan_close(struct pgd_plan *plan)
{
    free(plan);
}

/* ---- rows ---- */

struct pgd_plan_rows pgd_plan_rows(const struct pgd_plan *plan)
{
    struct pgd_plan_rows rows = {0};
    for (uint32_t i = 0; i < plan->shape->layer_count; i++) {
        const struct pgd_shape_layer *layer = &plan->shape->layers[i];
        const uint64_t bytes = pgd_shape_row_bytes(layer);
        rows.token_bytes += bytes;
        rows.growing_bytes += layer->window == 0 ? bytes : 0;
        rows.window_bytes += bytes * layer->window;
        rows.state_bytes += layer->state_bytes;
        rows.attending += layer->kv_heads != 0 ? 1 : 0;
        rows.windowed += layer->window != 0 ? 1 : 0;
        rows.recurrent += layer->state_bytes != 0 ? 1 : 0;
        rows.is_latent = rows.is_latent || (layer->kv_heads != 0 && layer->value_size == 0);
    }
    return rows;
}

uint64_t pgd_plan_row_bytes(const struct pgd_plan *plan, uint64_t tokens)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < plan->shape->layer_count; i++) {
        const struct pgd_shape_layer *layer = &plan->shape->layers[i];
        const uint64_t held = layer->window == 0 ? tokens : pgd_min_u64(tokens, layer->window);
        uint64_t bytes = UINT64_MAX;
        if (!pgd_mul_u64(held, pgd_shape_row_bytes(layer), &bytes)) {
            bytes = UINT64_MAX;
        }
        sum = pgd_add_capped_u64(sum, pgd_add_capped_u64(bytes, layer->state_bytes));
    }
    return sum;
}

/* ---- budgets ---- */

bool pgd_plan_has_budgets(const struct pgd_plan *plan)
{
    const struct pgd_plan_rows rows = pgd_plan_rows(plan);
    return rows.attending > 0 && !rows.is_latent;
}

static void options_of(const struct pgd_plan *plan, struct pgd_plan_codec codec, uint64_t budget_bytes,
                       struct pagoda_cache_options *cache)
{
    struct pgd_bridge_options options = plan->options;
    options.kv_bytes = budget_bytes;
    options.codec = codec.settled;
    options.codec_tight = codec.tight;
    pgd_reserve_options(&options, plan->layers, plan->count, plan->shape->trained_tokens, cache);
}

enum pagoda_status pgd_plan_settle(struct pgd_plan *plan, uint64_t kv_bytes, uint64_t tokens_max,
                                   struct pgd_reserved *reserved, struct pagoda_error *error)
{
    struct pgd_bridge_options options = plan->options;
    options.kv_bytes = kv_bytes;
    options.tokens_max = tokens_max;
    const enum pagoda_status status =
        pgd_reserve_plan(&options, plan->layers, plan->count, plan->shape->trained_tokens, reserved, error);
    if (status != PAGODA_OK || reserved->fallback.status != PAGODA_OK) {
        plan->options = pgd_reserve_otherwise(&plan->options);
    }
    return status;
}

enum pagoda_status pgd_plan_budget(const struct pgd_plan *plan, struct pgd_plan_codec codec, uint64_t tokens,
                                   uint64_t *bytes, struct pagoda_error *error)
{
    struct pagoda_cache_options cache;
    options_of(plan, codec, 0, &cache);
    return pgd_reserve_budget(&cache, tokens, bytes, error);
}

enum pagoda_status pgd_plan_reserve(const struct pgd_plan *plan, struct pgd_plan_codec codec, uint64_t budget_bytes,
                                    uint64_t tokens_max, struct pagoda_reservation *reservation,
                                    struct pagoda_error *error)
{
    struct pagoda_cache_options cache;
    options_of(plan, codec, budget_bytes, &cache);
    cache.on_full = cache.on_full == PAGODA_ON_FULL_SPILL ? PAGODA_ON_FULL_STOP : cache.on_full;
    if (tokens_max != 0) {
        cache.tokens_max = tokens_max == UINT64_MAX ? 0 : tokens_max;
    }
    return pgd_reserve_settle(&cache, plan->shape->trained_tokens, reservation, error);
}

/* ---- compute ---- */

/* Columns, of one number for each token of a batch, that are alive at once in the widest attention layer: its input
 * three times over, queries, and then keys and values or the result, whichever is more. */
static double attention_columns(const struct pgd_plan *plan, double *base)
{
    const double input = plan->shape->embedding;
    double most = 0;
    *base = 3 * input;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct pagoda_layer *layer = &plan->layers[i];
        const double queries = (double) layer->query_heads * layer->key_size;
        const double rows = (double) layer->kv_heads * (layer->key_size + layer->value_size);
        const double result = queries > input ? queries : 0;
        const double columns = 3 * input + queries + (rows > result ? rows : result);
        most = columns > most ? columns : most;
        *base = 3 * input + queries > *base ? 3 * input + queries : *base;
    }
    return most;
}

/* The same for its feed-forward part: the gate, what goes through it, and the product. What fits where attention was
 * before needs no room of its own. */
static double feed_forward_columns(const struct pgd_plan *plan, double base)
{
    const double input = plan->shape->embedding;
    const double width = plan->shape->feed_forward;
    const double queries = base - 3 * input;
    if (width == 0) {
        return base;
    }
    if (plan->shape->experts_used == 0) {
        const double fitting = (double) (uint64_t) ((input + queries) / width);
        return base + (fitting >= 2 ? 1 : 3 - fitting) * width;
    }
    const double part = width * plan->shape->experts_used;
    const double results = input * plan->shape->experts_used;
    const double inner = (part <= queries - input ? 2 : 3) * part;
    return base + inner + (results > 2 * part ? results : 0);
}

uint64_t pgd_plan_compute_bytes(const struct pgd_plan *plan)
{
    if (plan->shape->refusal != NULL || plan->shape->vocabulary == 0 || plan->shape->feed_forward == 0) {
        return 0;
    }
    double base = 0;
    const double attention = attention_columns(plan, &base);
    const double forward = feed_forward_columns(plan, base);
    const double columns = attention > forward ? attention : forward;
    const double masks = (pgd_plan_rows(plan).windowed != 0 ? 2.0 : 1.0) * PGD_BRIDGE_BATCH * PGD_BRIDGE_BATCH * 2;
    const double outputs = plan->options.outputs_max != 0 ? plan->options.outputs_max : 1;
    return (uint64_t) (columns * PGD_BRIDGE_BATCH * sizeof(float) + masks +
                       (double) plan->shape->vocabulary * outputs * sizeof(float));
}
