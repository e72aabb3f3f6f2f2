/* The block table: by hand, against a twin that is an array of whole blocks, under allocations that fail, and its
 * assertions. */
#include <string.h>

#include "base/system.h"
#include "harness/failing_system.h"
#include "harness/test.h"
#include "page/table.h"

#define TWIN_ROUNDS 50
#define TWIN_OPERATIONS 24000 /* per round: 1,200,000 in all */
#define WALK_EVERY 256
#define LAYERS_MAX 8
#define BLOCKS_MAX 40

static struct pgd_system system_of(const struct failing_system *host)
{
    return (struct pgd_system) {host->allocator, host->memory, host->clock};
}

static struct pgd_table *open_table(const struct pgd_system *system, uint32_t layers, uint32_t page_tokens,
                                    uint32_t blocks)
{
    struct pgd_table *table = NULL;
    CHECK_EQ_INT(pgd_table_open(system, layers, page_tokens, blocks, &table, NULL), PAGODA_OK);
    return table;
}

/* Appends a full, sealed block with frames `frame`, `frame` + 1, ... */
static void add_sealed(struct pgd_table *table, uint64_t first, uint32_t layers, uint32_t page_tokens, uint32_t frame)
{
    CHECK(pgd_table_append(table, first));
    const uint32_t index = pgd_table_count(table) - 1;
    for (uint32_t layer = 0; layer < layers; layer++) {
        pgd_table_place(table, index, layer, frame + layer, 0);
    }
    pgd_table_set_count(table, index, page_tokens);
    pgd_table_seal(table, index);
}

/* ---- by hand ---- */

TEST(a_page_goes_through_its_states)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_table *const table = open_table(&system, 2, 16, 3);
    CHECK_EQ_U64(pgd_table_count(table), 0);
    CHECK_EQ_U64(pgd_table_capacity(table), 3);
    CHECK(pgd_table_append(table, 32));
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->state, PAGODA_PAGE_ABSENT);
    CHECK_EQ_U64(pgd_table_page(table, 0, 1)->frame, PGD_FRAME_NONE);
    pgd_table_place(table, 0, 1, 77, 5);
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->state, PAGODA_PAGE_OPEN);
    CHECK_EQ_U64(pgd_table_page(table, 0, 1)->frame, 77);
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->codec, 5);
    CHECK_EQ_INT(pgd_table_page(table, 0, 0)->state, PAGODA_PAGE_ABSENT);
    CHECK_EQ_U64(pgd_table_block(table, 0)->pages_present, 1);
    pgd_table_set_count(table, 0, 16);
    pgd_table_seal(table, 0);
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->state, PAGODA_PAGE_SEALED);
    CHECK_EQ_INT(pgd_table_page(table, 0, 0)->state, PAGODA_PAGE_ABSENT);
    pgd_table_reopen(table, 0);
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->state, PAGODA_PAGE_OPEN);
    pgd_table_set_count(table, 0, 3);
    CHECK_EQ_U64(pgd_table_block(table, 0)->first, 32);
    CHECK_EQ_U64(pgd_table_block(table, 0)->count, 3);
    CHECK_EQ_U64(pgd_table_clear_page(table, 0, 1), 77);
    CHECK_EQ_INT(pgd_table_page(table, 0, 1)->state, PAGODA_PAGE_ABSENT);
    CHECK_EQ_U64(pgd_table_block(table, 0)->pages_present, 0);
    pgd_table_remove(table, 0);
    CHECK_EQ_U64(pgd_table_count(table), 0);
    CHECK(pgd_table_is_valid(table));
    pgd_table_close(table);
    pgd_table_close(NULL);
    CHECK(failing_system_is_clean(&host));
}

TEST(append_stops_at_the_capacity_and_slots_are_used_again)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_table *const table = open_table(&system, 1, 16, 2);
    add_sealed(table, 0, 1, 16, 10);
    add_sealed(table, 16, 1, 16, 11);
    CHECK(!pgd_table_append(table, 32));
    CHECK_EQ_U64(pgd_table_count(table), 2);
    CHECK_EQ_U64(pgd_table_clear_page(table, 0, 0), 10);
    pgd_table_remove(table, 0);
    CHECK_EQ_U64(pgd_table_block(table, 0)->first, 16);
    add_sealed(table, 160, 1, 16, 12); /* gaps are allowed */
    CHECK_EQ_U64(pgd_table_page(table, 0, 0)->frame, 11);
    CHECK_EQ_U64(pgd_table_page(table, 1, 0)->frame, 12);
    CHECK(!pgd_table_append(table, 320));
    CHECK(pgd_table_is_valid(table));
    pgd_table_reset(table);
    CHECK_EQ_U64(pgd_table_count(table), 0);
    CHECK(pgd_table_append(table, 0));
    CHECK_EQ_INT(pgd_table_page(table, 0, 0)->state, PAGODA_PAGE_ABSENT); /* nothing of the old life is left */
    CHECK(!pgd_table_block(table, 0)->pinned);
    CHECK(pgd_table_is_valid(table));
    pgd_table_close(table);
    struct pgd_table *const none = open_table(&system, 1, 16, 0);
    CHECK(!pgd_table_append(none, 0));
    pgd_table_close(none);
    CHECK(failing_system_is_clean(&host));
}

TEST(find_names_the_first_block_that_ends_after_a_position)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_table *const table = open_table(&system, 1, 16, 4);
    CHECK_EQ_U64(pgd_table_find(table, 0), 0);
    add_sealed(table, 16, 1, 16, 1);
    add_sealed(table, 64, 1, 16, 2);
    CHECK(pgd_table_append(table, 80));
    CHECK_EQ_U64(pgd_table_find(table, 0), 0);
    CHECK_EQ_U64(pgd_table_find(table, 31), 0);
    CHECK_EQ_U64(pgd_table_find(table, 32), 1); /* in the gap: the block after it */
    CHECK_EQ_U64(pgd_table_find(table, 79), 1);
    CHECK_EQ_U64(pgd_table_find(table, 80), 3); /* the open block has no token yet */
    pgd_table_set_count(table, 2, 1);
    CHECK_EQ_U64(pgd_table_find(table, 80), 2);
    CHECK_EQ_U64(pgd_table_find(table, UINT64_MAX), 3);
    pgd_table_close(table);
}

TEST(open_refuses_nothing_times_something)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_table *table = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(pgd_table_open(&system, 0, 16, 4, &table, &error), PAGODA_INVALID);
    CHECK_EQ_INT(pgd_table_open(&system, 4, 0, 4, &table, &error), PAGODA_INVALID);
    CHECK_EQ_INT(error.status, PAGODA_INVALID);
    CHECK_EQ_U64(pgd_table_bytes(UINT32_MAX, UINT32_MAX), UINT64_MAX);
    CHECK_EQ_INT(pgd_table_open(&system, UINT32_MAX, 16, UINT32_MAX, &table, &error), PAGODA_NOMEM);
    CHECK(table == NULL);
    CHECK_EQ_U64(host.total_calls, 0);
}

TEST(table_bytes_is_what_is_allocated)
{
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < 200; round++) {
        struct failing_system host;
        failing_system_init(&host);
        const struct pgd_system system = system_of(&host);
        const uint32_t layers = 1 + (uint32_t) test_rng_below(&rng, 40);
        const uint32_t blocks = (uint32_t) test_rng_below(&rng, 300);
        struct pgd_table *const table = open_table(&system, layers, 16, blocks);
        CHECK_EQ_U64(host.live_bytes, pgd_table_bytes(layers, blocks));
        for (uint32_t i = 0; i < blocks; i++) {
            add_sealed(table, 16 * (uint64_t) i, layers, 16, 0); /* the sanitizer sees every byte used */
        }
        CHECK(pgd_table_is_valid(table));
        pgd_table_close(table);
        CHECK(failing_system_is_clean(&host));
    }
}

TEST(open_survives_every_failing_allocation)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    uint64_t failures = 0;
    for (uint64_t nth = 1; failures + 1 == nth; nth++) {
        failing_system_arm(&host, nth, nth % 2 == 0);
        struct pgd_table *table = NULL;
        struct pagoda_error error = {PAGODA_OK, ""};
        const enum pagoda_status status = pgd_table_open(&system, 3, 16, 100, &table, &error);
        if (status == PAGODA_OK) {
            pgd_table_close(table);
        } else {
            CHECK_EQ_INT(status, PAGODA_NOMEM);
            CHECK_EQ_INT(error.status, PAGODA_NOMEM);
            CHECK(table == NULL);
            failures++;
        }
        CHECK(failing_system_is_clean(&host));
    }
    CHECK_EQ_U64(failures, 1);
}

/* ---- the twin ---- */

struct twin_block {
    uint64_t first;
    uint32_t count;
    bool pinned;
    bool open;
    uint32_t frames[LAYERS_MAX]; /* 0: absent, else frame + 1 */
    uint8_t codecs[LAYERS_MAX];
};

struct twin {
    uint32_t layers;
    uint32_t page_tokens;
    uint32_t capacity;
    uint32_t count;
    uint32_t next_frame;
    struct twin_block blocks[BLOCKS_MAX];
};

static void twin_compare_block(const struct twin *twin, const struct pgd_table *table, uint32_t index)
{
    const struct twin_block *const expected = &twin->blocks[index];
    const struct pgd_block *const block = pgd_table_block(table, index);
    CHECK_EQ_U64(block->first, expected->first);
    CHECK_EQ_U64(block->count, expected->count);
    CHECK(block->pinned == expected->pinned);
    uint32_t present = 0;
    for (uint32_t layer = 0; layer < twin->layers; layer++) {
        const struct pgd_page *const page = pgd_table_page(table, index, layer);
        if (expected->frames[layer] == 0) {
            CHECK_EQ_INT(page->state, PAGODA_PAGE_ABSENT);
            CHECK_EQ_U64(page->frame, PGD_FRAME_NONE);
            continue;
        }
        present++;
        CHECK_EQ_INT(page->state, expected->open ? PAGODA_PAGE_OPEN : PAGODA_PAGE_SEALED);
        CHECK_EQ_U64(page->frame, expected->frames[layer] - 1);
        CHECK_EQ_INT(page->codec, expected->codecs[layer]);
    }
    CHECK_EQ_U64(block->pages_present, present);
}

static void twin_compare_find(const struct twin *twin, const struct pgd_table *table, struct test_rng *rng)
{
    const uint64_t end = twin->count > 0 ? twin->blocks[twin->count - 1].first + twin->page_tokens : 0;
    const uint64_t position = test_rng_below(rng, end + 10);
    uint32_t expected = 0;
    while (expected < twin->count && twin->blocks[expected].first + twin->blocks[expected].count <= position) {
        expected++;
    }
    CHECK_EQ_U64(pgd_table_find(table, position), expected);
}

static bool twin_is_open(const struct twin *twin)
{
    return twin->count > 0 && twin->blocks[twin->count - 1].open;
}

static void twin_append(struct twin *twin, struct pgd_table *table, struct test_rng *rng)
{
    if (twin_is_open(twin)) {
        return;
    }
    uint64_t first = twin->count > 0 ? twin->blocks[twin->count - 1].first + twin->page_tokens : 0;
    first += test_rng_below(rng, 4) == 0 ? twin->page_tokens * test_rng_below(rng, 5) : 0;
    const bool fits = twin->count < twin->capacity;
    CHECK(pgd_table_append(table, first) == fits);
    if (fits) {
        twin->blocks[twin->count++] = (struct twin_block) {.first = first, .open = true};
    }
}

static void twin_place(struct twin *twin, struct pgd_table *table, struct test_rng *rng)
{
    if (!twin_is_open(twin)) {
        return;
    }
    const uint32_t index = twin->count - 1;
    const uint32_t layer = (uint32_t) test_rng_below(rng, twin->layers);
    if (twin->blocks[index].frames[layer] == 0) {
        const uint32_t frame = twin->next_frame++;
        const uint8_t codec = (uint8_t) test_rng_below(rng, 256);
        pgd_table_place(table, index, layer, frame, codec);
        twin->blocks[index].frames[layer] = frame + 1;
        twin->blocks[index].codecs[layer] = codec;
    }
}

static void twin_clear(struct twin *twin, struct pgd_table *table, uint32_t index, uint32_t layer)
{
    struct twin_block *const block = &twin->blocks[index];
    if (block->frames[layer] != 0) {
        CHECK_EQ_U64(pgd_table_clear_page(table, index, layer), block->frames[layer] - 1);
        block->frames[layer] = 0;
    }
}

static void twin_remove(struct twin *twin, struct pgd_table *table, uint32_t index)
{
    for (uint32_t layer = 0; layer < twin->layers; layer++) {
        twin_clear(twin, table, index, layer);
    }
    if (twin->blocks[index].pinned) {
        pgd_table_set_pinned(table, index, false);
    }
    pgd_table_remove(table, index);
    twin->count--;
    memmove(&twin->blocks[index], &twin->blocks[index + 1], (twin->count - index) * sizeof twin->blocks[0]);
}

/* Fills the open block and seals it, or reopens the last one and takes tokens back. */
static void twin_turn(struct twin *twin, struct pgd_table *table, struct test_rng *rng)
{
    if (twin->count == 0) {
        return;
    }
    const uint32_t index = twin->count - 1;
    struct twin_block *const block = &twin->blocks[index];
    if (block->open) {
        pgd_table_set_count(table, index, twin->page_tokens);
        pgd_table_seal(table, index);
        block->count = twin->page_tokens;
    } else {
        block->count = (uint32_t) test_rng_below(rng, twin->page_tokens + 1);
        pgd_table_reopen(table, index);
        pgd_table_set_count(table, index, block->count);
    }
    block->open = !block->open;
}

static void twin_step(struct twin *twin, struct pgd_table *table, struct test_rng *rng)
{
    const uint32_t index = twin->count > 0 ? (uint32_t) test_rng_below(rng, twin->count) : 0;
    const uint64_t action = test_rng_below(rng, 1000);
    if (action < 250) {
        twin_append(twin, table, rng);
    } else if (action < 600) {
        twin_place(twin, table, rng);
    } else if (action < 800) {
        twin_turn(twin, table, rng);
    } else if (action < 998 && twin->count == 0) {
        return;
    } else if (action < 850) {
        twin_clear(twin, table, index, (uint32_t) test_rng_below(rng, twin->layers));
    } else if (action < 910) {
        twin->blocks[index].pinned = !twin->blocks[index].pinned;
        pgd_table_set_pinned(table, index, twin->blocks[index].pinned);
    } else if (action < 998) {
        twin_remove(twin, table, index);
    } else if (test_rng_below(rng, 10) == 0) {
        pgd_table_reset(table);
        twin->count = 0;
    }
    CHECK_EQ_U64(pgd_table_count(table), twin->count);
    twin_compare_find(twin, table, rng);
    if (twin->count > 0) {
        twin_compare_block(twin, table, (uint32_t) test_rng_below(rng, twin->count));
        twin_compare_block(twin, table, twin->count - 1);
    }
}

TEST(table_against_its_twin)
{
    static struct twin twin;
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < TWIN_ROUNDS; round++) {
        struct failing_system host;
        failing_system_init(&host);
        const struct pgd_system system = system_of(&host);
        memset(&twin, 0, sizeof twin);
        twin.layers = 1 + (uint32_t) test_rng_below(&rng, LAYERS_MAX);
        twin.page_tokens = 16 * (1 + (uint32_t) test_rng_below(&rng, 4));
        twin.capacity = 1 + (uint32_t) test_rng_below(&rng, BLOCKS_MAX);
        struct pgd_table *const table = open_table(&system, twin.layers, twin.page_tokens, twin.capacity);
        for (int i = 0; i < TWIN_OPERATIONS; i++) {
            twin_step(&twin, table, &rng);
            if (i % WALK_EVERY != 0) {
                continue;
            }
            CHECK(pgd_table_is_valid(table));
            for (uint32_t index = 0; index < twin.count; index++) {
                twin_compare_block(&twin, table, index);
            }
        }
        CHECK_EQ_U64(host.total_calls, 1); /* nothing is allocated after open */
        pgd_table_close(table);
        CHECK(failing_system_is_clean(&host));
    }
}

/* ---- assertions ---- */

static void append_beside_an_open_block(void *table)
{
    CHECK(pgd_table_append(table, 320));
}

static void append_before_the_end(void *table)
{
    CHECK(pgd_table_append(table, 16));
}

static void append_between_pages(void *table)
{
    CHECK(pgd_table_append(table, 33));
}

static void append_past_all_positions(void *table)
{
    CHECK(pgd_table_append(table, UINT64_MAX - 15));
}

static void place_where_a_page_is(void *table)
{
    pgd_table_place(table, 2, 0, 9, 0);
}

static void place_no_frame(void *table)
{
    pgd_table_place(table, 2, 1, PGD_FRAME_NONE, 0);
}

static void place_in_a_sealed_block(void *table)
{
    CHECK_EQ_U64(pgd_table_clear_page(table, 0, 0), 0);
    pgd_table_place(table, 0, 0, 9, 0);
}

static void clear_an_absent_page(void *table)
{
    CHECK_EQ_U64(pgd_table_clear_page(table, 2, 1), 0);
}

static void remove_with_pages(void *table)
{
    pgd_table_remove(table, 0);
}

static void remove_pinned(void *table)
{
    pgd_table_set_pinned(table, 2, true);
    CHECK_EQ_U64(pgd_table_clear_page(table, 2, 0), 4);
    pgd_table_remove(table, 2);
}

static void seal_a_partial_block(void *table)
{
    pgd_table_seal(table, 2);
}

static void seal_twice(void *table)
{
    pgd_table_seal(table, 1);
}

static void reopen_not_the_last(void *table)
{
    pgd_table_reopen(table, 0);
}

static void reopen_twice(void *table)
{
    pgd_table_reopen(table, 2);
}

static void count_too_many(void *table)
{
    pgd_table_set_count(table, 2, 17);
}

static void count_in_a_sealed_block(void *table)
{
    pgd_table_set_count(table, 1, 3);
}

static void look_past_the_end(void *table)
{
    (void) pgd_table_block(table, 3);
}

static void look_at_no_layer(void *table)
{
    (void) pgd_table_page(table, 0, 2);
}

TEST(table_asserts_what_callers_owe)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = system_of(&host);
    struct pgd_table *const table = open_table(&system, 2, 16, 5);
    add_sealed(table, 0, 2, 16, 0);
    add_sealed(table, 16, 2, 16, 2);
    CHECK_ABORTS(append_before_the_end, table);
    CHECK_ABORTS(append_between_pages, table);
    CHECK_ABORTS(append_past_all_positions, table);
    CHECK_ABORTS(reopen_not_the_last, table);
    CHECK(pgd_table_append(table, 32));
    pgd_table_place(table, 2, 0, 4, 0);
    pgd_table_set_count(table, 2, 5);
    static void (*const acts[])(void *) = {
        append_beside_an_open_block,
        place_where_a_page_is,
        place_no_frame,
        place_in_a_sealed_block,
        clear_an_absent_page,
        remove_with_pages,
        remove_pinned,
        seal_a_partial_block,
        seal_twice,
        reopen_twice,
        count_too_many,
        count_in_a_sealed_block,
        look_past_the_end,
        look_at_no_layer,
    };
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        CHECK_ABORTS(acts[i], table);
    }
    CHECK(pgd_table_is_valid(table));
    pgd_table_close(table);
}
