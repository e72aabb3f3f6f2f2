/* engine/score.h - comparing distributions over the vocabulary. Pure; natural logarithms; double inside.
 *
 * A row is [count] logits together with its log-sum-exp, which is the costly part and is computed once.
 */
#ifndef PGD_ENGINE_SCORE_H
#define PGD_ENGINE_SCORE_H

#include <stdint.h>

struct pgd_score_row {
    const float *logits;
    uint32_t count;
    double log_sum_exp;
};

struct pgd_score_row pgd_score_row(const float *logits, uint32_t count);

/* -log softmax(row)[token], in nats. */
double pgd_score_nll(const struct pgd_score_row *row, int32_t token);

/* KL divergence KL(softmax(p) || softmax(q)), in nats; both rows have as many logits. */
double pgd_score_kld(const struct pgd_score_row *p, const struct pgd_score_row *q);

/* Index of the largest logit; the first of several. */
int32_t pgd_score_top(const float *logits, uint32_t count);

#endif
