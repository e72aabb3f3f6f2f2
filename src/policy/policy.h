/* policy/policy.h - who leaves when the budget is full: pure functions, numbers in, decision out.
 *
 * A policy sees the resident blocks of a sequence in token order (a block is one page in every
 * layer: they leave together) and names the next one to leave, or nobody.
 *
 * Invariants
 *   I1  A pinned block and the open (last) block are never named.
 *   I2  The same view gives the same answer: no state, no clock; a lot is a number made of a block's position.
 * Threads: pure.
 */
#ifndef PGD_POLICY_POLICY_H
#define PGD_POLICY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "pagoda/policy.h"

#define PGD_POLICY_NOBODY UINT32_MAX
#define PGD_POLICY_SINK_TOKENS_DEFAULT 4u
#define PGD_POLICY_RANDOM_RECENT 128u

/* What a policy may know of one block. */
struct pgd_policy_block {
    uint64_t first; /* position of its first token */
    uint32_t count; /* tokens in it */
    bool pinned;
    bool open; /* still being written */
};

/* What a policy sees: `at(user, i)` is resident block i of block_count, in token order. */
struct pgd_policy_view {
    uint32_t block_count;
    void (*at)(const void *user, uint32_t index, struct pgd_policy_block *block);
    const void *user;
    uint64_t end_position; /* position after the last token once the coming batch is in */
    bool must_free;        /* true: room is needed now; false: only who has to leave anyway */
};

/* Index of the block that leaves next, or PGD_POLICY_NOBODY.
 *   fifo    must_free: the first that may leave. Else nobody.
 *   window  the first that may leave and has no token among the last window_tokens before end_position;
 *           failing that and must_free: the first that may leave.
 *   sink    as window, but blocks with a token below sink_tokens never leave.
 *   random  must_free: of those that sink lets go and that have no token among the last PGD_POLICY_RANDOM_RECENT before
 *           end_position, the one with the smallest lot; failing that, the first that may leave. Else nobody. Since a
 *           block's lot never changes, what is held is always a fair sample of what was read.
 * window_tokens 0 means that nobody has to leave while there is room. O(block_count). */
PGD_MUST_CHECK uint32_t pgd_policy_choose(const struct pagoda_policy *policy, const struct pgd_policy_view *view);

/* True when `policy` could ever let this block go (not pinned, not open, not a sink). */
bool pgd_policy_may_leave(const struct pagoda_policy *policy, const struct pgd_policy_block *block);

/* PAGODA_INVALID for an unknown kind, else PAGODA_OK. */
PGD_MUST_CHECK enum pagoda_status pgd_policy_validate(const struct pagoda_policy *policy, struct pagoda_error *error);

/* "fifo", "window", "sink", "random"; NULL for an unknown kind. */
const char *pgd_policy_name(enum pagoda_policy_kind kind);

#endif
