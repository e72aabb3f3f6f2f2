/* unit/test_cache_draws.c - what single tokens draw on, against a softmax in double over all that there was. */
#include "cache/spill.h"
#include "unit/cache_twin.h"

enum { PAGE = 16, READ = 1200, SAID = 24, EVERY = 8 };

/* What a test compares: shares by page, as the twin and as the cache have them. */
struct shares {
    double wanted[TOKENS_MAX / PAGE];
    double found[TOKENS_MAX / PAGE];
    double sum;
    uint64_t rows;
    bool sane;
};

/* Adds what one query row draws on. */
static void add_row(const struct twin *twin, const struct pagoda_layer *shape, int layer, uint64_t position, int head,
                    const float *query, struct shares *shares)
{
    static double weights[TOKENS_MAX];
    double top = -INFINITY;
    double sum = 0;
    const uint64_t first = shape->window == 0 || position < shape->window ? 0 : position + 1 - shape->window;
    for (uint64_t t = first; t <= position; t++) {
        weights[t] =
            twin->held[t] ? score(twin, shape, layer, t, head / (QUERY_HEADS / KV_HEADS), query, false) : -INFINITY;
        top = fmax(top, weights[t]);
    }
    for (uint64_t t = first; t <= position; t++) {
        weights[t] = exp(weights[t] - top);
        sum += weights[t];
    }
    for (uint64_t t = first; t <= position; t++) {
        shares->wanted[t / PAGE] += weights[t] / sum;
    }
    shares->rows++;
}

/* Of the token that was just attended: the calls that the cache counts, too. */
static void add_token(const struct twin *twin, const struct fill *fill, const struct pagoda_layer *layers,
                      uint64_t position, uint64_t since, struct shares *shares)
{
    const bool windows_only = layers[0].window != 0;
    for (int layer = 0; layer < LAYERS; layer++) {
        const bool sampled = position == since || (position + (uint64_t) layer) % EVERY == 0;
        for (int head = 0; head < QUERY_HEADS && sampled && (layers[layer].window == 0 || windows_only); head++) {
            add_row(twin, &layers[layer], layer, position, head, &fill->queries[layer][0][head * SIZE], shares);
        }
    }
}

static bool take_draw(void *user, const struct pagoda_draw *draw)
{
    struct shares *shares = user;
    shares->sum += draw->share;
    shares->sane = shares->sane && draw->share >= 0 && draw->share <= 1 &&
                   (draw->share == 0 || draw->span.state != PAGODA_PAGE_ABSENT);
    shares->found[draw->span.first / PAGE] += draw->share; /* a span is a page, or has no share */
    return true;
}

static double distance_of(const struct shares *shares)
{
    double most = 0;
    for (int i = 0; i < TOKENS_MAX / PAGE; i++) {
        most = fmax(most, fabs(shares->wanted[i] / (double) shares->rows - shares->found[i]));
    }
    return most;
}

/* One life: READ tokens, then a reply of SAID tokens. Returns the account. */
static struct pagoda_draws live(struct pagoda_cache *cache, const struct pagoda_layer *layers, uint32_t threads,
                                struct shares *shares)
{
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(21);
    struct pagoda_draws draws;
    *shares = (struct shares) {.sane = true};
    while (pagoda_cache_position(cache) < READ) {
        CHECK(run_batch_in_team(cache, twin, fill, fitting(cache, 48), threads));
    }
    pagoda_cache_visit(cache, mark_codecs, twin);
    pagoda_cache_draws(cache, &draws, take_draw, shares);
    CHECK(!draws.counted && shares->sum == 0);
    pagoda_cache_draws_begin(cache);
    const uint64_t since = pagoda_cache_position(cache);
    for (int i = 0; i < SAID; i++) {
        const uint64_t position = pagoda_cache_position(cache);
        CHECK(run_batch_in_team(cache, twin, fill, 1, threads));
        pagoda_cache_visit(cache, mark_codecs, twin);
        add_token(twin, fill, layers, position, since, shares);
    }
    pagoda_cache_draws(cache, &draws, take_draw, shares);
    CHECK(account_adds_up(cache) && shares->sane && draws.since == since);
    free(twin);
    free(fill);
    return draws;
}

static void begin(struct pagoda_cache_options *options, struct pagoda_layer *layers)
{
    fill_layers(layers);
    fill_options(options, layers);
    options->counts_draws = true;
    options->threads_max = 3;
    options->exact_recent = 32;
}

TEST(shares_are_those_of_an_exact_softmax)
{
    static const enum pagoda_codec codecs[] = {PAGODA_CODEC_F16, PAGODA_CODEC_K8V4};
    for (int c = 0; c < 2; c++) {
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            struct pagoda_layer layers[LAYERS];
            struct pagoda_cache_options options;
            struct shares shares;
            struct pagoda_cache *cache = NULL;
            begin(&options, layers);
            options.codec = options.codec_tight = codecs[c];
            CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
            const struct pagoda_draws draws = live(cache, layers, threads, &shares);
            CHECK(draws.counted && draws.gone == 0);
            CHECK_NEAR(shares.sum, 1, 1e-5);
            CHECK(distance_of(&shares) < 1e-4);
            pagoda_cache_close(cache);
        }
    }
}

TEST(without_a_layer_that_sees_all_text_those_with_windows_count)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct shares shares;
    struct pagoda_cache *cache = NULL;
    begin(&options, layers);
    layers[0].window = 64;
    layers[2].window = 100;
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    const struct pagoda_draws draws = live(cache, layers, 1, &shares);
    CHECK(draws.counted);
    CHECK_NEAR(shares.sum + draws.gone, 1, 1e-5);
    pagoda_cache_close(cache);
}

TEST(what_has_left_is_told)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct shares shares;
    struct pagoda_cache *cache = NULL;
    begin(&options, layers);
    options.on_full = PAGODA_ON_FULL_EVICT;
    options.tokens_max = 400;
    options.rollback_tokens = 32;
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    const struct pagoda_draws draws = live(cache, layers, 1, &shares);
    CHECK(draws.counted && draws.gone > 0.005 && draws.gone < 0.2);
    CHECK_NEAR(shares.sum + draws.gone, 1, 1e-5);
    CHECK(pagoda_cache_rollback(cache, 20, NULL) == PAGODA_OK);
    struct pagoda_draws later;
    shares.sum = 0;
    pagoda_cache_draws(cache, &later, take_draw, &shares);
    CHECK(later.gone > draws.gone);
    CHECK_NEAR(shares.sum + later.gone, 1, 1e-5);
    pagoda_cache_close(cache);
}

/* ---- pages on flash ---- */

/* A cache in about the smallest budget that holds digests of all the text. */
static struct pagoda_cache *open_spilling(struct pagoda_cache_options *options)
{
    struct pagoda_cache *cache = NULL;
    struct pagoda_memory memory = {.tokens_capacity = 0};
    options->on_full = PAGODA_ON_FULL_SPILL;
    options->batch_tokens = 48;
    options->tokens_max = READ + 2 * SAID;
    options->flash.directory = "/tmp";
    options->budget_bytes = 64u << 10;
    while (memory.tokens_capacity < options->tokens_max) {
        pagoda_cache_close(cache);
        cache = NULL;
        options->budget_bytes += 16u << 10;
        if (pagoda_cache_open(options, &cache, NULL) == PAGODA_OK) {
            pagoda_cache_memory(cache, &memory);
        }
    }
    return cache;
}

TEST(pages_read_from_flash_count_as_they_are)
{
    for (int i = 0; i < 4; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_account account;
        struct shares shares;
        begin(&options, layers);
        options.flash.recall = 1;
        options.flash.read_all = i % 2 == 1;
        struct pagoda_cache *cache = open_spilling(&options);
        const struct pagoda_draws draws = live(cache, layers, i < 2 ? 1 : 3, &shares);
        pagoda_cache_account(cache, &account);
        CHECK(draws.counted && account.spilled > 100 && account.collapsed == 0);
        CHECK_NEAR(shares.sum, 1, 1e-4);
        CHECK(distance_of(&shares) < 1e-3);
        pagoda_cache_close(cache);
    }
}

TEST(pages_that_digests_stand_in_for_count_by_what_those_expect)
{
    for (int i = 0; i < 3; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_account account;
        struct shares shares;
        begin(&options, layers);
        options.flash.recall = 0.1;
        options.flash.read_all = i == 1;
        options.flash.bytes_max = i == 0 ? 0 : 32u << 10;
        struct pagoda_cache *cache = open_spilling(&options);
        cache->spill->cheap_bytes = 0;
        const struct pagoda_draws draws = live(cache, layers, 2, &shares);
        pagoda_cache_account(cache, &account);
        CHECK(draws.counted && (i == 0 ? account.unread : account.collapsed) > 100);
        CHECK_NEAR(shares.sum, 1, 1e-4);
        CHECK(distance_of(&shares) < 0.05);
        pagoda_cache_close(cache);
    }
}

/* ---- the switch ---- */

TEST(counting_changes_no_byte_and_can_be_left_out)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_cache *caches[2] = {NULL, NULL};
    struct twin *twin = new_twin();
    struct fill *fills[2] = {new_fill(5), new_fill(5)};
    struct pagoda_draws draws;
    for (int i = 0; i < 2; i++) {
        begin(&options, layers);
        options.counts_draws = i == 1;
        CHECK(pagoda_cache_open(&options, &caches[i], NULL) == PAGODA_OK);
    }
    for (int i = 0; i < 60; i++) {
        for (int c = 0; c < 2; c++) {
            CHECK(run_batch(caches[c], twin, fills[c], i == 0 ? 200 : 1) == PAGODA_OK);
            if (i == 0) {
                pagoda_cache_draws_begin(caches[c]);
            }
        }
        CHECK(memcmp(fills[0]->outputs, fills[1]->outputs, sizeof(fills[0]->outputs)) == 0);
    }
    pagoda_cache_draws(caches[0], &draws, NULL, NULL);
    CHECK(!draws.counted);
    pagoda_cache_draws(caches[1], &draws, NULL, NULL);
    CHECK(draws.counted && draws.since == 200);
    CHECK(pagoda_cache_reset(caches[1], NULL) == PAGODA_OK);
    pagoda_cache_draws(caches[1], &draws, NULL, NULL);
    CHECK(!draws.counted);
    for (int i = 0; i < 2; i++) {
        pagoda_cache_close(caches[i]);
        free(fills[i]);
    }
    free(twin);
}
