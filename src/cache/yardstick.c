/* cache/yardstick.c - see spill.h: two other ways to choose pages, against which that of select.c is measured.
 *
 * The oracle reads every page on flash and puts its exact mass in the place of what the digest expects; from there on
 * all goes as usual, so the same share of the attention is read, and what stands in for the rest has the right weight.
 * Nothing that a digest could tell would choose better. By lot, as many pages are read as the digests would have had
 * read, whichever they are. Both are slow, and for measuring only.
 */
#include <math.h>

#include "base/number.h"
#include "cache/spill.h"

/* ---- the oracle ---- */

/* The exact mass of each cell of a page that has arrived, for all query heads. */
static void weigh_page(const struct pgd_attend_call *call, const struct pgd_attend_item *all,
                       const struct pgd_fetch_page *fetched)
{
    const struct pagoda_cache *cache = call->cache;
    const uint32_t rung = pgd_spill_rung(cache);
    const uint64_t cell_bytes = call->layer->kinds[rung].cell_bytes;
    const struct pgd_plan_chunk chunk = {.shift = fetched->shift, .rung = rung};
    const struct pgd_partial *partial = &call->worker->partial;
    for (uint32_t r = 0; r < call->group; r++) {
        call->worker->first[r] = 0;
        call->worker->end[r] = PGD_LANES;
    }
    for (uint32_t cell = 0; cell < cache->page_cells; cell++) {
        const struct pgd_gathered gathered = {
            .count = 1,
            .cell = {cache->spill->staged[fetched->block] + cell * cell_bytes},
            .head_bytes = cache->page_cells * cell_bytes,
        };
        const size_t at = (size_t) fetched->block * cache->page_cells + cell;
        for (uint32_t head = 0; head < all->heads; head++) {
            pgd_attend_gathered(call, all, &chunk, &gathered, head, partial);
            for (uint32_t r = 0; r < call->group; r++) {
                const size_t row = (size_t) (head * call->group + r) * cache->spill->capacity * cache->page_cells;
                cache->spill->mass[row + at] = partial->max[r] + logf(partial->sum[r]);
            }
        }
    }
}

/* Reads what was added to a part of the staging memory, and empties it. */
static void weigh_part(const struct pgd_attend_call *call, const struct pgd_attend_item *all, struct pgd_fetch *fetch)
{
    struct pagoda_cache *cache = call->cache;
    pgd_fetch_submit(cache, fetch);
    pgd_fetch_complete(cache, fetch, call->layer_index, 0);
    if (atomic_load_explicit(&fetch->missing, memory_order_relaxed) > 0) {
        pgd_fetch_repair(cache, fetch, call->layer_index);
    }
    for (uint32_t i = 0; i < fetch->page_count; i++) {
        if (fetch->pages[i].outcome == PGD_FETCH_GOOD) {
            weigh_page(call, all, &fetch->pages[i]);
        }
    }
    pgd_fetch_end(cache, fetch, NULL);
    pgd_fetch_settle(cache, fetch);
}

static void add_page(const struct pgd_attend_call *call, const struct pgd_attend_item *all, uint32_t index,
                     uint32_t shift)
{
    struct pgd_fetch *fetch = &call->cache->spill->fetch[0];
    bool added = pgd_fetch_add(call->cache, fetch, call->layer_index, index);
    if (!added) {
        weigh_part(call, all, fetch);
        added = pgd_fetch_add(call->cache, fetch, call->layer_index, index);
    }
    PGD_ASSERT(added); /* there is room for any page */
    fetch->pages[fetch->page_count - 1].shift = shift;
}

void pgd_yardstick_weigh(const struct pgd_attend_call *call, const struct pgd_attend_item *all)
{
    struct pagoda_cache *cache = call->cache;
    pgd_fetch_drain(cache);
    uint32_t next = 0; /* a page at the border of two chunks belongs to the first of them */
    for (uint32_t c = 0; c < cache->plan.chunk_count; c++) {
        const struct pgd_plan_chunk *chunk = &cache->plan.chunks[c];
        const uint32_t end = chunk->block + pgd_chunk_blocks(cache, chunk);
        for (next = (uint32_t) pgd_max_u64(next, chunk->block); next < end; next++) {
            if (pgd_table_page(cache->table, next, call->layer_index)->state == PAGODA_PAGE_SPILLED) {
                add_page(call, all, next, chunk->shift);
            }
        }
    }
    weigh_part(call, all, &cache->spill->fetch[0]);
}

/* ---- by lot ---- */

static bool is_spilled(const struct pgd_attend_call *call, uint32_t index)
{
    return pgd_table_page(call->cache->table, index, call->layer_index)->state == PAGODA_PAGE_SPILLED;
}

/* What a page would have had of every row is unread again (1), or read (-1). */
static void move_share(const struct pgd_attend_call *call, uint32_t index, float sign)
{
    struct pgd_spill *spill = call->cache->spill;
    for (uint32_t r = 0; r < call->layer->shape.query_heads; r++) {
        spill->row_left[r] += sign * spill->share[(size_t) r * spill->capacity + index];
    }
}

/* Takes back what was selected; how many pages there are to choose from. */
static uint32_t put_back(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    uint32_t spilled = 0;
    for (uint32_t i = 0; i < pgd_table_count(call->cache->table); i++) {
        if (is_spilled(call, i)) {
            spilled++;
            if (spill->unread[i] == 0) {
                spill->unread[i] = PAGODA_PAGE_SPILLED;
                move_share(call, i, 1);
            }
        }
    }
    return spilled;
}

void pgd_yardstick_draw(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    if (spill->options.yardstick != PAGODA_YARDSTICK_RANDOM) {
        return;
    }
    uint64_t lot = (call->cache->position << 10) + call->layer_index; /* there are at most 1,024 layers */
    uint32_t left = put_back(call);
    uint32_t wanted = spill->selected_count;
    for (uint32_t i = 0; wanted > 0; i++) { /* each of those left is as likely as any other to be wanted */
        if (is_spilled(call, i)) {
            lot = pgd_scatter_u64(lot);
            if (lot % left < wanted) {
                spill->unread[i] = 0;
                move_share(call, i, -1);
                wanted--;
            }
            left--;
        }
    }
}
