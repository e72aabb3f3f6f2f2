/* cache/digests.c - see spill.h: frames of digests, what is in them, and where. */
#include "base/number.h"
#include "cache/spill.h"
#include "kernels/digest.h"

#define EVEN_PART 20u /* one part in so many may be added to a frame */

/* ---- sizes ---- */

/* Cells whose digests share a frame, and their digests, of one KV head. */
static uint64_t cells_of_frame(const struct pagoda_cache *cache)
{
    return (uint64_t) cache->spill->span * cache->page_cells;
}
static uint64_t digests_of_frame(const struct pagoda_cache *cache)
{
    return cells_of_frame(cache) / cache->spill->digest_cells;
}

/* Frames of pages and of digests share slabs (pool_layout.h): sizes that go well together waste less of them than a
 * little at the end of each frame. */
static uint64_t even_frame_bytes(uint64_t bytes, uint64_t page_bytes)
{
    const uint64_t even = pgd_round_up_u64(bytes, pgd_max_u64(1, page_bytes / 2));
    return even - bytes <= bytes / EVEN_PART ? even : bytes;
}

static uint32_t divisor_up_to(uint32_t number, uint32_t most)
{
    uint32_t divisor = (uint32_t) pgd_min_u64(number, most);
    while (number % divisor != 0) {
        divisor--;
    }
    return divisor;
}

static uint64_t largest_class(const struct pagoda_cache *cache, const uint64_t *class_bytes)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < cache->spill->digest_class; i++) {
        largest = pgd_max_u64(largest, class_bytes[i]);
    }
    return largest;
}

void pgd_spill_set_digests(struct pagoda_cache *cache, uint32_t cells, uint32_t detail_part, uint64_t *class_bytes)
{
    struct pgd_spill *spill = cache->spill;
    uint64_t bytes = 0;
    uint32_t heads = 0;
    spill->span = (uint32_t) pgd_max_u64(1, cells / cache->page_cells);
    spill->digest_cells = spill->span > 1 ? spill->span * cache->page_cells : divisor_up_to(cache->page_cells, cells);
    spill->detail_bytes = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pagoda_layer *shape = &cache->layers[i].shape;
        struct pgd_spill_layer *layer = &spill->layers[i];
        if (!layer->grows) {
            continue;
        }
        layer->digest_bytes = pgd_digest_bytes(shape->key_size, shape->value_size, spill->digest_cells);
        layer->digest_along = pgd_digest_layout(shape->key_size, shape->value_size).along;
        layer->digest_at = bytes;
        bytes += (uint64_t) shape->kv_heads * digests_of_frame(cache) * layer->digest_bytes;
        spill->detail_bytes = pgd_max_u64(spill->detail_bytes, pgd_detail_bytes(shape->key_size));
        heads += shape->kv_heads;
    }
    spill->detail_count = pgd_detail_slots(heads, detail_part);
    spill->details_at = bytes;
    bytes += spill->detail_count * cells_of_frame(cache) * spill->detail_bytes;
    class_bytes[spill->digest_class] = even_frame_bytes(bytes, largest_class(cache, class_bytes));
}

uint64_t pgd_spill_digest_floats(const struct pagoda_cache *cache, uint32_t layer)
{
    const struct pagoda_layer *shape = &cache->layers[layer].shape;
    const uint32_t tokens = cache->spill->digest_cells * PGD_LANES;
    return (uint64_t) tokens * (shape->key_size + shape->value_size) + pgd_digest_make_floats(shape->key_size, tokens);
}

/* ---- where they are ---- */

/* Where digest `number` of a KV head is in its frame. */
static uint64_t digest_offset(const struct pagoda_cache *cache, uint32_t layer, uint32_t head, uint32_t number)
{
    const struct pgd_spill_layer *about_layer = &cache->spill->layers[layer];
    return about_layer->digest_at + (head * digests_of_frame(cache) + number) * about_layer->digest_bytes;
}

const uint8_t *pgd_spill_digest(const struct pagoda_cache *cache, uint32_t index, uint32_t layer, uint32_t head,
                                uint32_t cell)
{
    const uint32_t frame = pgd_spill_about(cache, index)->digests;
    const uint32_t number = (pgd_spill_first_cell(cache, index) + cell) / cache->spill->digest_cells;
    PGD_ASSERT(frame != PGD_FRAME_NONE);
    return (const uint8_t *) pgd_pool_address(cache->pool, frame) + digest_offset(cache, layer, head, number);
}

void pgd_spill_add_cell(const struct pagoda_cache *cache, uint32_t layer, uint32_t at, struct pgd_spill_cells *cells)
{
    const struct pgd_spill *spill = cache->spill;
    const uint32_t index = at / cache->page_cells;
    const uint32_t cell = at % cache->page_cells;
    const uint32_t along = (pgd_spill_first_cell(cache, index) + cell) % spill->digest_cells * PGD_LANES;
    const uint8_t *digest = pgd_spill_digest(cache, index, layer, cells->head, cell);
    cells->at[cells->count] = at;
    cells->digests[cells->count] = digest;
    cells->along[cells->count++] = digest + spill->layers[layer].digest_along + along;
}

void pgd_spill_find_cells(const struct pagoda_cache *cache, uint32_t layer, const struct pgd_plan_chunk *chunk,
                          uint32_t head, struct pgd_spill_cells *cells)
{
    const uint32_t first = chunk->block * cache->page_cells + chunk->cell;
    cells->count = 0;
    cells->head = head;
    for (uint32_t at = first; at < first + chunk->cells; at++) {
        if (pgd_spill_has_digests(cache, at / cache->page_cells)) {
            pgd_spill_add_cell(cache, layer, at, cells);
        }
    }
}

void pgd_spill_turn_to(const struct pagoda_cache *cache, uint32_t layer, uint32_t head, struct pgd_spill_cells *cells)
{
    const int64_t by =
        (int64_t) digest_offset(cache, layer, head, 0) - (int64_t) digest_offset(cache, layer, cells->head, 0);
    for (uint32_t i = 0; i < cells->count; i++) {
        cells->digests[i] += by;
        cells->along[i] += by;
    }
    cells->head = head;
}

/* ---- making them, and giving them back ---- */

void pgd_spill_decode_cell(const struct pagoda_cache *cache, uint32_t layer, const unsigned char *page, uint32_t head,
                           uint32_t cell, float *keys, float *values)
{
    const struct pgd_codec *codec = cache->codecs[pgd_spill_rung(cache)];
    const uint64_t cell_bytes = cache->layers[layer].kinds[pgd_spill_rung(cache)].cell_bytes;
    const struct pgd_cell_shape shape = {cache->layers[layer].shape.key_size, cache->layers[layer].shape.value_size};
    codec->decode(codec, shape, page + (head * (uint64_t) cache->page_cells + cell) * cell_bytes, keys, values);
    for (uint32_t t = 0; t < PGD_LANES; t++) {
        pgd_hadamard(shape.key_size, keys + (size_t) t * shape.key_size);
        pgd_hadamard(shape.value_size, values + (size_t) t * shape.value_size);
    }
}

/* Makes a digest of one KV head, of cells [first, end) of those of the blocks from `index` on, from the rows as their
 * codec gives them back. */
static void make_digest(struct pagoda_cache *cache, uint32_t index, uint32_t layer, uint32_t head, uint32_t first,
                        uint32_t end)
{
    const struct pagoda_layer *shape = &cache->layers[layer].shape;
    const struct pgd_digest_queries queries = pgd_queries_of(cache, layer, head);
    const uint32_t tokens = (end - first) * PGD_LANES;
    float *keys = cache->spill->rows;
    float *values = keys + (size_t) tokens * shape->key_size;
    float *scratch = values + (size_t) tokens * shape->value_size;
    for (uint32_t at = first; at < end; at++) {
        const uint32_t frame = pgd_table_page(cache->table, index + at / cache->page_cells, layer)->frame;
        const size_t row = (size_t) (at - first) * PGD_LANES;
        pgd_spill_decode_cell(cache, layer, pgd_pool_address(cache->pool, frame), head, at % cache->page_cells,
                              keys + row * shape->key_size, values + row * shape->value_size);
    }
    uint8_t *frame = pgd_pool_address(cache->pool, pgd_spill_about(cache, index)->digests);
    pgd_digest_make(shape->key_size, shape->value_size, tokens, keys, values, &queries, scratch,
                    frame + digest_offset(cache, layer, head, first / cache->spill->digest_cells));
}

/* Those of one layer, of `count` blocks from `index` on. */
static void digest_layer(struct pagoda_cache *cache, uint32_t index, uint32_t count, uint32_t layer)
{
    const uint32_t step = cache->spill->digest_cells;
    const uint32_t cells = count * cache->page_cells;
    for (uint32_t head = 0; head < cache->layers[layer].shape.kv_heads; head++) {
        for (uint32_t first = 0; first < cells; first += step) {
            make_digest(cache, index, layer, head, first, (uint32_t) pgd_min_u64(first + step, cells));
        }
    }
    for (uint32_t i = index; i < index + count; i++) {
        const uint32_t frame = pgd_table_page(cache->table, i, layer)->frame;
        pgd_detail_make_page(cache, i, layer, pgd_pool_address(cache->pool, frame));
    }
}

uint64_t pgd_spill_digest_frames(const struct pagoda_cache *cache, uint64_t digested, uint64_t more)
{
    const struct pgd_spill *spill = cache->spill;
    const uint64_t frames =
        cache->ledger.by_category[PAGODA_MEMORY_DIGESTS] / pgd_pool_frame_bytes(cache->pool, spill->digest_class);
    const uint64_t cut = spill->span > 1 ? pgd_div_up_u64(more, spill->group_blocks) : 0;
    return pgd_min_u64(frames, digested) + pgd_div_up_u64(more, spill->span) + cut;
}

bool pgd_spill_make_digests(struct pagoda_cache *cache, uint32_t first, uint32_t count)
{
    struct pgd_spill *spill = cache->spill;
    const uint64_t bytes = pgd_pool_frame_bytes(cache->pool, spill->digest_class);
    uint32_t frame = PGD_FRAME_NONE;
    if (!pgd_pool_take(cache->pool, spill->digest_class, &frame)) {
        return false;
    }
    const bool admitted = pgd_ledger_take(&cache->ledger, PAGODA_MEMORY_DIGESTS, bytes);
    PGD_ASSERT(admitted); /* the arena is within the budget */
    for (uint32_t i = 0; i < count; i++) {
        pgd_spill_about(cache, first + i)->digests = frame;
        pgd_spill_about(cache, first + i)->place = i;
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (spill->layers[layer].grows) {
            digest_layer(cache, first, count, layer);
        }
    }
    return true;
}

/* Whether the digests of another block are in the same frame: of a neighbour, as they were when it was filled. */
static bool is_shared(const struct pagoda_cache *cache, uint32_t index)
{
    const uint32_t frame = pgd_spill_about(cache, index)->digests;
    return (index > 0 && pgd_spill_about(cache, index - 1)->digests == frame) ||
           (index + 1 < pgd_table_count(cache->table) && pgd_spill_about(cache, index + 1)->digests == frame);
}

void pgd_spill_give_digests(struct pagoda_cache *cache, uint32_t index)
{
    struct pgd_spill_block *block = pgd_spill_about(cache, index);
    if (block->digests != PGD_FRAME_NONE && !is_shared(cache, index)) {
        pgd_ledger_give(&cache->ledger, PAGODA_MEMORY_DIGESTS,
                        pgd_pool_frame_bytes(cache->pool, cache->spill->digest_class));
        pgd_pool_give(cache->pool, block->digests);
    }
    block->digests = PGD_FRAME_NONE;
    pgd_detail_forget(cache, index);
}

void pgd_spill_mark_frames(const struct pagoda_cache *cache)
{
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        if (pgd_spill_about(cache, index)->digests != PGD_FRAME_NONE) {
            pgd_pool_mark(cache->pool, pgd_spill_about(cache, index)->digests);
        }
    }
}
