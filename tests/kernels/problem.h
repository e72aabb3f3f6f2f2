/* kernels/problem.h - random inputs for one call of attend_chunk_f16, in guarded buffers. */
#ifndef PAGODA_TESTS_KERNELS_PROBLEM_H
#define PAGODA_TESTS_KERNELS_PROBLEM_H

#include <math.h>

#include "kernels/guarded.h"
#include "kernels/kernels.h"

enum numbers { USUAL, SPECIAL }; /* SPECIAL: also NaN, infinities, denormals, -0, and large ones */

struct problem {
    struct pgd_attend_shape shape;
    struct pgd_chunk_f16 chunk;
    struct pgd_rows rows;
    struct guarded keys[PGD_CHUNK_BLOCKS], values[PGD_CHUNK_BLOCKS], queries, first, end;
};

/* A result, or a running state. */
struct result {
    struct pgd_partial partial;
    struct guarded max, sum, out, blocks;
};

static inline uint16_t number_f16(struct test_rng *rng, enum numbers numbers)
{
    static const uint16_t specials[] = {0x7e00, 0xfe01, 0x7c00, 0xfc00, 0x0001, 0x83ff, 0x8000, 0x0000, 0x7bff, 0xfbff};
    if (numbers == SPECIAL && test_rng_below(rng, 400) == 0) {
        return specials[test_rng_below(rng, sizeof specials / sizeof specials[0])];
    }
    return pgd_f32_to_f16(test_rng_normal(rng));
}

/* Visible lanes of one row: everything, nothing, a prefix, or anything. */
static inline void draw_range(struct test_rng *rng, uint32_t lanes, uint32_t *first, uint32_t *end)
{
    *first = 0;
    *end = lanes;
    switch (test_rng_below(rng, 5)) {
    case 0: break;
    case 1: *end = (uint32_t) test_rng_below(rng, lanes + 1u); break;
    case 2: *first = *end = (uint32_t) test_rng_below(rng, lanes + 1u); break;
    default:
        *first = (uint32_t) test_rng_below(rng, lanes);
        *end = (uint32_t) test_rng_below(rng, lanes + 1u);
        break;
    }
}

static inline struct problem problem_open(struct test_rng *rng, struct pgd_attend_shape shape, uint32_t rows,
                                          uint32_t blocks, enum numbers numbers)
{
    struct problem p = {.shape = shape, .chunk = {.block_count = blocks}, .rows = {.count = rows}};
    const size_t key_count = (size_t) shape.key_size * PGD_LANES;
    const size_t value_count = (size_t) shape.value_size * PGD_LANES;
    for (uint32_t b = 0; b < blocks; b++) {
        p.keys[b] = guarded_open(key_count * sizeof(uint16_t), 64);
        p.values[b] = guarded_open(value_count * sizeof(uint16_t), 64);
        uint16_t *keys = (uint16_t *) (void *) p.keys[b].data;
        uint16_t *values = (uint16_t *) (void *) p.values[b].data;
        for (size_t i = 0; i < key_count; i++) {
            keys[i] = number_f16(rng, numbers);
        }
        for (size_t i = 0; i < value_count; i++) {
            values[i] = number_f16(rng, numbers);
        }
        p.chunk.keys[b] = keys;
        p.chunk.values[b] = values;
    }
    p.queries = guarded_open((size_t) rows * shape.key_size * sizeof(float), sizeof(float));
    p.first = guarded_open(rows * sizeof(uint32_t), sizeof(uint32_t));
    p.end = guarded_open(rows * sizeof(uint32_t), sizeof(uint32_t));
    float *queries = (float *) (void *) p.queries.data;
    uint32_t *first = (uint32_t *) (void *) p.first.data;
    uint32_t *end = (uint32_t *) (void *) p.end.data;
    for (size_t i = 0; i < (size_t) rows * shape.key_size; i++) {
        queries[i] = test_rng_normal(rng);
    }
    for (uint32_t r = 0; r < rows; r++) {
        draw_range(rng, blocks * PGD_LANES, &first[r], &end[r]);
    }
    p.rows.queries = queries;
    p.rows.first = first;
    p.rows.end = end;
    return p;
}

static inline uint32_t *problem_first(struct problem *p)
{
    return (uint32_t *) (void *) p->first.data;
}

static inline uint32_t *problem_end(struct problem *p)
{
    return (uint32_t *) (void *) p->end.data;
}

static inline void problem_close(struct problem *p)
{
    for (uint32_t b = 0; b < p->chunk.block_count; b++) {
        guarded_close(&p->keys[b]);
        guarded_close(&p->values[b]);
    }
    guarded_close(&p->queries);
    guarded_close(&p->first);
    guarded_close(&p->end);
}

static inline struct result result_open(uint32_t rows, uint32_t value_size)
{
    struct result result = {.max = guarded_open(rows * sizeof(float), sizeof(float)),
                            .sum = guarded_open(rows * sizeof(float), sizeof(float)),
                            .out = guarded_open((size_t) rows * value_size * sizeof(float), sizeof(float)),
                            .blocks = guarded_open((size_t) rows * PGD_CHUNK_BLOCKS * sizeof(float), sizeof(float))};
    result.partial.max = (float *) (void *) result.max.data;
    result.partial.sum = (float *) (void *) result.sum.data;
    result.partial.out = (float *) (void *) result.out.data;
    result.partial.blocks = (float *) (void *) result.blocks.data;
    return result;
}

static inline void result_close(struct result *result)
{
    guarded_close(&result->max);
    guarded_close(&result->sum);
    guarded_close(&result->out);
    guarded_close(&result->blocks);
}

/* Rows [row, row + count) of the problem, with scratch of the size that the kernels ask for. */
static inline void attend_rows(const struct pgd_kernels *kernels, const struct problem *p, uint32_t row, uint32_t count,
                               const struct pgd_partial *partial)
{
    struct guarded scratch = guarded_open(pgd_kernels_scratch_floats(&p->shape, count) * sizeof(float), 64);
    const struct pgd_rows rows = {count, p->rows.queries + (size_t) row * p->shape.key_size, p->rows.first + row,
                                  p->rows.end + row};
    const struct pgd_partial part = {partial->max + row, partial->sum + row,
                                     partial->out + (size_t) row * p->shape.value_size,
                                     partial->blocks + (size_t) row * PGD_CHUNK_BLOCKS};
    kernels->attend_chunk_f16(&p->shape, &p->chunk, &rows, (float *) (void *) scratch.data, &part);
    guarded_close(&scratch);
}

/* The same bytes; a NaN may have any payload. */
static inline bool same_floats(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) {
            return false;
        }
    }
    return true;
}

static inline bool same_results(const struct result *a, const struct result *b, uint32_t rows, uint32_t value_size)
{
    return same_floats(a->partial.max, b->partial.max, rows) && same_floats(a->partial.sum, b->partial.sum, rows) &&
           same_floats(a->partial.out, b->partial.out, (size_t) rows * value_size) &&
           same_floats(a->partial.blocks, b->partial.blocks, (size_t) rows * PGD_CHUNK_BLOCKS);
}

#endif
