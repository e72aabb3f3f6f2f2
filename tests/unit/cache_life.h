/* unit/cache_life.h - one cache beside its twin, from begin to end, for tests of pages that change their codec.
 *
 * Ownership: a life owns its cache, twin and rows. Threads: the test's.
 */
#ifndef PAGODA_TESTS_UNIT_CACHE_LIFE_H
#define PAGODA_TESTS_UNIT_CACHE_LIFE_H

#include "unit/cache_twin.h"

#define ROUNDING 4e-3 /* queries keep 13 bits and weights 14; numbers are up to 2 */

struct life {
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache;
    struct twin *twin;
    struct fill *fill;
    uint64_t shrunk;  /* budgets that took something away, and ... */
    uint64_t refused; /* ... that were refused, where a test counts them */
};

static inline void begin_life(struct life *life, uint64_t seed)
{
    memset(life, 0, sizeof(*life));
    fill_layers(life->layers);
    fill_options(&life->options, life->layers);
    life->twin = new_twin();
    life->fill = new_fill(seed);
}

static inline void open_cache(struct life *life)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pagoda_cache_open(&life->options, &life->cache, &error);
    const bool in_steps = life->options.codec == PAGODA_CODEC_F16 && life->options.codec_tight > PAGODA_CODEC_K8V4;
    life->twin->middle = in_steps ? PAGODA_CODEC_K8V4 : life->options.codec;
    CHECK_STR(status == PAGODA_OK ? "" : error.message, "");
}

static inline void end_life(struct life *life)
{
    pagoda_cache_close(life->cache);
    free(life->twin);
    free(life->fill);
}

static inline struct pagoda_memory memory_of(const struct life *life)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(life->cache, &memory);
    return memory;
}

static inline struct pagoda_account account_of(const struct life *life)
{
    struct pagoda_account account;
    pagoda_cache_account(life->cache, &account);
    return account;
}

#endif
