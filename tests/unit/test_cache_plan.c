/* pagoda_cache_plan: what a cache would reserve, compared with one that is opened. */
#include <stdlib.h>
#include <string.h>

#include "harness/test.h"
#include "pagoda/pagoda.h"

static struct pagoda_error error;

#define LAYERS_MAX 40u

/* Layers as models have them: some with windows, some with other heads, some that rotate, some with sinks. */
static void draw_layers(struct test_rng *rng, struct pagoda_layer *layers, uint32_t count)
{
    static double paces[2][128];
    static float sinks[64];
    const uint32_t kv_heads = 1 + (uint32_t) test_rng_below(rng, 8);
    const uint32_t size = 16u << test_rng_below(rng, 4);
    const uint32_t window = test_rng_below(rng, 2) == 0 ? 0 : 16 + (uint32_t) test_rng_below(rng, 600);
    for (uint32_t i = 0; i < 128; i++) {
        paces[1][i] = 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        const bool odd = test_rng_below(rng, 8) == 0;
        layers[i] = (struct pagoda_layer) {
            .kv_heads = odd ? kv_heads + 1 : kv_heads,
            .query_heads = (odd ? kv_heads + 1 : kv_heads) * (1 + (uint32_t) test_rng_below(rng, 4)),
            .key_size = size,
            .value_size = odd ? size / 2 : size,
            .window = test_rng_below(rng, 3) == 0 ? 0 : window,
            .scale = 1,
            .sinks = test_rng_below(rng, 4) == 0 ? sinks : NULL,
            .rope = {.pair_count = odd ? 0 : size / 2, .frequencies = paces[test_rng_below(rng, 2)]},
        };
    }
}

static void draw_options(struct test_rng *rng, struct pagoda_cache_options *options)
{
    pagoda_cache_options_default(options);
    options->page_tokens = 16 * (1 + (uint32_t) test_rng_below(rng, 4));
    options->batch_tokens = 1 + (uint32_t) test_rng_below(rng, 512);
    options->threads_max = 1 + (uint32_t) test_rng_below(rng, 4);
    options->budget_bytes = 1 + test_rng_below(rng, UINT64_C(1) << (10 + test_rng_below(rng, 17)));
    options->tokens_max = test_rng_below(rng, 2) == 0 ? 0 : 16 + test_rng_below(rng, 20000);
    options->reserved_bytes = test_rng_below(rng, 3) == 0 ? test_rng_below(rng, 100000) : 0;
    options->codec = test_rng_below(rng, 2) == 0 ? PAGODA_CODEC_F16 : PAGODA_CODEC_Q8;
    options->codec_tight = test_rng_below(rng, 2) == 0 ? options->codec : PAGODA_CODEC_K5V4;
    options->rollback_tokens = test_rng_below(rng, 3) == 0 ? test_rng_below(rng, 300) : 0;
}

TEST(a_plan_is_what_opening_reserves)
{
    struct test_rng rng = test_rng(test_seed());
    struct pagoda_layer layers[LAYERS_MAX];
    uint32_t opened = 0;
    for (int round = 0; round < 3000; round++) {
        struct pagoda_cache_options options;
        draw_options(&rng, &options);
        options.layer_count = 1 + (uint32_t) test_rng_below(&rng, LAYERS_MAX);
        options.layers = layers;
        draw_layers(&rng, layers, options.layer_count);
        struct pagoda_reservation planned;
        struct pagoda_error told;
        struct pagoda_cache *cache = NULL;
        const enum pagoda_status foreseen = pagoda_cache_plan(&options, &planned, &told);
        const enum pagoda_status status = pagoda_cache_open(&options, &cache, &error);
        CHECK_EQ_INT(foreseen, status);
        if (status != PAGODA_OK) {
            CHECK_STR(told.message, error.message);
            continue;
        }
        struct pagoda_memory memory;
        pagoda_cache_memory(cache, &memory);
        CHECK_EQ_U64(planned.budget_bytes, memory.budget_bytes);
        CHECK_EQ_U64(planned.tables_bytes, memory.by_category[PAGODA_MEMORY_TABLES]);
        CHECK_EQ_U64(planned.staging_bytes, memory.by_category[PAGODA_MEMORY_STAGING]);
        CHECK_EQ_U64(planned.tables_bytes + planned.staging_bytes, memory.used_bytes);
        CHECK_EQ_U64(planned.tokens_capacity, memory.tokens_capacity);
        CHECK_EQ_U64(planned.bytes_per_token, memory.bytes_per_token);
        CHECK(planned.tables_bytes + planned.staging_bytes + planned.arena_bytes <= planned.budget_bytes);
        pagoda_cache_close(cache);
        opened++;
    }
    CHECK(opened > 500 && opened < 2900); /* both ends were seen */
}

TEST(nothing_of_the_size_of_the_budget_is_allocated)
{
    struct pagoda_layer layers[32];
    for (uint32_t i = 0; i < 32; i++) {
        layers[i] =
            (struct pagoda_layer) {.kv_heads = 32, .query_heads = 32, .key_size = 128, .value_size = 128, .scale = 1};
    }
    struct pagoda_cache_options options;
    pagoda_cache_options_default(&options);
    options.layers = layers;
    options.layer_count = 32;
    options.budget_bytes = UINT64_C(1) << 40; /* more than there is */
    struct pagoda_reservation planned;
    CHECK_EQ_INT(pagoda_cache_plan(&options, &planned, &error), PAGODA_OK);
    CHECK_EQ_U64(planned.bytes_per_token, 512 * 1024);
    CHECK(planned.tokens_capacity > 2090000 && planned.tokens_capacity <= 2097152);
    options.page_tokens = 7;
    CHECK_EQ_INT(pagoda_cache_plan(&options, &planned, &error), PAGODA_INVALID);
}
