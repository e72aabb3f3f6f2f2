/* bench/digests.c - which summary of a page tells best what a query would find in it?
 *
 *     build/bench/digests [--model FILE] [--text FILE] [--skip BYTES] [--tokens 8000] [--queries 32] [--page 16]
 *                         [--seen TOKENS] [--each 1] [--own 1]
 *
 * Real text runs through a model; the keys, values and the last `queries` tokens' queries of every layer without a
 * window are kept as they reach the cache. Then, for every KV head and each of those tokens, every method scores all
 * pages from their digests, the best pages are read exactly, and the others take part through their digests. The
 * first page and the last 128 tokens are always read. A digest holds all that scoring and standing in need, and takes
 * at most 4 % of the f16 page. --seen is how many tokens the queries that digests may learn from come
 * from (default: all before the measured ones); --each prints every KV head too; --own leaves other methods out.
 *
 * The last rows are what pagoda does: details for the KV heads whose digests missed most, chosen as in
 * src/cache/trust.c, from one in 64 of the tokens between the half of the text and the measured ones; from the same
 * tokens comes what is added to all other digests. First for one head in 12, then for twice as many, and so on; and the
 * same where two or four pages share a digest. Bytes are means over the heads.
 *
 * Columns: bytes of a digest; how often the page with most attention is among 8, 16, 24 pages read, or 10 % of all; how
 * many of the best 8, 16, 24 are among those 8, 16, 24, and among 10 % of all; attention mass that is missed when 5,
 * 10, 15, 20 % of the pages are read; error of the output relative to its length when 10 or 20 % are read, with the
 * others left out and with digests standing in; and the mass that digests stood in with, over the true one, at 10 %.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/bench.h"
#include "bench/common/digest_methods.h"
#include "bench/common/digest_trust.h"
#include "cache/spill.h"
#include "kernels/packed.h"

#define RECENT 128u    /* tokens at the end that are always read */
#define SEEN_STEP 4u   /* of so many queries, one is learned from */
#define TRIED_STEP 64u /* digests are tried on the last of so many tokens; that one is not learned from */

static void *need(size_t count, size_t bytes)
{
    void *memory = calloc(count + 1, bytes);
    if (memory == NULL) {
        fprintf(stderr, "digests: no memory\n");
        exit(1);
    }
    return memory;
}

/* ---- what reaches the cache ---- */

struct layer {
    struct pagoda_layer shape;
    float *rows[2];  /* keys and values: [token][kv_heads][size] */
    float *queries;  /* of the measured tokens: [token][query_heads][size] */
    float *tried;    /* likewise of those that digests are tried on */
    double *means;   /* sums over the queries seen: [query_heads][size] */
    double *squares; /* [kv_heads][size] */
    uint64_t seen;
};

static struct {
    struct pgd_bridge *bridge; /* NULL: nothing is taken */
    struct layer layers[PAGODA_LAYERS_MAX];
    uint64_t tokens;
    uint64_t measured; /* the first token whose queries are measured */
    uint64_t tried;    /* the first that digests are tried on, and every TRIED_STEP tokens */
    uint64_t seen;
    uint64_t done; /* tokens before this batch */
    uint32_t now;  /* tokens of this batch */
} capture;

enum pagoda_status __real_pagoda_cache_ingest(struct pagoda_cache *cache, uint32_t layer, enum pagoda_side side,
                                              const float *rows, size_t row_stride, uint32_t thread, uint32_t threads);
enum pagoda_status __real_pagoda_cache_attend(struct pagoda_cache *cache, uint32_t layer,
                                              const struct pagoda_queries *queries,
                                              const struct pagoda_outputs *outputs, uint32_t thread, uint32_t threads);
enum pagoda_status __wrap_pagoda_cache_ingest(struct pagoda_cache *cache, uint32_t layer, enum pagoda_side side,
                                              const float *rows, size_t row_stride, uint32_t thread, uint32_t threads);
enum pagoda_status __wrap_pagoda_cache_attend(struct pagoda_cache *cache, uint32_t layer,
                                              const struct pagoda_queries *queries,
                                              const struct pagoda_outputs *outputs, uint32_t thread, uint32_t threads);

static struct layer *captured_layer(uint32_t index, uint32_t thread)
{
    struct layer *layer = &capture.layers[index];
    return capture.bridge != NULL && thread == 0 && layer->rows[0] != NULL ? layer : NULL;
}

/* The linker puts these two between the engine and the cache. */
enum pagoda_status __wrap_pagoda_cache_ingest(struct pagoda_cache *cache, uint32_t index, enum pagoda_side side,
                                              const float *rows, size_t row_stride, uint32_t thread, uint32_t threads)
{
    struct layer *layer = captured_layer(index, thread);
    if (layer != NULL) {
        const size_t width = (size_t) layer->shape.kv_heads * layer->shape.key_size;
        for (uint32_t t = 0; t < capture.now; t++) {
            memcpy(layer->rows[side] + (capture.done + t) * width, rows + t * row_stride, width * sizeof *rows);
        }
    }
    return __real_pagoda_cache_ingest(cache, index, side, rows, row_stride, thread, threads);
}

/* Where a token's query is kept, or NULL. */
static float *place_of_query(const struct layer *layer, uint64_t token, uint32_t head)
{
    const uint64_t row = layer->shape.query_heads;
    if (token >= capture.measured) {
        return layer->queries + ((token - capture.measured) * row + head) * layer->shape.key_size;
    }
    if (token >= capture.tried && (token - capture.tried) % TRIED_STEP == 0) {
        return layer->tried + ((token - capture.tried) / TRIED_STEP * row + head) * layer->shape.key_size;
    }
    return NULL;
}

static void learn(struct layer *layer, uint32_t head, const float *query)
{
    const uint32_t size = layer->shape.key_size;
    const uint32_t kv_head = head / (layer->shape.query_heads / layer->shape.kv_heads);
    for (uint32_t d = 0; d < size; d++) {
        layer->means[(size_t) head * size + d] += (double) query[d];
        layer->squares[(size_t) kv_head * size + d] += (double) query[d] * query[d];
    }
}

enum pagoda_status __wrap_pagoda_cache_attend(struct pagoda_cache *cache, uint32_t index,
                                              const struct pagoda_queries *queries,
                                              const struct pagoda_outputs *outputs, uint32_t thread, uint32_t threads)
{
    struct layer *layer = captured_layer(index, thread);
    for (uint32_t t = 0; layer != NULL && t < capture.now; t++) {
        const uint64_t token = capture.done + t;
        const bool seen = token < capture.measured && token < capture.seen && token % SEEN_STEP == 0;
        for (uint32_t head = 0; head < layer->shape.query_heads; head++) {
            const uint32_t size = layer->shape.key_size;
            const float *query = queries->data + t * queries->token_stride + head * queries->head_stride;
            float *place = place_of_query(layer, token, head);
            if (seen) {
                learn(layer, head, query);
            }
            if (place != NULL) {
                memcpy(place, query, size * sizeof *query);
            }
        }
        layer->seen += seen;
    }
    return __real_pagoda_cache_attend(cache, index, queries, outputs, thread, threads);
}

static void open_capture(struct pgd_bridge *bridge)
{
    for (uint32_t i = 0; i < pgd_bridge_layer_count(bridge); i++) {
        const struct pagoda_layer *shape = pgd_bridge_layer(bridge, i);
        struct layer *layer = &capture.layers[i];
        if (shape->window != 0) {
            continue;
        }
        const size_t size = shape->key_size;
        if (size > SIZE_MAX_HERE || shape->value_size != size || shape->query_heads / shape->kv_heads > ROWS_MAX) {
            fprintf(stderr, "digests: layer %u has a shape that this program does not measure\n", i);
            exit(1);
        }
        layer->shape = *shape;
        layer->rows[0] = need(capture.tokens * shape->kv_heads * size, sizeof(float));
        layer->rows[1] = need(capture.tokens * shape->kv_heads * size, sizeof(float));
        layer->queries = need((capture.tokens - capture.measured) * shape->query_heads * size, sizeof(float));
        layer->tried = need((capture.measured / TRIED_STEP + 1) * shape->query_heads * size, sizeof(float));
        layer->means = need(shape->query_heads * size, sizeof(double));
        layer->squares = need(shape->kv_heads * size, sizeof(double));
    }
    capture.bridge = bridge;
}

static void run_text(struct pgd_bridge *bridge, const int32_t *tokens)
{
    struct pagoda_error error;
    open_capture(bridge);
    for (capture.done = 0; capture.done < capture.tokens; capture.done += capture.now) {
        const uint64_t left = capture.measured > capture.done ? capture.measured - capture.done : 1;
        capture.now = left < PGD_BRIDGE_BATCH ? (uint32_t) left : PGD_BRIDGE_BATCH;
        bench_check(pgd_bridge_decode(bridge, tokens + capture.done, capture.now, 1, &error), &error, "decode");
    }
    capture.bridge = NULL;
}

/* ---- what is measured ---- */

static bool own_only;
static uint32_t page_tokens;

static bool is_asked(size_t method)
{
    const bool fits = digest_methods[method].span == 0 || page_tokens == PGD_LANES;
    return fits && (!own_only || method >= DIGEST_OURS);
}

#define BEST_COUNTS 3
#define SHARES 4
static const uint32_t best_counts[BEST_COUNTS] = {8, 16, 24};
static const double shares[SHARES] = {0.05, 0.10, 0.15, 0.20};

struct tally {
    double queries; /* tokens, for one KV head each */
    double best[BEST_COUNTS + 1];
    double overlap[BEST_COUNTS];
    double covered[BEST_COUNTS]; /* at the second share */
    double missed[SHARES];
    double left_out[SHARES];
    double stood_in[SHARES];
    double mass_said; /* at the second share */
    double mass_true;
};

/* What attention is, for the query heads of one token. */
struct truth {
    uint32_t first; /* pages first .. end - 1 may be left out; the rest is always read */
    uint32_t end;
    float total[ROWS_MAX];                 /* logarithm of all mass */
    float read[ROWS_MAX];                  /* share of it that is always read */
    float *mass[ROWS_MAX];                 /* by page, as a share */
    float *part[ROWS_MAX];                 /* [page][size]: what the page adds to the output */
    float always[ROWS_MAX][SIZE_MAX_HERE]; /* what the rest adds */
    float output[ROWS_MAX][SIZE_MAX_HERE];
    float *scores; /* room for one row */
};

static void score_tokens(const struct head *head, const float *query, uint32_t tokens, float *scores)
{
    for (uint32_t t = 0; t < tokens; t++) {
        scores[t] = head->shape.scale * digest_product(head->size, query, head->keys[0] + (size_t) t * head->size);
    }
}

static void find_truth(const struct head *head, const struct query *query, uint32_t tokens, struct truth *truth)
{
    truth->first = 1;
    truth->end = (tokens - RECENT) / head->page;
    for (uint32_t row = 0; row < head->group; row++) {
        score_tokens(head, query->plain[row], tokens, truth->scores);
        truth->total[row] = digest_log_sum(tokens, truth->scores);
        truth->read[row] = 0;
        memset(truth->mass[row], 0, head->pages * sizeof(float));
        memset(truth->part[row], 0, (size_t) head->pages * head->size * sizeof(float));
        memset(truth->always[row], 0, sizeof truth->always[row]);
        memset(truth->output[row], 0, sizeof truth->output[row]);
        for (uint32_t t = 0; t < tokens; t++) {
            const uint32_t page = t / head->page;
            const bool may_miss = page >= truth->first && page < truth->end;
            float *part = may_miss ? truth->part[row] + (size_t) page * head->size : truth->always[row];
            const float weight = expf(truth->scores[t] - truth->total[row]);
            *(may_miss ? &truth->mass[row][page] : &truth->read[row]) += weight;
            for (uint32_t d = 0; d < head->size; d++) {
                const float x = weight * head->values[0][(size_t) t * head->size + d];
                part[d] += x;
                truth->output[row][d] += x;
            }
        }
    }
}

struct ranked {
    float score;
    uint32_t page;
};

static int by_score(const void *a, const void *b)
{
    const float x = ((const struct ranked *) a)->score;
    const float y = ((const struct ranked *) b)->score;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Pages by the largest share of mass that one of the query heads has for them. */
static void rank_pages(const struct head *head, const struct truth *truth, float *const mass[], bool logarithms,
                       struct ranked *ranked)
{
    for (uint32_t page = truth->first; page < truth->end; page++) {
        ranked[page - truth->first] = (struct ranked) {-INFINITY, page};
    }
    for (uint32_t row = 0; row < head->group; row++) {
        double total = truth->read[row];
        for (uint32_t page = truth->first; page < truth->end && logarithms; page++) {
            total += exp((double) mass[row][page] - truth->total[row]);
        }
        for (uint32_t page = truth->first; page < truth->end; page++) {
            struct ranked *at = &ranked[page - truth->first];
            const float score =
                logarithms ? mass[row][page] - truth->total[row] - (float) log(total) : logf(mass[row][page] + 1e-37f);
            at->score = fmaxf(at->score, score);
        }
    }
    qsort(ranked, truth->end - truth->first, sizeof *ranked, by_score);
}

static double distance(uint32_t size, const float *output, double divisor, const float *wanted)
{
    double wrong = 0;
    double all = 0;
    for (uint32_t d = 0; d < size; d++) {
        const double x = output[d] / divisor - (double) wanted[d];
        wrong += x * x;
        all += (double) wanted[d] * wanted[d];
    }
    return sqrt(wrong / all);
}

/* One row when the first `count` of the ranked pages are read. */
static void tally_share(const struct head *head, const struct truth *truth, const struct answer *answer,
                        const struct ranked *ranked, uint32_t count, uint32_t row, uint32_t share, bool stands_in,
                        struct tally *tally)
{
    float output[SIZE_MAX_HERE];
    double read = truth->read[row];
    double said = 0;
    memcpy(output, truth->always[row], sizeof output);
    for (uint32_t i = 0; i < count; i++) {
        read += truth->mass[row][ranked[i].page];
        for (uint32_t d = 0; d < head->size; d++) {
            output[d] += truth->part[row][(size_t) ranked[i].page * head->size + d];
        }
    }
    tally->missed[share] += (1 - read) / head->group;
    tally->left_out[share] += distance(head->size, output, read, truth->output[row]) / head->group;
    for (uint32_t i = count; i < truth->end - truth->first && stands_in; i++) {
        const float weight = expf(answer->mass[row][ranked[i].page] - truth->total[row]);
        said += weight;
        for (uint32_t d = 0; d < head->size; d++) {
            output[d] += weight * answer->value[row][(size_t) ranked[i].page * head->size + d];
        }
    }
    tally->stood_in[share] += distance(head->size, output, read + said, truth->output[row]) / head->group;
    if (share == 1) {
        tally->mass_said += said / head->group;
        tally->mass_true += (1 - read) / head->group;
    }
}

static bool is_among(const struct ranked *ranked, uint32_t count, uint32_t page)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ranked[i].page == page) {
            return true;
        }
    }
    return false;
}

/* What is read of the best pages, when the first `count` of the ranked are. */
static void tally_covered(const struct ranked *wanted, const struct ranked *ranked, uint32_t count, struct tally *tally)
{
    tally->best[BEST_COUNTS] += is_among(ranked, count, wanted[0].page);
    for (uint32_t b = 0; b < BEST_COUNTS; b++) {
        for (uint32_t i = 0; i < best_counts[b]; i++) {
            tally->covered[b] += (double) is_among(ranked, count, wanted[i].page) / best_counts[b];
        }
    }
}

static void tally_answer(const struct head *head, const struct truth *truth, const struct answer *answer,
                         bool stands_in, struct ranked *wanted, struct ranked *ranked, struct tally *tally)
{
    const uint32_t pages = truth->end - truth->first;
    rank_pages(head, truth, truth->mass, false, wanted);
    rank_pages(head, truth, answer->reach, true, ranked);
    tally->queries += 1;
    for (uint32_t b = 0; b < BEST_COUNTS; b++) {
        tally->best[b] += is_among(ranked, best_counts[b], wanted[0].page);
        for (uint32_t i = 0; i < best_counts[b]; i++) {
            tally->overlap[b] += (double) is_among(ranked, best_counts[b], wanted[i].page) / best_counts[b];
        }
    }
    for (uint32_t share = 0; share < SHARES; share++) {
        const uint32_t count = (uint32_t) (shares[share] * head->pages + 0.5);
        for (uint32_t row = 0; row < head->group; row++) {
            tally_share(head, truth, answer, ranked, count < pages ? count : pages, row, share, stands_in, tally);
        }
        if (share == 1) {
            tally_covered(wanted, ranked, count, tally);
        }
    }
}

static void add_tally(struct tally *into, const struct tally *from)
{
    double *to = (double *) into;
    for (size_t i = 0; i < sizeof *into / sizeof *to; i++) {
        to[i] += ((const double *) from)[i];
    }
}

static void print_tally(const char *name, double bytes, const struct tally *tally)
{
    const double n = tally->queries;
    printf("%-52s %5.0f |", name, bytes);
    for (uint32_t b = 0; b <= BEST_COUNTS; b++) {
        printf(" %5.1f", 100 * tally->best[b] / n);
    }
    printf(" |");
    for (uint32_t b = 0; b < BEST_COUNTS; b++) {
        printf(" %5.1f", 100 * tally->overlap[b] / n);
    }
    printf(" |");
    for (uint32_t b = 0; b < BEST_COUNTS; b++) {
        printf(" %5.1f", 100 * tally->covered[b] / n);
    }
    printf(" |");
    for (uint32_t share = 0; share < SHARES; share++) {
        printf(" %5.2f", 100 * tally->missed[share] / n);
    }
    printf(" | %.4f %.4f | %.4f %.4f | %8.3g\n", tally->left_out[1] / n, tally->left_out[3] / n, tally->stood_in[1] / n,
           tally->stood_in[3] / n, tally->mass_said / tally->mass_true);
}

static void print_head(void)
{
    printf("%-52s %5s | %-23s | %-17s | %-17s | %-23s | %-13s | %-13s | %8s\n", "", "", "best page among, %",
           "overlap, %", "best in 10 %, %", "mass missed, %", "left out", "standing in", "said");
    printf("%-52s %5s | %5s %5s %5s %5s | %5s %5s %5s | %5s %5s %5s | %5s %5s %5s %5s | %6s %6s | %6s %6s | %8s\n",
           "digest", "bytes", "8", "16", "24", "10 %", "8", "16", "24", "8", "16", "24", "5 %", "10 %", "15 %", "20 %",
           "10 %", "20 %", "10 %", "20 %", "/ true");
}

/* ---- running ---- */

static float *rows_of_head(const struct layer *layer, uint32_t side, uint32_t kv_head, bool rotated)
{
    const uint32_t size = layer->shape.key_size;
    float *rows = need(capture.tokens * size, sizeof *rows);
    for (uint64_t t = 0; t < capture.tokens; t++) {
        memcpy(rows + t * size, layer->rows[side] + (t * layer->shape.kv_heads + kv_head) * size, size * sizeof *rows);
        if (rotated) {
            pgd_hadamard(size, rows + t * size);
        }
    }
    return rows;
}

/* Variance about the means of the query heads, averaged over them. */
static void open_seen(const struct layer *layer, uint32_t kv_head, struct head *head, float *variance, float *means)
{
    const double queries = (double) layer->seen * head->group;
    for (uint32_t d = 0; d < head->size; d++) {
        double rest = layer->squares[(size_t) kv_head * head->size + d] / queries;
        for (uint32_t m = 0; m < head->group; m++) {
            const size_t query_head = (size_t) kv_head * head->group + m;
            const double mean = layer->means[query_head * head->size + d] / (double) layer->seen;
            means[(size_t) m * head->size + d] = (float) mean;
            rest -= mean * mean / head->group;
        }
        variance[d] = (float) fmax(rest, 0);
    }
    head->seen = (struct pgd_digest_queries) {variance, means, head->group};
}

static void ask_method(const struct head *head, const struct method *method, const float *digests,
                       const struct query *query, struct answer *answer)
{
    if (method->score_all != NULL) {
        method->score_all(head, method, digests, query, answer);
        return;
    }
    for (uint32_t page = 0; page < head->pages; page++) {
        const float *digest = digests + page * digest_floats(head);
        for (uint32_t row = 0; row < head->group; row++) {
            method->score(head, method, digest, method->rotated ? query->rotated[row] : query->plain[row],
                          &answer->reach[row][page], &answer->mass[row][page]);
            memcpy(answer->value[row] + (size_t) page * head->size, digest, head->size * sizeof *digest);
        }
    }
}

static void open_query(const struct layer *layer, const struct head *head, uint32_t kv_head, uint64_t token,
                       struct query *query)
{
    for (uint32_t row = 0; row < head->group; row++) {
        query->plain[row] = place_of_query(layer, token, kv_head * head->group + row);
        memcpy(query->rotated[row], query->plain[row], head->size * sizeof(float));
        pgd_hadamard(head->size, query->rotated[row]);
    }
}

/* Tries digests of a family on earlier tokens, as src/cache/trust.c does while a prompt is read. */
static void try_digests(const struct layer *layer, struct head *head, uint32_t kv_head, uint32_t family,
                        const float *digests, struct answer *answer, struct digest_trust *trust)
{
    float *scores[ROWS_MAX];
    for (uint32_t row = 0; row < head->group; row++) {
        scores[row] = need(capture.tokens, sizeof(float));
    }
    for (uint64_t token = capture.tried; token < capture.measured; token += TRIED_STEP) {
        const uint32_t tokens = (uint32_t) token + 1;
        struct query query;
        open_query(layer, head, kv_head, token, &query);
        for (uint32_t row = 0; row < head->group; row++) {
            score_tokens(head, query.plain[row], tokens, scores[row]);
        }
        ask_method(head, &digest_methods[digest_method_of(family, DIGEST_PLAIN)], digests, &query, answer);
        digest_trust_learn(trust, head, tokens, (tokens - RECENT) / head->page, scores, answer);
    }
    for (uint32_t row = 0; row < head->group; row++) {
        head->lift[family][row] = digest_trust_lift(trust, row);
        free(scores[row]);
    }
}

/* Of one KV head: what its digests missed on earlier tokens, and how it does without and with details. */
struct found {
    double missed;
    struct tally lifted;
    struct tally detailed;
};

struct results {
    bool each;
    struct tally all[DIGEST_METHODS];
    uint32_t bytes[DIGEST_METHODS];
    struct found *heads[DIGEST_FAMILIES];
    uint32_t count;
};

/* Everything about one KV head. */
static void measure_head(const struct layer *layer, struct head *head, uint32_t kv_head,
                         struct tally tallies[DIGEST_METHODS], struct digest_trust trust[DIGEST_FAMILIES])
{
    struct truth truth = {.scores = need(capture.tokens, sizeof(float))};
    struct answer answer;
    for (uint32_t row = 0; row < head->group; row++) {
        truth.mass[row] = need(head->pages, sizeof(float));
        truth.part[row] = need((size_t) head->pages * head->size, sizeof(float));
        answer.reach[row] = need(head->pages, sizeof(float));
        answer.mass[row] = need(head->pages, sizeof(float));
        answer.value[row] = need((size_t) head->pages * head->size, sizeof(float));
    }
    struct ranked *wanted = need(head->pages, sizeof *wanted);
    struct ranked *ranked = need(head->pages, sizeof *ranked);
    float *digests[DIGEST_METHODS];
    for (size_t m = 0; m < DIGEST_METHODS; m++) {
        const bool makes = digest_methods[m].make != NULL && is_asked(m);
        digests[m] = makes ? need(head->pages * digest_floats(head), sizeof(float)) : NULL;
        for (uint32_t page = 0; page < head->pages && makes; page++) {
            digest_methods[m].make(head, &digest_methods[m], page, digests[m] + page * digest_floats(head));
        }
    }
    for (uint32_t family = 0; family < DIGEST_FAMILIES && is_asked(digest_method_of(family, DIGEST_PLAIN)); family++) {
        try_digests(layer, head, kv_head, family, digests[digest_method_of(family, DIGEST_PLAIN)], &answer,
                    &trust[family]);
    }
    for (uint64_t token = capture.measured; token < capture.tokens; token++) {
        struct query query;
        open_query(layer, head, kv_head, token, &query);
        find_truth(head, &query, (uint32_t) token + 1, &truth);
        for (size_t m = 0; m < DIGEST_METHODS; m++) {
            if (!is_asked(m)) {
                continue;
            }
            ask_method(head, &digest_methods[m], digests[m], &query, &answer);
            tally_answer(head, &truth, &answer, digest_methods[m].stands_in, wanted, ranked, &tallies[m]);
        }
    }
    for (size_t m = 0; m < DIGEST_METHODS; m++) {
        free(digests[m]);
    }
    for (uint32_t row = 0; row < head->group; row++) {
        free(truth.mass[row]);
        free(truth.part[row]);
        free(answer.reach[row]);
        free(answer.mass[row]);
        free(answer.value[row]);
    }
    free(truth.scores);
    free(wanted);
    free(ranked);
}

/* Adds to the tallies of all heads, and sets the bytes of each method's digest. */
static void run_head(uint32_t index, uint32_t kv_head, uint32_t page, struct results *results)
{
    const struct layer *layer = &capture.layers[index];
    float variance[SIZE_MAX_HERE];
    float means[ROWS_MAX * SIZE_MAX_HERE];
    struct head head = {
        .size = layer->shape.key_size,
        .group = layer->shape.query_heads / layer->shape.kv_heads,
        .page = page,
        .pages = (uint32_t) (capture.tokens / page),
        .shape = {layer->shape.key_size, layer->shape.value_size, layer->shape.scale, layer->shape.softcap},
    };
    for (int rotated = 0; rotated < 2; rotated++) {
        head.keys[rotated] = rows_of_head(layer, PAGODA_KEYS, kv_head, rotated != 0);
        head.values[rotated] = rows_of_head(layer, PAGODA_VALUES, kv_head, rotated != 0);
    }
    open_seen(layer, kv_head, &head, variance, means);
    struct tally tallies[DIGEST_METHODS] = {0};
    struct digest_trust trust[DIGEST_FAMILIES] = {{0}};
    measure_head(layer, &head, kv_head, tallies, trust);
    for (uint32_t family = 0; family < DIGEST_FAMILIES; family++) {
        const double missed = trust[family].tokens > 0 ? trust[family].missed / trust[family].tokens : 0;
        results->heads[family][results->count] =
            (struct found) {missed, tallies[digest_method_of(family, DIGEST_LIFTED)],
                            tallies[digest_method_of(family, DIGEST_DETAILED)]};
    }
    if (results->each) {
        printf("layer %u, KV head %u, missed %.2f %% before\n", index, kv_head,
               100 * results->heads[0][results->count].missed);
    }
    results->count++;
    for (size_t m = 0; m < DIGEST_METHODS; m++) {
        results->bytes[m] = digest_bytes(&head, &digest_methods[m]);
        add_tally(&results->all[m], &tallies[m]);
        if (results->each && is_asked(m)) {
            print_tally(digest_methods[m].name, results->bytes[m], &tallies[m]);
        }
    }
    for (int rotated = 0; rotated < 2; rotated++) {
        free(head.keys[rotated]);
        free(head.values[rotated]);
    }
}

static int by_missed(const void *a, const void *b)
{
    const double x = ((const struct found *) a)->missed;
    const double y = ((const struct found *) b)->missed;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Details for the heads that missed most before: for as many as the cache has slots, then for twice as many. */
static void print_detailed(struct results *results, uint32_t family)
{
    const size_t lifted = digest_method_of(family, DIGEST_LIFTED);
    struct found *heads = results->heads[family];
    qsort(heads, results->count, sizeof *heads, by_missed);
    for (uint32_t slots = pgd_detail_slots(results->count, PGD_DETAIL_PART); slots < results->count; slots *= 2) {
        const double part = (double) slots / results->count;
        struct tally tally = {0};
        char name[64];
        for (uint32_t i = 0; i < results->count; i++) {
            add_tally(&tally, i < slots ? &heads[i].detailed : &heads[i].lifted);
        }
        snprintf(name, sizeof name, "%s, %u of %u detailed", digest_methods[lifted].name, slots, results->count);
        const double bytes = results->bytes[digest_method_of(family, DIGEST_DETAILED)];
        print_tally(name, results->bytes[lifted] * (1 - part) + bytes * part, &tally);
    }
}

static size_t count_heads(void)
{
    size_t count = 0;
    for (uint32_t i = 0; i < PAGODA_LAYERS_MAX; i++) {
        count += capture.layers[i].shape.kv_heads;
    }
    return count;
}

static void free_capture(void)
{
    for (uint32_t i = 0; i < PAGODA_LAYERS_MAX; i++) {
        free(capture.layers[i].rows[0]);
        free(capture.layers[i].rows[1]);
        free(capture.layers[i].queries);
        free(capture.layers[i].tried);
        free(capture.layers[i].means);
        free(capture.layers[i].squares);
    }
}

int main(int argc, char **argv)
{
    capture.tokens = bench_number(argc, argv, "--tokens", 8000);
    capture.measured = capture.tokens - bench_number(argc, argv, "--queries", 32);
    capture.seen = bench_number(argc, argv, "--seen", capture.measured);
    page_tokens = (uint32_t) bench_number(argc, argv, "--page", PGD_LANES);
    const uint32_t page = page_tokens;
    const char *text = bench_option(argc, argv, "--text", "build/texts/debian-handbook.txt");
    struct results results = {.each = bench_number(argc, argv, "--each", 0) != 0};
    own_only = bench_number(argc, argv, "--own", 0) != 0;
    capture.tried = capture.tokens / 2 / TRIED_STEP * TRIED_STEP + TRIED_STEP - 1;
    if (page % PGD_LANES != 0 || page == 0 || page > PAGE_MAX || capture.tokens < 1024 ||
        capture.measured < capture.tokens / 2) {
        fprintf(stderr, "digests: pages have 16, 32, 48 or 64 tokens; at least 1024 tokens, of which fewer than half "
                        "are measured\n");
        return 2;
    }
    struct pgd_model *model = bench_open_model(argc, argv);
    int32_t *tokens = bench_tokens(model, text, (size_t) bench_number(argc, argv, "--skip", 0), capture.tokens);
    const struct pgd_bridge_options options = {.tokens_max = capture.tokens, .threads = 1, .outputs_max = 1};
    struct pgd_bridge *bridge = NULL;
    struct pagoda_error error;
    bench_check(pgd_bridge_open(model, &options, &bridge, &error), &error, "pagoda");
    run_text(bridge, tokens);

    printf("%s, %s, %llu tokens, %llu of them measured, pages of %u\n", pgd_model_get_info(model)->name, text,
           (unsigned long long) capture.tokens, (unsigned long long) (capture.tokens - capture.measured), page);
    print_head();
    for (uint32_t family = 0; family < DIGEST_FAMILIES; family++) {
        results.heads[family] = need(count_heads(), sizeof *results.heads[family]);
    }
    for (uint32_t i = 0; i < pgd_bridge_layer_count(bridge); i++) {
        for (uint32_t kv_head = 0; kv_head < capture.layers[i].shape.kv_heads; kv_head++) {
            run_head(i, kv_head, page, &results);
        }
    }
    if (results.each) {
        printf("all\n");
    }
    for (size_t m = 0; m < DIGEST_METHODS; m++) {
        if (is_asked(m)) {
            print_tally(digest_methods[m].name, results.bytes[m], &results.all[m]);
        }
    }
    for (uint32_t family = 0; family < DIGEST_FAMILIES; family++) {
        if (is_asked(digest_method_of(family, DIGEST_PLAIN))) {
            print_detailed(&results, family);
        }
        free(results.heads[family]);
    }
    free_capture();
    pgd_bridge_close(bridge);
    pgd_model_close(model);
    free(tokens);
    return 0;
}
