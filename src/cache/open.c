/* cache/open.c - from options to one cache: checks, sizes, one ledger, no allocation afterwards.
 *
 * The budget is divided once. What does not depend on the number of blocks comes first (the cache and
 * its layers); then the largest number of blocks is searched for which tables, staging and frames fit
 * together; the arena gets all the rest.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cache/cache.h"
#include "cache/carver.h"
#include "cache/draws.h"
#include "cache/spill.h"
#include "kernels/digest.h"
#include "os/os.h"
#include "policy/policy.h"

#define DEFAULT_RECALL 0.95
#define WORTH_PART 16u /* one part in so many is a good part more text */

/* ---- options ---- */

void pagoda_cache_options_default(struct pagoda_cache_options *options)
{
    memset(options, 0, sizeof(*options));
    options->struct_size = sizeof(*options);
    options->page_tokens = 16;
    options->batch_tokens = 256;
    options->threads_max = 1;
    options->exact_first = 16;
    options->exact_recent = 128;
}

static enum pagoda_status check_layer(const struct pagoda_layer *layer, uint32_t index, struct pagoda_error *error)
{
    if (layer->kv_heads == 0 || layer->kv_heads > PAGODA_HEADS_MAX || layer->query_heads > PAGODA_HEADS_MAX ||
        layer->query_heads == 0 || layer->query_heads % layer->kv_heads != 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "layer %u has %u query heads and %u KV heads: the first must be a "
                        "multiple of the second, and both between 1 and %u",
                        index, layer->query_heads, layer->kv_heads, PAGODA_HEADS_MAX);
    }
    if (layer->key_size == 0 || layer->key_size > PAGODA_HEAD_SIZE_MAX || layer->value_size == 0 ||
        layer->value_size > PAGODA_HEAD_SIZE_MAX) {
        return pgd_fail(error, PAGODA_INVALID,
                        "layer %u has heads of %u (keys) and %u (values): both must be between 1 and %u", index,
                        layer->key_size, layer->value_size, PAGODA_HEAD_SIZE_MAX);
    }
    if (!isfinite(layer->scale) || !isfinite(layer->softcap) || layer->softcap < 0) {
        return pgd_fail(error, PAGODA_INVALID, "layer %u has a scale or softcap that is not a usable number", index);
    }
    if (layer->rope.pair_count * 2 > layer->key_size ||
        (layer->rope.pair_count > 0 && layer->rope.frequencies == NULL)) {
        return pgd_fail(error, PAGODA_INVALID, "layer %u rotates %u pairs of a key of %u, or gives no frequencies",
                        index, layer->rope.pair_count, layer->key_size);
    }
    return PAGODA_OK;
}

static enum pagoda_status check_options(const struct pagoda_cache_options *options, struct pagoda_error *error)
{
    if (options == NULL || options->struct_size != sizeof(*options)) {
        return pgd_fail(error, PAGODA_INVALID,
                        "the options are not those of this version: use pagoda_cache_options_default");
    }
    if (options->layers == NULL || options->layer_count == 0 || options->layer_count > PAGODA_LAYERS_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "a cache has 1 to %u layers, not %u", PAGODA_LAYERS_MAX,
                        options->layer_count);
    }
    if (options->page_tokens == 0 || options->page_tokens % PGD_LANES != 0 ||
        options->page_tokens > PAGODA_PAGE_TOKENS_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "a page of %u tokens is not possible: use a multiple of %u up to %u",
                        options->page_tokens, PGD_LANES, PAGODA_PAGE_TOKENS_MAX);
    }
    if (options->batch_tokens == 0 || options->batch_tokens > PAGODA_BATCH_MAX || options->threads_max == 0 ||
        options->threads_max > PAGODA_THREADS_MAX) {
        return pgd_fail(error, PAGODA_INVALID,
                        "batches of %u tokens (1 to %u) or teams of %u threads (1 to %u) are not possible",
                        options->batch_tokens, PAGODA_BATCH_MAX, options->threads_max, PAGODA_THREADS_MAX);
    }
    if (options->rollback_tokens > PGD_POSITION_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "at most %u tokens can be kept to be taken back", PGD_POSITION_MAX);
    }
    if ((unsigned) options->on_full > PAGODA_ON_FULL_SPILL) {
        return pgd_fail(error, PAGODA_INVALID, "unknown rule %d for a full budget", (int) options->on_full);
    }
    if (!(options->flash.recall >= 0 && options->flash.recall <= 1)) {
        return pgd_fail(error, PAGODA_INVALID, "recall is a share of the attention, between 0 and 1");
    }
    if ((unsigned) options->flash.on_full > PAGODA_ON_FLASH_FULL_DROP) {
        return pgd_fail(error, PAGODA_INVALID, "unknown rule %d for full flash", (int) options->flash.on_full);
    }
    if ((unsigned) options->codec >= PAGODA_CODEC_COUNT || (unsigned) options->codec_tight >= PAGODA_CODEC_COUNT ||
        (options->codec_tight != PAGODA_CODEC_F16 && options->codec_tight < options->codec)) {
        return pgd_fail(error, PAGODA_INVALID, "codecs %d and, when tight, %d: the second must be the smaller one",
                        (int) options->codec, (int) options->codec_tight);
    }
    for (uint32_t i = 0; i < options->layer_count; i++) {
        enum pagoda_status status = check_layer(&options->layers[i], i, error);
        if (status != PAGODA_OK) {
            return status;
        }
    }
    return pgd_policy_validate(&options->policy, error);
}

/* ---- the part that does not depend on the number of blocks ---- */

static bool same_rope(const struct pagoda_rope *a, const struct pagoda_rope *b)
{
    return a->pair_count == b->pair_count && a->split_pairs == b->split_pairs &&
           (a->pair_count == 0 || memcmp(a->frequencies, b->frequencies, a->pair_count * sizeof(double)) == 0);
}

/* Index of the first layer that rotates like layer `index`: itself when it is the first. */
static uint32_t first_alike(const struct pagoda_layer *layers, uint32_t index)
{
    uint32_t first = 0;
    while (!same_rope(&layers[first].rope, &layers[index].rope)) {
        first++;
    }
    return first;
}

static struct pagoda_cache *lay_out_base(const struct pagoda_cache_options *options, struct pgd_carver *carver)
{
    struct pagoda_cache *cache = pgd_carve(carver, sizeof(*cache));
    struct pgd_layer *layers = pgd_carve(carver, options->layer_count * sizeof(*layers));
    struct pgd_rope_table *ropes = pgd_carve(carver, options->layer_count * sizeof(*ropes));
    const bool spills = options->on_full == PAGODA_ON_FULL_SPILL;
    struct pgd_spill *spill = spills ? pgd_carve(carver, sizeof(*spill)) : NULL;
    struct pgd_spill_layer *spill_layers =
        spills ? pgd_carve(carver, options->layer_count * sizeof(*spill_layers)) : NULL;
    struct pgd_draws *draws = options->counts_draws ? pgd_carve(carver, sizeof(*draws)) : NULL;
    uint32_t rope_count = 0;
    for (uint32_t i = 0; i < options->layer_count; i++) {
        const struct pagoda_layer *shape = &options->layers[i];
        atomic_uint *head_left = pgd_carve(carver, shape->kv_heads * sizeof(*head_left));
        float *sinks = shape->sinks == NULL ? NULL : pgd_carve(carver, shape->query_heads * sizeof(*sinks));
        const uint32_t pairs = shape->rope.pair_count;
        const uint32_t alike = first_alike(options->layers, i);
        double *frequencies = NULL;
        float *cosine = NULL;
        float *sine = NULL;
        if (alike == i) {
            frequencies = pgd_carve(carver, pairs * sizeof(*frequencies));
            cosine = pgd_carve(carver, (uint64_t) PGD_SHIFTS_MAX * pairs * sizeof(*cosine));
            sine = pgd_carve(carver, (uint64_t) PGD_SHIFTS_MAX * pairs * sizeof(*sine));
        }
        if (carver->base == NULL) {
            continue;
        }
        layers[i].shape = *shape;
        layers[i].head_left = head_left;
        if (sinks != NULL) {
            memcpy(sinks, shape->sinks, shape->query_heads * sizeof(*sinks));
        }
        layers[i].shape.sinks = sinks;
        if (alike == i) {
            if (pairs > 0) {
                memcpy(frequencies, shape->rope.frequencies, pairs * sizeof(*frequencies));
            }
            ropes[rope_count] = (struct pgd_rope_table) {.rope = shape->rope, .cosine = cosine, .sine = sine};
            ropes[rope_count].rope.frequencies = frequencies;
            layers[i].rope = rope_count++;
        } else {
            layers[i].rope = layers[alike].rope;
        }
        layers[i].shape.rope = ropes[layers[i].rope].rope;
    }
    if (carver->base != NULL) {
        cache->layers = layers;
        cache->layer_count = options->layer_count;
        cache->ropes = ropes;
        cache->rope_count = rope_count;
        cache->spill = spill;
        cache->draws = draws;
    }
    if (carver->base != NULL && spills) {
        spill->layers = spill_layers;
        spill->options = options->flash;
        spill->cheap_bytes = PGD_CHEAP_BYTES;
        spill->options.recall = options->flash.recall > 0 ? options->flash.recall : DEFAULT_RECALL;
    }
    return cache;
}

/* ---- the part that does ---- */

static void lay_out_worker(const struct pagoda_cache *cache, struct pgd_carver *carver, struct pgd_worker *worker)
{
    uint64_t kernel = 0;
    uint64_t queries = 0;
    uint64_t words = 0;
    uint64_t rows = 0;
    uint64_t outputs = 0;
    uint64_t digest = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pgd_layer *layer = &cache->layers[i];
        /* A few tokens for one KV head, or one token for all of them. */
        const uint32_t group = layer->shape.query_heads / layer->shape.kv_heads;
        const uint32_t layer_rows = (uint32_t) pgd_max_u64(layer->item_tokens * group, layer->shape.query_heads);
        const struct pgd_attend_shape shape = {layer->shape.key_size, layer->shape.value_size, 1, 0};
        kernel = pgd_max_u64(kernel, pgd_kernels_scratch_floats(&shape, layer_rows));
        words = pgd_max_u64(words, (uint64_t) layer_rows * pgd_div_up_u64(layer->shape.key_size, 4));
        queries = pgd_max_u64(queries, (uint64_t) layer_rows * layer->shape.key_size);
        outputs = pgd_max_u64(outputs, (uint64_t) layer_rows * layer->shape.value_size);
        digest = pgd_max_u64(digest, pgd_digest_scratch_floats(layer->shape.key_size, layer_rows));
        rows = pgd_max_u64(rows, layer_rows);
    }
    struct pgd_worker piece;
    piece.kernel = pgd_carve(carver, kernel * sizeof(float));
    piece.queries = pgd_carve(carver, queries * sizeof(float));
    piece.rotated = pgd_carve(carver, queries * sizeof(float));
    piece.first = pgd_carve(carver, rows * sizeof(uint32_t));
    piece.end = pgd_carve(carver, rows * sizeof(uint32_t));
    const bool packs = cache->two_bases;
    piece.packed = (struct pgd_packed_rows) {.count = 0};
    piece.packed.high = pgd_carve(carver, packs ? words * sizeof(int32_t) : 0);
    piece.packed.low = pgd_carve(carver, packs ? words * sizeof(int32_t) : 0);
    piece.packed.unit = pgd_carve(carver, rows * sizeof(float));
    piece.packed.sum = pgd_carve(carver, rows * sizeof(int32_t));
    struct pgd_partial *partials[3] = {&piece.running, &piece.partial, &piece.running_rotated};
    for (int i = 0; i < (packs ? 3 : 2); i++) {
        partials[i]->max = pgd_carve(carver, rows * sizeof(float));
        partials[i]->sum = pgd_carve(carver, rows * sizeof(float));
        partials[i]->out = pgd_carve(carver, outputs * sizeof(float));
        partials[i]->blocks = NULL;
    }
    piece.scores = pgd_carve(carver, cache->spill == NULL ? 0 : 3 * rows * PGD_CHUNK_BLOCKS * sizeof(float));
    piece.digest = pgd_carve(carver, cache->spill == NULL ? 0 : digest * sizeof(float));
    if (carver->base != NULL) {
        *worker = piece;
    }
}

/* Chunks, partial results and the threads' working memory, for a table of `blocks` blocks. */
static void lay_out_staging(struct pagoda_cache *cache, struct pgd_carver *carver, uint64_t blocks)
{
    uint64_t chunks = pgd_div_up_u64(blocks * cache->page_tokens, PGD_CHUNK_TOKENS) + cache->shifts_max + 2;
    chunks += cache->rung_count > 1 ? cache->runs_max : 0;
    const uint64_t slots = cache->spill == NULL ? chunks : 3 * chunks; /* selected pages and stand-ins have theirs */
    uint64_t floats = 0;
    uint64_t cell_floats = 0;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pagoda_layer *shape = &cache->layers[i].shape;
        floats = pgd_max_u64(floats, (uint64_t) shape->query_heads * (shape->value_size + 2u));
        cell_floats = pgd_max_u64(cell_floats, (uint64_t) PGD_LANES * (shape->key_size + shape->value_size));
    }
    struct pgd_plan_chunk *plan = pgd_carve(carver, chunks * sizeof(*plan));
    const uint64_t shared = cache->spill == NULL ? 0 : pgd_spill_shared_floats(cache);
    float *partials = pgd_carve(carver, pgd_max_u64(slots * floats, shared) * sizeof(*partials));
    float *cell_rows = pgd_carve(carver, cache->rung_count > 1 ? cell_floats * sizeof(*cell_rows) : 0);
    struct pgd_worker *workers = pgd_carve(carver, cache->threads_max * sizeof(*workers));
    for (uint32_t i = 0; i < cache->threads_max; i++) {
        lay_out_worker(cache, carver, workers == NULL ? NULL : &workers[i]);
    }
    if (cache->spill != NULL) {
        pgd_spill_lay_out(cache, carver, blocks, chunks);
    }
    if (cache->draws != NULL) {
        pgd_draws_lay_out(cache, carver, blocks, slots);
    }
    if (carver->base != NULL) {
        cache->plan.chunks = plan;
        cache->plan.chunk_capacity = (uint32_t) chunks;
        cache->partials = partials;
        cache->cell_rows = cell_rows;
        cache->workers = workers;
    }
    if (carver->base != NULL && cache->spill != NULL) {
        pgd_spill_share(cache, partials);
    }
}

static uint64_t staging_bytes(struct pagoda_cache *cache, uint64_t blocks)
{
    struct pgd_carver counter = {NULL, 0};
    lay_out_staging(cache, &counter, blocks);
    return counter.used;
}

/* Everything but frames, for a table of `blocks` blocks and an arena of arena_bytes; UINT64_MAX: not possible. */
static uint64_t overhead_bytes(struct pagoda_cache *cache, uint64_t blocks, uint64_t arena_bytes,
                               const uint64_t *class_bytes)
{
    const uint64_t tables = pgd_add_capped_u64(pgd_table_bytes(cache->layer_count, (uint32_t) blocks),
                                               pgd_pool_table_bytes(arena_bytes, class_bytes, cache->class_count));
    const uint64_t flash = cache->spill == NULL ? 0 : pgd_spill_table_bytes(cache);
    return pgd_add_capped_u64(pgd_add_capped_u64(staging_bytes(cache, blocks), flash), tables);
}

static uint64_t total_bytes(struct pagoda_cache *cache, uint64_t blocks, const uint64_t *class_bytes)
{
    const uint64_t frames = pgd_cache_arena_bytes(cache, blocks, class_bytes);
    return pgd_add_capped_u64(frames, overhead_bytes(cache, blocks, frames, class_bytes));
}

/* The most blocks that fit in `bytes`; 0 when not even one does. total_bytes grows with blocks. */
static uint64_t blocks_that_fit(struct pagoda_cache *cache, uint64_t bytes, const uint64_t *class_bytes)
{
    uint64_t low = 0;
    uint64_t high = pgd_cache_blocks_limit(cache);
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (total_bytes(cache, middle, class_bytes) <= bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* The least thrift that makes room for all text that may come; else the least that is worth it: each level more has
 * to hold a good part more text than those before. */
static uint64_t blocks_with_thrift(struct pagoda_cache *cache, uint64_t bytes, uint64_t *class_bytes)
{
    const uint64_t limit = pgd_cache_blocks_limit(cache);
    uint32_t best = 0;
    uint64_t most = 0;
    for (uint32_t level = 0; level < PGD_THRIFT_LEVELS && most < limit; level++) {
        pgd_cache_set_thrift(cache, level, class_bytes);
        const uint64_t blocks = blocks_that_fit(cache, bytes, class_bytes);
        if (blocks == limit || blocks > most + most / WORTH_PART) {
            best = level;
            most = blocks;
        }
    }
    pgd_cache_set_thrift(cache, best, class_bytes);
    return most;
}

/* The most blocks that fit with a flash tier, which reads as much ahead as costs none of them. */
static uint64_t blocks_with_flash(struct pagoda_cache *cache, uint64_t bytes, uint64_t *class_bytes)
{
    uint32_t chunks = PGD_AHEAD_CHUNKS;
    pgd_spill_set_ahead(cache, 0);
    const uint64_t most = blocks_with_thrift(cache, bytes, class_bytes);
    pgd_spill_set_ahead(cache, chunks);
    while (chunks > 0 && blocks_that_fit(cache, bytes, class_bytes) < most) {
        pgd_spill_set_ahead(cache, --chunks);
    }
    return most;
}

/* How the bytes behind the base part are divided. */
struct division {
    uint64_t class_bytes[PGD_POOL_CLASSES_MAX];
    uint64_t blocks;
    uint64_t staging;
    uint64_t tables;
    uint64_t arena;
};

/* Divides `left` bytes. For OVER_BUDGET the caller words the message. */
static enum pagoda_status divide(struct pagoda_cache *cache, uint64_t left, struct division *division,
                                 struct pagoda_error *error)
{
    memset(division, 0, sizeof(*division));
    uint64_t *class_bytes = division->class_bytes;
    enum pagoda_status status = pgd_cache_size_layers(cache, class_bytes, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const uint64_t blocks =
        cache->spill == NULL ? blocks_that_fit(cache, left, class_bytes) : blocks_with_flash(cache, left, class_bytes);
    if (blocks == 0) {
        return PAGODA_OVER_BUDGET;
    }
    uint64_t arena = pgd_cache_arena_bytes(cache, blocks, class_bytes);
    if (cache->class_count > 1) {
        /* Slabs of several classes do not pack perfectly: let the arena have all that is left. */
        const uint64_t overhead = overhead_bytes(cache, blocks, left, class_bytes);
        arena = overhead < left ? pgd_max_u64(arena, left - overhead) : arena;
    }
    division->blocks = blocks;
    division->arena = arena;
    division->staging = staging_bytes(cache, blocks);
    division->tables = pgd_table_bytes(cache->layer_count, (uint32_t) blocks) +
                       pgd_pool_table_bytes(arena, class_bytes, cache->class_count) +
                       (cache->spill == NULL ? 0 : pgd_spill_table_bytes(cache));
    cache->tokens_capacity = blocks * cache->page_tokens;
    if (cache->tokens_max != 0) {
        cache->tokens_capacity = pgd_min_u64(cache->tokens_capacity, cache->tokens_max);
    }
    return PAGODA_OK;
}

/* Of the tokens that `left` bytes hold, those that they hold without flash. After this, the cache is only good for
 * closing. */
static uint64_t tokens_in_memory(struct pagoda_cache *cache, uint64_t left, const uint64_t *class_bytes)
{
    if (cache->spill == NULL) {
        return cache->tokens_capacity;
    }
    cache->spill->all_in_memory = true;
    return pgd_min_u64(cache->tokens_capacity, blocks_that_fit(cache, left, class_bytes) * cache->page_tokens);
}

/* Opens staging, table and pool inside `left` bytes. For OVER_BUDGET the caller words the message. */
static enum pagoda_status open_storage(struct pagoda_cache *cache, uint64_t left, struct pagoda_error *error)
{
    struct division division;
    enum pagoda_status status = divide(cache, left, &division, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const bool admitted = pgd_ledger_take(&cache->ledger, PAGODA_MEMORY_STAGING, division.staging) &&
                          pgd_ledger_take(&cache->ledger, PAGODA_MEMORY_TABLES, division.tables);
    PGD_ASSERT(admitted); /* blocks_that_fit counted the same bytes */
    cache->memory_bytes = (size_t) division.staging;
    cache->memory = pgd_allocate(&cache->system, cache->memory_bytes);
    if (cache->memory == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %llu bytes of working space",
                        (unsigned long long) division.staging);
    }
    struct pgd_carver carver = {cache->memory, 0};
    lay_out_staging(cache, &carver, division.blocks);
    PGD_ASSERT(carver.used == division.staging);
    status = pgd_table_open(&cache->system, cache->layer_count, cache->page_tokens, (uint32_t) division.blocks,
                            &cache->table, error);
    if (status == PAGODA_OK) {
        status = pgd_pool_open(&cache->system, division.arena, division.class_bytes, cache->class_count, &cache->pool,
                               error);
    }
    if (status == PAGODA_OK && !pgd_pool_can_take(cache->pool, cache->block_frames[0], 0)) {
        status = PAGODA_OVER_BUDGET;
    }
    if (status == PAGODA_OK && cache->spill != NULL) {
        status = pgd_spill_open(cache, error);
    }
    return status;
}

static uint64_t base_bytes(const struct pagoda_cache_options *options)
{
    struct pgd_carver counter = {NULL, 0};
    lay_out_base(options, &counter);
    return counter.used;
}

/* The codecs that pages go through: f16, what they settle to, what they become under pressure. */
static void set_rungs(struct pagoda_cache *cache, const struct pagoda_cache_options *options)
{
    const bool in_steps = options->codec == PAGODA_CODEC_F16 && options->codec_tight > PAGODA_CODEC_K8V4;
    const enum pagoda_codec wanted[PGD_RUNGS_MAX] = {PAGODA_CODEC_F16, in_steps ? PAGODA_CODEC_K8V4 : options->codec,
                                                     options->codec_tight};
    for (uint32_t i = 0; i < PGD_RUNGS_MAX; i++) {
        if (i == 0 || wanted[i] > cache->codec_ids[cache->rung_count - 1]) {
            cache->codec_ids[cache->rung_count] = wanted[i];
            cache->codecs[cache->rung_count++] = pgd_codec_get(wanted[i]);
        }
    }
    cache->rung_settled = options->codec != PAGODA_CODEC_F16 ? 1 : 0;
    cache->two_bases = cache->rung_count > 1 || cache->spill != NULL;
}

/* Allocates the base part and copies the options into it. */
static enum pagoda_status open_base(const struct pagoda_cache_options *options, uint64_t base,
                                    struct pagoda_cache **out, struct pagoda_error *error)
{
    struct pgd_system system;
    pgd_os_system(options->system, &system);
    void *memory = pgd_allocate(&system, (size_t) base);
    if (memory == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a cache of %u layers", options->layer_count);
    }
    struct pgd_carver carver = {memory, 0};
    struct pagoda_cache *cache = lay_out_base(options, &carver);
    cache->system = system;
    cache->page_tokens = options->page_tokens;
    cache->page_cells = options->page_tokens / PGD_LANES;
    cache->batch_tokens = options->batch_tokens;
    cache->threads_max = options->threads_max;
    cache->tokens_max = options->tokens_max;
    cache->close_gaps_at = options->close_gaps_at;
    cache->rollback_tokens = options->rollback_tokens;
    cache->exact_first = options->exact_first;
    cache->recent_wanted = options->exact_recent;
    set_rungs(cache, options);
    cache->on_full = options->on_full;
    cache->policy = options->policy;
    cache->base_bytes = (size_t) base;
    *out = cache;
    return PAGODA_OK;
}

enum pagoda_status pagoda_cache_budget_for(const struct pagoda_cache_options *options, uint64_t tokens, uint64_t *bytes,
                                           struct pagoda_error *error)
{
    enum pagoda_status status = check_options(options, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (tokens == 0 || tokens > PGD_POSITION_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "a sequence has 1 to %u tokens", PGD_POSITION_MAX);
    }
    const uint64_t base = base_bytes(options);
    struct pagoda_cache *cache = NULL;
    status = open_base(options, base, &cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    uint64_t class_bytes[PGD_POOL_CLASSES_MAX] = {0};
    cache->tokens_max = tokens;
    if (cache->spill != NULL) {
        cache->spill->all_in_memory = true;
    }
    status = pgd_cache_size_layers(cache, class_bytes, error);
    if (status == PAGODA_OK) {
        const uint64_t fixed = pgd_add_capped_u64(base, options->reserved_bytes);
        *bytes = pgd_add_capped_u64(fixed, total_bytes(cache, pgd_cache_blocks_limit(cache), class_bytes));
    }
    pagoda_cache_close(cache);
    return status;
}

/* Says what the smallest budget is: one page in each layer. */
static enum pagoda_status fail_over_budget(const struct pagoda_cache_options *options, struct pagoda_error *error)
{
    uint64_t least = 0;
    enum pagoda_status status = pagoda_cache_budget_for(options, 1, &least, error);
    if (status != PAGODA_OK) {
        return status;
    }
    return pgd_fail(error, PAGODA_OVER_BUDGET,
                    "a KV budget of %llu bytes does not hold one page of %u tokens in each of %u layers: "
                    "it takes at least %llu bytes (%.2f MiB)",
                    (unsigned long long) options->budget_bytes, options->page_tokens, options->layer_count,
                    (unsigned long long) least, (double) least / 1048576.0);
}

enum pagoda_status pagoda_cache_plan(const struct pagoda_cache_options *options, struct pagoda_reservation *reservation,
                                     struct pagoda_error *error)
{
    enum pagoda_status status = check_options(options, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const uint64_t base = base_bytes(options);
    const uint64_t fixed = pgd_add_capped_u64(base, options->reserved_bytes);
    if (fixed > options->budget_bytes) {
        return fail_over_budget(options, error);
    }
    struct pagoda_cache *cache = NULL;
    status = open_base(options, base, &cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct division division;
    status = divide(cache, options->budget_bytes - fixed, &division, error);
    if (status == PAGODA_OK) {
        *reservation = (struct pagoda_reservation) {
            .budget_bytes = options->budget_bytes,
            .tables_bytes = base + division.tables,
            .staging_bytes = options->reserved_bytes + division.staging,
            .arena_bytes = division.arena,
            .tokens_capacity = cache->tokens_capacity,
            .tokens_in_memory = tokens_in_memory(cache, options->budget_bytes - fixed, division.class_bytes),
            .flash_bytes_per_token = cache->spill == NULL ? 0 : pgd_spill_bytes_per_token(cache),
            .digest_tokens = cache->spill == NULL ? 0 : cache->spill->digest_cells * PGD_LANES,
            .exact_recent = cache->exact_recent,
            .batch_tokens = cache->batch_most,
            .bytes_per_token = cache->row_bytes,
        };
    }
    pagoda_cache_close(cache);
    return status == PAGODA_OVER_BUDGET ? fail_over_budget(options, error) : status;
}

enum pagoda_status pagoda_cache_open(const struct pagoda_cache_options *options, struct pagoda_cache **out,
                                     struct pagoda_error *error)
{
    enum pagoda_status status = check_options(options, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const struct pgd_kernels *kernels = pgd_kernels_select(options->cpu);
    if (kernels == NULL) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "this CPU or this build has no kernels called '%.32s'",
                        options->cpu);
    }
    const uint64_t base = base_bytes(options);
    struct pgd_ledger ledger;
    pgd_ledger_init(&ledger, options->budget_bytes);
    if (!pgd_ledger_take(&ledger, PAGODA_MEMORY_TABLES, base) ||
        !pgd_ledger_take(&ledger, PAGODA_MEMORY_STAGING, options->reserved_bytes)) {
        return fail_over_budget(options, error);
    }
    struct pagoda_cache *cache = NULL;
    status = open_base(options, base, &cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    cache->ledger = ledger;
    cache->kernels = kernels;
    status = open_storage(cache, pgd_ledger_left(&ledger), error);
    if (status != PAGODA_OK) {
        pagoda_cache_close(cache);
        return status == PAGODA_OVER_BUDGET ? fail_over_budget(options, error) : status;
    }
    *out = cache;
    return PAGODA_OK;
}

void pagoda_cache_close(struct pagoda_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    const struct pgd_system system = cache->system;
    pgd_spill_close(cache);
    pgd_pool_close(cache->pool);
    pgd_table_close(cache->table);
    pgd_release(&system, cache->memory, cache->memory_bytes);
    pgd_release(&system, cache, cache->base_bytes);
}

enum pagoda_status pagoda_cache_reset(struct pagoda_cache *cache, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    pgd_ledger_give(&cache->ledger, PAGODA_MEMORY_KV_EXACT, cache->ledger.by_category[PAGODA_MEMORY_KV_EXACT]);
    pgd_ledger_give(&cache->ledger, PAGODA_MEMORY_KV_QUANTIZED, cache->ledger.by_category[PAGODA_MEMORY_KV_QUANTIZED]);
    pgd_ledger_give(&cache->ledger, PAGODA_MEMORY_DIGESTS, cache->ledger.by_category[PAGODA_MEMORY_DIGESTS]);
    if (cache->spill != NULL) {
        pgd_spill_reset(cache);
    }
    if (cache->draws != NULL) {
        pgd_draws_reset(cache);
    }
    pgd_pool_reset(cache->pool);
    pgd_table_reset(cache->table);
    cache->position = 0;
    cache->held_tokens = 0;
    cache->rollback_floor = 0;
    cache->settled_to = 0;
    cache->released_to = 0;
    cache->live_row_bytes = 0;
    cache->evicted_pages = 0;
    cache->released_pages = 0;
    cache->reencoded_pages = 0;
    return PAGODA_OK;
}
