/* policy/policy.c - fifo, window, sink and random.
 *
 * The first three look at the same candidate, the first block that may leave. Blocks are in token order, so
 * if that one still has a token in the window, every later one has too: nothing else need be looked at.
 * The kinds differ in who may leave, and in whether somebody has to leave while there is room.
 */
#include "policy/policy.h"

#include <stddef.h>

#include "base/number.h"
#include "base/status.h"

const char *pgd_policy_name(enum pagoda_policy_kind kind)
{
    switch (kind) {
    case PAGODA_POLICY_FIFO: return "fifo";
    case PAGODA_POLICY_WINDOW: return "window";
    case PAGODA_POLICY_SINK: return "sink";
    case PAGODA_POLICY_RANDOM: return "random";
    }
    return NULL;
}

enum pagoda_status pgd_policy_validate(const struct pagoda_policy *policy, struct pagoda_error *error)
{
    if (pgd_policy_name(policy->kind) == NULL) {
        return pgd_fail(error, PAGODA_INVALID,
                        "There is no policy number %d; fifo, window, sink and random are 0 to 3.", (int) policy->kind);
    }
    return PAGODA_OK;
}

static uint64_t sink_tokens_of(const struct pagoda_policy *policy)
{
    if (policy->kind != PAGODA_POLICY_SINK && policy->kind != PAGODA_POLICY_RANDOM) {
        return 0;
    }
    return policy->sink_tokens != 0 ? policy->sink_tokens : PGD_POLICY_SINK_TOKENS_DEFAULT;
}

bool pgd_policy_may_leave(const struct pagoda_policy *policy, const struct pgd_policy_block *block)
{
    return !block->pinned && !block->open && block->first >= sink_tokens_of(policy);
}

/* Whether none of a block's tokens is among the last `tokens` before the end. */
static bool ends_before(const struct pgd_policy_block *block, uint64_t tokens, uint64_t end_position)
{
    const uint64_t start = end_position - pgd_min_u64(end_position, tokens);
    uint64_t block_end;
    return pgd_add_u64(block->first, block->count, &block_end) && block_end <= start;
}

/* Whether this block has to leave even though there is room: none of its tokens is in the window. */
static bool has_left_window(const struct pagoda_policy *policy, const struct pgd_policy_block *block,
                            uint64_t end_position)
{
    return policy->kind != PAGODA_POLICY_FIFO && policy->window_tokens != 0 &&
           ends_before(block, policy->window_tokens, end_position);
}

static uint32_t choose_by_lot(const struct pagoda_policy *policy, const struct pgd_policy_view *view)
{
    uint32_t first = PGD_POLICY_NOBODY;
    uint32_t best = PGD_POLICY_NOBODY;
    uint64_t best_lot = 0;
    for (uint32_t i = 0; view->must_free && i < view->block_count; i++) {
        struct pgd_policy_block block;
        view->at(view->user, i, &block);
        if (!pgd_policy_may_leave(policy, &block)) {
            continue;
        }
        first = first == PGD_POLICY_NOBODY ? i : first;
        const uint64_t lot = pgd_scatter_u64(block.first);
        if (ends_before(&block, PGD_POLICY_RANDOM_RECENT, view->end_position) &&
            (best == PGD_POLICY_NOBODY || lot < best_lot)) {
            best = i;
            best_lot = lot;
        }
    }
    return best != PGD_POLICY_NOBODY ? best : first;
}

uint32_t pgd_policy_choose(const struct pagoda_policy *policy, const struct pgd_policy_view *view)
{
    PGD_ASSERT(view->block_count < PGD_POLICY_NOBODY);
    if (policy->kind == PAGODA_POLICY_RANDOM) {
        return choose_by_lot(policy, view);
    }
    for (uint32_t i = 0; i < view->block_count; i++) {
        struct pgd_policy_block block;
        view->at(view->user, i, &block);
        PGD_ASSERT(!block.open || i + 1 == view->block_count);
        if (!pgd_policy_may_leave(policy, &block)) {
            continue;
        }
        if (view->must_free || has_left_window(policy, &block, view->end_position)) {
            PGD_ASSERT(!block.pinned && !block.open);
            return i;
        }
        return PGD_POLICY_NOBODY;
    }
    return PGD_POLICY_NOBODY;
}
