/* Digests: every level gives the reference's bytes, the reference gives what attention over the sketch gives in double
 * precision, a sketch is near its page when the page is that simple, and expected queries choose the lines. */
#include "kernels/digest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/packed.h"
#include "kernels/problem.h"

static const uint32_t sizes[] = {64, 80, 96, 112, 128, 256, 1, 7, 33, 2, 20, 34, 15, 16, 17, 48, 192, 576, 1024};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])
#define PAGES_MAX 70u

/* Pages as digests, and rows that ask about them. */
struct digest_problem {
    struct pgd_attend_shape shape;
    struct pgd_packed_rows rows;
    uint32_t tokens;
    uint32_t count;
    uint32_t span;  /* pages that share a digest, at most */
    float *queries; /* [rows][key_size] */
    const uint8_t *digests[PAGES_MAX];
    const uint8_t *along[PAGES_MAX];
    const uint8_t *details[PAGES_MAX];
    struct guarded memory[PAGES_MAX], detail_memory[PAGES_MAX], high, low, unit, sum;
};

/* What both kernels give. */
struct digest_result {
    struct pgd_digest_scores scores;
    struct guarded mass, lean[PGD_DIGEST_LINES], weights, out;
};

static float *floats(size_t count)
{
    float *numbers = calloc(count + 1, sizeof(*numbers));
    CHECK(numbers != NULL);
    return numbers;
}

static float number(struct test_rng *rng, enum numbers kind)
{
    static const float specials[] = {NAN, INFINITY, -INFINITY, 1e-40f, -0.0f, 3e38f, 1e30f, 0.0f};
    if (kind == SPECIAL && test_rng_below(rng, 3000) == 0) {
        return specials[test_rng_below(rng, sizeof specials / sizeof specials[0])];
    }
    return test_rng_normal(rng);
}

static void fill(struct test_rng *rng, float *numbers, size_t count, enum numbers kind)
{
    for (size_t i = 0; i < count; i++) {
        numbers[i] = number(rng, kind);
    }
}

/* pgd_digest_make, without using up the rows. */
static void make_digest(uint32_t key_size, uint32_t value_size, uint32_t tokens, const float *keys, const float *values,
                        const struct pgd_digest_queries *queries, uint8_t *digest)
{
    struct guarded used_keys = guarded_open((size_t) tokens * key_size * sizeof(float), sizeof(float));
    struct guarded used_values = guarded_open((size_t) tokens * value_size * sizeof(float), sizeof(float));
    struct guarded scratch = guarded_open(pgd_digest_make_floats(key_size, tokens) * sizeof(float), sizeof(float));
    memcpy(used_keys.data, keys, (size_t) tokens * key_size * sizeof(float));
    memcpy(used_values.data, values, (size_t) tokens * value_size * sizeof(float));
    pgd_digest_make(key_size, value_size, tokens, (float *) (void *) used_keys.data,
                    (float *) (void *) used_values.data, queries, (float *) (void *) scratch.data, digest);
    guarded_close(&used_keys);
    guarded_close(&used_values);
    guarded_close(&scratch);
}

/* The digest of `blocks` pages from page i on, and their details. */
static void make_random_digest(struct test_rng *rng, struct digest_problem *p, uint32_t i, uint32_t blocks,
                               enum numbers kind)
{
    const uint32_t key_size = p->shape.key_size;
    const uint32_t value_size = p->shape.value_size;
    const uint32_t tokens = blocks == 1 ? p->tokens : blocks * PGD_LANES;
    float *keys = floats((size_t) tokens * key_size);
    float *values = floats((size_t) tokens * value_size);
    float *means = floats((size_t) 2 * key_size);
    float *variance = floats(key_size);
    fill(rng, keys, (size_t) tokens * key_size, kind);
    fill(rng, values, (size_t) tokens * value_size, kind);
    fill(rng, means, (size_t) 2 * key_size, kind);
    for (uint32_t d = 0; d < key_size; d++) {
        variance[d] = test_rng_float(rng, 0, 2);
    }
    const struct pgd_digest_queries queries = {variance, means, (uint32_t) test_rng_below(rng, 3)};
    p->memory[i] = guarded_open(pgd_digest_bytes(key_size, value_size, blocks), 4);
    make_digest(key_size, value_size, tokens, keys, values, i % 2 == 0 ? NULL : &queries, p->memory[i].data);
    for (uint32_t block = 0; block < blocks; block++) {
        p->digests[i + block] = p->memory[i].data;
        p->along[i + block] =
            p->memory[i].data + pgd_digest_layout(key_size, value_size).along + (size_t) block * PGD_LANES;
        p->detail_memory[i + block] = guarded_open(pgd_detail_bytes(key_size), 4);
        p->details[i + block] = p->detail_memory[i + block].data;
        pgd_detail_make(key_size, p->tokens, keys + (size_t) block * PGD_LANES * key_size, p->digests[i + block],
                        p->detail_memory[i + block].data);
    }
    free(keys);
    free(values);
    free(means);
    free(variance);
}

static struct digest_problem open_spans(struct test_rng *rng, uint32_t key_size, uint32_t value_size, uint32_t rows,
                                        uint32_t count, uint32_t tokens, uint32_t span, enum numbers kind)
{
    struct digest_problem p = {
        .shape = {key_size, value_size, 1.0f / sqrtf((float) key_size), 0},
        .rows = {.count = rows, .tiles = (key_size + 3) / 4},
        .tokens = tokens,
        .count = count,
        .span = span,
        .queries = floats((size_t) rows * key_size),
    };
    if (test_rng_below(rng, 4) == 0) {
        p.shape.softcap = test_rng_float(rng, 0.5f, 60.0f);
    }
    const size_t words = (size_t) rows * p.rows.tiles;
    p.high = guarded_open(words * sizeof(int32_t), sizeof(int32_t));
    p.low = guarded_open(words * sizeof(int32_t), sizeof(int32_t));
    p.unit = guarded_open(rows * sizeof(float), sizeof(float));
    p.sum = guarded_open(rows * sizeof(int32_t), sizeof(int32_t));
    p.rows.high = (int32_t *) (void *) p.high.data;
    p.rows.low = (int32_t *) (void *) p.low.data;
    p.rows.unit = (float *) (void *) p.unit.data;
    p.rows.sum = (int32_t *) (void *) p.sum.data;
    fill(rng, p.queries, (size_t) rows * key_size, kind);
    for (uint32_t r = 0; r < rows; r++) {
        pgd_packed_query(key_size, p.queries + (size_t) r * key_size, &p.rows, r);
    }
    for (uint32_t i = 0; i < count; i += p.span) {
        make_random_digest(rng, &p, i, count - i < p.span ? count - i : p.span, kind);
    }
    return p;
}

/* Pages share digests or not, when they are whole. */
static struct digest_problem open_problem(struct test_rng *rng, uint32_t key_size, uint32_t value_size, uint32_t rows,
                                          uint32_t count, uint32_t tokens, enum numbers kind)
{
    const uint32_t span = tokens == PGD_LANES ? 1 + (uint32_t) test_rng_below(rng, PGD_DIGEST_BLOCKS_MAX) : 1;
    return open_spans(rng, key_size, value_size, rows, count, tokens, span, kind);
}

static void close_problem(struct digest_problem *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        if (i % p->span == 0) {
            guarded_close(&p->memory[i]);
        }
        guarded_close(&p->detail_memory[i]);
    }
    guarded_close(&p->high);
    guarded_close(&p->low);
    guarded_close(&p->unit);
    guarded_close(&p->sum);
    free(p->queries);
}

static float *open_floats(struct guarded *buffer, size_t count)
{
    *buffer = guarded_open(count * sizeof(float), sizeof(float));
    memset(buffer->data, 0, count * sizeof(float));
    return (float *) (void *) buffer->data;
}

/* Scores, in detail or not, turns them into weights as a caller would, and blends; some weights are 0. */
static struct digest_result run(const struct pgd_kernels *kernels, const struct digest_problem *p, bool in_detail)
{
    struct digest_result result;
    const uint32_t rows = p->rows.count;
    const size_t scores = (size_t) rows * p->count;
    result.scores.stride = p->count;
    result.scores.mass = open_floats(&result.mass, scores);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        result.scores.lean[line] = open_floats(&result.lean[line], scores);
    }
    float *weights = open_floats(&result.weights, scores);
    float *out = open_floats(&result.out, (size_t) rows * p->shape.value_size);
    struct guarded scratch = guarded_open(pgd_digest_scratch_floats(p->shape.key_size, rows) * sizeof(float), 64);
    float *working = (float *) (void *) scratch.data;
    const struct pgd_digest_pages pages = {p->count, p->tokens, p->digests, p->along, in_detail ? p->details : NULL};
    kernels->score_digests(&p->shape, &pages, &p->rows, working, &result.scores);
    guarded_close(&scratch);
    for (size_t i = 0; i < scores; i++) {
        weights[i] = i % 3 == 0 ? 0.0f : 0.25f * result.scores.mass[i];
    }
    kernels->blend_digests(&p->shape, p->count, p->digests, rows, weights, &result.scores, out);
    return result;
}

static void close_result(struct digest_result *result)
{
    guarded_close(&result->mass);
    guarded_close(&result->lean[0]);
    guarded_close(&result->lean[1]);
    guarded_close(&result->weights);
    guarded_close(&result->out);
}

static bool same_result(const struct digest_problem *p, const struct digest_result *a, const struct digest_result *b)
{
    const size_t scores = (size_t) p->rows.count * p->count;
    return same_floats(a->scores.mass, b->scores.mass, scores) &&
           same_floats(a->scores.lean[0], b->scores.lean[0], scores) &&
           same_floats(a->scores.lean[1], b->scores.lean[1], scores) &&
           same_floats((const float *) (const void *) a->out.data, (const float *) (const void *) b->out.data,
                       (size_t) p->rows.count * p->shape.value_size);
}

static void compare_problem(const struct digest_problem *p, bool in_detail)
{
    struct digest_result wanted = run(pgd_kernels_select("ref"), p, in_detail);
    const struct pgd_kernels *kernels;
    for (uint32_t i = 1; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        struct digest_result got = run(kernels, p, in_detail);
        const bool same = same_result(p, &wanted, &got);
        if (!same) {
            printf("%s differs%s: keys of %u, values of %u, %u rows, %u pages of %u tokens, spans of %u\n",
                   kernels->name, in_detail ? " in detail" : "", p->shape.key_size, p->shape.value_size, p->rows.count,
                   p->count, p->tokens, p->span);
        }
        CHECK(same);
        close_result(&got);
    }
    close_result(&wanted);
}

static void compare_levels(struct test_rng *rng, uint32_t key_size, uint32_t value_size, uint32_t rows, uint32_t count,
                           uint32_t tokens, enum numbers kind)
{
    struct digest_problem p = open_problem(rng, key_size, value_size, rows, count, tokens, kind);
    compare_problem(&p, false);
    compare_problem(&p, true);
    close_problem(&p);
}

TEST(levels_agree_for_every_size)
{
    struct test_rng rng = test_rng(test_seed());
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        for (uint32_t trial = 0; trial < 4; trial++) {
            const uint32_t value_size = trial == 0 ? sizes[i] : sizes[test_rng_below(&rng, SIZE_COUNT)];
            compare_levels(&rng, sizes[i], value_size, 1 + (uint32_t) test_rng_below(&rng, 12),
                           1 + (uint32_t) test_rng_below(&rng, PAGES_MAX), 1 + (uint32_t) test_rng_below(&rng, 16),
                           USUAL);
        }
    }
}

TEST(levels_agree_for_every_count_of_pages_and_tokens)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t count = 1; count <= 34; count++) {
        compare_levels(&rng, 64, 64, 3, count, PGD_LANES, USUAL);
    }
    for (uint32_t tokens = 1; tokens <= PGD_LANES; tokens++) {
        compare_levels(&rng, 256, 256, 4, 5, tokens, USUAL);
    }
}

TEST(levels_agree_on_numbers_that_are_none)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 100; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, SIZE_COUNT)];
        compare_levels(&rng, size, size, 1 + (uint32_t) test_rng_below(&rng, 6),
                       1 + (uint32_t) test_rng_below(&rng, 40), 1 + (uint32_t) test_rng_below(&rng, 16), SPECIAL);
    }
}

/* ---- the reference against the words of digest.h ---- */

static double scale_at(const uint8_t *digest, uint32_t which)
{
    uint16_t half;
    memcpy(&half, digest + which * sizeof half, sizeof half);
    return (double) pgd_f16_to_f32(half);
}

static int plane_bits(uint32_t size, const uint8_t *plane, uint32_t d)
{
    const uint32_t tile = d / 64;
    const uint32_t count = size - tile * 64 < 64 ? size - tile * 64 : 64;
    const uint32_t quarter = (count + 3) / 4;
    return plane[tile * 16 + d % 64 % quarter] >> 2 * (d % 64 / quarter) & 3;
}

/* Number d of key t (value = false) or value t, as the sketch has it. */
static double sketched(uint32_t key_size, uint32_t value_size, const uint8_t *digest, bool value, uint32_t t,
                       uint32_t d)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(key_size, value_size);
    const uint32_t size = value ? value_size : key_size;
    const uint32_t plane = value ? layout.value_plane : layout.key_plane;
    const uint8_t *mean = digest + (value ? layout.value_mean : layout.key_mean);
    const uint8_t *lines = value ? mean + plane : digest + layout.key_lines;
    int code = plane_bits(size, mean, d);
    if (!value) {
        code |= plane_bits(size, mean + plane, d) << 2 | plane_bits(size, mean + (size_t) 2 * plane, d) << 4;
    }
    double number = (2 * code - (value ? 3 : 63)) * scale_at(digest, value ? PGD_DIGEST_VALUE_MEAN : 0);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        const int along = 2 * (digest[layout.along + t] >> 4 * line & 15) - 15;
        const int step = 2 * plane_bits(size, lines + (size_t) line * plane, d) - 3;
        number += along * step * scale_at(digest, (value ? PGD_DIGEST_VALUE_LINE : PGD_DIGEST_KEY_LINE) + line);
    }
    return number;
}

/* Attention of one row over the sketch of page `page`: logarithm of its mass; out[d] is its mean value. */
static double attend_sketch(const struct digest_problem *p, uint32_t page, uint32_t row, double *out)
{
    const uint8_t *digest = p->digests[page];
    const uint32_t first = page % p->span * PGD_LANES;
    double weights[PGD_LANES];
    double sum = 0;
    double max = -INFINITY;
    for (uint32_t t = 0; t < p->tokens; t++) {
        double score = 0;
        for (uint32_t d = 0; d < p->shape.key_size; d++) {
            score += (double) p->queries[(size_t) row * p->shape.key_size + d] *
                     sketched(p->shape.key_size, p->shape.value_size, digest, false, first + t, d);
        }
        score *= p->shape.scale;
        weights[t] = p->shape.softcap == 0 ? score : p->shape.softcap * tanh(score / p->shape.softcap);
        max = weights[t] > max ? weights[t] : max;
    }
    for (uint32_t t = 0; t < p->tokens; t++) {
        weights[t] = exp(weights[t] - max);
        sum += weights[t];
    }
    for (uint32_t d = 0; d < p->shape.value_size; d++) {
        out[d] = 0;
        for (uint32_t t = 0; t < p->tokens; t++) {
            out[d] += weights[t] / sum * sketched(p->shape.key_size, p->shape.value_size, digest, true, first + t, d);
        }
    }
    return max + log(sum);
}

TEST(the_reference_is_attention_over_the_sketch)
{
    struct test_rng rng = test_rng(test_seed());
    double value[256];
    for (uint32_t trial = 0; trial < 60; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 13)];
        const uint32_t count = trial % 2 == 0 ? 1 : 1 + (uint32_t) test_rng_below(&rng, 10);
        const uint32_t tokens = trial % 2 == 0 ? 1 + (uint32_t) test_rng_below(&rng, 16) : PGD_LANES;
        struct digest_problem p = open_problem(&rng, size, size, 1, count, tokens, USUAL);
        const struct pgd_kernels *ref = pgd_kernels_select("ref");
        struct digest_result got = run(ref, &p, false);
        const uint32_t page = (uint32_t) test_rng_below(&rng, count);
        const double mass = attend_sketch(&p, page, 0, value);
        CHECK_NEAR(got.scores.mass[page], mass, 2e-3); /* queries keep 13 bits */
        const struct pgd_digest_scores of_page = {
            got.scores.mass + page, {got.scores.lean[0] + page, got.scores.lean[1] + page}, count};
        const float one = 1.0f;
        float out[256];
        for (uint32_t d = 0; d < size; d++) {
            out[d] = 1.0f;
        }
        ref->blend_digests(&p.shape, 1, p.digests + page, 1, &one, &of_page, out);
        for (uint32_t d = 0; d < size; d++) {
            CHECK_NEAR(out[d], 1 + value[d], 2e-3);
        }
        close_result(&got);
        close_problem(&p);
    }
}

/* ---- what the sketch keeps ---- */

/* Mean square of what the sketch gets wrong, over the mean square of all numbers. */
static double relative_error(uint32_t size, uint32_t tokens, const uint8_t *digest, bool value, const float *rows)
{
    double wrong = 0;
    double all = 0;
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t d = 0; d < size; d++) {
            const double x = rows[(size_t) t * size + d];
            const double error = sketched(size, size, digest, value, t, d) - x;
            wrong += error * error;
            all += x * x;
        }
    }
    return wrong / all;
}

/* Rows that differ along `lines` directions about a mean that is `mean` times as long. */
static void fill_simple(struct test_rng *rng, uint32_t size, uint32_t tokens, uint32_t lines, float mean, float *rows)
{
    float *vector = floats(size);
    for (uint32_t line = 0; line <= lines; line++) {
        fill(rng, vector, size, USUAL);
        for (uint32_t t = 0; t < tokens; t++) {
            const float times = line == 0 ? mean : test_rng_normal(rng);
            for (uint32_t d = 0; d < size; d++) {
                rows[(size_t) t * size + d] = (line == 0 ? 0 : rows[(size_t) t * size + d]) + times * vector[d];
            }
        }
    }
    free(vector);
}

TEST(simple_pages_are_kept)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 30; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 6)];
        const uint32_t lines = (uint32_t) test_rng_below(&rng, PGD_DIGEST_LINES + 1);
        const uint32_t blocks = trial % 2 == 0 ? 1 : 1 + (uint32_t) test_rng_below(&rng, PGD_DIGEST_BLOCKS_MAX);
        const uint32_t tokens = blocks * PGD_LANES;
        float *rows = floats((size_t) tokens * size);
        struct guarded digest = guarded_open(pgd_digest_bytes(size, size, blocks), 4);
        fill_simple(&rng, size, tokens, lines, lines == 0 ? 1.0f : 3.0f, rows);
        make_digest(size, size, tokens, rows, rows, NULL, digest.data);
        /* 6 bits keep a mean to a thousandth of its square; 2 bits keep a line to a tenth (Max 1960: 0.1175). */
        CHECK(relative_error(size, tokens, digest.data, false, rows) < (lines == 0 ? 1e-3 : 0.06));
        CHECK(relative_error(size, tokens, digest.data, true, rows) < 0.2);
        guarded_close(&digest);
        free(rows);
    }
}

/* Tokens differ twice as much where queries do not look. */
TEST(expected_queries_choose_the_lines)
{
    struct test_rng rng = test_rng(test_seed());
    const uint32_t size = 64;
    float keys[PGD_LANES * 64];
    float axis[64] = {0};
    float query[64] = {0};
    for (uint32_t t = 0; t < PGD_LANES; t++) {
        for (uint32_t d = 0; d < size; d++) {
            keys[t * size + d] = d < 4 ? test_rng_normal(&rng) : 2.0f * test_rng_normal(&rng);
        }
    }
    axis[2] = 1.0f;
    query[2] = 1.0f;
    const struct pgd_digest_queries queries = {axis, NULL, 0};
    const struct pgd_digest_queries as_mean = {(const float[64]) {0}, axis, 1};
    double wrong[3] = {0};
    float rotated[PGD_LANES * 64];
    memcpy(rotated, keys, sizeof rotated);
    for (uint32_t t = 0; t < PGD_LANES; t++) {
        pgd_hadamard(size, rotated + (size_t) t * size);
    }
    pgd_hadamard(size, query);
    for (uint32_t i = 0; i < 3; i++) {
        struct guarded digest = guarded_open(pgd_digest_bytes(size, size, 1), 4);
        make_digest(size, size, PGD_LANES, rotated, rotated, i == 0 ? NULL : i == 1 ? &queries : &as_mean, digest.data);
        for (uint32_t t = 0; t < PGD_LANES; t++) {
            double seen = 0;
            for (uint32_t d = 0; d < size; d++) {
                seen += (double) query[d] * sketched(size, size, digest.data, false, t, d);
            }
            wrong[i] += (seen - keys[t * size + 2]) * (seen - keys[t * size + 2]);
        }
        guarded_close(&digest);
        if (i == 0) {
            continue;
        }
        CHECK(wrong[i] < 0.1 * wrong[0]);
    }
}

/* A page without any structure, and a query that looks for one of its tokens. */
TEST(a_detail_finds_one_token)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 20; trial++) {
        const uint32_t size = sizes[test_rng_below(&rng, 6)];
        struct digest_problem p = open_problem(&rng, size, size, 1, 1, PGD_LANES, USUAL);
        float *keys = floats((size_t) PGD_LANES * size);
        const uint32_t wanted = (uint32_t) test_rng_below(&rng, PGD_LANES);
        fill(&rng, keys, (size_t) PGD_LANES * size, USUAL);
        make_digest(size, size, PGD_LANES, keys, keys, NULL, p.memory[0].data);
        pgd_detail_make(size, PGD_LANES, keys, p.digests[0], p.detail_memory[0].data);
        pgd_packed_query(size, keys + (size_t) wanted * size, &p.rows, 0);
        p.shape.softcap = 0;
        double mass = 0;
        for (uint32_t t = 0; t < PGD_LANES; t++) {
            double score = 0;
            for (uint32_t d = 0; d < size; d++) {
                score += (double) keys[(size_t) wanted * size + d] * (double) keys[(size_t) t * size + d];
            }
            mass += exp(score * p.shape.scale);
        }
        struct digest_result coarse = run(pgd_kernels_select("ref"), &p, false);
        struct digest_result fine = run(pgd_kernels_select("ref"), &p, true);
        CHECK(coarse.scores.mass[0] < log(mass) - 1);
        CHECK_NEAR(fine.scores.mass[0], log(mass), 0.6); /* 16 levels keep a number to a hundredth of its square */
        close_result(&coarse);
        close_result(&fine);
        close_problem(&p);
        free(keys);
    }
}

TEST(a_digest_is_at_most_four_percent)
{
    for (size_t i = 0; i < 6; i++) {
        const uint32_t bytes = pgd_digest_bytes(sizes[i], sizes[i], 1);
        CHECK(bytes % 4 == 0);
        CHECK(bytes * 100 <= 4 * PGD_LANES * 2 * sizes[i] * (uint32_t) sizeof(uint16_t));
    }
}

TEST(one_number_that_is_none_spoils_its_page_and_no_other)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t side = 0; side < 2; side++) {
        struct digest_problem p = open_spans(&rng, 64, 64, 2, 3, PGD_LANES, 1, USUAL);
        float rows[2][PGD_LANES * 64];
        fill(&rng, rows[0], PGD_LANES * 64, USUAL);
        fill(&rng, rows[1], PGD_LANES * 64, USUAL);
        rows[side][test_rng_below(&rng, PGD_LANES * 64)] = NAN;
        make_digest(64, 64, PGD_LANES, rows[0], rows[1], NULL, p.memory[1].data);
        struct digest_result got = run(pgd_kernels_select(NULL), &p, false);
        for (uint32_t at = 0; at < 6; at++) {
            CHECK(isnan(got.scores.mass[at]) == (side == 0 && at % 3 == 1));
        }
        float out[64] = {0};
        const float weights[3] = {0.5f, 0, 0.5f}; /* a page without weight is not looked at */
        pgd_kernels_select(NULL)->blend_digests(&p.shape, 3, p.digests, 1, weights, &got.scores, out);
        CHECK(!isnan(out[0]));
        const float spoiled[3] = {0.5f, 0.5f, 0};
        pgd_kernels_select(NULL)->blend_digests(&p.shape, 3, p.digests, 1, spoiled, &got.scores, out);
        CHECK(isnan(out[0]));
        close_result(&got);
        close_problem(&p);
    }
}
