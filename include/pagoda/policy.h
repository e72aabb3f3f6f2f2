/* pagoda/policy.h - what happens when the budget is full, and who leaves.
 *
 * A policy only chooses among pages that may leave: pinned pages never do, and neither does the
 * page that is being written.
 */
#ifndef PAGODA_POLICY_H
#define PAGODA_POLICY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pagoda_on_full {
    PAGODA_ON_FULL_STOP = 0, /* refuse the next token with PAGODA_FULL */
    PAGODA_ON_FULL_EVICT,    /* let the policy drop pages */
    PAGODA_ON_FULL_SPILL     /* move pages to flash; when that is full too: enum pagoda_on_flash_full */
};

enum pagoda_policy_kind {
    PAGODA_POLICY_FIFO = 0, /* the oldest page that is not pinned */
    PAGODA_POLICY_WINDOW,   /* only the last `window_tokens` tokens stay, even when there is room */
    PAGODA_POLICY_SINK,     /* the first `sink_tokens` stay too (StreamingLLM, Xiao et al. 2023, arXiv 2309.17453) */
    PAGODA_POLICY_RANDOM    /* the first `sink_tokens` and the latest 128 stay, of the others whoever draws the lot: a
                             * yardstick for all that choose better */
};

/* Zero-initialise, then set what matters. */
struct pagoda_policy {
    enum pagoda_policy_kind kind;
    uint64_t window_tokens; /* window and sink: how many of the latest tokens stay; 0: as many as fit */
    uint64_t sink_tokens;   /* sink and random: how many of the first tokens stay; 0: the default, 4 */
};

#ifdef __cplusplus
}
#endif
#endif
