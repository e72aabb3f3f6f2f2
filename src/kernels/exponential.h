/* kernels/exponential.h - the numbers of step 4's exponential, shared by the reference and the vector kernels.
 *
 * exp(x) = 2^n * exp(r), with n the integer nearest to x / ln 2 and r = x - n * ln 2:
 *   t = fma(x, LOG2_E, ROUNDER)                the sum leaves n in the low bits of t's mantissa
 *   n = t - ROUNDER
 *   r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
 *   p = C6; p = fma(p, r, C5); ... down to C0  the polynomial is within 2^-26 of exp(r), relatively
 *   exp(x) = p * 2^n                           exact: n >= -126, and p >= 1 when n is -126
 *   exp(x) = +0 when x < LOWEST                just above the border, the result is still a normal number
 * NaN comes out as NaN. Arguments above HIGHEST are the caller's mistake.
 */
#ifndef PGD_KERNELS_EXPONENTIAL_H
#define PGD_KERNELS_EXPONENTIAL_H

#define PGD_EXP_LOWEST (-87.3f)
#define PGD_EXP_HIGHEST 88.0f

#define PGD_EXP_LOG2_E 0x1.715476p+0f
#define PGD_EXP_LN2_HIGH 0x1.62e43p-1f
#define PGD_EXP_LN2_LOW (-0x1.05c61p-29f)
#define PGD_EXP_ROUNDER 0x1.8p+23f

/* The polynomial interpolates (exp(r) - 1) / r at the Chebyshev points of |r| <= ln 2 / 2. */
#define PGD_EXP_C0 1.0f
#define PGD_EXP_C1 1.0f
#define PGD_EXP_C2 0.5f
#define PGD_EXP_C3 0x1.55547cp-3f
#define PGD_EXP_C4 0x1.5554e8p-5f
#define PGD_EXP_C5 0x1.123dcep-7f
#define PGD_EXP_C6 0x1.6d4362p-10f

/* 2^n from the bits of t: the shift drops everything but n, which becomes the exponent. */
#define PGD_EXP_MANTISSA_BITS 23
#define PGD_EXP_ONE_BITS 0x3f800000u

#endif
