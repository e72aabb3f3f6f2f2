/* test_budget.c - a budget that moves: shrunk and grown at random during a whole life, against the twin. */
#include "cache/cache.h"
#include "harness/failing_system.h"
#include "os/os.h"
#include "unit/cache_life.h"

/* Sanitizers remember what was written in memory of their own. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHADOWED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SHADOWED 1
#endif
#endif
#ifndef SHADOWED
#define SHADOWED 0
#endif

/* Every invariant there is, and the highest that was held since the last look. */
static void check_all(struct life *life, uint64_t budget_bytes)
{
    struct pagoda_cache *cache = life->cache;
    CHECK(cache->ledger.peak_bytes <= budget_bytes);
    cache->ledger.peak_bytes = cache->ledger.used_bytes;
    CHECK(pgd_ledger_is_valid(&cache->ledger));
    CHECK(pgd_pool_is_valid(cache->pool));
    CHECK(pgd_table_is_valid(cache->table));
    CHECK(account_adds_up(cache));
    const uint64_t frames =
        cache->ledger.by_category[PAGODA_MEMORY_KV_EXACT] + cache->ledger.by_category[PAGODA_MEMORY_KV_QUANTIZED];
    const uint64_t slabs = pgd_pool_slabs_used(cache->pool) * pgd_pool_slab_bytes(cache->pool);
    CHECK(cache->ledger.used_bytes - frames + slabs <= cache->ledger.budget_bytes);
}

static void step(struct life *life, uint32_t count, bool compare)
{
    const uint64_t first = pagoda_cache_position(life->cache);
    const uint64_t close_at = life->options.close_gaps_at;
    CHECK(run_batch(life->cache, life->twin, life->fill, count) == PAGODA_OK);
    pagoda_cache_visit(life->cache, mark_codecs, life->twin);
    check_all(life, memory_of(life).budget_bytes);
    CHECK(!compare || close_to_twin(life->twin, life->fill, life->layers, first, count,
                                    close_at != 0 && first + count > close_at, ROUNDING));
}

/* Which tokens are pinned, so that it can be seen that none of them is lost. */
struct pins {
    uint64_t tokens;
    uint64_t codecs;
};
static bool count_pins(void *user, const struct pagoda_span *span)
{
    struct pins *pins = user;
    if (span->pinned) {
        pins->tokens = pins->tokens * 31 + span->first * 7 + span->count;
        pins->codecs = pins->codecs * 31 + (uint64_t) span->codec;
    }
    return true;
}

static struct pins pins_of(const struct life *life)
{
    struct pins pins = {0, 0};
    pagoda_cache_visit(life->cache, count_pins, &pins);
    return pins;
}

static void move_budget(struct life *life, uint64_t bytes)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    const struct pagoda_memory before = memory_of(life);
    const struct pagoda_account account_before = account_of(life);
    const struct pins pins = pins_of(life);
    const uint64_t floor_bytes = pagoda_cache_budget_floor(life->cache);
    CHECK(floor_bytes <= before.budget_bytes);
    const enum pagoda_status status = pagoda_cache_set_budget(life->cache, bytes, &error);
    const struct pagoda_memory after = memory_of(life);
    pagoda_cache_visit(life->cache, mark_codecs, life->twin);
    check_all(life, before.budget_bytes > after.budget_bytes ? before.budget_bytes : after.budget_bytes);
    CHECK(pins_of(life).tokens == pins.tokens && pins_of(life).codecs == pins.codecs);
    if (status == PAGODA_OK) {
        CHECK_EQ_U64(after.budget_bytes, bytes);
        life->shrunk += after.used_bytes < before.used_bytes ? 1 : 0;
        if (life->options.on_full == PAGODA_ON_FULL_EVICT && bytes < before.budget_bytes) {
            CHECK(pagoda_cache_begin(life->cache, 1, &error) == PAGODA_OK); /* one page of room is part of the floor */
            pagoda_cache_abort(life->cache);
            pagoda_cache_visit(life->cache, mark_codecs, life->twin);
        }
    } else {
        CHECK_EQ_INT(status, PAGODA_OVER_BUDGET);
        CHECK(strstr(error.message, "it takes at least") != NULL);
        CHECK(bytes < floor_bytes);
        CHECK_EQ_U64(after.budget_bytes, before.budget_bytes);
        CHECK_EQ_U64(account_of(life).dropped, account_before.dropped);
        life->refused++;
    }
    CHECK(life->options.on_full == PAGODA_ON_FULL_EVICT || account_of(life).dropped == account_before.dropped);
}

/* The governor's way down: whatever is asked for, no text leaves, and the next token still fits. */
static void lower_budget(struct life *life, uint64_t bytes)
{
    const struct pagoda_memory before = memory_of(life);
    const struct pagoda_account account_before = account_of(life);
    const struct pins pins = pins_of(life);
    const uint64_t least = pgd_cache_text_floor(life->cache);
    const uint32_t room = pagoda_cache_room(life->cache, 1);
    CHECK(pagoda_cache_budget_floor(life->cache) <= least && least <= before.budget_bytes);
    CHECK(pgd_cache_lower_budget(life->cache, bytes, NULL) == PAGODA_OK);
    const struct pagoda_memory after = memory_of(life);
    pagoda_cache_visit(life->cache, mark_codecs, life->twin);
    check_all(life, before.budget_bytes);
    CHECK(pins_of(life).tokens == pins.tokens && pins_of(life).codecs == pins.codecs);
    CHECK_EQ_U64(account_of(life).dropped, account_before.dropped);
    CHECK(after.budget_bytes <= before.budget_bytes);
    CHECK(bytes < least || after.budget_bytes == (bytes < before.budget_bytes ? bytes : before.budget_bytes));
    CHECK(pagoda_cache_room(life->cache, 1) >= room);
}

/* A cache that may re-encode and drop, with 1,920 tokens in f16. */
static void begin_long_life(struct life *life)
{
    begin_life(life, 3);
    life->options.codec_tight = PAGODA_CODEC_K5V4;
    life->options.batch_tokens = 64;
    life->options.exact_recent = 32;
    life->options.on_full = PAGODA_ON_FULL_EVICT;
    open_cache(life);
    for (int i = 0; i < 30; i++) {
        step(life, 64, false);
    }
}

TEST(a_smaller_budget_makes_pages_smaller_and_then_lets_them_go)
{
    struct life life;
    begin_long_life(&life);
    const uint64_t full = memory_of(&life).used_bytes;
    const uint64_t fixed = full - memory_of(&life).frame_bytes;
    CHECK_EQ_U64(account_of(&life).ram, 1920);
    move_budget(&life, fixed + (full - fixed) * 7 / 10);
    CHECK_EQ_U64(account_of(&life).dropped, 0);
    CHECK(account_of(&life).quantized > 100 && account_of(&life).ram > 16 + 32);
    step(&life, 1, true);
    move_budget(&life, fixed + (full - fixed) * 5 / 10);
    CHECK_EQ_U64(account_of(&life).dropped, 0);
    CHECK(account_of(&life).by_codec[PAGODA_CODEC_K8V4] + account_of(&life).by_codec[PAGODA_CODEC_K5V4] > 500);
    step(&life, 1, true);
    move_budget(&life, fixed + (full - fixed) * 2 / 10);
    CHECK(account_of(&life).dropped > 0 && account_of(&life).quantized + account_of(&life).ram > 0);
    step(&life, 1, true);
    move_budget(&life, life.options.budget_bytes);
    for (int i = 0; i < 8; i++) {
        step(&life, 64, i == 7);
    }
    CHECK(account_of(&life).ram >= 500); /* it has grown again */
    end_life(&life);
}

TEST(what_may_not_leave_is_the_floor)
{
    struct life life;
    begin_life(&life, 4);
    life.options.batch_tokens = 64;
    life.options.on_full = PAGODA_ON_FULL_EVICT;
    open_cache(&life);
    for (int i = 0; i < 5; i++) {
        step(&life, 64, false);
    }
    const uint64_t unpinned = pagoda_cache_budget_floor(life.cache);
    CHECK(pagoda_cache_pin(life.cache, 0, 160, NULL) == PAGODA_OK);
    const uint64_t pinned = pagoda_cache_budget_floor(life.cache);
    const uint64_t block = 16 * memory_of(&life).bytes_per_token;
    CHECK(pinned >= unpinned + 5 * block); /* the window layer has let its pages go, the other two hold ten each */
    move_budget(&life, pinned - 1);
    CHECK_EQ_U64(life.refused, 1);
    CHECK_EQ_U64(account_of(&life).dropped, 0);
    move_budget(&life, pinned);
    CHECK_EQ_U64(account_of(&life).pinned, 160);
    step(&life, 1, true);
    step(&life, 15, true);
    step(&life, 1, true); /* the page before it has left */
    CHECK(pagoda_cache_unpin(life.cache, 0, 160, NULL) == PAGODA_OK);
    move_budget(&life, pagoda_cache_budget_floor(life.cache));
    step(&life, 1, true);
    end_life(&life);
}

TEST(text_can_be_kept_on_the_way_down)
{
    struct life life;
    begin_long_life(&life);
    const uint64_t least = pgd_cache_text_floor(life.cache);
    CHECK(pagoda_cache_budget_floor(life.cache) < least);
    CHECK(least < memory_of(&life).used_bytes - memory_of(&life).frame_bytes / 4);
    lower_budget(&life, least);
    CHECK_EQ_U64(memory_of(&life).budget_bytes, least);
    CHECK(account_of(&life).quantized > 1500);
    step(&life, 1, true);
    lower_budget(&life, 0); /* as far as it can be */
    CHECK(memory_of(&life).budget_bytes <= least);
    CHECK_EQ_U64(account_of(&life).dropped, 0);
    step(&life, 1, true);
    CHECK(pagoda_cache_begin(life.cache, 1, NULL) == PAGODA_OK);
    CHECK(pgd_cache_lower_budget(life.cache, 0, NULL) == PAGODA_BUSY);
    pagoda_cache_abort(life.cache);
    end_life(&life);
}

TEST(stop_never_loses_text)
{
    struct life life;
    begin_life(&life, 5);
    life.options.codec_tight = PAGODA_CODEC_K8V4;
    life.options.batch_tokens = 64;
    life.options.exact_recent = 32;
    open_cache(&life);
    for (int i = 0; i < 6; i++) {
        step(&life, 64, false);
    }
    move_budget(&life, pagoda_cache_budget_floor(life.cache));
    CHECK(account_of(&life).quantized > 100);
    const struct pagoda_memory before = memory_of(&life);
    move_budget(&life, before.used_bytes / 2);
    CHECK_EQ_U64(life.refused, 1);
    CHECK(pagoda_cache_room(life.cache, 64) < 64); /* the room went with the budget ... */
    move_budget(&life, life.options.budget_bytes);
    CHECK_EQ_U64(pagoda_cache_room(life.cache, 64), 64); /* ... and came back */
    step(&life, 64, true);
    end_life(&life);
}

TEST(a_budget_is_checked)
{
    struct life life;
    struct pagoda_error error;
    begin_life(&life, 6);
    open_cache(&life);
    CHECK(pagoda_cache_set_budget(life.cache, life.options.budget_bytes + 1, &error) == PAGODA_RANGE);
    CHECK(pagoda_cache_begin(life.cache, 1, NULL) == PAGODA_OK);
    CHECK(pagoda_cache_set_budget(life.cache, life.options.budget_bytes, &error) == PAGODA_BUSY);
    pagoda_cache_abort(life.cache);
    CHECK(pagoda_cache_set_budget(life.cache, 0, &error) == PAGODA_OVER_BUDGET);
    CHECK(pagoda_cache_set_budget(life.cache, life.options.budget_bytes, &error) == PAGODA_OK);
    const uint64_t capacity = memory_of(&life).tokens_capacity;
    CHECK(pagoda_cache_set_budget(life.cache, life.options.budget_bytes / 4, &error) == PAGODA_OK);
    CHECK(memory_of(&life).tokens_capacity < capacity / 3);
    CHECK(pagoda_cache_set_budget(life.cache, life.options.budget_bytes, &error) == PAGODA_OK);
    CHECK_EQ_U64(memory_of(&life).tokens_capacity, capacity);
    end_life(&life);
}

/* Real memory: what was released is gone from the process when the call returns. */
TEST(the_memory_goes_back_to_the_system)
{
    static const enum pagoda_codec tight[] = {PAGODA_CODEC_F16, PAGODA_CODEC_K5V4};
    for (int i = 0; i < 2; i++) {
        struct pagoda_layer layer = {.kv_heads = 8, .query_heads = 8, .key_size = 80, .value_size = 80, .scale = 0.1f};
        struct pagoda_cache_options options;
        struct pagoda_cache *cache = NULL;
        uint64_t full = 0;
        uint64_t less = 0;
        uint64_t peak = 0;
        static float rows[256][8 * 80];
        static float out[256][8 * 80];
        pagoda_cache_options_default(&options);
        options.layers = &layer;
        options.layer_count = 1;
        options.codec_tight = tight[i];
        options.budget_bytes = 64u << 20;
        options.on_full = PAGODA_ON_FULL_EVICT;
        CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
        for (int batch = 0; batch < 60; batch++) {
            const struct pagoda_queries queries = {rows[0], 8 * 80, 80};
            const struct pagoda_outputs outputs = {out[0], 8 * 80, 80};
            CHECK(pagoda_cache_begin(cache, 256, NULL) == PAGODA_OK);
            CHECK(pagoda_cache_ingest(cache, 0, PAGODA_KEYS, rows[0], 8 * 80, 0, 1) == PAGODA_OK);
            CHECK(pagoda_cache_ingest(cache, 0, PAGODA_VALUES, rows[0], 8 * 80, 0, 1) == PAGODA_OK);
            if (batch == 0) {
                CHECK(pagoda_cache_attend(cache, 0, &queries, &outputs, 0, 1) == PAGODA_OK);
            }
            CHECK(pagoda_cache_end(cache, NULL) == PAGODA_OK);
        }
        /* Pages pinned all over the arena, also where the limit will be below them. */
        CHECK(pagoda_cache_pin(cache, 256 * 10, 16, NULL) == PAGODA_OK);
        CHECK(pagoda_cache_pin(cache, 256 * 55, 16, NULL) == PAGODA_OK);
        struct pagoda_memory before;
        struct pagoda_memory after;
        pagoda_cache_memory(cache, &before);
        pgd_os_process_memory(&full, &peak);
        CHECK(pagoda_cache_set_budget(cache, 8u << 20, NULL) == PAGODA_OK);
        pgd_os_process_memory(&less, &peak);
        pagoda_cache_memory(cache, &after);
        CHECK(before.used_bytes > after.used_bytes + (24u << 20));
        if (full == 0 || SHADOWED) {
            SKIP("the resident size of a process is not known here");
        }
        CHECK(full >= less + (before.used_bytes - after.used_bytes) * 95 / 100);
        pagoda_cache_close(cache);
    }
}

/* Shrunk and grown a thousand times during one life, with everything else going on. */
static void random_life(uint64_t seed, int moves)
{
    struct test_rng rng = test_rng(seed);
    struct life life;
    begin_life(&life, seed);
    life.options.page_tokens = 16u << test_rng_below(&rng, 2);
    life.options.codec = (enum pagoda_codec)(test_rng_below(&rng, 2) * PAGODA_CODEC_K8V5);
    life.options.codec_tight =
        (enum pagoda_codec)(life.options.codec + test_rng_below(&rng, PAGODA_CODEC_COUNT - life.options.codec));
    life.options.exact_first = (uint32_t) test_rng_below(&rng, 40);
    life.options.exact_recent = (uint32_t) test_rng_below(&rng, 90);
    life.options.batch_tokens = 64;
    life.options.budget_bytes = budget_for(&life.options, 300 + test_rng_below(&rng, 500));
    life.options.on_full = test_rng_below(&rng, 4) == 0 ? PAGODA_ON_FULL_STOP : PAGODA_ON_FULL_EVICT;
    life.options.policy.kind = (enum pagoda_policy_kind) test_rng_below(&rng, 3);
    life.options.close_gaps_at = test_rng_below(&rng, 2) == 0 ? 0 : test_rng_below(&rng, 500);
    open_cache(&life);
    const uint64_t opened = life.options.budget_bytes;
    for (int moved = 0; moved < moves;) {
        const uint64_t position = pagoda_cache_position(life.cache);
        const uint64_t pick = test_rng_below(&rng, 100);
        if (pick < 40) {
            uint32_t count = 1 + (uint32_t) test_rng_below(&rng, pick < 10 ? 4 : 64);
            count = pagoda_cache_room(life.cache, count);
            if (count == 0 || position + count > TOKENS_MAX) {
                CHECK(pagoda_cache_reset(life.cache, NULL) == PAGODA_OK);
            } else if (pagoda_cache_begin(life.cache, count, NULL) == PAGODA_OK) {
                pagoda_cache_abort(life.cache);
                step(&life, count, pick % 4 == 0 && position < 700);
            }
        } else if (pick < 85) {
            const uint64_t floor_bytes = pagoda_cache_budget_floor(life.cache);
            const uint64_t kind = test_rng_below(&rng, 4);
            const uint64_t bytes = kind == 0   ? opened
                                   : kind == 1 ? test_rng_below(&rng, opened + 1)
                                               : floor_bytes + test_rng_below(&rng, opened - floor_bytes + 1);
            if (pick < 75) {
                move_budget(&life, bytes);
            } else {
                lower_budget(&life, bytes);
            }
            moved++;
        } else if (pick < 90 && position > 0) {
            const uint64_t first = test_rng_below(&rng, position);
            const uint64_t count = 1 + test_rng_below(&rng, position - first < 40 ? position - first : 40);
            const enum pagoda_status status = pagoda_cache_pin(life.cache, first, count, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_FULL);
        } else if (pick < 94 && position > 0) {
            CHECK(pagoda_cache_unpin(life.cache, 0, position, NULL) == PAGODA_OK);
        } else if (pick < 99) {
            const uint64_t back = test_rng_below(&rng, position / 4 + 1);
            const enum pagoda_status status = pagoda_cache_rollback(life.cache, back, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_RANGE);
        } else {
            CHECK(pagoda_cache_reset(life.cache, NULL) == PAGODA_OK);
        }
        pagoda_cache_visit(life.cache, mark_codecs, life.twin);
        check_all(&life, memory_of(&life).budget_bytes);
    }
    if (life.options.on_full == PAGODA_ON_FULL_EVICT) {
        CHECK(life.shrunk > (uint64_t) moves / 20); /* pages really had to go */
    }
    end_life(&life);
}

TEST(a_budget_moved_a_thousand_times_breaks_nothing)
{
    const uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 3; i++) {
        random_life(seed + i, 1000);
    }
}

/* The same by a team: the owner moves the budget between batches that four threads work on. */
TEST(a_budget_moves_between_batches_of_a_team)
{
    struct life life;
    struct test_rng rng = test_rng(17);
    begin_life(&life, 17);
    life.options.codec_tight = PAGODA_CODEC_K5V4;
    life.options.batch_tokens = 64;
    life.options.threads_max = 4;
    life.options.on_full = PAGODA_ON_FULL_EVICT;
    life.options.budget_bytes = budget_for(&life.options, 500);
    open_cache(&life);
    for (int i = 0; i < 100; i++) {
        const uint32_t count = pagoda_cache_room(life.cache, 1 + (uint32_t) test_rng_below(&rng, 40));
        CHECK(run_batch_in_team(life.cache, life.twin, life.fill, count > 8 ? 8 : count, 4));
        life.twin->tokens = pagoda_cache_position(life.cache);
        pagoda_cache_visit(life.cache, mark_codecs, life.twin);
        const uint64_t floor_bytes = pagoda_cache_budget_floor(life.cache);
        move_budget(&life, floor_bytes + test_rng_below(&rng, life.options.budget_bytes - floor_bytes + 1));
    }
    end_life(&life);
}
