/* engine/rng.h - repeatable random numbers: splitmix64 (Steele, Lea, Flood 2014). Every seed is good. Pure. */
#ifndef PGD_ENGINE_RNG_H
#define PGD_ENGINE_RNG_H

#include <stdint.h>

struct pgd_rng {
    uint64_t state; /* the seed */
};

static inline uint64_t pgd_rng_next(struct pgd_rng *rng)
{
    rng->state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t mixed = rng->state;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
    return mixed ^ (mixed >> 31);
}

/* 0 .. limit - 1; limit must not be 0. The bias is limit / 2^64, nothing that a measurement could see. */
static inline uint64_t pgd_rng_below(struct pgd_rng *rng, uint64_t limit)
{
    return pgd_rng_next(rng) % limit;
}

#endif
