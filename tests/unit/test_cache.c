/* test_cache.c - the cache as a whole, with exact pages, against its twin. */
#include "harness/failing_system.h"
#include "unit/cache_twin.h"

#define EXACT 2e-4 /* f16 is in the twin too; what is left is f32 rounding */

TEST(whole_sequence_agrees_with_the_twin)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    fill_layers(layers);
    fill_options(&options, layers);
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(7);
    static const uint32_t counts[] = {1, 15, 16, 17, 100, 1, 1, 33, 256, 1, 200, 1};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const uint64_t first = pagoda_cache_position(cache);
        CHECK(run_batch(cache, twin, fill, counts[i]) == PAGODA_OK);
        memset(twin->held, 1, sizeof(twin->held));
        CHECK(close_to_twin(twin, fill, layers, first, counts[i], false, EXACT));
        CHECK(account_adds_up(cache));
    }
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    CHECK(memory.released_window_pages > 0);
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
}

/* FNV-1a of all outputs of a run of 700 tokens. */
static uint64_t hash_of_run(uint32_t page_tokens, uint64_t budget, uint32_t threads, uint32_t step, const char *cpu)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    fill_layers(layers);
    fill_options(&options, layers);
    options.page_tokens = page_tokens;
    options.budget_bytes = budget;
    options.threads_max = 8;
    options.cpu = cpu;
    if (pagoda_cache_open(&options, &cache, NULL) != PAGODA_OK) {
        return 0;
    }
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(11);
    uint64_t hash = 1469598103934665603u;
    bool good = true;
    for (uint32_t at = 0; at < 700 && good;) {
        const uint32_t count = at + step > 700 ? 700 - at : step;
        good = threads == 1 ? run_batch(cache, twin, fill, count) == PAGODA_OK
                            : run_batch_in_team(cache, twin, fill, count, threads);
        /* Batches differ, so hash token by token, layers inside. */
        for (uint32_t t = 0; t < count; t++) {
            for (int layer = 0; layer < LAYERS; layer++) {
                const unsigned char *bytes = (const unsigned char *) fill->outputs[layer][t];
                for (size_t i = 0; i < sizeof(fill->outputs[layer][t]); i++) {
                    hash = (hash ^ bytes[i]) * 1099511628211u;
                }
            }
        }
        at += count;
    }
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
    return good ? hash : 0;
}

TEST(outputs_do_not_depend_on_pages_budget_threads_batches_or_cpu)
{
    const uint64_t expected = hash_of_run(16, 64u << 20, 1, 64, NULL);
    CHECK(expected != 0);
    static const uint32_t pages[] = {32, 48, 64, 96, 128, 256};
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        CHECK(hash_of_run(pages[i], 64u << 20, 1, 64, NULL) == expected);
    }
    static const uint32_t steps[] = {1, 2, 7, 16, 100, 256};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        CHECK(hash_of_run(16, 64u << 20, 1, steps[i], NULL) == expected);
    }
    for (uint32_t threads = 2; threads <= 4; threads++) {
        CHECK(hash_of_run(16, 64u << 20, threads, 64, NULL) == expected);
        CHECK(hash_of_run(16, 64u << 20, threads, 1, NULL) == expected);
    }
    CHECK(hash_of_run(16, 2u << 20, 1, 64, NULL) == expected);
    for (uint32_t i = 0; pagoda_cpu_level(i) != NULL; i++) {
        CHECK(hash_of_run(16, 64u << 20, 1, 64, pagoda_cpu_level(i)) == expected);
    }
}

TEST(stop_refuses_and_loses_nothing)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    struct pagoda_error error;
    fill_layers(layers);
    fill_options(&options, layers);
    options.budget_bytes = budget_for(&options, 100);
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(3);
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    const uint32_t capacity = (uint32_t) memory.tokens_capacity;
    CHECK(capacity >= 100);
    CHECK(run_batch(cache, twin, fill, capacity - 3) == PAGODA_OK);
    CHECK_EQ_INT(pagoda_cache_room(cache, 50), 3);
    CHECK(pagoda_cache_begin(cache, 4, &error) == PAGODA_FULL);
    CHECK(strstr(error.message, "evict") != NULL);
    CHECK_EQ_INT(pagoda_cache_position(cache), capacity - 3);
    CHECK(run_batch(cache, twin, fill, 3) == PAGODA_OK);
    CHECK(account_adds_up(cache));
    pagoda_cache_memory(cache, &memory);
    CHECK_EQ_INT(memory.evicted_pages, 0);
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
}

/* Random life under a small budget, with every operation, compared with the twin all along. */
static void random_life(uint64_t seed, int operations)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    struct test_rng rng = test_rng(seed);
    fill_layers(layers);
    fill_options(&options, layers);
    options.page_tokens = 16u << test_rng_below(&rng, 3);
    options.budget_bytes = budget_for(&options, 100 + test_rng_below(&rng, 400));
    options.tokens_max = test_rng_below(&rng, 2) == 0 ? 0 : 80 + test_rng_below(&rng, 300);
    options.on_full = PAGODA_ON_FULL_EVICT;
    options.policy.kind = (enum pagoda_policy_kind) test_rng_below(&rng, 3);
    options.policy.window_tokens = test_rng_below(&rng, 2) == 0 ? 0 : 50 + test_rng_below(&rng, 200);
    options.close_gaps_at = test_rng_below(&rng, 2) == 0 ? 0 : test_rng_below(&rng, 500);
    options.rollback_tokens = test_rng_below(&rng, 2) == 0 ? 0 : test_rng_below(&rng, 150);
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(seed);
    for (int i = 0; i < operations; i++) {
        const uint64_t position = pagoda_cache_position(cache);
        const uint64_t pick = test_rng_below(&rng, 100);
        if (pick < 60) {
            uint32_t count = 1 + (uint32_t) test_rng_below(&rng, pick < 40 ? 4 : 90);
            count = pagoda_cache_room(cache, count);
            if (count == 0 || position + count > TOKENS_MAX) {
                CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_OK);
                continue;
            }
            CHECK(run_batch(cache, twin, fill, count) == PAGODA_OK);
            pagoda_cache_visit(cache, mark_span, twin);
            const bool close_gaps = options.close_gaps_at != 0 && position + count > options.close_gaps_at;
            CHECK(close_to_twin(twin, fill, layers, position, count, close_gaps, EXACT));
        } else if (pick < 75) {
            const uint64_t floor = pagoda_cache_rollback_floor(cache);
            const uint64_t back = test_rng_below(&rng, position - (floor < position ? floor : position) + 1);
            const enum pagoda_status status = pagoda_cache_rollback(cache, back, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_RANGE);
            CHECK_EQ_INT(pagoda_cache_position(cache), status == PAGODA_OK ? position - back : position);
        } else if (pick < 85 && position > 0) {
            const uint64_t first = test_rng_below(&rng, position);
            const uint64_t count = 1 + test_rng_below(&rng, position - first < 60 ? position - first : 60);
            const enum pagoda_status status = pagoda_cache_pin(cache, first, count, NULL);
            CHECK(status == PAGODA_OK || status == PAGODA_FULL);
        } else if (pick < 95 && position > 0) {
            CHECK(pagoda_cache_unpin(cache, 0, position, NULL) == PAGODA_OK);
        } else if (pick < 97 && pagoda_cache_room(cache, 5) == 5) {
            CHECK(pagoda_cache_begin(cache, 5, NULL) == PAGODA_OK);
            pagoda_cache_abort(cache);
            CHECK_EQ_INT(pagoda_cache_position(cache), position);
        } else if (pick == 99) {
            CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_OK);
        }
        CHECK(account_adds_up(cache));
    }
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
}

TEST(random_lives_agree_with_the_twin)
{
    const uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 40; i++) {
        random_life(seed + i, 60);
    }
}

/* Layer 1's window of 40 has long moved on when 100 tokens are taken back; what follows must still see all of it. */
TEST(as_many_tokens_as_promised_can_be_taken_back)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(11);
    fill_layers(layers);
    for (int promised = 0; promised < 2; promised++) {
        struct pagoda_cache *cache = NULL;
        fill_options(&options, layers);
        options.rollback_tokens = promised ? 100 : 0;
        CHECK(pagoda_cache_budget_for(&options, 1000, &options.budget_bytes, NULL) == PAGODA_OK);
        CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
        for (uint64_t first = 0; first < 900; first += 60) {
            CHECK(run_batch(cache, twin, fill, 60) == PAGODA_OK);
        }
        CHECK(pagoda_cache_rollback(cache, 100, NULL) == (promised ? PAGODA_OK : PAGODA_RANGE));
        pagoda_cache_visit(cache, mark_span, twin);
        const uint64_t first = pagoda_cache_position(cache);
        CHECK(run_batch(cache, twin, fill, 30) == PAGODA_OK);
        pagoda_cache_visit(cache, mark_span, twin);
        CHECK(close_to_twin(twin, fill, layers, first, 30, false, EXACT));
        CHECK(account_adds_up(cache));
        pagoda_cache_close(cache);
    }
    free(twin);
    free(fill);
}

/* Also into the middle of a page that would else have been re-encoded. */
TEST(what_may_be_taken_back_stays_exact)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(12);
    fill_layers(layers);
    for (int promised = 0; promised < 2; promised++) {
        struct pagoda_cache *cache = NULL;
        struct pagoda_account account;
        fill_options(&options, layers);
        options.codec = PAGODA_CODEC_Q8;
        options.codec_tight = PAGODA_CODEC_Q8;
        options.exact_recent = 16;
        options.rollback_tokens = promised ? 103 : 0;
        CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
        for (uint64_t first = 0; first < 900; first += 60) {
            CHECK(run_batch(cache, twin, fill, 60) == PAGODA_OK);
        }
        pagoda_cache_account(cache, &account);
        CHECK(account.by_codec[PAGODA_CODEC_Q8] > 700);
        CHECK(pagoda_cache_rollback(cache, 103, NULL) == (promised ? PAGODA_OK : PAGODA_RANGE));
        CHECK(run_batch(cache, twin, fill, 30) == PAGODA_OK);
        pagoda_cache_close(cache);
    }
    free(twin);
    free(fill);
}

/* Two layers see 300 tokens, one 40; a token has 2 heads of 16 numbers for keys and for values. */
TEST(bytes_read_are_those_that_windows_show)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(13);
    uint64_t bytes[2];
    fill_layers(layers);
    for (int small = 0; small < 2; small++) {
        struct pagoda_cache *cache = NULL;
        fill_options(&options, layers);
        options.codec = small ? PAGODA_CODEC_Q8 : PAGODA_CODEC_F16;
        CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
        CHECK_EQ_U64(pagoda_cache_read_bytes(cache), 0);
        for (int i = 0; i < 5; i++) {
            CHECK(run_batch(cache, twin, fill, 60) == PAGODA_OK);
        }
        bytes[small] = pagoda_cache_read_bytes(cache);
        pagoda_cache_close(cache);
    }
    CHECK_EQ_U64(bytes[0], (2 * 300 + 39) * 2 * WIDTH * sizeof(uint16_t));
    CHECK(bytes[1] < bytes[0] && bytes[1] > bytes[0] / 2);
    free(twin);
    free(fill);
}

TEST(pinned_pages_stay_under_every_policy)
{
    for (int kind = 0; kind < 3; kind++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_cache *cache = NULL;
        fill_layers(layers);
        fill_options(&options, layers);
        options.budget_bytes = budget_for(&options, 128);
        options.on_full = PAGODA_ON_FULL_EVICT;
        options.policy.kind = (enum pagoda_policy_kind) kind;
        CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
        struct twin *twin = new_twin();
        struct fill *fill = new_fill(5);
        CHECK(run_batch(cache, twin, fill, 64) == PAGODA_OK);
        CHECK(pagoda_cache_pin(cache, 20, 5, NULL) == PAGODA_OK);
        for (int i = 0; i < 40; i++) {
            CHECK(run_batch(cache, twin, fill, 16) == PAGODA_OK);
        }
        pagoda_cache_visit(cache, mark_span, twin);
        CHECK(twin->held[20] && twin->held[24]);
        CHECK(!twin->held[40]);
        CHECK(twin->held[0] == (kind == PAGODA_POLICY_SINK));
        struct pagoda_account account;
        pagoda_cache_account(cache, &account);
        CHECK_EQ_INT(account.pinned, 16);
        CHECK(!account.exact && account.dropped > 0);
        CHECK(pagoda_cache_pin(cache, 0, pagoda_cache_position(cache), NULL) == PAGODA_FULL);
        pagoda_cache_close(cache);
        free(twin);
        free(fill);
    }
}

TEST(learned_sinks_join_the_softmax)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    const float sinks[QUERY_HEADS] = {0.0f, 3.0f, -50.0f, 1.0f};
    fill_layers(layers);
    layers[0].sinks = sinks;
    fill_options(&options, layers);
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(9);
    CHECK(run_batch(cache, twin, fill, 1) == PAGODA_OK);
    for (int head = 0; head < QUERY_HEADS; head++) {
        /* One key only: its weight is exp(s) / (exp(s) + exp(sink)). */
        double s = 0;
        const int kv = head / (QUERY_HEADS / KV_HEADS);
        for (int d = 0; d < SIZE; d++) {
            s += 0.25 * (double) fill->queries[0][0][head * SIZE + d] * as_f16(twin->keys[0][0][kv * SIZE + d]);
        }
        const double weight = exp(s) / (exp(s) + exp((double) sinks[head]));
        for (int d = 0; d < SIZE; d++) {
            const double expected = weight * as_f16(twin->values[0][0][kv * SIZE + d]);
            CHECK(fabs(fill->outputs[0][0][head * SIZE + d] - expected) < 1e-5);
        }
    }
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
}

TEST(frames_are_well_used)
{
    struct pagoda_layer layers[2] = {
        {.kv_heads = 3, .query_heads = 9, .key_size = 64, .value_size = 64, .scale = 0.125f},
        {.kv_heads = 3, .query_heads = 9, .key_size = 64, .value_size = 64, .scale = 0.125f}};
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    fill_options(&options, layers);
    options.layer_count = 2;
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    static float rows[256 * 192];
    for (uint32_t done = 0; done < 4000; done += 250) {
        CHECK(pagoda_cache_begin(cache, 250, NULL) == PAGODA_OK);
        for (uint32_t layer = 0; layer < 2; layer++) {
            CHECK(pagoda_cache_ingest(cache, layer, PAGODA_KEYS, rows, 192, 0, 1) == PAGODA_OK);
            CHECK(pagoda_cache_ingest(cache, layer, PAGODA_VALUES, rows, 192, 0, 1) == PAGODA_OK);
        }
        CHECK(pagoda_cache_end(cache, NULL) == PAGODA_OK);
    }
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    CHECK(memory.utilisation_at_peak >= 0.96);
    CHECK_EQ_INT(memory.live_row_bytes, 4000u * 2 * 3 * 128 * 2);
    pagoda_cache_close(cache);
}

TEST(every_allocation_may_fail)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t n = 1;
        bool opened = false;
        for (; !opened && n < 100; n++) {
            struct pagoda_layer layers[LAYERS];
            struct pagoda_cache_options options;
            struct pagoda_cache *cache = NULL;
            struct failing_system failing;
            failing_system_init(&failing);
            failing_system_arm(&failing, n, sticky != 0);
            fill_layers(layers);
            fill_options(&options, layers);
            options.budget_bytes = budget_for(&options, 128);
            options.on_full = PAGODA_ON_FULL_EVICT;
            options.system = &failing.system;
            struct pagoda_error error;
            const enum pagoda_status status = pagoda_cache_open(&options, &cache, &error);
            opened = status == PAGODA_OK;
            CHECK(opened || status == PAGODA_NOMEM);
            if (opened) {
                /* From here on nothing is allocated, whatever happens. */
                const uint64_t before = failing.total_calls;
                struct twin *twin = new_twin();
                struct fill *fill = new_fill(1);
                for (int i = 0; i < 30; i++) {
                    CHECK(run_batch(cache, twin, fill, 13) == PAGODA_OK);
                }
                CHECK(pagoda_cache_rollback(cache, 2, NULL) == PAGODA_OK);
                CHECK(pagoda_cache_pin(cache, pagoda_cache_position(cache) - 3, 3, NULL) == PAGODA_OK);
                CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_OK);
                CHECK_EQ_INT(failing.total_calls, before);
                free(twin);
                free(fill);
            }
            pagoda_cache_close(cache);
            CHECK(failing_system_is_clean(&failing));
        }
        CHECK(opened && n > 4);
    }
}

TEST(bad_options_are_refused_with_a_message)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    fill_layers(layers);
    fill_options(&options, layers);
    options.page_tokens = 10;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_INVALID && strstr(error.message, "10") != NULL);
    fill_options(&options, layers);
    options.budget_bytes = 10000;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_OVER_BUDGET &&
          strstr(error.message, "at least") != NULL);
    fill_options(&options, layers);
    options.budget_bytes = 0;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_OVER_BUDGET);
    fill_options(&options, layers);
    options.on_full = PAGODA_ON_FULL_SPILL;
    options.flash.directory = "/nowhere/at/all";
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_NOT_FOUND && strstr(error.message, "nowhere") != NULL);
    fill_options(&options, layers);
    options.on_full = PAGODA_ON_FULL_SPILL;
    options.flash.recall = 1.5;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_INVALID);
    fill_options(&options, layers);
    options.rollback_tokens = UINT64_MAX;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_INVALID);
    fill_options(&options, layers);
    layers[1].query_heads = 5;
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_INVALID && strstr(error.message, "layer 1") != NULL);
    fill_layers(layers);
    options.cpu = "abacus";
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_UNSUPPORTED && strstr(error.message, "abacus") != NULL);
    CHECK(cache == NULL);
}

TEST(misuse_is_a_status_not_a_crash)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    float row[WIDTH] = {0};
    fill_layers(layers);
    fill_options(&options, layers);
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    CHECK(pagoda_cache_ingest(cache, 0, PAGODA_KEYS, row, WIDTH, 0, 1) == PAGODA_INVALID);
    CHECK(pagoda_cache_end(cache, NULL) == PAGODA_INVALID);
    CHECK(pagoda_cache_begin(cache, 0, NULL) == PAGODA_INVALID);
    CHECK(pagoda_cache_begin(cache, 257, NULL) == PAGODA_INVALID);
    CHECK(pagoda_cache_begin(cache, 1, NULL) == PAGODA_OK);
    CHECK(pagoda_cache_begin(cache, 1, NULL) == PAGODA_BUSY);
    CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_BUSY);
    CHECK(pagoda_cache_ingest(cache, LAYERS, PAGODA_KEYS, row, WIDTH, 0, 1) == PAGODA_INVALID);
    CHECK(pagoda_cache_ingest(cache, 0, PAGODA_KEYS, row, WIDTH, 2, 1) == PAGODA_INVALID);
    CHECK(pagoda_cache_end(cache, NULL) == PAGODA_MISMATCH); /* most layers were given nothing */
    CHECK_EQ_INT(pagoda_cache_position(cache), 0);
    CHECK(pagoda_cache_rollback(cache, 1, NULL) == PAGODA_RANGE);
    CHECK(pagoda_cache_pin(cache, 0, 1, NULL) == PAGODA_RANGE);
    CHECK(pagoda_cache_pin(cache, 1, UINT64_MAX, NULL) == PAGODA_RANGE);
    pagoda_cache_abort(cache);
    pagoda_cache_close(cache);
    pagoda_cache_close(NULL);
}
