/* kernels/ref/packed.c - the specification of packed.h in plain C, one operation at a time. */
#include "kernels/packed.h"

#include <math.h>
#include <string.h>

#include "kernels/exponential.h"
#include "kernels/levels.h"
#include "kernels/ref/steps.h"

int32_t pgd_ref_packed_number(const struct pgd_packed_rows *rows, uint32_t row, uint32_t d)
{
    const size_t word = (size_t) row * rows->tiles + d / 4;
    const uint32_t high = (uint32_t) rows->high[word] >> 8 * (d % 4) & 255u;
    const uint32_t low = (uint32_t) rows->low[word] >> 8 * (d % 4) & 255u;
    return 128 * (high < 128 ? (int32_t) high : (int32_t) high - 256) + (int32_t) low;
}

static float scale_of(const uint8_t *scales, uint32_t lane)
{
    uint16_t half;
    memcpy(&half, scales + lane * sizeof half, sizeof half);
    return pgd_f16_to_f32(half);
}

/* Step 1. */
static float dot(uint32_t key_size, const struct pgd_packed_chunk *chunk, const struct pgd_packed_rows *rows,
                 uint32_t row, uint32_t lane)
{
    const struct pgd_packed_layout *layout = chunk->layout;
    const uint8_t *block = chunk->blocks[lane / PGD_LANES];
    int32_t sum = 0;
    for (uint32_t d = 0; d < key_size; d++) {
        const uint32_t code =
            pgd_packed_code(layout->key_bits, block, block + layout->key_high, d / 4, 4 * (lane % PGD_LANES) + d % 4);
        sum += pgd_ref_packed_number(rows, row, d) * (int32_t) code;
    }
    const int32_t raw = 2 * sum - (int32_t) ((1u << layout->key_bits) - 1u) * rows->sum[row];
    return ((float) raw * rows->unit[row]) * scale_of(block + layout->key_scales, lane % PGD_LANES);
}

/* Step 6: whole weights in place of `weights`; returns what one stands for. */
static float whole_weights(const struct pgd_packed_chunk *chunk, uint32_t first, uint32_t end, const float *weights,
                           int32_t *whole)
{
    const struct pgd_packed_layout *layout = chunk->layout;
    float scaled[PGD_CHUNK_TOKENS];
    float sums[PGD_LANES] = {0};
    float max = 0.0f;
    for (uint32_t lane = first; lane < end; lane++) {
        const uint8_t *block = chunk->blocks[lane / PGD_LANES];
        scaled[lane] = weights[lane] * scale_of(block + layout->value_scales, lane % PGD_LANES);
        max = scaled[lane] > max ? scaled[lane] : max;
        sums[lane % PGD_LANES] = sums[lane % PGD_LANES] + scaled[lane];
    }
    if (!(pgd_ref_tree_sum(sums) < INFINITY)) {
        max = NAN;
    }
    const float factor = max >= PGD_PACKED_WEIGHT_LEAST ? (float) PGD_PACKED_WEIGHT_MAX / max : 0.0f;
    for (uint32_t lane = first; lane < end; lane++) {
        whole[lane] = factor == 0.0f ? 0 : (int32_t) nearbyintf(scaled[lane] * factor);
    }
    return max / (float) PGD_PACKED_WEIGHT_MAX;
}

static void weigh(uint32_t value_size, const struct pgd_packed_chunk *chunk, uint32_t first, uint32_t end,
                  const float *weights, float *out)
{
    const struct pgd_packed_layout *layout = chunk->layout;
    int32_t whole[PGD_CHUNK_TOKENS];
    const float unit = whole_weights(chunk, first, end, weights, whole);
    for (uint32_t d = 0; d < value_size; d++) {
        int32_t sum = 0;
        int32_t all = 0;
        for (uint32_t lane = first; lane < end; lane++) {
            const uint8_t *block = chunk->blocks[lane / PGD_LANES];
            const uint32_t code =
                pgd_packed_code(layout->value_bits, block + layout->value_low, block + layout->value_high,
                                4 * (d / PGD_LANES) + lane % PGD_LANES / 4, 4 * (d % PGD_LANES) + lane % 4);
            sum += whole[lane] * (int32_t) code;
            all += whole[lane];
        }
        out[d] = (float) (2 * sum - (int32_t) ((1u << layout->value_bits) - 1u) * all) * unit;
    }
}

static void attend_row(const struct pgd_attend_shape *shape, const struct pgd_packed_chunk *chunk,
                       const struct pgd_packed_rows *rows, uint32_t row, const struct pgd_partial *partial)
{
    float scores[PGD_CHUNK_TOKENS];
    float *out = partial->out + (size_t) row * shape->value_size;
    const uint32_t first = rows->first[row];
    const uint32_t end = rows->end[row];
    for (uint32_t lane = first; lane < end; lane++) {
        scores[lane] = pgd_ref_scaled(shape, dot(shape->key_size, chunk, rows, row, lane));
    }
    pgd_ref_softmax(first, end, scores, &partial->max[row], &partial->sum[row]);
    pgd_ref_sum_blocks(first, end, scores,
                       partial->blocks == NULL ? NULL : partial->blocks + (size_t) row * PGD_CHUNK_BLOCKS);
    if (first >= end) {
        memset(out, 0, shape->value_size * sizeof *out);
        return;
    }
    weigh(shape->value_size, chunk, first, end, scores, out);
}

void pgd_ref_attend_chunk_packed(const struct pgd_attend_shape *shape, const struct pgd_packed_chunk *chunk,
                                 const struct pgd_packed_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    (void) scratch;
    for (uint32_t row = 0; row < rows->count; row++) {
        attend_row(shape, chunk, rows, row, partial);
    }
}
