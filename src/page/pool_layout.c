/* page/pool_layout.c - choosing the slab, and numbering what is in it. */
#include "page/pool_layout.h"

#include <string.h>

#include "base/number.h"
#include "base/status.h"

#define SLAB_FRAMES_MAX 8u /* of the largest class */
#define WASTE_PART 32u     /* a slab may waste 1/32 of its bytes: 3 % */
#define UNIT_BYTES PGD_FRAME_ALIGN

static uint64_t worst_waste(const struct pgd_pool_layout *layout, uint64_t slab_bytes)
{
    uint64_t worst = 0;
    for (uint32_t i = 0; i < layout->class_count; i++) {
        worst = pgd_max_u64(worst, slab_bytes % layout->class_bytes[i]);
    }
    return worst;
}

/* The smallest slab that wastes at most 1/WASTE_PART for every class; if no slab up to the limit does, the
 * one that wastes the smallest part. With one class, a slab is one frame. */
static uint64_t choose_slab_bytes(const struct pgd_pool_layout *layout, uint64_t largest)
{
    uint64_t best = largest;
    for (uint32_t frames = 1; frames <= SLAB_FRAMES_MAX; frames++) {
        const uint64_t candidate = largest * frames;
        const uint64_t waste = worst_waste(layout, candidate);
        if (waste <= candidate / WASTE_PART) {
            return candidate;
        }
        /* waste / candidate < worst_waste(best) / best, with both divided by `largest` */
        if (waste * (best / largest) < worst_waste(layout, best) * frames) {
            best = candidate;
        }
    }
    return best;
}

static enum pagoda_status round_classes(struct pgd_pool_layout *layout, const uint64_t *class_bytes,
                                        uint32_t class_count, struct pagoda_error *error)
{
    if (class_count == 0 || class_count > PGD_POOL_CLASSES_MAX) {
        return pgd_fail(error, class_count == 0 ? PAGODA_INVALID : PAGODA_LIMIT,
                        "A pool has 1 to %u page sizes, not %u.", PGD_POOL_CLASSES_MAX, class_count);
    }
    layout->class_count = class_count;
    for (uint32_t i = 0; i < class_count; i++) {
        if (class_bytes[i] == 0) {
            return pgd_fail(error, PAGODA_INVALID, "A page of zero bytes was asked for.");
        }
        /* Small enough that a slab, counted in units, fits in 32 bits, and that nothing below overflows. */
        if (class_bytes[i] > (uint64_t) UINT32_MAX / SLAB_FRAMES_MAX * UNIT_BYTES) {
            return pgd_fail(error, PAGODA_LIMIT, "A page of %llu bytes is larger than a pool can hold.",
                            (unsigned long long) class_bytes[i]);
        }
        layout->class_bytes[i] = pgd_round_up_u64(class_bytes[i], UNIT_BYTES);
    }
    return PAGODA_OK;
}

static uint32_t bits_for(uint32_t count)
{
    uint32_t bits = 0;
    while (bits < 32 && ((uint64_t) 1 << bits) < count) {
        bits++;
    }
    return bits;
}

static enum pagoda_status count_slabs(struct pgd_pool_layout *layout, uint64_t arena_bytes, struct pagoda_error *error)
{
    const uint64_t slabs = arena_bytes / layout->slab_bytes;
    /* One number less than fits: PGD_FRAME_NONE is no frame. */
    if (slabs >= (uint64_t) 1 << (32 - layout->place_bits)) {
        return pgd_fail(error, PAGODA_LIMIT, "%llu bytes are more pages than a pool can number; use larger pages.",
                        (unsigned long long) arena_bytes);
    }
    layout->slab_count = (uint32_t) slabs;
    layout->arena_bytes = slabs * layout->slab_bytes;
    return PAGODA_OK;
}

enum pagoda_status pgd_pool_layout_make(struct pgd_pool_layout *layout, uint64_t arena_bytes,
                                        const uint64_t *class_bytes, uint32_t class_count, struct pagoda_error *error)
{
    memset(layout, 0, sizeof *layout);
    const enum pagoda_status status = round_classes(layout, class_bytes, class_count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    uint64_t largest = 0;
    uint64_t smallest = UINT64_MAX;
    for (uint32_t i = 0; i < class_count; i++) {
        largest = pgd_max_u64(largest, layout->class_bytes[i]);
        smallest = pgd_min_u64(smallest, layout->class_bytes[i]);
    }
    layout->slab_bytes = choose_slab_bytes(layout, largest);
    PGD_ASSERT(layout->slab_bytes / UNIT_BYTES <= UINT32_MAX);
    PGD_ASSERT(layout->slab_bytes / smallest > 0 && layout->slab_bytes / smallest <= UINT32_MAX);
    layout->places_max = (uint32_t) (layout->slab_bytes / smallest);
    layout->place_bits = bits_for(layout->places_max);
    if (layout->place_bits >= 32) {
        return pgd_fail(error, PAGODA_LIMIT, "The page sizes %llu and %llu are too far apart for one pool.",
                        (unsigned long long) smallest, (unsigned long long) largest);
    }
    return count_slabs(layout, arena_bytes, error);
}
