/* page/pool_layout.h - the sizes of a pool: what follows from its options alone.
 *
 * Invariants
 *   I1  Every class is a multiple of PGD_FRAME_ALIGN and fits in a slab at least once.
 *   I2  slab << place_bits | place is below PGD_FRAME_NONE for every slab and place.
 *   I3  With one class, a slab is one frame.
 * Ownership: plain value. Threads: pure.
 */
#ifndef PGD_PAGE_POOL_LAYOUT_H
#define PGD_PAGE_POOL_LAYOUT_H

#include <stdint.h>

#include "base/check.h"
#include "page/pool.h"

struct pgd_pool_layout {
    uint64_t slab_bytes;
    uint64_t arena_bytes; /* whole slabs */
    uint32_t slab_count;
    uint32_t place_bits; /* bits of a frame number that say the place in the slab */
    uint32_t places_max; /* most places that a slab of any class has */
    uint32_t class_count;
    uint64_t class_bytes[PGD_POOL_CLASSES_MAX];
};

/* Errors: INVALID (no class, or one of 0 bytes), LIMIT (too many classes, too large, or more frames than
 * have numbers). */
PGD_MUST_CHECK enum pagoda_status pgd_pool_layout_make(struct pgd_pool_layout *layout, uint64_t arena_bytes,
                                                       const uint64_t *class_bytes, uint32_t class_count,
                                                       struct pagoda_error *error);

#endif
