/* The pool: by hand, against a twin that only knows arrays, under allocations that fail, and its assertions. */
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "harness/failing_system.h"
#include "harness/test.h"
#include "os/os.h"
#include "page/pool.h"
#include "page/pool_layout.h"

#define TWIN_ROUNDS 60
#define TWIN_OPERATIONS 20000 /* per round: 1,200,000 in all */
#define WALK_EVERY 256

static struct pgd_system system_of(const struct failing_system *host)
{
    return (struct pgd_system) {host->allocator, host->memory, host->clock};
}

static struct pgd_pool *open_pool(const struct pgd_system *system, uint64_t arena, const uint64_t *classes,
                                  uint32_t count)
{
    struct pgd_pool *pool = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pgd_pool_open(system, arena, classes, count, &pool, &error);
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    CHECK(pool != NULL);
    return pool;
}

static bool is_filled(const void *memory, int value, size_t bytes)
{
    const unsigned char *const start = memory;
    return bytes == 0 || (start[0] == (unsigned char) value && memcmp(start, start + 1, bytes - 1) == 0);
}

/* ---- layout ---- */

TEST(one_class_wastes_nothing)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t bytes = 12288;
    struct pgd_pool *const pool = open_pool(&system, 10 * bytes + 12287, &bytes, 1);
    CHECK_EQ_U64(pgd_pool_frame_bytes(pool, 0), bytes);
    CHECK_EQ_U64(pgd_pool_available(pool, 0), 10);
    uint32_t frames[10];
    for (uint32_t i = 0; i < 10; i++) {
        CHECK(pgd_pool_take(pool, 0, &frames[i]));
        CHECK_EQ_U64(pgd_pool_taken_bytes(pool), (i + 1) * bytes);
        CHECK_EQ_U64(pgd_pool_available(pool, 0), 9 - i);
    }
    uint32_t none = 4711;
    CHECK(!pgd_pool_take(pool, 0, &none));
    CHECK_EQ_U64(none, 4711);
    char *const middle = pgd_pool_address(pool, frames[5]);
    pgd_pool_give(pool, frames[5]);
    CHECK(pgd_pool_take(pool, 0, &none));
    CHECK(pgd_pool_address(pool, none) == middle); /* memory that is resident is used again first */
    CHECK(pgd_pool_is_valid(pool));
    pgd_pool_close(pool);
    CHECK(failing_system_is_clean(&host));
}

TEST(sizes_are_rounded_to_the_alignment)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t bytes = 65;
    struct pgd_pool *const pool = open_pool(&system, 1280, &bytes, 1);
    CHECK_EQ_U64(pgd_pool_frame_bytes(pool, 0), 128);
    uint32_t frame;
    for (int i = 0; i < 10; i++) {
        CHECK(pgd_pool_take(pool, 0, &frame));
        CHECK_EQ_U64((uintptr_t) pgd_pool_address(pool, frame) % PGD_FRAME_ALIGN, 0);
    }
    CHECK(!pgd_pool_take(pool, 0, &frame));
    pgd_pool_close(pool);
    CHECK(failing_system_is_clean(&host));
}

TEST(arenas_too_small_for_a_frame_hold_none)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t classes[] = {4096, 64};
    const uint64_t arenas[] = {0, 63, 4095};
    for (int i = 0; i < 3; i++) {
        struct pgd_pool *const pool = open_pool(&system, arenas[i], classes, 2);
        const uint32_t none_needed[] = {0, 0};
        const uint32_t one_needed[] = {0, 1};
        uint32_t frame;
        CHECK_EQ_U64(pgd_pool_available(pool, 0), 0);
        CHECK(!pgd_pool_take(pool, 0, &frame) && !pgd_pool_take(pool, 1, &frame));
        CHECK(pgd_pool_can_take(pool, none_needed, 0) && !pgd_pool_can_take(pool, one_needed, 0));
        pgd_pool_reset(pool);
        CHECK(pgd_pool_is_valid(pool));
        pgd_pool_close(pool);
    }
    CHECK(failing_system_is_clean(&host));
    pgd_pool_close(NULL);
}

/* With two classes, 3 to 1, four slabs. */
TEST(slabs_change_their_class_when_they_are_empty)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t classes[] = {192, 64};
    struct pgd_pool *const pool = open_pool(&system, 4 * 192, classes, 2);
    CHECK_EQ_U64(pgd_pool_available(pool, 0), 4);
    CHECK_EQ_U64(pgd_pool_available(pool, 1), 12);
    const uint32_t fits[] = {3, 3};
    const uint32_t too_much[] = {3, 4};
    CHECK(pgd_pool_can_take(pool, fits, 0) && !pgd_pool_can_take(pool, too_much, 0));
    uint32_t small;
    uint32_t large;
    CHECK(pgd_pool_take(pool, 1, &small));
    CHECK_EQ_U64(pgd_pool_available(pool, 0), 3); /* one slab has a class now */
    CHECK_EQ_U64(pgd_pool_available(pool, 1), 11);
    CHECK_EQ_U64(pgd_pool_class_of(pool, small), 1);
    for (int i = 0; i < 3; i++) {
        CHECK(pgd_pool_take(pool, 0, &large));
        CHECK_EQ_U64(pgd_pool_class_of(pool, large), 0);
    }
    CHECK(!pgd_pool_take(pool, 0, &large));
    CHECK_EQ_U64(pgd_pool_available(pool, 1), 2);
    pgd_pool_give(pool, small);
    CHECK(pgd_pool_take(pool, 0, &large));
    CHECK(!pgd_pool_take(pool, 1, &small));
    CHECK_EQ_U64(pgd_pool_taken_bytes(pool), 4 * 192);
    CHECK(pgd_pool_is_valid(pool));
    pgd_pool_close(pool);
}

/* Waste of a slab of `frames` of the largest class, in parts of 10^9, for the class that fits worst. */
static uint64_t waste_parts(const uint64_t *classes, uint32_t count, uint64_t largest, uint64_t frames)
{
    uint64_t worst = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t parts = largest * frames % classes[i] * 1000000000u / (largest * frames);
        worst = parts > worst ? parts : worst;
    }
    return worst;
}

TEST(slabs_are_the_smallest_that_waste_little)
{
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < 20000; round++) {
        const uint32_t count = 1 + (uint32_t) test_rng_below(&rng, 6);
        uint64_t classes[6];
        uint64_t largest = 0;
        for (uint32_t i = 0; i < count; i++) {
            classes[i] = 64 * (1 + test_rng_below(&rng, 200));
            largest = classes[i] > largest ? classes[i] : largest;
        }
        struct pgd_pool_layout layout;
        CHECK_EQ_INT(pgd_pool_layout_make(&layout, 1u << 20, classes, count, NULL), PAGODA_OK);
        const uint64_t frames = layout.slab_bytes / largest;
        CHECK_EQ_U64(layout.slab_bytes % largest, 0);
        CHECK(frames >= 1 && frames <= 8);
        const uint64_t waste = waste_parts(classes, count, largest, frames);
        const bool is_good = waste <= 1000000000u / 32;
        for (uint64_t other = 1; other <= 8; other++) {
            const uint64_t others = waste_parts(classes, count, largest, other);
            CHECK(other < frames ? others > 1000000000u / 32 && others >= waste : is_good || others >= waste);
        }
    }
}

TEST(open_refuses_what_it_cannot_hold)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const struct {
        uint64_t arena;
        uint64_t classes[2];
        uint32_t count;
        enum pagoda_status status;
    } cases[] = {
        {1000, {64, 64}, 0, PAGODA_INVALID},
        {1000, {64, 0}, 2, PAGODA_INVALID},
        {1000, {64, UINT64_MAX}, 2, PAGODA_LIMIT},
        {1000, {64, (uint64_t) 1 << 35}, 2, PAGODA_LIMIT},
        {UINT64_MAX, {64, 64}, 1, PAGODA_LIMIT},
        {(uint64_t) 1 << 38, {64, 64}, 1, PAGODA_LIMIT}, /* 2^32 frames: one more than there are numbers */
        {(uint64_t) 1 << 40, {64, 640}, 2, PAGODA_LIMIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pagoda_error error = {PAGODA_OK, ""};
        struct pgd_pool *pool = NULL;
        const enum pagoda_status status =
            pgd_pool_open(&system, cases[i].arena, cases[i].classes, cases[i].count, &pool, &error);
        CHECK_EQ_INT(status, cases[i].status);
        CHECK_EQ_INT(error.status, cases[i].status);
        CHECK(error.message[0] != '\0' && pool == NULL);
        CHECK_EQ_U64(pgd_pool_table_bytes(cases[i].arena, cases[i].classes, cases[i].count), UINT64_MAX);
    }
    uint64_t many[PGD_POOL_CLASSES_MAX + 1];
    for (uint32_t i = 0; i <= PGD_POOL_CLASSES_MAX; i++) {
        many[i] = 64;
    }
    struct pgd_pool *pool = NULL;
    CHECK_EQ_INT(pgd_pool_open(&system, 1000, many, PGD_POOL_CLASSES_MAX + 1, &pool, NULL), PAGODA_LIMIT);
    CHECK_EQ_U64(host.total_calls, 0); /* all of that was seen before anything was taken */
    pool = open_pool(&system, 6400, many, PGD_POOL_CLASSES_MAX);
    CHECK_EQ_U64(pgd_pool_available(pool, PGD_POOL_CLASSES_MAX - 1), 100);
    pgd_pool_close(pool);
}

/* ---- memory ---- */

TEST(table_bytes_is_what_is_allocated)
{
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < 200; round++) {
        struct failing_system host;
        failing_system_init(&host);
        const struct pgd_system system = system_of(&host);
        uint64_t classes[3];
        for (int i = 0; i < 3; i++) {
            classes[i] = 1 + test_rng_below(&rng, 5000);
        }
        const uint32_t count = 1 + (uint32_t) test_rng_below(&rng, 3);
        const uint64_t arena = test_rng_below(&rng, 200000);
        struct pgd_pool *const pool = open_pool(&system, arena, classes, count);
        struct pgd_pool_layout layout;
        CHECK_EQ_INT(pgd_pool_layout_make(&layout, arena, classes, count, NULL), PAGODA_OK);
        CHECK(layout.arena_bytes <= arena && arena - layout.arena_bytes < layout.slab_bytes);
        CHECK_EQ_U64(host.live_bytes, layout.arena_bytes + pgd_pool_table_bytes(arena, classes, count));
        pgd_pool_close(pool);
        CHECK(failing_system_is_clean(&host));
    }
}

TEST(open_survives_every_failing_allocation)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t classes[] = {4096, 640};
    uint64_t failures = 0;
    for (uint64_t nth = 1; failures + 1 == nth; nth++) {
        failing_system_arm(&host, nth, nth % 2 == 0);
        struct pgd_pool *pool = NULL;
        struct pagoda_error error = {PAGODA_OK, ""};
        const enum pagoda_status status = pgd_pool_open(&system, 100000, classes, 2, &pool, &error);
        CHECK_EQ_U64(status == PAGODA_OK ? 0 : 1, host.refused > 0 ? 1 : 0);
        if (status == PAGODA_OK) {
            pgd_pool_close(pool);
        } else {
            CHECK_EQ_INT(status, PAGODA_NOMEM);
            CHECK_EQ_INT(error.status, PAGODA_NOMEM);
            CHECK(pool == NULL);
            failures++;
        }
        CHECK(failing_system_is_clean(&host));
    }
    CHECK_EQ_U64(failures, 2); /* the tables and the arena */
}

/* A memory source whose fresh memory is not zero, though it promises so: what a frame holds then tells whether
 * the pool has written to it. `discard` does nothing. */
struct painted_source {
    char *base;
    uint64_t misplacement;
    uint64_t live;
};

static void *painted_reserve(void *user, size_t bytes)
{
    struct painted_source *const source = user;
    source->base = aligned_alloc(4096, (bytes / 4096 + 2) * 4096);
    if (source->base == NULL) {
        return NULL;
    }
    memset(source->base, 0x5A, (bytes / 4096 + 2) * 4096);
    source->live++;
    return source->base + source->misplacement;
}

static void painted_release(void *user, void *memory, size_t bytes)
{
    (void) memory;
    (void) bytes;
    struct painted_source *const source = user;
    free(source->base);
    source->live--;
}

static void painted_discard(void *user, void *memory, size_t bytes)
{
    (void) user;
    (void) memory;
    (void) bytes;
}

TEST(fresh_frames_are_not_written_used_ones_are_cleared)
{
    struct painted_source painted = {NULL, 0, 0};
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    system.memory = (struct pagoda_memory_source) {painted_reserve, painted_release, painted_discard, &painted};
    const uint64_t bytes = 1024;
    struct pgd_pool *const pool = open_pool(&system, 100 * bytes, &bytes, 1);
    uint32_t first;
    uint32_t second;
    CHECK(pgd_pool_take(pool, 0, &first) && pgd_pool_take(pool, 0, &second));
    CHECK(is_filled(pgd_pool_address(pool, first), 0x5A, bytes)); /* not touched twice */
    CHECK(is_filled(pgd_pool_address(pool, second), 0x5A, bytes));
    pgd_pool_give(pool, first);
    CHECK(pgd_pool_take(pool, 0, &first));
    CHECK(is_filled(pgd_pool_address(pool, first), 0, bytes));
    CHECK(is_filled(pgd_pool_address(pool, second), 0x5A, bytes));
    memset(pgd_pool_address(pool, first), 0x5A, bytes);
    pgd_pool_reset(pool); /* after this the source says that it is all zero */
    CHECK(pgd_pool_take(pool, 0, &first));
    CHECK(is_filled(pgd_pool_address(pool, first), 0x5A, bytes));
    pgd_pool_close(pool);
    CHECK_EQ_U64(painted.live, 0);
}

TEST(open_refuses_a_misaligned_arena)
{
    struct painted_source painted = {NULL, 32, 0};
    struct failing_system host;
    failing_system_init(&host);
    struct pgd_system system = system_of(&host);
    system.memory = (struct pagoda_memory_source) {painted_reserve, painted_release, painted_discard, &painted};
    const uint64_t bytes = 1024;
    struct pgd_pool *pool = NULL;
    CHECK_EQ_INT(pgd_pool_open(&system, 100 * bytes, &bytes, 1, &pool, NULL), PAGODA_INVALID);
    CHECK_EQ_U64(painted.live, 0);
    CHECK(failing_system_is_clean(&host));
}

/* In slabs of several frames, a frame may lie over bytes that two others have used before it, or over half of one. */
TEST(frames_are_zero_when_a_slab_changes_its_class)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    const uint64_t classes[] = {64 * 5, 64 * 2};
    struct pgd_pool_layout layout;
    CHECK_EQ_INT(pgd_pool_layout_make(&layout, 64 * 10, classes, 2, NULL), PAGODA_OK);
    CHECK_EQ_U64(layout.slab_bytes, 64 * 10);
    struct pgd_pool *const pool = open_pool(&system, 64 * 10, classes, 2);
    uint32_t frame;
    uint32_t other;
    CHECK(pgd_pool_take(pool, 1, &frame) && pgd_pool_take(pool, 1, &other)); /* [0, 2) and [2, 4) */
    memset(pgd_pool_address(pool, frame), 0xFF, 128);
    memset(pgd_pool_address(pool, other), 0xFF, 128);
    pgd_pool_give(pool, frame);
    pgd_pool_give(pool, other);
    CHECK(pgd_pool_take(pool, 0, &frame)); /* [0, 5) */
    CHECK(is_filled(pgd_pool_address(pool, frame), 0, 320));
    pgd_pool_close(pool);
}

static void check_reset(const struct pgd_system *system, uint64_t arena, uint64_t bytes)
{
    struct pgd_pool *const pool = open_pool(system, arena, &bytes, 1);
    const uint32_t count = pgd_pool_available(pool, 0);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t frame;
            CHECK(pgd_pool_take(pool, 0, &frame));
            CHECK(is_filled(pgd_pool_address(pool, frame), 0, bytes));
            memset(pgd_pool_address(pool, frame), 0xEE, bytes);
        }
        pgd_pool_reset(pool);
        CHECK_EQ_U64(pgd_pool_taken_bytes(pool), 0);
        CHECK_EQ_U64(pgd_pool_available(pool, 0), count);
        CHECK(pgd_pool_is_valid(pool));
    }
    pgd_pool_close(pool);
}

/* Arenas that end in the middle of a system page: what is there survives a discard, but not in a frame. */
TEST(frames_are_zero_after_reset_also_at_the_ragged_end)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_system real;
    pgd_os_system(NULL, &real);
    static const uint64_t arenas[] = {64, 640, 4096, 4160, 5000, 65536, 65600, 131072, 200000, 262144};
    for (size_t i = 0; i < sizeof arenas / sizeof arenas[0]; i++) {
        check_reset(&system, arenas[i], 64);
        check_reset(&real, arenas[i], 64);
        check_reset(&system, arenas[i], 3072);
    }
    CHECK(failing_system_is_clean(&host));
}

TEST(reset_gives_the_memory_back_to_the_system)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const uint64_t bytes = 1u << 20;
    struct pgd_pool *const pool = open_pool(&system, 64 * bytes, &bytes, 1);
    uint64_t empty;
    uint64_t full;
    uint64_t reset;
    uint64_t peak;
    pgd_os_process_memory(&empty, &peak);
    if (empty == 0) {
        SKIP("the resident size of a process is not known here");
    }
    uint32_t frame;
    while (pgd_pool_take(pool, 0, &frame)) {
        memset(pgd_pool_address(pool, frame), 1, bytes);
    }
    pgd_os_process_memory(&full, &peak);
    pgd_pool_reset(pool);
    pgd_os_process_memory(&reset, &peak);
    CHECK(full >= empty + 60 * bytes);
    CHECK(reset + 60 * bytes <= full);
    while (pgd_pool_take(pool, 0, &frame)) {
        /* taking alone costs nothing: fresh pages are not written */
    }
    pgd_os_process_memory(&full, &peak);
    CHECK(full <= reset + 4 * bytes);
    pgd_pool_close(pool);
}

/* A limit of a quarter, with the frames that stay spread over the whole arena: what is free goes back, all of it. */
TEST(a_lower_limit_gives_the_memory_back_to_the_system)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    static const uint64_t classes[] = {12288, 3392}; /* neither a power of two, nor whole system pages */
    enum { SLABS = 400 };
    struct pgd_pool_layout layout;
    CHECK_EQ_INT(pgd_pool_layout_make(&layout, 0, classes, 2, NULL), PAGODA_OK);
    struct pgd_pool *const pool = open_pool(&system, SLABS * layout.slab_bytes, classes, 2);
    const uint32_t places = (uint32_t) (layout.slab_bytes / pgd_pool_frame_bytes(pool, 1));
    static uint32_t frames[SLABS * 32];
    uint32_t count = 0;
    uint64_t full;
    uint64_t less;
    uint64_t peak;
    CHECK(places <= 32);
    while (pgd_pool_take(pool, 1, &frames[count])) {
        memset(pgd_pool_address(pool, frames[count]), (int) (1 + count % 255), 3392);
        count++;
    }
    CHECK_EQ_U64(count, SLABS * places);
    for (uint32_t i = 0; i < count; i++) {
        if (i / places % 4 != 3) {
            pgd_pool_give(pool, frames[i]);
        }
    }
    CHECK_EQ_U64(pgd_pool_slabs_used(pool), SLABS / 4);
    pgd_os_process_memory(&full, &peak);
    pgd_pool_set_limit(pool, SLABS / 4);
    uint32_t moved = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t inside;
        if (i / places % 4 == 3 && pgd_pool_copy_inside(pool, frames[i], &inside)) {
            pgd_pool_give(pool, frames[i]);
            frames[i] = inside;
            moved++;
        }
    }
    pgd_pool_discard_free(pool);
    pgd_os_process_memory(&less, &peak);
    CHECK_EQ_U64(moved, count / 4 - count / 16);
    for (uint32_t i = 0; i < count; i++) {
        if (i / places % 4 == 3) {
            CHECK(is_filled(pgd_pool_address(pool, frames[i]), (int) (1 + i % 255), 3392));
        }
    }
    uint32_t none;
    CHECK(!pgd_pool_take(pool, 1, &none) && !pgd_pool_take(pool, 0, &none));
    const uint64_t released = (uint64_t) SLABS * 3 / 4 * layout.slab_bytes;
    if (full != 0) {
        CHECK(full >= less + released * 95 / 100);
    }
    pgd_pool_set_limit(pool, SLABS);
    CHECK(pgd_pool_take(pool, 0, &none));
    CHECK(is_filled(pgd_pool_address(pool, none), 0, 12288));
    CHECK(pgd_pool_is_valid(pool));
    pgd_pool_close(pool);
}

/* ---- the twin ---- */

#define TWIN_UNITS_MAX 1024

/* What the pool has to be, without any list: who owns each 64 bytes, and the frames that are out. */
struct twin {
    uint64_t classes[PGD_POOL_CLASSES_MAX];
    uint32_t class_count;
    uint64_t slab_units;
    uint32_t slab_count;
    uint32_t limit;                 /* slabs from here on are closed */
    const char *base;               /* of the arena, as soon as a frame has told it */
    uint32_t owner[TWIN_UNITS_MAX]; /* 0: free, else frame number + 1 */
    struct {
        uint32_t frame;
        uint32_t class_index;
        unsigned char *address;
        unsigned char value; /* its bytes are filled with this */
    } out[TWIN_UNITS_MAX];
    uint32_t out_count;
    uint64_t moves; /* frames taken and given */
};

/* Taken and free places of a slab, and its class (class_count: none), all read from `owner` and `out`. */
static void twin_look_at_slab(const struct twin *twin, uint32_t slab, uint32_t *class_index, uint32_t *taken)
{
    *class_index = twin->class_count;
    *taken = 0;
    uint32_t last = 0;
    for (uint64_t unit = slab * twin->slab_units; unit < (slab + 1) * twin->slab_units; unit++) {
        const uint32_t owner = twin->owner[unit];
        if (owner == 0 || owner == last) {
            continue;
        }
        last = owner;
        *taken += 1;
        for (uint32_t i = 0; *class_index == twin->class_count && i < twin->out_count; i++) {
            *class_index = twin->out[i].frame + 1 == owner ? twin->out[i].class_index : *class_index;
        }
    }
}

/* Free places in slabs of each class, and slabs of none that may be used; slabs that hold frames into *used. */
static uint32_t twin_count_slabs(const struct twin *twin, uint32_t *places, uint32_t *used)
{
    uint32_t classless = 0;
    uint32_t closed_used = 0;
    *used = 0;
    memset(places, 0, PGD_POOL_CLASSES_MAX * sizeof places[0]);
    for (uint32_t slab = 0; slab < twin->slab_count; slab++) {
        uint32_t class_index;
        uint32_t taken;
        twin_look_at_slab(twin, slab, &class_index, &taken);
        *used += taken > 0 ? 1 : 0;
        if (slab >= twin->limit) {
            closed_used += taken > 0 ? 1 : 0;
        } else if (taken == 0) {
            classless++;
        } else {
            places[class_index] += (uint32_t) (twin->slab_units * 64 / twin->classes[class_index]) - taken;
        }
    }
    return classless > closed_used ? classless - closed_used : 0;
}

static uint32_t twin_free_places(const struct twin *twin, uint32_t *places)
{
    uint32_t used;
    return twin_count_slabs(twin, places, &used);
}

static void twin_compare_room(const struct twin *twin, const struct pgd_pool *pool, struct test_rng *rng)
{
    uint32_t places[PGD_POOL_CLASSES_MAX];
    const uint32_t classless = twin_free_places(twin, places);
    uint32_t needs[PGD_POOL_CLASSES_MAX];
    uint32_t slabs = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < twin->class_count; i++) {
        const uint32_t per_slab = (uint32_t) (twin->slab_units * 64 / twin->classes[i]);
        CHECK_EQ_U64(pgd_pool_available(pool, i), places[i] + classless * per_slab);
        needs[i] = (uint32_t) test_rng_below(rng, places[i] + 2 * per_slab * (1 + classless / twin->class_count));
        for (uint32_t have = places[i]; have < needs[i]; have += per_slab) {
            slabs++;
        }
    }
    CHECK(pgd_pool_can_take(pool, needs, 0) == (slabs <= classless));
    for (uint32_t i = 0; i < twin->out_count; i++) {
        bytes += twin->classes[twin->out[i].class_index];
    }
    CHECK_EQ_U64(pgd_pool_taken_bytes(pool), bytes);
}

/* Enters a frame: it must lie in the arena, overlap nothing, be aligned and zero, and fill up slabs that are begun
 * before it begins another. */
static void twin_enter(struct twin *twin, const struct pgd_pool *pool, uint32_t class_index, uint32_t frame, bool begun)
{
    const uint64_t bytes = twin->classes[class_index];
    unsigned char *const address = pgd_pool_address(pool, frame);
    const uint64_t offset = (uint64_t) ((const char *) address - twin->base);
    CHECK((const char *) address >= twin->base);
    CHECK(offset % 64 == 0 && offset + bytes <= twin->limit * twin->slab_units * 64);
    uint32_t slab_class;
    uint32_t taken;
    twin_look_at_slab(twin, (uint32_t) (offset / 64 / twin->slab_units), &slab_class, &taken);
    CHECK(taken == 0 ? !begun : slab_class == class_index);
    for (uint64_t unit = offset / 64; unit < (offset + bytes) / 64; unit++) {
        CHECK_EQ_U64(twin->owner[unit], 0);
        twin->owner[unit] = frame + 1;
    }
    CHECK_EQ_U64(pgd_pool_class_of(pool, frame), class_index);
    const unsigned char value = (unsigned char) (1 + frame % 255);
    memset(address, value, bytes);
    twin->moves++;
    twin->out[twin->out_count].frame = frame;
    twin->out[twin->out_count].class_index = class_index;
    twin->out[twin->out_count].address = address;
    twin->out[twin->out_count].value = value;
    twin->out_count++;
}

static void twin_take(struct twin *twin, struct pgd_pool *pool, struct test_rng *rng)
{
    const uint32_t class_index = (uint32_t) test_rng_below(rng, twin->class_count);
    uint32_t places[PGD_POOL_CLASSES_MAX];
    const uint32_t classless = twin_free_places(twin, places);
    uint32_t frame = PGD_FRAME_NONE;
    const bool taken = pgd_pool_take(pool, class_index, &frame);
    CHECK(taken == (places[class_index] > 0 || classless > 0));
    if (taken) {
        CHECK(is_filled(pgd_pool_address(pool, frame), 0, twin->classes[class_index]));
        twin_enter(twin, pool, class_index, frame, places[class_index] > 0);
    }
}

static void twin_give_one(struct twin *twin, struct pgd_pool *pool, uint32_t i)
{
    const uint64_t bytes = twin->classes[twin->out[i].class_index];
    CHECK(pgd_pool_address(pool, twin->out[i].frame) == twin->out[i].address);
    CHECK(is_filled(twin->out[i].address, twin->out[i].value, bytes)); /* nobody else wrote there */
    const uint64_t offset = (uint64_t) ((const char *) twin->out[i].address - twin->base);
    memset(&twin->owner[offset / 64], 0, bytes / 64 * sizeof twin->owner[0]);
    pgd_pool_give(pool, twin->out[i].frame);
    twin->out[i] = twin->out[--twin->out_count];
    twin->moves++;
}

static void twin_give(struct twin *twin, struct pgd_pool *pool, struct test_rng *rng)
{
    if (twin->out_count > 0) {
        twin_give_one(twin, pool, (uint32_t) test_rng_below(rng, twin->out_count));
    }
}

/* Frames beyond the limit get others below it, with the same bytes, unless something pinned is in their slab. */
static void twin_move_inside(struct twin *twin, struct pgd_pool *pool, struct test_rng *rng)
{
    static bool is_fixed[TWIN_UNITS_MAX];
    memset(is_fixed, 0, sizeof is_fixed);
    pgd_pool_clear_marks(pool);
    for (uint32_t i = 0; i < twin->out_count; i++) {
        if (test_rng_below(rng, 16) == 0) {
            pgd_pool_mark(pool, twin->out[i].frame);
            is_fixed[pgd_pool_slab_of(pool, twin->out[i].frame)] = true;
        }
    }
    for (uint32_t i = twin->out_count; i-- > 0;) {
        const uint64_t slab = (uint64_t) ((const char *) twin->out[i].address - twin->base) / 64 / twin->slab_units;
        uint32_t inside = PGD_FRAME_NONE;
        CHECK_EQ_U64(slab, pgd_pool_slab_of(pool, twin->out[i].frame));
        if (slab < twin->limit || is_fixed[slab]) {
            CHECK(!pgd_pool_copy_inside(pool, twin->out[i].frame, &inside));
        } else {
            const uint32_t class_index = twin->out[i].class_index;
            uint32_t places[PGD_POOL_CLASSES_MAX];
            twin_free_places(twin, places);
            CHECK(pgd_pool_copy_inside(pool, twin->out[i].frame, &inside));
            CHECK(is_filled(pgd_pool_address(pool, inside), twin->out[i].value, twin->classes[class_index]));
            twin_enter(twin, pool, class_index, inside, places[class_index] > 0);
            twin_give_one(twin, pool, i);
        }
    }
}

static void twin_set_limit(struct twin *twin, struct pgd_pool *pool, struct test_rng *rng)
{
    uint32_t places[PGD_POOL_CLASSES_MAX];
    uint32_t used;
    (void) twin_count_slabs(twin, places, &used);
    CHECK_EQ_U64(pgd_pool_slabs_used(pool), used);
    twin->limit = used + (uint32_t) test_rng_below(rng, twin->slab_count - used + 1);
    pgd_pool_set_limit(pool, twin->limit);
    CHECK(pgd_pool_is_valid(pool));
    if (test_rng_below(rng, 4) != 0) {
        twin_move_inside(twin, pool, rng);
    }
    CHECK(pgd_pool_is_valid(pool));
    pgd_pool_discard_free(pool);
    CHECK(pgd_pool_is_valid(pool));
    CHECK_EQ_U64(pgd_pool_slab_count(pool), twin->slab_count);
}

static void twin_reset(struct twin *twin, struct pgd_pool *pool)
{
    pgd_pool_reset(pool);
    memset(twin->owner, 0, sizeof twin->owner);
    twin->out_count = 0;
}

/* A pool of random classes and its twin, in which all operations are tried. Without a slab for each class and one
 * more, most of them may be refused, and little tried. */
static void twin_prepare(struct twin *twin, struct test_rng *rng, uint64_t *arena)
{
    memset(twin, 0, sizeof *twin);
    twin->class_count = 1 + (uint32_t) test_rng_below(rng, 5);
    for (uint32_t i = 0; i < twin->class_count; i++) {
        twin->classes[i] = 64 * (1 + test_rng_below(rng, 12));
    }
    struct pgd_pool_layout layout;
    CHECK_EQ_INT(pgd_pool_layout_make(&layout, 0, twin->classes, twin->class_count, NULL), PAGODA_OK);
    twin->slab_units = layout.slab_bytes / 64;
    const uint32_t slabs_max = (uint32_t) (TWIN_UNITS_MAX / twin->slab_units);
    const uint32_t slabs_min = twin->class_count + 1;
    CHECK(slabs_max >= slabs_min);
    twin->slab_count = slabs_min + (uint32_t) test_rng_below(rng, slabs_max - slabs_min + 1);
    twin->limit = twin->slab_count;
    *arena = twin->slab_count * layout.slab_bytes + test_rng_below(rng, layout.slab_bytes);
}

TEST(pool_against_its_twin)
{
    static struct twin twin;
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < TWIN_ROUNDS; round++) {
        struct failing_system host;
        failing_system_init(&host);
        const struct pgd_system system = system_of(&host);
        uint64_t arena;
        twin_prepare(&twin, &rng, &arena);
        struct pgd_pool *const pool = open_pool(&system, arena, twin.classes, twin.class_count);
        uint32_t frame;
        if (pgd_pool_take(pool, 0, &frame)) { /* the first frame ever is at the start of the arena */
            twin.base = pgd_pool_address(pool, frame);
            twin_enter(&twin, pool, 0, frame, false);
        }
        uint64_t taking = 50;
        for (int i = 0; i < TWIN_OPERATIONS; i++) {
            taking = i % 500 == 0 ? 20 + test_rng_below(&rng, 60) : taking; /* fill and drain by turns */
            if (test_rng_below(&rng, 4000) == 0) {
                twin_reset(&twin, pool);
            } else if (test_rng_below(&rng, 200) == 0) {
                twin_set_limit(&twin, pool, &rng);
            } else if (test_rng_below(&rng, 100) < taking) {
                twin_take(&twin, pool, &rng);
            } else {
                twin_give(&twin, pool, &rng);
            }
            if (i % 16 == 0) {
                twin_compare_room(&twin, pool, &rng);
            }
            CHECK(i % WALK_EVERY != 0 || pgd_pool_is_valid(pool));
        }
        CHECK(twin.moves > TWIN_OPERATIONS / 4);
        pgd_pool_close(pool);
        CHECK(failing_system_is_clean(&host));
    }
}

/* ---- assertions ---- */

struct pool_and_frame {
    struct pgd_pool *pool;
    uint32_t frame;
};

static void give(void *user)
{
    const struct pool_and_frame *const both = user;
    pgd_pool_give(both->pool, both->frame);
}

static void look(void *user)
{
    const struct pool_and_frame *const both = user;
    (void) pgd_pool_address(both->pool, both->frame);
}

static void take_of_no_class(void *user)
{
    const struct pool_and_frame *const both = user;
    uint32_t frame;
    if (!pgd_pool_take(both->pool, 2, &frame)) {
        return;
    }
}

TEST(pool_asserts_what_callers_owe)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const uint64_t classes[] = {256, 64};
    struct pool_and_frame both = {open_pool(&system, 4096, classes, 2), 0};
    uint32_t kept;
    CHECK(pgd_pool_take(both.pool, 1, &both.frame) && pgd_pool_take(both.pool, 1, &kept));
    pgd_pool_give(both.pool, both.frame);
    CHECK_ABORTS(give, &both); /* given back already */
    CHECK_ABORTS(look, &both);
    both.frame = kept + 1; /* the slab's next place, never handed out */
    CHECK_ABORTS(give, &both);
    both.frame = kept + 1000;
    CHECK_ABORTS(give, &both);
    both.frame = PGD_FRAME_NONE;
    CHECK_ABORTS(give, &both);
    CHECK_ABORTS(look, &both);
    CHECK_ABORTS(take_of_no_class, &both);
    pgd_pool_give(both.pool, kept);
    both.frame = kept;
    CHECK_ABORTS(give, &both); /* its slab has no class any more */
    CHECK(pgd_pool_take(both.pool, 1, &kept) && pgd_pool_take(both.pool, 1, &both.frame));
    pgd_pool_reset(both.pool);
    CHECK_ABORTS(give, &both);
    CHECK(pgd_pool_take(both.pool, 1, &kept));
    CHECK_ABORTS(give, &both); /* its slab is in use again, but not its place */
    CHECK_ABORTS(look, &both);
    pgd_pool_close(both.pool);
}
