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
#include "cache/draws.h"
#include "cache/spill.h"

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

void pgd_attend_set_unseen(const struct pgd_partial *partial, uint32_t rows, uint32_t value_size)
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

void pgd_attend_gathered(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                         const struct pgd_plan_chunk *chunk, const struct pgd_gathered *gathered, uint32_t head,
                         const struct pgd_partial *partial)
{
    if (gathered->count == 0) {
        pgd_attend_set_unseen(partial, pgd_attend_head_rows(call, item), call->shape.value_size);
        return;
    }
    struct pgd_cells cells;
    cells_of_head(gathered, item->head + head, true, NULL, 0, &cells);
    attend_cells(call, item, chunk, head, &cells, partial);
}

/* ---- two bases ---- */

struct pgd_merging pgd_attend_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                      const struct pgd_partial *streamed)
{
    if (streamed == NULL) {
        return (struct pgd_merging) {call->worker->running, call->worker->running_rotated};
    }
    const size_t row = ((size_t) item->head * call->cache->batch.count + item->token) * call->group;
    struct pgd_partial states[2];
    for (int i = 0; i < 2; i++) {
        states[i] = (struct pgd_partial) {streamed[i].max + row, streamed[i].sum + row,
                                          streamed[i].out + row * call->shape.value_size, NULL};
    }
    return (struct pgd_merging) {states[0], states[1]};
}

void pgd_attend_begin_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                              const struct pgd_merging *merging)
{
    const uint32_t rows = pgd_attend_head_rows(call, item);
    pgd_attend_set_unseen(&merging->running, rows, call->shape.value_size);
    if (call->cache->two_bases) {
        pgd_attend_set_unseen(&merging->rotated, rows, call->shape.value_size);
    }
}

void pgd_attend_merge(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                      const struct pgd_plan_chunk *chunk, const struct pgd_merging *merging,
                      const struct pgd_partial *partial)
{
    const bool rotated = call->cache->codecs[chunk->rung]->rotated;
    call->cache->kernels->merge(pgd_attend_head_rows(call, item), call->shape.value_size,
                                rotated ? &merging->rotated : &merging->running, partial);
}

void pgd_attend_finish_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                               const struct pgd_merging *merging)
{
    const struct pgd_partial *rotated = &merging->rotated;
    const uint32_t size = call->shape.value_size;
    const uint32_t rows = pgd_attend_head_rows(call, item);
    if (call->cache->two_bases) {
        for (uint32_t r = 0; r < rows; r++) {
            if (rotated->max[r] != -INFINITY) {
                pgd_hadamard(size, rotated->out + (size_t) r * size);
            }
        }
        call->cache->kernels->merge(rows, size, &merging->running, rotated);
    }
    finish(call, item, &merging->running);
}

/* Pages of the layer of which nothing but a digest is left take part in every walk. */
static bool has_collapsed(const struct pgd_attend_call *call)
{
    const struct pgd_spill *spill = call->cache->spill;
    return spill != NULL && spill->layers[call->layer_index].collapsed > 0;
}

/* ---- many tokens ---- */

static void attend_tokens(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                          const struct pgd_attend_turn *turn)
{
    const struct pgd_plan *plan = &call->cache->plan;
    const struct pgd_merging merging = pgd_attend_merging(call, item, turn->streamed);
    const bool tells_trust = turn->streamed != NULL;
    pgd_attend_pack_rows(call, item);
    if (turn->first == 0) {
        if (tells_trust) {
            pgd_trust_begin(call, item);
        }
        pgd_attend_begin_merging(call, item, &merging);
    }
    for (uint32_t c = turn->first; c < turn->end; c++) {
        const struct pgd_plan_chunk *chunk = &plan->chunks[c];
        struct pgd_gathered gathered = {.count = 0};
        if (sees(call, item, chunk)) {
            pgd_attend_gather(call, chunk, PGD_CHUNK_BLOCKS, &gathered);
        }
        if (gathered.count > 0) {
            pgd_attend_set_visible(call, item, chunk, &gathered);
            pgd_attend_gathered(call, item, chunk, &gathered, 0, &call->worker->partial);
            pgd_attend_merge(call, item, chunk, &merging, &call->worker->partial);
            if (tells_trust) {
                pgd_trust_note(call, item, c, &call->worker->partial);
            }
        }
    }
    if (turn->end == plan->chunk_count) {
        if (tells_trust) {
            pgd_trust_judge(call, item);
        }
        if (has_collapsed(call)) {
            pgd_attend_stand_ins(call, item, 0, &merging.rotated);
        }
        pgd_attend_finish_merging(call, item, &merging);
    }
}

static void attend_many(const struct pgd_attend_call *call, const struct pgd_attend_turn *turn)
{
    const uint32_t tokens = call->cache->batch.count;
    const uint32_t step = call->layer->item_tokens;
    const uint32_t steps = (uint32_t) pgd_div_up_u64(tokens, step);
    const uint32_t items = steps * call->layer->shape.kv_heads;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(turn->next_item, 1, memory_order_relaxed);
        if (i >= items) {
            return;
        }
        /* The last tokens see most: they go first, so that the team ends together. */
        const uint32_t part = steps - 1 - i / call->layer->shape.kv_heads;
        struct pgd_attend_item item = {.head = i % call->layer->shape.kv_heads, .heads = 1, .token = part * step};
        item.tokens = (uint32_t) pgd_min_u64(step, tokens - item.token);
        attend_tokens(call, &item, turn);
    }
}

/* ---- one token ---- */

struct pgd_partial pgd_attend_partial(const struct pgd_attend_call *call, uint32_t head, uint32_t index)
{
    const size_t floats = (size_t) call->group * (call->shape.value_size + 2u);
    float *base = call->cache->partials + ((size_t) head * call->slots + index) * floats;
    return (struct pgd_partial) {.max = base,
                                 .sum = base + call->group,
                                 .out = base + 2u * call->group,
                                 .blocks = call->draws ? pgd_draws_sums(call, head, index) : NULL};
}

static void merge_head(const struct pgd_attend_call *call, uint32_t head)
{
    const struct pgd_attend_item item = {.head = head, .heads = 1, .token = 0, .tokens = 1};
    const struct pgd_merging merging = pgd_attend_merging(call, &item, NULL);
    pgd_attend_begin_merging(call, &item, &merging);
    for (uint32_t c = 0; c < call->cache->plan.chunk_count; c++) {
        const struct pgd_partial partial = pgd_attend_partial(call, head, c);
        pgd_attend_merge(call, &item, &call->cache->plan.chunks[c], &merging, &partial);
    }
    if (has_collapsed(call)) {
        pgd_attend_pack_rows(call, &item); /* this worker's rows are packed for all heads */
        pgd_attend_stand_ins(call, &item, 0, &merging.rotated);
    }
    pgd_attend_finish_merging(call, &item, &merging);
    if (call->draws) {
        pgd_draws_add(call, head, call->cache->plan.chunk_count, &merging.running);
    }
    if (has_collapsed(call)) {
        const struct pgd_attend_item all = {.heads = call->layer->shape.kv_heads, .tokens = 1};
        pgd_attend_pack_rows(call, &all);
    }
}

/* How a layer's single token is cut: chunk by chunk, all KV heads of a chunk together or one by one. */
struct cut {
    uint32_t heads; /* of an item */
    uint32_t parts; /* items of a chunk */
    uint32_t items;
};

/* Heads [head, head + heads) of a chunk, as far as its pages are in memory; `all` has the rows of all KV heads. `next`
 * is what this thread is likely to take next. */
static void attend_heads(const struct pgd_attend_call *call, const struct pgd_attend_item *all, uint32_t chunk_index,
                         uint32_t head, uint32_t heads, const struct pgd_gathered *next, uint32_t next_head)
{
    const struct pgd_plan_chunk *chunk = &call->cache->plan.chunks[chunk_index];
    struct pgd_gathered gathered = {.count = 0};
    if (sees(call, all, chunk)) {
        pgd_attend_gather(call, chunk, PGD_CHUNK_BLOCKS, &gathered);
        pgd_attend_set_visible(call, all, chunk, &gathered);
    }
    for (uint32_t h = head; h < head + heads; h++) {
        const struct pgd_partial partial = pgd_attend_partial(call, h, chunk_index);
        if (call->draws) {
            pgd_draws_note(call, h, chunk_index, &gathered);
        }
        if (gathered.count > 0) {
            struct pgd_cells cells;
            cells_of_head(&gathered, h, h + 1 == head + heads, next, next_head, &cells);
            attend_cells(call, all, chunk, h, &cells, &partial);
        } else {
            pgd_attend_set_unseen(&partial, call->group, call->shape.value_size);
        }
    }
}

void pgd_attend_memory(const struct pgd_attend_call *call, const struct pgd_attend_item *all, uint32_t chunk_index)
{
    attend_heads(call, all, chunk_index, 0, all->heads, NULL, 0);
}

static void attend_part(const struct pgd_attend_call *call, const struct pgd_attend_item *all, const struct cut *cut,
                        uint32_t item, const struct pgd_gathered *next, uint32_t next_head)
{
    const uint32_t head = item % cut->parts * cut->heads;
    attend_heads(call, all, item / cut->parts, head, cut->heads, next, next_head);
    for (uint32_t h = head; h < head + cut->heads; h++) {
        /* Release our partial result; whoever is last acquires everybody's. */
        if (atomic_fetch_sub_explicit(&call->layer->head_left[h], 1, memory_order_acq_rel) == 1) {
            merge_head(call, h);
        }
    }
}

static void attend_one(const struct pgd_attend_call *call, const struct pgd_attend_turn *turn)
{
    const uint32_t chunks = turn->end - turn->first;
    const uint32_t kv_heads = call->layer->shape.kv_heads;
    const struct pgd_attend_item all = {.head = 0, .heads = kv_heads, .token = 0, .tokens = 1};
    struct cut cut = {.heads = chunks >= CHUNKS_FEW * call->threads ? kv_heads : 1};
    cut.parts = kv_heads / cut.heads;
    cut.items = turn->end * cut.parts;
    pgd_attend_pack_rows(call, &all);
    for (;;) {
        const uint32_t i =
            turn->first * cut.parts + atomic_fetch_add_explicit(turn->next_item, 1, memory_order_relaxed);
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

void pgd_attend_chunks(const struct pgd_attend_call *call, const struct pgd_attend_turn *turn)
{
    if (call->cache->batch.count == 1) {
        attend_one(call, turn);
    } else {
        attend_many(call, turn);
    }
}

/* ---- all ---- */

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
        .thread = thread,
        .threads = threads,
        .slots = cache->spill == NULL ? cache->plan.chunk_count : 3 * cache->plan.chunk_capacity,
        .selects = cache->spill != NULL && pgd_attend_selects(cache, layer_index),
        .draws = pgd_draws_counts(cache, layer_index),
    };
    if (cache->spill != NULL && thread == 0) {
        pgd_queries_note(&call);
    }
    if (cache->spill == NULL || cache->spill->layers[layer_index].away == 0) {
        const struct pgd_attend_turn all = {0, cache->plan.chunk_count, &layer->next_item, NULL};
        pgd_attend_chunks(&call, &all);
    } else if (call.selects) {
        pgd_attend_selected(&call);
    } else {
        pgd_attend_streamed(&call);
    }
    return PAGODA_OK;
}
