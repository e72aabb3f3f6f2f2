/* cache/spill.c - see spill.h: groups of blocks to flash, pages out of memory. */
#include "cache/spill.h"

#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "policy/policy.h"

#define XXH_INLINE_ALL /* all of the library is its header */
#include <xxhash.h>

/* ---- sizes ---- */

static uint64_t extent_bytes(const struct pagoda_cache *cache, uint32_t layer, uint32_t blocks)
{
    return pgd_round_up_u64(blocks * pgd_spill_page_bytes(cache, layer), PGD_FLASH_ALIGN);
}

/* Pages that a chunk may have cells of: of those at its ends it may see only a part. */
static uint64_t chunk_pages(const struct pagoda_cache *cache)
{
    return (PGD_CHUNK_BLOCKS + 2u * (cache->page_cells - 1)) / cache->page_cells;
}

/* The largest of every number that the layers which grow need. */
struct needs {
    uint64_t query_heads;
    uint64_t kv_heads;
    uint64_t value_size;
    uint64_t digest_floats; /* keys and values of a digest's cells, and what else is needed to make it */
};

static struct needs find_needs(const struct pagoda_cache *cache)
{
    struct needs needs = {0, 0, 0, 0};
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pagoda_layer *shape = &cache->layers[i].shape;
        if (shape->window == 0) {
            needs.query_heads = pgd_max_u64(needs.query_heads, shape->query_heads);
            needs.kv_heads = pgd_max_u64(needs.kv_heads, shape->kv_heads);
            needs.value_size = pgd_max_u64(needs.value_size, shape->value_size);
            needs.digest_floats = pgd_max_u64(needs.digest_floats, pgd_spill_digest_floats(cache, i));
        }
    }
    return needs;
}

enum pagoda_status pgd_spill_size(struct pagoda_cache *cache, struct pagoda_error *error)
{
    struct pgd_spill *spill = cache->spill;
    uint64_t largest = 0;
    uint64_t smallest = UINT64_MAX;
    spill->growing = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pagoda_layer *shape = &cache->layers[i].shape;
        struct pgd_spill_layer *layer = &spill->layers[i];
        layer->grows = shape->window == 0;
        if (!layer->grows) {
            continue;
        }
        layer->ordinal = spill->growing++;
        largest = pgd_max_u64(largest, pgd_spill_page_bytes(cache, i));
        smallest = pgd_min_u64(smallest, pgd_spill_page_bytes(cache, i));
    }
    if (spill->growing == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED,
                        "all layers of this model have a sliding window: their text never grows, so there is nothing "
                        "to spill; use stop or evict");
    }
    if ((uint64_t) cache->layer_count * find_needs(cache).kv_heads >= UINT16_MAX) { /* detail.c names them */
        return pgd_fail(error, PAGODA_LIMIT, "%u layers of up to %llu KV heads are too many to spill: use evict",
                        cache->layer_count, (unsigned long long) find_needs(cache).kv_heads);
    }
    if (cache->class_count == PGD_POOL_CLASSES_MAX) {
        return pgd_fail(error, PAGODA_LIMIT, "the layers have too many different page sizes to spill: use evict");
    }
    spill->digest_class = cache->class_count++;
    spill->chunk_bytes = chunk_pages(cache) * (pgd_round_up_u64(largest, PGD_FLASH_ALIGN) + PGD_FLASH_ALIGN);
    spill->smallest_page = smallest;
    pgd_spill_set_ahead(cache, PGD_AHEAD_CHUNKS);
    return PAGODA_OK;
}

void pgd_spill_set_ahead(struct pagoda_cache *cache, uint32_t chunks)
{
    struct pgd_spill *spill = cache->spill;
    uint32_t tickets = 0;
    spill->fetches = chunks > 0 ? PGD_FETCHES : PGD_FETCH_AHEAD;
    for (uint32_t i = 0; i < spill->fetches; i++) {
        struct pgd_fetch *fetch = &spill->fetch[i];
        fetch->bytes = (i == PGD_FETCH_AHEAD ? chunks : 1) * spill->chunk_bytes;
        fetch->first_ticket = tickets;
        fetch->pages_max =
            (uint32_t) pgd_min_u64(fetch->bytes / spill->smallest_page + 1, PGD_FLASH_READS_MAX / PGD_FETCHES);
        tickets += fetch->pages_max;
    }
    spill->tickets = tickets;
}

/* The first multiple of PGD_FLASH_ALIGN from here on. */
static unsigned char *align(unsigned char *piece)
{
    return piece + (PGD_FLASH_ALIGN - (uintptr_t) piece % PGD_FLASH_ALIGN) % PGD_FLASH_ALIGN;
}

/* A piece that starts at such a multiple. */
static unsigned char *carve_aligned(struct pgd_carver *carver, uint64_t bytes)
{
    unsigned char *piece = pgd_carve(carver, bytes + PGD_FLASH_ALIGN);
    return piece == NULL ? NULL : align(piece);
}

void pgd_spill_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, uint64_t blocks, uint64_t chunks)
{
    struct pgd_spill *spill = cache->spill;
    const struct needs needs = find_needs(cache);
    struct pgd_spill made = *spill;
    made.capacity = (uint32_t) blocks;
    made.blocks = pgd_carve(carver, blocks * sizeof(*made.blocks));
    made.detailed_heads = pgd_carve(carver, spill->detail_count * sizeof(*made.detailed_heads));
    made.details = pgd_carve(carver, blocks * spill->detail_count * sizeof(*made.details));
    made.checksums = pgd_carve(carver, blocks * spill->growing * sizeof(*made.checksums));
    made.groups = pgd_carve(carver, blocks * sizeof(*made.groups));
    made.extents = pgd_carve(carver, blocks * spill->growing * sizeof(*made.extents));
    made.free_groups = pgd_carve(carver, blocks * sizeof(*made.free_groups));
    for (uint32_t i = 0; i < spill->fetches; i++) {
        struct pgd_fetch *fetch = &made.fetch[i];
        fetch->memory = carve_aligned(carver, fetch->bytes);
        fetch->reads = pgd_carve(carver, fetch->pages_max * sizeof(*fetch->reads));
        fetch->pages = pgd_carve(carver, fetch->pages_max * sizeof(*fetch->pages));
    }
    made.staged = pgd_carve(carver, blocks * sizeof(*made.staged));
    made.mass = pgd_carve(carver, needs.query_heads * blocks * cache->page_cells * sizeof(float));
    for (uint32_t i = 0; i < PGD_DIGEST_LINES; i++) {
        made.lean[i] = pgd_carve(carver, needs.query_heads * blocks * cache->page_cells * sizeof(float));
    }
    made.share = pgd_carve(carver, needs.query_heads * blocks * sizeof(float));
    made.row_left = pgd_carve(carver, needs.query_heads * sizeof(float));
    made.row_squares = pgd_carve(carver, needs.query_heads * sizeof(float));
    made.selected = pgd_carve(carver, blocks * sizeof(*made.selected));
    made.ranked = pgd_carve(carver, blocks * sizeof(*made.ranked));
    made.rank_score = pgd_carve(carver, blocks * sizeof(float));
    made.unread = pgd_carve(carver, blocks);
    made.queries = pgd_carve(carver, spill->growing * sizeof(*made.queries));
    pgd_queries_lay_out(cache, carver, made.queries);
    made.rows = pgd_carve(carver, needs.digest_floats * sizeof(float));
    made.trust_heads = (uint32_t) needs.kv_heads;
    made.trust = pgd_carve(carver, cache->layer_count * needs.kv_heads * sizeof(*made.trust));
    made.judged = pgd_carve(carver, PGD_TRUST_SLOTS * needs.kv_heads * sizeof(float));
    made.lift_heads = (uint32_t) needs.query_heads;
    made.lifts = pgd_carve(carver, cache->layer_count * needs.query_heads * sizeof(*made.lifts));
    made.judged_lifts = pgd_carve(carver, PGD_TRUST_SLOTS * needs.query_heads * sizeof(*made.judged_lifts));
    made.chunk_mass = pgd_carve(carver, PGD_TRUST_SLOTS * needs.query_heads * chunks * sizeof(float));
    if (carver->base != NULL) {
        *spill = made;
        pgd_spill_forget_all(cache);
    }
}

static uint64_t write_buffer_bytes(const struct pagoda_cache *cache)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const bool grows = cache->spill->layers[i].grows;
        most = pgd_max_u64(most, grows ? extent_bytes(cache, i, cache->spill->group_blocks) : 0);
    }
    return most;
}

static uint64_t streamed_rows(const struct pagoda_cache *cache, const struct needs *needs)
{
    return cache->batch_most * needs->query_heads;
}

uint64_t pgd_spill_shared_floats(const struct pagoda_cache *cache)
{
    const struct needs needs = find_needs(cache);
    const uint64_t streamed = 2 * streamed_rows(cache, &needs) * (needs.value_size + 2);
    return pgd_max_u64(streamed, (write_buffer_bytes(cache) + PGD_FLASH_ALIGN) / sizeof(float));
}

void pgd_spill_share(struct pagoda_cache *cache, float *memory)
{
    struct pgd_spill *spill = cache->spill;
    const struct needs needs = find_needs(cache);
    const uint64_t rows = streamed_rows(cache, &needs);
    for (uint32_t i = 0; i < 2; i++) {
        float *state = memory + i * rows * (needs.value_size + 2);
        spill->streamed[i] = (struct pgd_partial) {state, state + rows, state + 2 * rows, NULL};
    }
    spill->write_buffer = align((unsigned char *) memory);
}

/* ---- opening ---- */

/* Free bytes of the file system that are left to others. */
static uint64_t reserve_bytes(const struct pgd_spill *spill)
{
    return spill->options.reserve_bytes != 0 ? spill->options.reserve_bytes : PGD_FLASH_RESERVE;
}

static struct pgd_flash_options flash_options(const struct pagoda_cache *cache)
{
    const struct pgd_spill *spill = cache->spill;
    return (struct pgd_flash_options) {
        .directory = spill->options.directory,
        .bytes_max = spill->options.bytes_max != 0 ? spill->options.bytes_max : PGD_FLASH_BYTES_MAX,
        .reserve_bytes = reserve_bytes(spill),
        .write_budget_bytes = spill->options.write_budget_bytes,
        .reads_max = spill->tickets,
        .throttle_bytes_per_second = spill->options.bytes_per_second,
        .system = &cache->system,
        .vfs = spill->options.files,
    };
}

uint64_t pgd_spill_table_bytes(const struct pagoda_cache *cache)
{
    const struct pgd_flash_options options = flash_options(cache);
    return pgd_flash_table_bytes(&options);
}

uint64_t pgd_spill_bytes_per_token(const struct pagoda_cache *cache)
{
    const uint32_t blocks = cache->spill->group_blocks;
    uint64_t bytes = 0;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        bytes += cache->spill->layers[layer].grows ? extent_bytes(cache, layer, blocks) : 0;
    }
    return pgd_div_up_u64(bytes, (uint64_t) blocks * cache->page_tokens);
}

bool pgd_spill_has_space(const struct pagoda_cache *cache)
{
    return pgd_flash_free_bytes(cache->spill->flash) > flash_options(cache).reserve_bytes;
}

enum pagoda_status pgd_spill_open(struct pagoda_cache *cache, struct pagoda_error *error)
{
    const struct pgd_flash_options options = flash_options(cache);
    return pgd_flash_open(&options, &cache->spill->flash, error);
}

void pgd_spill_close(struct pagoda_cache *cache)
{
    if (cache->spill != NULL) {
        pgd_flash_close(cache->spill->flash);
    }
}

void pgd_spill_forget_all(struct pagoda_cache *cache)
{
    struct pgd_spill *spill = cache->spill;
    spill->free_group_count = 0;
    for (uint32_t slot = 0; slot < spill->capacity; slot++) {
        spill->blocks[slot] = (struct pgd_spill_block) {.group = PGD_GROUP_NONE, .digests = PGD_FRAME_NONE};
        spill->free_groups[spill->free_group_count++] = spill->capacity - 1 - slot;
    }
    memset(spill->details, 0, (size_t) spill->capacity * spill->detail_count * sizeof(*spill->details));
    for (uint32_t i = 0; i < PGD_TRUST_SLOTS * spill->trust_heads; i++) {
        spill->judged[i] = -1;
    }
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        spill->layers[i].away = 0;
        spill->layers[i].collapsed = 0;
    }
    spill->ahead = PGD_LAYER_NONE;
    spill->failed = false;
    spill->lost_pages = 0;
    spill->late_pages = 0;
    spill->spilled_pages = 0;
    spill->collapsed_pages = 0;
    spill->recalled_pages = 0;
    spill->unread_pages = 0;
    spill->skipped_pages = 0;
    spill->stalled_ns = 0;
    spill->unread_mass_sum = 0;
    spill->unread_mass_rows = 0;
}

void pgd_spill_reset(struct pagoda_cache *cache)
{
    pgd_fetch_drain(cache);
    pgd_spill_forget_all(cache);
    pgd_flash_reset(cache->spill->flash);
}

/* ---- who may leave ---- */

/* Whether a block can be written as it is: all its pages in the last codec, none in a layer with a window. */
static bool can_be_written(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position)
{
    if (!pgd_cache_may_shrink(cache, index, end_position)) {
        return false;
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
        const bool good = cache->spill->layers[layer].grows
                              ? page->state == PAGODA_PAGE_SEALED && page->codec == pgd_spill_rung(cache)
                              : page->state == PAGODA_PAGE_ABSENT;
        if (!good) {
            return false;
        }
    }
    return true;
}

static uint32_t *checksum_of(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_spill *spill = cache->spill;
    return &spill->checksums[(uint64_t) pgd_table_slot(cache->table, index) * spill->growing +
                             spill->layers[layer].ordinal];
}

static uint32_t *extent_of(const struct pagoda_cache *cache, uint32_t group, uint32_t layer)
{
    return &cache->spill->extents[(uint64_t) group * cache->spill->growing + cache->spill->layers[layer].ordinal];
}

uint32_t pgd_spill_checksum(const void *bytes, uint64_t count)
{
    const uint64_t hash = XXH3_64bits(bytes, (size_t) count);
    return (uint32_t) (hash ^ hash >> 32);
}

uint32_t pgd_spill_expected(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    return *checksum_of(cache, index, layer);
}

uint64_t pgd_spill_offset(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_spill_block *block = pgd_spill_about(cache, index);
    return (uint64_t) *extent_of(cache, block->group, layer) * PGD_FLASH_ALIGN +
           block->rank * pgd_spill_page_bytes(cache, layer);
}

/* ---- groups ---- */

/* The pages of `count` blocks from `first` on, in one layer, as one extent. */
static enum pagoda_status write_layer(struct pagoda_cache *cache, uint32_t group, uint32_t first, uint32_t count,
                                      uint32_t layer, struct pagoda_error *error)
{
    struct pgd_spill *spill = cache->spill;
    const uint64_t page = pgd_spill_page_bytes(cache, layer);
    const uint64_t bytes = extent_bytes(cache, layer, count);
    for (uint32_t i = 0; i < count; i++) {
        const void *from = pgd_pool_address(cache->pool, pgd_table_page(cache->table, first + i, layer)->frame);
        memcpy(spill->write_buffer + i * page, from, page);
        *checksum_of(cache, first + i, layer) = pgd_spill_checksum(from, page);
    }
    memset(spill->write_buffer + count * page, 0, bytes - count * page);
    uint64_t offset = 0;
    enum pagoda_status status = pgd_flash_write(spill->flash, spill->write_buffer, bytes, &offset, error);
    if (status == PAGODA_IO) { /* devices have moods; text is not given up for one */
        status = pgd_flash_write(spill->flash, spill->write_buffer, bytes, &offset, error);
    }
    if (status == PAGODA_OK) {
        *extent_of(cache, group, layer) = (uint32_t) (offset / PGD_FLASH_ALIGN);
    }
    return status;
}

/* Gives the extents of the first `layers` layers of a group back, and the group itself. */
static void free_group(struct pagoda_cache *cache, uint32_t group, uint32_t blocks, uint32_t layers)
{
    struct pgd_spill *spill = cache->spill;
    for (uint32_t layer = 0; layer < layers; layer++) {
        if (spill->layers[layer].grows) {
            pgd_flash_free(spill->flash, (uint64_t) *extent_of(cache, group, layer) * PGD_FLASH_ALIGN,
                           extent_bytes(cache, layer, blocks));
        }
    }
    spill->free_groups[spill->free_group_count++] = group;
    spill->failed = false;
}

static enum pagoda_status write_group(struct pagoda_cache *cache, uint32_t first, uint32_t count,
                                      struct pagoda_error *error)
{
    struct pgd_spill *spill = cache->spill;
    PGD_ASSERT(spill->free_group_count > 0); /* there are as many groups as blocks */
    const uint32_t group = spill->free_groups[--spill->free_group_count];
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (spill->layers[layer].grows) {
            const enum pagoda_status status = write_layer(cache, group, first, count, layer, error);
            if (status != PAGODA_OK) {
                free_group(cache, group, count, layer);
                return status;
            }
        }
    }
    spill->groups[group] = (struct pgd_spill_group) {.blocks = count, .live = count};
    for (uint32_t i = 0; i < count; i++) {
        pgd_spill_about(cache, first + i)->group = group;
        pgd_spill_about(cache, first + i)->rank = i;
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            if (spill->layers[layer].grows) {
                pgd_table_set_clean(cache->table, first + i, layer);
                spill->spilled_pages++;
            }
        }
    }
    return PAGODA_OK;
}

/* Bytes that flash may have in use: what is in the file, and what the file system has to spare, as far as it tells;
 * not more than the bound. */
static uint64_t flash_bytes_most(const struct pgd_spill *spill, const struct pgd_flash_stats *stats)
{
    const uint64_t most = spill->options.bytes_max != 0 ? spill->options.bytes_max : PGD_FLASH_BYTES_MAX;
    const uint64_t free = pgd_flash_free_bytes(spill->flash);
    const uint64_t spare = free - pgd_min_u64(free, reserve_bytes(spill));
    return free == 0 ? most : pgd_min_u64(most, pgd_add_capped_u64(stats->file_bytes, spare));
}

/* Of `count` blocks, as many as flash has room for: a group is written as a whole or not at all. What is written and
 * then given up for the last of its layers would wear flash out for nothing, and again with every batch. */
static uint32_t blocks_with_room(const struct pagoda_cache *cache, uint32_t count)
{
    const struct pgd_spill *spill = cache->spill;
    struct pgd_flash_stats stats;
    pgd_flash_get_stats(spill->flash, &stats);
    const uint64_t most = flash_bytes_most(spill, &stats);
    for (; count > 0; count /= 2) {
        uint64_t bytes = 0;
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            bytes += spill->layers[layer].grows ? extent_bytes(cache, layer, count) : 0;
        }
        const uint64_t written = pgd_add_capped_u64(stats.bytes_written, bytes);
        if (stats.bytes_used + bytes <= most &&
            (spill->options.write_budget_bytes == 0 || written <= spill->options.write_budget_bytes)) {
            break;
        }
    }
    return count;
}

/* Writes the oldest blocks that can be written, a group of them; false when there are less than `least`, or flash does
 * not take them. */
static bool write_oldest(struct pagoda_cache *cache, uint64_t end_position, uint32_t least)
{
    struct pgd_spill *spill = cache->spill;
    const uint32_t count = pgd_table_count(cache->table);
    uint32_t first = 0;
    while (first < count && !can_be_written(cache, first, end_position)) {
        first++;
    }
    uint32_t end = first;
    while (end < count && end - first < spill->group_blocks && can_be_written(cache, end, end_position)) {
        end++;
    }
    if (end - first < least || spill->failed) {
        return false;
    }
    const uint32_t fitting = blocks_with_room(cache, end - first);
    const enum pagoda_status status =
        fitting == 0
            ? pgd_fail(&spill->problem, PAGODA_FULL,
                       "the flash tier takes no more: --flash or --flash-write is reached, or less than %.1f MiB of "
                       "its file system would stay free",
                       (double) reserve_bytes(spill) / 1048576.0)
            : write_group(cache, first, fitting, &spill->problem);
    spill->failed = status != PAGODA_OK;
    spill->problem.status = status;
    return !spill->failed;
}

/* A block needs its copies on flash no more. */
static void leave_group(struct pagoda_cache *cache, uint32_t index)
{
    struct pgd_spill *spill = cache->spill;
    struct pgd_spill_block *block = pgd_spill_about(cache, index);
    if (block->group != PGD_GROUP_NONE && --spill->groups[block->group].live == 0) {
        free_group(cache, block->group, spill->groups[block->group].blocks, cache->layer_count);
    }
    block->group = PGD_GROUP_NONE;
}

void pgd_spill_forget(struct pagoda_cache *cache, uint32_t index)
{
    pgd_spill_give_digests(cache, index);
    leave_group(cache, index);
    *pgd_spill_about(cache, index) = (struct pgd_spill_block) {.group = PGD_GROUP_NONE, .digests = PGD_FRAME_NONE};
}

/* ---- out of memory ---- */

/* A page in memory is about to lose its frame. */
static void take_off_the_books(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const uint32_t rung = pgd_table_page(cache->table, index, layer)->codec;
    cache->live_row_bytes -= pgd_cache_live_bytes(cache, index, layer);
    pgd_ledger_give(&cache->ledger, pgd_cache_category(rung),
                    pgd_pool_frame_bytes(cache->pool, cache->layers[layer].kinds[rung].frame_class));
    cache->spill->layers[layer].away++;
}

static void spill_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    pgd_detail_keep(cache, index, layer);
    take_off_the_books(cache, index, layer);
    pgd_pool_give(cache->pool, pgd_table_spill(cache->table, index, layer));
}

/* Whether a block was written, and its digests can be made. */
static bool lacks_digests(const struct pagoda_cache *cache, uint32_t index)
{
    const struct pgd_spill_block *block = pgd_spill_about(cache, index);
    return block->group != PGD_GROUP_NONE && block->digests == PGD_FRAME_NONE;
}

/* Of the blocks from `index` on, of one group, those that may share digests. */
static uint32_t count_span(const struct pagoda_cache *cache, uint32_t index)
{
    const uint32_t most = (uint32_t) pgd_min_u64(cache->spill->span, pgd_table_count(cache->table) - index);
    uint32_t count = 1;
    while (count < most && lacks_digests(cache, index + count) &&
           pgd_spill_about(cache, index + count)->group == pgd_spill_about(cache, index)->group &&
           !pgd_table_block(cache->table, index + count)->pinned) {
        count++;
    }
    return count;
}

/* All pages in memory of the oldest blocks that were written but have no digests yet, a span of them. */
static bool spill_written_blocks(struct pagoda_cache *cache)
{
    uint32_t first = 0;
    while (first < pgd_table_count(cache->table) &&
           !(lacks_digests(cache, first) && !pgd_table_block(cache->table, first)->pinned)) {
        first++;
    }
    if (first == pgd_table_count(cache->table)) {
        return false;
    }
    const uint32_t count = count_span(cache, first);
    if (!pgd_spill_make_digests(cache, first, count)) {
        return false;
    }
    for (uint32_t index = first; index < first + count; index++) {
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            if (cache->spill->layers[layer].grows) {
                spill_page(cache, index, layer);
            }
        }
    }
    return true;
}

bool pgd_spill_may_leave(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    return pgd_table_page(cache->table, index, layer)->state == PAGODA_PAGE_CLEAN &&
           pgd_spill_has_digests(cache, index) && !pgd_table_block(cache->table, index)->pinned;
}

/* The page of a layer that drew least attention lately among those that may leave memory; the number of blocks when
 * there is none. */
static uint32_t coldest_page(const struct pagoda_cache *cache, uint32_t layer)
{
    const uint32_t count = pgd_table_count(cache->table);
    uint32_t best = count;
    uint32_t heat = UINT32_MAX;
    for (uint32_t index = 0; index < count; index++) {
        const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
        if (page->heat < heat && pgd_spill_may_leave(cache, index, layer)) {
            heat = page->heat;
            best = index;
        }
    }
    return best;
}

/* One page of every layer; those that the next token reads in full go last: each of their pages is one read less. */
static bool spill_coldest(struct pagoda_cache *cache, bool dense)
{
    bool any = false;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const struct pgd_spill_layer *about_layer = &cache->spill->layers[layer];
        const bool in_turn = about_layer->grows && about_layer->dense == dense;
        const uint32_t victim = in_turn ? coldest_page(cache, layer) : UINT32_MAX;
        if (victim < pgd_table_count(cache->table)) {
            spill_page(cache, victim, layer);
            any = true;
        }
    }
    return any;
}

/* ---- when flash takes nothing more ---- */

static void collapse_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
    if (pgd_page_has_frame(page)) {
        take_off_the_books(cache, index, layer);
    }
    const uint32_t frame = pgd_table_collapse(cache->table, index, layer);
    if (frame != PGD_FRAME_NONE) {
        pgd_pool_give(cache->pool, frame);
    }
    cache->spill->layers[layer].collapsed++;
}

/* Whether the policy lets a block go. */
static bool may_go(const struct pagoda_cache *cache, uint32_t index)
{
    struct pgd_policy_block block;
    pgd_cache_policy_block(cache, index, &block);
    return pgd_policy_may_leave(&cache->policy, &block);
}

/* Of the blocks from `index` on, whose pages are all in memory, those that may go too and share digests with it. */
static uint32_t count_collapsing(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position)
{
    const bool written = pgd_spill_about(cache, index)->group != PGD_GROUP_NONE;
    uint32_t most = written ? count_span(cache, index) : cache->spill->span;
    most = (uint32_t) pgd_min_u64(most, pgd_table_count(cache->table) - index);
    uint32_t count = 1;
    while (count < most && may_go(cache, index + count) &&
           (written || can_be_written(cache, index + count, end_position))) {
        count++;
    }
    return count;
}

/* Nothing but the digests of a block stays. */
static void collapse_block(struct pagoda_cache *cache, uint32_t index)
{
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const uint8_t state = pgd_table_page(cache->table, index, layer)->state;
        if (cache->spill->layers[layer].grows && state != PAGODA_PAGE_COLLAPSED) {
            collapse_page(cache, index, layer);
            cache->spill->collapsed_pages++;
        }
    }
    leave_group(cache, index);
}

/* Of a block, or where it has no digests yet, of all that get them with it; false when there is no frame for those. */
static bool collapse_blocks(struct pagoda_cache *cache, uint32_t index, uint64_t end_position)
{
    const bool digested = pgd_spill_has_digests(cache, index);
    const uint32_t count = digested ? 1 : count_collapsing(cache, index, end_position);
    if (!digested && !pgd_spill_make_digests(cache, index, count)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        collapse_block(cache, index + i);
    }
    return true;
}

bool pgd_spill_collapse_oldest(struct pagoda_cache *cache, uint64_t end_position)
{
    const struct pgd_spill *spill = cache->spill;
    const uint32_t count = pgd_table_count(cache->table);
    if (!spill->failed || spill->options.on_full != PAGODA_ON_FLASH_FULL_COLLAPSE) {
        return false;
    }
    uint32_t written = count;
    uint32_t waiting = count;
    for (uint32_t index = count; index-- > 0;) {
        if (may_go(cache, index)) {
            written = pgd_spill_about(cache, index)->group != PGD_GROUP_NONE ? index : written;
            waiting = can_be_written(cache, index, end_position) ? index : waiting;
        }
    }
    const uint32_t victim = spill->problem.status == PAGODA_FULL && written < count ? written : waiting;
    return waiting < count && collapse_blocks(cache, victim, end_position);
}

uint32_t pgd_spill_oldest_collapsed(const struct pagoda_cache *cache)
{
    const uint32_t count = pgd_table_count(cache->table);
    uint32_t index = 0;
    while (index < count && !(pgd_spill_has_digests(cache, index) &&
                              pgd_spill_about(cache, index)->group == PGD_GROUP_NONE && may_go(cache, index))) {
        index++;
    }
    return index;
}

bool pgd_spill_make_room(struct pagoda_cache *cache, uint64_t end_position)
{
    /* Whole groups first: what draws attention stays in memory, and runs stay long. */
    return spill_written_blocks(cache) || write_oldest(cache, end_position, cache->spill->group_blocks) ||
           spill_coldest(cache, false) || spill_coldest(cache, true) || write_oldest(cache, end_position, 1);
}

void pgd_spill_write_behind(struct pagoda_cache *cache, uint32_t count)
{
    const struct pgd_spill *spill = cache->spill;
    if (spill->spilled_pages == 0) {
        return;
    }
    (void) write_oldest(cache, cache->position + count, spill->group_blocks);
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        if (lacks_digests(cache, index) && !(pgd_cache_has_spare(cache, spill->digest_class, count) &&
                                             pgd_spill_make_digests(cache, index, count_span(cache, index)))) {
            break;
        }
    }
}

void pgd_spill_lose(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    collapse_page(cache, index, layer);
    cache->spill->lost_pages++;
}
