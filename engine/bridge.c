/* engine/bridge.c - see bridge.h. */
#include "engine/bridge.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cache/spill.h"
#include "engine/hook.h"
#include "engine/log.h"
#include "engine/pressure.h"
#include "engine/probe.h"
#include "engine/reserve.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "os/os.h"

struct pgd_bridge {
    const struct pgd_model *model;
    struct llama_context *context;
    struct ggml_threadpool *pool;
    struct ggml_threadpool *pool_batch; /* the same as `pool` when both have as many threads */
    struct pgd_hook *hook;
    struct pagoda_cache *cache;
    struct llama_batch batch;
    uint32_t threads;
    uint32_t threads_batch;
    uint32_t outputs_max;
    uint32_t last_count; /* tokens of the last decode, whose logits are there */
    uint32_t last_outputs;
    uint64_t compute_bytes;
    struct pgd_bridge_watcher watcher;
    uint64_t process_bytes;
    struct pgd_pressure *pressure; /* NULL: not governed */
    struct pagoda_error fallback;  /* its status is OK, or it says why a wish was not granted */
    bool interrupted;              /* the batch in hand was given up for that */
    bool may_interrupt;            /* the batch in hand: it takes long, and memory may be needed meanwhile */
    atomic_bool cancel;
    bool poisoned;
    bool keeps_tokens;
    int32_t *tokens; /* of the sequence, when it keeps them */
    uint64_t tokens_room;
};

/* ---- opening ---- */

/* Between two nodes of the graph, in thread 0 of the team, which is the owner's. */
static bool should_abort(void *user)
{
    struct pgd_bridge *bridge = user;
    if (bridge->may_interrupt && pgd_pressure_interrupts(bridge->pressure)) {
        bridge->may_interrupt = false;
        bridge->interrupted = true;
    }
    return bridge->interrupted || atomic_load_explicit(&bridge->cancel, memory_order_relaxed);
}

static struct ggml_threadpool *new_pool(uint32_t threads)
{
    struct ggml_threadpool_params params = ggml_threadpool_params_default((int) threads);
    return ggml_threadpool_new(&params);
}

static enum pagoda_status attach_pools(struct pgd_bridge *bridge, struct pagoda_error *error)
{
    bridge->pool = new_pool(bridge->threads);
    bridge->pool_batch = bridge->threads_batch == bridge->threads ? bridge->pool : new_pool(bridge->threads_batch);
    if (bridge->pool == NULL || bridge->pool_batch == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "the system did not give %u threads", bridge->threads);
    }
    llama_attach_threadpool(bridge->context, bridge->pool, bridge->pool_batch);
    return PAGODA_OK;
}

static enum pagoda_status open_context(struct pgd_bridge *bridge, struct pagoda_error *error)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = PGD_BRIDGE_BATCH;
    params.n_batch = PGD_BRIDGE_BATCH;
    params.n_ubatch = PGD_BRIDGE_BATCH;
    params.n_seq_max = 1;
    params.n_outputs_max = bridge->outputs_max;
    params.n_threads = (int32_t) bridge->threads;
    params.n_threads_batch = (int32_t) bridge->threads_batch;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = GGML_TYPE_F16;
    params.type_v = GGML_TYPE_F16;
    params.swa_full = false;
    params.op_offload = false;
    params.no_perf = true;
    params.cb_eval = pgd_hook_callback;
    params.cb_eval_user_data = bridge->hook;
    params.abort_callback = should_abort;
    params.abort_callback_data = bridge;
    pgd_log_reset();
    bridge->context = llama_init_from_model(pgd_model_llama(bridge->model), params);
    if (bridge->context == NULL) {
        char reason[160];
        pgd_log_last_error(reason, sizeof(reason));
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the engine could not set this model up: %s", reason);
    }
    bridge->compute_bytes = pgd_log_sum_mib("compute buffer size") + pgd_log_sum_mib("output buffer size");
    bridge->batch = llama_batch_init((int32_t) PGD_BRIDGE_BATCH, 0, 1);
    if (bridge->batch.token == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a batch");
    }
    return attach_pools(bridge, error);
}

static enum pagoda_status check_gaps(const struct pgd_bridge *bridge, const struct pgd_bridge_options *options,
                                     struct pagoda_error *error)
{
    for (uint32_t i = 0; i < pgd_hook_layer_count(bridge->hook); i++) {
        const struct pgd_hook_layer *layer = pgd_hook_layer(bridge->hook, i);
        if (layer->rope.kind == PGD_GRAPH_ROPE_UNKNOWN && options->on_full != PAGODA_ON_FULL_STOP &&
            !options->keep_gaps) {
            return pgd_fail(error, PAGODA_UNSUPPORTED,
                            "layer %d turns positions into rotations in a way that cannot be undone, so gaps "
                            "cannot be closed past the trained length: use --keep-gaps, or --on-full stop",
                            layer->number);
        }
    }
    return PAGODA_OK;
}

/* ---- the process budget ---- */

/* Everything but KV state, at most. The probe has touched the weights and run a small graph: what a large one touches
 * of the compute buffers comes on top, and so do weights that were not needed yet. Mapped weights count whole: they
 * can be read again, but a process whose weights have left memory stands still. */
static uint64_t measure_process(const struct pgd_bridge *bridge)
{
    const uint64_t program_bytes = 8u << 20; /* code of the program and its libraries, as far as it is resident */
    const uint64_t small_things = 4u << 20;
    const struct pgd_model_info *info = pgd_model_get_info(bridge->model);
    const uint64_t vocabulary_bytes = (uint64_t) info->vocabulary * 32; /* logits once more, and sampling */
    uint64_t own = 0;
    uint64_t of_files = 0;
    pgd_os_process_parts(&own, &of_files);
    of_files = pgd_max_u64(of_files, info->mapped_bytes + program_bytes);
    return own + of_files + bridge->compute_bytes + vocabulary_bytes + small_things;
}

/* What --mem leaves for KV state, in options->kv_bytes_max. */
static enum pagoda_status bound_by_process(const struct pgd_bridge *bridge, const struct pagoda_layer *layers,
                                           uint32_t count, uint64_t trained, struct pgd_bridge_options *options,
                                           struct pagoda_error *error)
{
    const struct pgd_bridge_options plain = pgd_reserve_otherwise(options);
    struct pagoda_cache_options cache;
    uint64_t least = 0;
    pgd_reserve_options(&plain, layers, count, trained, &cache);
    enum pagoda_status status = pagoda_cache_budget_for(&cache, 1, &least, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (options->process_bytes < bridge->process_bytes + least) {
        return pgd_fail(error, PAGODA_OVER_BUDGET,
                        "--mem %.1f MiB is too little: weights, compute buffers and the program take %.1f MiB, and one "
                        "page in each layer takes %.1f MiB; give it at least %.0f MiB",
                        (double) options->process_bytes / 1048576.0, (double) bridge->process_bytes / 1048576.0,
                        (double) least / 1048576.0, ceil((double) (bridge->process_bytes + least) / 1048576.0));
    }
    options->kv_bytes_max = options->process_bytes - bridge->process_bytes;
    return PAGODA_OK;
}

/* The cache by a rule that is only a wish; `why` says what is against it. A file system that is as good as full would
 * take nothing: better to know now. */
static enum pagoda_status open_wished(struct pgd_bridge *bridge, const struct pgd_bridge_options *options,
                                      const struct pagoda_cache_options *wished, struct pagoda_error *why)
{
    enum pagoda_status status = check_gaps(bridge, options, why);
    if (status == PAGODA_OK) {
        status = pagoda_cache_open(wished, &bridge->cache, why);
    }
    if (status == PAGODA_OK && bridge->cache->spill != NULL && !pgd_spill_has_space(bridge->cache)) {
        status = pgd_fail(why, PAGODA_FULL, "the file system of the spill file has no space to spare");
        pagoda_cache_close(bridge->cache);
        bridge->cache = NULL;
    }
    return status;
}

static enum pagoda_status open_planned(struct pgd_bridge *bridge, const struct pgd_bridge_options *options,
                                       const struct pagoda_layer *layers, uint32_t count, struct pagoda_error *error)
{
    const uint64_t trained = pgd_model_get_info(bridge->model)->trained_tokens;
    struct pgd_reserved reserved;
    enum pagoda_status status = pgd_reserve_plan(options, layers, count, trained, &reserved, error);
    if (status != PAGODA_OK) {
        return status;
    }
    bridge->fallback = reserved.fallback;
    if (options->is_wish && bridge->fallback.status == PAGODA_OK) {
        bridge->fallback.status = open_wished(bridge, options, &reserved.cache, &bridge->fallback);
        if (bridge->fallback.status == PAGODA_OK) {
            return PAGODA_OK;
        }
    }
    const struct pgd_bridge_options plain = pgd_reserve_otherwise(options);
    status = check_gaps(bridge, &plain, error);
    if (status == PAGODA_OK) {
        status = pgd_reserve_plan(&plain, layers, count, trained, &reserved, error);
    }
    return status == PAGODA_OK ? pagoda_cache_open(&reserved.cache, &bridge->cache, error) : status;
}

static enum pagoda_status open_cache(struct pgd_bridge *bridge, const struct pgd_bridge_options *options,
                                     struct pagoda_error *error)
{
    const uint32_t count = pgd_hook_layer_count(bridge->hook);
    const uint64_t trained = pgd_model_get_info(bridge->model)->trained_tokens;
    struct pgd_bridge_options bounded = *options;
    struct pagoda_layer *layers = calloc(count, sizeof(*layers));
    if (layers == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u layers", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        layers[i] = pgd_hook_layer(bridge->hook, i)->shape;
    }
    enum pagoda_status status = PAGODA_OK;
    if (options->process_bytes != 0) {
        status = bound_by_process(bridge, layers, count, trained, &bounded, error);
    }
    if (status == PAGODA_OK) {
        status = open_planned(bridge, &bounded, layers, count, error);
    }
    free(layers);
    return status;
}

/* llama's own KV buffer was used by the probes and never will be again: its memory goes back. */
static void release_stock_cache(struct pgd_bridge *bridge)
{
    for (uint32_t i = 0; i < pgd_hook_layer_count(bridge->hook); i++) {
        const struct pgd_hook_layer *layer = pgd_hook_layer(bridge->hook, i);
        for (int side = 0; side < 2; side++) {
            pgd_os_discard(layer->cache_memory[side], layer->cache_memory_bytes[side]);
        }
    }
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static enum pagoda_status open_parts(struct pgd_bridge *bridge, const struct pgd_bridge_options *options,
                                     struct pagoda_error *error)
{
    enum pagoda_status status = pgd_hook_open(&bridge->hook, error);
    if (status == PAGODA_OK) {
        status = open_context(bridge, error);
    }
    if (status == PAGODA_OK) {
        status = pgd_probe_layers(bridge->context, bridge->model, bridge->hook, error);
    }
    bridge->process_bytes = measure_process(bridge);
    if (status == PAGODA_OK) {
        status = open_cache(bridge, options, error);
    }
    if (status == PAGODA_OK) {
        status = pgd_probe_canary(bridge->context, bridge->model, bridge->hook, bridge->cache, bridge->threads,
                                  bridge->threads_batch, error);
    }
    if (status == PAGODA_OK && options->is_governed) {
        const struct pgd_pressure_options pressure = {.root = options->system_root, .system = options->system};
        status = pgd_pressure_open(bridge->cache, &pressure, &bridge->pressure, error);
    }
    return status;
}

enum pagoda_status pgd_bridge_open(const struct pgd_model *model, const struct pgd_bridge_options *options,
                                   struct pgd_bridge **out, struct pagoda_error *error)
{
    struct pgd_bridge *bridge = calloc(1, sizeof(*bridge));
    if (bridge == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the engine");
    }
    bridge->model = model;
    bridge->threads = pgd_reserve_threads(options);
    bridge->threads_batch = or_default(options->threads_batch, bridge->threads);
    bridge->outputs_max = or_default(options->outputs_max, 1);
    bridge->keeps_tokens = options->counts_draws;
    enum pagoda_status status = PAGODA_OK;
    if (bridge->threads > PAGODA_THREADS_MAX || bridge->threads_batch > PAGODA_THREADS_MAX ||
        bridge->outputs_max > PGD_BRIDGE_BATCH) {
        status = pgd_fail(error, PAGODA_INVALID, "at most %u threads and %u rows of logits are possible",
                          PAGODA_THREADS_MAX, PGD_BRIDGE_BATCH);
    } else {
        status = open_parts(bridge, options, error);
    }
    if (status != PAGODA_OK) {
        pgd_bridge_close(bridge);
        return status;
    }
    release_stock_cache(bridge);
    *out = bridge;
    return PAGODA_OK;
}

void pgd_bridge_close(struct pgd_bridge *bridge)
{
    if (bridge == NULL) {
        return;
    }
    if (bridge->context != NULL) {
        llama_free(bridge->context);
    }
    if (bridge->batch.token != NULL) {
        llama_batch_free(bridge->batch);
    }
    if (bridge->pool_batch != NULL && bridge->pool_batch != bridge->pool) {
        ggml_threadpool_free(bridge->pool_batch);
    }
    if (bridge->pool != NULL) {
        ggml_threadpool_free(bridge->pool);
    }
    pgd_pressure_close(bridge->pressure);
    pagoda_cache_close(bridge->cache);
    pgd_hook_close(bridge->hook);
    free(bridge->tokens);
    free(bridge);
}

struct pagoda_cache *pgd_bridge_cache(struct pgd_bridge *bridge)
{
    return bridge->cache;
}

enum pagoda_on_full pgd_bridge_on_full(const struct pgd_bridge *bridge)
{
    return bridge->cache->on_full;
}

const char *pgd_bridge_fallback(const struct pgd_bridge *bridge)
{
    return bridge->fallback.status == PAGODA_OK ? NULL : bridge->fallback.message;
}

const struct pgd_model *pgd_bridge_model(const struct pgd_bridge *bridge)
{
    return bridge->model;
}

/* ---- decoding ---- */

static void fill_batch(struct pgd_bridge *bridge, const int32_t *tokens, uint32_t count, uint32_t outputs)
{
    const uint64_t position = pagoda_cache_position(bridge->cache);
    struct llama_batch *batch = &bridge->batch;
    batch->n_tokens = (int32_t) count;
    for (uint32_t i = 0; i < count; i++) {
        batch->token[i] = tokens[i];
        batch->pos[i] = (llama_pos) (position + i);
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i] = i + outputs >= count;
    }
}

/* Runs the filled batch; on failure the cache's batch has been aborted. */
static enum pagoda_status run_batch(struct pgd_bridge *bridge, struct pagoda_error *error)
{
    const uint32_t count = (uint32_t) bridge->batch.n_tokens;
    pgd_hook_begin(bridge->hook);
    llama_memory_clear(llama_get_memory(bridge->context), false);
    bridge->interrupted = false;
    bridge->may_interrupt = bridge->pressure != NULL && pgd_pressure_is_long(bridge->pressure, count);
    const int result = llama_decode(bridge->context, bridge->batch);
    if (bridge->interrupted) {
        pagoda_cache_abort(bridge->cache);
        return pgd_fail(error, PAGODA_BUSY, "memory is needed elsewhere: read fewer tokens at once");
    }
    if (atomic_exchange(&bridge->cancel, false)) {
        pagoda_cache_abort(bridge->cache);
        return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
    }
    if (result != 0) {
        pagoda_cache_abort(bridge->cache);
        return pgd_fail(error, result == -2 ? PAGODA_NOMEM : PAGODA_INVALID,
                        "the engine could not read %u tokens (code %d)", count, result);
    }
    enum pagoda_status status =
        pgd_hook_check(bridge->hook, count == 1 ? bridge->threads : bridge->threads_batch, error);
    if (status != PAGODA_OK) {
        pagoda_cache_abort(bridge->cache);
        bridge->poisoned = true;
        return status;
    }
    return pagoda_cache_end(bridge->cache, error);
}

static bool tokens_are_known(const struct pgd_bridge *bridge, const int32_t *tokens, uint32_t count)
{
    const uint32_t vocabulary = pgd_model_get_info(bridge->model)->vocabulary;
    for (uint32_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint32_t) tokens[i] >= vocabulary) {
            return false;
        }
    }
    return true;
}

/* Notes what is about to be read behind what was; a decode that fails leaves nothing that anybody looks at. */
static enum pagoda_status keep_tokens(struct pgd_bridge *bridge, const int32_t *tokens, uint32_t count,
                                      struct pagoda_error *error)
{
    const uint64_t position = pagoda_cache_position(bridge->cache);
    if (!bridge->keeps_tokens) {
        return PAGODA_OK;
    }
    if (position + count > bridge->tokens_room) {
        const uint64_t room = 2 * (position + count);
        int32_t *larger = realloc(bridge->tokens, room * sizeof(*larger));
        if (larger == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for the numbers of %llu tokens", (unsigned long long) room);
        }
        bridge->tokens = larger;
        bridge->tokens_room = room;
    }
    memcpy(bridge->tokens + position, tokens, count * sizeof(*tokens));
    return PAGODA_OK;
}

const int32_t *pgd_bridge_tokens(const struct pgd_bridge *bridge)
{
    return bridge->tokens;
}

static void note_batch(struct pgd_bridge *bridge, uint32_t count, double seconds)
{
    if (bridge->pressure != NULL) {
        pgd_pressure_note_batch(bridge->pressure, count, seconds);
    }
}

uint32_t pgd_bridge_batch_now(const struct pgd_bridge *bridge)
{
    const uint32_t most = bridge->pressure != NULL ? pgd_pressure_batch(bridge->pressure) : PGD_BRIDGE_BATCH;
    return (uint32_t) pgd_min_u64(most, PGD_BRIDGE_BATCH);
}

enum pagoda_status pgd_bridge_decode(struct pgd_bridge *bridge, const int32_t *tokens, uint32_t count, uint32_t outputs,
                                     struct pagoda_error *error)
{
    if (bridge->poisoned) {
        return pgd_fail(error, PAGODA_POISONED, "the engine failed before and cannot go on");
    }
    if (count == 0 || count > PGD_BRIDGE_BATCH || outputs > bridge->outputs_max || outputs > count ||
        !tokens_are_known(bridge, tokens, count)) {
        return pgd_fail(error, PAGODA_INVALID,
                        "a decode takes 1 to %u known tokens and gives at most %u rows of logits", PGD_BRIDGE_BATCH,
                        bridge->outputs_max);
    }
    bridge->last_outputs = 0;
    const double start = pgd_os_seconds();
    double decode_start = start;
    if (bridge->pressure != NULL) {
        pgd_pressure_poll(bridge->pressure);
    }
    enum pagoda_status status = keep_tokens(bridge, tokens, count, error);
    if (status == PAGODA_OK) {
        status = pagoda_cache_begin(bridge->cache, count, error);
    }
    if (status == PAGODA_OK) {
        fill_batch(bridge, tokens, count, outputs);
        decode_start = pgd_os_seconds();
        status = run_batch(bridge, error);
    }
    if (status == PAGODA_OK) {
        bridge->last_count = count;
        bridge->last_outputs = outputs;
        note_batch(bridge, count, pgd_os_seconds() - decode_start);
    }
    if (bridge->watcher.decoded != NULL) {
        bridge->watcher.decoded(bridge->watcher.user, count, pgd_os_seconds() - start, status);
    }
    return status;
}

void pgd_bridge_watch(struct pgd_bridge *bridge, const struct pgd_bridge_watcher *watcher)
{
    bridge->watcher = watcher != NULL ? *watcher : (struct pgd_bridge_watcher) {.decoded = NULL};
}

const float *pgd_bridge_logits(struct pgd_bridge *bridge, uint32_t index)
{
    if (index >= bridge->last_outputs) {
        return NULL;
    }
    return llama_get_logits_ith(bridge->context, (int32_t) (bridge->last_count - bridge->last_outputs + index));
}

void pgd_bridge_cancel(struct pgd_bridge *bridge)
{
    atomic_store(&bridge->cancel, true);
}

void pgd_bridge_rest(struct pgd_bridge *bridge)
{
    ggml_threadpool_pause(bridge->pool);
    if (bridge->pool_batch != bridge->pool) {
        ggml_threadpool_pause(bridge->pool_batch);
    }
}

struct pgd_pressure *pgd_bridge_pressure(struct pgd_bridge *bridge)
{
    return bridge->pressure;
}

uint32_t pgd_bridge_layer_count(const struct pgd_bridge *bridge)
{
    return pgd_hook_layer_count(bridge->hook);
}

const struct pagoda_layer *pgd_bridge_layer(const struct pgd_bridge *bridge, uint32_t index)
{
    return &pgd_hook_layer(bridge->hook, index)->shape;
}

void pgd_bridge_memory(const struct pgd_bridge *bridge, struct pgd_bridge_memory *memory)
{
    memory->weights_bytes = pgd_model_get_info(bridge->model)->weights_bytes;
    memory->compute_bytes = bridge->compute_bytes;
    memory->process_bytes = bridge->process_bytes;
}
