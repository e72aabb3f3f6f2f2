/* cli/bandwidth.h - how fast this machine reads memory: the limit of decoding, since every token reads all weights and
 * all keys and values once.
 *
 * A sum over a buffer that is far larger than the caches, by as many threads as will decode, each over a part of its
 * own from the first byte to the last; the median of several passes.
 *
 * Threads: starts its own, and joins them.
 */
#ifndef PGD_CLI_BANDWIDTH_H
#define PGD_CLI_BANDWIDTH_H

#include <stdint.h>

#include "base/check.h"

struct pgd_bandwidth {
    uint64_t buffer_bytes;
    uint64_t cache_bytes; /* of the largest cache; 0: unknown */
    double gb_per_s;      /* 10^9 bytes a second; 0: not measured */
};

/* The buffer has four times the bytes of the largest cache, at least 512 MiB, but no more than a quarter of the memory
 * that is available. Errors: NOMEM (also for threads). */
PGD_MUST_CHECK enum pagoda_status pgd_bandwidth_measure(uint32_t threads, struct pgd_bandwidth *bandwidth,
                                                        struct pagoda_error *error);

#endif
