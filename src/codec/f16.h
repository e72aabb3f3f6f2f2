/* codec/f16.h - pages of half-precision rows, as llama.cpp keeps them by default.
 *
 * Error bound of f16: each stored number is the engine's f32 rounded to nearest even f16 (relative error at
 * most 2^-11 in the normal range); reading adds none. r15 is the same bytes, but re-encoding rounds each row to 15 bits
 * of its largest number first: a page that was once f16 changes by as little as a page can.
 */
#ifndef PGD_CODEC_F16_H
#define PGD_CODEC_F16_H

#include <stddef.h>

#include "codec/codec.h"

uint64_t pgd_f16_cell_bytes(const struct pgd_codec *codec, struct pgd_cell_shape shape);
void pgd_f16_cell_encode(const struct pgd_codec *codec, struct pgd_cell_shape shape, float *keys, float *values,
                         void *cell);
void pgd_f16_cell_decode(const struct pgd_codec *codec, struct pgd_cell_shape shape, const void *cell, float *keys,
                         float *values);
void pgd_f16_cells_attend(const struct pgd_codec *codec, const struct pgd_kernels *kernels,
                          const struct pgd_attend_shape *shape, const struct pgd_cells *cells,
                          const struct pgd_query_rows *rows, float *scratch, const struct pgd_partial *partial);

/* Writes the key (value) rows of lanes [lane, lane + count) of one cell; row i is rows + i * row_stride floats. */
void pgd_f16_write_keys(const struct pgd_kernels *kernels, struct pgd_cell_shape shape, void *cell, uint32_t lane,
                        uint32_t count, const float *rows, size_t row_stride);
void pgd_f16_write_values(const struct pgd_kernels *kernels, struct pgd_cell_shape shape, void *cell, uint32_t lane,
                          uint32_t count, const float *rows, size_t row_stride);

#endif
