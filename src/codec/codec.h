/* codec/codec.h - what the bytes of a page mean. This table is where a new codec plugs in.
 *
 * A page holds the K and V rows of page_tokens tokens of one layer. Seen from here it is a run of
 * cells: one cell is one block (PGD_LANES tokens) of one KV head, keys and values together, so
 * that one head's part of a page is contiguous and can be read alone.
 *
 *     page | head 0: cell 0, cell 1, ... | head 1: cell 0, cell 1, ... | ...
 *     cell | key codes | value codes |                (f16: [key_size][16] and [16][value_size])
 *
 * A codec says how many bytes a cell takes, writes rows into it, and attends over a run of cells.
 * Everything else (frames, tables, policies, the account) is the same for all codecs.
 *
 * Ownership: codecs are constants. Threads: pure functions; two threads may write different lanes or
 * different heads of one page.
 */
#ifndef PGD_CODEC_CODEC_H
#define PGD_CODEC_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "kernels/kernels.h"
#include "pagoda/cache.h"

enum pgd_codec_id { PGD_CODEC_F16 = 0, PGD_CODEC_COUNT };

/* A run of cells of one KV head that are attended together: one chunk of kernels/kernels.h. */
struct pgd_cells {
    uint32_t count; /* 1 .. PGD_CHUNK_BLOCKS */
    const void *cell[PGD_CHUNK_BLOCKS];
};

struct pgd_codec {
    const char *name;
    bool exact; /* rows come back as the f16 the engine would have kept */

    /* Bytes of one cell; a multiple of 64. */
    uint64_t (*cell_bytes)(uint32_t key_size, uint32_t value_size);

    /* Writes the key (value) rows of lanes [lane, lane + count) of one cell; row i is rows + i * row_stride floats. */
    void (*write_keys)(const struct pgd_kernels *kernels, const struct pagoda_layer *layer, void *cell, uint32_t lane,
                       uint32_t count, const float *rows, size_t row_stride);
    void (*write_values)(const struct pgd_kernels *kernels, const struct pagoda_layer *layer, void *cell, uint32_t lane,
                         uint32_t count, const float *rows, size_t row_stride);

    /* Partial softmax of `rows` over the cells; see kernels.h for scratch and partial. */
    void (*attend)(const struct pgd_kernels *kernels, const struct pgd_attend_shape *shape,
                   const struct pgd_cells *cells, const struct pgd_rows *rows, float *scratch,
                   const struct pgd_partial *partial);
};

/* The codec of a number below PGD_CODEC_COUNT. */
const struct pgd_codec *pgd_codec_get(enum pgd_codec_id id);

#endif
