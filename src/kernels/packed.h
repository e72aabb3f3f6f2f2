/* kernels/packed.h - blocks of small whole numbers: their bytes, how rows become codes, and attention on the codes.
 *
 * A packed block holds the same 16 tokens of one KV head as an f16 block, in key_bits and value_bits per number
 * (4, 5, 6 or 8). A code c of b bits stands for (2 c - (2^b - 1)) * scale: 2^b levels, symmetric about zero, none of
 * them zero itself. There is one f16 scale per token for its key and one for its value.
 *
 * The codes of a block are cut into tiles of 64, so that four codes lie side by side wherever a dot product of four
 * bytes at a time can use them:
 *     key tile j          byte 4 * lane + i   coordinate 4 j + i of token `lane`         ceil(key_size / 4) tiles
 *     value tile 4 v + t  byte 4 * i + k      coordinate 16 v + i of token 4 t + k       4 * ceil(value_size / 16)
 * Codes past the end of a row are 0 and meet only zeros, or outputs that are not stored.
 *
 * Bytes of a block, each part a multiple of 32 (pgd_packed_layout):
 *     | keys: low plane | high plane | values: low plane | high plane | key scales, f16 [16] | value scales, f16 [16] |
 *   8 bits   the low plane is the tiles, 64 bytes each; there is no high plane
 *   less     the low plane has the lower 4 bits: tile g is nibble g % 2 of the bytes of line g / 2;
 *            the high plane has the rest: 5 bits: bit g % 8 of line g / 8; 6 bits: bits 2 (g % 4) and up of line g / 4
 *   (a line is 64 bytes)
 *
 * Rotation. Packed rows have gone through an orthonormal Hadamard transform H (QuaRot, Ashkboos et al. 2024, arXiv
 * 2404.00456): it spreads outliers over all coordinates. Scores need H q, and outputs come out as H o; since H is its
 * own inverse, one more H gives o. A size that is no power of two is cut into powers of two, the largest first.
 *
 * The algorithm for one row and one chunk:
 *   1. dot    the row's whole numbers (pgd_packed_query) times the codes, exactly, in 32 bits: D = sum q[d] c[d][lane];
 *             raw = 2 D - (2^key_bits - 1) * sum q[d]; s = ((float) raw * unit) * key_scale[lane].
 *   2. to 5. as for f16 (kernels.h).
 *   6. weigh  w[lane] = p[lane] * value_scale[lane], +0 where the row does not see; m = max w, f = 16383 / m;
 *             whole weights i[lane] = w[lane] * f rounded to nearest even; E[d] = sum i[lane] c[lane][d], exactly;
 *             out[d] = (float) (2 E[d] - (2^value_bits - 1) * sum i[lane]) * (m / 16383).
 *             All zeros when m is below 2^-100.
 * When the sum of a row's weights is not finite, its outputs are NaN; sum and max follow kernels.h.
 * A row whose query has a number that is not finite has unit = NaN, so everything is NaN.
 *
 * Threads: pure functions. Memory is the caller's.
 */
#ifndef PGD_KERNELS_PACKED_H
#define PGD_KERNELS_PACKED_H

#include <stdint.h>

#include "kernels/kernels.h"

#define PGD_PACKED_LINE 64u               /* codes of a tile, bytes of a line */
#define PGD_PACKED_WEIGHT_MAX 16383u      /* a weight is two planes of 7 bits */
#define PGD_PACKED_WEIGHT_LEAST 0x1p-100f /* when no weight is larger, all are zero: the factor would overflow */

/* What a packed block holds, and where. */
struct pgd_packed_layout {
    uint32_t key_bits;
    uint32_t value_bits;
    uint32_t key_tiles;
    uint32_t value_tiles;
    uint32_t key_high; /* offsets in bytes; the low plane of keys is at 0 */
    uint32_t value_low;
    uint32_t value_high;
    uint32_t key_scales;
    uint32_t value_scales;
    uint32_t bytes; /* of a block */
};

/* bits are 4, 5, 6 or 8; sizes 1 .. PGD_HEAD_SIZE_MAX. */
struct pgd_packed_layout pgd_packed_layout(uint32_t key_size, uint32_t value_size, uint32_t key_bits,
                                           uint32_t value_bits);

/* Turns PGD_LANES tokens into a packed block. keys[lane * key_size + d], values likewise, both rotated already.
 * The error of a number is at most its token's scale, which is max |x| / (2^bits - 1), rounded to f16. Rows with a
 * number that is not finite get a NaN scale. */
void pgd_packed_encode(const struct pgd_packed_layout *layout, uint32_t key_size, uint32_t value_size,
                       const float *keys, const float *values, uint8_t *block);

/* The rotated rows that a packed block stands for: the other way round. */
void pgd_packed_decode(const struct pgd_packed_layout *layout, uint32_t key_size, uint32_t value_size,
                       const uint8_t *block, float *keys, float *values);

/* The largest |x| of a row; NaN or infinity when a number is not finite. */
float pgd_packed_largest(uint32_t size, const float *row);

/* H, in place. */
void pgd_hadamard(uint32_t size, float *row);

/* Query rows as whole numbers of at most 14 bits, in two planes: number = 128 * high + low, low >= 0. Four
 * neighbouring coordinates share a word, the first in its lowest byte. */
struct pgd_packed_rows {
    uint32_t count;
    uint32_t tiles;        /* words of a row: ceil(key_size / 4) */
    int32_t *high;         /* [count][tiles] */
    int32_t *low;          /* [count][tiles] */
    float *unit;           /* [count] what one stands for */
    int32_t *sum;          /* [count] of the whole numbers */
    const uint32_t *first; /* [count] as in struct pgd_rows */
    const uint32_t *end;
};

/* Fills row `row` from a rotated query: whole number = q * (most / max |q|), rounded to nearest even, with most so
 * that step 1 fits in 32 bits. */
void pgd_packed_query(uint32_t key_size, const float *query, const struct pgd_packed_rows *rows, uint32_t row);

/* One chunk of packed blocks of one KV head. */
struct pgd_packed_chunk {
    const struct pgd_packed_layout *layout;
    uint32_t block_count; /* 1 .. PGD_CHUNK_BLOCKS */
    const uint8_t *blocks[PGD_CHUNK_BLOCKS];
    const uint8_t
        *ahead[PGD_CELLS_AHEAD]; /* the first blocks of the chunk after this one, to be fetched; may be NULL */
};

/* Code `index` of tile `tile` in planes `low` and `high`. */
static inline uint32_t pgd_packed_code(uint32_t bits, const uint8_t *low, const uint8_t *high, uint32_t tile,
                                       uint32_t index)
{
    if (bits == 8) {
        return low[(size_t) tile * PGD_PACKED_LINE + index];
    }
    const uint32_t nibble = low[(size_t) (tile / 2) * PGD_PACKED_LINE + index] >> 4 * (tile % 2) & 15u;
    if (bits == 5) {
        return nibble | (high[(size_t) (tile / 8) * PGD_PACKED_LINE + index] >> tile % 8 & 1u) << 4;
    }
    if (bits == 6) {
        return nibble | (high[(size_t) (tile / 4) * PGD_PACKED_LINE + index] >> 2 * (tile % 4) & 3u) << 4;
    }
    return nibble;
}

#endif
