/* bench/common/digest_trust.h - how far digests miss, by the rule of src/cache/trust.c: which KV heads get details. */
#ifndef BENCH_COMMON_DIGEST_TRUST_H
#define BENCH_COMMON_DIGEST_TRUST_H

#include "bench/common/digest_methods.h"

/* What earlier tokens have shown of a KV head. Starts as zeros. */
struct digest_trust {
    double tokens;
    double missed; /* sum over tokens: attention that digests took for far less, the most of any query head */
    double weight[ROWS_MAX];
    double log[ROWS_MAX]; /* weighted sums */
};

/* Learns from one token: scores[row][t] are the logarithms of its attention's mass, over `tokens` tokens; those before
 * page `end`, but for the first page, count. `said` is what digests say of the pages. */
void digest_trust_learn(struct digest_trust *trust, const struct head *head, uint32_t tokens, uint32_t end,
                        float *const scores[], const struct answer *said);

/* What is to be added to what the digests say to one query head. */
float digest_trust_lift(const struct digest_trust *trust, uint32_t row);

#endif
