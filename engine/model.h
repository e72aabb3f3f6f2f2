/* engine/model.h - a GGUF model, opened with clear refusals, and its vocabulary.
 *
 * Only engine/ sees llama.h. A struct pgd_model may serve several bridges, one after the other or in
 * several threads; it is immutable once open.
 */
#ifndef PGD_ENGINE_MODEL_H
#define PGD_ENGINE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pagoda/status.h"

struct pgd_model;
struct llama_model;

struct pgd_model_options {
    bool copy_weights; /* read the weights into memory of our own instead of mapping the file (--no-mmap) */
    bool (*progress)(void *user, float fraction); /* false cancels; may be NULL */
    void *user;
};

struct pgd_model_info {
    char name[128];        /* general.name, or the file's name */
    char architecture[64]; /* general.architecture */
    char description[128]; /* size and file type as llama.cpp words them */
    uint32_t layers;
    uint32_t trained_tokens; /* context length of the training */
    uint32_t vocabulary;
    uint32_t window; /* sliding window of the layers that have one; 0: none have */
    uint64_t parameters;
    uint64_t weights_bytes;
    uint64_t mapped_bytes; /* of the weights: the file's own pages, which the system can drop and read again */
    uint64_t file_bytes;
    bool has_chat_template;
};

/* Opens a GGUF file. Errors, each with its own message: NOT_FOUND (no such file), INVALID (a directory),
 * IO (unreadable), CORRUPT (not a GGUF file, cut short, damaged), UNSUPPORTED (embedding, encoder,
 * recurrent, hybrid or diffusion models, and architectures whose attention cannot be hosted), NOMEM, CANCELLED.
 * The library's own log lines never reach the terminal; the last of them are used in the message. */
PAGODA_MUST_CHECK enum pagoda_status pgd_model_open(const char *path, const struct pgd_model_options *options,
                                                    struct pgd_model **model, struct pagoda_error *error);
void pgd_model_close(struct pgd_model *model);

/* The version of the llama.cpp that is linked: "0.5.0", or "unknown" when its build did not say. */
const char *pgd_model_library_version(void);

const struct pgd_model_info *pgd_model_get_info(const struct pgd_model *model);
struct llama_model *pgd_model_llama(const struct pgd_model *model);

/* Splits `text` into tokens: *tokens is malloc'ed, the caller frees it. `add_special` adds what the
 * model wants at the start (BOS); `parse_special` reads "<|im_start|>" and the like as one token.
 * Text may hold NUL bytes and invalid UTF-8 (each such byte becomes U+FFFD). Errors: NOMEM, LIMIT (> 2^31 bytes). */
PAGODA_MUST_CHECK enum pagoda_status pgd_model_tokenize(const struct pgd_model *model, const char *text, size_t bytes,
                                                        bool add_special, bool parse_special, int32_t **tokens,
                                                        size_t *count, struct pagoda_error *error);

/* Bytes of one token, not terminated, possibly a part of a UTF-8 sequence. Returns their number (at most
 * PGD_PIECE_BYTES_MAX). `special` shows control tokens too. */
#define PGD_PIECE_BYTES_MAX 512u
size_t pgd_model_piece(const struct pgd_model *model, int32_t token, bool special, char *bytes);

/* Bytes of the text that tokens make, control tokens shown. */
size_t pgd_model_text_bytes(const struct pgd_model *model, const int32_t *tokens, size_t count);

/* Whether the token ends a reply (end of sequence, end of turn). */
bool pgd_model_is_end(const struct pgd_model *model, int32_t token);

#endif
