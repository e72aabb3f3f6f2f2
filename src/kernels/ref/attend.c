/* kernels/ref/attend.c - the specification of kernels.h in plain C, one operation at a time. */
#include <math.h>
#include <string.h>

#include "kernels/exponential.h"
#include "kernels/levels.h"
#include "kernels/ref/steps.h"

/* Step 1. */
static float dot(uint32_t key_size, const float *query, const uint16_t *keys, uint32_t lane)
{
    float even = 0.0f;
    float odd = 0.0f;
    for (uint32_t d = 0; d < key_size; d++) {
        const float key = pgd_f16_to_f32(keys[(size_t) d * PGD_LANES + lane]);
        if (d % 2 == 0) {
            even = fmaf(query[d], key, even);
        } else {
            odd = fmaf(query[d], key, odd);
        }
    }
    return even + odd;
}

float pgd_ref_scaled(const struct pgd_attend_shape *shape, float score)
{
    score = score * shape->scale;
    if (shape->softcap != 0.0f) {
        const float x = score / shape->softcap;
        const float twice = x + x;
        const float e = pgd_ref_exp(twice > PGD_EXP_HIGHEST ? PGD_EXP_HIGHEST : twice);
        score = shape->softcap * (1.0f - 2.0f / (e + 1.0f));
    }
    return score;
}

float pgd_ref_tree_sum(float lanes[PGD_LANES])
{
    for (uint32_t half = PGD_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    return lanes[0];
}

void pgd_ref_softmax(uint32_t first, uint32_t end, float *scores, float *max_out, float *sum_out)
{
    float max = -INFINITY;
    float sums[PGD_LANES] = {0};
    for (uint32_t lane = first; lane < end; lane++) {
        max = scores[lane] > max ? scores[lane] : max;
    }
    max = max + 0.0f;
    for (uint32_t lane = first; lane < end; lane++) {
        scores[lane] = pgd_ref_exp(scores[lane] - max);
        sums[lane % PGD_LANES] = sums[lane % PGD_LANES] + scores[lane];
    }
    *sum_out = pgd_ref_tree_sum(sums);
    *max_out = isnan(*sum_out) ? *sum_out : max;
}

void pgd_ref_sum_blocks(uint32_t first, uint32_t end, const float *weights, float *blocks)
{
    for (uint32_t block = 0; blocks != NULL && block < PGD_CHUNK_BLOCKS; block++) {
        float lanes[PGD_LANES];
        for (uint32_t i = 0; i < PGD_LANES; i++) {
            const uint32_t lane = block * PGD_LANES + i;
            lanes[i] = first <= lane && lane < end ? weights[lane] : 0.0f;
        }
        blocks[block] = pgd_ref_tree_sum(lanes);
    }
}

/* Where the sums of a row's blocks go; NULL: nobody asked. */
static float *blocks_of(const struct pgd_partial *partial, uint32_t row)
{
    return partial->blocks == NULL ? NULL : partial->blocks + (size_t) row * PGD_CHUNK_BLOCKS;
}

static void attend_row(const struct pgd_attend_shape *shape, const struct pgd_chunk_f16 *chunk, const float *query,
                       uint32_t first, uint32_t end, float *scores, float *max, float *sum, float *out, float *blocks)
{
    memset(out, 0, shape->value_size * sizeof *out);
    for (uint32_t lane = first; lane < end; lane++) {
        const float score = dot(shape->key_size, query, chunk->keys[lane / PGD_LANES], lane % PGD_LANES);
        scores[lane] = pgd_ref_scaled(shape, score);
    }
    pgd_ref_softmax(first, end, scores, max, sum);
    pgd_ref_sum_blocks(first, end, scores, blocks);
    for (uint32_t lane = first; lane < end; lane++) {
        const uint16_t *value = chunk->values[lane / PGD_LANES] + (size_t) (lane % PGD_LANES) * shape->value_size;
        for (uint32_t d = 0; d < shape->value_size; d++) {
            out[d] = fmaf(scores[lane], pgd_f16_to_f32(value[d]), out[d]);
        }
    }
}

static void attend_chunk_f16(const struct pgd_attend_shape *shape, const struct pgd_chunk_f16 *chunk,
                             const struct pgd_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    for (uint32_t r = 0; r < rows->count; r++) {
        attend_row(shape, chunk, rows->queries + (size_t) r * shape->key_size, rows->first[r], rows->end[r], scratch,
                   &partial->max[r], &partial->sum[r], partial->out + (size_t) r * shape->value_size,
                   blocks_of(partial, r));
    }
}

static void merge(uint32_t count, uint32_t value_size, const struct pgd_partial *into, const struct pgd_partial *from)
{
    for (uint32_t r = 0; r < count; r++) {
        float *out = into->out + (size_t) r * value_size;
        const float *later = from->out + (size_t) r * value_size;
        if (from->max[r] == -INFINITY) {
            continue;
        }
        if (into->max[r] == -INFINITY) {
            into->max[r] = from->max[r];
            into->sum[r] = from->sum[r];
            memcpy(out, later, value_size * sizeof *out);
            continue;
        }
        const float max = from->max[r] > into->max[r] ? from->max[r] : into->max[r];
        const float a = pgd_ref_exp(into->max[r] - max);
        const float b = pgd_ref_exp(from->max[r] - max);
        const float sum = fmaf(into->sum[r], a, from->sum[r] * b);
        into->max[r] = isnan(sum) ? sum : max;
        into->sum[r] = sum;
        for (uint32_t d = 0; d < value_size; d++) {
            out[d] = fmaf(out[d], a, later[d] * b);
        }
    }
}

static void store_key_f16(uint32_t key_size, const float *row, uint32_t lane, uint16_t *keys)
{
    for (uint32_t d = 0; d < key_size; d++) {
        keys[(size_t) d * PGD_LANES + lane] = pgd_f32_to_f16(row[d]);
    }
}

static void store_value_f16(uint32_t value_size, const float *row, uint32_t lane, uint16_t *values)
{
    for (uint32_t d = 0; d < value_size; d++) {
        values[(size_t) lane * value_size + d] = pgd_f32_to_f16(row[d]);
    }
}

static void store_key_block_f16(uint32_t key_size, const float *rows, size_t row_stride, uint16_t *keys)
{
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        store_key_f16(key_size, rows + lane * row_stride, lane, keys);
    }
}

static void exponentials(uint32_t count, const float *x, float minus, float *out)
{
    for (uint32_t i = 0; i < count; i++) {
        out[i] = pgd_ref_exp(x[i] - minus);
    }
}

const struct pgd_kernels pgd_kernels_ref = {
    .name = "ref",
    .attend_chunk_f16 = attend_chunk_f16,
    .attend_chunk_packed = pgd_ref_attend_chunk_packed,
    .score_digests = pgd_ref_score_digests,
    .blend_digests = pgd_ref_blend_digests,
    .exponentials = exponentials,
    .merge = merge,
    .store_key_f16 = store_key_f16,
    .store_value_f16 = store_value_f16,
    .store_key_block_f16 = store_key_block_f16,
};
