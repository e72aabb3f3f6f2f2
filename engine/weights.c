/* engine/weights.c - see weights.h. */
#include "engine/weights.h"

#include <stdlib.h>

#include "base/number.h"
#include "engine/header.h"

/* The share of the experts that a token does not use. */
static double idle_experts(const struct pgd_header *header)
{
    const double count = pgd_header_number(header, PGD_KEY_EXPERTS, 0);
    const double used = pgd_header_number(header, PGD_KEY_EXPERTS_USED, 0);
    return used > 0 && used < count ? 1 - used / count : 0;
}

uint64_t pgd_weights_read_bytes(const char *path, uint64_t weights_bytes)
{
    struct pgd_header *header = NULL;
    struct pagoda_error ignored;
    if (pgd_header_open(path, &header, &ignored) != PAGODA_OK) {
        return weights_bytes;
    }
    const struct pgd_header_tensors *tensors = &header->tensors;
    uint64_t unread = (uint64_t) ((double) tensors->expert_bytes * idle_experts(header));
    unread = pgd_add_capped_u64(unread, tensors->layer_embedding_bytes);
    unread = pgd_add_capped_u64(unread, tensors->output_bytes != 0 ? tensors->embedding_bytes : 0);
    free(header);
    return weights_bytes - pgd_min_u64(unread, weights_bytes);
}
