/* kernels/x86/avx512.c - a vector is one __m512: AVX-512 F, BW, DQ and VL. */
#include "kernels/x86/avx512.inc.h"

/* Pairs of products fit in 16 bits, because codes and the words' bytes are below 128. */
static inline v16i v16i_dot4(v16i sums, v64 codes, int32_t word)
{
    const v16i pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi32(word));
    return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/* 2 * (the upper seven bits) + the lowest. */
static inline v16i v16i_dot4_wide(v16i sums, v64 codes, int32_t word)
{
    const v64 upper = _mm512_and_si512(_mm512_srli_epi16(codes, 1), _mm512_set1_epi8(127));
    const v16i twice = v16i_dot4(_mm512_setzero_si512(), upper, word);
    sums = v16i_dot4(sums, _mm512_and_si512(codes, _mm512_set1_epi8(1)), word);
    return _mm512_add_epi32(sums, _mm512_add_epi32(twice, twice));
}

static inline v16i v16i_dot4_each(v16i sums, v64 codes, v64 words)
{
    return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(codes, words), _mm512_set1_epi16(1)));
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_avx512, "avx512");
