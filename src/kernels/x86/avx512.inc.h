/* kernels/x86/avx512.inc.h - the vocabulary of the vector kernels in AVX-512 F, BW, DQ and VL, but for the dot product
 * of bytes: avx512.c and avx512vnni.c differ in that alone. */
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

/* ---- whole numbers ---- */

typedef __m512i v16i;
typedef __m512i v64;

/* 12 accumulators for scores, 24 for outputs. */
#define PACKED_DOT_ROWS 6u
#define PACKED_WEIGH_ROWS 3u
#define PACKED_WEIGH_VECTORS 4u
#define FOR_PACKED_DOT_ROWS FOR_6_ROWS
#define FOR_PACKED_WEIGH_ROWS FOR_3_ROWS

static inline v16i v16i_zero(void)
{
    return _mm512_setzero_si512();
}

static inline v16i v16i_set1(int32_t n)
{
    return _mm512_set1_epi32(n);
}

static inline v16i v16i_add(v16i a, v16i b)
{
    return _mm512_add_epi32(a, b);
}

static inline v16i v16i_sub(v16i a, v16i b)
{
    return _mm512_sub_epi32(a, b);
}

static inline v16i v16i_mul(v16i a, v16i b)
{
    return _mm512_mullo_epi32(a, b);
}

static inline v16i v16i_shift_left_7(v16i a)
{
    return _mm512_slli_epi32(a, 7);
}

static inline v16 v16i_to_float(v16i a)
{
    return _mm512_cvtepi32_ps(a);
}

static inline v16i v16_round(v16 a)
{
    return _mm512_cvtps_epi32(a);
}

static inline void v16i_store(int32_t *to, v16i a)
{
    _mm512_storeu_si512(to, a);
}

static inline void v16i_store_planes(uint8_t *high, uint8_t *low, v16i a)
{
    _mm_storeu_si128((__m128i *) (void *) high, _mm512_cvtepi32_epi8(_mm512_srli_epi32(a, 7)));
    _mm_storeu_si128((__m128i *) (void *) low, _mm512_cvtepi32_epi8(_mm512_and_si512(a, _mm512_set1_epi32(127))));
}

static inline v64 v64_load(const uint8_t *from)
{
    return _mm512_loadu_si512(from);
}

static inline v64 v64_nibble(v64 line, uint32_t odd)
{
    return _mm512_and_si512(odd != 0 ? _mm512_srli_epi16(line, 4) : line, _mm512_set1_epi8(15));
}

/* Shifts are of 16 bits; what they carry from the neighbouring byte does not reach the bits that are kept. */
static inline v64 v64_with_bits(v64 tile, v64 line, uint32_t at, uint32_t count)
{
    const v64 moved = at < 4 ? _mm512_slli_epi16(line, 4 - at) : _mm512_srli_epi16(line, at - 4);
    const v64 mask = _mm512_set1_epi8((char) (((1u << count) - 1u) << 4));
    return _mm512_ternarylogic_epi32(tile, moved, mask, 0xf8); /* tile | (moved & mask) */
}

/* ---- digests ---- */

static inline v16i v16i_load_bytes(const uint8_t *from)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) (const void *) from));
}

static inline v16i v16i_bits(v16i a, uint32_t at, uint32_t count)
{
    return _mm512_and_si512(_mm512_srli_epi32(a, at), _mm512_set1_epi32((int) ((1u << count) - 1u)));
}

/* In each quarter: the sums of the quarters of four vectors. */
static inline v16i four_sums(const v16i *a)
{
    const v16i first = _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
    const v16i second = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

/* Adds neighbouring quarters: first those of a, then those of b. */
static inline v16i add_quarters(v16i a, v16i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

static inline v16i v16i_sums(const v16i *a)
{
    return add_quarters(add_quarters(four_sums(a), four_sums(a + 4)),
                        add_quarters(four_sums(a + 8), four_sums(a + 12)));
}

/* The permutation looks at the lowest two bits alone. */
static inline v16 v16_odd(v16i a, uint32_t at)
{
    const v16 numbers = _mm512_setr4_ps(-3, -1, 1, 3);
    return _mm512_permutevar_ps(numbers, _mm512_srli_epi32(a, at));
}

/* Shifts are of 64 bits; what they carry from other bytes is masked. */
static inline v64 v64_load_bits(const uint8_t *from)
{
    const v64 four_times = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) (const void *) from));
    const v64 shifted = _mm512_srlv_epi64(four_times, _mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6));
    return _mm512_and_si512(shifted, _mm512_set1_epi8(3));
}

static inline v64 v64_join(v64 low, v64 high, uint32_t at)
{
    return _mm512_or_si512(low, _mm512_slli_epi16(high, at));
}
