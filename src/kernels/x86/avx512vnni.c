/* kernels/x86/avx512vnni.c - AVX-512 with the byte dot product of VNNI. */
#include "kernels/x86/avx512.inc.h"

static inline v16i v16i_dot4(v16i sums, v64 codes, int32_t word)
{
    return _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(word));
}

static inline v16i v16i_dot4_wide(v16i sums, v64 codes, int32_t word)
{
    return v16i_dot4(sums, codes, word);
}

static inline v16i v16i_dot4_each(v16i sums, v64 codes, v64 words)
{
    return _mm512_dpbusd_epi32(sums, codes, words);
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_avx512vnni, "avx512vnni");
