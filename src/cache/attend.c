/* cache/attend.c - the walk over pages.
 *
 * Work is cut into items that threads take one by one from a shared counter:
 *   one token   item = (chunk, all KV heads, or one when chunks are few): partial softmaxes go to `partials`; whoever
 *               finishes a head's last chunk merges its chunks from left to right and writes the output.
 *   many        item = (KV head, a few tokens): the thread walks all chunks and merges as it goes.
 * Both give every row the same operations in the same order, so neither the number of threads nor the
 * batch changes a byte.
 */
#include "cache/attend.h"

#include <math.h>
#include <string.h>

#include "base/number.h"

#define CHUNKS_FEW 4u /* with fewer chunks than this for each thread, KV heads are shared out too */

/* Whether a row of the item sees anything of a chunk. */
static bool sees(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                 const struct pgd_plan_chunk *chunk)
{
    const uint64_t first_position = call->cache->batch.first + item->token;
    const uint32_t window = call->layer->shape.window;
    return chunk->first < first_position + item->tokens && (window == 0 || chunk->last + window > first_position);
}

/* The cells of KV head `head`, and what comes after them: the next head's, or the first of the next chunk. */
static void cells_of_head(const struct pgd_gathered *gathered, uint32_t head, bool is_last,
                          const struct pgd_gathered *next, uint32_t next_head, struct pgd_cells *cells)
{
    cells->count = gathered->count;
    for (uint32_t i = 0; i < gathered->count; i++) {
        cells->cell[i] = gathered->cell[i] + head * gathered->head_bytes;
    }
    for (uint32_t i = 0; i < PGD_CELLS_AHEAD; i++) {
        if (!is_last && i < gathered->count) {
            cells->ahead[i] = gathered->cell[i] + (head + 1) * gathered->head_bytes;
        } else if (is_last && next != NULL && i < next->count) {
            cells->ahead[i] = next->cell[i] + next_head * next->head_bytes;
        } else {
            cells->ahead[i] = NULL;
        }
    }
}

static void attend_cells(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                         const struct pgd_plan_chunk *chunk, uint32_t head, const struct pgd_cells *cells,
                         const struct pgd_partial *partial)
{
    const struct pgd_codec *codec = call->cache->codecs[chunk->rung];
    const struct pgd_query_rows rows = pgd_attend_rows(call, item, chunk, head);
    codec->attend(codec, call->cache->kernels, &call->shape, cells, &rows, call->worker->kernel, partial);
}

static void set_unseen(const struct pgd_partial *partial, uint32_t rows, uint32_t value_size)
{
    for (uint32_t r = 0; r < rows; r++) {
        partial->max[r] = -INFINITY;
        partial->sum[r] = 0;
    }
    memset(partial->out, 0, (size_t) rows * value_size * sizeof(float));
}

/* Joins the layer's learned sink logit, divides, and writes one row of output. */
static void finish_row(const struct pgd_attend_call *call, const struct pgd_partial *state, uint32_t row,
                       uint32_t query_head, float *out)
{
    const uint32_t size = call->shape.value_size;
    float weight = 1;
    float sum = state->sum[row];
    if (call->layer->shape.sinks != NULL) {
        const float sink = call->layer->shape.sinks[query_head];
        const float max = state->max[row] > sink ? state->max[row] : sink;
        weight = pgd_ref_exp(state->max[row] - max);
        sum = sum * weight + pgd_ref_exp(sink - max);
    }
    const float factor = sum > 0 ? weight / sum : 0;
    const float *from = state->out + (size_t) row * size;
    for (uint32_t d = 0; d < size; d++) {
        out[d] = from[d] * factor;
    }
}

static void finish(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                   const struct pgd_partial *state)
{
    for (uint32_t t = 0; t < item->tokens; t++) {
        for (uint32_t g = 0; g < call->group; g++) {
            const uint32_t query_head = item->head * call->group + g;
            finish_row(call, state, t * call->group + g, query_head,
                       call->outputs->data + (item->token + t) * call->outputs->token_stride +
                           query_head * call->outputs->head_stride);
        }
    }
}

/* ---- two bases: chunks of rotated codecs are merged apart from the others ---- */

static void begin_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    const uint32_t rows = pgd_attend_head_rows(call, item);
    set_unseen(&call->worker->running, rows, call->shape.value_size);
    if (call->cache->rung_count > 1) {
        set_unseen(&call->worker->running_rotated, rows, call->shape.value_size);
    }
}

static void merge_chunk(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                        const struct pgd_plan_chunk *chunk, const struct pgd_partial *partial)
{
    const bool rotated = call->cache->codecs[chunk->rung]->rotated;
    call->cache->kernels->merge(pgd_attend_head_rows(call, item), call->shape.value_size,
                                rotated ? &call->worker->running_rotated : &call->worker->running, partial);
}

/* Turns the rotated outputs back, joins them to the others, and writes the result. */
static void finish_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    const struct pgd_partial *rotated = &call->worker->running_rotated;
    const uint32_t size = call->shape.value_size;
    const uint32_t rows = pgd_attend_head_rows(call, item);
    if (call->cache->rung_count > 1) {
        for (uint32_t r = 0; r < rows; r++) {
            if (rotated->max[r] != -INFINITY) {
                pgd_hadamard(size, rotated->out + (size_t) r * size);
            }
        }
        call->cache->kernels->merge(rows, size, &call->worker->running, rotated);
    }
    finish(call, item, &call->worker->running);
}

/* ---- many tokens ---- */

static void attend_tokens(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    const struct pgd_plan *plan = &call->cache->plan;
    pgd_attend_pack_rows(call, item);
    begin_merging(call, item);
    for (uint32_t c = 0; c < plan->chunk_count; c++) {
        const struct pgd_plan_chunk *chunk = &plan->chunks[c];
        struct pgd_gathered gathered = {.count = 0};
        if (sees(call, item, chunk)) {
            pgd_attend_gather(call, chunk, PGD_CHUNK_BLOCKS, &gathered);
        }
        if (gathered.count > 0) {
            struct pgd_cells cells;
            pgd_attend_set_visible(call, item, chunk, &gathered);
            cells_of_head(&gathered, item->head, true, NULL, 0, &cells);
            attend_cells(call, item, chunk, 0, &cells, &call->worker->partial);
            merge_chunk(call, item, chunk, &call->worker->partial);
        }
    }
    finish_merging(call, item);
}

static void attend_many(const struct pgd_attend_call *call)
{
    const uint32_t tokens = call->cache->batch.count;
    const uint32_t step = call->layer->item_tokens;
    const uint32_t steps = (uint32_t) pgd_div_up_u64(tokens, step);
    const uint32_t items = steps * call->layer->shape.kv_heads;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(&call->layer->next_item, 1, memory_order_relaxed);
        if (i >= items) {
            return;
        }
        /* The last tokens see most: they go first, so that the team ends together. */
        const uint32_t part = steps - 1 - i / call->layer->shape.kv_heads;
        struct pgd_attend_item item = {.head = i % call->layer->shape.kv_heads, .heads = 1, .token = part * step};
        item.tokens = (uint32_t) pgd_min_u64(step, tokens - item.token);
        attend_tokens(call, &item);
    }
}

/* ---- one token ---- */

/* Where the partial result of (head, chunk) lives: max and sum of the group, then its outputs. */
static struct pgd_partial partial_at(const struct pgd_attend_call *call, uint32_t head, uint32_t chunk)
{
    const size_t floats = (size_t) call->group * (call->shape.value_size + 2u);
    float *base = call->cache->partials + ((size_t) head * call->cache->plan.chunk_count + chunk) * floats;
    return (struct pgd_partial) {.max = base, .sum = base + call->group, .out = base + 2u * call->group};
}

static void merge_head(const struct pgd_attend_call *call, uint32_t head)
{
    const struct pgd_attend_item item = {.head = head, .heads = 1, .token = 0, .tokens = 1};
    begin_merging(call, &item);
    for (uint32_t c = 0; c < call->cache->plan.chunk_count; c++) {
        const struct pgd_partial partial = partial_at(call, head, c);
        merge_chunk(call, &item, &call->cache->plan.chunks[c], &partial);
    }
    finish_merging(call, &item);
}

/* How a layer's single token is cut: chunk by chunk, all KV heads of a chunk together or one by one. */
struct cut {
    uint32_t heads; /* of an item */
    uint32_t parts; /* items of a chunk */
    uint32_t items;
};

/* Chunk `chunk_index` for heads [head, head + cut->heads); `all` has the rows of all KV heads. `next` is what this
 * thread is likely to take next. */
static void attend_part(const struct pgd_attend_call *call, const struct pgd_attend_item *all, const struct cut *cut,
                        uint32_t item, const struct pgd_gathered *next, uint32_t next_head)
{
    const uint32_t chunk_index = item / cut->parts;
    const uint32_t head = item % cut->parts * cut->heads;
    const struct pgd_plan_chunk *chunk = &call->cache->plan.chunks[chunk_index];
    struct pgd_gathered gathered = {.count = 0};
    if (sees(call, all, chunk)) {
        pgd_attend_gather(call, chunk, PGD_CHUNK_BLOCKS, &gathered);
        pgd_attend_set_visible(call, all, chunk, &gathered);
    }
    for (uint32_t h = head; h < head + cut->heads; h++) {
        const struct pgd_partial partial = partial_at(call, h, chunk_index);
        if (gathered.count > 0) {
            struct pgd_cells cells;
            cells_of_head(&gathered, h, h + 1 == head + cut->heads, next, next_head, &cells);
            attend_cells(call, all, chunk, h, &cells, &partial);
        } else {
            set_unseen(&partial, call->group, call->shape.value_size);
        }
        /* Release our partial result; whoever is last acquires everybody's. */
        if (atomic_fetch_sub_explicit(&call->layer->head_left[h], 1, memory_order_acq_rel) == 1) {
            merge_head(call, h);
        }
    }
}

static void attend_one(const struct pgd_attend_call *call)
{
    const uint32_t chunks = call->cache->plan.chunk_count;
    const uint32_t kv_heads = call->layer->shape.kv_heads;
    const struct pgd_attend_item all = {.head = 0, .heads = kv_heads, .token = 0, .tokens = 1};
    struct cut cut = {.heads = chunks >= CHUNKS_FEW * call->threads ? kv_heads : 1};
    cut.parts = kv_heads / cut.heads;
    cut.items = chunks * cut.parts;
    pgd_attend_pack_rows(call, &all);
    for (;;) {
        const uint32_t i = atomic_fetch_add_explicit(&call->layer->next_item, 1, memory_order_relaxed);
        if (i >= cut.items) {
            return;
        }
        struct pgd_gathered next = {.count = 0};
        if (i + call->threads < cut.items) {
            pgd_attend_gather(call, &call->cache->plan.chunks[(i + call->threads) / cut.parts], PGD_CELLS_AHEAD, &next);
        }
        attend_part(call, &all, &cut, i, &next, (i + call->threads) % cut.parts * cut.heads);
    }
}

enum pagoda_status pagoda_cache_attend(struct pagoda_cache *cache, uint32_t layer_index,
                                       const struct pagoda_queries *queries, const struct pagoda_outputs *outputs,
                                       uint32_t thread, uint32_t threads)
{
    if (!cache->batch.open || layer_index >= cache->layer_count || threads == 0 || threads > cache->threads_max ||
        thread >= threads) {
        return PAGODA_INVALID;
    }
    struct pgd_layer *layer = &cache->layers[layer_index];
    const struct pgd_attend_call call = {
        .cache = cache,
        .layer = layer,
        .layer_index = layer_index,
        .queries = queries,
        .outputs = outputs,
        .worker = &cache->workers[thread],
        .shape = {layer->shape.key_size, layer->shape.value_size, layer->shape.scale, layer->shape.softcap},
        .group = layer->shape.query_heads / layer->shape.kv_heads,
        .threads = threads,
    };
    if (cache->batch.count == 1) {
        attend_one(&call);
    } else {
        attend_many(&call);
    }
    return PAGODA_OK;
}
