/* bench/common/digest_trust.c - see digest_trust.h. */
#include "bench/common/digest_trust.h"

#include <math.h>

#include "kernels/kernels.h"

/* As in src/cache/trust.c, which has the why. */
#define FAR_LESS 0.25
#define LEAST_SHARE (-1.4)
#define LIFT_LEAST (-12.0)
#define LIFT_MOST 1.5f

static double learn_row(struct digest_trust *trust, const struct head *head, uint32_t tokens, uint32_t end,
                        uint32_t row, const float *scores, const float *said)
{
    const uint32_t step = PGD_CHUNK_TOKENS / head->page; /* pages of a chunk */
    const double total = (double) digest_log_sum(tokens, scores);
    double missed = 0;
    double drawn = 0;
    double expected = 0;
    for (uint32_t page = 1; page < end; page += step) {
        const uint32_t pages = end - page < step ? end - page : step;
        const double log_share = digest_log_sum(pages * head->page, scores + (size_t) page * head->page) - total;
        const double log_said = fmin(0, digest_log_sum(pages, said + page) - total);
        if (log_share > LEAST_SHARE) {
            missed += exp(log_said) < exp(log_share) * FAR_LESS ? exp(log_share) : 0;
        } else if (log_share > LIFT_LEAST) {
            drawn += exp(log_share);
            expected += exp(log_said);
        }
    }
    if (drawn > 0 && expected > 0) {
        trust->weight[row] += drawn;
        trust->log[row] += drawn * log(drawn / expected);
    }
    return missed;
}

void digest_trust_learn(struct digest_trust *trust, const struct head *head, uint32_t tokens, uint32_t end,
                        float *const scores[], const struct answer *said)
{
    double most = 0;
    for (uint32_t row = 0; row < head->group; row++) {
        most = fmax(most, learn_row(trust, head, tokens, end, row, scores[row], said->mass[row]));
    }
    trust->missed += most;
    trust->tokens += 1;
}

float digest_trust_lift(const struct digest_trust *trust, uint32_t row)
{
    const float log = trust->weight[row] > 0 ? (float) (trust->log[row] / trust->weight[row]) : 0;
    return fmaxf(-LIFT_MOST, fminf(LIFT_MOST, log));
}
