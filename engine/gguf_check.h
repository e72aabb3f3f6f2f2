/* engine/gguf_check.h - looks at a GGUF file before libllama gets it, so that what is wrong with it can be
 * said plainly and costs no time: missing, empty, something else, cut short, or a model of a kind that
 * pagoda cannot run.
 *
 * Reads the header only (gguf_read.h), that of every part. Text that goes into messages has its control characters
 * taken out.
 *
 * Threads: any.
 */
#ifndef PGD_ENGINE_GGUF_CHECK_H
#define PGD_ENGINE_GGUF_CHECK_H

#include <stdint.h>

#include "pagoda/status.h"

struct pgd_gguf_facts {
    char name[128];        /* general.name, or "" */
    char architecture[64]; /* general.architecture */
    uint64_t file_bytes;   /* of all parts, when the model is split into several files */
};

/* Errors: NOT_FOUND, INVALID (a directory, a part that is not the first), IO, CORRUPT, UNSUPPORTED. */
PAGODA_MUST_CHECK enum pagoda_status pgd_gguf_check(const char *path, struct pgd_gguf_facts *facts,
                                                    struct pagoda_error *error);

/* Its two halves, for a header that was read already. Whether it is that of a model at all: CORRUPT, UNSUPPORTED. */
struct pgd_header;
PAGODA_MUST_CHECK enum pagoda_status pgd_gguf_check_header(const char *path, const struct pgd_header *header,
                                                           struct pagoda_error *error);

/* Why a model of this kind cannot be run, or NULL. */
const char *pgd_gguf_refusal(const struct pgd_header *header);

#endif
