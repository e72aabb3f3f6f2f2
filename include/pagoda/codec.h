/* pagoda/codec.h - what the bytes of a page mean: exact rows, or small codes.
 *
 * A page is written in f16 and may be re-encoded once it is full: fewer bytes for the same tokens, at a stated error.
 * Codes are signed numbers with one f16 scale for each token's key and each token's value, after a Hadamard rotation
 * that spreads outliers. A number comes back within max |x| / (2^bits - 1) of itself, x being its rotated row.
 * Measured effects on text: docs/codecs.md.
 */
#ifndef PAGODA_CODEC_H
#define PAGODA_CODEC_H

#include "pagoda/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* From exact to small; each holds more tokens in the same bytes than the one before it. */
enum pagoda_codec {
    PAGODA_CODEC_F16 = 0, /* half-precision rows, as engines keep them by default */
    PAGODA_CODEC_R15,     /* f16 whose numbers were rounded to 15 bits first: no smaller, only there to measure what
                           * the least rounding does to a model (the noise floor) */
    PAGODA_CODEC_Q8,      /* 8-bit keys, 8-bit values */
    PAGODA_CODEC_K8V5,    /* 8-bit keys, 5-bit values */
    PAGODA_CODEC_K8V4,
    PAGODA_CODEC_K6V4,
    PAGODA_CODEC_K5V4,
    PAGODA_CODEC_COUNT
};

/* "f16", "q8", "k8v5", ...; NULL for numbers that are no codec. */
PAGODA_API const char *pagoda_codec_name(enum pagoda_codec codec);

#ifdef __cplusplus
}
#endif
#endif
