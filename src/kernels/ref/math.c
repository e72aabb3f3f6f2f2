/* kernels/ref/math.c - the scalar functions of the specification: exponential and f16 conversions. */
#include <math.h>
#include <string.h>

#include "kernels/exponential.h"
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

float pgd_ref_exp(float x)
{
    if (x < PGD_EXP_LOWEST) {
        return 0.0f;
    }
    const float t = fmaf(x, PGD_EXP_LOG2_E, PGD_EXP_ROUNDER);
    const float n = t - PGD_EXP_ROUNDER;
    float r = fmaf(n, -PGD_EXP_LN2_HIGH, x);
    r = fmaf(n, -PGD_EXP_LN2_LOW, r);
    float p = PGD_EXP_C6;
    p = fmaf(p, r, PGD_EXP_C5);
    p = fmaf(p, r, PGD_EXP_C4);
    p = fmaf(p, r, PGD_EXP_C3);
    p = fmaf(p, r, PGD_EXP_C2);
    p = fmaf(p, r, PGD_EXP_C1);
    p = fmaf(p, r, PGD_EXP_C0);
    return p * float_of((bits_of(t) << PGD_EXP_MANTISSA_BITS) + PGD_EXP_ONE_BITS);
}

/* f16: sign 1, exponent 5 (bias 15), mantissa 10. f32: sign 1, exponent 8 (bias 127), mantissa 23. */

float pgd_f16_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t) (half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0x1f) {
        const uint32_t quiet = mantissa != 0 ? 0x400000u : 0;
        return float_of(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) {
        const float magnitude = (float) mantissa * 0x1p-24f; /* exact */
        return float_of(sign | bits_of(magnitude));
    }
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* `value` / 2^shift, rounded to nearest even. */
static uint32_t shift_round(uint32_t value, uint32_t shift)
{
    const uint32_t kept = value >> shift;
    const uint32_t rest = value & ((1u << shift) - 1u);
    const uint32_t half = 1u << (shift - 1u);
    return kept + (rest > half || (rest == half && (kept & 1u) != 0));
}

uint16_t pgd_f32_to_f16(float value)
{
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { /* NaN keeps the upper bits of its payload and becomes quiet */
        return (uint16_t) (sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) { /* 65520, half way between the largest f16 and what would be next */
        return (uint16_t) (sign | 0x7c00u);
    }
    if (magnitude >= 0x38800000u) { /* 2^-14, the smallest normal f16; a carry rightly ends in the exponent */
        return (uint16_t) (sign | shift_round(magnitude - (112u << 23), 13));
    }
    if (magnitude < 0x33000000u) { /* below 2^-25, half of the smallest denormal */
        return (uint16_t) sign;
    }
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    return (uint16_t) (sign | shift_round(mantissa, 126u - (magnitude >> 23)));
}
