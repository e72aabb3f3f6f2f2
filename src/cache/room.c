/* cache/room.c - who has to leave, and what fits.
 *
 * Room is made before a batch opens, never inside it. The order: pages that window layers have passed
 * are freed (nobody can see them); blocks that the policy does not want to keep leave; then, while the
 * new pages do not fit, the policy names one block after the other. With a flash tier pages are spilled before, and
 * collapse to their digests when that is full (spill.c). A batch that could not fit even
 * then is refused before anything leaves.
 */
#include "base/number.h"
#include "base/status.h"
#include "cache/cache.h"
#include "cache/draws.h"
#include "cache/spill.h"
#include "policy/policy.h"

uint64_t pgd_cache_live_bytes(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const uint8_t rung = pgd_table_page(cache->table, index, layer)->codec;
    return rung == 0 ? cache->layers[layer].row_bytes * pgd_table_block(cache->table, index)->count
                     : cache->layers[layer].kinds[rung].page_bytes;
}

/* Bytes of the frame that a page has. */
static uint64_t frame_bytes(const struct pagoda_cache *cache, const struct pgd_page *page, uint32_t layer)
{
    return pgd_pool_frame_bytes(cache->pool, cache->layers[layer].kinds[page->codec].frame_class);
}

void pgd_cache_free_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
    if (page->state == PAGODA_PAGE_ABSENT) {
        return;
    }
    if (pgd_page_has_frame(page)) {
        cache->live_row_bytes -= pgd_cache_live_bytes(cache, index, layer);
        pgd_ledger_give(&cache->ledger, pgd_cache_category(page->codec), frame_bytes(cache, page, layer));
    } else {
        cache->spill->layers[layer].away--;
        cache->spill->layers[layer].collapsed -= page->state == PAGODA_PAGE_COLLAPSED ? 1 : 0;
    }
    uint32_t frame = pgd_table_clear_page(cache->table, index, layer);
    if (frame != PGD_FRAME_NONE) {
        pgd_pool_give(cache->pool, frame);
    }
}

/* Removes a block none of whose pages is left. */
static void remove_block(struct pagoda_cache *cache, uint32_t index)
{
    cache->held_tokens -= pgd_table_block(cache->table, index)->count;
    if (cache->spill != NULL) {
        pgd_spill_forget(cache, index);
    }
    if (cache->draws != NULL) {
        pgd_draws_forget(cache, index);
    }
    pgd_table_set_pinned(cache->table, index, false);
    pgd_table_remove(cache->table, index);
}

void pgd_cache_drop_block(struct pagoda_cache *cache, uint32_t index)
{
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        pgd_cache_free_page(cache, index, layer);
    }
    remove_block(cache, index);
}

static void evict(struct pagoda_cache *cache, uint32_t index)
{
    const struct pgd_block *block = pgd_table_block(cache->table, index);
    PGD_ASSERT(!block->pinned);
    cache->evicted_pages += block->pages_present;
    pgd_cache_drop_block(cache, index);
}

/* The first position that a query can still come from: the sequence may be taken back to it. */
static uint64_t earliest_query(const struct pagoda_cache *cache)
{
    return cache->position - pgd_min_u64(cache->position, cache->rollback_tokens);
}

bool pgd_cache_window_has_passed(const struct pagoda_cache *cache, uint32_t index, uint32_t layer)
{
    const uint64_t window = cache->layers[layer].shape.window;
    const uint64_t end = pgd_table_block(cache->table, index)->first + cache->page_tokens;
    return window != 0 && end + window <= earliest_query(cache) + 1;
}

/* Frees the pages of block `index` that their layers have passed; true when there was one. */
static bool release_passed_pages(struct pagoda_cache *cache, uint32_t index)
{
    bool released = false;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        if (pgd_cache_window_has_passed(cache, index, layer) &&
            pgd_table_page(cache->table, index, layer)->state != PAGODA_PAGE_ABSENT) {
            pgd_cache_free_page(cache, index, layer);
            cache->released_pages++;
            released = true;
        }
    }
    return released;
}

void pgd_cache_release_windows(struct pagoda_cache *cache)
{
    if (cache->window_widest == 0) {
        return;
    }
    const uint64_t earliest = earliest_query(cache);
    uint32_t index = pgd_table_find(cache->table, cache->released_to);
    while (index < pgd_table_count(cache->table) && pgd_table_block(cache->table, index)->first < cache->position) {
        if (release_passed_pages(cache, index)) {
            cache->rollback_floor = earliest;
        }
        if (pgd_table_block(cache->table, index)->pages_present == 0) {
            remove_block(cache, index);
        } else {
            index++;
        }
    }
    if (earliest + 1 > cache->window_widest) {
        cache->released_to = pgd_max_u64(cache->released_to, earliest + 1 - cache->window_widest);
    }
}

void pgd_cache_policy_block(const void *user, uint32_t index, struct pgd_policy_block *view)
{
    const struct pagoda_cache *cache = user;
    const struct pgd_block *block = pgd_table_block(cache->table, index);
    view->first = block->first;
    view->count = block->count;
    view->pinned = block->pinned;
    view->open = index + 1 == pgd_table_count(cache->table) && block->count < cache->page_tokens;
}

static uint32_t choose(const struct pagoda_cache *cache, uint64_t end_position, bool must_free)
{
    const struct pgd_policy_view view = {
        .block_count = pgd_table_count(cache->table),
        .at = pgd_cache_policy_block,
        .user = cache,
        .end_position = end_position,
        .must_free = must_free,
    };
    return pgd_policy_choose(&cache->policy, &view);
}

/* Tokens that still fit in the last block. */
static uint32_t tail_room(const struct pagoda_cache *cache)
{
    return (uint32_t) ((cache->page_tokens - cache->position % cache->page_tokens) % cache->page_tokens);
}

static uint32_t blocks_needed(const struct pagoda_cache *cache, uint32_t count)
{
    const uint32_t tail = tail_room(cache);
    return count <= tail ? 0 : (uint32_t) pgd_div_up_u64(count - tail, cache->page_tokens);
}

void pgd_cache_frames_needed(const struct pagoda_cache *cache, uint32_t count, uint32_t *needs)
{
    const uint32_t blocks = blocks_needed(cache, count);
    for (uint32_t i = 0; i < cache->class_count; i++) {
        needs[i] = cache->block_frames[0][i] * blocks;
        for (uint32_t rung = 1; rung < cache->rung_count; rung++) {
            needs[i] += cache->block_frames[rung][i];
        }
    }
    if (cache->spill != NULL) {
        needs[cache->spill->digest_class]++;
    }
}

uint32_t pgd_cache_spare_slabs(const struct pagoda_cache *cache)
{
    return cache->class_count > 1 && (cache->rung_count > 1 || cache->spill != NULL) ? 1 : 0;
}

bool pgd_cache_frames_fit(const struct pagoda_cache *cache, uint32_t count)
{
    uint32_t needs[PGD_POOL_CLASSES_MAX];
    pgd_cache_frames_needed(cache, count, needs);
    return pgd_pool_can_take(cache->pool, needs, pgd_cache_spare_slabs(cache));
}

/* Whether the table has entries for `count` more tokens, and the sequence may have so many. */
static bool table_fits(const struct pagoda_cache *cache, uint32_t count)
{
    return pgd_table_count(cache->table) + blocks_needed(cache, count) <= pgd_table_capacity(cache->table) &&
           (cache->tokens_max == 0 || cache->held_tokens + count <= cache->tokens_max);
}

static bool fits_now(const struct pagoda_cache *cache, uint32_t count)
{
    return pgd_cache_frames_fit(cache, count) && table_fits(cache, count);
}

bool pgd_cache_has_spare(const struct pagoda_cache *cache, uint32_t class_index, uint32_t count)
{
    uint32_t needs[PGD_POOL_CLASSES_MAX];
    pgd_cache_frames_needed(cache, count, needs);
    needs[class_index]++;
    return pgd_pool_can_take(cache->pool, needs, pgd_cache_spare_slabs(cache));
}

/* What would be free once all that may leave has left: frames of each class, blocks, tokens. Frames of smaller codecs,
 * and what re-encoding would free, are counted in bytes: how slabs pack them is not known before. */
struct potential {
    uint32_t frames[PGD_POOL_CLASSES_MAX];
    uint64_t bytes;
    uint32_t blocks;
    uint64_t tokens;
};

static void add_leaving_pages(const struct pagoda_cache *cache, uint32_t index, bool leaves,
                              struct potential *potential)
{
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const bool in_memory = pgd_page_has_frame(pgd_table_page(cache->table, index, layer));
        if (!in_memory || !(leaves || pgd_cache_window_has_passed(cache, index, layer))) {
            continue;
        }
        const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
        if (page->codec == 0) {
            potential->frames[cache->layers[layer].kinds[0].frame_class]++;
        } else {
            potential->bytes += frame_bytes(cache, page, layer);
        }
    }
}

static void find_potential(const struct pagoda_cache *cache, struct potential *potential)
{
    *potential = (struct potential) {.blocks = 0};
    for (uint32_t i = 0; i < cache->class_count; i++) {
        potential->frames[i] = pgd_pool_available(cache->pool, i);
    }
    uint64_t staying = 0;
    const uint32_t count = pgd_table_count(cache->table);
    for (uint32_t index = 0; index < count; index++) {
        struct pgd_policy_block block;
        pgd_cache_policy_block(cache, index, &block);
        const bool leaves = cache->on_full != PAGODA_ON_FULL_STOP && pgd_policy_may_leave(&cache->policy, &block);
        const bool spills =
            cache->on_full == PAGODA_ON_FULL_SPILL && pgd_cache_may_shrink(cache, index, cache->position);
        add_leaving_pages(cache, index, leaves || spills, potential);
        potential->blocks += leaves ? 1 : 0;
        staying += leaves ? 0 : block.count;
    }
    potential->blocks += pgd_table_capacity(cache->table) - count;
    if (cache->on_full == PAGODA_ON_FULL_STOP) { /* what may leave need not be made smaller */
        potential->bytes += pgd_cache_shrink_gain(cache, cache->position);
    }
    potential->tokens =
        cache->tokens_max == 0 ? UINT64_MAX : cache->tokens_max - pgd_min_u64(staying, cache->tokens_max);
}

/* Whole f16 blocks that the potential frames and bytes make, less what re-encoding keeps free. */
static uint64_t blocks_in(const struct pagoda_cache *cache, const struct potential *potential)
{
    uint64_t blocks = UINT64_MAX;
    uint64_t kept = cache->rung_count > 1 ? pgd_pool_slab_bytes(cache->pool) : 0;
    for (uint32_t i = 0; i < cache->class_count; i++) {
        if (cache->block_frames[0][i] > 0) {
            blocks = pgd_min_u64(blocks, potential->frames[i] / cache->block_frames[0][i]);
        }
    }
    for (uint32_t rung = 1; rung < cache->rung_count; rung++) {
        kept += cache->block_bytes[rung] + pgd_pool_slab_bytes(cache->pool);
    }
    blocks += potential->bytes / cache->block_bytes[0];
    return blocks - pgd_min_u64(blocks, pgd_div_up_u64(kept, cache->block_bytes[0]));
}

/* Who has to be dropped: of blocks that can be given up, those that have been already are missed least. */
static uint32_t choose_dropped(const struct pagoda_cache *cache, uint64_t end_position, bool must_free)
{
    const uint32_t collapsed = cache->spill != NULL && must_free ? pgd_spill_oldest_collapsed(cache) : UINT32_MAX;
    return collapsed < pgd_table_count(cache->table) ? collapsed : choose(cache, end_position, must_free);
}

bool pgd_cache_evict_one(struct pagoda_cache *cache)
{
    const bool evicts = cache->on_full != PAGODA_ON_FULL_STOP;
    const uint32_t victim = evicts ? choose_dropped(cache, cache->position, true) : PGD_POLICY_NOBODY;
    if (victim != PGD_POLICY_NOBODY) {
        evict(cache, victim);
    }
    return victim != PGD_POLICY_NOBODY;
}

/* Of `wanted` tokens, those that surely fit, counted in slabs; `least` of them do. */
static uint32_t certain_room(const struct pagoda_cache *cache, uint32_t least, uint32_t wanted, bool keeps_text)
{
    uint32_t low = least;
    uint32_t high = wanted;
    while (low < high) {
        const uint32_t middle = low + (high - low + 1) / 2;
        if (fits_now(cache, middle) || pgd_cache_surely_fits(cache, middle, keeps_text)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* Of `wanted` tokens, those that there is room for once all that may leave has left. */
static uint32_t most_room(const struct pagoda_cache *cache, uint32_t wanted)
{
    wanted = (uint32_t) pgd_min_u64(wanted, cache->batch_most);
    wanted = (uint32_t) pgd_min_u64(wanted, PGD_POSITION_MAX - cache->position);
    if (fits_now(cache, wanted)) {
        return wanted;
    }
    struct potential potential;
    find_potential(cache, &potential);
    const uint64_t most = pgd_min_u64(potential.blocks * cache->page_tokens + tail_room(cache), potential.tokens);
    uint64_t guess = 0; /* in bytes; where nothing can leave if it was wrong, there is none */
    if (cache->on_full != PAGODA_ON_FULL_STOP) {
        const uint64_t blocks = pgd_min_u64(potential.blocks, blocks_in(cache, &potential));
        guess = pgd_min_u64(blocks * cache->page_tokens + tail_room(cache), potential.tokens);
    }
    /* Counted in slabs it may be more: in few slabs, the bytes that re-encoding keeps free are too careful a guess. */
    return certain_room(cache, (uint32_t) pgd_min_u64(wanted, guess), (uint32_t) pgd_min_u64(wanted, most), false);
}

uint32_t pagoda_cache_room(const struct pagoda_cache *cache, uint32_t wanted)
{
    const uint32_t most = most_room(cache, wanted);
    if (cache->spill == NULL || fits_now(cache, most)) {
        return most;
    }
    /* For more than finds room by spilling, text might have to be dropped. */
    return certain_room(cache, (uint32_t) pgd_min_u64(most, pgd_cache_least_batch(cache)), most, true);
}

static enum pagoda_status refuse(const struct pagoda_cache *cache, uint32_t count, struct pagoda_error *error)
{
    const double budget = (double) cache->ledger.budget_bytes / 1048576.0;
    if (cache->on_full == PAGODA_ON_FULL_STOP) {
        return pgd_fail(error, PAGODA_FULL,
                        "the KV budget is full: %.2f MiB hold %llu tokens and %u more were asked for; raise "
                        "the budget, or let old text go (evict)",
                        budget, (unsigned long long) cache->held_tokens, count);
    }
    if (count > cache->batch_most) {
        return pgd_fail(error, PAGODA_OVER_BUDGET,
                        "%u tokens do not fit at once: with %.2f MiB for a long text, a batch has at most %u", count,
                        budget, cache->batch_most);
    }
    const bool never = count > cache->tokens_capacity || cache->held_tokens == 0;
    return pgd_fail(error, never ? PAGODA_OVER_BUDGET : PAGODA_FULL,
                    "%u tokens do not fit at once: %.2f MiB hold %llu tokens, and "
                    "what is pinned may not leave; raise the budget or unpin something",
                    count, budget, (unsigned long long) cache->tokens_capacity);
}

/* One step that makes room without dropping anything: smaller, closer together, to flash, to its digests. False when
 * none is left. */
static bool make_frames(struct pagoda_cache *cache, uint32_t count, uint64_t end_position)
{
    if (cache->on_full == PAGODA_ON_FULL_SPILL && pgd_cache_frames_fit(cache, count)) {
        return false; /* it is the table that is full */
    }
    return pgd_cache_shrink_one(cache, end_position) || pgd_cache_compact(cache) ||
           (cache->on_full == PAGODA_ON_FULL_SPILL &&
            (pgd_spill_make_room(cache, end_position) || pgd_spill_collapse_oldest(cache, end_position)));
}

enum pagoda_status pgd_cache_make_room(struct pagoda_cache *cache, uint32_t count, struct pagoda_error *error)
{
    if (count > PGD_POSITION_MAX - cache->position) {
        return pgd_fail(error, PAGODA_LIMIT, "a sequence has at most %u tokens", PGD_POSITION_MAX);
    }
    if (most_room(cache, count) < count) {
        return refuse(cache, count, error);
    }
    pgd_cache_release_windows(cache);
    const uint64_t end_position = cache->position + count;
    pgd_cache_settle(cache, end_position);
    for (;;) {
        const bool must_free = !fits_now(cache, count);
        if (must_free && make_frames(cache, count, end_position)) {
            continue;
        }
        /* Spilling first asks for more than it keeps: the policy's own wish to drop something waits until it must. */
        if (cache->on_full == PAGODA_ON_FULL_STOP || (cache->on_full == PAGODA_ON_FULL_SPILL && !must_free)) {
            break;
        }
        const uint32_t victim = choose_dropped(cache, end_position, must_free);
        if (victim == PGD_POLICY_NOBODY) {
            break; /* with several frame classes there may still be no room, when slabs do not pack */
        }
        evict(cache, victim);
    }
    if (!fits_now(cache, count)) {
        return refuse(cache, count, error);
    }
    if (cache->on_full == PAGODA_ON_FULL_SPILL) {
        pgd_spill_write_behind(cache, count);
    }
    return PAGODA_OK;
}
