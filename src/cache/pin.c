/* cache/pin.c - pins, and changing the policy. */
#include "base/number.h"
#include "base/status.h"
#include "cache/cache.h"
#include "policy/policy.h"

static bool overlaps(const struct pgd_block *block, uint64_t first, uint64_t count)
{
    return block->first < first + count && first < block->first + block->count;
}

/* Whether one more block would still fit if no block marked `stays` ever left. */
static bool leaves_room(const struct pagoda_cache *cache, uint64_t first, uint64_t count)
{
    uint64_t staying_blocks = 0;
    uint64_t staying_tokens = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        if (block->pinned || overlaps(block, first, count)) {
            staying_blocks++;
            staying_tokens += block->count;
        }
    }
    return staying_blocks < pgd_table_capacity(cache->table) &&
           (staying_blocks + 1) * cache->page_tokens <= pgd_round_up_u64(cache->tokens_capacity, cache->page_tokens) &&
           staying_tokens < cache->tokens_capacity;
}

static enum pagoda_status set_pins(struct pagoda_cache *cache, uint64_t first, uint64_t count, bool pinned,
                                   struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    uint64_t end = 0;
    if (!pgd_add_u64(first, count, &end) || end > cache->position) {
        return pgd_fail(error, PAGODA_RANGE, "the sequence has %llu tokens: %llu from %llu on are not all there",
                        (unsigned long long) cache->position, (unsigned long long) count, (unsigned long long) first);
    }
    if (pinned && !leaves_room(cache, first, count)) {
        return pgd_fail(error, PAGODA_FULL,
                        "pinning these %llu tokens would leave no room for new ones in a budget of %llu tokens",
                        (unsigned long long) count, (unsigned long long) cache->tokens_capacity);
    }
    for (uint32_t index = pgd_table_find(cache->table, first); index < pgd_table_count(cache->table); index++) {
        if (!overlaps(pgd_table_block(cache->table, index), first, count)) {
            break;
        }
        pgd_table_set_pinned(cache->table, index, pinned);
    }
    return PAGODA_OK;
}

enum pagoda_status pagoda_cache_pin(struct pagoda_cache *cache, uint64_t first, uint64_t count,
                                    struct pagoda_error *error)
{
    return set_pins(cache, first, count, true, error);
}

enum pagoda_status pagoda_cache_unpin(struct pagoda_cache *cache, uint64_t first, uint64_t count,
                                      struct pagoda_error *error)
{
    return set_pins(cache, first, count, false, error);
}

enum pagoda_status pagoda_cache_set_policy(struct pagoda_cache *cache, enum pagoda_on_full on_full,
                                           const struct pagoda_policy *policy, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_cache_check_idle(cache, error);
    if (status == PAGODA_OK) {
        status = pgd_policy_validate(policy, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    if ((unsigned) on_full > PAGODA_ON_FULL_SPILL) {
        return pgd_fail(error, PAGODA_INVALID, "unknown rule %d for a full budget", (int) on_full);
    }
    if (on_full == PAGODA_ON_FULL_SPILL && cache->spill == NULL) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "this cache was opened without a flash tier: it cannot spill now");
    }
    cache->on_full = on_full;
    cache->policy = *policy;
    return PAGODA_OK;
}
