/* codec/f16.h - exact pages: half-precision rows, as llama.cpp keeps them by default.
 *
 * Error bound: each stored number is the engine's f32 rounded to nearest even f16 (relative error at
 * most 2^-11 in the normal range); reading adds none.
 */
#ifndef PGD_CODEC_F16_H
#define PGD_CODEC_F16_H

#include "codec/codec.h"

extern const struct pgd_codec pgd_codec_f16;

#endif
