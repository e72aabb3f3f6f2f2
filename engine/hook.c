/* engine/hook.c - see hook.h. The operations at the end run on ggml's threads; all else on the caller's. */
#include "engine/hook.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "ggml.h"

/* What a rewritten node does. One per (layer, kind), at a fixed address: it is the node's userdata. */
enum op_kind { OP_KEYS = PAGODA_KEYS, OP_VALUES = PAGODA_VALUES, OP_ATTEND, OP_KINDS };

struct hook_op {
    struct pgd_hook *hook;
    uint32_t layer;
    enum op_kind kind;
    atomic_uint calls; /* by threads, in this decode */
};

struct pgd_hook {
    enum pgd_hook_mode mode;
    struct pagoda_cache *cache;
    uint32_t layer_count;
    struct pgd_hook_layer layers[PAGODA_LAYERS_MAX];
    struct hook_op ops[PAGODA_LAYERS_MAX][OP_KINDS];
    atomic_int status; /* first failure of an operation */
    char problem[256]; /* first structural problem, empty when none */
    float *rows;       /* SHADOW: one layer's rows as f32, grown as needed */
    size_t rows_floats;
};

enum pagoda_status pgd_hook_open(struct pgd_hook **out, struct pagoda_error *error)
{
    struct pgd_hook *hook = calloc(1, sizeof(*hook));
    if (hook == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the engine's hook");
    }
    for (uint32_t layer = 0; layer < PAGODA_LAYERS_MAX; layer++) {
        for (int kind = 0; kind < OP_KINDS; kind++) {
            hook->ops[layer][kind].hook = hook;
            hook->ops[layer][kind].layer = layer;
            hook->ops[layer][kind].kind = (enum op_kind) kind;
        }
    }
    *out = hook;
    return PAGODA_OK;
}

void pgd_hook_close(struct pgd_hook *hook)
{
    if (hook != NULL) {
        free(hook->rows);
        free(hook);
    }
}

void pgd_hook_set_mode(struct pgd_hook *hook, enum pgd_hook_mode mode)
{
    hook->mode = mode;
}

void pgd_hook_set_cache(struct pgd_hook *hook, struct pagoda_cache *cache)
{
    hook->cache = cache;
}

uint32_t pgd_hook_layer_count(const struct pgd_hook *hook)
{
    return hook->layer_count;
}

struct pgd_hook_layer *pgd_hook_layer(struct pgd_hook *hook, uint32_t index)
{
    return &hook->layers[index];
}

void pgd_hook_begin(struct pgd_hook *hook)
{
    atomic_store(&hook->status, PAGODA_OK);
    hook->problem[0] = '\0';
    for (uint32_t layer = 0; layer < hook->layer_count; layer++) {
        for (int kind = 0; kind < OP_KINDS; kind++) {
            atomic_store(&hook->ops[layer][kind].calls, 0);
        }
    }
}

static void set_problem(struct pgd_hook *hook, int32_t layer, const char *problem)
{
    if (hook->problem[0] == '\0') {
        snprintf(hook->problem, sizeof(hook->problem), "layer %d: %s", layer, problem);
    }
}

enum pagoda_status pgd_hook_check(struct pgd_hook *hook, uint32_t threads, struct pagoda_error *error)
{
    if (hook->problem[0] != '\0') {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "this model's attention cannot be hosted: %s", hook->problem);
    }
    const enum pagoda_status status = (enum pagoda_status) atomic_load(&hook->status);
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "an attention operation failed inside the engine: %s",
                        pagoda_status_name(status));
    }
    if (hook->layer_count == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "no attention layer was found in this model's graph");
    }
    if (hook->mode != PGD_HOOK_SERVE) {
        return PAGODA_OK;
    }
    static const char *const names[OP_KINDS] = {"write of keys", "write of values", "attention"};
    for (uint32_t layer = 0; layer < hook->layer_count; layer++) {
        for (int kind = 0; kind < OP_KINDS; kind++) {
            const unsigned calls = atomic_load(&hook->ops[layer][kind].calls);
            if (calls != threads) {
                return pgd_fail(error, PAGODA_UNSUPPORTED,
                                "the engine's graph did not reach pagoda as it must: %s of layer %d was "
                                "run by %u threads instead of %u",
                                names[kind], hook->layers[layer].number, calls, threads);
            }
        }
    }
    return PAGODA_OK;
}

/* ---- observing ---- */

static struct pgd_hook_layer *find_layer(struct pgd_hook *hook, int32_t number, bool may_add)
{
    for (uint32_t i = 0; i < hook->layer_count; i++) {
        if (hook->layers[i].number == number) {
            return &hook->layers[i];
        }
    }
    if (!may_add || hook->layer_count == PAGODA_LAYERS_MAX) {
        return NULL;
    }
    struct pgd_hook_layer *layer = &hook->layers[hook->layer_count++];
    layer->number = number;
    return layer;
}

static uint32_t index_of(const struct pgd_hook *hook, const struct pgd_hook_layer *layer)
{
    return (uint32_t) (layer - hook->layers);
}

static float float_param(const struct ggml_tensor *node, int index)
{
    float value;
    memcpy(&value, &node->op_params[index], sizeof(value));
    return value;
}

static void observe_attention(struct pgd_hook *hook, const struct ggml_tensor *node, int32_t number)
{
    const char *problem = pgd_graph_attention_problem(node);
    struct pgd_hook_layer *layer = find_layer(hook, number, true);
    if (problem != NULL || layer == NULL) {
        set_problem(hook, number,
                    problem != NULL ? problem : "there are more attention layers than this version holds");
        return;
    }
    const struct ggml_tensor *q = node->src[0];
    const struct ggml_tensor *sinks = node->src[4];
    pgd_graph_read_rope(node, &layer->rope);
    layer->shape = (struct pagoda_layer) {
        .kv_heads = (uint32_t) node->src[1]->ne[2],
        .query_heads = (uint32_t) q->ne[2],
        .key_size = (uint32_t) q->ne[0],
        .value_size = (uint32_t) node->src[2]->ne[0],
        .window = layer->shape.window,
        .scale = float_param(node, 0),
        .softcap = float_param(node, 2),
        .sinks = sinks == NULL ? NULL : sinks->data,
        .rope = {.pair_count = layer->rope.pair_count,
                 .split_pairs = layer->rope.split_pairs,
                 .frequencies = layer->rope.frequencies},
    };
    for (int query = 0; query < 2; query++) {
        for (int key = 0; key < 4; key++) {
            layer->mask_hides[query][key] = pgd_graph_mask_hides(node, query, key);
        }
    }
    for (int side = 0; side < 2; side++) {
        struct ggml_tensor *cache = node->src[1 + side]->view_src;
        layer->cache_memory[side] = cache->data;
        layer->cache_memory_bytes[side] = ggml_nbytes(cache);
    }
}

/* ---- shadow ---- */

/* Room for `floats` numbers in hook->rows. */
static bool reserve_rows(struct pgd_hook *hook, size_t floats)
{
    if (floats > hook->rows_floats) {
        float *grown = realloc(hook->rows, floats * sizeof(*grown));
        if (grown == NULL) {
            return false;
        }
        hook->rows = grown;
        hook->rows_floats = floats;
    }
    return true;
}

/* The first `tokens` rows of a cache view as packed f32; NULL without memory or for another type. */
static const float *rows_as_f32(struct pgd_hook *hook, const struct ggml_tensor *view, int64_t tokens)
{
    const int64_t width = view->ne[0] * view->ne[2];
    if (view->type != GGML_TYPE_F16 || !reserve_rows(hook, (size_t) (width * tokens))) {
        return NULL;
    }
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t head = 0; head < view->ne[2]; head++) {
            const char *from = (const char *) view->data + (size_t) t * view->nb[1] + (size_t) head * view->nb[2];
            ggml_fp16_to_fp32_row((const ggml_fp16_t *) (const void *) from,
                                  hook->rows + t * width + head * view->ne[0], view->ne[0]);
        }
    }
    return hook->rows;
}

static struct pagoda_queries queries_of(const struct ggml_tensor *q)
{
    return (struct pagoda_queries) {q->data, q->nb[1] / sizeof(float), q->nb[2] / sizeof(float)};
}

static struct pagoda_outputs outputs_of(float *data, const struct ggml_tensor *node)
{
    return (struct pagoda_outputs) {data, node->nb[2] / sizeof(float), node->nb[1] / sizeof(float)};
}

static float relative_error(const float *ours, const float *theirs, int64_t count)
{
    float worst = 0;
    float largest = 1e-6f;
    for (int64_t i = 0; i < count; i++) {
        const float difference = fabsf(ours[i] - theirs[i]);
        worst = difference > worst || isnan(difference) ? difference : worst;
        largest = fmaxf(largest, fabsf(theirs[i]));
    }
    return worst / largest;
}

/* After the stock attention of a layer has run: the same inputs through pagoda, and the difference. */
static void shadow_attention(struct pgd_hook *hook, const struct ggml_tensor *node, struct pgd_hook_layer *layer)
{
    const uint32_t index = index_of(hook, layer);
    const int64_t tokens = node->src[0]->ne[1];
    enum pagoda_status status = PAGODA_OK;
    for (int side = 0; side < 2 && status == PAGODA_OK; side++) {
        const struct ggml_tensor *view = node->src[1 + side];
        const float *rows = rows_as_f32(hook, view, tokens);
        status = rows == NULL ? PAGODA_NOMEM
                              : pagoda_cache_ingest(hook->cache, index, (enum pagoda_side) side, rows,
                                                    (size_t) (view->ne[0] * view->ne[2]), 0, 1);
    }
    float *out = malloc(ggml_nbytes(node));
    const struct pagoda_queries queries = queries_of(node->src[0]);
    if (status == PAGODA_OK) {
        const struct pagoda_outputs outputs = outputs_of(out, node);
        status = out == NULL ? PAGODA_NOMEM : pagoda_cache_attend(hook->cache, index, &queries, &outputs, 0, 1);
    }
    if (status == PAGODA_OK) {
        layer->shadow_error = relative_error(out, node->data, ggml_nelements(node));
    } else {
        atomic_store(&hook->status, status);
    }
    free(out);
}

/* ---- serving ---- */

static void run_op(struct ggml_tensor *node, int thread, int threads, void *user)
{
    struct hook_op *op = user;
    struct pgd_hook *hook = op->hook;
    atomic_fetch_add_explicit(&op->calls, 1, memory_order_relaxed);
    enum pagoda_status status;
    if (op->kind == OP_ATTEND) {
        const struct pagoda_queries queries = queries_of(node->src[0]);
        const struct pagoda_outputs outputs = outputs_of(node->data, node);
        status = pagoda_cache_attend(hook->cache, op->layer, &queries, &outputs, (uint32_t) thread, (uint32_t) threads);
    } else {
        const struct ggml_tensor *rows = node->src[0];
        status = pagoda_cache_ingest(hook->cache, op->layer, (enum pagoda_side) op->kind, rows->data,
                                     rows->nb[1] / sizeof(float), (uint32_t) thread, (uint32_t) threads);
    }
    if (status != PAGODA_OK) {
        atomic_store(&hook->status, status);
    }
}

/* Same layout as ggml's own descriptor of a custom operation, which is not in a public header. */
struct custom_op {
    ggml_custom_op_t run;
    int threads;
    void *user;
};
_Static_assert(sizeof(struct custom_op) <= GGML_MAX_OP_PARAMS, "a node has room for the descriptor");

static void rewrite(struct ggml_tensor *node, struct hook_op *op)
{
    const struct custom_op custom = {run_op, GGML_N_TASKS_MAX, op};
    node->op = GGML_OP_CUSTOM;
    memset(node->op_params, 0, sizeof(node->op_params));
    memcpy(node->op_params, &custom, sizeof(custom));
}

static void serve_write(struct pgd_hook *hook, struct ggml_tensor *node, int32_t number, bool keys)
{
    struct pgd_hook_layer *layer = find_layer(hook, number, false);
    if (layer == NULL) {
        set_problem(hook, number, "its cache is written but was not there when the model was examined");
        return;
    }
    const struct ggml_tensor *rows = node->src[0];
    const uint32_t width = layer->shape.kv_heads * (keys ? layer->shape.key_size : layer->shape.value_size);
    if (rows->type != GGML_TYPE_F32 || rows->nb[0] != sizeof(float) || rows->ne[0] != width || rows->ne[2] != 1) {
        set_problem(hook, number, "its keys or values come in a shape that this version does not know");
        return;
    }
    rewrite(node, &hook->ops[index_of(hook, layer)][keys ? OP_KEYS : OP_VALUES]);
}

static void serve_attention(struct pgd_hook *hook, struct ggml_tensor *node, int32_t number)
{
    const struct pgd_hook_layer *layer = find_layer(hook, number, false);
    if (layer == NULL || node->src[0]->ne[0] != layer->shape.key_size ||
        node->src[0]->ne[2] != layer->shape.query_heads) {
        set_problem(hook, number, "its attention is not the one that was examined");
        return;
    }
    rewrite(node, &hook->ops[index_of(hook, layer)][OP_ATTEND]);
}

/* ---- the callback ---- */

/* SHADOW needs the results of attention nodes: those are asked for. */
static bool shadow_callback(struct pgd_hook *hook, struct ggml_tensor *node, bool ask)
{
    const int32_t number = pgd_graph_attention_layer(node);
    struct pgd_hook_layer *layer = number < 0 ? NULL : find_layer(hook, number, false);
    if (layer == NULL) {
        return false;
    }
    if (!ask) {
        shadow_attention(hook, node, layer);
    }
    return true;
}

bool pgd_hook_callback(struct ggml_tensor *node, bool ask, void *user)
{
    struct pgd_hook *hook = user;
    if (hook->mode == PGD_HOOK_SHADOW) {
        return shadow_callback(hook, node, ask);
    }
    if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        const int32_t number = pgd_graph_attention_layer(node);
        if (number < 0) {
            set_problem(hook, -1, "an attention node does not read a KV cache");
        } else if (hook->mode == PGD_HOOK_OBSERVE) {
            observe_attention(hook, node, number);
        } else {
            serve_attention(hook, node, number);
        }
    } else if (node->op == GGML_OP_SET_ROWS && hook->mode == PGD_HOOK_SERVE) {
        bool keys = false;
        const int32_t number = pgd_graph_write_layer(node, &keys);
        if (number >= 0) {
            serve_write(hook, node, number, keys);
        }
    }
    return false;
}
