/* unit/cache_twin.h - the trivial twin of a whole cache: flat arrays of f32 and attention in double.
 *
 * The twin keeps every row ever given, and for each token whether the cache still holds it and in which codec (as the
 * cache's own page map tells). Outputs must agree within rounding, the account must add up, the budget must hold.
 */
#ifndef PAGODA_TESTS_UNIT_CACHE_TWIN_H
#define PAGODA_TESTS_UNIT_CACHE_TWIN_H

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "harness/test.h"
#include "kernels/kernels.h"
#include "pagoda/pagoda.h"

#ifndef TWIN_KV_HEADS /* a test may have more and larger ones */
#define TWIN_KV_HEADS 2
#define TWIN_SIZE 16
#endif

enum { LAYERS = 3, KV_HEADS = TWIN_KV_HEADS, QUERY_HEADS = 2 * KV_HEADS, SIZE = TWIN_SIZE, WIDTH = KV_HEADS * SIZE };
enum { TOKENS_MAX = 4096 };

static const double frequencies[SIZE / 2] = {1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003};

/* Layer 1 has a window of 40; layer 2 rotates in split pairs. */
static inline void fill_layers(struct pagoda_layer layers[LAYERS])
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

static inline void fill_options(struct pagoda_cache_options *options, const struct pagoda_layer *layers)
{
    pagoda_cache_options_default(options);
    options->layers = layers;
    options->layer_count = LAYERS;
    options->budget_bytes = 64u << 20;
}

/* ---- the twin ---- */

struct twin {
    float keys[LAYERS][TOKENS_MAX][WIDTH]; /* as the model made them, or as the last codec left them */
    float values[LAYERS][TOKENS_MAX][WIDTH];
    bool held[TOKENS_MAX];
    uint8_t codec[TOKENS_MAX]; /* enum pagoda_codec */
    enum pagoda_codec middle;  /* what pages become on their way from f16; f16: nothing */
    uint64_t tokens;
};

static inline float as_f16(float x)
{
    return pgd_f16_to_f32(pgd_f32_to_f16(x));
}

/* Sixteen tokens of one head, through a codec and back. */
static inline void twin_reencode_cell(struct twin *twin, int layer, int head, uint64_t first, enum pagoda_codec to)
{
    const struct pgd_codec *codec = pgd_codec_get(to);
    const struct pgd_cell_shape shape = {SIZE, SIZE};
    static _Alignas(64) unsigned char cell[4096];
    float keys[PGD_LANES][SIZE];
    float values[PGD_LANES][SIZE];
    for (int t = 0; t < (int) PGD_LANES; t++) {
        for (int d = 0; d < SIZE; d++) {
            keys[t][d] = twin->keys[layer][first + (uint64_t) t][head * SIZE + d];
            values[t][d] = twin->values[layer][first + (uint64_t) t][head * SIZE + d];
        }
    }
    if (twin->codec[first] == PAGODA_CODEC_F16) {
        for (int i = 0; i < (int) PGD_LANES * SIZE; i++) {
            keys[i / SIZE][i % SIZE] = as_f16(keys[i / SIZE][i % SIZE]);
            values[i / SIZE][i % SIZE] = as_f16(values[i / SIZE][i % SIZE]);
        }
    }
    codec->encode(codec, shape, keys[0], values[0], cell);
    codec->decode(codec, shape, cell, keys[0], values[0]);
    for (int t = 0; t < (int) PGD_LANES; t++) {
        for (int d = 0; d < SIZE; d++) {
            twin->keys[layer][first + (uint64_t) t][head * SIZE + d] = keys[t][d];
            twin->values[layer][first + (uint64_t) t][head * SIZE + d] = values[t][d];
        }
    }
}

/* A page of the cache is in another codec now: it went there from f16 by way of the middle one. */
static inline void twin_reencode(struct twin *twin, uint64_t first, uint64_t count, enum pagoda_codec to)
{
    if (twin->codec[first] == PAGODA_CODEC_F16 && to != twin->middle && twin->middle != PAGODA_CODEC_F16) {
        twin_reencode(twin, first, count, twin->middle);
    }
    for (uint64_t at = first; at < first + count; at += PGD_LANES) {
        for (int i = 0; i < LAYERS * KV_HEADS; i++) {
            twin_reencode_cell(twin, i / KV_HEADS, i % KV_HEADS, at, to);
        }
        memset(&twin->codec[at], (int) to, PGD_LANES);
    }
}

static inline float number_at(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t x = seed + a * 0x9e3779b97f4a7c15u + b * 0xbf58476d1ce4e5b9u + c * 0x94d049bb133111ebu;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (float) ((double) (x >> 40) / (double) (1u << 24) * 4.0 - 2.0);
}

static inline bool mark_span(void *user, const struct pagoda_span *span)
{
    struct twin *twin = user;
    for (uint64_t i = 0; i < span->count; i++) {
        twin->held[span->first + i] = span->state != PAGODA_PAGE_ABSENT;
    }
    return true;
}

/* As mark_span, for a cache whose pages go through codecs in steps. */
static inline bool mark_codecs(void *user, const struct pagoda_span *span)
{
    struct twin *twin = user;
    mark_span(user, span);
    if (span->state != PAGODA_PAGE_ABSENT && span->codec != (enum pagoda_codec) twin->codec[span->first]) {
        twin_reencode(twin, span->first, span->count, span->codec);
    }
    return true;
}

/* Tokens dropped between token `t` and the end, when gaps are closed. */
static inline uint64_t shift_of(const struct twin *twin, uint64_t t, bool close_gaps)
{
    uint64_t shift = 0;
    for (uint64_t i = t; close_gaps && i < twin->tokens; i++) {
        shift += twin->held[i] ? 0 : 1;
    }
    return shift;
}

static inline void rotate_back(float *q, uint64_t shift, bool split)
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

/* Pages are written in f16; codecs leave numbers that are read as they are. */
static inline double twin_number(const struct twin *twin, uint64_t t, float x)
{
    return twin->codec[t] == PAGODA_CODEC_F16 ? (double) as_f16(x) : (double) x;
}

static inline double score(const struct twin *twin, const struct pagoda_layer *shape, int layer, uint64_t t, int head,
                           const float *query, bool close_gaps)
{
    float q[SIZE];
    memcpy(q, query, sizeof(q));
    rotate_back(q, shift_of(twin, t, close_gaps), shape->rope.split_pairs);
    double s = 0;
    for (int d = 0; d < SIZE; d++) {
        s += (double) q[d] * twin_number(twin, t, twin->keys[layer][t][head * SIZE + d]);
    }
    s *= shape->scale;
    return shape->softcap > 0 ? shape->softcap * tanh(s / shape->softcap) : s;
}

static inline void twin_attend(const struct twin *twin, const struct pagoda_layer *shape, int layer, uint64_t position,
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
            out[d] += w * twin_number(twin, t, twin->values[layer][t][head * SIZE + d]);
        }
    }
    for (int d = 0; d < SIZE; d++) {
        out[d] /= sum;
    }
}

/* ---- driving a batch ---- */

struct fill {
    uint64_t seed;
    void (*reshape)(struct fill *fill, struct twin *twin, uint64_t first, uint32_t count); /* of random rows; NULL */
    void *user;
    float queries[LAYERS][256][QUERY_HEADS * SIZE];
    float outputs[LAYERS][256][QUERY_HEADS * SIZE];
};

static inline void make_rows(struct fill *fill, struct twin *twin, uint64_t first, uint32_t count)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        for (uint32_t t = 0; t < count; t++) {
            for (uint32_t d = 0; d < WIDTH; d++) {
                twin->keys[layer][first + t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3, d);
                twin->values[layer][first + t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3 + 1, d);
            }
            twin->codec[first + t] = PAGODA_CODEC_F16;
            for (uint32_t d = 0; d < QUERY_HEADS * SIZE; d++) {
                fill->queries[layer][t][d] = number_at(fill->seed, first + t, (uint64_t) layer * 3 + 2, d);
            }
        }
    }
    if (fill->reshape != NULL) {
        fill->reshape(fill, twin, first, count);
    }
}

static inline enum pagoda_status run_layer(struct pagoda_cache *cache, struct twin *twin, struct fill *fill, int layer,
                                           uint64_t first, uint32_t thread, uint32_t threads,
                                           pthread_barrier_t *barrier)
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
static inline enum pagoda_status run_batch(struct pagoda_cache *cache, struct twin *twin, struct fill *fill,
                                           uint32_t count)
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

/* Of so many tokens, as many as a batch may have now. Where there is no room at all, begin says why. */
static inline uint32_t fitting(const struct pagoda_cache *cache, uint32_t wanted)
{
    const uint32_t room = pagoda_cache_room(cache, wanted);
    return room == 0 ? wanted : room;
}

static inline bool close_to_twin(const struct twin *twin, const struct fill *fill, const struct pagoda_layer *layers,
                                 uint64_t first, uint32_t count, bool close_gaps, double tolerance)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        for (uint32_t t = 0; t < count; t++) {
            for (int head = 0; head < QUERY_HEADS; head++) {
                double expected[SIZE];
                twin_attend(twin, &layers[layer], layer, first + t, head, &fill->queries[layer][t][head * SIZE],
                            close_gaps, expected);
                for (int d = 0; d < SIZE; d++) {
                    if (!(fabs(fill->outputs[layer][t][head * SIZE + d] - expected[d]) < tolerance)) {
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

static inline bool account_adds_up(const struct pagoda_cache *cache)
{
    struct pagoda_account account;
    struct pagoda_memory memory;
    pagoda_cache_account(cache, &account);
    pagoda_cache_memory(cache, &memory);
    uint64_t sum = 0;
    for (int i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        sum += memory.by_category[i];
    }
    return account.ram + account.quantized + account.spilled + account.collapsed + account.dropped == account.total &&
           account.total == pagoda_cache_position(cache) && sum == memory.used_bytes &&
           memory.used_bytes <= memory.budget_bytes && memory.peak_bytes <= memory.opened_bytes &&
           memory.budget_bytes <= memory.opened_bytes &&
           memory.by_category[PAGODA_MEMORY_KV_EXACT] + memory.by_category[PAGODA_MEMORY_KV_QUANTIZED] ==
               memory.frame_bytes &&
           memory.live_row_bytes <= memory.frame_bytes && account.exact <= (account.dropped + account.quantized == 0) &&
           account.exact >= (account.dropped + account.quantized + account.spilled + account.collapsed == 0);
}

static inline struct twin *new_twin(void)
{
    return calloc(1, sizeof(struct twin));
}
static inline struct fill *new_fill(uint64_t seed)
{
    struct fill *fill = calloc(1, sizeof(*fill));
    fill->seed = seed;
    return fill;
}

/* A cache that spills, with the smallest budget that opens for `tokens` tokens, and so many bytes more. */
static inline struct pagoda_cache *open_smallest_spilling(struct pagoda_cache_options *options, uint64_t tokens,
                                                          uint64_t more)
{
    struct pagoda_cache *cache = NULL;
    uint64_t low = 0;
    uint64_t high = 64u << 20;
    options->on_full = PAGODA_ON_FULL_SPILL;
    options->tokens_max = tokens;
    options->exact_recent = 32;
    options->batch_tokens = 64;
    options->flash.directory = options->flash.directory != NULL ? options->flash.directory : "/tmp";
    while (low + 4096 < high) {
        struct pagoda_memory memory = {.tokens_capacity = 0};
        options->budget_bytes = low + (high - low) / 2;
        if (pagoda_cache_open(options, &cache, NULL) == PAGODA_OK) {
            pagoda_cache_memory(cache, &memory);
            pagoda_cache_close(cache);
        }
        *(memory.tokens_capacity < tokens ? &low : &high) = options->budget_bytes;
    }
    options->budget_bytes = high + more;
    CHECK(pagoda_cache_open(options, &cache, NULL) == PAGODA_OK);
    return cache;
}

/* The smallest budget for about `tokens` tokens. */
static inline uint64_t budget_for(const struct pagoda_cache_options *options, uint64_t tokens)
{
    uint64_t bytes = 0;
    return pagoda_cache_budget_for(options, tokens, &bytes, NULL) == PAGODA_OK ? bytes : 0;
}

/* ---- the same by a team of threads ---- */

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

static inline void *work(void *user)
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

static inline bool run_batch_in_team(struct pagoda_cache *cache, struct twin *twin, struct fill *fill, uint32_t count,
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

#endif
