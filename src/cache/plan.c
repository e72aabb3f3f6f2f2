/* cache/plan.c - how a batch walks the pages: chunks in token order, and the rotations that close gaps.
 *
 * A chunk is cut where a position is a multiple of PGD_CHUNK_TOKENS, so that chunks are the same
 * whatever the page size and the way tokens were batched; and where the rotation changes.
 *
 * Closing gaps. Keys carry the rotation of their true position and are never rewritten. For a chunk
 * that lies before `shift` dropped tokens, the query is rotated back by `shift` positions: rotations
 * form a group, so q' = R(-shift) q gives the scores of a query that stands that much closer
 * (StreamingLLM's positions inside the cache, arXiv 2309.17453, done on the query side). Order is kept
 * and distances only shrink. It starts where the sequence outgrows the trained length; before that,
 * true distances are exact and better.
 */
#include <math.h>

#include "base/number.h"
#include "cache/cache.h"

/* Distance between a block's true end and the start of the next one. */
static uint64_t gap_after(const struct pagoda_cache *cache, uint32_t index)
{
    const struct pgd_block *block = pgd_table_block(cache->table, index);
    const struct pgd_block *next = pgd_table_block(cache->table, index + 1);
    return next->first - (block->first + block->count);
}

static void fill_rotations(struct pagoda_cache *cache)
{
    for (uint32_t r = 0; r < cache->rope_count; r++) {
        struct pgd_rope_table *table = &cache->ropes[r];
        const uint32_t pairs = table->rope.pair_count;
        for (uint32_t s = 1; s < cache->plan.shift_count; s++) {
            for (uint32_t j = 0; j < pairs; j++) {
                const double angle = -(double) cache->plan.shifts[s] * table->rope.frequencies[j];
                table->cosine[(uint64_t) s * pairs + j] = (float) cos(angle);
                table->sine[(uint64_t) s * pairs + j] = (float) sin(angle);
            }
        }
    }
}

/* Finds the distinct shifts, from the last block (which has none) backwards. Past shifts_max - 1 gaps
 * the older ones stay open: order is kept, distances are merely larger. */
static bool find_shifts(struct pagoda_cache *cache)
{
    struct pgd_plan *plan = &cache->plan;
    const uint32_t before = plan->shift_count;
    uint64_t shift = 0;
    uint32_t count = 1;
    bool same = true;
    for (uint32_t index = pgd_table_count(cache->table) - 1; index > 0 && count < cache->shifts_max; index--) {
        const uint64_t gap = gap_after(cache, index - 1);
        if (gap > 0) {
            shift += gap;
            same = same && count < before && plan->shifts[count] == shift;
            plan->shifts[count++] = shift;
        }
    }
    plan->shift_count = count;
    return same && count == before;
}

static struct pgd_plan_chunk *open_chunk(struct pgd_plan *plan, uint32_t block, uint32_t cell, uint32_t shift,
                                         uint32_t rung)
{
    PGD_ASSERT(plan->chunk_count < plan->chunk_capacity);
    struct pgd_plan_chunk *chunk = &plan->chunks[plan->chunk_count++];
    *chunk = (struct pgd_plan_chunk) {.block = block, .cell = cell, .cells = 0, .shift = shift, .rung = rung};
    return chunk;
}

/* Natural borders are kept only while full chunks would still fit behind them: with very many holes
 * between pages, chunks are packed instead. */
static bool may_cut(const struct pgd_plan *plan, uint64_t cells_left, uint32_t cuts_left)
{
    const uint64_t needed = pgd_div_up_u64(cells_left, PGD_CHUNK_BLOCKS) + cuts_left + 1;
    return plan->chunk_count + needed <= plan->chunk_capacity;
}

static uint64_t count_cells(const struct pagoda_cache *cache)
{
    uint64_t cells = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        cells += pgd_div_up_u64(pgd_table_block(cache->table, index)->count, PGD_LANES);
    }
    return cells;
}

static uint32_t count_gaps(const struct pagoda_cache *cache)
{
    uint32_t gaps = 0;
    for (uint32_t index = 1; index < pgd_table_count(cache->table); index++) {
        gaps += gap_after(cache, index - 1) > 0 ? 1 : 0;
    }
    return gaps;
}

/* Places where the codec changes from one block to the next. */
static uint32_t count_codec_changes(const struct pagoda_cache *cache)
{
    uint32_t changes = 0;
    for (uint32_t index = 1; index < pgd_table_count(cache->table); index++) {
        changes += pgd_table_codec(cache->table, index) != pgd_table_codec(cache->table, index - 1) ? 1 : 0;
    }
    return changes;
}

/* `shift` is the shift of the oldest chunks; every closed gap on the way takes one off. */
static void cut_chunks(struct pagoda_cache *cache, uint32_t shift)
{
    struct pgd_plan *plan = &cache->plan;
    struct pgd_plan_chunk *chunk = NULL;
    uint64_t cells_left = count_cells(cache);
    uint32_t changes_left = count_codec_changes(cache);
    uint32_t rung = 0;
    uint32_t gaps_left_open = shift == 0 ? 0 : count_gaps(cache) - shift;
    plan->chunk_count = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        const uint32_t cells = (uint32_t) pgd_div_up_u64(block->count, PGD_LANES);
        const uint32_t block_rung = pgd_table_codec(cache->table, index);
        if (index > 0 && block_rung != rung) {
            changes_left--;
            chunk = NULL;
        }
        rung = block_rung;
        if (index > 0 && shift > 0 && gap_after(cache, index - 1) > 0) {
            if (gaps_left_open > 0) {
                gaps_left_open--;
            } else {
                shift--;
                chunk = NULL;
            }
        }
        for (uint32_t cell = 0; cell < cells; cell++) {
            const uint64_t first = block->first + (uint64_t) cell * PGD_LANES;
            const bool border = first % PGD_CHUNK_TOKENS == 0 && may_cut(plan, cells_left, shift + changes_left);
            if (chunk == NULL || chunk->cells == PGD_CHUNK_BLOCKS || border) {
                chunk = open_chunk(plan, index, cell, shift, rung);
                chunk->first = first;
            }
            chunk->cells++;
            chunk->last = pgd_min_u64(first + PGD_LANES, block->first + block->count) - 1;
            cells_left--;
        }
    }
}

void pgd_cache_plan(struct pagoda_cache *cache)
{
    const bool close_gaps = cache->close_gaps_at != 0 && cache->batch.first + cache->batch.count > cache->close_gaps_at;
    if (!close_gaps) {
        cache->plan.shift_count = 1;
    } else if (!find_shifts(cache)) {
        fill_rotations(cache);
    }
    cut_chunks(cache, cache->plan.shift_count - 1);
}
