/* kernels/ref/digest.c - the specification of digest.h in plain C, one operation at a time. */
#include "kernels/digest.h"

#include <math.h>
#include <string.h>

#include "kernels/logarithm.h"
#include "kernels/packed.h"
#include "kernels/ref/steps.h"

/* The whole numbers of a_t and b_t. */
static float along(const uint8_t *codes, uint32_t line, uint32_t t)
{
    return (float) (2 * (codes[t] >> 4 * line & 15) - 15);
}

/* Step 1 for a vector of `planes` planes. */
static float dot(uint32_t key_size, const struct pgd_packed_rows *rows, uint32_t row, const uint8_t *plane,
                 uint32_t planes, float scale)
{
    const uint32_t plane_bytes = (key_size + 3) / 4;
    int32_t sum = 0;
    for (uint32_t d = 0; d < key_size; d++) {
        int32_t code = 0;
        for (uint32_t p = 0; p < planes; p++) {
            code |= (int32_t) pgd_digest_bits(key_size, plane + (size_t) p * plane_bytes, d) << 2 * p;
        }
        sum += pgd_ref_packed_number(rows, row, d) * code;
    }
    const int32_t raw = 2 * sum - ((1 << 2 * planes) - 1) * rows->sum[row];
    return ((float) raw * rows->unit[row]) * scale;
}

static float logarithm(float x)
{
    float whole = 0.0f;
    if (4.0f < x) {
        x = x * 0.25f;
        whole = 2 * PGD_LN_2;
    }
    if (2.0f < x) {
        x = x * 0.5f;
        whole = whole + PGD_LN_2;
    }
    const float z = (x - 1.0f) / (x + 1.0f);
    const float square = z * z;
    float p = PGD_LN_C5;
    p = fmaf(p, square, PGD_LN_C4);
    p = fmaf(p, square, PGD_LN_C3);
    p = fmaf(p, square, PGD_LN_C2);
    p = fmaf(p, square, PGD_LN_C1);
    p = fmaf(p, square, PGD_LN_C0);
    return fmaf(p, z, whole);
}

static float key_mean(const struct pgd_attend_shape *shape, const uint8_t *digest, const struct pgd_packed_rows *rows,
                      uint32_t row)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(shape->key_size, shape->value_size);
    return dot(shape->key_size, rows, row, digest + layout.key_mean, 3, pgd_digest_scale(digest, PGD_DIGEST_KEY_MEAN));
}

/* Step 2 with the two lines. */
static void score_tokens(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages, uint32_t page,
                         const struct pgd_packed_rows *rows, uint32_t row, float *scores_of)
{
    const uint8_t *digest = pages->digests[page];
    const struct pgd_digest_layout layout = pgd_digest_layout(shape->key_size, shape->value_size);
    const float mean = key_mean(shape, digest, rows, row);
    float lines[PGD_DIGEST_LINES];
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        lines[line] = dot(shape->key_size, rows, row, digest + layout.key_lines + (size_t) line * layout.key_plane, 1,
                          pgd_digest_scale(digest, PGD_DIGEST_KEY_LINE + line));
    }
    for (uint32_t t = 0; t < pages->tokens; t++) {
        const float first = fmaf(along(pages->along[page], 0, t), lines[0], mean);
        scores_of[t] = pgd_ref_scaled(shape, fmaf(along(pages->along[page], 1, t), lines[1], first));
    }
}

/* Step 2 with a detail. */
static void score_tokens_in_detail(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages,
                                   uint32_t page, const struct pgd_packed_rows *rows, uint32_t row, float *scores_of)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(shape->key_size, shape->value_size);
    const uint8_t *detail = pages->details[page];
    const uint8_t *planes = detail + PGD_LANES * sizeof(uint16_t);
    const float mean = key_mean(shape, pages->digests[page], rows, row);
    for (uint32_t t = 0; t < pages->tokens; t++) {
        const uint8_t *own = planes + (size_t) 2 * t * layout.key_plane;
        scores_of[t] =
            pgd_ref_scaled(shape, mean + dot(shape->key_size, rows, row, own, 2, pgd_digest_scale(detail, t)));
    }
}

/* Steps 3 to 6. */
static void sum_tokens(uint32_t tokens, const uint8_t *codes, const float *scores_of,
                       const struct pgd_digest_scores *scores, size_t at)
{
    float max = -INFINITY;
    for (uint32_t t = 0; t < tokens; t++) {
        max = scores_of[t] > max ? scores_of[t] : max;
    }
    max = max + 0.0f;
    float sum = 0.0f;
    float lean[PGD_DIGEST_LINES] = {0.0f};
    for (uint32_t t = 0; t < tokens; t++) {
        const float weight = pgd_ref_exp(scores_of[t] - max);
        sum = sum + weight;
        for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
            lean[line] = fmaf(weight, along(codes, line, t), lean[line]);
        }
    }
    scores->mass[at] = max + logarithm(sum);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        scores->lean[line][at] = lean[line] / sum;
    }
}

void pgd_ref_score_digests(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages,
                           const struct pgd_packed_rows *rows, float *scratch, const struct pgd_digest_scores *scores)
{
    (void) scratch;
    float scores_of[PGD_LANES];
    for (uint32_t row = 0; row < rows->count; row++) {
        for (uint32_t i = 0; i < pages->count; i++) {
            if (pages->details != NULL) {
                score_tokens_in_detail(shape, pages, i, rows, row, scores_of);
            } else {
                score_tokens(shape, pages, i, rows, row, scores_of);
            }
            sum_tokens(pages->tokens, pages->along[i], scores_of, scores, (size_t) row * scores->stride + i);
        }
    }
}

static void blend_page(uint32_t size, const struct pgd_digest_layout *layout, const uint8_t *digest,
                       const float times[1 + PGD_DIGEST_LINES], float *out)
{
    for (uint32_t d = 0; d < size; d++) {
        for (uint32_t part = 0; part < 1 + PGD_DIGEST_LINES; part++) {
            const uint8_t *plane = digest + layout->value_mean + (size_t) part * layout->value_plane;
            out[d] = fmaf(times[part], (float) (2 * (int32_t) pgd_digest_bits(size, plane, d) - 3), out[d]);
        }
    }
}

void pgd_ref_blend_digests(const struct pgd_attend_shape *shape, uint32_t count, const uint8_t *const *digests,
                           uint32_t rows, const float *weights, const struct pgd_digest_scores *scores, float *out)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(shape->key_size, shape->value_size);
    for (size_t d = 0; d < (size_t) rows * shape->value_size; d++) {
        out[d] = out[d] + 0.0f;
    }
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < count; i++) {
            const size_t at = (size_t) row * scores->stride + i;
            if (weights[at] == 0.0f) {
                continue;
            }
            float times[1 + PGD_DIGEST_LINES] = {weights[at] * pgd_digest_scale(digests[i], PGD_DIGEST_VALUE_MEAN)};
            for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
                times[1 + line] =
                    weights[at] * scores->lean[line][at] * pgd_digest_scale(digests[i], PGD_DIGEST_VALUE_LINE + line);
            }
            blend_page(shape->value_size, &layout, digests[i], times, out + (size_t) row * shape->value_size);
        }
    }
}
