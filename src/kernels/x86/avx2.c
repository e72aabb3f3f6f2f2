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

/* ---- whole numbers ---- */

typedef struct {
    __m256i low;
    __m256i high;
} v16i;

typedef struct {
    __m256i low;
    __m256i high;
} v64;

/* 12 accumulators for scores and for outputs. */
#define PACKED_DOT_ROWS 3u
#define PACKED_WEIGH_ROWS 3u
#define PACKED_WEIGH_VECTORS 1u
#define FOR_PACKED_DOT_ROWS FOR_3_ROWS
#define FOR_PACKED_WEIGH_ROWS FOR_3_ROWS

static inline v16i v16i_zero(void)
{
    return (v16i) {_mm256_setzero_si256(), _mm256_setzero_si256()};
}

static inline v16i v16i_set1(int32_t n)
{
    return (v16i) {_mm256_set1_epi32(n), _mm256_set1_epi32(n)};
}

static inline v16i v16i_add(v16i a, v16i b)
{
    return (v16i) {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}

static inline v16i v16i_sub(v16i a, v16i b)
{
    return (v16i) {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}

static inline v16i v16i_mul(v16i a, v16i b)
{
    return (v16i) {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
}

static inline v16i v16i_shift_left_7(v16i a)
{
    return (v16i) {_mm256_slli_epi32(a.low, 7), _mm256_slli_epi32(a.high, 7)};
}

static inline v16 v16i_to_float(v16i a)
{
    return (v16) {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}

static inline v16i v16_round(v16 a)
{
    return (v16i) {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)};
}

static inline void v16i_store(int32_t *to, v16i a)
{
    _mm256_storeu_si256((__m256i *) (void *) to, a.low);
    _mm256_storeu_si256((__m256i *) (void *) (to + 8), a.high);
}

/* 16 numbers below 256 as bytes: packing works on halves of vectors, the permutation puts them in order. */
static inline __m128i narrow(v16i a)
{
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a.low, a.high), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

static inline void v16i_store_planes(uint8_t *high, uint8_t *low, v16i a)
{
    const v16i upper = {_mm256_srli_epi32(a.low, 7), _mm256_srli_epi32(a.high, 7)};
    const __m256i mask = _mm256_set1_epi32(127);
    const v16i lower = {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
    _mm_storeu_si128((__m128i *) (void *) high, narrow(upper));
    _mm_storeu_si128((__m128i *) (void *) low, narrow(lower));
}

static inline v64 v64_load(const uint8_t *from)
{
    return (v64) {_mm256_loadu_si256((const __m256i *) (const void *) from),
                  _mm256_loadu_si256((const __m256i *) (const void *) (from + 32))};
}

static inline __m256i half_nibble(__m256i line, uint32_t odd)
{
    return _mm256_and_si256(odd != 0 ? _mm256_srli_epi16(line, 4) : line, _mm256_set1_epi8(15));
}

static inline v64 v64_nibble(v64 line, uint32_t odd)
{
    return (v64) {half_nibble(line.low, odd), half_nibble(line.high, odd)};
}

/* Shifts are of 16 bits; what they carry from the neighbouring byte does not reach the bits that are kept. */
static inline __m256i half_with_bits(__m256i tile, __m256i line, uint32_t at, uint32_t count)
{
    const __m256i moved = at < 4 ? _mm256_slli_epi16(line, (int) (4 - at)) : _mm256_srli_epi16(line, (int) (at - 4));
    const __m256i mask = _mm256_set1_epi8((char) (((1u << count) - 1u) << 4));
    return _mm256_or_si256(tile, _mm256_and_si256(moved, mask));
}

static inline v64 v64_with_bits(v64 tile, v64 line, uint32_t at, uint32_t count)
{
    return (v64) {half_with_bits(tile.low, line.low, at, count), half_with_bits(tile.high, line.high, at, count)};
}

/* Pairs of products fit in 16 bits, because codes and the words' bytes are below 128. */
static inline __m256i half_dot4(__m256i codes, int32_t word)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, _mm256_set1_epi32(word)), _mm256_set1_epi16(1));
}

static inline v16i v16i_dot4(v16i sums, v64 codes, int32_t word)
{
    return v16i_add(sums, (v16i) {half_dot4(codes.low, word), half_dot4(codes.high, word)});
}

/* 2 * (the upper seven bits) + the lowest. */
static inline __m256i half_dot4_wide(__m256i codes, int32_t word)
{
    const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(codes, 1), _mm256_set1_epi8(127));
    const __m256i once = half_dot4(_mm256_and_si256(codes, _mm256_set1_epi8(1)), word);
    const __m256i half = half_dot4(upper, word);
    return _mm256_add_epi32(once, _mm256_add_epi32(half, half));
}

static inline v16i v16i_dot4_wide(v16i sums, v64 codes, int32_t word)
{
    return v16i_add(sums, (v16i) {half_dot4_wide(codes.low, word), half_dot4_wide(codes.high, word)});
}

/* ---- digests ---- */

static inline v16i v16i_load_bytes(const uint8_t *from)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *) (const void *) from);
    return (v16i) {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}

static inline v16i v16i_bits(v16i a, uint32_t at, uint32_t count)
{
    const __m256i mask = _mm256_set1_epi32((int) ((1u << count) - 1u));
    return (v16i) {_mm256_and_si256(_mm256_srli_epi32(a.low, (int) at), mask),
                   _mm256_and_si256(_mm256_srli_epi32(a.high, (int) at), mask)};
}

/* In each half: the sums of the halves of four vectors. */
static inline __m256i four_sums(const v16i *a)
{
    const __m256i first = _mm256_hadd_epi32(_mm256_add_epi32(a[0].low, a[0].high), //
                                            _mm256_add_epi32(a[1].low, a[1].high));
    const __m256i second = _mm256_hadd_epi32(_mm256_add_epi32(a[2].low, a[2].high), //
                                             _mm256_add_epi32(a[3].low, a[3].high));
    return _mm256_hadd_epi32(first, second);
}

static inline __m256i eight_sums(const v16i *a)
{
    const __m256i first = four_sums(a);
    const __m256i second = four_sums(a + 4);
    return _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                            _mm256_permute2x128_si256(first, second, 0x31));
}

static inline v16i v16i_sums(const v16i *a)
{
    return (v16i) {eight_sums(a), eight_sums(a + 8)};
}

/* The permutation looks at the lowest two bits alone. */
static inline v16 v16_odd(v16i a, uint32_t at)
{
    const __m256 numbers = _mm256_setr_ps(-3, -1, 1, 3, -3, -1, 1, 3);
    return (v16) {_mm256_permutevar_ps(numbers, _mm256_srli_epi32(a.low, (int) at)),
                  _mm256_permutevar_ps(numbers, _mm256_srli_epi32(a.high, (int) at))};
}

/* Shifts are of 64 bits; what they carry from other bytes is masked. */
static inline v64 v64_load_bits(const uint8_t *from)
{
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (const void *) from));
    const __m256i mask = _mm256_set1_epi8(3);
    return (v64) {_mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 2, 2)), mask),
                  _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(4, 4, 6, 6)), mask)};
}

static inline v64 v64_join(v64 low, v64 high, uint32_t at)
{
    return (v64) {_mm256_or_si256(low.low, _mm256_slli_epi16(high.low, (int) at)),
                  _mm256_or_si256(low.high, _mm256_slli_epi16(high.high, (int) at))};
}

static inline __m256i half_dot4_each(__m256i codes, __m256i words)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, words), _mm256_set1_epi16(1));
}

static inline v16i v16i_dot4_each(v16i sums, v64 codes, v64 words)
{
    return v16i_add(sums, (v16i) {half_dot4_each(codes.low, words.low), half_dot4_each(codes.high, words.high)});
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_avx2, "avx2");
