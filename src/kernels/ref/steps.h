/* kernels/ref/steps.h - the steps that both kinds of blocks share in the reference (steps 2 to 5 of kernels.h). */
#ifndef PGD_KERNELS_REF_STEPS_H
#define PGD_KERNELS_REF_STEPS_H

#include "kernels/kernels.h"

struct pgd_packed_chunk;
struct pgd_packed_rows;
struct pgd_digest_pages;
struct pgd_digest_scores;

/* Whole number d of a row. */
int32_t pgd_ref_packed_number(const struct pgd_packed_rows *rows, uint32_t row, uint32_t d);

/* Step 2. */
float pgd_ref_scaled(const struct pgd_attend_shape *shape, float score);

/* Steps 3 to 5 for lanes [first, end): scores become weights. */
void pgd_ref_softmax(uint32_t first, uint32_t end, float *scores, float *max, float *sum);

/* What every block has of the sum, of weights as pgd_ref_softmax leaves them; blocks may be NULL. */
void pgd_ref_sum_blocks(uint32_t first, uint32_t end, const float *weights, float *blocks);

/* Step 5's tree; overwrites `lanes`. */
float pgd_ref_tree_sum(float lanes[PGD_LANES]);

void pgd_ref_attend_chunk_packed(const struct pgd_attend_shape *shape, const struct pgd_packed_chunk *chunk,
                                 const struct pgd_packed_rows *rows, float *scratch, const struct pgd_partial *partial);

void pgd_ref_score_digests(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages,
                           const struct pgd_packed_rows *rows, float *scratch, const struct pgd_digest_scores *scores);
void pgd_ref_blend_digests(const struct pgd_attend_shape *shape, uint32_t count, const uint8_t *const *digests,
                           uint32_t rows, const float *weights, const struct pgd_digest_scores *scores, float *out);

#endif
