/* engine/weights.c - see weights.h. */
#include "engine/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/number.h"
#include "engine/header.h"
#include "ggml-cpu.h"
#include "ggml.h"

/* ---- copies ---- */

/* Matrices go into AMX's tiles by whole tiles of rows and columns. */
static bool fits_amx(const struct pgd_gguf_tensor *matrix)
{
    switch (matrix->type) {
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q8_0: break;
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ4_XS:
        if (matrix->sizes[0] % 256 != 0) {
            return false;
        }
        break;
    default: return false;
    }
    return matrix->dimensions == 2 && matrix->sizes[1] % 32 == 0;
}

/* Rows are woven together, four or eight at a time. */
static bool fits_weaving(const struct pgd_gguf_tensor *matrix)
{
    const bool avx2 = ggml_cpu_has_avx2() != 0;
    const bool dot = ggml_cpu_has_neon() != 0 && ggml_cpu_has_dotprod() != 0;
    const uint64_t rows = matrix->sizes[1];
    switch (matrix->type) {
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_MXFP4: return (avx2 && rows % 8 == 0) || (dot && rows % 4 == 0);
    case GGML_TYPE_Q4_K: return (avx2 || dot) && rows % 8 == 0;
    case GGML_TYPE_Q2_K: return ggml_cpu_has_avx512() != 0 && rows % 8 == 0;
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K: return dot && rows % 8 == 0;
    case GGML_TYPE_Q8_0: return dot && rows % 4 == 0;
    default: return false;
    }
}

/* Bytes that AMX's layout adds to a block: sums, and scales that were packed into bits. */
static uint64_t amx_bytes_more(uint32_t type)
{
    switch (type) {
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K: return 4;
    case GGML_TYPE_IQ4_XS: return 2;
    default: return 0;
    }
}

uint64_t pgd_weights_copied_bytes(const struct pgd_gguf_tensor *matrix)
{
    if (matrix->dimensions < 2) {
        return 0;
    }
    if (ggml_cpu_has_amx_int8() != 0 && fits_amx(matrix)) {
        const uint64_t blocks = matrix->elements / (uint64_t) ggml_blck_size((enum ggml_type) matrix->type);
        return matrix->bytes + blocks * amx_bytes_more(matrix->type);
    }
    return fits_weaving(matrix) ? matrix->bytes : 0;
}

/* ---- what a token reads ---- */

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
