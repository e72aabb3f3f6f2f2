/* cache/detail.c - see spill.h: KV heads whose pages are known in detail, and what digests say of cells.
 *
 * Some heads look for one exact token far back (induction heads, Olsson et al. 2022, arXiv 2209.11895), which no small
 * summary can tell. Their digests miss by orders of magnitude (trust.c). For the few heads that miss most, all keys
 * stay in memory in 4 bits a number, in the same frames as the digests, each in one of a fixed number of slots. When
 * another head gets a slot, pages that are on flash have no detail for it yet: its layer is read in full once, and
 * details are made on the way.
 */
#include <math.h>

#include "base/number.h"
#include "cache/spill.h"

#define CACHE_LINE 64u
#define MISSED_MOST 0.003f  /* of the attention, on average: heads that miss less need none */
#define WORTH_CHANGING 1.5f /* a head takes another one's slot when it misses so many times as much */

uint32_t pgd_detail_slots(uint32_t kv_heads, uint32_t part)
{
    return (kv_heads + part - 1) / part;
}

/* ---- which heads ---- */

static uint32_t name_of(const struct pagoda_cache *cache, uint32_t layer, uint32_t head)
{
    return layer * cache->spill->trust_heads + head + 1;
}

static uint32_t slot_of(const struct pagoda_cache *cache, uint32_t layer, uint32_t head)
{
    const struct pgd_spill *spill = cache->spill;
    const uint32_t name = name_of(cache, layer, head);
    uint32_t slot = 0;
    while (slot < spill->detail_count && spill->detailed_heads[slot] != name) {
        slot++;
    }
    return slot;
}

/* Whether the slot is that of a head of the layer. */
static bool is_of_layer(const struct pagoda_cache *cache, uint32_t slot, uint32_t layer)
{
    const uint32_t name = cache->spill->detailed_heads[slot];
    return name != PGD_DETAIL_NONE && (name - 1) / cache->spill->trust_heads == layer;
}

/* How much a head misses, by its name; nothing for PGD_DETAIL_NONE. */
static float missed_by(const struct pgd_spill *spill, uint32_t name)
{
    return name == PGD_DETAIL_NONE ? 0 : spill->trust[name - 1].missed;
}

/* The head without details that misses most; PGD_DETAIL_NONE when no more need any. */
static uint32_t find_worst(const struct pagoda_cache *cache)
{
    const struct pgd_spill *spill = cache->spill;
    uint32_t worst = PGD_DETAIL_NONE;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        for (uint32_t head = 0; spill->layers[layer].grows && head < cache->layers[layer].shape.kv_heads; head++) {
            const uint32_t name = name_of(cache, layer, head);
            if (missed_by(spill, name) > fmaxf(MISSED_MOST, missed_by(spill, worst)) &&
                slot_of(cache, layer, head) == spill->detail_count) {
                worst = name;
            }
        }
    }
    return worst;
}

/* ---- details of pages ---- */

static uint16_t *kept_in(const struct pagoda_cache *cache, uint32_t index, uint32_t slot)
{
    return &cache->spill->details[pgd_table_slot(cache->table, index) * cache->spill->detail_count + slot];
}

static uint8_t *place_of(const struct pagoda_cache *cache, uint32_t index, uint32_t slot, uint32_t cell)
{
    const struct pgd_spill *spill = cache->spill;
    const uint32_t frame = pgd_spill_about(cache, index)->digests;
    return (uint8_t *) pgd_pool_address(cache->pool, frame) + spill->details_at +
           ((uint64_t) slot * spill->span * cache->page_cells + pgd_spill_first_cell(cache, index) + cell) *
               spill->detail_bytes;
}

/* The detail that slot `slot` of a block has of one cell, or NULL when it is not that of the head in question. */
static const uint8_t *detail_in(const struct pagoda_cache *cache, uint32_t index, uint32_t slot, uint32_t cell)
{
    const struct pgd_spill *spill = cache->spill;
    const bool has = slot < spill->detail_count && pgd_spill_has_digests(cache, index) &&
                     *kept_in(cache, index, slot) == spill->detailed_heads[slot];
    return has ? place_of(cache, index, slot, cell) : NULL;
}

/* Whether a page has no detail for some head that should have one. */
static bool lacks_some(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    bool lacks = false;
    for (uint32_t slot = 0; slot < cache->spill->detail_count && !lacks; slot++) {
        lacks = is_of_layer(cache, slot, layer) && detail_in(cache, index, slot, 0) == NULL;
    }
    return lacks;
}

void pgd_detail_make_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer, const unsigned char *page)
{
    const struct pgd_spill *spill = cache->spill;
    const uint32_t key_size = cache->layers[layer].shape.key_size;
    float *keys = spill->rows;
    for (uint32_t slot = 0; slot < spill->detail_count; slot++) {
        if (!is_of_layer(cache, slot, layer)) {
            continue;
        }
        const uint16_t name = spill->detailed_heads[slot];
        const uint32_t head = (name - 1u) % spill->trust_heads;
        for (uint32_t cell = 0; cell < cache->page_cells; cell++) {
            pgd_spill_decode_cell(cache, layer, page, head, cell, keys, keys + (size_t) PGD_LANES * key_size);
            pgd_detail_make(key_size, PGD_LANES, keys, pgd_spill_digest(cache, index, layer, head, cell),
                            place_of(cache, index, slot, cell));
        }
        *kept_in(cache, index, slot) = name;
    }
}

void pgd_detail_keep(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    if (lacks_some(cache, index, layer)) {
        const uint32_t frame = pgd_table_page(cache->table, index, layer)->frame;
        pgd_detail_make_page(cache, index, layer, pgd_pool_address(cache->pool, frame));
    }
}

void pgd_detail_forget(struct pagoda_cache *cache, uint32_t index)
{
    for (uint32_t slot = 0; slot < cache->spill->detail_count; slot++) {
        *kept_in(cache, index, slot) = PGD_DETAIL_NONE;
    }
}

void pgd_detail_catch_up(struct pagoda_cache *cache, uint32_t layer, const struct pgd_fetch *fetch)
{
    for (uint32_t i = 0; cache->spill->layers[layer].dense && i < fetch->page_count; i++) {
        const struct pgd_fetch_page *fetched = &fetch->pages[i];
        if (fetched->outcome == PGD_FETCH_GOOD && lacks_some(cache, fetched->block, layer)) {
            pgd_detail_make_page(cache, fetched->block, layer, fetch->memory + fetched->at);
        }
    }
}

/* ---- deciding ---- */

/* Whether some page that can be read has no detail in a slot that is its layer's. */
static bool is_behind(const struct pagoda_cache *cache, uint32_t slot, uint32_t layer)
{
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        if (pgd_table_page(cache->table, index, layer)->state == PAGODA_PAGE_SPILLED &&
            detail_in(cache, index, slot, 0) == NULL) {
            return true;
        }
    }
    return false;
}

void pgd_detail_decide(struct pagoda_cache *cache)
{
    struct pgd_spill *spill = cache->spill;
    for (uint32_t turn = 0; turn < spill->detail_count; turn++) {
        uint32_t least = 0;
        for (uint32_t slot = 1; slot < spill->detail_count; slot++) {
            if (missed_by(spill, spill->detailed_heads[slot]) < missed_by(spill, spill->detailed_heads[least])) {
                least = slot;
            }
        }
        const uint32_t worst = find_worst(cache);
        if (missed_by(spill, worst) > WORTH_CHANGING * missed_by(spill, spill->detailed_heads[least])) {
            spill->detailed_heads[least] = (uint16_t) worst;
        }
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        spill->layers[layer].dense = false;
        for (uint32_t slot = 0; slot < spill->detail_count && !spill->layers[layer].dense; slot++) {
            spill->layers[layer].dense = is_of_layer(cache, slot, layer) && is_behind(cache, slot, layer);
        }
    }
}

/* ---- what digests say ---- */

static void fetch_bytes(const uint8_t *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += CACHE_LINE) {
        __builtin_prefetch(from + at, 0, 3);
    }
}

void pgd_detail_fetch(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_spill_layer *about = &cache->spill->layers[layer];
    const uint32_t heads = cache->layers[layer].shape.kv_heads;
    const uint64_t digests = pgd_div_up_u64(cache->page_cells, cache->spill->digest_cells);
    fetch_bytes(pgd_spill_digest(cache, index, layer, 0, 0), heads * digests * about->digest_bytes);
    for (uint32_t slot = 0; slot < cache->spill->detail_count; slot++) {
        const uint8_t *detail = is_of_layer(cache, slot, layer) ? detail_in(cache, index, slot, 0) : NULL;
        if (detail != NULL) {
            fetch_bytes(detail, cache->page_cells * cache->spill->detail_bytes);
        }
    }
}

/* What was learned of a query head's digests, for those of `count` cells without details. */
static void lift(const struct pgd_attend_call *call, uint32_t head, uint32_t rows, uint32_t count, float *mass,
                 uint32_t stride)
{
    for (uint32_t r = 0; r < rows; r++) {
        const float more = pgd_trust_lift(call->cache, call->layer_index, head * call->group + r % call->group);
        for (uint32_t i = 0; i < count; i++) {
            mass[(size_t) r * stride + i] += more;
        }
    }
}

void pgd_detail_score(const struct pgd_attend_call *call, const struct pgd_packed_rows *rows,
                      const struct pgd_spill_cells *cells, const struct pgd_digest_scores *scores)
{
    const struct pgd_kernels *kernels = call->cache->kernels;
    const uint32_t page_cells = call->cache->page_cells;
    const uint32_t slot = slot_of(call->cache, call->layer_index, cells->head);
    const uint8_t *details[PGD_CHUNK_BLOCKS];
    for (uint32_t i = 0; i < cells->count; i++) {
        details[i] = detail_in(call->cache, cells->at[i] / page_cells, slot, cells->at[i] % page_cells);
    }
    uint32_t end = 0;
    for (uint32_t first = 0; first < cells->count; first = end) {
        end = first + 1;
        while (end < cells->count && (details[end] == NULL) == (details[first] == NULL)) {
            end++;
        }
        const struct pgd_digest_scores part = {
            scores->mass + first, {scores->lean[0] + first, scores->lean[1] + first}, scores->stride};
        struct pgd_digest_pages pages = pgd_spill_pages(cells, first, end);
        pages.details = details[first] != NULL ? details + first : NULL;
        kernels->score_digests(&call->shape, &pages, rows, call->worker->digest, &part);
        if (pages.details == NULL) {
            lift(call, cells->head, rows->count, end - first, part.mass, part.stride);
        }
    }
}
