/* The extents of the flash file: by hand, and against a twin that keeps one byte per unit. */
#include <stdlib.h>
#include <string.h>

#include "harness/test.h"
#include "tier/extents.h"

#define TWIN_ROUNDS 40
#define TWIN_OPERATIONS 10000 /* per round: 400,000 in all */
#define UNITS_MAX 600u

TEST(first_fit_and_joining)
{
    struct pgd_extent entries[4];
    struct pgd_extents extents;
    pgd_extents_init(&extents, entries, 4, 100);
    uint32_t at[4];
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(pgd_extents_take(&extents, 10, &at[i]));
        CHECK_EQ_U64(at[i], 10 * i);
    }
    (void) pgd_extents_give(&extents, 0, 10);
    (void) pgd_extents_give(&extents, 20, 10);
    CHECK_EQ_U64(extents.entry_count, 2);
    uint32_t small;
    CHECK(pgd_extents_take(&extents, 4, &small));
    CHECK_EQ_U64(small, 0);
    (void) pgd_extents_give(&extents, 10, 10); /* between two free ones: all join */
    CHECK_EQ_U64(extents.entry_count, 1);
    CHECK(entries[0].offset == 4 && entries[0].count == 26);
    (void) pgd_extents_give(&extents, 30, 10); /* the last: nothing is left behind it */
    CHECK_EQ_U64(extents.end, 4);
    CHECK_EQ_U64(extents.entry_count, 0);
    CHECK(pgd_extents_is_valid(&extents));
    uint32_t rest = 77;
    CHECK(!pgd_extents_take(&extents, 97, &rest));
    CHECK_EQ_U64(rest, 77);
    CHECK(pgd_extents_can_take(&extents, 96) && !pgd_extents_can_take(&extents, 97));
    CHECK(pgd_extents_take(&extents, 96, &rest));
    CHECK_EQ_U64(rest, 4);
}

TEST(without_a_place_the_smallest_is_lost)
{
    struct pgd_extent entries[2];
    struct pgd_extents extents;
    pgd_extents_init(&extents, entries, 2, 100);
    uint32_t offset;
    static const uint32_t sizes[] = {5, 1, 3, 1, 4, 1, 2, 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        CHECK(pgd_extents_take(&extents, sizes[i], &offset));
    }
    CHECK_EQ_U64(pgd_extents_give(&extents, 0, 5).count, 0);
    CHECK_EQ_U64(pgd_extents_give(&extents, 6, 3).count, 0);
    const struct pgd_extent lost = pgd_extents_give(&extents, 10, 4);
    CHECK(lost.offset == 6 && lost.count == 3);
    CHECK_EQ_U64(extents.lost, 3);
    const struct pgd_extent itself = pgd_extents_give(&extents, 15, 2);
    CHECK(itself.offset == 15 && itself.count == 2);
    CHECK_EQ_U64(extents.lost, 5);
    CHECK(pgd_extents_is_valid(&extents));
    pgd_extents_init(&extents, entries, 2, 100);
    CHECK(extents.lost == 0 && extents.used == 0 && extents.end == 0);
}

static void give_twice(void *user)
{
    (void) user;
    struct pgd_extent entries[2];
    struct pgd_extents extents;
    pgd_extents_init(&extents, entries, 2, 100);
    uint32_t first;
    uint32_t second;
    uint32_t third;
    if (pgd_extents_take(&extents, 5, &first) && pgd_extents_take(&extents, 5, &second) &&
        pgd_extents_take(&extents, 5, &third)) {
        (void) pgd_extents_give(&extents, first, 5);
        (void) pgd_extents_give(&extents, first, 5);
    }
}

TEST(giving_back_twice_is_asserted)
{
    CHECK_ABORTS(give_twice, NULL);
}

/* ---- the twin ---- */

enum unit { FREE = 0, USED, LOST };

struct twin {
    unsigned char units[UNITS_MAX];
    uint32_t count;
};

/* First fit, read off the bytes; UNITS_MAX when there is none. */
static uint32_t twin_find(const struct twin *twin, uint32_t wanted)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < twin->count; i++) {
        run = twin->units[i] == FREE ? run + 1 : 0;
        if (run == wanted) {
            return i + 1 - wanted;
        }
    }
    return UNITS_MAX;
}

struct live {
    uint32_t offset;
    uint32_t count;
};

struct game {
    struct pgd_extents extents;
    struct twin twin;
    struct live live[UNITS_MAX];
    uint32_t live_count;
};

static void play_take(struct game *game, uint32_t count)
{
    const uint32_t expected = twin_find(&game->twin, count);
    uint32_t offset = 0;
    CHECK(pgd_extents_can_take(&game->extents, count) == (expected != UNITS_MAX));
    if (!pgd_extents_take(&game->extents, count, &offset)) {
        CHECK_EQ_U64(expected, UNITS_MAX);
        return;
    }
    CHECK_EQ_U64(offset, expected);
    memset(&game->twin.units[offset], USED, count);
    game->live[game->live_count++] = (struct live) {offset, count};
}

static void play_give(struct game *game, uint32_t which)
{
    const struct live live = game->live[which];
    game->live[which] = game->live[--game->live_count];
    const struct pgd_extent lost = pgd_extents_give(&game->extents, live.offset, live.count);
    memset(&game->twin.units[live.offset], FREE, live.count);
    for (uint32_t i = 0; i < lost.count; i++) {
        CHECK_EQ_INT(game->twin.units[lost.offset + i], FREE);
        game->twin.units[lost.offset + i] = LOST;
    }
}

static uint32_t twin_number_of(const struct twin *twin, enum unit unit)
{
    uint32_t number = 0;
    for (uint32_t i = 0; i < twin->count; i++) {
        number += twin->units[i] == (unsigned char) unit ? 1 : 0;
    }
    return number;
}

static void play_round(struct test_rng *rng, struct pgd_extent *entries, uint32_t capacity)
{
    static struct game game;
    const uint32_t units = 50 + (uint32_t) test_rng_below(rng, UNITS_MAX - 50);
    const uint32_t largest = 1 + (uint32_t) test_rng_below(rng, 20);
    memset(&game, 0, sizeof game);
    game.twin.count = units;
    pgd_extents_init(&game.extents, entries, capacity, units);
    for (int i = 0; i < TWIN_OPERATIONS; i++) {
        const uint64_t share = i / 500 % 2 == 0 ? 400 : 600;
        const bool takes = test_rng_below(rng, 1000) < share;
        if (takes || game.live_count == 0) {
            play_take(&game, 1 + (uint32_t) test_rng_below(rng, largest));
        } else {
            play_give(&game, (uint32_t) test_rng_below(rng, game.live_count));
        }
        CHECK(pgd_extents_is_valid(&game.extents));
        CHECK_EQ_U64(game.extents.used, twin_number_of(&game.twin, USED));
        CHECK_EQ_U64(game.extents.lost, twin_number_of(&game.twin, LOST));
        if (game.live_count == 0) {
            pgd_extents_init(&game.extents, entries, capacity, units);
            memset(game.twin.units, FREE, sizeof game.twin.units);
        }
    }
}

TEST(agrees_with_the_twin)
{
    struct test_rng rng = test_rng(test_seed());
    static struct pgd_extent entries[UNITS_MAX];
    for (int round = 0; round < TWIN_ROUNDS; round++) {
        const bool is_tight = round % 2 == 0;
        play_round(&rng, entries, is_tight ? 1 + (uint32_t) test_rng_below(&rng, 8) : UNITS_MAX);
    }
}
