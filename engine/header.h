/* engine/header.h - what the header of a model says, as far as memory and refusals need it.
 *
 * The keys of the model's own architecture ("llama.block_count"), general ones, and the sum of its tensors, over all
 * parts of a model in several files. A key is believed only when it has the type that it should have.
 *
 * Ownership: one block of fixed size, freed by the caller. Threads: any.
 */
#ifndef PGD_ENGINE_HEADER_H
#define PGD_ENGINE_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf_read.h"
#include "pagoda/status.h"

#define PGD_HEADER_LAYERS_MAX PGD_GGUF_ITEMS_MAX /* libllama stops the whole process above this */

/* Keys below the architecture's name. */
enum pgd_key {
    PGD_KEY_LAYERS = 0,
    PGD_KEY_CONTEXT,
    PGD_KEY_EMBEDDING,
    PGD_KEY_VOCABULARY,
    PGD_KEY_FEED_FORWARD,
    PGD_KEY_HEADS,
    PGD_KEY_KV_HEADS,
    PGD_KEY_KEY_SIZE,
    PGD_KEY_VALUE_SIZE,
    PGD_KEY_KEY_SIZE_WINDOWED,
    PGD_KEY_VALUE_SIZE_WINDOWED,
    PGD_KEY_KEY_SIZE_LATENT,
    PGD_KEY_LATENT_RANK,
    PGD_KEY_ROTATED,
    PGD_KEY_ROTATED_WINDOWED,
    PGD_KEY_WINDOW,
    PGD_KEY_WINDOW_PATTERN,
    PGD_KEY_SHARED_LAYERS,
    PGD_KEY_DRAFT_LAYERS,
    PGD_KEY_RECURRENT_LAYERS,
    PGD_KEY_FULL_INTERVAL,
    PGD_KEY_SSM_CONV,
    PGD_KEY_SSM_INNER,
    PGD_KEY_SSM_STATE,
    PGD_KEY_SSM_GROUPS,
    PGD_KEY_KDA_SIZE,
    PGD_KEY_WKV_SIZE,
    PGD_KEY_TOKEN_SHIFTS,
    PGD_KEY_SHORT_CONV,
    PGD_KEY_EXPERTS,
    PGD_KEY_EXPERTS_USED,
    PGD_KEY_EXPERT_SIZE,
    PGD_KEY_POOLING,
    PGD_KEY_CAUSAL,
    PGD_KEYS
};

/* One of them: a number, or a list with one for each layer. */
struct pgd_header_key {
    bool given;
    bool wrong; /* it is there, but is no whole number below 2^32, or no list of such */
    bool is_list;
    bool is_bool;
    uint64_t count; /* of the list; may be more than are kept */
    uint32_t items[PGD_HEADER_LAYERS_MAX];
};

/* Tensors of all parts. */
struct pgd_header_tensors {
    uint64_t count;
    uint64_t bytes;
    uint64_t elements;
    uint64_t embedding_bytes; /* of the table that turns tokens into vectors */
    uint64_t embedding_rows;
    uint64_t layer_embedding_bytes; /* of the same for each layer, where there is one */
    uint64_t output_bytes;          /* 0: the embeddings are used */
    uint64_t expert_bytes;
    uint64_t copied_bytes;           /* of those that libllama keeps a second time, in a layout for this processor, but
                            * for ... */
    uint64_t embedding_copied_bytes; /* ... the embeddings, which it does if they are the output matrix as well */
};

struct pgd_header {
    char type[32]; /* general.type */
    char name[128];
    char architecture[64];
    uint32_t split_count;
    uint32_t split_number;
    uint64_t vocabulary; /* tokens of the tokenizer's list */
    uint64_t merges;
    uint64_t file_bytes;
    struct pgd_header_key keys[PGD_KEYS];
    struct pgd_header_tensors tensors;
};

/* Reads the header of the file at `path`, and of its further parts; the caller frees *header. Errors: those of
 * pgd_gguf_read_file, INVALID (a part that is not the first, or is not named like one), NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_header_open(const char *path, struct pgd_header **header,
                                                     struct pagoda_error *error);

/* The same from any source, which is all of the model. */
PAGODA_MUST_CHECK enum pagoda_status pgd_header_read(const struct pgd_gguf_source *source, struct pgd_header *header,
                                                     struct pagoda_error *error);

/* A single number, or `otherwise` when the key is not there or not to be believed. */
uint32_t pgd_header_number(const struct pgd_header *header, enum pgd_key key, uint32_t otherwise);

/* The number of layer `index`: of the list, or the one for all. false: neither is there. */
PAGODA_MUST_CHECK bool pgd_header_item(const struct pgd_header *header, enum pgd_key key, uint32_t index,
                                       uint32_t *number);

/* The name of a key behind the architecture's: "attention.head_count". */
const char *pgd_header_key_name(enum pgd_key key);

#endif
