/* page/pool.h - fixed-size frames carved from one reserved arena.
 *
 *   arena   | slab 0        | slab 1        | slab 2        | ...      one reservation, 64-byte aligned
 *   slab    | frame | frame | frame | rest  |                          frames of one class
 *
 * A class is a frame size: one per distinct page size (layer shape x codec). A slab belongs to no
 * class, or to one for as long as one of its frames is taken. With one class a slab is one frame
 * and nothing is lost; with several, a slab holds a few of the largest.
 *
 * Invariants
 *   I1  A frame is taken or free, never both; a free frame's slab is classless or has a free place.
 *   I2  taken frames of all classes == frames handed out and not given back.
 *   I3  Frames do not overlap and lie inside the arena.
 *   I4  The slabs that hold frames are never more than the limit, which is the whole arena until set_limit says
 *       otherwise; only copy_inside may go beyond it, until what it copied has been given back.
 * Ownership: the pool owns the arena; a frame's bytes are the taker's until given back.
 * Threads:   the owner's thread; frame addresses may be read by others while taken.
 */
#ifndef PGD_PAGE_POOL_H
#define PGD_PAGE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/system.h"
#include "pagoda/status.h"

#define PGD_FRAME_NONE UINT32_MAX
#define PGD_POOL_CLASSES_MAX 16u
#define PGD_FRAME_ALIGN 64u

struct pgd_pool;

/* Reserves arena_bytes (rounded down to whole slabs; may be 0) for class_count classes of class_bytes[i]
 * (each > 0; rounded up to PGD_FRAME_ALIGN). Bookkeeping comes from system->allocator; its bytes are
 * pgd_pool_table_bytes. Errors: NOMEM, INVALID, LIMIT. */
PGD_MUST_CHECK enum pagoda_status pgd_pool_open(const struct pgd_system *system, uint64_t arena_bytes,
                                                const uint64_t *class_bytes, uint32_t class_count,
                                                struct pgd_pool **pool, struct pagoda_error *error);
void pgd_pool_close(struct pgd_pool *pool);

/* Bytes of bookkeeping that a pool of this arena and these classes allocates; UINT64_MAX when
 * pgd_pool_open would refuse them. */
uint64_t pgd_pool_table_bytes(uint64_t arena_bytes, const uint64_t *class_bytes, uint32_t class_count);

/* An arena that surely holds frames[i] frames of every class i at the same time, with one partly filled slab in each
 * class and, if there are several, one that is empty. */
uint64_t pgd_pool_arena_bytes(const uint64_t *class_bytes, uint32_t class_count, const uint64_t *frames);

/* Takes a frame of a class, all its bytes zero; false when none is free. O(1), but for the zeroes: bytes
 * that were never handed out since open or reset are not written, so they stay with the system. */
PGD_MUST_CHECK bool pgd_pool_take(struct pgd_pool *pool, uint32_t class_index, uint32_t *frame);

/* Gives a frame back. O(1). */
void pgd_pool_give(struct pgd_pool *pool, uint32_t frame);

/* Gives every frame back and returns the arena's memory to the system. O(slabs used). */
void pgd_pool_reset(struct pgd_pool *pool);

/* Of a taken frame. Aligned to PGD_FRAME_ALIGN. */
void *pgd_pool_address(const struct pgd_pool *pool, uint32_t frame);
uint64_t pgd_pool_frame_bytes(const struct pgd_pool *pool, uint32_t class_index);
uint32_t pgd_pool_class_of(const struct pgd_pool *pool, uint32_t frame);

/* Frames of a class that can be taken now if no other class takes any. */
uint32_t pgd_pool_available(const struct pgd_pool *pool, uint32_t class_index);

/* Whether needs[i] frames of every class i can be taken together, and `slabs` slabs be left for any class. Exact,
 * O(classes). */
bool pgd_pool_can_take(const struct pgd_pool *pool, const uint32_t *needs, uint32_t slabs);

/* How many slabs without frames needs[i] frames of every class i take, beside the free places. O(classes). */
uint64_t pgd_pool_slabs_needed(const struct pgd_pool *pool, const uint32_t *needs);

/* Emptying a slab, so that another class can have it. First every frame that may not move is marked; then, for a
 * class, pick_to_empty names the partly filled slab with the fewest frames among those without a marked one, if other
 * partly filled slabs have places for all of them, and keeps it from being taken from before those are full. The
 * caller moves the frames: takes another for each that is in it, and gives the old one back. O(slabs). */
void pgd_pool_clear_marks(struct pgd_pool *pool);
void pgd_pool_mark(struct pgd_pool *pool, uint32_t frame);
/* False when pick_to_empty would be for every class, whatever is marked. O(classes). */
bool pgd_pool_may_empty(const struct pgd_pool *pool);
PGD_MUST_CHECK bool pgd_pool_pick_to_empty(struct pgd_pool *pool, uint32_t class_index, uint32_t *slab);
uint32_t pgd_pool_slab_of(const struct pgd_pool *pool, uint32_t frame);

/* Marked slabs that hold frames. O(slabs). */
uint32_t pgd_pool_slabs_marked(const struct pgd_pool *pool);

/* Making the pool smaller, and larger again up to the arena. From now on at most `slabs` slabs hold frames; no more may
 * hold some now. Frames are taken only from the first `slabs` slabs of the arena; what is in the others stays until it
 * is given back, or moved: copy_inside takes another frame for one that lies beyond the limit, with the same bytes,
 * and is false for those that do not, or whose slab is marked: a slab is left by all its frames or by none.
 * discard_free returns the memory of all slabs without frames to the system, in whole system pages. O(slabs);
 * copy_inside O(1). */
void pgd_pool_set_limit(struct pgd_pool *pool, uint32_t slabs);
PGD_MUST_CHECK bool pgd_pool_copy_inside(struct pgd_pool *pool, uint32_t frame, uint32_t *inside);
void pgd_pool_discard_free(struct pgd_pool *pool);
uint32_t pgd_pool_slab_count(const struct pgd_pool *pool);
uint32_t pgd_pool_slab_limit(const struct pgd_pool *pool);
uint32_t pgd_pool_slabs_used(const struct pgd_pool *pool);

uint64_t pgd_pool_slab_bytes(const struct pgd_pool *pool);
uint64_t pgd_pool_taken_bytes(const struct pgd_pool *pool);

/* Full walk of I1-I3, for tests. */
bool pgd_pool_is_valid(const struct pgd_pool *pool);

#endif
