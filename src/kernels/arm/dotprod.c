/* kernels/arm/dotprod.c - NEON with the byte dot product of ARMv8.2. */
#include "kernels/arm/neon.inc.h"

static inline int32x4_t quarter_dot4(int32x4_t sums, uint8x16_t codes, int8x16_t words)
{
    return vdotq_s32(sums, vreinterpretq_s8_u8(codes), words);
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_dotprod, "dotprod");
