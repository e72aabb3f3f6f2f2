/* cache/shrink.c - full pages into smaller codecs, before anything leaves.
 *
 * Blocks are re-encoded whole, one codec down at a time: a block is f16 while it is among the first or the latest
 * tokens, or pinned; what its next codec is, and whether it has to go there at once or only when room is needed, is the
 * cache's choice of codecs (its rungs). The new frames are taken before the old ones are given back, so nothing is
 * ever without a place; pgd_cache_make_room keeps a block's worth of frames free for that.
 */
#include "base/number.h"
#include "cache/cache.h"

static uint64_t frame_bytes(const struct pagoda_cache *cache, uint32_t layer, uint32_t rung)
{
    return pgd_pool_frame_bytes(cache->pool, cache->layers[layer].kinds[rung].frame_class);
}

bool pgd_cache_may_shrink(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position)
{
    const struct pgd_block *block = pgd_table_block(cache->table, index);
    return !block->pinned && block->count == cache->page_tokens && block->first >= cache->exact_first &&
           block->first + block->count + cache->exact_recent <= end_position;
}

/* Every run of blocks in one codec is a chunk of its own when attention walks the pages, and chunks are counted. */
static bool has_runs_left(const struct pagoda_cache *cache)
{
    uint32_t runs = 1;
    for (uint32_t index = 1; index < pgd_table_count(cache->table); index++) {
        runs += pgd_table_codec(cache->table, index) != pgd_table_codec(cache->table, index - 1) ? 1 : 0;
    }
    return runs + 2 <= cache->runs_max;
}

/* Frames of each class that a block's present pages take in another codec. */
static void count_frames(const struct pagoda_cache *cache, uint32_t index, uint32_t rung, uint32_t *frames)
{
    for (uint32_t i = 0; i < cache->class_count; i++) {
        frames[i] = 0;
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (pgd_page_has_frame(pgd_table_page(cache->table, index, layer))) {
            frames[cache->layers[layer].kinds[rung].frame_class]++;
        }
    }
}

/* The bytes of one page, from one codec to another. */
static void reencode_page(const struct pagoda_cache *cache, const struct pgd_layer *layer, uint32_t from, uint32_t to,
                          const unsigned char *old, unsigned char *new)
{
    const struct pgd_cell_shape shape = {layer->shape.key_size, layer->shape.value_size};
    float *keys = cache->cell_rows;
    float *values = keys + (size_t) PGD_LANES * shape.key_size;
    const uint32_t cells = layer->shape.kv_heads * cache->page_cells;
    for (uint32_t cell = 0; cell < cells; cell++) {
        cache->codecs[from]->decode(cache->codecs[from], shape, old + cell * layer->kinds[from].cell_bytes, keys,
                                    values);
        cache->codecs[to]->encode(cache->codecs[to], shape, keys, values, new + cell * layer->kinds[to].cell_bytes);
    }
}

static void move_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer_index, uint32_t to)
{
    const struct pgd_layer *layer = &cache->layers[layer_index];
    const struct pgd_page *page = pgd_table_page(cache->table, index, layer_index);
    const uint32_t from = page->codec;
    uint32_t frame = PGD_FRAME_NONE;
    const bool admitted = pgd_ledger_take(&cache->ledger, pgd_cache_category(to), frame_bytes(cache, layer_index, to));
    PGD_ASSERT(admitted); /* the arena is within the budget */
    const bool taken = pgd_pool_take(cache->pool, layer->kinds[to].frame_class, &frame);
    PGD_ASSERT(taken);
    reencode_page(cache, layer, from, to, pgd_pool_address(cache->pool, page->frame),
                  pgd_pool_address(cache->pool, frame));
    const uint64_t live_before = pgd_cache_live_bytes(cache, index, layer_index);
    const uint32_t old = pgd_table_reencode(cache->table, index, layer_index, frame, (uint8_t) to);
    pgd_pool_give(cache->pool, old);
    pgd_ledger_give(&cache->ledger, pgd_cache_category(from), frame_bytes(cache, layer_index, from));
    cache->live_row_bytes += pgd_cache_live_bytes(cache, index, layer_index);
    cache->live_row_bytes -= live_before;
    cache->reencoded_pages++;
}

/* Moves a block to another codec; false when there are no frames for it, or too many runs. A block's worth of frames
 * in every codec below stays free: what takes the last slab must not be what could have been made smaller still. */
static bool move_block(struct pagoda_cache *cache, uint32_t index, uint32_t to)
{
    uint32_t frames[PGD_POOL_CLASSES_MAX];
    count_frames(cache, index, to, frames);
    for (uint32_t below = to + 1; below < cache->rung_count; below++) {
        for (uint32_t i = 0; i < cache->class_count; i++) {
            frames[i] += cache->block_frames[below][i];
        }
    }
    if (!pgd_pool_can_take(cache->pool, frames, 0) || !has_runs_left(cache)) {
        return false;
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (pgd_page_has_frame(pgd_table_page(cache->table, index, layer))) {
            move_page(cache, index, layer, to);
        }
    }
    return true;
}

void pgd_cache_settle(struct pagoda_cache *cache, uint64_t end_position)
{
    if (cache->rung_settled == 0) {
        return;
    }
    uint32_t index = pgd_table_find(cache->table, cache->settled_to);
    for (; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        if (block->first + block->count + cache->exact_recent > end_position) {
            break;
        }
        if (pgd_table_codec(cache->table, index) < cache->rung_settled &&
            pgd_cache_may_shrink(cache, index, end_position) && !move_block(cache, index, cache->rung_settled)) {
            break;
        }
        cache->settled_to = block->first + block->count;
    }
}

bool pgd_cache_shrink_one(struct pagoda_cache *cache, uint64_t end_position)
{
    for (uint32_t to = 1; to < cache->rung_count; to++) {
        for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
            if (pgd_table_codec(cache->table, index) + 1u == to && pgd_cache_may_shrink(cache, index, end_position)) {
                if (move_block(cache, index, to)) {
                    return true;
                }
                break;
            }
        }
    }
    return false;
}

uint64_t pgd_cache_shrink_gain(const struct pagoda_cache *cache, uint64_t end_position)
{
    const uint32_t last = cache->rung_count - 1;
    uint64_t gain = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const uint8_t now = pgd_table_codec(cache->table, index);
        if (now == last || !pgd_cache_may_shrink(cache, index, end_position)) {
            continue;
        }
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            if (pgd_page_has_frame(pgd_table_page(cache->table, index, layer))) {
                gain += frame_bytes(cache, layer, now) - frame_bytes(cache, layer, last);
            }
        }
    }
    return gain;
}
