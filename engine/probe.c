/* engine/probe.c - see probe.h. */
#include "engine/probe.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/score.h"
#include "llama.h"

#define CANARY_TOKENS 12u

enum pagoda_status pgd_probe_decode(struct llama_context *context, const int32_t *tokens, uint32_t count,
                                    int32_t position, struct pagoda_error *error)
{
    struct llama_batch batch = llama_batch_init((int32_t) count, 0, 1);
    if (batch.token == NULL || batch.pos == NULL) {
        llama_batch_free(batch);
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a batch of %u tokens", count);
    }
    batch.n_tokens = (int32_t) count;
    for (uint32_t i = 0; i < count; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = position + (int32_t) i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i + 1 == count;
    }
    const int result = llama_decode(context, batch);
    llama_batch_free(batch);
    if (result != 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the engine could not run the model on %u tokens (code %d)", count,
                        result);
    }
    return PAGODA_OK;
}

/* A few tokens that differ: enough for shapes, masks and comparisons. */
static void canary_tokens(const struct pgd_model *model, int32_t *tokens, uint32_t count)
{
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    for (uint32_t i = 0; i < count; i++) {
        tokens[i] = (int32_t) ((1000u + 37u * i) % vocabulary);
    }
}

/* ---- layers and windows ---- */

/* Moves token `cell` of the context's sequence from position `from` to `to`. */
static void move_token(struct llama_context *context, int32_t from, int32_t to)
{
    llama_memory_seq_add(llama_get_memory(context), 0, from, from + 1, to - from);
}

/* Whether the masks of one layer are those of causal attention, with `windowed` or without the window's edge in it. */
static bool masks_are(const struct pgd_hook_layer *layer, bool windowed)
{
    static const bool hidden[2][4] = {{false, false, false, true}, {false, false, false, false}};
    for (int query = 0; query < 2; query++) {
        for (int key = 0; key < 4; key++) {
            const bool at_edge = windowed && query == 1 && key == 0;
            if (layer->mask_hides[query][key] != (hidden[query][key] || at_edge)) {
                return false;
            }
        }
    }
    return true;
}

/* With a window of w, a query at p sees keys after p - w. Two tokens go in and the first is moved to p - w; then two
 * queries run, at p - 1, which still sees it, and at p, which does not. Their masks tell which layers have the
 * window. */
static enum pagoda_status probe_windows(struct llama_context *context, const struct pgd_model *model,
                                        struct pgd_hook *hook, struct pagoda_error *error)
{
    const int32_t window = (int32_t) pgd_model_get_info(model)->window;
    llama_memory_t memory = llama_get_memory(context);
    if (!llama_memory_can_shift(memory)) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "this model has sliding-window layers that cannot be examined");
    }
    int32_t tokens[4];
    canary_tokens(model, tokens, 4);
    const int32_t first = 2 * window;
    llama_memory_clear(memory, false);
    enum pagoda_status status = pgd_probe_decode(context, tokens, 2, first, error);
    if (status != PAGODA_OK) {
        return status;
    }
    move_token(context, first, first + 3 - window);
    status = pgd_probe_decode(context, tokens + 2, 2, first + 2, error);
    if (status != PAGODA_OK) {
        return status;
    }
    uint32_t windowed = 0;
    for (uint32_t i = 0; i < pgd_hook_layer_count(hook); i++) {
        struct pgd_hook_layer *layer = pgd_hook_layer(hook, i);
        const bool edge = layer->mask_hides[1][0];
        if (!masks_are(layer, edge)) {
            return pgd_fail(error, PAGODA_UNSUPPORTED,
                            "layer %d hides tokens in another way than by a sliding window of %d", layer->number,
                            window);
        }
        layer->shape.window = edge ? (uint32_t) window : 0;
        windowed += edge ? 1 : 0;
    }
    if (windowed == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the file speaks of a window of %d tokens, but no layer applies it",
                        window);
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_probe_layers(struct llama_context *context, const struct pgd_model *model, struct pgd_hook *hook,
                                    struct pagoda_error *error)
{
    int32_t tokens[CANARY_TOKENS];
    canary_tokens(model, tokens, CANARY_TOKENS);
    pgd_hook_set_mode(hook, PGD_HOOK_OBSERVE);
    pgd_hook_begin(hook);
    llama_memory_clear(llama_get_memory(context), false);
    enum pagoda_status status = pgd_probe_decode(context, tokens, CANARY_TOKENS, 0, error);
    if (status == PAGODA_OK) {
        status = pgd_hook_check(hook, 0, error);
    }
    if (status == PAGODA_OK && pgd_model_get_info(model)->window > 0) {
        status = probe_windows(context, model, hook, error);
    }
    return status;
}

/* ---- canary ---- */

static enum pagoda_status shadow(struct llama_context *context, struct pgd_hook *hook, struct pagoda_cache *cache,
                                 const int32_t *tokens, uint32_t count, struct pagoda_error *error)
{
    enum pagoda_status status = pagoda_cache_begin(cache, count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    pgd_hook_set_mode(hook, PGD_HOOK_SHADOW);
    pgd_hook_begin(hook);
    llama_memory_clear(llama_get_memory(context), false);
    status = pgd_probe_decode(context, tokens, count, 0, error);
    if (status == PAGODA_OK) {
        status = pgd_hook_check(hook, 0, error);
    }
    if (status == PAGODA_OK) {
        status = pagoda_cache_end(cache, error);
    }
    pagoda_cache_abort(cache);
    for (uint32_t i = 0; i < pgd_hook_layer_count(hook) && status == PAGODA_OK; i++) {
        const struct pgd_hook_layer *layer = pgd_hook_layer(hook, i);
        if (!(layer->shadow_error <= PGD_CANARY_LAYER_ERROR)) { /* NaN fails too */
            status = pgd_fail(error, PAGODA_UNSUPPORTED,
                              "canary: the attention of layer %d differs from the stock one by %.3f of its "
                              "range (at most %.3f is rounding)",
                              layer->number, (double) layer->shadow_error, (double) PGD_CANARY_LAYER_ERROR);
        }
    }
    return status;
}

static enum pagoda_status serve(struct llama_context *context, struct pgd_hook *hook, struct pagoda_cache *cache,
                                const int32_t *tokens, uint32_t count, uint32_t threads, struct pagoda_error *error)
{
    const uint64_t position = pagoda_cache_position(cache);
    enum pagoda_status status = pagoda_cache_begin(cache, count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    pgd_hook_begin(hook);
    llama_memory_clear(llama_get_memory(context), false);
    status = pgd_probe_decode(context, tokens, count, (int32_t) position, error);
    if (status == PAGODA_OK) {
        status = pgd_hook_check(hook, threads, error);
    }
    if (status == PAGODA_OK) {
        status = pagoda_cache_end(cache, error);
    }
    pagoda_cache_abort(cache);
    return status;
}

static enum pagoda_status compare(struct llama_context *context, const float *stock, uint32_t vocabulary,
                                  struct pagoda_error *error)
{
    const struct pgd_score_row theirs = pgd_score_row(stock, vocabulary);
    const struct pgd_score_row ours = pgd_score_row(llama_get_logits_ith(context, -1), vocabulary);
    const double kld = pgd_score_kld(&theirs, &ours);
    if (!(kld <= PGD_CANARY_KLD)) {
        return pgd_fail(error, PAGODA_UNSUPPORTED,
                        "canary: the next token's distribution differs from the stock engine's by %.4f nats "
                        "(at most %.2f is rounding)",
                        kld, PGD_CANARY_KLD);
    }
    return PAGODA_OK;
}

/* The next-token logits of the stock path after count - 1 and after all tokens, into [2][vocabulary]. */
static enum pagoda_status run_canary(struct llama_context *context, struct pgd_hook *hook, struct pagoda_cache *cache,
                                     const struct pgd_model *model, uint32_t threads, uint32_t threads_batch,
                                     float *stock, struct pagoda_error *error)
{
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    const uint32_t room = pagoda_cache_room(cache, CANARY_TOKENS);
    int32_t tokens[CANARY_TOKENS];
    canary_tokens(model, tokens, CANARY_TOKENS);
    const uint32_t many = room - 1;
    enum pagoda_status status = shadow(context, hook, cache, tokens, room, error);
    if (status != PAGODA_OK) {
        return status;
    }
    memcpy(stock, llama_get_logits_ith(context, -1), vocabulary * sizeof(*stock));
    status = pagoda_cache_reset(cache, error);
    if (status != PAGODA_OK) {
        return status;
    }
    pgd_hook_set_mode(hook, PGD_HOOK_SERVE);
    status = serve(context, hook, cache, tokens, many, many == 1 ? threads : threads_batch, error);
    if (status == PAGODA_OK) {
        status = serve(context, hook, cache, tokens + many, 1, threads, error);
    }
    if (status == PAGODA_OK) {
        status = compare(context, stock, vocabulary, error);
    }
    return status == PAGODA_OK ? pagoda_cache_reset(cache, error) : status;
}

enum pagoda_status pgd_probe_canary(struct llama_context *context, const struct pgd_model *model, struct pgd_hook *hook,
                                    struct pagoda_cache *cache, uint32_t threads, uint32_t threads_batch,
                                    struct pagoda_error *error)
{
    float *stock = malloc(pgd_model_get_info(model)->vocabulary * sizeof(*stock));
    if (stock == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the canary's logits");
    }
    pgd_hook_set_cache(hook, cache);
    enum pagoda_status status = run_canary(context, hook, cache, model, threads, threads_batch, stock, error);
    free(stock);
    return status;
}
