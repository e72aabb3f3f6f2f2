/* The scalar functions of the specification, against double precision. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/test.h"
#include "kernels/kernels.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- exponential ---- */

/* Error in units of the last place of the correctly rounded result. */
static double exp_error_ulp(float x)
{
    const double exact = exp((double) x);
    const float nearest = (float) exact;
    const double ulp = (double) nextafterf(nearest, INFINITY) - (double) nearest;
    return fabs((double) pgd_ref_exp(x) - exact) / ulp;
}

TEST(exp_is_within_one_ulp)
{
    struct test_rng rng = test_rng(test_seed());
    double worst = 0;
    float worst_at = 0;
    /* Every 211th float of [-87.3, 88], from a random start: about ten million. */
    const float ends[2] = {-87.3f, 88.0f};
    for (int side = 0; side < 2; side++) {
        const uint32_t sign = side == 0 ? 0x80000000u : 0;
        const uint32_t last = bits_of(ends[side]) & 0x7fffffffu;
        for (uint32_t bits = (uint32_t) test_rng_below(&rng, 211); bits <= last; bits += 211) {
            const float x = float_of(sign | bits);
            const double error = exp_error_ulp(x);
            if (error > worst) {
                worst = error;
                worst_at = x;
            }
        }
    }
    printf("worst: %.3f ulp at %a\n", worst, (double) worst_at);
    CHECK(worst <= 1.0);
}

TEST(exp_at_its_borders)
{
    CHECK(pgd_ref_exp(0.0f) == 1.0f);
    CHECK(pgd_ref_exp(-0.0f) == 1.0f);
    CHECK(exp_error_ulp(-87.3f) <= 1.0);
    CHECK(exp_error_ulp(88.0f) <= 1.0);
    CHECK_EQ_U64(bits_of(pgd_ref_exp(nextafterf(-87.3f, -100.0f))), 0);
    CHECK_EQ_U64(bits_of(pgd_ref_exp(-1000.0f)), 0);
    CHECK_EQ_U64(bits_of(pgd_ref_exp(-INFINITY)), 0);
    CHECK(isnan(pgd_ref_exp(NAN)));
    CHECK(pgd_ref_exp(-87.3f) >= 0x1p-126f); /* a normal number, also where denormals are flushed */
}

TEST(exp_never_decreases_between_neighbours_far_apart)
{
    float before = 0;
    for (float x = -87.3f; x < 0; x += 0.001f) {
        const float y = pgd_ref_exp(x);
        CHECK(y > before);
        before = y;
    }
}

TEST(exponentials_of_every_level_are_those_of_the_reference)
{
    enum { MOST = 70 };
    struct test_rng rng = test_rng(test_seed());
    const struct pgd_kernels *kernels;
    for (uint32_t level = 0; (kernels = pgd_kernels_at(level)) != NULL; level++) {
        for (uint32_t count = 0; count <= MOST; count++) {
            float x[MOST + 1];
            float out[MOST + 1];
            const float minus = test_rng_float(&rng, -20, 20);
            for (uint32_t i = 0; i <= MOST; i++) {
                x[i] = test_rng_float(&rng, -120, 60);
                out[i] = -1;
            }
            x[0] = -INFINITY;
            x[MOST / 2] = NAN;
            kernels->exponentials(count, x, minus, out);
            for (uint32_t i = 0; i < count; i++) {
                const float wanted = pgd_ref_exp(x[i] - minus);
                CHECK(isnan(wanted) ? isnan(out[i]) : bits_of(out[i]) == bits_of(wanted));
            }
            CHECK(out[count] == -1);
            kernels->exponentials(count, x, minus, x); /* in place */
            CHECK(memcmp(x, out, count * sizeof *x) == 0);
        }
    }
}

/* ---- f16 ---- */

static double f16_in_double(uint16_t half)
{
    const double sign = half >> 15 != 0 ? -1 : 1;
    const int exponent = half >> 10 & 0x1f;
    const int mantissa = half & 0x3ff;
    if (exponent == 0x1f) {
        return mantissa != 0 ? NAN : sign * HUGE_VAL;
    }
    return exponent == 0 ? sign * ldexp(mantissa, -24) : sign * ldexp(1024 + mantissa, exponent - 25);
}

TEST(every_f16_becomes_the_right_f32_and_comes_back)
{
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        const uint16_t half = (uint16_t) i;
        const double exact = f16_in_double(half);
        const float got = pgd_f16_to_f32(half);
        if (isnan(exact)) {
            CHECK(isnan(got));
            CHECK((bits_of(got) & 0x400000u) != 0); /* quiet, as every processor makes it */
            CHECK(isnan(f16_in_double(pgd_f32_to_f16(got))));
            CHECK_EQ_INT(bits_of(got) >> 31, half >> 15);
            continue;
        }
        CHECK((double) got == exact);
        CHECK_EQ_INT(signbit(got) != 0, half >> 15);
        CHECK_EQ_INT(pgd_f32_to_f16(got), half);
    }
}

/* f32 to f16 by arithmetic alone: divide by the spacing of f16 there, round to an even integer. */
static uint16_t f16_by_arithmetic(float value)
{
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    const double magnitude = fabs((double) value);
    if (magnitude >= 65520) {
        return sign | 0x7c00;
    }
    int exponent = magnitude >= 0x1p-14 ? ilogb(magnitude) : -14;
    int steps = (int) nearbyint(ldexp(magnitude, 10 - exponent)); /* 0 .. 2048, exact before rounding */
    if (steps == 2048) {
        steps = 1024;
        exponent++;
    }
    return steps < 1024 ? (uint16_t) (sign | steps) : (uint16_t) (sign | (exponent + 15) << 10 | (steps - 1024));
}

static void check_to_f16(float value)
{
    CHECK_EQ_INT(pgd_f32_to_f16(value), f16_by_arithmetic(value));
    CHECK_EQ_INT(pgd_f32_to_f16(-value), f16_by_arithmetic(-value));
}

TEST(f32_to_f16_rounds_to_nearest_even)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint16_t half = 0; half < 0x7c00; half++) {
        const double here = f16_in_double(half);
        const double next = half == 0x7bff ? 65536 : f16_in_double((uint16_t) (half + 1));
        const float middle = (float) ((here + next) / 2);
        check_to_f16((float) here);
        check_to_f16(middle);
        check_to_f16(nextafterf(middle, 0));
        check_to_f16(nextafterf(middle, INFINITY));
    }
    for (uint32_t i = 0; i < 2000000; i++) {
        const float value = float_of((uint32_t) test_rng_u64(&rng));
        if (!isnan(value)) {
            check_to_f16(value);
        }
    }
    check_to_f16(INFINITY);
    check_to_f16(0x1p-149f);
}

TEST(f32_nan_to_f16_is_a_quiet_nan_of_the_same_sign)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t i = 0; i < 100000; i++) {
        const uint32_t bits = (uint32_t) test_rng_u64(&rng) | 0x7f800000u;
        if ((bits & 0x7fffffu) != 0) {
            const uint16_t half = pgd_f32_to_f16(float_of(bits));
            CHECK_EQ_INT(half & 0x7e00, 0x7e00);
            CHECK_EQ_INT(half >> 15, bits >> 31);
        }
    }
}

/* ---- rotation ---- */

#define PAIRS_MAX 128u

struct rotation {
    uint32_t pairs;
    float cosine[PAIRS_MAX];
    float sine[PAIRS_MAX];
    double angle[PAIRS_MAX];
    float before[2 * PAIRS_MAX + 2];
    float row[2 * PAIRS_MAX + 2]; /* the last two are no part of any pair */
};

static void draw_rotation(struct test_rng *rng, struct rotation *rotation)
{
    rotation->pairs = (uint32_t) test_rng_below(rng, PAIRS_MAX + 1);
    for (uint32_t j = 0; j < rotation->pairs; j++) {
        rotation->angle[j] = (double) test_rng_float(rng, -1000, 1000);
        rotation->cosine[j] = (float) cos(rotation->angle[j]);
        rotation->sine[j] = (float) sin(rotation->angle[j]);
    }
    for (uint32_t i = 0; i < 2 * PAIRS_MAX + 2; i++) {
        rotation->before[i] = rotation->row[i] = test_rng_normal(rng);
    }
}

/* Coordinates x and y of pair j: within three roundings of their length. */
static void check_pair(const struct rotation *rotation, uint32_t j, uint32_t x, uint32_t y)
{
    const double a = (double) rotation->before[x];
    const double b = (double) rotation->before[y];
    const double tolerance = 3 * 0x1p-24 * (fabs(a) + fabs(b));
    CHECK_NEAR((double) rotation->row[x], a * cos(rotation->angle[j]) - b * sin(rotation->angle[j]), tolerance);
    CHECK_NEAR((double) rotation->row[y], a * sin(rotation->angle[j]) + b * cos(rotation->angle[j]), tolerance);
}

static void check_rest(const struct rotation *rotation)
{
    for (uint32_t i = 2 * rotation->pairs; i < 2 * PAIRS_MAX + 2; i++) {
        CHECK(rotation->row[i] == rotation->before[i]);
    }
}

TEST(rotation_of_adjacent_pairs)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 300; trial++) {
        struct rotation rotation;
        draw_rotation(&rng, &rotation);
        pgd_rotate_adjacent(rotation.pairs, rotation.cosine, rotation.sine, rotation.row);
        for (uint32_t j = 0; j < rotation.pairs; j++) {
            check_pair(&rotation, j, 2 * j, 2 * j + 1);
        }
        check_rest(&rotation);
    }
}

TEST(rotation_of_split_pairs)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 300; trial++) {
        struct rotation rotation;
        draw_rotation(&rng, &rotation);
        pgd_rotate_split(rotation.pairs, rotation.cosine, rotation.sine, rotation.row);
        for (uint32_t j = 0; j < rotation.pairs; j++) {
            check_pair(&rotation, j, j, j + rotation.pairs);
        }
        check_rest(&rotation);
    }
}

/* The cache relies on this: the bytes are those of single operations, whatever the compiler does with the loop. */
TEST(rotation_rounds_every_operation)
{
    struct test_rng rng = test_rng(test_seed());
    for (uint32_t trial = 0; trial < 300; trial++) {
        struct rotation rotation;
        draw_rotation(&rng, &rotation);
        pgd_rotate_split(rotation.pairs, rotation.cosine, rotation.sine, rotation.row);
        for (uint32_t j = 0; j < rotation.pairs; j++) {
            volatile float xc = rotation.before[j] * rotation.cosine[j];
            volatile float ys = rotation.before[j + rotation.pairs] * rotation.sine[j];
            CHECK(rotation.row[j] == xc - ys);
        }
    }
}
