/* kernels/logarithm.h - the numbers of digest.h's logarithm of 1 <= x <= 16, shared by the reference and the vector
 * kernels.
 *
 * When 4 < x: x = x * 0.25, whole = 2 ln 2; else whole = 0. When 2 < x: x = x * 0.5, whole = whole + ln 2. Then
 *   z = (x - 1) / (x + 1)                      at most 1 / 3
 *   p = C5; p = fma(p, z * z, C4); ... down to C0
 *   ln x = fma(p, z, whole)                    within 2^-22: ln((1 + z) / (1 - z)) = 2 z (1 + z^2 / 3 + z^4 / 5 + ...)
 * NaN comes out as NaN.
 */
#ifndef PGD_KERNELS_LOGARITHM_H
#define PGD_KERNELS_LOGARITHM_H

#define PGD_LN_2 0x1.62e43p-1f
#define PGD_LN_C0 2.0f
#define PGD_LN_C1 (2.0f / 3)
#define PGD_LN_C2 (2.0f / 5)
#define PGD_LN_C3 (2.0f / 7)
#define PGD_LN_C4 (2.0f / 9)
#define PGD_LN_C5 (2.0f / 11)

#endif
