/* Policies: examples by hand, and a naive twin that follows the sentences of policy.h word by word. */
#include <string.h>

#include "harness/test.h"
#include "policy/policy.h"

#define BLOCKS_MAX 40
#define TWIN_VIEWS 1000000

struct scene {
    struct pgd_policy_block blocks[BLOCKS_MAX];
    uint32_t count;
    uint64_t asked; /* how many blocks the policy looked at */
};

static void scene_at(const void *user, uint32_t index, struct pgd_policy_block *block)
{
    const struct scene *const scene = user;
    CHECK(index < scene->count);
    *block = scene->blocks[index];
}

static uint32_t choose(const struct scene *scene, struct pagoda_policy policy, uint64_t end, bool must_free)
{
    const struct pgd_policy_view view = {scene->count, scene_at, scene, end, must_free};
    const struct scene before = *scene;
    const uint32_t answer = pgd_policy_choose(&policy, &view);
    CHECK(pgd_policy_choose(&policy, &view) == answer); /* I2 */
    CHECK(memcmp(&before, scene, sizeof before) == 0);
    return answer;
}

/* `count` full blocks of 16 tokens; the last is open and holds `last_tokens`. */
static struct scene plain_scene(uint32_t count, uint32_t last_tokens)
{
    struct scene scene;
    memset(&scene, 0, sizeof scene);
    scene.count = count;
    for (uint32_t i = 0; i < count; i++) {
        scene.blocks[i].first = 16u * i;
        scene.blocks[i].count = i + 1 == count ? last_tokens : 16;
        scene.blocks[i].open = i + 1 == count;
    }
    return scene;
}

/* ---- by hand ---- */

TEST(fifo_drops_the_oldest_and_only_when_room_is_needed)
{
    const struct pagoda_policy fifo = {.kind = PAGODA_POLICY_FIFO, .window_tokens = 16};
    struct scene scene = plain_scene(4, 5);
    CHECK_EQ_INT(choose(&scene, fifo, 53, true), 0);
    CHECK_EQ_INT(choose(&scene, fifo, 53, false), PGD_POLICY_NOBODY); /* fifo knows no window */
    scene.blocks[0].pinned = true;
    scene.blocks[1].pinned = true;
    CHECK_EQ_INT(choose(&scene, fifo, 53, true), 2);
    scene.blocks[2].pinned = true;
    CHECK_EQ_INT(choose(&scene, fifo, 53, true), PGD_POLICY_NOBODY); /* the rest is open */
}

TEST(window_drops_what_has_left_the_window)
{
    const struct pagoda_policy window = {.kind = PAGODA_POLICY_WINDOW, .window_tokens = 32};
    const struct scene scene = plain_scene(4, 5);
    CHECK_EQ_INT(choose(&scene, window, 47, false), PGD_POLICY_NOBODY); /* the window begins at 15, in block 0 */
    CHECK_EQ_INT(choose(&scene, window, 48, false), 0);                 /* at 16: block 0 is out */
    CHECK_EQ_INT(choose(&scene, window, 48, true), 0);
    CHECK_EQ_INT(choose(&scene, window, 47, true), 0); /* inside, but room is needed */
    const struct pagoda_policy wide = {.kind = PAGODA_POLICY_WINDOW, .window_tokens = 1000};
    CHECK_EQ_INT(choose(&scene, wide, 53, false), PGD_POLICY_NOBODY);
    const struct pagoda_policy whole = {.kind = PAGODA_POLICY_WINDOW};
    CHECK_EQ_INT(choose(&scene, whole, 53, false), PGD_POLICY_NOBODY);
    CHECK_EQ_INT(choose(&scene, whole, 53, true), 0);
}

TEST(sink_keeps_the_first_tokens)
{
    struct pagoda_policy sink = {.kind = PAGODA_POLICY_SINK, .window_tokens = 16};
    const struct scene scene = plain_scene(4, 5);
    CHECK_EQ_INT(choose(&scene, sink, 53, false), 1);
    CHECK_EQ_INT(choose(&scene, sink, 53, true), 1);
    sink.sink_tokens = 16; /* just block 0 */
    CHECK_EQ_INT(choose(&scene, sink, 53, true), 1);
    sink.sink_tokens = 17; /* one token of block 1 */
    CHECK_EQ_INT(choose(&scene, sink, 53, true), 2);
    sink.sink_tokens = 1000;
    CHECK_EQ_INT(choose(&scene, sink, 53, true), PGD_POLICY_NOBODY);
    sink = (struct pagoda_policy) {.kind = PAGODA_POLICY_SINK};
    CHECK_EQ_INT(choose(&scene, sink, 53, false), PGD_POLICY_NOBODY);
    CHECK_EQ_INT(choose(&scene, sink, 53, true), 1);
}

TEST(random_keeps_the_first_and_the_latest)
{
    const struct pagoda_policy lots = {.kind = PAGODA_POLICY_RANDOM};
    struct scene scene = plain_scene(20, 5);
    CHECK_EQ_INT(choose(&scene, lots, 309, false), PGD_POLICY_NOBODY);
    const uint32_t drawn = choose(&scene, lots, 309, true); /* the latest 128 begin at 181, in block 11 */
    CHECK(drawn >= 1 && drawn <= 10);
    for (uint32_t i = 1; i <= 10; i++) {
        scene.blocks[i].pinned = true;
    }
    CHECK_EQ_INT(choose(&scene, lots, 309, true), 11); /* nobody else is left: the oldest of the latest */
}

/* One block after the other comes, and one leaves: what stays is a sample of all of them. */
TEST(random_keeps_a_fair_sample)
{
    enum { HELD = 39, LATEST = 8, COMING = 3000, PARTS = 10 };
    const struct pagoda_policy lots = {.kind = PAGODA_POLICY_RANDOM};
    uint32_t parts[PARTS] = {0};
    for (uint32_t start = 0; start < 20; start++) {
        struct scene scene = plain_scene(HELD, 16);
        scene.blocks[HELD - 1].open = false;
        for (uint32_t i = 0; i < HELD; i++) {
            scene.blocks[i].first += 1000000u * (start + 1);
        }
        for (uint32_t come = 0; come < COMING; come++) {
            const uint64_t next = scene.blocks[HELD - 1].first + 16;
            const uint32_t leaves = choose(&scene, lots, next + 16, true);
            CHECK(leaves < HELD);
            memmove(&scene.blocks[leaves], &scene.blocks[leaves + 1], (HELD - 1 - leaves) * sizeof(scene.blocks[0]));
            scene.blocks[HELD - 1] = (struct pgd_policy_block) {.first = next, .count = 16};
        }
        for (uint32_t i = 0; i < HELD - LATEST; i++) {
            const uint64_t age = (scene.blocks[i].first - 1000000u * (start + 1)) / 16;
            parts[age * PARTS / (COMING + HELD)]++;
        }
    }
    for (uint32_t i = 0; i < PARTS; i++) { /* 620 blocks: 62 in each part, with a deviation of less than 8 */
        CHECK(parts[i] > 30 && parts[i] < 94);
    }
}

TEST(sink_default_is_four_tokens)
{
    const struct pagoda_policy sink = {.kind = PAGODA_POLICY_SINK};
    struct pgd_policy_block block = {.first = 3, .count = 1};
    CHECK(!pgd_policy_may_leave(&sink, &block));
    block.first = 4;
    CHECK(pgd_policy_may_leave(&sink, &block));
}

TEST(empty_view_names_nobody)
{
    const struct scene scene = plain_scene(0, 0);
    for (int kind = PAGODA_POLICY_FIFO; kind <= PAGODA_POLICY_RANDOM; kind++) {
        const struct pagoda_policy policy = {.kind = (enum pagoda_policy_kind) kind, .window_tokens = 1};
        CHECK_EQ_INT(choose(&scene, policy, 100, true), PGD_POLICY_NOBODY);
    }
}

TEST(positions_at_the_end_of_the_number_line)
{
    struct scene scene = plain_scene(2, 16);
    scene.blocks[0].first = UINT64_MAX - 31;
    scene.blocks[1].first = UINT64_MAX - 15; /* its end does not fit in 64 bits */
    const struct pagoda_policy window = {.kind = PAGODA_POLICY_WINDOW, .window_tokens = 1};
    CHECK_EQ_INT(choose(&scene, window, UINT64_MAX, false), 0);
    scene.blocks[0].pinned = true;
    scene.blocks[1].open = false;
    CHECK_EQ_INT(choose(&scene, window, UINT64_MAX, false), PGD_POLICY_NOBODY);
}

TEST(kinds_are_named_and_validated)
{
    struct pagoda_policy policy = {.kind = PAGODA_POLICY_FIFO};
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_STR(pgd_policy_name(PAGODA_POLICY_FIFO), "fifo");
    CHECK_STR(pgd_policy_name(PAGODA_POLICY_WINDOW), "window");
    CHECK_STR(pgd_policy_name(PAGODA_POLICY_SINK), "sink");
    CHECK_STR(pgd_policy_name(PAGODA_POLICY_RANDOM), "random");
    for (int kind = PAGODA_POLICY_FIFO; kind <= PAGODA_POLICY_RANDOM; kind++) {
        policy.kind = (enum pagoda_policy_kind) kind;
        CHECK_EQ_INT(pgd_policy_validate(&policy, &error), PAGODA_OK);
    }
    CHECK_EQ_INT(error.status, PAGODA_OK);
    policy.kind = (enum pagoda_policy_kind) 4;
    CHECK(pgd_policy_name(policy.kind) == NULL);
    CHECK_EQ_INT(pgd_policy_validate(&policy, &error), PAGODA_INVALID);
    CHECK(strstr(error.message, "number 4") != NULL);
}

static void choose_in_a_broken_view(void *user)
{
    const struct pagoda_policy fifo = {.kind = PAGODA_POLICY_FIFO};
    (void) choose(user, fifo, 100, true);
}

TEST(choose_asserts_that_only_the_last_block_is_open)
{
    struct scene scene = plain_scene(3, 5);
    scene.blocks[0].open = true;
    CHECK_ABORTS(choose_in_a_broken_view, &scene);
}

/* ---- the twin ---- */

static bool twin_is_sink(const struct pagoda_policy *policy, const struct pgd_policy_block *block)
{
    if (policy->kind != PAGODA_POLICY_SINK && policy->kind != PAGODA_POLICY_RANDOM) {
        return false;
    }
    const uint64_t sinks = policy->sink_tokens == 0 ? 4 : policy->sink_tokens;
    for (uint64_t token = block->first; token < block->first + block->count; token++) {
        if (token < sinks) {
            return true;
        }
    }
    return block->count == 0 && block->first < sinks; /* nothing in it, and open anyway */
}

static bool twin_may_leave(const struct pagoda_policy *policy, const struct pgd_policy_block *block)
{
    return !block->pinned && !block->open && !twin_is_sink(policy, block);
}

static bool twin_has_token_in_window(const struct pagoda_policy *policy, const struct pgd_policy_block *block,
                                     uint64_t end)
{
    for (uint64_t back = 1; back <= policy->window_tokens && back <= end; back++) {
        const uint64_t token = end - back;
        if (token >= block->first && token < block->first + block->count) {
            return true;
        }
    }
    return false;
}

/* What policy.h says of random, but for the lots: whoever the policy names has to be one of these. */
static bool twin_may_draw(const struct pagoda_policy *policy, const struct scene *scene, uint64_t end, uint32_t index)
{
    const struct pagoda_policy latest = {.window_tokens = PGD_POLICY_RANDOM_RECENT};
    bool any = false;
    for (uint32_t i = 0; i < scene->count; i++) {
        const bool old =
            twin_may_leave(policy, &scene->blocks[i]) && !twin_has_token_in_window(&latest, &scene->blocks[i], end);
        any = any || old;
        if (old && i == index) {
            return true;
        }
    }
    for (uint32_t i = 0; !any && i < scene->count; i++) {
        if (twin_may_leave(policy, &scene->blocks[i])) {
            return i == index;
        }
    }
    return !any && index == PGD_POLICY_NOBODY;
}

static uint32_t twin_choose(const struct pagoda_policy *policy, const struct scene *scene, uint64_t end, bool must_free)
{
    const bool has_window = policy->kind != PAGODA_POLICY_FIFO && policy->window_tokens != 0;
    for (uint32_t i = 0; has_window && i < scene->count; i++) {
        if (twin_may_leave(policy, &scene->blocks[i]) && !twin_has_token_in_window(policy, &scene->blocks[i], end)) {
            return i;
        }
    }
    for (uint32_t i = 0; must_free && i < scene->count; i++) {
        if (twin_may_leave(policy, &scene->blocks[i])) {
            return i;
        }
    }
    return PGD_POLICY_NOBODY;
}

static struct scene random_scene(struct test_rng *rng)
{
    static const uint32_t sizes[] = {1, 4, 16, 32};
    const uint32_t page_tokens = sizes[test_rng_below(rng, 4)];
    const uint64_t pin_rarity = 1 + test_rng_below(rng, 6);
    const uint64_t gap_rarity = 1 + test_rng_below(rng, 6);
    struct scene scene;
    memset(&scene, 0, sizeof scene);
    scene.count = (uint32_t) test_rng_below(rng, 14);
    uint64_t next = page_tokens * test_rng_below(rng, 3);
    for (uint32_t i = 0; i < scene.count; i++) {
        next += test_rng_below(rng, gap_rarity) == 0 ? page_tokens * test_rng_below(rng, 3) : 0;
        scene.blocks[i].first = next;
        scene.blocks[i].count = page_tokens;
        scene.blocks[i].pinned = test_rng_below(rng, pin_rarity) == 0;
        next += page_tokens;
    }
    if (scene.count > 0 && test_rng_below(rng, 4) != 0) {
        struct pgd_policy_block *const last = &scene.blocks[scene.count - 1];
        last->open = true;
        last->count = (uint32_t) test_rng_below(rng, page_tokens + 1);
    }
    return scene;
}

TEST(policies_against_their_twin)
{
    struct test_rng rng = test_rng(test_seed());
    uint64_t named = 0;
    for (int i = 0; i < TWIN_VIEWS; i++) {
        const struct scene scene = random_scene(&rng);
        const struct pgd_policy_block *const last = &scene.blocks[scene.count > 0 ? scene.count - 1 : 0];
        const uint64_t end = last->first + last->count + test_rng_below(&rng, 20);
        const struct pagoda_policy policy = {
            .kind = (enum pagoda_policy_kind) test_rng_below(&rng, 4),
            .window_tokens = test_rng_below(&rng, 3) == 0 ? 0 : test_rng_below(&rng, 200),
            .sink_tokens = test_rng_below(&rng, 3) == 0 ? 0 : test_rng_below(&rng, 60),
        };
        const bool must_free = test_rng_below(&rng, 2) == 0;
        const uint32_t answer = choose(&scene, policy, end, must_free);
        if (policy.kind != PAGODA_POLICY_RANDOM) {
            CHECK_EQ_U64(answer, twin_choose(&policy, &scene, end, must_free));
        } else {
            CHECK(must_free ? twin_may_draw(&policy, &scene, end, answer) : answer == PGD_POLICY_NOBODY);
        }
        if (answer != PGD_POLICY_NOBODY) {
            CHECK(!scene.blocks[answer].pinned && !scene.blocks[answer].open); /* I1 */
            CHECK(pgd_policy_may_leave(&policy, &scene.blocks[answer]));
            named++;
        }
    }
    CHECK(named > TWIN_VIEWS / 10 && named < TWIN_VIEWS - TWIN_VIEWS / 10); /* both outcomes were exercised */
}
