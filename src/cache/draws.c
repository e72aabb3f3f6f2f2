/* cache/draws.c - see draws.h. */
#include "cache/draws.h"

#include <math.h>
#include <string.h>

#include "base/number.h"
#include "cache/spill.h"

void pgd_draws_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, uint64_t blocks, uint64_t slots)
{
    uint64_t kv_heads = 0;
    uint64_t query_heads = 0;
    bool windows_count = true;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        kv_heads = pgd_max_u64(kv_heads, cache->layers[i].shape.kv_heads);
        query_heads = pgd_max_u64(query_heads, cache->layers[i].shape.query_heads);
        windows_count = windows_count && cache->layers[i].shape.window != 0;
    }
    struct pgd_draws made = {.capacity = (uint32_t) blocks, .slots = (uint32_t) slots, .windows_count = windows_count};
    made.shares = pgd_carve(carver, cache->threads_max * blocks * sizeof(*made.shares));
    made.rows = pgd_carve(carver, cache->threads_max * sizeof(*made.rows));
    made.cells = pgd_carve(carver, kv_heads * slots * sizeof(*made.cells));
    made.sums = pgd_carve(carver, query_heads * slots * PGD_CHUNK_BLOCKS * sizeof(*made.sums));
    if (carver->base != NULL) {
        *cache->draws = made;
    }
}

/* ---- while a batch is open ---- */

bool pgd_draws_counts(const struct pagoda_cache *cache, uint32_t layer)
{
    const struct pgd_draws *draws = cache->draws;
    const uint64_t position = cache->batch.first;
    if (draws == NULL || !draws->is_begun || cache->batch.count != 1 ||
        (cache->layers[layer].shape.window != 0 && !draws->windows_count)) {
        return false;
    }
    return position == draws->since || (position + layer) % PGD_DRAWS_EVERY == 0;
}

static struct pgd_draws_cells *cells_of(const struct pgd_attend_call *call, uint32_t head, uint32_t index)
{
    PGD_ASSERT(index < call->cache->draws->slots);
    return &call->cache->draws->cells[(size_t) head * call->cache->draws->slots + index];
}

float *pgd_draws_sums(const struct pgd_attend_call *call, uint32_t head, uint32_t index)
{
    const struct pgd_draws *draws = call->cache->draws;
    return draws->sums + ((size_t) head * draws->slots + index) * call->group * PGD_CHUNK_BLOCKS;
}

void pgd_draws_note(const struct pgd_attend_call *call, uint32_t head, uint32_t index,
                    const struct pgd_gathered *gathered)
{
    struct pgd_draws_cells *cells = cells_of(call, head, index);
    cells->count = gathered->count;
    memcpy(cells->block, gathered->block, gathered->count * sizeof(*cells->block));
}

/* A share of block `index`. */
static void add_share(const struct pgd_attend_call *call, uint32_t index, double share)
{
    const struct pgd_draws *draws = call->cache->draws;
    draws->shares[(size_t) call->thread * draws->capacity + pgd_table_slot(call->cache->table, index)] += share;
}

/* `logs` has, for each row, the logarithm of all its mass. */
static void add_cells(const struct pgd_attend_call *call, uint32_t head, uint32_t index, const float *logs)
{
    const struct pgd_draws_cells *cells = cells_of(call, head, index);
    const struct pgd_partial partial = pgd_attend_partial(call, head, index);
    float shares[PGD_CHUNK_BLOCKS] = {0};
    for (uint32_t r = 0; r < call->group && cells->count > 0; r++) {
        const float factor = pgd_ref_exp(partial.max[r] - logs[r]);
        for (uint32_t i = 0; i < cells->count; i++) {
            shares[i] += partial.blocks[(size_t) r * PGD_CHUNK_BLOCKS + i] * factor;
        }
    }
    for (uint32_t i = 0; i < cells->count; i++) {
        add_share(call, cells->block[i], (double) shares[i]);
    }
}

/* Pages that a token has not read: what their digests expect is known since it chose. */
static void add_unread(const struct pgd_attend_call *call, uint32_t head, const float *logs)
{
    const struct pgd_spill *spill = call->cache->spill;
    const uint32_t cells = call->cache->page_cells;
    for (uint32_t index = 0; index < pgd_table_count(call->cache->table); index++) {
        double share = 0;
        for (uint32_t i = 0; spill->unread[index] != 0 && i < cells * call->group; i++) {
            const size_t row = (size_t) (head * call->group + i / cells) * spill->capacity * cells;
            share += (double) pgd_ref_exp(spill->mass[row + index * cells + i % cells] - logs[i / cells]);
        }
        if (share > 0) {
            add_share(call, index, share);
        }
    }
}

/* Pages of a chunk of which nothing but digests is left, in a layer that is read in full: these are asked once more. */
static void add_collapsed(const struct pgd_attend_call *call, uint32_t head, const struct pgd_plan_chunk *chunk,
                          const float *logs)
{
    const struct pagoda_cache *cache = call->cache;
    const struct pgd_attend_item item = {.head = head, .heads = 1, .tokens = 1};
    const struct pgd_digest_scores scores = pgd_attend_scores(call, call->group);
    struct pgd_spill_cells cells;
    pgd_attend_find_collapsed(call, chunk, head, &cells);
    const uint32_t count = cells.count;
    if (count == 0) {
        return;
    }
    const struct pgd_packed_rows rows = pgd_attend_packed_rows(call, &item, chunk, 0);
    pgd_detail_score(call, &rows, &cells, &scores);
    for (uint32_t i = 0; i < count * call->group; i++) {
        const uint32_t r = i / count;
        add_share(call, cells.at[i % count] / cache->page_cells,
                  (double) pgd_ref_exp(scores.mass[(size_t) r * scores.stride + i % count] - logs[r]));
    }
}

static void add_stand_ins(const struct pgd_attend_call *call, uint32_t head, const float *logs)
{
    const struct pagoda_cache *cache = call->cache;
    const struct pgd_spill *spill = cache->spill;
    if (spill == NULL || spill->layers[call->layer_index].away == 0) {
        return;
    }
    if (call->selects) {
        add_unread(call, head, logs);
        return;
    }
    for (uint32_t c = 0; spill->layers[call->layer_index].collapsed > 0 && c < cache->plan.chunk_count; c++) {
        add_collapsed(call, head, &cache->plan.chunks[c], logs);
    }
}

void pgd_draws_add(const struct pgd_attend_call *call, uint32_t head, uint32_t count, const struct pgd_partial *total)
{
    float logs[PAGODA_HEADS_MAX];
    for (uint32_t r = 0; r < call->group; r++) {
        logs[r] = total->max[r] + logf(total->sum[r]);
        if (!(fabsf(logs[r]) < INFINITY)) {
            return; /* numbers of which nothing can be said */
        }
    }
    for (uint32_t index = 0; index < count; index++) {
        add_cells(call, head, index, logs);
    }
    add_stand_ins(call, head, logs);
    call->cache->draws->rows[call->thread] += call->group;
}

/* ---- between batches ---- */

/* What all threads have counted of a block. */
static double share_of(const struct pagoda_cache *cache, uint32_t index)
{
    const struct pgd_draws *draws = cache->draws;
    const uint32_t slot = pgd_table_slot(cache->table, index);
    double share = 0;
    for (uint32_t thread = 0; thread < cache->threads_max; thread++) {
        share += draws->shares[(size_t) thread * draws->capacity + slot];
    }
    return share;
}

static uint64_t count_rows(const struct pagoda_cache *cache)
{
    uint64_t rows = 0;
    for (uint32_t thread = 0; thread < cache->threads_max; thread++) {
        rows += cache->draws->rows[thread];
    }
    return rows;
}

void pgd_draws_forget(struct pagoda_cache *cache, uint32_t index)
{
    struct pgd_draws *draws = cache->draws;
    draws->gone += share_of(cache, index);
    for (uint32_t thread = 0; thread < cache->threads_max; thread++) {
        draws->shares[(size_t) thread * draws->capacity + pgd_table_slot(cache->table, index)] = 0;
    }
}

void pgd_draws_reset(struct pagoda_cache *cache)
{
    struct pgd_draws *draws = cache->draws;
    memset(draws->shares, 0, (size_t) cache->threads_max * draws->capacity * sizeof(*draws->shares));
    memset(draws->rows, 0, cache->threads_max * sizeof(*draws->rows));
    draws->gone = 0;
    draws->is_begun = false;
}

void pagoda_cache_draws_begin(struct pagoda_cache *cache)
{
    if (cache->draws != NULL && !cache->batch.open) {
        pgd_draws_reset(cache);
        cache->draws->is_begun = true;
        cache->draws->since = cache->position;
    }
}

/* Hands the spans of the page map on, each with its share. */
struct visit {
    const struct pagoda_cache *cache;
    bool (*visit)(void *user, const struct pagoda_draw *draw);
    void *user;
    double rows;
};

static bool visit_span(void *user, const struct pagoda_span *span)
{
    const struct visit *visit = user;
    struct pagoda_draw draw = {.span = *span, .share = 0};
    if (span->state != PAGODA_PAGE_ABSENT) {
        draw.share = share_of(visit->cache, pgd_table_find(visit->cache->table, span->first)) / visit->rows;
    }
    return visit->visit(visit->user, &draw);
}

void pagoda_cache_draws(const struct pagoda_cache *cache, struct pagoda_draws *draws,
                        bool (*visit)(void *user, const struct pagoda_draw *draw), void *user)
{
    *draws = (struct pagoda_draws) {.counted = false};
    const uint64_t rows = cache->draws == NULL || !cache->draws->is_begun ? 0 : count_rows(cache);
    if (rows == 0) {
        return;
    }
    draws->counted = true;
    draws->since = cache->draws->since;
    draws->gone = cache->draws->gone / (double) rows;
    if (visit != NULL) {
        struct visit all = {cache, visit, user, (double) rows};
        pagoda_cache_visit(cache, visit_span, &all);
    }
}
