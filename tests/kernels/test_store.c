/* Writing tokens into blocks: every level against single conversions of the specification. */
#include <stdio.h>

#include "kernels/problem.h"

static const uint32_t sizes[] = {64, 80, 96, 112, 128, 256, 1, 7, 33, 2, 20, 34, 15, 16, 17, 31, 576, 1024};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])

/* Any bits: NaN, infinities and denormals are as likely as their patterns. */
static float any_float(struct test_rng *rng)
{
    if (test_rng_below(rng, 2) == 0) {
        return test_rng_normal(rng);
    }
    const uint32_t bits = (uint32_t) test_rng_u64(rng);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

struct block {
    uint32_t size;
    size_t stride; /* floats from one row to the next */
    struct guarded rows;
    struct guarded halves;
};

static struct block block_open(struct test_rng *rng, uint32_t size)
{
    struct block block = {.size = size, .stride = size + (size_t) test_rng_below(rng, 40)};
    const size_t floats = (PGD_LANES - 1) * block.stride + size;
    block.rows = guarded_open(floats * sizeof(float), sizeof(float));
    block.halves = guarded_open((size_t) size * PGD_LANES * sizeof(uint16_t), 64);
    for (size_t i = 0; i < floats; i++) {
        ((float *) (void *) block.rows.data)[i] = any_float(rng);
    }
    return block;
}

static void block_close(struct block *block)
{
    guarded_close(&block->rows);
    guarded_close(&block->halves);
}

static const float *row_of(const struct block *block, uint32_t lane)
{
    return (const float *) (const void *) block->rows.data + lane * block->stride;
}

static uint16_t *halves_of(const struct block *block)
{
    return (uint16_t *) (void *) block->halves.data;
}

static void check_keys(const struct block *block)
{
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        for (uint32_t d = 0; d < block->size; d++) {
            CHECK_EQ_INT(halves_of(block)[d * PGD_LANES + lane], pgd_f32_to_f16(row_of(block, lane)[d]));
        }
    }
}

TEST(single_keys)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        for (size_t s = 0; s < SIZE_COUNT; s++) {
            struct block block = block_open(&rng, sizes[s]);
            for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
                kernels->store_key_f16(block.size, row_of(&block, lane), lane, halves_of(&block));
            }
            check_keys(&block);
            block_close(&block);
        }
    }
}

TEST(blocks_of_keys)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        for (size_t s = 0; s < SIZE_COUNT; s++) {
            struct block block = block_open(&rng, sizes[s]);
            kernels->store_key_block_f16(block.size, row_of(&block, 0), block.stride, halves_of(&block));
            check_keys(&block);
            block_close(&block);
        }
    }
}

TEST(values)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        for (size_t s = 0; s < SIZE_COUNT; s++) {
            struct block block = block_open(&rng, sizes[s]);
            for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
                kernels->store_value_f16(block.size, row_of(&block, lane), lane, halves_of(&block));
            }
            for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
                for (uint32_t d = 0; d < block.size; d++) {
                    CHECK_EQ_INT(halves_of(&block)[lane * block.size + d], pgd_f32_to_f16(row_of(&block, lane)[d]));
                }
            }
            block_close(&block);
        }
    }
}

TEST(a_token_is_written_beside_its_neighbours)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        for (size_t s = 0; s < SIZE_COUNT; s++) {
            struct block keys = block_open(&rng, sizes[s]);
            struct block values = block_open(&rng, sizes[s]);
            const uint32_t lane = (uint32_t) test_rng_below(&rng, PGD_LANES);
            kernels->store_key_f16(sizes[s], row_of(&keys, lane), lane, halves_of(&keys));
            kernels->store_value_f16(sizes[s], row_of(&values, lane), lane, halves_of(&values));
            for (uint32_t other = 0; other < PGD_LANES; other++) {
                for (uint32_t d = 0; d < sizes[s] && other != lane; d++) {
                    CHECK_EQ_INT(halves_of(&keys)[d * PGD_LANES + other], CANARY << 8 | CANARY);
                    CHECK_EQ_INT(halves_of(&values)[other * sizes[s] + d], CANARY << 8 | CANARY);
                }
            }
            block_close(&keys);
            block_close(&values);
        }
    }
}

/* Through a block and back through attention: with one key, the output is the value. */
TEST(what_is_stored_is_what_attention_reads)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
            struct problem p = problem_open(&rng, (struct pgd_attend_shape) {64, 80, 1, 0}, 1, 1, USUAL);
            struct result result = result_open(1, 80);
            float key[64] = {0};
            float value[80];
            key[lane] = 3;
            for (uint32_t d = 0; d < 80; d++) {
                value[d] = test_rng_normal(&rng);
            }
            kernels->store_key_f16(64, key, lane, (uint16_t *) (void *) p.keys[0].data);
            kernels->store_value_f16(80, value, lane, (uint16_t *) (void *) p.values[0].data);
            problem_first(&p)[0] = lane;
            problem_end(&p)[0] = lane + 1;
            attend_rows(kernels, &p, 0, 1, &result.partial);
            CHECK(result.partial.max[0] == p.rows.queries[lane] * 3);
            CHECK(result.partial.sum[0] == 1);
            for (uint32_t d = 0; d < 80; d++) {
                CHECK(result.partial.out[d] == pgd_f16_to_f32(pgd_f32_to_f16(value[d])));
            }
            result_close(&result);
            problem_close(&p);
        }
    }
}
