/* kernels/x86/avx2.c - a vector is two __m256: AVX2, FMA and F16C. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    __m256 low;
    __m256 high;
} v16;

/* 12 accumulators of 16 registers for scores. 8 for outputs: enough for two FMA units; with 12, compilers spill. */
#define DOT_ROWS 3u
#define DOT_BLOCKS 1u
#define WEIGH_ROWS 4u
#define WEIGH_VECTORS 1u
#define FOR_DOT_ROWS FOR_3_ROWS
#define FOR_WEIGH_ROWS FOR_4_ROWS

static inline v16 v16_set1(float x)
{
    const __m256 half = _mm256_set1_ps(x);
    return (v16) {half, half};
}

static inline v16 v16_load(const float *from)
{
    return (v16) {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}

static inline v16 v16_load_n(const float *from, uint32_t n)
{
    float all[16] = {0};
    memcpy(all, from, n * sizeof *all);
    return v16_load(all);
}

static inline void v16_store(float *to, v16 a)
{
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
}

static inline void v16_store_n(float *to, v16 a, uint32_t n)
{
    float all[16];
    v16_store(all, a);
    memcpy(to, all, n * sizeof *all);
}

static inline v16 v16_load_f16(const uint16_t *from)
{
    const __m128i *halves = (const __m128i *) (const void *) from;
    return (v16) {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}

static inline v16 v16_load_f16_n(const uint16_t *from, uint32_t n)
{
    uint16_t all[16] = {0};
    memcpy(all, from, n * sizeof *all);
    return v16_load_f16(all);
}

static inline void v16_store_f16(uint16_t *to, v16 a)
{
    __m128i *halves = (__m128i *) (void *) to;
    _mm_storeu_si128(halves, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v16_add(v16 a, v16 b)
{
    return (v16) {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return (v16) {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return (v16) {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

static inline v16 v16_div(v16 a, v16 b)
{
    return (v16) {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16) {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

static inline v16 v16_greater(v16 a, v16 b)
{
    return (v16) {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; /* b when equal or NaN */
}

static inline v16 v16_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16) {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

/* All ones in the lanes first <= base + i < end. */
static inline __m256 lane_mask(int first, int end, int base)
{
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(base));
    const __m256i from_first = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1));
    const __m256i below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane);
    return _mm256_castsi256_ps(_mm256_and_si256(from_first, below_end));
}

static inline v16 v16_where_lanes(uint32_t first, uint32_t end, v16 x, v16 y)
{
    return (v16) {_mm256_blendv_ps(y.low, x.low, lane_mask((int) first, (int) end, 0)),
                  _mm256_blendv_ps(y.high, x.high, lane_mask((int) first, (int) end, 8))};
}

static inline __m256 shift_half_to_exponent(__m256 t)
{
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_castps_si256(_mm256_set1_ps(1.0f))));
}

static inline v16 v16_shift_to_exponent(v16 t)
{
    return (v16) {shift_half_to_exponent(t.low), shift_half_to_exponent(t.high)};
}

static inline float v16_sum(v16 a)
{
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float v16_largest(v16 a)
{
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_avx2, "avx2");
