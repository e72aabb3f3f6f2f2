/* page/pool.c - frames, carved from slabs, carved from one arena.
 *
 *   arena    | slab 0          | slab 1          | slab 2          | slabs never used so far |
 *              full, class 0     partial, class 1  classless         from `fresh` on
 *   slab     | place 0 | place 1 | place 2 | ...  | rest |
 *              [0, carved) have been handed out since the slab got its class; those of them that
 *              came back are in a list of free places
 *   frame number = slab << place_bits | place
 *
 * States of a slab, and who moves it:
 *
 *     CLASSLESS --- give_class ---> PARTIAL --- hand out the last place ---> FULL
 *         ^                          |   ^                                     |
 *         +--- last frame returns ---+   +---------- a frame returns ----------+
 *
 *   (With one place per slab, FULL goes straight back to CLASSLESS.) Partial slabs are in a doubly
 *   linked list per class, classless ones in a single list, newest first: memory that has been
 *   touched is used again before memory that has not.
 *
 * The limit. Slabs from `slab_limit` on are closed: frames in them stay good and may come back, but none is
 * taken from them, and they are in no list. A closed slab that holds frames counts against the limit like any
 * other; when its last frame has come back, its memory goes back to the system.
 *
 * Zeroes. A frame is zero when it is handed out. Fresh memory is zero already, and writing zeroes to
 * it would only make it resident twice as early: each slab knows up to which byte it has been handed
 * out since the arena was last zero (`touched_units`), and only bytes below that are cleared.
 */
#include "page/pool.h"

#include <stddef.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "page/pool_layout.h"

#define SLAB_NONE UINT32_MAX
#define PLACE_NONE UINT32_MAX
#define PLACE_TAKEN (UINT32_MAX - 1)
#define CLASS_NONE UINT8_MAX
#define UNIT_BYTES PGD_FRAME_ALIGN

/* The system gives back whole pages only, and pages are at most this big: what lies closer than this
 * to the end of the arena may survive a discard. */
#define SYSTEM_PAGE_BYTES_MAX 65536u

struct slab {
    uint32_t next; /* in its list: partial slabs of its class, or classless slabs */
    uint32_t previous;
    uint32_t taken;         /* places handed out now */
    uint32_t carved;        /* places handed out at least once since the slab got its class */
    uint32_t free_place;    /* head of the list of carved places that came back; PLACE_NONE */
    uint32_t touched_units; /* bytes before this, in UNIT_BYTES, may not be zero */
    uint8_t class_index;    /* CLASS_NONE: classless */
    bool is_fixed;          /* marked: not to be emptied */
    uint8_t unused[2];
};
_Static_assert(sizeof(struct slab) == 28, "slabs count against the budget");
_Static_assert(PGD_POOL_CLASSES_MAX < CLASS_NONE, "a class fits in a byte");

struct class_state {
    uint64_t bytes;          /* of one frame */
    uint32_t places;         /* per slab */
    uint32_t partial;        /* head of the list of slabs with a taken and a free place */
    uint32_t partial_places; /* free places in those slabs */
    uint32_t unused;
};

struct pgd_pool {
    struct pgd_system system;
    struct pgd_pool_layout layout;
    struct class_state classes[PGD_POOL_CLASSES_MAX];
    uint64_t taken_bytes;
    char *arena;        /* NULL when the arena has no slab */
    uint32_t classless; /* head of the list of slabs that were used and came back */
    uint32_t classless_count;
    uint32_t fresh;       /* slabs from here on have not been used since open or reset */
    uint32_t slab_limit;  /* slabs from here on are closed */
    uint32_t closed_used; /* closed slabs that hold frames */
    uint32_t unused;
    struct slab *slabs;   /* [slab_count] */
    uint32_t *next_place; /* [slab_count][places_max] PLACE_TAKEN, or the link of a free place */
};
_Static_assert(sizeof(struct pgd_pool) % _Alignof(struct slab) == 0, "slabs follow the pool unpadded");
_Static_assert(sizeof(struct slab) % _Alignof(uint32_t) == 0, "links follow the slabs unpadded");

/* ---- making and ending ---- */

/* Bytes of the one allocation behind a pool: itself, its slabs, a link per place. They fit in 64 bits,
 * because every place has a 32-bit number. */
static uint64_t table_bytes_of(const struct pgd_pool_layout *layout)
{
    const uint64_t per_slab = sizeof(struct slab) + layout->places_max * sizeof(uint32_t);
    return sizeof(struct pgd_pool) + layout->slab_count * per_slab;
}

uint64_t pgd_pool_table_bytes(uint64_t arena_bytes, const uint64_t *class_bytes, uint32_t class_count)
{
    struct pgd_pool_layout layout;
    if (pgd_pool_layout_make(&layout, arena_bytes, class_bytes, class_count, NULL) != PAGODA_OK) {
        return UINT64_MAX;
    }
    return table_bytes_of(&layout);
}

uint64_t pgd_pool_arena_bytes(const uint64_t *class_bytes, uint32_t class_count, const uint64_t *frames)
{
    struct pgd_pool_layout layout;
    if (pgd_pool_layout_make(&layout, 0, class_bytes, class_count, NULL) != PAGODA_OK) {
        return UINT64_MAX;
    }
    uint64_t slabs = class_count > 1 ? 1 : 0; /* one for re-encoding to begin with */
    for (uint32_t i = 0; i < class_count; i++) {
        slabs += pgd_div_up_u64(frames[i], layout.slab_bytes / layout.class_bytes[i]);
        /* Beside others, a class may have one slab that is not full. */
        slabs += class_count > 1 && frames[i] > 0 ? 1 : 0;
    }
    uint64_t bytes;
    return pgd_mul_u64(slabs, layout.slab_bytes, &bytes) ? bytes : UINT64_MAX;
}

/* All frames free, all slabs classless and unused. Bytes that may not be zero are the caller's matter. */
static void empty(struct pgd_pool *pool)
{
    for (uint32_t i = 0; i < pool->layout.class_count; i++) {
        const uint64_t bytes = pool->layout.class_bytes[i];
        pool->classes[i] = (struct class_state) {
            .bytes = bytes,
            .places = (uint32_t) (pool->layout.slab_bytes / bytes),
            .partial = SLAB_NONE,
        };
        PGD_ASSERT(pool->classes[i].places > 0 && pool->classes[i].places <= pool->layout.places_max);
    }
    pool->taken_bytes = 0;
    pool->classless = SLAB_NONE;
    pool->classless_count = 0;
    pool->fresh = 0;
    pool->closed_used = 0;
}

static enum pagoda_status reserve_arena(struct pgd_pool *pool, struct pagoda_error *error)
{
    const size_t bytes = (size_t) pool->layout.arena_bytes;
    if (bytes == 0) {
        return PAGODA_OK;
    }
    const struct pagoda_memory_source *const source = &pool->system.memory;
    char *const arena = source->reserve(source->user, bytes);
    if (arena == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "The system refused to reserve %llu bytes for pages.",
                        (unsigned long long) bytes);
    }
    if ((uintptr_t) arena % PGD_FRAME_ALIGN != 0) {
        source->release(source->user, arena, bytes);
        return pgd_fail(error, PAGODA_INVALID, "The host's memory source returned memory that is not page-aligned.");
    }
    pool->arena = arena;
    return PAGODA_OK;
}

enum pagoda_status pgd_pool_open(const struct pgd_system *system, uint64_t arena_bytes, const uint64_t *class_bytes,
                                 uint32_t class_count, struct pgd_pool **pool, struct pagoda_error *error)
{
    struct pgd_pool_layout layout;
    enum pagoda_status status = pgd_pool_layout_make(&layout, arena_bytes, class_bytes, class_count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const uint64_t table_bytes = table_bytes_of(&layout);
    const bool addressable = table_bytes <= SIZE_MAX && layout.arena_bytes <= SIZE_MAX;
    struct pgd_pool *const made = addressable ? pgd_allocate(system, (size_t) table_bytes) : NULL;
    if (made == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "No memory for the tables of a pool, %llu bytes.",
                        (unsigned long long) table_bytes);
    }
    made->system = *system;
    made->layout = layout;
    made->slab_limit = layout.slab_count;
    made->slabs = (struct slab *) (void *) (made + 1);
    made->next_place = (uint32_t *) (void *) (made->slabs + layout.slab_count);
    PGD_ASSERT((char *) (made->next_place + (size_t) layout.slab_count * layout.places_max) ==
               (char *) made + table_bytes);
    empty(made);
    status = reserve_arena(made, error);
    if (status != PAGODA_OK) {
        pgd_release(system, made, (size_t) table_bytes);
        return status;
    }
    *pool = made;
    return PAGODA_OK;
}

void pgd_pool_close(struct pgd_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    const struct pgd_system system = pool->system;
    if (pool->arena != NULL) {
        system.memory.release(system.memory.user, pool->arena, (size_t) pool->layout.arena_bytes);
    }
    pgd_release(&system, pool, (size_t) table_bytes_of(&pool->layout));
}

/* Slabs that reach into the last, possibly broken, system page of the arena keep what they know of their
 * bytes; all others are zero again. */
static void note_discarded(struct pgd_pool *pool)
{
    const uint64_t arena_bytes = pool->layout.arena_bytes;
    const uint64_t zero_bytes = arena_bytes - pgd_min_u64(arena_bytes, SYSTEM_PAGE_BYTES_MAX);
    const uint32_t zero_slabs = (uint32_t) (zero_bytes / pool->layout.slab_bytes);
    PGD_ASSERT(zero_slabs <= pool->layout.slab_count);
    const uint32_t used = pool->fresh;
    for (uint32_t i = 0; i < used && i < zero_slabs; i++) {
        pool->slabs[i].touched_units = 0;
    }
}

void pgd_pool_reset(struct pgd_pool *pool)
{
    if (pool->arena != NULL) {
        const struct pagoda_memory_source *const source = &pool->system.memory;
        source->discard(source->user, pool->arena, (size_t) pool->layout.arena_bytes);
        note_discarded(pool);
    }
    empty(pool);
}

/* ---- slabs ---- */

static void link_partial(struct pgd_pool *pool, uint32_t number)
{
    struct slab *const slab = &pool->slabs[number];
    struct class_state *const class_state = &pool->classes[slab->class_index];
    slab->previous = SLAB_NONE;
    slab->next = class_state->partial;
    if (slab->next != SLAB_NONE) {
        pool->slabs[slab->next].previous = number;
    }
    class_state->partial = number;
}

static void unlink_partial(struct pgd_pool *pool, uint32_t number)
{
    const struct slab *const slab = &pool->slabs[number];
    struct class_state *const class_state = &pool->classes[slab->class_index];
    if (slab->previous == SLAB_NONE) {
        PGD_ASSERT(class_state->partial == number);
        class_state->partial = slab->next;
    } else {
        PGD_ASSERT(pool->slabs[slab->previous].next == number);
        pool->slabs[slab->previous].next = slab->next;
    }
    if (slab->next != SLAB_NONE) {
        pool->slabs[slab->next].previous = slab->previous;
    }
}

/* CLASSLESS -> PARTIAL, with all places free. The caller knows that there is a classless slab. */
static void give_class(struct pgd_pool *pool, uint32_t class_index)
{
    uint32_t number = pool->classless;
    struct slab *slab;
    if (number != SLAB_NONE) {
        slab = &pool->slabs[number];
        PGD_ASSERT(slab->class_index == CLASS_NONE && slab->taken == 0);
        PGD_ASSERT(pool->classless_count > 0);
        pool->classless = slab->next;
        pool->classless_count--;
    } else {
        number = pool->fresh++;
        slab = &pool->slabs[number];
    }
    PGD_ASSERT(number < pool->slab_limit);
    slab->class_index = (uint8_t) class_index;
    slab->taken = 0;
    slab->carved = 0;
    slab->free_place = PLACE_NONE;
    pool->classes[class_index].partial_places += pool->classes[class_index].places;
    link_partial(pool, number);
}

/* PARTIAL -> CLASSLESS, when its last frame has come back. */
static void take_class(struct pgd_pool *pool, uint32_t number)
{
    struct slab *const slab = &pool->slabs[number];
    struct class_state *const class_state = &pool->classes[slab->class_index];
    PGD_ASSERT(slab->taken == 0);
    PGD_ASSERT(class_state->partial_places >= class_state->places);
    unlink_partial(pool, number);
    class_state->partial_places -= class_state->places;
    slab->class_index = CLASS_NONE;
    slab->next = pool->classless;
    pool->classless = number;
    pool->classless_count++;
}

/* Slabs below the limit that hold no frame. */
static uint32_t open_slabs_free(const struct pgd_pool *pool)
{
    return pool->classless_count + (pool->slab_limit - (uint32_t) pgd_min_u64(pool->slab_limit, pool->fresh));
}

/* Slabs that may be given a class: what closed ones hold counts against the limit as well. */
static uint32_t classless_slabs(const struct pgd_pool *pool)
{
    const uint32_t free_slabs = open_slabs_free(pool);
    return free_slabs - (uint32_t) pgd_min_u64(free_slabs, pool->closed_used);
}

static bool is_closed(const struct pgd_pool *pool, uint32_t number)
{
    return number >= pool->slab_limit;
}

/* ---- memory that goes back ---- */

/* What is known of a slab's bytes once [start, end) of the arena was discarded: whole system pages inside are zero. */
static void note_zeroes(struct pgd_pool *pool, uint32_t number, uint64_t start, uint64_t end)
{
    struct slab *const slab = &pool->slabs[number];
    const uint64_t first = number * pool->layout.slab_bytes;
    const uint64_t touched_end = first + (uint64_t) slab->touched_units * UNIT_BYTES;
    const uint64_t zero_start = pgd_round_up_u64(start, SYSTEM_PAGE_BYTES_MAX);
    const uint64_t zero_end = end - end % SYSTEM_PAGE_BYTES_MAX;
    if (touched_end <= zero_end) {
        const uint64_t left = pgd_min_u64(touched_end, pgd_max_u64(zero_start, first)) - first;
        slab->touched_units = (uint32_t) (left / UNIT_BYTES);
    }
}

/* Gives the memory of the slabs [first, end), none of which holds a frame, back to the system. */
static void discard_run(struct pgd_pool *pool, uint32_t first, uint32_t end)
{
    const struct pagoda_memory_source *const source = &pool->system.memory;
    const uint64_t start_bytes = first * pool->layout.slab_bytes;
    uint64_t end_bytes = end * pool->layout.slab_bytes;
    if (end == pool->fresh) { /* nothing was touched behind it: the last system page may go whole */
        end_bytes = pgd_min_u64(pgd_round_up_u64(end_bytes, SYSTEM_PAGE_BYTES_MAX), pool->layout.arena_bytes);
    }
    source->discard(source->user, pool->arena + start_bytes, (size_t) (end_bytes - start_bytes));
    for (uint32_t number = first; number < end; number++) {
        note_zeroes(pool, number, start_bytes, end_bytes);
    }
}

void pgd_pool_discard_free(struct pgd_pool *pool)
{
    uint32_t number = 0;
    while (number < pool->fresh) {
        uint32_t end = number;
        bool touched = false;
        while (end < pool->fresh && pool->slabs[end].class_index == CLASS_NONE) {
            touched = touched || pool->slabs[end].touched_units > 0;
            end++;
        }
        if (touched) {
            discard_run(pool, number, end);
        }
        number = end + 1;
    }
}

/* A closed slab whose last frame has come back. */
static void leave_closed(struct pgd_pool *pool, uint32_t number)
{
    PGD_ASSERT(pool->closed_used > 0);
    pool->closed_used--;
    pool->slabs[number].class_index = CLASS_NONE;
    discard_run(pool, number, number + 1);
}

/* ---- the limit ---- */

uint32_t pgd_pool_slab_count(const struct pgd_pool *pool)
{
    return pool->layout.slab_count;
}

uint32_t pgd_pool_slab_limit(const struct pgd_pool *pool)
{
    return pool->slab_limit;
}

uint32_t pgd_pool_slabs_used(const struct pgd_pool *pool)
{
    return pool->slab_limit - open_slabs_free(pool) + pool->closed_used;
}

/* Makes the lists anew for another limit, lowest slabs first. */
static void list_slabs(struct pgd_pool *pool)
{
    for (uint32_t i = 0; i < pool->layout.class_count; i++) {
        pool->classes[i].partial = SLAB_NONE;
        pool->classes[i].partial_places = 0;
    }
    pool->classless = SLAB_NONE;
    pool->classless_count = 0;
    pool->closed_used = 0;
    for (uint32_t number = pool->fresh; number-- > 0;) {
        struct slab *const slab = &pool->slabs[number];
        const bool has_class = slab->class_index != CLASS_NONE;
        if (is_closed(pool, number)) {
            pool->closed_used += has_class ? 1 : 0;
        } else if (!has_class) {
            slab->next = pool->classless;
            pool->classless = number;
            pool->classless_count++;
        } else if (slab->taken < pool->classes[slab->class_index].places) {
            pool->classes[slab->class_index].partial_places += pool->classes[slab->class_index].places - slab->taken;
            link_partial(pool, number);
        }
    }
}

void pgd_pool_set_limit(struct pgd_pool *pool, uint32_t slabs)
{
    PGD_ASSERT(slabs <= pool->layout.slab_count);
    PGD_ASSERT(pgd_pool_slabs_used(pool) <= slabs); /* I4 */
    pool->slab_limit = slabs;
    list_slabs(pool);
}

/* ---- emptying slabs ---- */

void pgd_pool_clear_marks(struct pgd_pool *pool)
{
    for (uint32_t number = 0; number < pool->fresh; number++) {
        pool->slabs[number].is_fixed = false;
    }
}

void pgd_pool_mark(struct pgd_pool *pool, uint32_t frame)
{
    pool->slabs[pgd_pool_slab_of(pool, frame)].is_fixed = true;
}

uint32_t pgd_pool_slabs_marked(const struct pgd_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t number = 0; number < pool->fresh; number++) {
        const struct slab *const slab = &pool->slabs[number];
        count += slab->class_index != CLASS_NONE && slab->is_fixed ? 1 : 0;
    }
    return count;
}

/* Frames are taken from the first partial slab: the last one's turn comes when all others are full. */
static void make_last(struct pgd_pool *pool, uint32_t number)
{
    struct slab *const slab = &pool->slabs[number];
    unlink_partial(pool, number);
    uint32_t last = pool->classes[slab->class_index].partial;
    PGD_ASSERT(last != SLAB_NONE); /* there are others, or nothing could be moved */
    while (pool->slabs[last].next != SLAB_NONE) {
        last = pool->slabs[last].next;
    }
    pool->slabs[last].next = number;
    slab->previous = last;
    slab->next = SLAB_NONE;
}

bool pgd_pool_may_empty(const struct pgd_pool *pool)
{
    for (uint32_t i = 0; i < pool->layout.class_count; i++) {
        if (pool->classes[i].partial_places >= pool->classes[i].places) {
            return true;
        }
    }
    return false;
}

bool pgd_pool_pick_to_empty(struct pgd_pool *pool, uint32_t class_index, uint32_t *slab_number)
{
    const struct class_state *const class_state = &pool->classes[class_index];
    uint32_t best = SLAB_NONE;
    for (uint32_t number = class_state->partial; number != SLAB_NONE; number = pool->slabs[number].next) {
        const struct slab *const slab = &pool->slabs[number];
        if (!slab->is_fixed && (best == SLAB_NONE || slab->taken < pool->slabs[best].taken)) {
            best = number;
        }
    }
    if (best == SLAB_NONE || class_state->partial_places < class_state->places) {
        return false; /* free places elsewhere: partial_places - (places - taken), and `taken` of them are needed */
    }
    make_last(pool, best);
    *slab_number = best;
    return true;
}

/* ---- frames ---- */

uint32_t pgd_pool_slab_of(const struct pgd_pool *pool, uint32_t frame)
{
    const uint32_t number = frame >> pool->layout.place_bits;
    PGD_ASSERT(number < pool->fresh);
    return number;
}

static uint32_t place_of(const struct pgd_pool *pool, uint32_t frame)
{
    return frame & (((uint32_t) 1 << pool->layout.place_bits) - 1);
}

static uint32_t *link_of(const struct pgd_pool *pool, uint32_t number, uint32_t place)
{
    PGD_ASSERT(place < pool->layout.places_max);
    return &pool->next_place[(size_t) number * pool->layout.places_max + place];
}

/* I1. The link alone does not tell: after a reset, places that are not carved yet hold links of a former life. */
static bool is_taken(const struct pgd_pool *pool, uint32_t number, uint32_t place)
{
    const struct slab *const slab = &pool->slabs[number];
    return slab->class_index != CLASS_NONE && place < slab->carved && *link_of(pool, number, place) == PLACE_TAKEN;
}

static char *place_address(const struct pgd_pool *pool, uint32_t number, uint32_t place)
{
    const uint64_t frame_bytes = pool->classes[pool->slabs[number].class_index].bytes;
    const uint64_t offset = number * pool->layout.slab_bytes + place * frame_bytes;
    PGD_ASSERT(offset + frame_bytes <= pool->layout.arena_bytes); /* I3 */
    return pool->arena + offset;
}

/* Clears what is not zero yet of a place that is being handed out, and notes that it no longer will be. */
static void zero_place(struct pgd_pool *pool, uint32_t number, uint32_t place)
{
    struct slab *const slab = &pool->slabs[number];
    const uint64_t frame_bytes = pool->classes[slab->class_index].bytes;
    const uint64_t start = place * frame_bytes;
    const uint64_t touched = (uint64_t) slab->touched_units * UNIT_BYTES;
    if (touched > start) {
        memset(place_address(pool, number, place), 0, (size_t) pgd_min_u64(frame_bytes, touched - start));
    }
    slab->touched_units = (uint32_t) (pgd_max_u64(touched, start + frame_bytes) / UNIT_BYTES);
}

/* A free place of a partial slab: one that came back if there is one, for its bytes are resident. */
static uint32_t pick_place(struct pgd_pool *pool, uint32_t number)
{
    struct slab *const slab = &pool->slabs[number];
    uint32_t place = slab->free_place;
    if (place != PLACE_NONE) {
        slab->free_place = *link_of(pool, number, place);
        PGD_ASSERT(slab->free_place != PLACE_TAKEN);
    } else {
        place = slab->carved++;
        PGD_ASSERT(slab->carved <= pool->classes[slab->class_index].places);
    }
    *link_of(pool, number, place) = PLACE_TAKEN;
    return place;
}

/* A place of the first partial slab of a class, which is there. */
static uint32_t hand_out(struct pgd_pool *pool, uint32_t class_index)
{
    struct class_state *const class_state = &pool->classes[class_index];
    const uint32_t number = class_state->partial;
    struct slab *const slab = &pool->slabs[number];
    PGD_ASSERT(slab->class_index == class_index && slab->taken < class_state->places);
    const uint32_t place = pick_place(pool, number);
    zero_place(pool, number, place);
    slab->taken++;
    class_state->partial_places--;
    if (slab->taken == class_state->places) {
        unlink_partial(pool, number);
    }
    pool->taken_bytes += class_state->bytes;
    PGD_ASSERT(pool->taken_bytes <= pool->layout.arena_bytes);
    const uint32_t frame = number << pool->layout.place_bits | place;
    PGD_ASSERT(frame != PGD_FRAME_NONE);
    return frame;
}

bool pgd_pool_take(struct pgd_pool *pool, uint32_t class_index, uint32_t *frame)
{
    PGD_ASSERT(class_index < pool->layout.class_count);
    if (pool->classes[class_index].partial == SLAB_NONE) {
        if (classless_slabs(pool) == 0) {
            return false;
        }
        give_class(pool, class_index);
    }
    *frame = hand_out(pool, class_index);
    return true;
}

void pgd_pool_give(struct pgd_pool *pool, uint32_t frame)
{
    const uint32_t number = pgd_pool_slab_of(pool, frame);
    const uint32_t place = place_of(pool, frame);
    struct slab *const slab = &pool->slabs[number];
    PGD_ASSERT(is_taken(pool, number, place)); /* not given back twice */
    PGD_ASSERT(slab->taken > 0);
    struct class_state *const class_state = &pool->classes[slab->class_index];
    const bool closed = is_closed(pool, number);
    if (!closed && slab->taken == class_state->places) {
        link_partial(pool, number);
    }
    *link_of(pool, number, place) = slab->free_place;
    slab->free_place = place;
    slab->taken--;
    class_state->partial_places += closed ? 0 : 1;
    PGD_ASSERT(pool->taken_bytes >= class_state->bytes);
    pool->taken_bytes -= class_state->bytes;
    if (slab->taken == 0 && closed) {
        leave_closed(pool, number);
    } else if (slab->taken == 0) {
        take_class(pool, number);
    }
}

bool pgd_pool_copy_inside(struct pgd_pool *pool, uint32_t frame, uint32_t *inside)
{
    const uint32_t number = pgd_pool_slab_of(pool, frame);
    PGD_ASSERT(is_taken(pool, number, place_of(pool, frame)));
    if (!is_closed(pool, number) || pool->slabs[number].is_fixed) {
        return false;
    }
    const uint32_t class_index = pool->slabs[number].class_index;
    if (pool->classes[class_index].partial == SLAB_NONE) {
        /* As many slabs are free below the limit as hold frames beyond it, and so are there for those frames (I4). */
        PGD_ASSERT(open_slabs_free(pool) > 0);
        give_class(pool, class_index);
    }
    *inside = hand_out(pool, class_index);
    memcpy(pgd_pool_address(pool, *inside), pgd_pool_address(pool, frame), (size_t) pool->classes[class_index].bytes);
    return true;
}

void *pgd_pool_address(const struct pgd_pool *pool, uint32_t frame)
{
    const uint32_t number = pgd_pool_slab_of(pool, frame);
    const uint32_t place = place_of(pool, frame);
    PGD_ASSERT(is_taken(pool, number, place));
    return place_address(pool, number, place);
}

uint64_t pgd_pool_frame_bytes(const struct pgd_pool *pool, uint32_t class_index)
{
    PGD_ASSERT(class_index < pool->layout.class_count);
    return pool->classes[class_index].bytes;
}

uint32_t pgd_pool_class_of(const struct pgd_pool *pool, uint32_t frame)
{
    const uint32_t number = pgd_pool_slab_of(pool, frame);
    PGD_ASSERT(is_taken(pool, number, place_of(pool, frame)));
    return pool->slabs[number].class_index;
}

/* ---- how much is free ---- */

uint32_t pgd_pool_available(const struct pgd_pool *pool, uint32_t class_index)
{
    PGD_ASSERT(class_index < pool->layout.class_count);
    const struct class_state *const class_state = &pool->classes[class_index];
    /* Fits: it is at most the number of frames, and those have 32-bit numbers. */
    return class_state->partial_places + classless_slabs(pool) * class_state->places;
}

uint64_t pgd_pool_slabs_needed(const struct pgd_pool *pool, const uint32_t *needs)
{
    uint64_t slabs = 0;
    for (uint32_t i = 0; i < pool->layout.class_count; i++) {
        const struct class_state *const class_state = &pool->classes[i];
        if (needs[i] > class_state->partial_places) {
            slabs += pgd_div_up_u64(needs[i] - class_state->partial_places, class_state->places);
        }
    }
    return slabs;
}

bool pgd_pool_can_take(const struct pgd_pool *pool, const uint32_t *needs, uint32_t slabs_left)
{
    return pgd_pool_slabs_needed(pool, needs) + slabs_left <= classless_slabs(pool);
}

uint64_t pgd_pool_slab_bytes(const struct pgd_pool *pool)
{
    return pool->layout.slab_bytes;
}

uint64_t pgd_pool_taken_bytes(const struct pgd_pool *pool)
{
    return pool->taken_bytes;
}

/* ---- the full walk ---- */

/* The places of one slab with a class: taken and free ones add up, and the free list holds just the free. */
static bool slab_is_valid(const struct pgd_pool *pool, uint32_t number)
{
    const struct slab *const slab = &pool->slabs[number];
    const struct class_state *const class_state = &pool->classes[slab->class_index];
    if (slab->taken == 0 || slab->taken > slab->carved || slab->carved > class_state->places) {
        return false;
    }
    if ((uint64_t) slab->carved * class_state->bytes > (uint64_t) slab->touched_units * UNIT_BYTES ||
        (uint64_t) slab->touched_units * UNIT_BYTES > pool->layout.slab_bytes) {
        return false;
    }
    uint32_t taken = 0;
    for (uint32_t place = 0; place < slab->carved; place++) {
        taken += *link_of(pool, number, place) == PLACE_TAKEN ? 1 : 0;
    }
    uint32_t listed = 0;
    for (uint32_t place = slab->free_place; place != PLACE_NONE; place = *link_of(pool, number, place)) {
        if (place >= slab->carved || listed++ == slab->carved) {
            return false; /* I1: a taken place is in the list, or the list is a ring */
        }
    }
    return taken == slab->taken && taken + listed == slab->carved;
}

/* The list of partial slabs of a class: linked both ways, of this class, neither empty nor full. */
static bool partial_list_is_valid(const struct pgd_pool *pool, uint32_t class_index, uint32_t *length)
{
    const struct class_state *const class_state = &pool->classes[class_index];
    uint64_t places = 0;
    uint32_t previous = SLAB_NONE;
    *length = 0;
    for (uint32_t i = class_state->partial; i != SLAB_NONE; i = pool->slabs[i].next) {
        if (i >= pool->fresh || is_closed(pool, i) || (*length)++ == pool->fresh ||
            pool->slabs[i].previous != previous || pool->slabs[i].class_index != class_index ||
            pool->slabs[i].taken >= class_state->places) {
            return false;
        }
        places += class_state->places - pool->slabs[i].taken;
        previous = i;
    }
    return places == class_state->partial_places;
}

static bool classless_list_is_valid(const struct pgd_pool *pool)
{
    uint32_t length = 0;
    for (uint32_t i = pool->classless; i != SLAB_NONE; i = pool->slabs[i].next) {
        if (i >= pool->fresh || is_closed(pool, i) || length++ == pool->fresh ||
            pool->slabs[i].class_index != CLASS_NONE) {
            return false;
        }
    }
    return length == pool->classless_count;
}

/* Counts slabs by what they are, and checks each; the lists must then account for all of them. */
static bool slabs_are_valid(const struct pgd_pool *pool, uint32_t *partial, uint32_t *classless, uint64_t *taken_bytes)
{
    uint32_t closed_used = 0;
    for (uint32_t i = 0; i < pool->fresh; i++) {
        const struct slab *const slab = &pool->slabs[i];
        const bool closed = is_closed(pool, i);
        if (slab->class_index == CLASS_NONE) {
            *classless += closed ? 0 : 1;
            continue;
        }
        if (slab->class_index >= pool->layout.class_count || !slab_is_valid(pool, i)) {
            return false;
        }
        closed_used += closed ? 1 : 0;
        *partial += !closed && slab->taken < pool->classes[slab->class_index].places ? 1 : 0;
        *taken_bytes += slab->taken * pool->classes[slab->class_index].bytes;
    }
    return closed_used == pool->closed_used;
}

bool pgd_pool_is_valid(const struct pgd_pool *pool)
{
    uint32_t partial = 0;
    uint32_t classless = 0;
    uint64_t taken_bytes = 0;
    if (pool->fresh > pool->layout.slab_count || pool->slab_limit > pool->layout.slab_count ||
        !slabs_are_valid(pool, &partial, &classless, &taken_bytes)) {
        return false;
    }
    uint32_t listed = 0;
    for (uint32_t i = 0; i < pool->layout.class_count; i++) {
        uint32_t length;
        if (!partial_list_is_valid(pool, i, &length)) {
            return false;
        }
        listed += length;
    }
    return classless_list_is_valid(pool) && listed == partial && classless == pool->classless_count &&
           taken_bytes == pool->taken_bytes /* I2 */ && pgd_pool_slabs_used(pool) <= pool->slab_limit /* I4 */;
}
