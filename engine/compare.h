/* engine/compare.h - the same text through an exact cache and through tested ones, in lockstep.
 *
 * Teacher-forced: each cache reads the true tokens, whatever it would have said itself, in small steps, so that
 * policies and codecs act while the text is read as they do in a chat. All caches take the same steps, since
 * what a model computes depends, in the last bits, on how tokens were batched; so a tested cache that holds
 * everything exactly gives a KLD of exactly 0.
 *
 * Threads: the thread that owns the bridges.
 */
#ifndef PGD_ENGINE_COMPARE_H
#define PGD_ENGINE_COMPARE_H

#include <signal.h>
#include <stddef.h>

#include "engine/bridge.h"
#include "engine/tally.h"

struct pgd_contender {
    struct pgd_bridge *bridge;
    struct pgd_tally *tally;
};

struct pgd_compare_options {
    uint32_t step;   /* most tokens of one step; every bridge was opened for as many rows of logits */
    uint64_t decode; /* 0: all tokens count, and are read `step` at a time. Else only the last so many count, and are
                      * predicted from single tokens, as in a reply; what is before is read in large chunks */
    void (*progress)(void *user, uint64_t done, uint64_t count); /* may be NULL */
    void *user;
    const volatile sig_atomic_t *cancel; /* may be NULL */
};

/* Whether something of the text is not there as exact rows: dropped, quantized or spilled. */
bool pgd_compare_has_acted(struct pgd_bridge *bridge);

/* Empties all caches, reads one document of at least 2 tokens, and adds an observation for each token but the
 * first, or for the last `decode`, to each contender's tally. After a failure the tallies hold what was measured up to
 * there. Errors: those of pgd_bridge_decode, CANCELLED when *cancel is set between steps, MISMATCH when the reference
 * has not stayed exact, INVALID when `decode` is not less than the document's tokens. */
PAGODA_MUST_CHECK enum pagoda_status pgd_compare_document(struct pgd_bridge *reference,
                                                          const struct pgd_contender *contenders,
                                                          size_t contender_count, const int32_t *tokens, uint64_t count,
                                                          const struct pgd_compare_options *options,
                                                          struct pagoda_error *error);

#endif
