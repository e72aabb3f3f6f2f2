/* kernels/arm/neon.c - the kernels for every 64-bit ARM. */
#include "kernels/arm/neon.inc.h"

/* Sums of two products fit in 16 bits, because codes and the words' bytes are below 128. */
static inline int32x4_t quarter_dot4(int32x4_t sums, uint8x16_t codes, int8x16_t words)
{
    const int8x16_t numbers = vreinterpretq_s8_u8(codes);
    const int16x8_t low = vmull_s8(vget_low_s8(numbers), vget_low_s8(words));
    const int16x8_t high = vmull_high_s8(numbers, words);
    return vpadalq_s16(sums, vpaddq_s16(low, high));
}

#include "kernels/attend.inc.h"

PGD_DEFINE_LEVEL(pgd_kernels_neon, "neon");
