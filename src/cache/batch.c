/* cache/batch.c - a batch from begin to end, and taking tokens back.
 *
 *            begin                       end
 *    idle -----------> open (reserved) ---------> idle, position moved on
 *      ^                    |
 *      +------- abort ------+
 */
#include "base/number.h"
#include "base/status.h"
#include "cache/spill.h"

enum pagoda_status pgd_cache_check_idle(const struct pagoda_cache *cache, struct pagoda_error *error)
{
    if (cache->batch.open) {
        return pgd_fail(error, PAGODA_BUSY, "a batch of %u tokens is open: end or abort it first", cache->batch.count);
    }
    return PAGODA_OK;
}

/* Takes a frame for (block, layer). Room was made before, so it is there. */
static void place_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const uint32_t class_index = cache->layers[layer].kinds[0].frame_class;
    uint32_t frame = PGD_FRAME_NONE;
    const bool admitted =
        pgd_ledger_take(&cache->ledger, PAGODA_MEMORY_KV_EXACT, pgd_pool_frame_bytes(cache->pool, class_index));
    PGD_ASSERT(admitted);
    const bool taken = pgd_pool_take(cache->pool, class_index, &frame);
    PGD_ASSERT(taken);
    pgd_table_place(cache->table, index, layer, frame, 0);
}

/* Adds `count` tokens to the end of the table, with a page in every layer for each new block. */
static void reserve_tokens(struct pagoda_cache *cache, uint32_t count)
{
    uint64_t at = cache->position;
    const uint64_t end = at + count;
    while (at < end) {
        const uint64_t block_first = at - at % cache->page_tokens;
        const uint64_t block_end = pgd_min_u64(block_first + cache->page_tokens, end);
        if (at == block_first) {
            const bool appended = pgd_table_append(cache->table, block_first);
            PGD_ASSERT(appended);
        }
        const uint32_t index = pgd_table_count(cache->table) - 1;
        if (at == block_first) {
            for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
                place_page(cache, index, layer);
            }
        }
        pgd_table_set_count(cache->table, index, (uint32_t) (block_end - block_first));
        if (block_end == block_first + cache->page_tokens && block_end < end) {
            pgd_table_seal(cache->table, index);
        }
        at = block_end;
    }
    cache->held_tokens += count;
    cache->live_row_bytes += cache->row_bytes * count;
}

static void reset_progress(struct pagoda_cache *cache)
{
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        struct pgd_layer *layer = &cache->layers[i];
        layer->given[PAGODA_KEYS] = false;
        layer->given[PAGODA_VALUES] = false;
        atomic_store_explicit(&layer->next_item, 0, memory_order_relaxed);
        for (uint32_t head = 0; head < layer->shape.kv_heads; head++) {
            atomic_store_explicit(&layer->head_left[head], cache->plan.chunk_count, memory_order_relaxed);
        }
    }
}

enum pagoda_status pagoda_cache_begin(struct pagoda_cache *cache, uint32_t token_count, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (token_count == 0 || token_count > cache->batch_tokens) {
        return pgd_fail(error, PAGODA_INVALID, "a batch has 1 to %u tokens, not %u", cache->batch_tokens, token_count);
    }
    status = pgd_cache_make_room(cache, token_count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    cache->batch = (struct pgd_batch) {.open = true, .first = cache->position, .count = token_count};
    reserve_tokens(cache, token_count);
    if (cache->spill != NULL) {
        pgd_select_begin(cache);
    }
    pgd_cache_plan(cache);
    reset_progress(cache);
    return PAGODA_OK;
}

static void note_peak(struct pagoda_cache *cache)
{
    const uint64_t frames = pgd_cache_frame_bytes(cache);
    PGD_ASSERT(frames == cache->ledger.by_category[PAGODA_MEMORY_KV_EXACT] +
                             cache->ledger.by_category[PAGODA_MEMORY_KV_QUANTIZED]); /* I1 */
    if (frames >= cache->peak_frame_bytes) {
        cache->peak_frame_bytes = frames;
        cache->peak_live_bytes = cache->live_row_bytes;
    }
}

enum pagoda_status pagoda_cache_end(struct pagoda_cache *cache, struct pagoda_error *error)
{
    if (!cache->batch.open) {
        return pgd_fail(error, PAGODA_INVALID, "no batch is open");
    }
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        if (!cache->layers[i].given[PAGODA_KEYS] || !cache->layers[i].given[PAGODA_VALUES]) {
            pagoda_cache_abort(cache);
            return pgd_fail(error, PAGODA_MISMATCH,
                            "layer %u was not given its keys and values: the batch is forgotten", i);
        }
    }
    cache->batch.open = false;
    cache->position += cache->batch.count;
    const uint32_t last = pgd_table_count(cache->table) - 1;
    if (pgd_table_block(cache->table, last)->count == cache->page_tokens) {
        pgd_table_seal(cache->table, last);
    }
    note_peak(cache);
    return PAGODA_OK;
}

/* State of a block's pages: all are in the same one, but for those on flash, some of which may be in memory too. */
static enum pagoda_page_state state_of(const struct pagoda_cache *cache, uint32_t index)
{
    uint32_t layer = 0;
    while (pgd_table_page(cache->table, index, layer)->state == PAGODA_PAGE_ABSENT) {
        layer++; /* a held block has at least one page */
    }
    return pgd_table_page(cache->table, index, layer)->state;
}

void pgd_cache_truncate(struct pagoda_cache *cache, uint64_t position)
{
    for (;;) {
        const uint32_t count = pgd_table_count(cache->table);
        if (count == 0 || pgd_table_block(cache->table, count - 1)->first < position) {
            break;
        }
        pgd_cache_drop_block(cache, count - 1);
    }
    const uint32_t count = pgd_table_count(cache->table);
    if (count == 0) {
        return;
    }
    const struct pgd_block *last = pgd_table_block(cache->table, count - 1);
    if (last->first + last->count <= position) {
        return;
    }
    const uint32_t kept = (uint32_t) (position - last->first);
    const uint32_t gone = last->count - kept;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const struct pgd_page *page = pgd_table_page(cache->table, count - 1, layer);
        if (page->state != PAGODA_PAGE_ABSENT) {
            PGD_ASSERT(page->codec == 0);
            cache->live_row_bytes -= cache->layers[layer].row_bytes * gone;
        }
    }
    cache->held_tokens -= gone;
    if (state_of(cache, count - 1) == PAGODA_PAGE_SEALED) {
        pgd_table_reopen(cache->table, count - 1);
    }
    pgd_table_set_count(cache->table, count - 1, kept);
}

void pagoda_cache_abort(struct pagoda_cache *cache)
{
    if (cache->batch.open) {
        cache->batch.open = false;
        pgd_cache_truncate(cache, cache->batch.first);
    }
}

/* Whether the page of the token before `position` is still held in f16, so that a sequence can go on inside it. */
static bool tail_is_held(const struct pagoda_cache *cache, uint64_t position)
{
    if (position % cache->page_tokens == 0) {
        return true;
    }
    const uint32_t index = pgd_table_find(cache->table, position - 1);
    return index < pgd_table_count(cache->table) && pgd_table_block(cache->table, index)->first < position &&
           pgd_table_codec(cache->table, index) == 0 && state_of(cache, index) <= PAGODA_PAGE_SEALED;
}

enum pagoda_status pagoda_cache_rollback(struct pagoda_cache *cache, uint64_t token_count, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (token_count > cache->position || cache->position - token_count < cache->rollback_floor) {
        return pgd_fail(error, PAGODA_RANGE,
                        "%llu tokens cannot be taken back: the sequence has %llu, and what came before %llu "
                        "is out of some layer's window",
                        (unsigned long long) token_count, (unsigned long long) cache->position,
                        (unsigned long long) cache->rollback_floor);
    }
    const uint64_t position = cache->position - token_count;
    if (!tail_is_held(cache, position)) {
        return pgd_fail(error, PAGODA_RANGE,
                        "position %llu lies inside a page that was dropped, re-encoded or spilled: go back further, or "
                        "less far",
                        (unsigned long long) position);
    }
    pgd_cache_truncate(cache, position);
    cache->settled_to = pgd_min_u64(cache->settled_to, position);
    cache->position = position;
    return PAGODA_OK;
}

uint64_t pagoda_cache_rollback_floor(const struct pagoda_cache *cache)
{
    return cache->rollback_floor;
}

uint64_t pagoda_cache_position(const struct pagoda_cache *cache)
{
    return cache->position;
}
