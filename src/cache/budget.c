/* cache/budget.c - a budget that moves while the cache lives.
 *
 * The arena is reserved address space, as large as the budget that the cache was opened with. A smaller budget is
 * a limit on the slabs that may hold pages: pages are made to fit (moved together, re-encoded, let go), those that lie
 * beyond the limit move below it, and the memory behind it goes back to the system. While pages are made to
 * fit the old budget is in force, so that there is room to work in; afterwards as much room is left free under the new
 * one, or the next step down could only let pages go.
 *
 * There are two ways down. The host's keeps to its number, and text leaves if it must. The governor's, while memory is
 * tight, keeps to the text, and its number gives way.
 */
#include "base/number.h"
#include "base/status.h"
#include "cache/spill.h"
#include "policy/policy.h"

/* Bytes that are no frames: they do not move. */
static uint64_t fixed_bytes(const struct pagoda_cache *cache)
{
    const struct pgd_ledger *ledger = &cache->ledger;
    return ledger->used_bytes - ledger->by_category[PAGODA_MEMORY_KV_EXACT] -
           ledger->by_category[PAGODA_MEMORY_KV_QUANTIZED] - ledger->by_category[PAGODA_MEMORY_DIGESTS];
}

/* Slabs that a budget holds. */
static uint32_t slabs_in(const struct pagoda_cache *cache, uint64_t bytes)
{
    const uint64_t left = bytes - pgd_min_u64(bytes, fixed_bytes(cache));
    return (uint32_t) pgd_min_u64(left / pgd_pool_slab_bytes(cache->pool), pgd_pool_slab_count(cache->pool));
}

/* ---- the floor ---- */

/* Counts the frames of a block that stays and may move, as small as they can be made. */
static void add_staying_frames(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position,
                               uint64_t *frames)
{
    const bool shrinks = pgd_cache_may_shrink(cache, index, end_position);
    const uint32_t rung = shrinks ? cache->rung_count - 1 : pgd_table_codec(cache->table, index);
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (pgd_page_has_frame(pgd_table_page(cache->table, index, layer)) &&
            !pgd_cache_window_has_passed(cache, index, layer)) {
            frames[cache->layers[layer].kinds[rung].frame_class]++;
        }
    }
}

/* Whether all of a block's pages may leave memory for flash once the sequence ends at `end_position`. */
static bool may_spill(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position)
{
    if (cache->on_full != PAGODA_ON_FULL_SPILL || !pgd_cache_may_shrink(cache, index, end_position)) {
        return false;
    }
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const bool grows = cache->spill->layers[layer].grows;
        if (!grows && pgd_page_has_frame(pgd_table_page(cache->table, index, layer)) &&
            !pgd_cache_window_has_passed(cache, index, layer)) {
            return false;
        }
    }
    return true;
}

/* Slabs that surely hold what is left when all that may leave once the sequence ends at `end_position` has left, and
 * `count` more tokens. Where text is kept, pages still may leave for flash, and their digests stay. */
static uint64_t floor_slabs(const struct pagoda_cache *cache, uint32_t count, uint64_t end_position, bool keeps_text)
{
    uint64_t frames[PGD_POOL_CLASSES_MAX] = {0};
    uint32_t needs[PGD_POOL_CLASSES_MAX];
    uint64_t digested = 0; /* blocks that are not dropped and have digests ... */
    uint64_t spilling = 0; /* ... or get some */
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        struct pgd_policy_block block;
        pgd_cache_policy_block(cache, index, &block);
        const bool drops =
            !keeps_text && cache->on_full != PAGODA_ON_FULL_STOP && pgd_policy_may_leave(&cache->policy, &block);
        const bool spills = !drops && may_spill(cache, index, end_position);
        const bool has_digests = cache->spill != NULL && pgd_spill_has_digests(cache, index);
        digested += !drops && has_digests ? 1 : 0;
        spilling += spills && !has_digests ? 1 : 0;
        if (!drops && !spills && !block.pinned && !block.open) {
            add_staying_frames(cache, index, end_position, frames);
        }
    }
    if (cache->spill != NULL) {
        frames[cache->spill->digest_class] += pgd_spill_digest_frames(cache, digested, spilling);
    }
    pgd_cache_mark_fixed(cache);
    pgd_cache_frames_needed(cache, count, needs);
    uint64_t slabs = pgd_pool_slabs_marked(cache->pool) + pgd_cache_spare_slabs(cache);
    for (uint32_t i = 0; i < cache->class_count; i++) {
        const uint64_t places = pgd_pool_slab_bytes(cache->pool) / pgd_pool_frame_bytes(cache->pool, i);
        slabs += pgd_div_up_u64(frames[i] + needs[i], places);
        slabs += cache->class_count > 1 && frames[i] > 0 ? 1 : 0; /* one that is not full */
    }
    return slabs;
}

static uint64_t least_budget(const struct pagoda_cache *cache, bool keeps_text)
{
    const uint64_t tail_room = (cache->page_tokens - cache->position % cache->page_tokens) % cache->page_tokens;
    const uint32_t count = (uint32_t) tail_room + 1; /* a page in each layer */
    const uint64_t slabs = floor_slabs(cache, count, cache->position, keeps_text);
    return pgd_min_u64(fixed_bytes(cache) + slabs * pgd_pool_slab_bytes(cache->pool), cache->ledger.budget_bytes);
}

uint64_t pagoda_cache_budget_floor(const struct pagoda_cache *cache)
{
    return least_budget(cache, false);
}

uint64_t pgd_cache_text_floor(const struct pagoda_cache *cache)
{
    return least_budget(cache, true);
}

bool pgd_cache_surely_fits(const struct pagoda_cache *cache, uint32_t count, bool keeps_text)
{
    return floor_slabs(cache, count, cache->position + count, keeps_text) <= pgd_pool_slab_limit(cache->pool);
}

/* ---- making it smaller ---- */

/* Slabs for what is held, and for the next token. */
static uint64_t slabs_wanted(const struct pagoda_cache *cache)
{
    uint32_t needs[PGD_POOL_CLASSES_MAX];
    pgd_cache_frames_needed(cache, 1, needs);
    return pgd_pool_slabs_used(cache->pool) + pgd_pool_slabs_needed(cache->pool, needs) + pgd_cache_spare_slabs(cache);
}

static bool spill_some(struct pagoda_cache *cache)
{
    return cache->on_full == PAGODA_ON_FULL_SPILL && pgd_spill_make_room(cache, cache->position);
}

static bool collapse_some(struct pagoda_cache *cache)
{
    return cache->on_full == PAGODA_ON_FULL_SPILL && pgd_spill_collapse_oldest(cache, cache->position);
}

/* What loses nothing comes first, what loses text comes last, and not where text is kept. */
static bool make_fit(struct pagoda_cache *cache, uint32_t slabs, bool keeps_text)
{
    while (slabs_wanted(cache) > slabs) {
        if (!pgd_cache_compact(cache) && !pgd_cache_shrink_one(cache, cache->position) && !spill_some(cache) &&
            (keeps_text || (!collapse_some(cache) && !pgd_cache_evict_one(cache)))) {
            break;
        }
    }
    return pgd_pool_slabs_used(cache->pool) <= slabs;
}

/* Pages in slabs beyond the limit move below it, so that the memory there is free in one piece. */
static void move_inside(struct pagoda_cache *cache)
{
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
            uint32_t inside = PGD_FRAME_NONE;
            const bool moves = page->state == PAGODA_PAGE_SEALED || page->state == PAGODA_PAGE_CLEAN;
            if (moves && pgd_pool_copy_inside(cache->pool, page->frame, &inside)) {
                pgd_pool_give(cache->pool, pgd_table_reencode(cache->table, index, layer, inside, page->codec));
            }
        }
    }
}

/* Tokens that fit when all layers hold them: as when the cache was opened, but in fewer slabs. */
static uint64_t tokens_in(const struct pagoda_cache *cache, uint32_t slabs)
{
    uint64_t class_bytes[PGD_POOL_CLASSES_MAX] = {0};
    for (uint32_t i = 0; i < cache->class_count; i++) {
        class_bytes[i] = pgd_pool_frame_bytes(cache->pool, i);
    }
    const uint64_t arena_bytes = slabs * pgd_pool_slab_bytes(cache->pool);
    uint64_t low = 1;
    uint64_t high = pgd_table_capacity(cache->table);
    while (low < high) {
        const uint64_t middle = low + (high - low + 1) / 2;
        if (pgd_cache_arena_bytes(cache, middle, class_bytes) <= arena_bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const uint64_t tokens = low * cache->page_tokens;
    return cache->tokens_max == 0 ? tokens : pgd_min_u64(tokens, cache->tokens_max);
}

static void set_limit(struct pagoda_cache *cache, uint64_t bytes)
{
    const uint32_t slabs = slabs_in(cache, bytes);
    const bool is_less = bytes < cache->ledger.budget_bytes;
    pgd_cache_mark_fixed(cache);
    pgd_pool_set_limit(cache->pool, slabs);
    if (is_less) {
        move_inside(cache);
        pgd_pool_discard_free(cache->pool);
    }
    pgd_ledger_set_budget(&cache->ledger, bytes);
    cache->tokens_capacity = tokens_in(cache, slabs);
}

static enum pagoda_status fail_floor(const struct pagoda_cache *cache, uint64_t bytes, uint64_t floor_bytes,
                                     struct pagoda_error *error)
{
    return pgd_fail(error, PAGODA_OVER_BUDGET,
                    "a KV budget of %.2f MiB does not hold what must stay: it takes at least %.2f MiB (%llu bytes)%s",
                    (double) bytes / 1048576.0, (double) floor_bytes / 1048576.0, (unsigned long long) floor_bytes,
                    cache->on_full == PAGODA_ON_FULL_STOP ? "; let old text go (evict), or unpin something" : "");
}

enum pagoda_status pagoda_cache_set_budget(struct pagoda_cache *cache, uint64_t bytes, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (bytes > cache->ledger.opened_bytes) {
        return pgd_fail(error, PAGODA_RANGE, "the cache was opened with a budget of %llu bytes: it cannot grow to %llu",
                        (unsigned long long) cache->ledger.opened_bytes, (unsigned long long) bytes);
    }
    if (bytes < cache->ledger.budget_bytes) {
        pgd_cache_release_windows(cache);
        const uint64_t least_bytes = pagoda_cache_budget_floor(cache);
        if (bytes < least_bytes) {
            return fail_floor(cache, bytes, least_bytes, error);
        }
        if (!make_fit(cache, slabs_in(cache, bytes), false)) {
            const uint64_t slabs = pgd_pool_slabs_used(cache->pool);
            return fail_floor(cache, bytes, fixed_bytes(cache) + slabs * pgd_pool_slab_bytes(cache->pool), error);
        }
    }
    set_limit(cache, bytes);
    return PAGODA_OK;
}

enum pagoda_status pgd_cache_lower_budget(struct pagoda_cache *cache, uint64_t bytes, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK || bytes >= cache->ledger.budget_bytes) {
        return status;
    }
    pgd_cache_release_windows(cache);
    /* In a few slabs, pages made smaller may take more of them: that begins only where the end of it surely fits. */
    if (pgd_cache_surely_fits(cache, 1, true)) {
        (void) make_fit(cache, slabs_in(cache, bytes), true);
    }
    const uint64_t slab_bytes = pgd_pool_slab_bytes(cache->pool);
    const uint64_t before = cache->ledger.budget_bytes;
    const uint64_t least_bytes = pgd_min_u64(fixed_bytes(cache) + slabs_wanted(cache) * slab_bytes, before);
    bytes = pgd_max_u64(bytes, least_bytes);
    set_limit(cache, bytes);
    /* Free places beside pages that may not move do not count when they lie beyond the limit. */
    while (bytes < before && !pgd_cache_frames_fit(cache, 1)) {
        bytes = pgd_min_u64(bytes + slab_bytes, before);
        set_limit(cache, bytes);
    }
    return PAGODA_OK;
}
