/* cli/eval_texts.h - the texts that `eval` measures on: found, read, and cut into documents and filler.
 *
 * Ownership: the list owns the bytes, paths point into the options or the list; documents own their tokens.
 */
#ifndef PGD_CLI_EVAL_TEXTS_H
#define PGD_CLI_EVAL_TEXTS_H

#include <stddef.h>
#include <stdint.h>

#include "cli/buffer.h"
#include "cli/options.h"
#include "engine/model.h"

#define PGD_EVAL_PATH_BYTES 1024u

struct pgd_eval_text {
    char path[PGD_EVAL_PATH_BYTES];
    struct pgd_buffer bytes; /* valid UTF-8 */
};

struct pgd_eval_texts {
    struct pgd_eval_text items[PGD_LIST_MAX];
    uint32_t count;
};

/* Reads the texts of --text; when there are none, those of `make texts`: below build/texts here, or beside the
 * program. Errors: INVALID (none found, empty, NUL bytes), and those of pgd_input_read_file. */
PGD_MUST_CHECK enum pagoda_status pgd_eval_texts_read(const struct pgd_options *options, struct pgd_eval_texts *texts,
                                                      struct pagoda_error *error);
void pgd_eval_texts_free(struct pgd_eval_texts *texts);

/* The name of a text without its folders. */
const char *pgd_eval_text_name(const struct pgd_eval_text *text);

struct pgd_eval_document {
    uint32_t text;
    size_t offset; /* where it starts, in bytes */
    int32_t *tokens;
    size_t count;
};

/* Document `index` of `documents`, of `wanted` tokens. The texts take turns; what is cut from one text comes from
 * equal parts of it, from the middle of each, and never overlaps. Errors: INVALID when the part is too short. */
PGD_MUST_CHECK enum pagoda_status pgd_eval_texts_cut(const struct pgd_eval_texts *texts, const struct pgd_model *model,
                                                     uint32_t index, uint32_t documents, uint64_t wanted,
                                                     struct pgd_eval_document *document, struct pagoda_error *error);

/* The rest of the text from the first start of a line at or after `share` (0 .. 1) of it. */
const char *pgd_eval_text_from(const struct pgd_eval_text *text, double share, size_t *bytes);

#endif
