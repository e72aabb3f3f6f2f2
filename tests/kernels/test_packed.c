/* Packed blocks: codes keep their error bound, every level gives the reference's bytes, and the reference gives what
 * attention over the decoded rows gives in double precision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/packed.h"
#include "kernels/problem.h"

static const uint32_t sizes[] = {64, 80, 96, 112, 128, 256, 1, 7, 33, 2, 20, 34, 15, 16, 17, 48, 192, 576, 1024};
static const uint32_t bit_counts[] = {4, 5, 6, 8};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])
#define BIT_COUNTS (sizeof bit_counts / sizeof bit_counts[0])

/* One chunk, its rows, and the packed form of both. */
struct packed_problem {
    struct pgd_attend_shape shape;
    struct pgd_packed_layout layout;
    struct pgd_packed_chunk chunk;
    struct pgd_packed_rows rows;
    float *queries; /* [rows][key_size] */
    float *keys;    /* [blocks * 16][key_size], as they were before packing */
    float *values;
    struct guarded blocks[PGD_CHUNK_BLOCKS], high, low, unit, sum, first, end;
};

static void fill_normal(struct test_rng *rng, float *numbers, size_t count, enum numbers kind)
{
    for (size_t i = 0; i < count; i++) {
        numbers[i] = test_rng_normal(rng);
        if (kind == SPECIAL && test_rng_below(rng, 3000) == 0) {
            static const float specials[] = {NAN, INFINITY, -INFINITY, 1e-40f, -0.0f, 3e4f, 0.0f};
            numbers[i] = specials[test_rng_below(rng, sizeof specials / sizeof specials[0])];
        }
    }
}

static float *floats(size_t count)
{
    float *numbers = calloc(count + 1, sizeof(*numbers));
    CHECK(numbers != NULL);
    return numbers;
}

static struct packed_problem open_problem(struct test_rng *rng, uint32_t key_size, uint32_t value_size,
                                          uint32_t key_bits, uint32_t value_bits, uint32_t rows, uint32_t blocks,
                                          enum numbers kind)
{
    struct packed_problem p = {
        .shape = {key_size, value_size, 1.0f / sqrtf((float) key_size), 0},
        .layout = pgd_packed_layout(key_size, value_size, key_bits, value_bits),
        .rows = {.count = rows, .tiles = (key_size + 3) / 4},
        .queries = floats((size_t) rows * key_size),
        .keys = floats((size_t) blocks * PGD_LANES * key_size),
        .values = floats((size_t) blocks * PGD_LANES * value_size),
    };
    if (test_rng_below(rng, 4) == 0) {
        p.shape.softcap = test_rng_float(rng, 0.5f, 60.0f);
    }
    p.chunk.block_count = blocks;
    fill_normal(rng, p.queries, (size_t) rows * key_size, kind);
    fill_normal(rng, p.keys, (size_t) blocks * PGD_LANES * key_size, kind);
    fill_normal(rng, p.values, (size_t) blocks * PGD_LANES * value_size, kind);
    for (uint32_t b = 0; b < blocks; b++) {
        p.blocks[b] = guarded_open(p.layout.bytes, 32);
        pgd_packed_encode(&p.layout, key_size, value_size, p.keys + (size_t) b * PGD_LANES * key_size,
                          p.values + (size_t) b * PGD_LANES * value_size, p.blocks[b].data);
        p.chunk.blocks[b] = p.blocks[b].data;
    }
    const size_t words = (size_t) rows * p.rows.tiles;
    p.high = guarded_open(words * sizeof(int32_t), sizeof(int32_t));
    p.low = guarded_open(words * sizeof(int32_t), sizeof(int32_t));
    p.unit = guarded_open(rows * sizeof(float), sizeof(float));
    p.sum = guarded_open(rows * sizeof(int32_t), sizeof(int32_t));
    p.first = guarded_open(rows * sizeof(uint32_t), sizeof(uint32_t));
    p.end = guarded_open(rows * sizeof(uint32_t), sizeof(uint32_t));
    p.rows.high = (int32_t *) (void *) p.high.data;
    p.rows.low = (int32_t *) (void *) p.low.data;
    p.rows.unit = (float *) (void *) p.unit.data;
    p.rows.sum = (int32_t *) (void *) p.sum.data;
    uint32_t *first = (uint32_t *) (void *) p.first.data;
    uint32_t *end = (uint32_t *) (void *) p.end.data;
    for (uint32_t r = 0; r < rows; r++) {
        draw_range(rng, blocks * PGD_LANES, &first[r], &end[r]);
        pgd_packed_query(key_size, p.queries + (size_t) r * key_size, &p.rows, r);
    }
    p.rows.first = first;
    p.rows.end = end;
    return p;
}

static void close_problem(struct packed_problem *p)
{
    for (uint32_t b = 0; b < p->chunk.block_count; b++) {
        guarded_close(&p->blocks[b]);
    }
    guarded_close(&p->high);
    guarded_close(&p->low);
    guarded_close(&p->unit);
    guarded_close(&p->sum);
    guarded_close(&p->first);
    guarded_close(&p->end);
    free(p->queries);
    free(p->keys);
    free(p->values);
}

static void attend(const struct pgd_kernels *kernels, struct packed_problem *p, struct result *result)
{
    p->chunk.layout = &p->layout;
    struct guarded scratch = guarded_open(pgd_kernels_scratch_floats(&p->shape, p->rows.count) * sizeof(float), 64);
    kernels->attend_chunk_packed(&p->shape, &p->chunk, &p->rows, (float *) (void *) scratch.data, &result->partial);
    guarded_close(&scratch);
}

static void compare_levels(struct packed_problem *p)
{
    const uint32_t rows = p->rows.count;
    struct result wanted = result_open(rows, p->shape.value_size);
    attend(pgd_kernels_select("ref"), p, &wanted);
    const struct pgd_kernels *kernels;
    for (uint32_t i = 1; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        struct result got = result_open(rows, p->shape.value_size);
        attend(kernels, p, &got);
        if (!same_results(&wanted, &got, rows, p->shape.value_size)) {
            printf("%s differs: keys of %u in %u bits, values of %u in %u bits, %u rows, %u blocks\n", kernels->name,
                   p->shape.key_size, p->layout.key_bits, p->shape.value_size, p->layout.value_bits, rows,
                   p->chunk.block_count);
        }
        CHECK(same_results(&wanted, &got, rows, p->shape.value_size));
        result_close(&got);
    }
    result_close(&wanted);
}

static void compare_random(struct test_rng *rng, uint32_t key_size, uint32_t value_size, uint32_t rows,
                           enum numbers kind)
{
    const uint32_t blocks = 1 + (uint32_t) test_rng_below(rng, PGD_CHUNK_BLOCKS);
    const uint32_t key_bits = bit_counts[test_rng_below(rng, BIT_COUNTS)];
    const uint32_t value_bits = bit_counts[test_rng_below(rng, BIT_COUNTS)];
    struct packed_problem p = open_problem(rng, key_size, value_size, key_bits, value_bits, rows, blocks, kind);
    compare_levels(&p);
    close_problem(&p);
}

TEST(levels_agree_for_every_size_and_width)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        for (size_t k = 0; k < BIT_COUNTS; k++) {
            for (size_t v = 0; v < BIT_COUNTS; v++) {
                const uint32_t rows = 1 + (uint32_t) test_rng_below(&rng, 8);
                struct packed_problem p =
                    open_problem(&rng, sizes[i], sizes[i], bit_counts[k], bit_counts[v], rows, 2, USUAL);
                compare_levels(&p);
                close_problem(&p);
            }
        }
    }
}

TEST(levels_agree_with_few_and_many_rows)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t rows = 1; rows <= 20; rows++) {
        compare_random(&rng, 64, 64, rows, USUAL);
        compare_random(&rng, 256, 256, rows, USUAL);
    }
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        compare_random(&rng, sizes[i], sizes[test_rng_below(&rng, SIZE_COUNT)], 96, USUAL);
    }
}

TEST(levels_agree_on_numbers_that_are_none)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 200; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, SIZE_COUNT)];
        compare_random(&rng, size, size, 1 + (uint32_t) test_rng_below(&rng, 12), SPECIAL);
    }
}

TEST(a_row_does_not_depend_on_its_neighbours)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 20; trial++) {
        struct packed_problem p = open_problem(&rng, 64, 64, 8, 5, 24, PGD_CHUNK_BLOCKS, USUAL);
        const struct pgd_kernels *kernels = pgd_kernels_select(NULL);
        struct result together = result_open(24, 64);
        attend(kernels, &p, &together);
        for (uint32_t r = 0; r < 24; r++) {
            struct packed_problem one = p;
            one.rows.count = 1;
            one.rows.high += (size_t) r * p.rows.tiles;
            one.rows.low += (size_t) r * p.rows.tiles;
            one.rows.unit += r;
            one.rows.sum += r;
            one.rows.first += r;
            one.rows.end += r;
            struct result alone = result_open(1, 64);
            attend(kernels, &one, &alone);
            CHECK(same_floats(alone.partial.max, together.partial.max + r, 1));
            CHECK(same_floats(alone.partial.sum, together.partial.sum + r, 1));
            CHECK(same_floats(alone.partial.out, together.partial.out + (size_t) r * 64, 64));
            result_close(&alone);
        }
        result_close(&together);
        close_problem(&p);
    }
}

/* A number comes back within its row's scale, whatever the width; and encoding what came back changes nothing. */
static void check_bound(struct test_rng *rng, uint32_t size, uint32_t bits)
{
    const struct pgd_packed_layout layout = pgd_packed_layout(size, size, bits, bits);
    const size_t count = (size_t) size * PGD_LANES;
    float *keys = floats(count);
    float *values = floats(count);
    float *keys_back = floats(count);
    float *values_back = floats(count);
    struct guarded block = guarded_open(layout.bytes, 32);
    fill_normal(rng, keys, count, USUAL);
    fill_normal(rng, values, count, USUAL);
    pgd_packed_encode(&layout, size, size, keys, values, block.data);
    pgd_packed_decode(&layout, size, size, block.data, keys_back, values_back);
    const float levels = (float) ((1u << bits) - 1u);
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        float most[2] = {0, 0};
        for (uint32_t d = 0; d < size; d++) {
            most[0] = fmaxf(most[0], fabsf(keys[(size_t) lane * size + d]));
            most[1] = fmaxf(most[1], fabsf(values[(size_t) lane * size + d]));
        }
        for (uint32_t d = 0; d < size; d++) {
            const size_t at = (size_t) lane * size + d;
            /* One step to a side, and the scale's own rounding to f16 at the far end. */
            CHECK_NEAR(keys[at], keys_back[at], most[0] / levels * 1.001f + most[0] * 0x1p-11f);
            CHECK_NEAR(values[at], values_back[at], most[1] / levels * 1.001f + most[1] * 0x1p-11f);
        }
    }
    guarded_close(&block);
    free(keys);
    free(values);
    free(keys_back);
    free(values_back);
}

TEST(numbers_come_back_within_their_bound)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        for (size_t b = 0; b < BIT_COUNTS; b++) {
            check_bound(&rng, sizes[i], bit_counts[b]);
        }
    }
}

TEST(blocks_are_as_small_as_they_should_be)
{
    CHECK_EQ_INT(pgd_packed_layout(64, 64, 8, 8).bytes, 16 * (64 + 64 + 4));
    CHECK_EQ_INT(pgd_packed_layout(64, 64, 8, 5).bytes, 16 * (64 + 40 + 4));
    CHECK_EQ_INT(pgd_packed_layout(64, 64, 6, 4).bytes, 16 * (48 + 32 + 4));
    CHECK_EQ_INT(pgd_packed_layout(256, 256, 5, 4).bytes, 16 * (160 + 128 + 4));
}

TEST(the_transform_is_its_own_inverse_and_keeps_lengths)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        float *row = floats(sizes[i]);
        float *back = floats(sizes[i]);
        fill_normal(&rng, row, sizes[i], USUAL);
        double before = 0;
        double after = 0;
        for (uint32_t d = 0; d < sizes[i]; d++) {
            back[d] = row[d];
            before += (double) row[d] * row[d];
        }
        pgd_hadamard(sizes[i], back);
        for (uint32_t d = 0; d < sizes[i]; d++) {
            after += (double) back[d] * back[d];
        }
        CHECK_NEAR(before, after, 1e-4 * before);
        pgd_hadamard(sizes[i], back);
        for (uint32_t d = 0; d < sizes[i]; d++) {
            CHECK_NEAR(row[d], back[d], 1e-5);
        }
        free(row);
        free(back);
    }
}

/* Attention of row `row` over what the blocks decode to, in double precision. */
static void attend_exactly(const struct packed_problem *p, uint32_t row, double *out)
{
    const uint32_t lanes = p->chunk.block_count * PGD_LANES;
    float *keys = floats((size_t) lanes * p->shape.key_size);
    float *values = floats((size_t) lanes * p->shape.value_size);
    double weight[PGD_CHUNK_TOKENS];
    double max = -INFINITY;
    double sum = 0;
    for (uint32_t b = 0; b < p->chunk.block_count; b++) {
        pgd_packed_decode(&p->layout, p->shape.key_size, p->shape.value_size, p->chunk.blocks[b],
                          keys + (size_t) b * PGD_LANES * p->shape.key_size,
                          values + (size_t) b * PGD_LANES * p->shape.value_size);
    }
    for (uint32_t lane = p->rows.first[row]; lane < p->rows.end[row]; lane++) {
        double score = 0;
        for (uint32_t d = 0; d < p->shape.key_size; d++) {
            score +=
                (double) p->queries[(size_t) row * p->shape.key_size + d] * keys[(size_t) lane * p->shape.key_size + d];
        }
        score *= p->shape.scale;
        weight[lane] = p->shape.softcap == 0 ? score : p->shape.softcap * tanh(score / p->shape.softcap);
        max = weight[lane] > max ? weight[lane] : max;
    }
    for (uint32_t d = 0; d < p->shape.value_size; d++) {
        out[d] = 0;
    }
    for (uint32_t lane = p->rows.first[row]; lane < p->rows.end[row]; lane++) {
        weight[lane] = exp(weight[lane] - max);
        sum += weight[lane];
        for (uint32_t d = 0; d < p->shape.value_size; d++) {
            out[d] += weight[lane] * values[(size_t) lane * p->shape.value_size + d];
        }
    }
    for (uint32_t d = 0; d < p->shape.value_size; d++) {
        out[d] /= sum;
    }
    free(keys);
    free(values);
}

TEST(the_reference_is_attention_over_the_decoded_rows)
{
    struct test_rng rng = test_rng(test_seed());
    double out[256];
    for (uint32_t trial = 0; trial < 60; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 6)];
        struct packed_problem p = open_problem(&rng, size, size, bit_counts[test_rng_below(&rng, BIT_COUNTS)],
                                               bit_counts[test_rng_below(&rng, BIT_COUNTS)], 4, 16, USUAL);
        struct result got = result_open(4, size);
        attend(pgd_kernels_select("ref"), &p, &got);
        for (uint32_t r = 0; r < 4; r++) {
            if (p.rows.first[r] >= p.rows.end[r]) {
                CHECK(got.partial.max[r] == -INFINITY && got.partial.sum[r] == 0);
                continue;
            }
            attend_exactly(&p, r, out);
            for (uint32_t d = 0; d < size; d++) {
                /* Queries keep 13 bits and weights 14; numbers are about 1. */
                CHECK_NEAR(got.partial.out[(size_t) r * size + d] / got.partial.sum[r], out[d], 2e-3);
            }
        }
        result_close(&got);
        close_problem(&p);
    }
}
