/* engine/score.h - comparing distributions over the vocabulary. Pure; natural logarithms; double inside. */
#ifndef PGD_ENGINE_SCORE_H
#define PGD_ENGINE_SCORE_H

#include <stdint.h>

/* -log softmax(logits)[token], in nats. */
double pgd_score_nll(const float *logits, uint32_t count, int32_t token);

/* KL divergence KL(softmax(p) || softmax(q)), in nats. */
double pgd_score_kld(const float *p, const float *q, uint32_t count);

/* Index of the largest logit; the first of several. */
int32_t pgd_score_top(const float *logits, uint32_t count);

#endif
