/* test_cache.c - the cache as a whole, against a trivial twin: flat arrays of f32 and attention in double.
 *
 * The twin keeps every row ever given, and a flag for each token whether the cache still holds it (as the cache's own
 * page map tells). Outputs must agree within f16 rounding, the account must add up, the budget must hold.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/failing_system.h"
#include "harness/test.h"
#include "kernels/kernels.h"
#include "pagoda/pagoda.h"

enum { LAYERS = 3, KV_HEADS = 2, QUERY_HEADS = 4, SIZE = 16, WIDTH = KV_HEADS * SIZE, TOKENS_MAX = 4096 };

static const double frequencies[SIZE / 2] = {1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003};

/* Layer 1 has a window of 40; layer 2 rotates in split pairs. */
static void fill_layers(struct pagoda_layer layers[LAYERS])
{
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = (struct pagoda_layer) {
            .kv_heads = KV_HEADS,
            .query_heads = QUERY_HEADS,
            .key_size = SIZE,
            .value_size = SIZE,
            .window = i == 1 ? 40 : 0,
            .scale = 0.25f,
            .softcap = i == 2 ? 5.0f : 0.0f,
            .rope = {.pair_count = SIZE / 2, .split_pairs = i == 2, .frequencies = frequencies},
        };
    }
}

static void fill_options(struct pagoda_cache_options *options, const struct pagoda_layer *layers)
{
    pagoda_cache_options_default(options);
    options->layers = layers;
    options->layer_count = LAYERS;
    options->budget_bytes = 64u << 20;
}

/* ---- the twin ---- */

struct twin {
    float keys[LAYERS][TOKENS_MAX][WIDTH];
    float values[LAYERS][TOKENS_MAX][WIDTH];
    bool held[TOKENS_MAX];
    uint64_t tokens;
};

static float as_f16(float x)
{
    return pgd_f16_to_f32(pgd_f32_to_f16(x));
}

static float number_at(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t x = seed + a * 0x9e3779b97f4a7c15u + b * 0xbf58476d1ce4e5b9u + c * 0x94d049bb133111ebu;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (float) ((double) (x >> 40) / (double) (1u << 24) * 4.0 - 2.0);
}

static bool mark_span(void *user, const struct pagoda_span *span)
{
    struct twin *twin = user;
    for (uint64_t i = 0; i < span->count; i++) {
        twin->held[span->first + i] = span->state != PAGODA_PAGE_ABSENT;
    }
    return true;
}

/* Tokens dropped between token `t` and the end, when gaps are closed. */
static uint64_t shift_of(const struct twin *twin, uint64_t t, bool close_gaps)
{
    uint64_t shift = 0;
    for (uint64_t i = t; close_gaps && i < twin->tokens; i++) {
        shift += twin->held[i] ? 0 : 1;
    }
    return shift;
}

static void rotate_back(float *q, uint64_t shift, bool split)
{
    for (int j = 0; j < SIZE / 2; j++) {
        const double angle = -(double) shift * frequencies[j];
        float *x = split ? &q[j] : &q[2 * j];
        float *y = split ? &q[j + SIZE / 2] : &q[2 * j + 1];
        const double a = *x * cos(angle) - *y * sin(angle);
        const double b = *x * sin(angle) + *y * cos(angle);
        *x = (float) a;
        *y = (float) b;
    }
}

static double score(const struct twin *twin, const struct pagoda_layer *shape, int layer, uint64_t t, int head,
                    const float *query, bool close_gaps)
{
    float q[SIZE];
    memcpy(q, query, sizeof(q));
    rotate_back(q, shift_of(twin, t, close_gaps), shape->rope.split_pairs);
    double s = 0;
    for (int d = 0; d < SIZE; d++) {
        s += (double) q[d] * as_f16(twin->keys[layer][t][head * SIZE + d]);
    }
    s *= shape->scale;
    return shape->softcap > 0 ? shape->softcap * tanh(s / shape->softcap) : s;
}

static void twin_attend(const struct twin *twin, const struct pagoda_layer *shape, int layer, uint64_t position,
                        int query_head, const float *query, bool close_gaps, double *out)
{
    static double weights[TOKENS_MAX];
    const int head = query_head / (QUERY_HEADS / KV_HEADS);
    double sum = 0;
    double top = -1e30;
    for (uint64_t t = 0; t <= position; t++) {
        const bool visible = twin->held[t] && (shape->window == 0 || position - t < shape->window);
        weights[t] = visible ? score(twin, shape, layer, t, head, query, close_gaps) : -INFINITY;
        top = fmax(top, weights[t]);
    }
    memset(out, 0, SIZE * sizeof(*out));
    for (uint64_t t = 0; t <= position; t++) {
        const double w = isinf(weights[t]) ? 0 : exp(weights[t] - top);
        sum += w;
        for (int d = 0; d < SIZE && w > 0; d++) {
            out[d] += w * as_f16(twin->values[layer][t][head * SIZE + d]);
        }
    }
    for (int d = 0; d < SIZE; d++) {
        out[d] /= sum;
    }
}

/* ---- driving a batch ---- */

struct fill {
    uint64_t seed;
    float queries[LAYERS][256][QUERY_HEADS * SIZE];
    float outputs[LAYERS][256][QUERY_HEADS * SIZE];
};

static void make_rows(struct fill *fill, struct twin *twin, uint64_t first, uint32_t count)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        for (uint32_t t = 0; t < count; t++) {
            for (uint32_t d = 0; d < WIDTH; d++) {
                twin->keys[layer][first + t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3, d);
                twin->values[layer][first + t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3 + 1, d);
            }
            for (uint32_t d = 0; d < QUERY_HEADS * SIZE; d++) {
                fill->queries[layer][t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3 + 2, d);
            }
        }
    }
}

static enum pagoda_status run_layer(struct pagoda_cache *cache, struct twin *twin, struct fill *fill, int layer,
                                    uint64_t first, uint32_t thread, uint32_t threads, pthread_barrier_t *barrier)
{
    const struct pagoda_queries queries = {fill->queries[layer][0], QUERY_HEADS * SIZE, SIZE};
    const struct pagoda_outputs outputs = {fill->outputs[layer][0], QUERY_HEADS * SIZE, SIZE};
    enum pagoda_status a =
        pagoda_cache_ingest(cache, (uint32_t) layer, PAGODA_KEYS, twin->keys[layer][first], WIDTH, thread, threads);
    enum pagoda_status b =
        pagoda_cache_ingest(cache, (uint32_t) layer, PAGODA_VALUES, twin->values[layer][first], WIDTH, thread, threads);
    if (barrier != NULL) {
        pthread_barrier_wait(barrier);
    }
    enum pagoda_status c = pagoda_cache_attend(cache, (uint32_t) layer, &queries, &outputs, thread, threads);
    if (barrier != NULL) {
        pthread_barrier_wait(barrier);
    }
    return a != PAGODA_OK ? a : b != PAGODA_OK ? b : c;
}

/* One batch on one thread; outputs are left in fill. */
static enum pagoda_status run_batch(struct pagoda_cache *cache, struct twin *twin, struct fill *fill, uint32_t count)
{
    const uint64_t first = pagoda_cache_position(cache);
    enum pagoda_status status = pagoda_cache_begin(cache, count, NULL);
    if (status != PAGODA_OK) {
        return status;
    }
    make_rows(fill, twin, first, count);
    for (int layer = 0; layer < LAYERS && status == PAGODA_OK; layer++) {
        status = run_layer(cache, twin, fill, layer, first, 0, 1, NULL);
    }
    twin->tokens = first + count;
    return status == PAGODA_OK ? pagoda_cache_end(cache, NULL) : status;
}

static bool close_to_twin(const struct twin *twin, const struct fill *fill, const struct pagoda_layer *layers,
                          uint64_t first, uint32_t count, bool close_gaps)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        for (uint32_t t = 0; t < count; t++) {
            for (int head = 0; head < QUERY_HEADS; head++) {
                double expected[SIZE];
                twin_attend(twin, &layers[layer], layer, first + t, head, &fill->queries[layer][t][head * SIZE],
                            close_gaps, expected);
                for (int d = 0; d < SIZE; d++) {
                    if (!(fabs(fill->outputs[layer][t][head * SIZE + d] - expected[d]) < 2e-4)) {
                        fprintf(stderr, "layer %d token %u head %d: %f is not %f\n", layer, t, head,
                                (double) fill->outputs[layer][t][head * SIZE + d], expected[d]);
                        return false;
                    }
                }
            }
        }
    }
    return true;
}

static bool account_adds_up(const struct pagoda_cache *cache)
{
    struct pagoda_account account;
    struct pagoda_memory memory;
    pagoda_cache_account(cache, &account);
    pagoda_cache_memory(cache, &memory);
    uint64_t sum = 0;
    for (int i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        sum += memory.by_category[i];
    }
    return account.ram + account.dropped == account.total && account.total == pagoda_cache_position(cache) &&
           sum == memory.used_bytes && memory.used_bytes <= memory.budget_bytes &&
           memory.peak_bytes <= memory.budget_bytes &&
           memory.by_category[PAGODA_MEMORY_KV_EXACT] == memory.frame_bytes &&
           memory.live_row_bytes <= memory.frame_bytes && account.exact == (account.dropped == 0);
}

static struct twin *new_twin(void)
{
    return calloc(1, sizeof(struct twin));
}
static struct fill *new_fill(uint64_t seed)
{
    struct fill *fill = calloc(1, sizeof(*fill));
    fill->seed = seed;
    return fill;
}

/* ---- tests ---- */

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
        CHECK(close_to_twin(twin, fill, layers, first, counts[i], false));
        CHECK(account_adds_up(cache));
    }
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    CHECK(memory.released_window_pages > 0);
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
}

/* Everything the outputs may not depend on: page size, budget, threads, how tokens were batched. */
struct team {
    struct pagoda_cache *cache;
    struct twin *twin;
    struct fill *fill;
    uint64_t first;
    uint32_t threads;
    pthread_barrier_t barrier;
};
struct member {
    struct team *team;
    uint32_t thread;
};

static void *work(void *user)
{
    struct member *member = user;
    struct team *team = member->team;
    for (int layer = 0; layer < LAYERS; layer++) {
        if (run_layer(team->cache, team->twin, team->fill, layer, team->first, member->thread, team->threads,
                      &team->barrier) != PAGODA_OK) {
            return team;
        }
    }
    return NULL;
}

static bool run_batch_in_team(struct pagoda_cache *cache, struct twin *twin, struct fill *fill, uint32_t count,
                              uint32_t threads)
{
    struct team team = {
        .cache = cache, .twin = twin, .fill = fill, .first = pagoda_cache_position(cache), .threads = threads};
    if (pagoda_cache_begin(cache, count, NULL) != PAGODA_OK) {
        return false;
    }
    make_rows(fill, twin, team.first, count);
    pthread_barrier_init(&team.barrier, NULL, threads);
    struct member members[8];
    pthread_t ids[8];
    bool good = true;
    for (uint32_t i = 0; i < threads; i++) {
        members[i] = (struct member) {&team, i};
        pthread_create(&ids[i], NULL, work, &members[i]);
    }
    for (uint32_t i = 0; i < threads; i++) {
        void *failed = NULL;
        pthread_join(ids[i], &failed);
        good = good && failed == NULL;
    }
    pthread_barrier_destroy(&team.barrier);
    return good && pagoda_cache_end(cache, NULL) == PAGODA_OK;
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

/* The smallest budget for about `tokens` tokens. */
static uint64_t budget_for(const struct pagoda_cache_options *options, uint64_t tokens)
{
    uint64_t bytes = 0;
    return pagoda_cache_budget_for(options, tokens, &bytes, NULL) == PAGODA_OK ? bytes : 0;
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
            CHECK(close_to_twin(twin, fill, layers, position, count, close_gaps));
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
        CHECK(close_to_twin(twin, fill, layers, first, 30, false));
        CHECK(account_adds_up(cache));
        pagoda_cache_close(cache);
    }
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
    CHECK(pagoda_cache_open(&options, &cache, &error) == PAGODA_UNSUPPORTED);
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
