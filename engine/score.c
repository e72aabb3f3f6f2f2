/* engine/score.c - see score.h. */
#include "engine/score.h"

#include <math.h>

struct pgd_score_row pgd_score_row(const float *logits, uint32_t count)
{
    const double max = logits[pgd_score_top(logits, count)];
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += exp(logits[i] - max);
    }
    return (struct pgd_score_row) {logits, count, max + log(sum)};
}

double pgd_score_nll(const struct pgd_score_row *row, int32_t token)
{
    return row->log_sum_exp - row->logits[token];
}

double pgd_score_kld(const struct pgd_score_row *p, const struct pgd_score_row *q)
{
    double kld = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        const double log_p = p->logits[i] - p->log_sum_exp;
        kld += exp(log_p) * (log_p - (q->logits[i] - q->log_sum_exp));
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
