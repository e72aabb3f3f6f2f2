/* engine/generate.h - from tokens to text: chunked prefill and the reply loop.
 *
 * Threads: the thread that owns the bridge; only *cancel may be set from elsewhere (a signal handler).
 */
#ifndef PGD_ENGINE_GENERATE_H
#define PGD_ENGINE_GENERATE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/bridge.h"
#include "engine/sampler.h"

enum pgd_stop { PGD_STOP_EOS, PGD_STOP_LENGTH, PGD_STOP_FULL, PGD_STOP_CANCELLED };

/* "eos", "length", "full", "cancelled": the words of the --json contract. */
const char *pgd_stop_name(enum pgd_stop stop);

/* Reads `count` tokens in chunks as large as the budget lets in, and keeps the logits of the last.
 * `progress` (may be NULL) hears (done, count) after each chunk. Sequence after a failure: what went in
 * before it stays (the caller can see pagoda_cache_position). With a policy that stops, a prompt that
 * does not fit whole is refused with FULL before its first token is read. Errors: those of
 * pgd_bridge_decode, CANCELLED when *cancel is set between chunks. */
struct pgd_feed_options {
    void (*progress)(void *user, uint64_t done, uint64_t count);
    void *user;
    const volatile sig_atomic_t *cancel; /* may be NULL */
};
PAGODA_MUST_CHECK enum pagoda_status pgd_generate_feed(struct pgd_bridge *bridge, const int32_t *tokens, uint64_t count,
                                                       const struct pgd_feed_options *options,
                                                       struct pagoda_error *error);

/* How many of the next `wanted` tokens (at least 1) go in at once: see generate.c. */
uint32_t pgd_generate_chunk(const struct pagoda_cache *cache, uint64_t wanted);

struct pgd_reply_options {
    int64_t tokens_max; /* -n; negative: until the model ends it */
    bool ignore_eos;
    bool special; /* show control tokens */
    /* Whole UTF-8 characters only, in order; false ends the reply as cancelled. Invalid bytes become U+FFFD. */
    bool (*text)(void *user, const char *bytes, size_t count);
    void *user;
    const volatile sig_atomic_t *cancel;
};

struct pgd_reply {
    enum pgd_stop stop;
    uint64_t tokens;            /* generated, the end token not counted */
    double seconds;             /* from the first pick to the end */
    double first_token_seconds; /* from the call to the first token's text */
    struct pagoda_error full;   /* for PGD_STOP_FULL: why */
};

/* Generates a reply after pgd_generate_feed; what it draws on is counted from its start (pagoda_cache_draws). The last
 * picked token is in the sequence too (except an end token). Errors other than FULL and CANCELLED, which are stops, as
 * of pgd_bridge_decode. */
PAGODA_MUST_CHECK enum pagoda_status pgd_generate_reply(struct pgd_bridge *bridge, struct pgd_sampler *sampler,
                                                        const struct pgd_reply_options *options,
                                                        struct pgd_reply *reply, struct pagoda_error *error);

#endif
