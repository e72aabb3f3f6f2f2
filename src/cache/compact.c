/* cache/compact.c - moving pages together, so that a slab becomes free for pages of another size.
 *
 * Pages of one block lie in several slabs, and blocks become smaller one by one: the holes that they leave are of use
 * to pages of the same size only, until a slab is empty. Pinned pages and the page being written never move.
 */
#include <string.h>

#include "cache/spill.h"

void pgd_cache_mark_fixed(const struct pagoda_cache *cache)
{
    pgd_pool_clear_marks(cache->pool);
    if (cache->spill != NULL) {
        pgd_spill_mark_frames(cache);
    }
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const bool pinned = pgd_table_block(cache->table, index)->pinned;
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
            if (page->state == PAGODA_PAGE_OPEN || (pinned && pgd_page_has_frame(page))) {
                pgd_pool_mark(cache->pool, page->frame);
            }
        }
    }
}

static void move_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
    const uint8_t rung = page->codec;
    const struct pgd_page_kind *kind = &cache->layers[layer].kinds[rung];
    uint32_t frame = PGD_FRAME_NONE;
    const bool taken = pgd_pool_take(cache->pool, kind->frame_class, &frame);
    PGD_ASSERT(taken); /* pgd_pool_pick_to_empty counted the places */
    memcpy(pgd_pool_address(cache->pool, frame), pgd_pool_address(cache->pool, page->frame), kind->page_bytes);
    pgd_pool_give(cache->pool, pgd_table_reencode(cache->table, index, layer, frame, rung));
}

static void empty_slab(struct pagoda_cache *cache, uint32_t slab)
{
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
            if (pgd_page_has_frame(page) && pgd_pool_slab_of(cache->pool, page->frame) == slab) {
                move_page(cache, index, layer);
            }
        }
    }
}

bool pgd_cache_compact(struct pagoda_cache *cache)
{
    if (cache->class_count == 1 || !pgd_pool_may_empty(cache->pool)) {
        return false;
    }
    pgd_cache_mark_fixed(cache);
    for (uint32_t i = 0; i < cache->class_count; i++) {
        uint32_t slab = 0;
        if (pgd_pool_pick_to_empty(cache->pool, i, &slab)) {
            empty_slab(cache, slab);
            return true;
        }
    }
    return false;
}
