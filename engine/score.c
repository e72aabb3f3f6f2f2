/* engine/score.c - see score.h. */
#include "engine/score.h"

#include <math.h>

/* log of the sum of exponentials, safe from overflow. */
static double log_sum_exp(const float *logits, uint32_t count)
{
    double max = logits[0];
    for (uint32_t i = 1; i < count; i++) {
        max = fmax(max, logits[i]);
    }
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += exp(logits[i] - max);
    }
    return max + log(sum);
}

double pgd_score_nll(const float *logits, uint32_t count, int32_t token)
{
    return log_sum_exp(logits, count) - logits[token];
}

double pgd_score_kld(const float *p, const float *q, uint32_t count)
{
    const double p_log = log_sum_exp(p, count);
    const double q_log = log_sum_exp(q, count);
    double kld = 0;
    for (uint32_t i = 0; i < count; i++) {
        const double log_p = p[i] - p_log;
        kld += exp(log_p) * (log_p - (q[i] - q_log));
    }
    return kld;
}

int32_t pgd_score_top(const float *logits, uint32_t count)
{
    uint32_t top = 0;
    for (uint32_t i = 1; i < count; i++) {
        top = logits[i] > logits[top] ? i : top;
    }
    return (int32_t) top;
}
