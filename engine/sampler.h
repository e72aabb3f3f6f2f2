/* engine/sampler.h - choosing the next token from logits: libllama's samplers in llama.cpp's order. */
#ifndef PGD_ENGINE_SAMPLER_H
#define PGD_ENGINE_SAMPLER_H

#include <stdint.h>

#include "engine/model.h"

struct pgd_sampler_options {
    float temperature;     /* 0: greedy. Default 0.8, as llama.cpp */
    int32_t top_k;         /* 0: off. Default 40 */
    float top_p;           /* 1: off. Default 0.95 */
    float min_p;           /* 0: off. Default 0.05 */
    float repeat_penalty;  /* 1: off. Default 1 */
    int32_t repeat_last_n; /* tokens it looks back. Default 64 */
    uint32_t seed;
};

struct pgd_sampler;

void pgd_sampler_options_default(struct pgd_sampler_options *options);

/* Errors: INVALID (a value out of range; the message names the flag), NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_sampler_open(const struct pgd_model *model,
                                                      const struct pgd_sampler_options *options,
                                                      struct pgd_sampler **sampler, struct pagoda_error *error);
void pgd_sampler_close(struct pgd_sampler *sampler);

/* Picks a token from [vocabulary] logits and remembers it for the penalties. */
int32_t pgd_sampler_pick(struct pgd_sampler *sampler, const float *logits);

/* Forgets what was picked, and restarts the random numbers from the seed. */
void pgd_sampler_reset(struct pgd_sampler *sampler);

#endif
