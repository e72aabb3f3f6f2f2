/* base/number.h - arithmetic on sizes that cannot overflow silently, and rounding. */
#ifndef PGD_BASE_NUMBER_H
#define PGD_BASE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

/* *result = a + b (a * b); false, with *result untouched, on overflow. */
PGD_MUST_CHECK static inline bool pgd_add_u64(uint64_t a, uint64_t b, uint64_t *result)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *result = sum;
    return true;
}

PGD_MUST_CHECK static inline bool pgd_mul_u64(uint64_t a, uint64_t b, uint64_t *result)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *result = product;
    return true;
}

/* A number that is as good as drawn, and always the same for `number`: neighbours fall far apart. */
static inline uint64_t pgd_scatter_u64(uint64_t number)
{
    uint64_t mixed = (number + 1) * UINT64_C(0x9E3779B97F4A7C15);
    mixed = (mixed ^ mixed >> 32) * UINT64_C(0x9E3779B97F4A7C15);
    return mixed ^ mixed >> 29;
}

/* a + b, or UINT64_MAX when that is too large. */
static inline uint64_t pgd_add_capped_u64(uint64_t a, uint64_t b)
{
    uint64_t sum = UINT64_MAX;
    return pgd_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

static inline uint64_t pgd_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t pgd_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* a / b rounded up; b > 0. */
static inline uint64_t pgd_div_up_u64(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* a rounded up to a multiple of b; the caller knows that it fits. */
static inline uint64_t pgd_round_up_u64(uint64_t a, uint64_t b)
{
    return pgd_div_up_u64(a, b) * b;
}

#endif
