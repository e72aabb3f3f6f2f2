/* cache/gather.c - see attend.h. */
#include "base/number.h"
#include "cache/attend.h"
#include "cache/spill.h"

/* Where a page's bytes are: in its frame, in staging, or (NULL) not in memory. */
static const unsigned char *bytes_of(const struct pagoda_cache *cache, uint32_t index, const struct pgd_page *page)
{
    if (pgd_page_has_frame(page)) {
        return pgd_pool_address(cache->pool, page->frame);
    }
    return page->state == PAGODA_PAGE_SPILLED ? cache->spill->staged[index] : NULL;
}

void pgd_attend_gather(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t cells_max,
                       struct pgd_gathered *out)
{
    const struct pagoda_cache *cache = call->cache;
    const uint64_t cell_bytes = call->layer->kinds[chunk->rung].cell_bytes;
    uint32_t block_index = chunk->block;
    uint32_t cell = chunk->cell;
    out->count = 0;
    out->lanes = 0;
    out->head_bytes = cache->page_cells * cell_bytes;
    for (uint32_t i = 0; i < chunk->cells && out->count < cells_max; i++) {
        const struct pgd_block *block = pgd_table_block(cache->table, block_index);
        const struct pgd_page *page = pgd_table_page(cache->table, block_index, call->layer_index);
        const unsigned char *bytes = bytes_of(cache, block_index, page);
        if (bytes != NULL) {
            const uint32_t at = out->count++;
            PGD_ASSERT(page->codec == chunk->rung);
            out->cell[at] = bytes + cell * cell_bytes;
            out->block[at] = block_index;
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
static uint32_t lanes_before(const struct pgd_gathered *gathered, uint64_t position)
{
    uint32_t at = gathered->count;
    while (at > 0 && gathered->first[at - 1] >= position) {
        at--;
    }
    if (at == 0) {
        return 0;
    }
    const uint64_t inside = pgd_min_u64(PGD_LANES, position - gathered->first[at - 1]);
    return (uint32_t) pgd_min_u64((at - 1) * PGD_LANES + inside, gathered->lanes);
}

void pgd_attend_set_visible(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                            const struct pgd_plan_chunk *chunk, const struct pgd_gathered *gathered)
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
