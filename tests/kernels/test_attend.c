/* Attention: every level against the reference, byte for byte, and the reference against double precision. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/problem.h"

/* Blocks of an odd size end 32 bytes before the unreadable page, those of an even size right at it. */
static const uint32_t sizes[] = {64, 80, 96, 112, 128, 256, 1, 7, 33, 2, 20, 34, 15, 16, 17, 48, 192, 576, 1024};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])

static const struct pgd_kernels *reference(void)
{
    const struct pgd_kernels *kernels = pgd_kernels_select("ref");
    CHECK(kernels != NULL);
    return kernels;
}

static struct pgd_attend_shape draw_shape(struct test_rng *rng, uint32_t key_size, uint32_t value_size)
{
    struct pgd_attend_shape shape = {key_size, value_size, 1.0f / sqrtf((float) key_size), 0};
    if (test_rng_below(rng, 3) == 0) {
        shape.scale = test_rng_float(rng, 0.01f, 2.0f);
    }
    if (test_rng_below(rng, 4) == 0) {
        shape.softcap = test_rng_float(rng, 0.5f, 60.0f);
    }
    return shape;
}

static void compare_levels(const struct problem *p)
{
    const uint32_t rows = p->rows.count;
    struct result wanted = result_open(rows, p->shape.value_size);
    attend_rows(reference(), p, 0, rows, &wanted.partial);
    const struct pgd_kernels *kernels;
    for (uint32_t i = 1; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        struct result got = result_open(rows, p->shape.value_size);
        attend_rows(kernels, p, 0, rows, &got.partial);
        if (!same_results(&wanted, &got, rows, p->shape.value_size)) {
            printf("%s differs: keys of %u, values of %u, %u rows, %u blocks, softcap %g\n", kernels->name,
                   p->shape.key_size, p->shape.value_size, rows, p->chunk.block_count, (double) p->shape.softcap);
        }
        CHECK(same_results(&wanted, &got, rows, p->shape.value_size));
        result_close(&got);
    }
    result_close(&wanted);
}

static void compare_random(struct test_rng *rng, uint32_t key_size, uint32_t value_size, uint32_t rows,
                           enum numbers numbers)
{
    const uint32_t blocks = 1 + (uint32_t) test_rng_below(rng, PGD_CHUNK_BLOCKS);
    struct problem p = problem_open(rng, draw_shape(rng, key_size, value_size), rows, blocks, numbers);
    compare_levels(&p);
    problem_close(&p);
}

/* PAGODA_TEST_LEVELS names the levels that whoever runs the tests knows this CPU to have, in order. */
static void check_names(const char *names)
{
    const char *wanted = getenv("PAGODA_TEST_LEVELS");
    if (wanted != NULL) {
        CHECK_STR(names, wanted);
    }
}

TEST(levels_of_this_cpu_are_ordered_and_named)
{
    uint32_t count = 0;
    const struct pgd_kernels *kernels;
    const struct pgd_kernels *best = NULL;
    char names[100] = "";
    for (; (kernels = pgd_kernels_at(count)) != NULL; count++) {
        CHECK(pgd_kernels_select(kernels->name) == kernels);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", count > 0 ? " " : "", kernels->name);
        for (uint32_t earlier = 0; earlier < count; earlier++) {
            CHECK(pgd_kernels_at(earlier) != kernels);
        }
        best = kernels;
    }
    check_names(names);
    CHECK(count >= 1);
    CHECK(pgd_kernels_at(0) == reference());
    CHECK(pgd_kernels_at(count + 1) == NULL);
    CHECK(pgd_kernels_select(NULL) == best);
    CHECK(pgd_kernels_select("auto") == best);
    CHECK(pgd_kernels_select("mmx") == NULL);
    CHECK(pgd_kernels_select("") == NULL);
}

TEST(levels_agree_for_every_size_with_few_rows)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        for (uint32_t rows = 1; rows <= 20; rows++) {
            compare_random(&rng, sizes[i], sizes[i], rows, USUAL);
        }
    }
}

TEST(levels_agree_when_keys_and_values_differ_in_size)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 200; trial++) {
        const uint32_t key_size = sizes[test_rng_below(&rng, SIZE_COUNT)];
        const uint32_t value_size = sizes[test_rng_below(&rng, SIZE_COUNT)];
        compare_random(&rng, key_size, value_size, 1 + (uint32_t) test_rng_below(&rng, 24), USUAL);
    }
}

TEST(levels_agree_with_many_rows)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        compare_random(&rng, sizes[i], sizes[i], 96, USUAL);
    }
}

TEST(levels_agree_on_a_causal_batch)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 30; trial++) {
        const uint32_t group = 1 + (uint32_t) test_rng_below(&rng, 8);
        const uint32_t rows = group * (1 + (uint32_t) test_rng_below(&rng, 32));
        const uint32_t window = 1 + (uint32_t) test_rng_below(&rng, 300);
        struct problem p = problem_open(&rng, draw_shape(&rng, 64, 64), rows, PGD_CHUNK_BLOCKS, USUAL);
        const uint32_t start = (uint32_t) test_rng_below(&rng, PGD_CHUNK_TOKENS - 31);
        for (uint32_t r = 0; r < rows; r++) {
            const uint32_t end = start + r / group;
            problem_end(&p)[r] = end;
            problem_first(&p)[r] = end < window ? 0 : end - window;
        }
        compare_levels(&p);
        problem_close(&p);
    }
}

TEST(levels_agree_on_nan_infinity_denormals_and_minus_zero)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 300; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 12)];
        compare_random(&rng, size, size, 1 + (uint32_t) test_rng_below(&rng, 24), SPECIAL);
    }
}

/* Scores so small that they round to zeros of either sign: the maximum is +0, whatever order it was taken in. */
TEST(a_maximum_of_zeros_is_plus_zero)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 20; trial++) {
        struct problem p = problem_open(&rng, (struct pgd_attend_shape) {1, 1, 0x1p-149f, 0}, 20, 4, USUAL);
        for (uint32_t b = 0; b < 4; b++) {
            uint16_t *keys = (uint16_t *) (void *) p.keys[b].data;
            for (uint32_t i = 0; i < PGD_LANES; i++) {
                keys[i] = test_rng_below(&rng, 2) == 0 ? 0x8001 : 0x0001;
            }
        }
        struct result result = result_open(20, 1);
        const struct pgd_kernels *kernels;
        for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
            attend_rows(kernels, &p, 0, 20, &result.partial);
            for (uint32_t r = 0; r < 20; r++) {
                const bool sees = p.rows.first[r] < p.rows.end[r];
                CHECK(result.partial.max[r] == (sees ? 0 : -INFINITY));
                CHECK(!sees || !signbit(result.partial.max[r]));
                CHECK(result.partial.sum[r] == (sees ? (float) (p.rows.end[r] - p.rows.first[r]) : 0));
            }
        }
        result_close(&result);
        compare_levels(&p);
        problem_close(&p);
    }
}

/* What a NaN does: the row that sees it says so in max, sum and outputs; other rows do not. */
TEST(a_nan_is_loud_where_it_is_seen_and_silent_elsewhere)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        struct problem p = problem_open(&rng, (struct pgd_attend_shape) {64, 64, 0.125f, 0}, 24, 3, USUAL);
        ((uint16_t *) (void *) p.keys[1].data)[5] = 0x7e00; /* lane 21 */
        for (uint32_t r = 0; r < 24; r++) {
            problem_first(&p)[r] = r % 3 == 1 ? 22 : 0;
            problem_end(&p)[r] = r % 3 == 0 ? 21 : 48;
        }
        struct result result = result_open(24, 64);
        attend_rows(kernels, &p, 0, 24, &result.partial);
        for (uint32_t r = 0; r < 24; r++) {
            const bool sees = r % 3 == 2;
            CHECK_EQ_INT(isnan(result.partial.max[r]) != 0, sees);
            CHECK_EQ_INT(isnan(result.partial.sum[r]) != 0, sees);
            for (uint32_t d = 0; d < 64; d++) {
                CHECK_EQ_INT(isnan(result.partial.out[r * 64 + d]) != 0, sees);
            }
        }
        result_close(&result);
        problem_close(&p);
    }
}

/* Lanes that hold no token yet may hold anything. */
TEST(lanes_that_no_row_sees_do_not_matter)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 100; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 12)];
        const uint32_t rows = 1 + (uint32_t) test_rng_below(&rng, 40);
        struct problem p = problem_open(&rng, draw_shape(&rng, size, size), rows, 4, USUAL);
        const uint32_t first = (uint32_t) test_rng_below(&rng, 40);
        const uint32_t end = first + (uint32_t) test_rng_below(&rng, 65 - first);
        for (uint32_t r = 0; r < rows; r++) {
            problem_first(&p)[r] = first + (uint32_t) test_rng_below(&rng, 4);
            problem_end(&p)[r] = end;
        }
        struct result wanted = result_open(rows, size);
        attend_rows(reference(), &p, 0, rows, &wanted.partial);
        for (uint32_t lane = 0; lane < 4 * PGD_LANES; lane++) {
            if (lane >= first && lane < end) {
                continue;
            }
            uint16_t *keys = (uint16_t *) (void *) p.keys[lane / PGD_LANES].data;
            uint16_t *values = (uint16_t *) (void *) p.values[lane / PGD_LANES].data;
            for (uint32_t d = 0; d < size; d++) {
                keys[d * PGD_LANES + lane % PGD_LANES] = d % 2 == 0 ? 0x7e00 : 0x7c00;
                values[lane % PGD_LANES * size + d] = d % 2 == 0 ? 0x7c00 : 0x7e00;
            }
        }
        const struct pgd_kernels *kernels;
        for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
            struct result got = result_open(rows, size);
            attend_rows(kernels, &p, 0, rows, &got.partial);
            CHECK(same_results(&wanted, &got, rows, size));
            result_close(&got);
        }
        result_close(&wanted);
        problem_close(&p);
    }
}

TEST(a_row_does_not_depend_on_the_other_rows_of_the_call)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 40; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 12)];
        const uint32_t rows = 2 + (uint32_t) test_rng_below(&rng, 60);
        struct problem p = problem_open(&rng, draw_shape(&rng, size, size), rows, PGD_CHUNK_BLOCKS, USUAL);
        const struct pgd_kernels *kernels;
        for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
            struct result whole = result_open(rows, size);
            struct result parts = result_open(rows, size);
            attend_rows(kernels, &p, 0, rows, &whole.partial);
            for (uint32_t row = 0, count; row < rows; row += count) {
                count = 1 + (uint32_t) test_rng_below(&rng, rows - row);
                attend_rows(kernels, &p, row, count, &parts.partial);
            }
            CHECK(same_results(&whole, &parts, rows, size));
            result_close(&whole);
            result_close(&parts);
        }
        problem_close(&p);
    }
}

TEST(no_rows_write_nothing)
{
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        struct problem p = problem_open(&rng, (struct pgd_attend_shape) {64, 64, 1, 0}, 0, 2, USUAL);
        struct result result = result_open(0, 64);
        attend_rows(kernels, &p, 0, 0, &result.partial);
        kernels->merge(0, 64, &result.partial, &result.partial);
        result_close(&result);
        problem_close(&p);
    }
}

/* ---- merge ---- */

static void fill_state(struct test_rng *rng, const struct result *state, uint32_t rows, uint32_t size)
{
    for (uint32_t r = 0; r < rows; r++) {
        const uint64_t kind = test_rng_below(rng, 8);
        state->partial.max[r] = kind == 0 ? -INFINITY : kind == 1 ? NAN : test_rng_float(rng, -60, 60);
        state->partial.sum[r] = kind == 0 ? 0 : kind == 1 ? NAN : test_rng_float(rng, 1, 256);
        for (uint32_t d = 0; d < size; d++) {
            state->partial.out[(size_t) r * size + d] = kind == 0 ? 0 : 100 * test_rng_normal(rng);
        }
    }
}

static void copy_state(const struct result *from, const struct result *to, uint32_t rows, uint32_t size)
{
    memcpy(to->partial.max, from->partial.max, rows * sizeof(float));
    memcpy(to->partial.sum, from->partial.sum, rows * sizeof(float));
    memcpy(to->partial.out, from->partial.out, (size_t) rows * size * sizeof(float));
}

TEST(levels_merge_alike)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 300; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, SIZE_COUNT)];
        const uint32_t rows = 1 + (uint32_t) test_rng_below(&rng, 20);
        struct result into = result_open(rows, size);
        struct result from = result_open(rows, size);
        struct result wanted = result_open(rows, size);
        fill_state(&rng, &into, rows, size);
        fill_state(&rng, &from, rows, size);
        copy_state(&into, &wanted, rows, size);
        reference()->merge(rows, size, &wanted.partial, &from.partial);
        const struct pgd_kernels *kernels;
        for (uint32_t i = 1; (kernels = pgd_kernels_at(i)) != NULL; i++) {
            struct result got = result_open(rows, size);
            copy_state(&into, &got, rows, size);
            kernels->merge(rows, size, &got.partial, &from.partial);
            CHECK(same_results(&wanted, &got, rows, size));
            result_close(&got);
        }
        result_close(&into);
        result_close(&from);
        result_close(&wanted);
    }
}

TEST(merging_with_a_chunk_that_a_row_does_not_see_changes_nothing)
{
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        float max[2] = {3, -INFINITY};
        float sum[2] = {5, 0};
        float out[2] = {7, 0};
        float no_max[2] = {-INFINITY, -4};
        float no_sum[2] = {0, 6};
        float no_out[2] = {0, -8};
        const struct pgd_partial into = {max, sum, out, NULL};
        const struct pgd_partial from = {no_max, no_sum, no_out, NULL};
        kernels->merge(2, 1, &into, &from);
        CHECK(max[0] == 3 && sum[0] == 5 && out[0] == 7);
        CHECK(max[1] == -4 && sum[1] == 6 && out[1] == -8);
    }
}

/* ---- against double precision ---- */

/* Attention of one row over a chunk as the textbook has it. Returns the largest |v| that the row sees. */
static double attend_in_double(const struct problem *p, uint32_t row, double *out)
{
    double scores[PGD_CHUNK_TOKENS];
    double max = -HUGE_VAL;
    double sum = 0;
    double largest = 0;
    const float *query = p->rows.queries + (size_t) row * p->shape.key_size;
    const uint32_t first = p->rows.first[row];
    const uint32_t end = p->rows.end[row];
    memset(out, 0, p->shape.value_size * sizeof *out);
    for (uint32_t lane = first; lane < end; lane++) {
        double score = 0;
        for (uint32_t d = 0; d < p->shape.key_size; d++) {
            const uint16_t key = p->chunk.keys[lane / PGD_LANES][(size_t) d * PGD_LANES + lane % PGD_LANES];
            score += (double) query[d] * (double) pgd_f16_to_f32(key);
        }
        score *= (double) p->shape.scale;
        if (p->shape.softcap != 0) {
            score = (double) p->shape.softcap * tanh(score / (double) p->shape.softcap);
        }
        scores[lane] = score;
        max = score > max ? score : max;
    }
    for (uint32_t lane = first; lane < end; lane++) {
        sum += exp(scores[lane] - max);
    }
    for (uint32_t lane = first; lane < end; lane++) {
        const double weight = exp(scores[lane] - max) / sum;
        const uint16_t *value = p->chunk.values[lane / PGD_LANES] + (size_t) (lane % PGD_LANES) * p->shape.value_size;
        for (uint32_t d = 0; d < p->shape.value_size; d++) {
            const double v = (double) pgd_f16_to_f32(value[d]);
            out[d] += weight * v;
            largest = fabs(v) > largest ? fabs(v) : largest;
        }
    }
    return largest;
}

/* The bound: 3e-6 of the largest value, for queries and keys of normal numbers with the usual scale. */
TEST(the_reference_is_close_to_double_precision)
{
    struct test_rng rng = test_rng(test_seed());
    double worst = 0;
    for (uint32_t trial = 0; trial < 300; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 12)];
        struct pgd_attend_shape shape = {size, size, 1.0f / sqrtf((float) size), 0};
        shape.softcap = trial % 3 == 0 ? 30.0f : 0.0f;
        const uint32_t blocks = 1 + (uint32_t) test_rng_below(&rng, PGD_CHUNK_BLOCKS);
        struct problem p = problem_open(&rng, shape, 4, blocks, USUAL);
        struct result result = result_open(4, size);
        attend_rows(reference(), &p, 0, 4, &result.partial);
        for (uint32_t r = 0; r < 4; r++) {
            double exact[PGD_HEAD_SIZE_MAX];
            const double largest = attend_in_double(&p, r, exact);
            const double sum = p.rows.first[r] < p.rows.end[r] ? (double) result.partial.sum[r] : 1.0;
            double of_blocks = 0;
            for (uint32_t block = 0; block < PGD_CHUNK_BLOCKS; block++) {
                of_blocks += (double) result.partial.blocks[r * PGD_CHUNK_BLOCKS + block];
            }
            CHECK_NEAR(of_blocks, (double) result.partial.sum[r], 1e-5 * sum);
            for (uint32_t d = 0; d < size; d++) {
                const double error = fabs((double) result.partial.out[r * size + d] / sum - exact[d]);
                CHECK(error <= 3e-6 * largest);
                worst = largest > 0 && error / largest > worst ? error / largest : worst;
            }
        }
        result_close(&result);
        problem_close(&p);
    }
    printf("largest error: %.2g of the largest value\n", worst);
}

/* A chunk attended whole, and in two parts merged, agree within the same bound. */
TEST(merging_two_parts_is_close_to_the_whole)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 50; trial++) {
        struct problem p =
            problem_open(&rng, (struct pgd_attend_shape) {64, 64, 0.125f, 0}, 8, PGD_CHUNK_BLOCKS, USUAL);
        struct result whole = result_open(8, 64);
        struct result left = result_open(8, 64);
        struct result right = result_open(8, 64);
        uint32_t end[8];
        attend_rows(reference(), &p, 0, 8, &whole.partial);
        for (uint32_t r = 0; r < 8; r++) {
            end[r] = p.rows.end[r];
            problem_end(&p)[r] = end[r] < 100 ? end[r] : 100;
        }
        attend_rows(reference(), &p, 0, 8, &left.partial);
        for (uint32_t r = 0; r < 8; r++) {
            problem_end(&p)[r] = end[r];
            problem_first(&p)[r] = p.rows.first[r] > 100 ? p.rows.first[r] : 100;
        }
        attend_rows(reference(), &p, 0, 8, &right.partial);
        reference()->merge(8, 64, &left.partial, &right.partial);
        for (uint32_t r = 0; r < 8; r++) {
            CHECK(left.partial.max[r] == whole.partial.max[r]);
            const double sum = (double) whole.partial.sum[r];
            CHECK_NEAR((double) left.partial.sum[r], sum, 1e-5 * sum);
            for (uint32_t d = 0; d < 64; d++) {
                CHECK_NEAR((double) left.partial.out[r * 64 + d], (double) whole.partial.out[r * 64 + d], 2e-5 * sum);
            }
        }
        result_close(&whole);
        result_close(&left);
        result_close(&right);
        problem_close(&p);
    }
}
