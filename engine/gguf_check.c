/* engine/gguf_check.c - see gguf_check.h. */
#include "engine/gguf_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/architecture.h"
#include "engine/header.h"

static enum pagoda_status refuse(const char *path, const char *architecture, const char *reason,
                                 struct pagoda_error *error)
{
    return pgd_fail(error, PAGODA_UNSUPPORTED, "%s is a model of the kind '%s', which cannot be run: %s", path,
                    architecture, reason);
}

/* The structure of the graph is checked again when the model is set up; this is here to refuse before gigabytes are
 * read, and with a reason. */
const char *pgd_gguf_refusal(const struct pgd_header *header)
{
    const struct pgd_architecture *architecture = pgd_architecture_find(header->architecture);
    if (architecture != NULL && architecture->reason != NULL) {
        return architecture->reason;
    }
    const struct pgd_header_key *causal = &header->keys[PGD_KEY_CAUSAL];
    const bool looks_ahead = causal->given && causal->is_bool && pgd_header_number(header, PGD_KEY_CAUSAL, 1) == 0;
    if (looks_ahead || pgd_header_number(header, PGD_KEY_POOLING, 0) != 0) {
        return pgd_reason_embedding;
    }
    return pgd_header_number(header, PGD_KEY_KEY_SIZE_LATENT, 0) != 0 ? pgd_reason_latent : NULL;
}

enum pagoda_status pgd_gguf_check_header(const char *path, const struct pgd_header *header, struct pagoda_error *error)
{
    if (header->type[0] != '\0' && strcmp(header->type, "model") != 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "%s is no model, but goes with one: its kind is '%s'", path,
                        header->type);
    }
    if (header->architecture[0] == '\0') {
        return pgd_fail(error, PAGODA_CORRUPT, "%s does not say what kind of model it is (general.architecture)", path);
    }
    const uint32_t layers = pgd_header_number(header, PGD_KEY_LAYERS, 1);
    if (layers == 0 || layers > PGD_HEADER_LAYERS_MAX) {
        return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: a model cannot have %u layers", path,
                        layers);
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_gguf_check(const char *path, struct pgd_gguf_facts *facts, struct pagoda_error *error)
{
    struct pgd_header *header = NULL;
    enum pagoda_status status = pgd_header_open(path, &header, error);
    if (status != PAGODA_OK) {
        return status;
    }
    status = pgd_gguf_check_header(path, header, error);
    const char *refusal = pgd_gguf_refusal(header);
    if (status == PAGODA_OK && refusal != NULL) {
        status = refuse(path, header->architecture, refusal, error);
    }
    if (status == PAGODA_OK && header->tensors.count == 0) {
        status = pgd_fail(error, PAGODA_CORRUPT, "%s holds no weights", path);
    }
    if (status == PAGODA_OK) {
        snprintf(facts->name, sizeof(facts->name), "%s", header->name);
        snprintf(facts->architecture, sizeof(facts->architecture), "%s", header->architecture);
        facts->file_bytes = header->file_bytes;
    }
    free(header);
    return status;
}
