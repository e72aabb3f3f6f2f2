/* codec/codec.c - the table of codecs. */
#include "codec/codec.h"

#include <stddef.h>

#include "codec/f16.h"
#include "codec/packed.h"

#define PACKED(codec_name, keys, values) \
    { \
        .name = codec_name, \
        .rotated = true, \
        .key_bits = keys, \
        .value_bits = values, \
        .cell_bytes = pgd_packed_cell_bytes, \
        .encode = pgd_packed_cell_encode, \
        .decode = pgd_packed_cell_decode, \
        .attend = pgd_packed_cells_attend, \
    }

#define HALVES(codec_name, is_exact, keys, values) \
    { \
        .name = codec_name, \
        .exact = is_exact, \
        .key_bits = keys, \
        .value_bits = values, \
        .cell_bytes = pgd_f16_cell_bytes, \
        .encode = pgd_f16_cell_encode, \
        .decode = pgd_f16_cell_decode, \
        .attend = pgd_f16_cells_attend, \
    }

static const struct pgd_codec codecs[PAGODA_CODEC_COUNT] = {
    [PAGODA_CODEC_F16] = HALVES("f16", true, 16, 16), [PAGODA_CODEC_R15] = HALVES("r15", false, 15, 15),
    [PAGODA_CODEC_Q8] = PACKED("q8", 8, 8),           [PAGODA_CODEC_K8V5] = PACKED("k8v5", 8, 5),
    [PAGODA_CODEC_K8V4] = PACKED("k8v4", 8, 4),       [PAGODA_CODEC_K6V4] = PACKED("k6v4", 6, 4),
    [PAGODA_CODEC_K5V4] = PACKED("k5v4", 5, 4),
};

const struct pgd_codec *pgd_codec_get(enum pagoda_codec id)
{
    PGD_ASSERT((unsigned) id < PAGODA_CODEC_COUNT);
    return &codecs[id];
}

const char *pagoda_codec_name(enum pagoda_codec codec)
{
    return (unsigned) codec < PAGODA_CODEC_COUNT ? codecs[codec].name : NULL;
}
