/* engine/graph.h - reading attention out of a ggml graph: what a node is, and what it needs.
 *
 * Nodes are recognised by operation and structure, never by their own names (those changed between
 * llama.cpp versions). The one name relied on is that of the cache tensors behind the views,
 * "cache_k_l<layer>" and "cache_v_l<layer>".
 *
 * Ownership: everything points into the graph; nothing is kept. Threads: pure readers.
 */
#ifndef PGD_ENGINE_GRAPH_H
#define PGD_ENGINE_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "pagoda/status.h"

struct ggml_tensor;

/* RoPE as a graph applies it to the queries of one layer. */
enum pgd_graph_rope_kind {
    PGD_GRAPH_ROPE_NONE,   /* this layer does not rotate */
    PGD_GRAPH_ROPE_PLAIN,  /* one angle per pair, linear in the position: can be undone by a rotation */
    PGD_GRAPH_ROPE_UNKNOWN /* something else (multi-axis, offsets, unknown operations on the way) */
};

#define PGD_GRAPH_PAIRS_MAX 512u

struct pgd_graph_rope {
    enum pgd_graph_rope_kind kind;
    bool split_pairs;
    uint32_t pair_count;
    double frequencies[PGD_GRAPH_PAIRS_MAX]; /* radians per position */
};

/* The layer number in "cache_k_l<n>" (keys) or "cache_v_l<n>" (values) of a cache tensor; -1 for others. */
int32_t pgd_graph_cache_layer(const struct ggml_tensor *cache, bool keys);

/* The cache layer that a SET_ROWS node writes; -1 when it is no such node. *keys tells which side. */
int32_t pgd_graph_write_layer(const struct ggml_tensor *node, bool *keys);

/* The cache layer that a FLASH_ATTN_EXT node reads keys from; -1 when it is no such node. */
int32_t pgd_graph_attention_layer(const struct ggml_tensor *node);

/* Why an attention node cannot be served, or NULL: batch dimensions, types, MLA (values that are a view
 * of the keys), ALiBi, values of another layer. */
const char *pgd_graph_attention_problem(const struct ggml_tensor *node);

/* Walks back from an attention node's queries to the ROPE node that rotated them. The data of frequency factors must
 * be there. */
void pgd_graph_read_rope(const struct ggml_tensor *node, struct pgd_graph_rope *rope);

/* Whether the mask of an attention node hides key `key` from query `query`: only in the ask pass, when
 * inputs are set. */
bool pgd_graph_mask_hides(const struct ggml_tensor *node, int64_t query, int64_t key);

#endif
