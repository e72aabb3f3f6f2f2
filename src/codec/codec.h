/* codec/codec.h - what the bytes of a page mean. This table is where a new codec plugs in.
 *
 * A page holds the K and V rows of page_tokens tokens of one layer. Seen from here it is a run of
 * cells: one cell is one block (PGD_LANES tokens) of one KV head, keys and values together, so
 * that one head's part of a page is contiguous and can be read alone.
 *
 *     page | head 0: cell 0, cell 1, ... | head 1: cell 0, cell 1, ... | ...
 *     cell | key codes | value codes |                (f16: [key_size][16] and [16][value_size])
 *
 * A codec says how many bytes a cell takes, turns the rows of a full cell into bytes and back, and attends over a
 * run of cells. Only f16 also takes rows one by one: pages are written in f16, and re-encoded when they are full.
 * Everything else (frames, tables, policies, the account) is the same for all codecs.
 *
 * Two bases. A rotated codec keeps rows, takes queries and gives outputs after the Hadamard transform of
 * kernels/packed.h; the caller transforms queries before and the merged output once, after. encode and decode
 * take and give rows as the model made them.
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
#include "kernels/packed.h"
#include "pagoda/codec.h"

/* The two sizes that every function here needs. */
struct pgd_cell_shape {
    uint32_t key_size;
    uint32_t value_size;
};

/* A run of cells of one KV head that are attended together: one chunk of kernels/kernels.h. */
struct pgd_cells {
    uint32_t count; /* 1 .. PGD_CHUNK_BLOCKS */
    const void *cell[PGD_CHUNK_BLOCKS];
    const void *ahead[PGD_CELLS_AHEAD]; /* likely to be attended next, worth fetching; NULL where nothing is known */
};

/* The query rows of a call, in the form that the codec wants. */
struct pgd_query_rows {
    struct pgd_rows exact;         /* codecs that are not rotated */
    struct pgd_packed_rows packed; /* rotated ones */
};

struct pgd_codec {
    const char *name;
    bool exact;   /* rows come back as the f16 the engine would have kept */
    bool rotated; /* see above */
    uint32_t key_bits;
    uint32_t value_bits;

    /* Bytes of one cell; a multiple of 64. */
    uint64_t (*cell_bytes)(const struct pgd_codec *codec, struct pgd_cell_shape shape);

    /* Turns a full cell's rows into bytes: keys[lane * key_size + d], values likewise. Rows are overwritten. */
    void (*encode)(const struct pgd_codec *codec, struct pgd_cell_shape shape, float *keys, float *values, void *cell);

    /* The rows that a cell stands for. */
    void (*decode)(const struct pgd_codec *codec, struct pgd_cell_shape shape, const void *cell, float *keys,
                   float *values);

    /* Partial softmax of `rows` over the cells; see kernels.h and packed.h for scratch and partial. */
    void (*attend)(const struct pgd_codec *codec, const struct pgd_kernels *kernels,
                   const struct pgd_attend_shape *shape, const struct pgd_cells *cells,
                   const struct pgd_query_rows *rows, float *scratch, const struct pgd_partial *partial);
};

const struct pgd_codec *pgd_codec_get(enum pagoda_codec id);

#endif
