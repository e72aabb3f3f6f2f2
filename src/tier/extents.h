/* tier/extents.h - which parts of a file are in use: first fit over a sorted array of free extents.
 *
 *   0                                        end                    units
 *   | used | free | used     | free | used    | never used, or free again |
 *
 * Everything is counted in units (the caller's choice of bytes). What lies at or behind `end` is free without an entry.
 *
 * Invariants
 *   I1  Entries are sorted by offset, not empty, do not touch each other and end before `end`.
 *   I2  used + lost + sum of the entries == end <= units.
 *   I3  No more than `capacity` entries: when there is no place for one more, the smallest is lost until reset.
 * Ownership: the entries are memory of the caller's. Threads: the owner's.
 */
#ifndef PGD_TIER_EXTENTS_H
#define PGD_TIER_EXTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

struct pgd_extent {
    uint32_t offset;
    uint32_t count;
};

struct pgd_extents {
    struct pgd_extent *entries; /* [capacity] */
    uint32_t capacity;          /* > 0 */
    uint32_t entry_count;
    uint32_t units; /* most that `end` can be */
    uint32_t end;
    uint32_t used;
    uint32_t lost;
};

/* Makes all units free. */
void pgd_extents_init(struct pgd_extents *extents, struct pgd_extent *entries, uint32_t capacity, uint32_t units);

/* Takes `count` (> 0) units that lie together, the first that fit; false when there are none. O(entries). */
PGD_MUST_CHECK bool pgd_extents_take(struct pgd_extents *extents, uint32_t count, uint32_t *offset);

/* Whether take would find `count` units. O(entries). */
PGD_MUST_CHECK bool pgd_extents_can_take(const struct pgd_extents *extents, uint32_t count);

/* Gives units that were taken back, and joins them with free neighbours. O(entries). The answer is what there is no
 * entry for any more (count 0: nothing): the range is lost until init. */
struct pgd_extent pgd_extents_give(struct pgd_extents *extents, uint32_t offset, uint32_t count);

/* Full walk of I1-I3, for tests. */
bool pgd_extents_is_valid(const struct pgd_extents *extents);

#endif
