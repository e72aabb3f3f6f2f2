/* cache/sizes.c - how large pages are, and which arena holds so many of them. */
#include "base/number.h"
#include "base/status.h"
#include "cache/spill.h"

/* ---- what is set aside ---- */

#define SPILL_BATCH_TOKENS 64u /* room for such batches is kept where that is possible */

/* With a flash tier, text takes little memory but for what is set aside: exact pages of the latest tokens and of the
 * batch, a group of blocks that waits to be written, working memory. Where a budget would else not hold the whole text,
 * there is less of these, step by step (open.c tries). Smaller batches read the pages on flash more often while a
 * prompt is read; with fewer exact tokens, more of the latest text is what the codec makes of it; smaller groups are
 * more and smaller writes; of more holes in the text than this the oldest are not closed, and with so many runs of
 * blocks in one codec no more are made. */
static const struct thrift {
    uint32_t batch_tokens;
    uint32_t exact_recent;
    uint32_t group_blocks;
    uint32_t holes; /* and as many runs of blocks in one codec */
} thrifts[] = {
    {PAGODA_BATCH_MAX, UINT32_MAX, PGD_GROUP_BLOCKS, PGD_SHIFTS_MAX}, /* as the options have it */
    {128, UINT32_MAX, PGD_GROUP_BLOCKS, 32},
    {64, UINT32_MAX, 8, 16},
    {64, 64, 8, 16},
    {32, 32, 8, 16},
    {16, 16, 4, 8},
};
#define THRIFTS (sizeof thrifts / sizeof thrifts[0])

/* Where that does not hold the whole text either, digests are those of several blocks, and then fewer heads have
 * details, which tell more for their bytes (docs/selection.md). */
static const struct sketch {
    uint32_t cells;       /* of a digest */
    uint32_t detail_part; /* one KV head in so many has details */
} sketches[] = {{1, PGD_DETAIL_PART},
                {2, PGD_DETAIL_PART},
                {4, PGD_DETAIL_PART},
                {4, 2 * PGD_DETAIL_PART},
                {8, 4 * PGD_DETAIL_PART}};
#define SKETCHES (sizeof sketches / sizeof sketches[0])

_Static_assert(PGD_THRIFT_LEVELS == THRIFTS * SKETCHES, "each with each");

/* Tokens in a work item of many rows. */
static uint32_t item_tokens(const struct pagoda_cache *cache, const struct pagoda_layer *shape)
{
    const uint32_t group = shape->query_heads / shape->kv_heads;
    const uint64_t rows = pgd_min_u64(PGD_ROWS_MAX, pgd_max_u64(16, PGD_ROWS_MAX * 64u / shape->key_size));
    return (uint32_t) pgd_min_u64(cache->batch_most, pgd_max_u64(1, rows / group));
}

/* A span of blocks that are to share digests waits in memory as a whole, so a group is not smaller. */
static void set_spill(struct pagoda_cache *cache, const struct thrift *thrift, const struct sketch *sketch,
                      uint64_t *class_bytes)
{
    struct pgd_spill *spill = cache->spill;
    const uint64_t most = PGD_CHUNK_TOKENS / cache->page_tokens;
    pgd_spill_set_digests(cache, sketch->cells, sketch->detail_part, class_bytes);
    spill->group_blocks = (uint32_t) pgd_max_u64(spill->span, pgd_min_u64(thrift->group_blocks, most));
}

void pgd_cache_set_thrift(struct pagoda_cache *cache, uint32_t level, uint64_t *class_bytes)
{
    const struct thrift *thrift = &thrifts[level % THRIFTS];
    const struct sketch *sketch = &sketches[level / THRIFTS];
    const uint64_t recent = pgd_min_u64(cache->recent_wanted, thrift->exact_recent);
    cache->batch_most = (uint32_t) pgd_min_u64(cache->batch_tokens, thrift->batch_tokens);
    cache->exact_recent = (uint32_t) pgd_min_u64(recent + cache->rollback_tokens, UINT32_MAX);
    cache->shifts_max = thrift->holes;
    cache->runs_max = thrift->holes;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        cache->layers[i].item_tokens = item_tokens(cache, &cache->layers[i].shape);
    }
    if (cache->spill != NULL) {
        set_spill(cache, thrift, sketch, class_bytes);
    }
}

/* ---- pages ---- */

/* Index of the class of frames of so many bytes, made if it is new; PGD_POOL_CLASSES_MAX when there is no room. */
static uint32_t class_of(struct pagoda_cache *cache, uint64_t *class_bytes, uint64_t bytes)
{
    uint32_t index = 0;
    while (index < cache->class_count && class_bytes[index] != bytes) {
        index++;
    }
    if (index == cache->class_count && index < PGD_POOL_CLASSES_MAX) {
        class_bytes[cache->class_count++] = bytes;
    }
    return index;
}

static enum pagoda_status size_pages(struct pagoda_cache *cache, struct pgd_layer *layer, uint64_t *class_bytes,
                                     struct pagoda_error *error)
{
    const struct pgd_cell_shape shape = {layer->shape.key_size, layer->shape.value_size};
    for (uint32_t rung = 0; rung < cache->rung_count; rung++) {
        struct pgd_page_kind *kind = &layer->kinds[rung];
        kind->cell_bytes = cache->codecs[rung]->cell_bytes(cache->codecs[rung], shape);
        kind->page_bytes = kind->cell_bytes * layer->shape.kv_heads * cache->page_cells;
        kind->frame_class = class_of(cache, class_bytes, kind->page_bytes);
        if (kind->frame_class == PGD_POOL_CLASSES_MAX) {
            return pgd_fail(error, PAGODA_LIMIT, "the layers have more than %u different page sizes",
                            PGD_POOL_CLASSES_MAX);
        }
        cache->block_frames[rung][kind->frame_class]++;
        cache->block_bytes[rung] += kind->page_bytes;
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_cache_size_layers(struct pagoda_cache *cache, uint64_t *class_bytes, struct pagoda_error *error)
{
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        struct pgd_layer *layer = &cache->layers[i];
        const struct pagoda_layer *shape = &layer->shape;
        layer->row_bytes = (uint64_t) (shape->key_size + shape->value_size) * shape->kv_heads * sizeof(uint16_t);
        cache->row_bytes += layer->row_bytes;
        cache->window_widest = (uint32_t) pgd_max_u64(cache->window_widest, shape->window);
        const enum pagoda_status status = size_pages(cache, layer, class_bytes, error);
        if (status != PAGODA_OK) {
            return status;
        }
    }
    const enum pagoda_status status = cache->spill == NULL ? PAGODA_OK : pgd_spill_size(cache, error);
    if (status == PAGODA_OK) {
        pgd_cache_set_thrift(cache, 0, class_bytes);
    }
    return status;
}

/* Blocks of which a window layer holds a page at most: the window, what may be taken back, a batch, and a ragged end
 * on both sides. */
static uint64_t window_blocks(const struct pagoda_cache *cache, const struct pgd_layer *layer)
{
    const uint64_t tokens = (uint64_t) layer->shape.window + cache->rollback_tokens + cache->batch_most;
    return pgd_div_up_u64(tokens, cache->page_tokens) + 1;
}

uint64_t pgd_cache_blocks_limit(const struct pagoda_cache *cache)
{
    uint64_t limit = pgd_min_u64(PGD_BLOCKS_MAX, PGD_POSITION_MAX / cache->page_tokens);
    bool all_windows = true;
    uint64_t widest = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        all_windows = all_windows && cache->layers[i].shape.window != 0;
        widest = pgd_max_u64(widest, window_blocks(cache, &cache->layers[i]));
    }
    if (all_windows) {
        limit = pgd_min_u64(limit, widest);
    }
    if (cache->tokens_max != 0) {
        limit = pgd_min_u64(limit, pgd_div_up_u64(cache->tokens_max, cache->page_tokens) + 1);
    }
    return limit;
}

uint32_t pgd_cache_least_batch(const struct pagoda_cache *cache)
{
    return cache->spill == NULL ? cache->batch_most : (uint32_t) pgd_min_u64(cache->batch_most, SPILL_BATCH_TOKENS);
}

/* Blocks that may be exact at the same time, whatever the pressure: the first, the latest, a batch, ragged ends. What a
 * batch brings is among the latest, and has made others older before it takes frames; without a flash tier there is
 * room for both all the same, so that batches need not be smaller when it is full. */
static uint64_t exact_blocks(const struct pagoda_cache *cache)
{
    const uint64_t batch = pgd_cache_least_batch(cache);
    const uint64_t latest =
        cache->spill == NULL ? cache->exact_recent + batch : pgd_max_u64(cache->exact_recent, batch);
    return pgd_div_up_u64(cache->exact_first, cache->page_tokens) + pgd_div_up_u64(latest, cache->page_tokens) + 2;
}

/* Of `blocks` blocks, those that must be in memory with all their pages. Window layers hold on to a block as a
 * whole. */
static uint64_t whole_blocks(const struct pagoda_cache *cache, uint64_t blocks)
{
    uint64_t least = exact_blocks(cache);
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        least =
            cache->layers[i].shape.window == 0 ? least : pgd_max_u64(least, window_blocks(cache, &cache->layers[i]));
    }
    return pgd_min_u64(blocks, least + cache->spill->group_blocks);
}

/* Of `blocks` blocks, those that a layer must have in memory. */
static uint64_t blocks_in_memory(const struct pagoda_cache *cache, const struct pgd_layer *layer, uint64_t blocks)
{
    if (layer->shape.window != 0) {
        return pgd_min_u64(blocks, window_blocks(cache, layer));
    }
    return cache->spill == NULL || cache->spill->all_in_memory ? blocks : whole_blocks(cache, blocks);
}

/* Frames of digests: none for blocks whose pages are all in memory, but for those that are about to leave. */
static uint64_t digest_frames(const struct pagoda_cache *cache, uint64_t blocks)
{
    if (cache->spill->all_in_memory) {
        return 1;
    }
    return pgd_div_up_u64(blocks - whole_blocks(cache, blocks), cache->spill->span) + 2;
}

/* Frames of each class when the sequence has `blocks` blocks, and one block on its way to every smaller codec. */
static void count_frames(const struct pagoda_cache *cache, uint64_t blocks, uint64_t *frames)
{
    const uint32_t last = cache->rung_count - 1;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pgd_layer *layer = &cache->layers[i];
        const uint64_t held = blocks_in_memory(cache, layer, blocks);
        const uint64_t exact = cache->rung_count == 1 ? held : pgd_min_u64(held, exact_blocks(cache));
        frames[layer->kinds[0].frame_class] += exact;
        frames[layer->kinds[last].frame_class] += held - exact;
        for (uint32_t rung = 1; rung < cache->rung_count; rung++) {
            frames[layer->kinds[rung].frame_class]++;
        }
    }
    if (cache->spill != NULL) {
        frames[cache->spill->digest_class] += digest_frames(cache, blocks);
    }
}

uint64_t pgd_cache_arena_bytes(const struct pagoda_cache *cache, uint64_t blocks, const uint64_t *class_bytes)
{
    uint64_t frames[PGD_POOL_CLASSES_MAX] = {0};
    count_frames(cache, blocks, frames);
    return pgd_pool_arena_bytes(class_bytes, cache->class_count, frames);
}
