/* codec/codec.c - the table of codecs. */
#include "codec/codec.h"

#include "codec/f16.h"

const struct pgd_codec *pgd_codec_get(enum pgd_codec_id id)
{
    static const struct pgd_codec *const codecs[PGD_CODEC_COUNT] = {
        [PGD_CODEC_F16] = &pgd_codec_f16,
    };
    PGD_ASSERT((unsigned) id < PGD_CODEC_COUNT);
    return codecs[id];
}
