/* engine/contender.h - one engine in a comparison of speed: pagoda, or a path of the stock library, behind one face.
 *
 * A contender is filled up to a depth, which is not timed, and then runs from that depth as often as wanted: each run
 * is timed and taken back, so that all start from the same place. A contender that goes on does not take decoded tokens
 * back: where pages come from flash, a text that is read again would find its pages in memory.
 *
 * Ownership: the contender owns its engine once opened. Threads: one.
 */
#ifndef PGD_ENGINE_CONTENDER_H
#define PGD_ENGINE_CONTENDER_H

#include "engine/bridge.h"
#include "engine/stock.h"

#define PGD_CONTENDER_BATCH_MAX \
    512u /* a prompt goes in by pieces of at most so many tokens, as is libllama's default */

struct pgd_contender {
    struct pgd_bridge *bridge; /* either this ... */
    struct pgd_stock *stock;   /* ... or this */
    uint64_t position;
    bool goes_on;
};

/* What one decoded token took. */
struct pgd_contender_token {
    double seconds;
    double stalled_seconds; /* of these, for waiting for flash */
    uint64_t flash_bytes;   /* read */
    uint64_t unread;        /* tokens on flash that it did not read */
    uint64_t late_pages;
};

/* Takes the engine over; it is empty. */
struct pgd_contender pgd_contender_of_bridge(struct pgd_bridge *bridge);
struct pgd_contender pgd_contender_of_stock(struct pgd_stock *stock);
void pgd_contender_close(struct pgd_contender *contender);

/* Feeds tokens[position .. depth) and remembers that place. Errors: those of the engine, CANCELLED among them. */
PAGODA_MUST_CHECK enum pagoda_status pgd_contender_fill(struct pgd_contender *contender, const int32_t *tokens,
                                                        uint64_t depth, struct pagoda_error *error);

/* Seconds that tokens[depth .. depth + count) take, as a prompt in the largest pieces (`each` is NULL), or one by one
 * with what each[0 .. count) took. Afterwards the contender is at its depth again, or has gone on, and its threads
 * sleep. Errors: as above. */
PAGODA_MUST_CHECK enum pagoda_status pgd_contender_run(struct pgd_contender *contender, const int32_t *tokens,
                                                       uint64_t count, struct pgd_contender_token *each,
                                                       double *seconds, struct pagoda_error *error);

/* One that goes on begins anew: nothing is in its cache. Errors: those of pagoda_cache_reset. */
PAGODA_MUST_CHECK enum pagoda_status pgd_contender_begin_anew(struct pgd_contender *contender,
                                                              struct pagoda_error *error);

/* Bytes of keys and values in f16 that a token reads which is number `tokens` of its sequence: itself and all before
 * it, as far as windows show them. */
uint64_t pgd_contender_f16_bytes(const struct pgd_bridge *bridge, uint64_t tokens);

/* The same for the pages of `bridge` as they are encoded now, when it has read `more` tokens more, in f16. */
uint64_t pgd_contender_page_bytes(struct pgd_bridge *bridge, uint64_t more);

#endif
