/* cache/carver.h - hands pieces of one block of memory out. With base NULL it only counts: the same code does both, so
 * that the size asked for is the size used.
 *
 * Ownership: pieces belong to the block. Threads: the owner's.
 */
#ifndef PGD_CACHE_CARVER_H
#define PGD_CACHE_CARVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/number.h"

#define PGD_CARVE_ALIGN 64u

struct pgd_carver {
    unsigned char *base;
    uint64_t used;
};

static inline void *pgd_carve(struct pgd_carver *carver, uint64_t bytes)
{
    void *piece = carver->base == NULL ? NULL : carver->base + carver->used;
    carver->used += pgd_round_up_u64(bytes, PGD_CARVE_ALIGN);
    return piece;
}

#endif
