/* kernels/x86/avx512.c - a vector is one __m512: AVX-512 F, BW, DQ and VL. */
#include <immintrin.h>
#include <stdint.h>

typedef __m512 v16;

/* 24 accumulators of 32 registers, for scores and for outputs alike. */
#define DOT_ROWS 6u
#define DOT_BLOCKS 2u
#define WEIGH_ROWS 6u
#define WEIGH_VECTORS 4u
#define FOR_DOT_ROWS FOR_6_ROWS
#define FOR_WEIGH_ROWS FOR_6_ROWS

static inline __mmask16 lanes_below(uint32_t n)
{
    return (__mmask16) ((1u << n) - 1u);
}

static inline v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v16_load(const float *from)
{
    return _mm512_loadu_ps(from);
}

static inline v16 v16_load_n(const float *from, uint32_t n)
{
    return _mm512_maskz_loadu_ps(lanes_below(n), from);
}

static inline void v16_store(float *to, v16 a)
{
    _mm512_storeu_ps(to, a);
}

static inline void v16_store_n(float *to, v16 a, uint32_t n)
{
    _mm512_mask_storeu_ps(to, lanes_below(n), a);
}

static inline v16 v16_load_f16(const uint16_t *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (const void *) from));
}

static inline v16 v16_load_f16_n(const uint16_t *from, uint32_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_below(n), from));
}

static inline void v16_store_f16(uint16_t *to, v16 a)
{
    _mm256_storeu_si256((__m256i *) (void *) to, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v16_greater(v16 a, v16 b)
{
    return _mm512_max_ps(a, b); /* b when they are equal or one is NaN */
}

static inline v16 v16_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

static inline v16 v16_where_lanes(uint32_t first, uint32_t end, v16 x, v16 y)
{
    return _mm512_mask_blend_ps((__mmask16) (lanes_below(end) & ~lanes_below(first)), y, x);
}

static inline v16 v16_shift_to_exponent(v16 t)
{
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_castps_si512(_mm512_set1_ps(1.0f))));
}

static inline float v16_sum(v16 a)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float v16_largest(v16 a)
{
    return _mm512_reduce_max_ps(a);
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_avx512, "avx512");
