/* engine/hook.h - the eval callback: watches the graph, or puts pagoda's operations into it.
 *
 * Modes
 *   OBSERVE  the stock operations run; the shape of every attention layer is read.
 *   SHADOW   the stock operations run, and each layer's result is compared with pagoda's on the same
 *            inputs (the canary's first half).
 *   SERVE    cache writes and attention are rewritten: libllama's scheduler asks about every node before
 *            it computes any, and a node whose op is GGML_OP_CUSTOM by then is run by ggml-cpu on all its
 *            threads with a barrier behind it. Rewritten nodes stay rewritten while a graph is reused.
 *
 * Invariant: in SERVE every attention layer is written once per side and attended once per decode;
 * pgd_hook_check tells after each decode.
 *
 * Threads: modes are changed, and results read, by the thread that calls llama_decode, between decodes.
 */
#ifndef PGD_ENGINE_HOOK_H
#define PGD_ENGINE_HOOK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/graph.h"
#include "pagoda/pagoda.h"

struct pgd_hook;

enum pgd_hook_mode { PGD_HOOK_OBSERVE, PGD_HOOK_SHADOW, PGD_HOOK_SERVE };

/* An attention layer as OBSERVE found it. */
struct pgd_hook_layer {
    int32_t number;            /* llama's number of the layer */
    struct pagoda_layer shape; /* frequencies and sinks point into this struct and the model */
    struct pgd_graph_rope rope;
    bool mask_hides[2][4]; /* for the window probe: does the mask of query 0, 1 hide cells 0..3? */
    void *cache_memory[2]; /* llama's own K and V tensors of this layer */
    size_t cache_memory_bytes[2];
    float shadow_error; /* largest |pagoda - stock| / largest |stock| of SHADOW */
};

PAGODA_MUST_CHECK enum pagoda_status pgd_hook_open(struct pgd_hook **hook, struct pagoda_error *error);
void pgd_hook_close(struct pgd_hook *hook);

/* For llama_context_params.cb_eval; `user` is the hook. */
bool pgd_hook_callback(struct ggml_tensor *node, bool ask, void *user);

void pgd_hook_set_mode(struct pgd_hook *hook, enum pgd_hook_mode mode);

/* The cache that SHADOW and SERVE use. */
void pgd_hook_set_cache(struct pgd_hook *hook, struct pagoda_cache *cache);

/* Forgets what the last decode did; call before each. */
void pgd_hook_begin(struct pgd_hook *hook);

/* Whether the last decode went as it must: no unknown node, every layer served once by `threads` threads. */
PAGODA_MUST_CHECK enum pagoda_status pgd_hook_check(struct pgd_hook *hook, uint32_t threads,
                                                    struct pagoda_error *error);

uint32_t pgd_hook_layer_count(const struct pgd_hook *hook);
struct pgd_hook_layer *pgd_hook_layer(struct pgd_hook *hook, uint32_t index);

#endif
