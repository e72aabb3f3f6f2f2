/* test_cache_codecs.c - pages that become smaller: the cache against its twin, which sends the same rows through the
 * same codecs one by one. */
#include "harness/failing_system.h"
#include "unit/cache_life.h"

/* One batch that is not compared with the twin. */
static void skip(struct life *life, uint32_t count)
{
    CHECK(run_batch(life->cache, life->twin, life->fill, count) == PAGODA_OK);
    pagoda_cache_visit(life->cache, mark_codecs, life->twin);
    CHECK(account_adds_up(life->cache));
}

/* One batch, compared with the twin. */
static void step(struct life *life, uint32_t count)
{
    const uint64_t first = pagoda_cache_position(life->cache);
    const uint64_t close_at = life->options.close_gaps_at;
    skip(life, count);
    CHECK(close_to_twin(life->twin, life->fill, life->layers, first, count, close_at != 0 && first + count > close_at,
                        ROUNDING));
}

TEST(settled_pages_agree_with_the_twin_in_every_codec)
{
    for (enum pagoda_codec codec = PAGODA_CODEC_R15; codec < PAGODA_CODEC_COUNT; codec++) {
        struct life life;
        begin_life(&life, 7);
        life.options.codec = codec;
        open_cache(&life);
        static const uint32_t counts[] = {1, 15, 16, 17, 100, 1, 1, 33, 256, 1, 7};
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            step(&life, counts[i]);
        }
        const struct pagoda_account account = account_of(&life);
        CHECK_EQ_INT(account.total, 448);
        /* Exact: the first 16, the latest 128 of the last begin, and what shares a page with these. */
        CHECK_EQ_INT(account.ram, 16 + 128);
        CHECK_EQ_INT(account.quantized, 448 - 16 - 128);
        CHECK_EQ_INT(account.by_codec[codec], account.quantized);
        CHECK_EQ_INT(account.dropped, 0);
        CHECK(!account.exact);
        CHECK(memory_of(&life).reencoded_pages > 0);
        end_life(&life);
    }
}

TEST(an_f16_cache_re_encodes_nothing)
{
    struct life life;
    begin_life(&life, 8);
    life.options.budget_bytes = budget_for(&life.options, 300);
    life.options.on_full = PAGODA_ON_FULL_EVICT;
    open_cache(&life);
    for (int i = 0; i < 10; i++) {
        step(&life, 60);
    }
    CHECK_EQ_INT(account_of(&life).quantized, 0);
    CHECK_EQ_INT(memory_of(&life).reencoded_pages, 0);
    CHECK(account_of(&life).dropped > 0);
    end_life(&life);
}

/* Under pressure: f16 while there is room, then k8v4, then k5v4, and only then something leaves. */
TEST(nothing_leaves_before_everything_is_small)
{
    struct life life;
    begin_life(&life, 9);
    life.options.batch_tokens = 32;
    life.options.exact_recent = 32;
    life.options.budget_bytes = budget_for(&life.options, 1800);
    life.options.codec_tight = PAGODA_CODEC_K5V4;
    life.options.on_full = PAGODA_ON_FULL_EVICT;
    open_cache(&life);
    uint64_t first_middle = 0;
    uint64_t first_small = 0;
    uint64_t first_drop = 0;
    while (first_drop == 0 && pagoda_cache_position(life.cache) < 4000) {
        skip(&life, 16);
        const struct pagoda_account account = account_of(&life);
        const uint64_t position = pagoda_cache_position(life.cache);
        first_middle = first_middle == 0 && account.by_codec[PAGODA_CODEC_K8V4] > 0 ? position : first_middle;
        first_small = first_small == 0 && account.by_codec[PAGODA_CODEC_K5V4] > 0 ? position : first_small;
        first_drop = first_drop == 0 && account.dropped > 0 ? position : first_drop;
    }
    const struct pagoda_account account = account_of(&life);
    CHECK(500 < first_middle && first_middle < first_small && first_small < first_drop);
    CHECK(first_drop > 2700); /* f16 alone: 1,800 */
    step(&life, 16);
    CHECK(account.by_codec[PAGODA_CODEC_F16] <= 16 + 32 + 32 + 32);
    CHECK_EQ_INT(account.by_codec[PAGODA_CODEC_K8V4], 0);
    end_life(&life);
}

/* With room for everything, a cache that may re-encode gives the bytes of one that may not. */
TEST(without_pressure_auto_is_f16)
{
    struct life exact;
    struct life tight;
    begin_life(&exact, 10);
    begin_life(&tight, 10);
    tight.options.codec_tight = PAGODA_CODEC_K5V4;
    open_cache(&exact);
    open_cache(&tight);
    for (int i = 0; i < 6; i++) {
        CHECK(run_batch(exact.cache, exact.twin, exact.fill, 70) == PAGODA_OK);
        CHECK(run_batch(tight.cache, tight.twin, tight.fill, 70) == PAGODA_OK);
        CHECK_MEM(exact.fill->outputs, tight.fill->outputs, sizeof(exact.fill->outputs));
    }
    CHECK(account_of(&tight).exact);
    end_life(&exact);
    end_life(&tight);
}

TEST(stop_fills_the_budget_with_small_pages_first)
{
    struct life life;
    begin_life(&life, 11);
    life.options.batch_tokens = 16;
    life.options.exact_recent = 16;
    life.options.budget_bytes = budget_for(&life.options, 1800);
    life.options.codec_tight = PAGODA_CODEC_K5V4;
    open_cache(&life);
    const uint64_t capacity = memory_of(&life).tokens_capacity;
    struct pagoda_error error;
    while (pagoda_cache_room(life.cache, 16) == 16) {
        skip(&life, 16);
    }
    CHECK(pagoda_cache_begin(life.cache, 16, &error) == PAGODA_FULL);
    CHECK(strstr(error.message, "full") != NULL);
    /* The capacity is what fits for sure, and f16 alone would have held 1,800. */
    CHECK(capacity > 2600 && account_of(&life).total >= capacity);
    CHECK_EQ_INT(account_of(&life).dropped, 0);
    end_life(&life);
}

TEST(bytes_do_not_depend_on_threads_or_batches)
{
    struct life alone;
    struct life team;
    begin_life(&alone, 12);
    begin_life(&team, 12);
    alone.options.codec = team.options.codec = PAGODA_CODEC_K8V5;
    alone.options.threads_max = team.options.threads_max = 4;
    open_cache(&alone);
    open_cache(&team);
    CHECK(run_batch(alone.cache, alone.twin, alone.fill, 256) == PAGODA_OK);
    CHECK(run_batch(team.cache, team.twin, team.fill, 256) == PAGODA_OK);
    CHECK(run_batch(alone.cache, alone.twin, alone.fill, 144) == PAGODA_OK);
    CHECK(run_batch(team.cache, team.twin, team.fill, 144) == PAGODA_OK);
    /* 8 tokens at once by 3 threads, and one by one: what may be re-encoded is the same, as no page gets full. */
    CHECK(run_batch_in_team(team.cache, team.twin, team.fill, 8, 3));
    for (int i = 0; i < 8; i++) {
        CHECK(run_batch(alone.cache, alone.twin, alone.fill, 1) == PAGODA_OK);
        for (int layer = 0; layer < LAYERS; layer++) {
            CHECK_MEM(alone.fill->outputs[layer][0], team.fill->outputs[layer][i], sizeof(alone.fill->outputs[0][0]));
        }
    }
    CHECK(account_of(&alone).quantized > 0);
    end_life(&alone);
    end_life(&team);
}

TEST(a_rollback_ends_at_whole_pages_where_they_are_small)
{
    struct life life;
    struct pagoda_error error;
    begin_life(&life, 13);
    life.layers[1].window = 0; /* windows have a floor of their own */
    life.options.codec = PAGODA_CODEC_K8V4;
    open_cache(&life);
    step(&life, 200);
    step(&life, 200);
    CHECK(account_of(&life).quantized > 100);
    CHECK(pagoda_cache_rollback(life.cache, 400 - 70, &error) == PAGODA_RANGE);
    CHECK(strstr(error.message, "re-encoded") != NULL);
    CHECK_EQ_INT(pagoda_cache_position(life.cache), 400);
    CHECK(pagoda_cache_rollback(life.cache, 400 - 64, NULL) == PAGODA_OK);
    step(&life, 30);
    step(&life, 200);
    CHECK(pagoda_cache_rollback(life.cache, 3, NULL) == PAGODA_OK);
    step(&life, 5);
    end_life(&life);
}

TEST(pinned_pages_keep_their_codec)
{
    struct life life;
    begin_life(&life, 14);
    life.options.codec = PAGODA_CODEC_K6V4;
    open_cache(&life);
    step(&life, 100);
    CHECK(pagoda_cache_pin(life.cache, 40, 20, NULL) == PAGODA_OK);
    step(&life, 200);
    step(&life, 100);
    CHECK_EQ_INT(life.twin->codec[32], PAGODA_CODEC_F16);
    CHECK_EQ_INT(life.twin->codec[63], PAGODA_CODEC_F16);
    CHECK_EQ_INT(life.twin->codec[31], PAGODA_CODEC_K6V4);
    CHECK_EQ_INT(life.twin->codec[64], PAGODA_CODEC_K6V4);
    CHECK(pagoda_cache_unpin(life.cache, 40, 20, NULL) == PAGODA_OK);
    end_life(&life);
}

/* Random life under a small budget, with every operation, compared with the twin all along. */
static void random_life(uint64_t seed, int operations)
{
    struct test_rng rng = test_rng(seed);
    struct life life;
    begin_life(&life, seed);
    life.options.page_tokens = 16u << test_rng_below(&rng, 3);
    life.options.codec = (enum pagoda_codec) test_rng_below(&rng, PAGODA_CODEC_COUNT);
    life.options.codec_tight =
        (enum pagoda_codec)(life.options.codec + test_rng_below(&rng, PAGODA_CODEC_COUNT - life.options.codec));
    life.options.exact_first = (uint32_t) test_rng_below(&rng, 40);
    life.options.exact_recent = (uint32_t) test_rng_below(&rng, 90);
    life.options.batch_tokens = 96;
    life.options.budget_bytes = budget_for(&life.options, 100 + test_rng_below(&rng, 600));
    life.options.tokens_max = test_rng_below(&rng, 2) == 0 ? 0 : 80 + test_rng_below(&rng, 500);
    life.options.on_full = test_rng_below(&rng, 4) == 0 ? PAGODA_ON_FULL_STOP : PAGODA_ON_FULL_EVICT;
    life.options.policy.kind = (enum pagoda_policy_kind) test_rng_below(&rng, 3);
    life.options.policy.window_tokens = test_rng_below(&rng, 2) == 0 ? 0 : 50 + test_rng_below(&rng, 200);
    life.options.close_gaps_at = test_rng_below(&rng, 2) == 0 ? 0 : test_rng_below(&rng, 500);
    open_cache(&life);
    for (int i = 0; i < operations; i++) {
        const uint64_t position = pagoda_cache_position(life.cache);
        const uint64_t pick = test_rng_below(&rng, 100);
        if (pick < 70) {
            uint32_t count = 1 + (uint32_t) test_rng_below(&rng, pick < 30 ? 4 : 90);
            count = pagoda_cache_room(life.cache, count);
            if (count == 0 || position + count > TOKENS_MAX) {
                CHECK(pagoda_cache_reset(life.cache, NULL) == PAGODA_OK);
            } else if (pagoda_cache_begin(life.cache, count, NULL) == PAGODA_FULL) {
                /* Slabs of several sizes did not pack: a typed refusal, and nothing has changed. */
                CHECK_EQ_INT(pagoda_cache_position(life.cache), position);
            } else {
                pagoda_cache_abort(life.cache);
                step(&life, count);
            }
        } else if (pick < 80) {
            const uint64_t back = test_rng_below(&rng, position + 1);
            const enum pagoda_status status = pagoda_cache_rollback(life.cache, back, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_RANGE);
        } else if (pick < 88 && position > 0) {
            const uint64_t first = test_rng_below(&rng, position);
            const uint64_t count = 1 + test_rng_below(&rng, position - first < 60 ? position - first : 60);
            const enum pagoda_status status = pagoda_cache_pin(life.cache, first, count, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_FULL);
        } else if (pick < 98 && position > 0) {
            CHECK(pagoda_cache_unpin(life.cache, 0, position, NULL) == PAGODA_OK);
        } else {
            CHECK(pagoda_cache_reset(life.cache, NULL) == PAGODA_OK);
        }
        CHECK(account_adds_up(life.cache));
    }
    end_life(&life);
}

TEST(random_lives_agree_with_the_twin)
{
    const uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 60; i++) {
        random_life(seed + i, 50);
    }
}

TEST(opening_survives_every_failing_allocation)
{
    bool opened = false;
    uint64_t n = 1;
    for (; !opened && n < 100; n++) {
        struct failing_system failing;
        struct life life;
        failing_system_init(&failing);
        failing_system_arm(&failing, n, true);
        begin_life(&life, 15);
        life.options.budget_bytes = budget_for(&life.options, 400);
        life.options.codec = PAGODA_CODEC_K8V5;
        life.options.codec_tight = PAGODA_CODEC_K5V4;
        life.options.on_full = PAGODA_ON_FULL_EVICT;
        life.options.system = &failing.system;
        const enum pagoda_status status = pagoda_cache_open(&life.options, &life.cache, NULL);
        opened = status == PAGODA_OK;
        CHECK(opened || status == PAGODA_NOMEM);
        const uint64_t before = failing.total_calls;
        for (int i = 0; opened && i < 30; i++) {
            CHECK(run_batch(life.cache, life.twin, life.fill, 33) == PAGODA_OK);
        }
        CHECK_EQ_INT(failing.total_calls, before); /* nothing is allocated after opening */
        end_life(&life);
        CHECK(failing_system_is_clean(&failing));
    }
    CHECK(opened && n > 4);
}

TEST(codecs_are_named_and_checked)
{
    struct life life;
    struct pagoda_error error;
    begin_life(&life, 1);
    CHECK_STR(pagoda_codec_name(PAGODA_CODEC_F16), "f16");
    CHECK_STR(pagoda_codec_name(PAGODA_CODEC_K5V4), "k5v4");
    CHECK(pagoda_codec_name(PAGODA_CODEC_COUNT) == NULL);
    life.options.codec = PAGODA_CODEC_K5V4;
    life.options.codec_tight = PAGODA_CODEC_Q8;
    CHECK(pagoda_cache_open(&life.options, &life.cache, &error) == PAGODA_INVALID);
    life.options.codec = PAGODA_CODEC_COUNT;
    CHECK(pagoda_cache_open(&life.options, &life.cache, &error) == PAGODA_INVALID);
    end_life(&life);
}
