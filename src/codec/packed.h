/* codec/packed.h - pages of small codes: q8, k8v5, k8v4, k6v4, k5v4. A cell is one block of kernels/packed.h, whose
 * rows have gone through the Hadamard transform; the bits are the codec's. Error bound: pagoda/codec.h. */
#ifndef PGD_CODEC_PACKED_H
#define PGD_CODEC_PACKED_H

#include "codec/codec.h"

uint64_t pgd_packed_cell_bytes(const struct pgd_codec *codec, struct pgd_cell_shape shape);
void pgd_packed_cell_encode(const struct pgd_codec *codec, struct pgd_cell_shape shape, float *keys, float *values,
                            void *cell);
void pgd_packed_cell_decode(const struct pgd_codec *codec, struct pgd_cell_shape shape, const void *cell, float *keys,
                            float *values);
void pgd_packed_cells_attend(const struct pgd_codec *codec, const struct pgd_kernels *kernels,
                             const struct pgd_attend_shape *shape, const struct pgd_cells *cells,
                             const struct pgd_query_rows *rows, float *scratch, const struct pgd_partial *partial);

#endif
