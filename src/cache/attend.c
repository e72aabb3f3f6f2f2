/* cache/attend.c - the walk over pages.
 *
 * Work is cut into items that threads take one by one from a shared counter:
 *   one token   item = (KV head, chunk): the partial softmax goes to `partials`; whoever finishes a
 *               head's last chunk merges its chunks from left to right and writes the output.
 *   many        item = (KV head, a few tokens): the thread walks all chunks and merges as it goes.
 * Both give every row the same operations in the same order, so neither the number of threads nor the
 * batch changes a byte.
 */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "cache/cache.h"

/* One call of pagoda_cache_attend, seen by one thread. */
struct call {
    struct pagoda_cache *cache;
    struct pgd_layer *layer;
    uint32_t layer_index;
    const struct pagoda_queries *queries;
    const struct pagoda_outputs *outputs;
    struct pgd_worker *worker;
    struct pgd_attend_shape shape;
    uint32_t group; /* query heads of one KV head */
};

/* The rows of one item: tokens [token, token + tokens) x the group of one KV head. */
struct item {
    uint32_t head;
    uint32_t token;
    uint32_t tokens;
    uint32_t rows;
};

/* The cells of a chunk that this layer still holds, with the positions they stand for. */
struct gathered {
    struct pgd_cells cells;
    uint64_t first[PGD_CHUNK_BLOCKS]; /* position of lane 0 of each cell */
    uint32_t lanes;                   /* lanes that hold a token: all before the last cell are full */
};

static void gather(const struct call *call, const struct pgd_plan_chunk *chunk, uint32_t head, struct gathered *out)
{
    const struct pagoda_cache *cache = call->cache;
    uint32_t block_index = chunk->block;
    uint32_t cell = chunk->cell;
    out->cells.count = 0;
    out->lanes = 0;
    for (uint32_t i = 0; i < chunk->cells; i++) {
        const struct pgd_block *block = pgd_table_block(cache->table, block_index);
        const struct pgd_page *page = pgd_table_page(cache->table, block_index, call->layer_index);
        if (page->state != PAGODA_PAGE_ABSENT) {
            const unsigned char *bytes = pgd_pool_address(cache->pool, page->frame);
            const uint32_t at = out->cells.count++;
            PGD_ASSERT(page->codec == chunk->rung);
            out->cells.cell[at] =
                bytes + (head * (uint64_t) cache->page_cells + cell) * call->layer->kinds[chunk->rung].cell_bytes;
            out->first[at] = block->first + (uint64_t) cell * PGD_LANES;
            out->lanes = at * PGD_LANES + (uint32_t) pgd_min_u64(PGD_LANES, block->count - cell * PGD_LANES);
        }
        cell++;
        if (cell == cache->page_cells || cell * PGD_LANES >= block->count) {
            block_index++;
            cell = 0;
        }
    }
}

/* How many lanes hold a token before `position`. Positions grow with lanes. */
static uint32_t lanes_before(const struct gathered *gathered, uint64_t position)
{
    uint32_t at = gathered->cells.count;
    while (at > 0 && gathered->first[at - 1] >= position) {
        at--;
    }
    if (at == 0) {
        return 0;
    }
    const uint64_t inside = pgd_min_u64(PGD_LANES, position - gathered->first[at - 1]);
    return (uint32_t) pgd_min_u64((at - 1) * PGD_LANES + inside, gathered->lanes);
}

/* Which lanes each row sees: up to its own token, and from the start of its window. */
static void set_visible(const struct call *call, const struct item *item, const struct pgd_plan_chunk *chunk,
                        const struct gathered *gathered)
{
    const uint32_t window = call->layer->shape.window;
    for (uint32_t t = 0; t < item->tokens; t++) {
        const uint64_t position = call->cache->batch.first + item->token + t;
        const uint64_t start = window == 0 || position + 1 < window ? 0 : position + 1 - window;
        const uint32_t first = start <= chunk->first ? 0 : lanes_before(gathered, start);
        const uint32_t end = chunk->last <= position ? gathered->lanes : lanes_before(gathered, position + 1);
        for (uint32_t g = 0; g < call->group; g++) {
            call->worker->first[t * call->group + g] = first;
            call->worker->end[t * call->group + g] = end;
        }
    }
}

/* Packs the item's queries, unless they are there already from the item before. */
static void pack_queries(const struct call *call, const struct item *item)
{
    const size_t size = call->shape.key_size;
    if (call->worker->item_head == item->head && call->worker->item_token == item->token) {
        return;
    }
    call->worker->item_head = item->head;
    call->worker->item_token = item->token;
    call->worker->packed_is_ready = false;
    for (uint32_t t = 0; t < item->tokens; t++) {
        for (uint32_t g = 0; g < call->group; g++) {
            const float *from = call->queries->data + (item->token + t) * call->queries->token_stride +
                                (item->head * call->group + g) * call->queries->head_stride;
            memcpy(call->worker->queries + (t * call->group + g) * size, from, size * sizeof(*from));
        }
    }
}

/* The packed queries as a chunk with this shift must see them. */
static const float *queries_for_shift(const struct call *call, const struct item *item, uint32_t shift)
{
    const struct pgd_rope_table *table = &call->cache->ropes[call->layer->rope];
    const uint32_t pairs = table->rope.pair_count;
    if (shift == 0 || pairs == 0) {
        return call->worker->queries;
    }
    const float *cosine = table->cosine + (size_t) shift * pairs;
    const float *sine = table->sine + (size_t) shift * pairs;
    const size_t size = call->shape.key_size;
    memcpy(call->worker->rotated, call->worker->queries, item->rows * size * sizeof(float));
    for (uint32_t r = 0; r < item->rows; r++) {
        if (table->rope.split_pairs) {
            pgd_rotate_split(pairs, cosine, sine, call->worker->rotated + r * size);
        } else {
            pgd_rotate_adjacent(pairs, cosine, sine, call->worker->rotated + r * size);
        }
    }
    return call->worker->rotated;
}

/* The same after the Hadamard transform, as whole numbers. */
static const struct pgd_packed_rows *packed_for_shift(const struct call *call, const struct item *item, uint32_t shift)
{
    struct pgd_worker *worker = call->worker;
    struct pgd_packed_rows *packed = &worker->packed;
    if (worker->packed_is_ready && worker->packed_shift == shift) {
        return packed;
    }
    const size_t size = call->shape.key_size;
    const float *queries = queries_for_shift(call, item, shift);
    if (queries != worker->rotated) {
        memcpy(worker->rotated, queries, item->rows * size * sizeof(float));
    }
    packed->count = item->rows;
    packed->tiles = (uint32_t) pgd_div_up_u64(size, 4);
    for (uint32_t r = 0; r < item->rows; r++) {
        pgd_hadamard((uint32_t) size, worker->rotated + r * size);
        pgd_packed_query((uint32_t) size, worker->rotated + r * size, packed, r);
    }
    packed->first = worker->first;
    packed->end = worker->end;
    worker->packed_is_ready = true;
    worker->packed_shift = shift;
    return packed;
}

/* Partial softmax of the item's rows over one chunk; false when no row sees anything of it. */
static bool attend_chunk(const struct call *call, const struct item *item, const struct pgd_plan_chunk *chunk,
                         const struct pgd_partial *partial)
{
    const uint64_t last_position = call->cache->batch.first + item->token + item->tokens - 1;
    const uint64_t first_position = call->cache->batch.first + item->token;
    const uint32_t window = call->layer->shape.window;
    if (chunk->first > last_position || (window != 0 && chunk->last + window <= first_position)) {
        return false;
    }
    struct gathered gathered;
    gather(call, chunk, item->head, &gathered);
    if (gathered.cells.count == 0) {
        return false;
    }
    set_visible(call, item, chunk, &gathered);
    const struct pgd_codec *codec = call->cache->codecs[chunk->rung];
    struct pgd_query_rows rows;
    if (codec->rotated) {
        rows.packed = *packed_for_shift(call, item, chunk->shift);
    } else {
        rows.exact = (struct pgd_rows) {
            .count = item->rows,
            .queries = queries_for_shift(call, item, chunk->shift),
            .first = call->worker->first,
            .end = call->worker->end,
        };
    }
    codec->attend(codec, call->cache->kernels, &call->shape, &gathered.cells, &rows, call->worker->kernel, partial);
    return true;
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
static void finish_row(const struct call *call, const struct pgd_partial *state, uint32_t row, uint32_t query_head,
                       float *out)
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

static void finish(const struct call *call, const struct item *item, const struct pgd_partial *state)
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

static void begin_merging(const struct call *call, const struct item *item)
{
    set_unseen(&call->worker->running, item->rows, call->shape.value_size);
    if (call->cache->rung_count > 1) {
        set_unseen(&call->worker->running_rotated, item->rows, call->shape.value_size);
    }
}

static void merge_chunk(const struct call *call, const struct item *item, const struct pgd_plan_chunk *chunk,
                        const struct pgd_partial *partial)
{
    const bool rotated = call->cache->codecs[chunk->rung]->rotated;
    call->cache->kernels->merge(item->rows, call->shape.value_size,
                                rotated ? &call->worker->running_rotated : &call->worker->running, partial);
}

/* Turns the rotated outputs back, joins them to the others, and writes the result. */
static void finish_merging(const struct call *call, const struct item *item)
{
    const struct pgd_partial *rotated = &call->worker->running_rotated;
    const uint32_t size = call->shape.value_size;
    if (call->cache->rung_count > 1) {
        for (uint32_t r = 0; r < item->rows; r++) {
            if (rotated->max[r] != -INFINITY) {
                pgd_hadamard(size, rotated->out + (size_t) r * size);
            }
        }
        call->cache->kernels->merge(item->rows, size, &call->worker->running, rotated);
    }
    finish(call, item, &call->worker->running);
}

/* ---- many tokens ---- */

static void attend_tokens(const struct call *call, const struct item *item)
{
    const struct pgd_plan *plan = &call->cache->plan;
    pack_queries(call, item);
    begin_merging(call, item);
    for (uint32_t c = 0; c < plan->chunk_count; c++) {
        if (attend_chunk(call, item, &plan->chunks[c], &call->worker->partial)) {
            merge_chunk(call, item, &plan->chunks[c], &call->worker->partial);
        }
    }
    finish_merging(call, item);
}

static void attend_many(const struct call *call)
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
        struct item item = {.head = i % call->layer->shape.kv_heads, .token = part * step};
        item.tokens = (uint32_t) pgd_min_u64(step, tokens - item.token);
        item.rows = item.tokens * call->group;
        attend_tokens(call, &item);
    }
}

/* ---- one token ---- */

/* Where the partial result of (head, chunk) lives: max and sum of the group, then its outputs. */
static struct pgd_partial partial_at(const struct call *call, uint32_t head, uint32_t chunk)
{
    const size_t floats = (size_t) call->group * (call->shape.value_size + 2u);
    float *base = call->cache->partials + ((size_t) head * call->cache->plan.chunk_count + chunk) * floats;
    return (struct pgd_partial) {.max = base, .sum = base + call->group, .out = base + 2u * call->group};
}

static void merge_head(const struct call *call, const struct item *item)
{
    begin_merging(call, item);
    for (uint32_t c = 0; c < call->cache->plan.chunk_count; c++) {
        const struct pgd_partial partial = partial_at(call, item->head, c);
        merge_chunk(call, item, &call->cache->plan.chunks[c], &partial);
    }
    finish_merging(call, item);
}

static void attend_one(const struct call *call)
{
    const uint32_t chunks = call->cache->plan.chunk_count;
    const uint32_t items = chunks * call->layer->shape.kv_heads;
    for (;;) {
        const uint32_t i = atomic_fetch_add_explicit(&call->layer->next_item, 1, memory_order_relaxed);
        if (i >= items) {
            return;
        }
        const uint32_t c = i % chunks;
        const struct item item = {.head = i / chunks, .token = 0, .tokens = 1, .rows = call->group};
        const struct pgd_partial partial = partial_at(call, item.head, c);
        pack_queries(call, &item);
        if (!attend_chunk(call, &item, &call->cache->plan.chunks[c], &partial)) {
            set_unseen(&partial, item.rows, call->shape.value_size);
        }
        /* Release our partial result; whoever is last acquires everybody's. */
        if (atomic_fetch_sub_explicit(&call->layer->head_left[item.head], 1, memory_order_acq_rel) == 1) {
            merge_head(call, &item);
        }
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
    const struct call call = {
        .cache = cache,
        .layer = layer,
        .layer_index = layer_index,
        .queries = queries,
        .outputs = outputs,
        .worker = &cache->workers[thread],
        .shape = {layer->shape.key_size, layer->shape.value_size, layer->shape.scale, layer->shape.softcap},
        .group = layer->shape.query_heads / layer->shape.kv_heads,
    };
    call.worker->item_head = UINT32_MAX;
    if (cache->batch.count == 1) {
        attend_one(&call);
    } else {
        attend_many(&call);
    }
    return PAGODA_OK;
}
