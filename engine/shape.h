/* engine/shape.h - which memory each layer of a model keeps for a conversation, by its header alone.
 *
 * Heads that differ from layer to layer, keys and values of sizes of their own, sliding windows in the pattern of the
 * architecture, latent vectors (MLA), and states that do not grow. What the engine finds out from the graph at every
 * start (probe.h) must be the same; where the two could differ, nothing is guessed: an architecture that is not known
 * is refused.
 *
 * Ownership: plain data. Threads: any.
 */
#ifndef PGD_ENGINE_SHAPE_H
#define PGD_ENGINE_SHAPE_H

#include "engine/header.h"

struct pgd_shape_layer {
    uint32_t kv_heads; /* 0: it keeps no keys and values of its own */
    uint32_t query_heads;
    uint32_t key_size;
    uint32_t value_size;    /* 0: keys and values are one latent vector of key_size */
    uint32_t window;        /* 0: sees everything */
    uint32_t rotated_pairs; /* of a key; 0: it does not rotate */
    bool rotates_apart;     /* at another pace than layers without a window */
    bool has_sinks;
    uint64_t state_bytes; /* what it keeps that does not grow */
};

struct pgd_shape {
    char name[128];
    char architecture[64];
    const char *refusal; /* why the engine cannot run it; NULL: it can, as far as the header tells */
    uint32_t layer_count;
    uint32_t trained_tokens; /* 0: not known */
    uint32_t embedding;
    uint32_t feed_forward; /* of the widest layer; of one expert, when there are experts ... */
    uint32_t experts_used; /* ... of which a token uses so many; 0: there are none */
    uint64_t vocabulary;
    uint64_t weights_bytes;
    uint64_t copied_bytes;  /* of those that libllama keeps a second time, in a layout for this processor */
    uint64_t program_bytes; /* what the program and the model's tokenizer take, about */
    uint64_t file_bytes;
    struct pgd_shape_layer layers[PGD_HEADER_LAYERS_MAX];
};

/* Errors: CORRUPT (a number is missing or makes no sense), UNSUPPORTED (the architecture is not known, or is none that
 * continues text). `path` is for messages. */
PAGODA_MUST_CHECK enum pagoda_status pgd_shape_of(const char *path, const struct pgd_header *header,
                                                  struct pgd_shape *shape, struct pagoda_error *error);

/* Bytes of the K and V rows of one token in this layer, in f16. */
uint64_t pgd_shape_row_bytes(const struct pgd_shape_layer *layer);

#endif
