/* engine/graph.c - see graph.h. */
#include "engine/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ggml.h"

/* Parameters of a ROPE node, as ggml.c lays them out in op_params. */
enum {
    ROPE_DIMS = 1,
    ROPE_MODE = 2,
    ROPE_CONTEXT = 4,
    ROPE_BASE = 5,
    ROPE_SCALE = 6,
    ROPE_EXT = 7,
    ROPE_BETA_FAST = 9,
    ROPE_BETA_SLOW = 10,
    ROPE_OFFSET = 15
};

static float float_param(const struct ggml_tensor *node, int index)
{
    float value;
    memcpy(&value, &node->op_params[index], sizeof(value));
    return value;
}

int32_t pgd_graph_cache_layer(const struct ggml_tensor *cache, bool keys)
{
    int layer = -1;
    int used = 0;
    if (cache == NULL || sscanf(cache->name, keys ? "cache_k_l%d%n" : "cache_v_l%d%n", &layer, &used) != 1 ||
        cache->name[used] != '\0') {
        return -1;
    }
    return layer;
}

/* The tensor whose memory `view` looks at. */
static const struct ggml_tensor *storage_of(const struct ggml_tensor *view)
{
    return view == NULL ? NULL : view->view_src != NULL ? view->view_src : view;
}

int32_t pgd_graph_write_layer(const struct ggml_tensor *node, bool *keys)
{
    if (node->op != GGML_OP_SET_ROWS) {
        return -1;
    }
    const struct ggml_tensor *cache = storage_of(node);
    *keys = pgd_graph_cache_layer(cache, true) >= 0;
    return pgd_graph_cache_layer(cache, *keys);
}

int32_t pgd_graph_attention_layer(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_FLASH_ATTN_EXT ? pgd_graph_cache_layer(storage_of(node->src[1]), true) : -1;
}

const char *pgd_graph_attention_problem(const struct ggml_tensor *node)
{
    const struct ggml_tensor *q = node->src[0];
    const struct ggml_tensor *k = node->src[1];
    const struct ggml_tensor *v = node->src[2];
    if (storage_of(k) == storage_of(v)) {
        return "it keeps keys and values in one latent row (MLA)";
    }
    if (pgd_graph_cache_layer(storage_of(v), false) != pgd_graph_cache_layer(storage_of(k), true)) {
        return "its attention reads keys and values of different layers";
    }
    if (q->type != GGML_TYPE_F32 || node->type != GGML_TYPE_F32 || q->nb[0] != sizeof(float) || q->ne[3] != 1 ||
        k->ne[3] != 1 || !ggml_is_contiguous(node)) {
        return "its attention has a shape that this version does not know";
    }
    if (float_param(node, 1) != 0.0f) {
        return "it biases attention by distance (ALiBi)";
    }
    return NULL;
}

/* ---- RoPE ---- */

/* YaRN's ramp between extrapolated and interpolated dimensions (Peng et al. 2023, arXiv 2309.00071). */
static double yarn_ramp(float low, float high, uint32_t pair)
{
    const double y = ((double) pair - low) / fmax(0.001, (double) high - low);
    return 1.0 - fmin(1.0, fmax(0.0, y));
}

static void fill_frequencies(const struct ggml_tensor *node, struct pgd_graph_rope *rope)
{
    const int dims = node->op_params[ROPE_DIMS];
    const float base = float_param(node, ROPE_BASE);
    const float scale = float_param(node, ROPE_SCALE);
    const float ext = float_param(node, ROPE_EXT);
    const float *factors = node->src[2] != NULL ? node->src[2]->data : NULL;
    float corner[2];
    ggml_rope_yarn_corr_dims(dims, node->op_params[ROPE_CONTEXT], base, float_param(node, ROPE_BETA_FAST),
                             float_param(node, ROPE_BETA_SLOW), corner);
    for (uint32_t j = 0; j < rope->pair_count; j++) {
        const double plain = pow(base, -2.0 * j / dims) / (factors != NULL ? factors[j] : 1.0f);
        const double mix = ext != 0.0f ? yarn_ramp(corner[0], corner[1], j) * ext : 0.0;
        rope->frequencies[j] = scale * plain * (1.0 - mix) + plain * mix;
    }
}

static void read_rope_node(const struct ggml_tensor *node, struct pgd_graph_rope *rope)
{
    const int mode = node->op_params[ROPE_MODE];
    const int dims = node->op_params[ROPE_DIMS];
    const bool known = (mode == 0 || mode == GGML_ROPE_TYPE_NEOX) && dims > 0 && dims % 2 == 0 &&
                       (uint32_t) dims / 2 <= PGD_GRAPH_PAIRS_MAX && node->op_params[ROPE_OFFSET] == 0 &&
                       (node->src[2] == NULL || node->src[2]->data != NULL);
    if (!known) {
        rope->kind = PGD_GRAPH_ROPE_UNKNOWN;
        return;
    }
    rope->kind = PGD_GRAPH_ROPE_PLAIN;
    rope->split_pairs = mode == GGML_ROPE_TYPE_NEOX;
    rope->pair_count = (uint32_t) dims / 2;
    fill_frequencies(node, rope);
}

void pgd_graph_read_rope(const struct ggml_tensor *node, struct pgd_graph_rope *rope)
{
    *rope = (struct pgd_graph_rope) {.kind = PGD_GRAPH_ROPE_UNKNOWN};
    const struct ggml_tensor *at = node->src[0];
    while (at != NULL) {
        switch ((int) at->op) {
        case GGML_OP_ROPE: read_rope_node(at, rope); return;
        case GGML_OP_VIEW: /* these keep, or commute with, a rotation */
        case GGML_OP_RESHAPE:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_CONT:
        case GGML_OP_SCALE:
        case GGML_OP_RMS_NORM: at = at->src[0]; break;
        case GGML_OP_MUL_MAT: /* the projection: nothing rotated on the way */
        case GGML_OP_ADD: rope->kind = PGD_GRAPH_ROPE_NONE; return;
        default: return;
        }
    }
}

/* ---- mask ---- */

bool pgd_graph_mask_hides(const struct ggml_tensor *node, int64_t query, int64_t key)
{
    const struct ggml_tensor *mask = node->src[3];
    while (mask != NULL && mask->op != GGML_OP_NONE && mask->src[0] != NULL) {
        mask = mask->src[0]; /* the input behind a cast */
    }
    if (mask == NULL || mask->data == NULL || key >= mask->ne[0] || query >= mask->ne[1]) {
        return false;
    }
    const char *row = (const char *) mask->data + (size_t) query * mask->nb[1];
    const float value = mask->type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(((const ggml_fp16_t *) (const void *) row)[key])
                                                    : ((const float *) (const void *) row)[key];
    return isinf(value);
}
