/* test_bridge.c - real models through the bridge: what may not change a byte, and that the canary can sing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bridge.h"
#include "engine/hook.h"
#include "engine/probe.h"
#include "engine/score.h"
#include "engine/stock.h"
#include "harness/test.h"
#include "llama.h"

#define SMOLLM "smollm2-135m-instruct-q4_1.gguf"
#define GEMMA "gemma-3-270m-q4_k_m.gguf"

static struct pgd_model *open_model(const char *name)
{
    const struct pgd_model_options options = {.copy_weights = false};
    struct pgd_model *model = NULL;
    struct pagoda_error error;
    const enum pagoda_status status = pgd_model_open(test_model_path(name), &options, &model, &error);
    CHECK(status == PAGODA_OK);
    return model;
}

static struct pgd_bridge *open_bridge(const struct pgd_model *model, const struct pgd_bridge_options *options)
{
    struct pgd_bridge *bridge = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pgd_bridge_open(model, options, &bridge, &error);
    CHECK_STR(status == PAGODA_OK ? "" : error.message, "");
    return bridge;
}

/* Tokens that look like text to no one, but are the same for everybody. */
static void fill_tokens(const struct pgd_model *model, int32_t *tokens, uint32_t count)
{
    struct test_rng rng = test_rng(42);
    for (uint32_t i = 0; i < count; i++) {
        tokens[i] = (int32_t) (1000 + test_rng_below(&rng, pgd_model_get_info(model)->vocabulary / 2));
    }
}

static uint64_t hash_row(uint64_t hash, const float *logits, uint32_t count)
{
    const unsigned char *bytes = (const unsigned char *) logits;
    for (size_t i = 0; i < count * sizeof(*logits); i++) {
        hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    return hash;
}

/* A prompt, single tokens, and a further prompt (0: none). */
struct course {
    uint32_t prompt;
    uint32_t singles;
    uint32_t more;
};
#define COURSE_TOKENS_MAX 256u
static const struct course whole_course = {200, 5, 40};

/* Threads that have no CPU of their own wait for each other at every step of the graph: seconds for each decode. Two
 * decodes show what there is to show, a prompt that is split by rows and a token whose heads are split and merged. */
static const struct course crowded_course = {40, 1, 0};

/* FNV-1a of the logits after each decode of a course. */
static uint64_t hash_of_run(const struct pgd_model *model, const struct course *course,
                            const struct pgd_bridge_options *options)
{
    int32_t tokens[COURSE_TOKENS_MAX];
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    struct pgd_bridge *bridge = open_bridge(model, options);
    uint64_t hash = 1469598103934665603u;
    fill_tokens(model, tokens, COURSE_TOKENS_MAX);
    CHECK(pgd_bridge_decode(bridge, tokens, course->prompt, 1, NULL) == PAGODA_OK);
    hash = hash_row(hash, pgd_bridge_logits(bridge, 0), vocabulary);
    const int32_t *next = tokens + course->prompt;
    for (uint32_t i = 0; i < course->singles; i++) {
        CHECK(pgd_bridge_decode(bridge, next++, 1, 1, NULL) == PAGODA_OK);
        hash = hash_row(hash, pgd_bridge_logits(bridge, 0), vocabulary);
    }
    if (course->more > 0) {
        CHECK(pgd_bridge_decode(bridge, next, course->more, 1, NULL) == PAGODA_OK);
        hash = hash_row(hash, pgd_bridge_logits(bridge, 0), vocabulary);
    }
    pgd_bridge_close(bridge);
    return hash;
}

static void check_that_bytes_do_not_change(const char *name)
{
    static const struct pgd_bridge_options others[] = {
        {.threads = 2, .page_tokens = 48},
        {.threads = 1, .page_tokens = 128},
        {.threads = 1, .kv_bytes = 12u << 20},
        {.threads = 1, .kv_bytes = 12u << 20, .on_full = PAGODA_ON_FULL_EVICT},
    };
    const struct pgd_bridge_options plain = {.threads = 1};
    const struct pgd_bridge_options crowd = {.threads = 3};
    struct pgd_model *model = open_model(name);
    const uint64_t expected = hash_of_run(model, &whole_course, &plain);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        CHECK(hash_of_run(model, &whole_course, &others[i]) == expected);
    }
    CHECK(hash_of_run(model, &crowded_course, &crowd) == hash_of_run(model, &crowded_course, &plain));
    pgd_model_close(model);
}

/* A prompt in pieces, as it is read while memory is short. */
static void check_pieces(const char *name, const uint32_t *pieces, uint32_t count)
{
    int32_t tokens[COURSE_TOKENS_MAX];
    struct pgd_model *model = open_model(name);
    uint64_t expected = 0;
    fill_tokens(model, tokens, COURSE_TOKENS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 1});
        for (uint32_t done = 0; done < COURSE_TOKENS_MAX;) {
            const uint32_t left = COURSE_TOKENS_MAX - done;
            const uint32_t now = left < pieces[i] ? left : pieces[i];
            CHECK(pgd_bridge_decode(bridge, tokens + done, now, 1, NULL) == PAGODA_OK);
            done += now;
        }
        const uint64_t hash = hash_row(0, pgd_bridge_logits(bridge, 0), pgd_model_get_info(model)->vocabulary);
        expected = i == 0 ? hash : expected;
        CHECK(hash == expected);
        pgd_bridge_close(bridge);
    }
    pgd_model_close(model);
}

TEST(bytes_do_not_depend_on_how_a_prompt_is_cut)
{
    check_pieces(SMOLLM, (const uint32_t[]) {256, 64, 16}, 3);
    check_pieces(GEMMA, (const uint32_t[]) {256, 48}, 2);
}

TEST(smollm_bytes_do_not_depend_on_threads_pages_or_budget)
{
    check_that_bytes_do_not_change(SMOLLM);
}

TEST(gemma_bytes_do_not_depend_on_threads_pages_or_budget)
{
    check_that_bytes_do_not_change(GEMMA);
}

/* With pages that are re-encoded as they grow old: still the same bytes for any number of threads, on any run. */
static void check_that_codecs_do_not_waver(const char *name)
{
    struct pgd_model *model = open_model(name);
    const struct pgd_bridge_options one = {.threads = 1, .codec = PAGODA_CODEC_K8V4};
    const struct pgd_bridge_options two = {.threads = 2, .codec = PAGODA_CODEC_K8V4};
    const struct pgd_bridge_options smaller = {.threads = 2, .codec = PAGODA_CODEC_K5V4};
    const struct pgd_bridge_options exact = {.threads = 2};
    const uint64_t expected = hash_of_run(model, &whole_course, &one);
    CHECK(hash_of_run(model, &whole_course, &two) == expected);
    CHECK(hash_of_run(model, &whole_course, &two) == expected);
    CHECK(hash_of_run(model, &whole_course, &smaller) != expected); /* codecs did act */
    CHECK(hash_of_run(model, &whole_course, &exact) != expected);
    pgd_model_close(model);
}

TEST(smollm_bytes_do_not_waver_in_small_codecs)
{
    check_that_codecs_do_not_waver(SMOLLM);
}

TEST(gemma_bytes_do_not_waver_in_small_codecs)
{
    check_that_codecs_do_not_waver(GEMMA);
}

/* Mean KLD of `tokens` tokens against the stock path, in steps, each engine on its own cache. */
static double distance_to_stock(const struct pgd_model *model, uint32_t count, uint32_t step)
{
    int32_t *tokens = malloc(count * sizeof(*tokens));
    struct pgd_stock *stock = NULL;
    struct pagoda_error error;
    const struct pgd_stock_options options = {
        .path = PGD_STOCK_FLASH, .context_tokens = 1024, .batch_tokens = step, .outputs_max = 1};
    CHECK(pgd_stock_open(model, &options, &stock, &error) == PAGODA_OK);
    struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 2});
    fill_tokens(model, tokens, count);
    double kld = 0;
    uint32_t rows = 0;
    for (uint32_t done = 0; done + step <= count; done += step) {
        CHECK(pgd_stock_decode(stock, tokens + done, step, 1, &error) == PAGODA_OK);
        CHECK(pgd_bridge_decode(bridge, tokens + done, step, 1, &error) == PAGODA_OK);
        const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
        const struct pgd_score_row theirs = pgd_score_row(pgd_stock_logits(stock, 0), vocabulary);
        const struct pgd_score_row ours = pgd_score_row(pgd_bridge_logits(bridge, 0), vocabulary);
        kld += pgd_score_kld(&theirs, &ours);
        rows++;
    }
    pgd_stock_close(stock);
    pgd_bridge_close(bridge);
    free(tokens);
    return kld / rows;
}

TEST(smollm_agrees_with_the_stock_engine)
{
    struct pgd_model *model = open_model(SMOLLM);
    CHECK(distance_to_stock(model, 600, 50) < 0.02);
    CHECK(distance_to_stock(model, 40, 1) < 0.02);
    pgd_model_close(model);
}

TEST(gemma_agrees_with_the_stock_engine_past_its_window)
{
    struct pgd_model *model = open_model(GEMMA);
    CHECK_EQ_INT(pgd_model_get_info(model)->window, 512);
    CHECK(distance_to_stock(model, 900, 50) < 0.05);
    pgd_model_close(model);
}

TEST(gemma_frees_pages_behind_its_window)
{
    struct pgd_model *model = open_model(GEMMA);
    struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 2});
    int32_t tokens[256];
    fill_tokens(model, tokens, 256);
    for (int i = 0; i < 5; i++) {
        CHECK(pgd_bridge_decode(bridge, tokens, 256, 0, NULL) == PAGODA_OK);
    }
    struct pagoda_memory memory;
    struct pagoda_account account;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    pagoda_cache_account(pgd_bridge_cache(bridge), &account);
    CHECK(memory.released_window_pages > 0);
    CHECK(account.exact && account.dropped == 0);
    /* 3 global layers hold 1,280 tokens; 15 others their window, a batch and the rags of pages. */
    CHECK(memory.live_row_bytes < 1024u * (3u * 1280u + 15u * (512u + 256u + 32u)));
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_cancelled_decode_leaves_the_sequence_as_it_was)
{
    struct pgd_model *model = open_model(SMOLLM);
    struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 2});
    struct pagoda_error error;
    int32_t tokens[100];
    fill_tokens(model, tokens, 100);
    CHECK(pgd_bridge_decode(bridge, tokens, 50, 1, NULL) == PAGODA_OK);
    pgd_bridge_cancel(bridge);
    CHECK(pgd_bridge_decode(bridge, tokens + 50, 50, 1, &error) == PAGODA_CANCELLED);
    CHECK_EQ_INT(pagoda_cache_position(pgd_bridge_cache(bridge)), 50);
    CHECK(pgd_bridge_logits(bridge, 0) == NULL);
    CHECK(pgd_bridge_decode(bridge, tokens + 50, 50, 1, NULL) == PAGODA_OK);
    CHECK_EQ_INT(pagoda_cache_position(pgd_bridge_cache(bridge)), 100);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

struct heard {
    uint32_t calls;
    uint32_t count;
    enum pagoda_status status;
};

static void hear(void *user, uint32_t count, double seconds, enum pagoda_status status)
{
    struct heard *heard = user;
    CHECK(seconds >= 0);
    *heard = (struct heard) {heard->calls + 1, count, status};
}

TEST(a_watcher_hears_of_every_decode)
{
    struct pgd_model *model = open_model(SMOLLM);
    struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 1});
    struct heard heard = {0};
    int32_t tokens[20];
    fill_tokens(model, tokens, 20);
    pgd_bridge_watch(bridge, &(struct pgd_bridge_watcher) {.decoded = hear, .user = &heard});
    CHECK(pgd_bridge_decode(bridge, tokens, 20, 1, NULL) == PAGODA_OK);
    CHECK(heard.calls == 1 && heard.count == 20 && heard.status == PAGODA_OK);
    pgd_bridge_cancel(bridge);
    CHECK(pgd_bridge_decode(bridge, tokens, 3, 1, NULL) == PAGODA_CANCELLED);
    CHECK(heard.calls == 2 && heard.count == 3 && heard.status == PAGODA_CANCELLED);
    pgd_bridge_watch(bridge, NULL);
    CHECK(pgd_bridge_decode(bridge, tokens, 3, 1, NULL) == PAGODA_OK);
    CHECK_EQ_INT(heard.calls, 2);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(bad_tokens_and_counts_are_refused)
{
    struct pgd_model *model = open_model(SMOLLM);
    struct pgd_bridge *bridge = open_bridge(model, &(struct pgd_bridge_options) {.threads = 1});
    int32_t token = -1;
    CHECK(pgd_bridge_decode(bridge, &token, 1, 1, NULL) == PAGODA_INVALID);
    token = (int32_t) pgd_model_get_info(model)->vocabulary;
    CHECK(pgd_bridge_decode(bridge, &token, 1, 1, NULL) == PAGODA_INVALID);
    token = 5;
    CHECK(pgd_bridge_decode(bridge, &token, 0, 0, NULL) == PAGODA_INVALID);
    CHECK(pgd_bridge_decode(bridge, &token, 1, 2, NULL) == PAGODA_INVALID);
    CHECK(pgd_bridge_decode(bridge, &token, 1, 1, NULL) == PAGODA_OK);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_budget_that_is_too_small_says_what_is_needed)
{
    struct pgd_model *model = open_model(SMOLLM);
    struct pgd_bridge *bridge = NULL;
    struct pagoda_error error;
    const struct pgd_bridge_options options = {.kv_bytes = 100000};
    CHECK(pgd_bridge_open(model, &options, &bridge, &error) == PAGODA_OVER_BUDGET);
    CHECK(strstr(error.message, "at least") != NULL);
    pgd_model_close(model);
}

/* ---- the canary ---- */

struct cage {
    struct pgd_model *model;
    struct llama_context *context;
    struct pgd_hook *hook;
};

static void open_cage(struct cage *cage, const char *name)
{
    cage->model = open_model(name);
    CHECK(pgd_hook_open(&cage->hook, NULL) == PAGODA_OK);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 256;
    params.n_outputs_max = 1;
    params.n_threads = params.n_threads_batch = 2;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.swa_full = false;
    params.cb_eval = pgd_hook_callback;
    params.cb_eval_user_data = cage->hook;
    cage->context = llama_init_from_model(pgd_model_llama(cage->model), params);
    CHECK(cage->context != NULL);
    CHECK(pgd_probe_layers(cage->context, cage->model, cage->hook, NULL) == PAGODA_OK);
}

/* Runs the canary on the layers as they are in the cage, with `threads` expected. */
static enum pagoda_status sing(struct cage *cage, uint32_t threads, struct pagoda_error *error)
{
    struct pagoda_layer layers[PAGODA_LAYERS_MAX];
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    for (uint32_t i = 0; i < pgd_hook_layer_count(cage->hook); i++) {
        layers[i] = pgd_hook_layer(cage->hook, i)->shape;
    }
    pagoda_cache_options_default(&options);
    options.layers = layers;
    options.layer_count = pgd_hook_layer_count(cage->hook);
    options.budget_bytes = 32u << 20;
    options.threads_max = 4;
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    const enum pagoda_status status =
        pgd_probe_canary(cage->context, cage->model, cage->hook, cache, threads, threads, error);
    pagoda_cache_close(cache);
    return status;
}

static void close_cage(struct cage *cage)
{
    llama_free(cage->context);
    pgd_hook_close(cage->hook);
    pgd_model_close(cage->model);
}

TEST(the_canary_is_silent_when_all_is_well)
{
    struct cage cage;
    open_cage(&cage, SMOLLM);
    CHECK_EQ_INT(pgd_hook_layer_count(cage.hook), 30);
    CHECK_EQ_INT(pgd_hook_layer(cage.hook, 0)->shape.kv_heads, 3);
    CHECK_EQ_INT(pgd_hook_layer(cage.hook, 0)->rope.kind, PGD_GRAPH_ROPE_PLAIN);
    CHECK(sing(&cage, 2, NULL) == PAGODA_OK);
    close_cage(&cage);
}

TEST(the_canary_sings_when_a_layer_is_read_wrongly)
{
    struct pagoda_error error;
    struct cage cage;
    open_cage(&cage, SMOLLM);
    pgd_hook_layer(cage.hook, 17)->shape.scale *= 1.5f;
    CHECK(sing(&cage, 2, &error) == PAGODA_UNSUPPORTED);
    CHECK(strstr(error.message, "canary") != NULL && strstr(error.message, "layer 17") != NULL);
    close_cage(&cage);
}

TEST(the_canary_sings_when_threads_are_missing)
{
    struct pagoda_error error;
    struct cage cage;
    open_cage(&cage, SMOLLM);
    CHECK(sing(&cage, 3, &error) == PAGODA_UNSUPPORTED);
    CHECK(strstr(error.message, "threads") != NULL);
    close_cage(&cage);
}

TEST(windows_are_read_from_the_masks)
{
    struct cage cage;
    open_cage(&cage, GEMMA);
    CHECK_EQ_INT(pgd_hook_layer_count(cage.hook), 18);
    for (uint32_t i = 0; i < 18; i++) {
        const struct pgd_hook_layer *layer = pgd_hook_layer(cage.hook, i);
        CHECK_EQ_INT(layer->shape.window, layer->number % 6 == 5 ? 0 : 512);
    }
    close_cage(&cage);
}
