/* kernels/digest.h - the digest of a page: a few bytes that stay in memory when the page's rows do not.
 *
 * It tells what a query would find in the page (so that the right pages are read), and stands in for the page when it
 * is not read. A digest is a sketch of one KV head's tokens: those of one block of PGD_LANES, or, where memory is so
 * tight that blocks share what they have in common, of up to PGD_DIGEST_BLOCKS_MAX neighbouring ones. `Page` is short
 * for one such block in what follows.
 *
 * The sketch. Token t has about the rows
 *     key_t   = key mean   + a_t * first key line   + b_t * second key line
 *     value_t = value mean + a_t * first value line + b_t * second value line
 * a_t and b_t are whole numbers of 4 bits, the lines have 2 bits a number, the key mean 6, the value mean 2. So
 * tokens differ from each other along two directions only, the two that matter most to the queries that are expected
 * (struct pgd_digest_queries), and values differ along with keys. docs/selection.md tells what this was compared with.
 *
 * Rows are always rotated (packed.h): coordinates are then alike, so that few bits do.
 *
 * Bytes of a digest. A vector of `size` numbers has planes of 2 bits a number, ceil(size / 4) bytes each: the vector
 * is cut into tiles of 64 numbers; in a tile of n numbers with quarter = ceil(n / 4), number k * quarter + i is bits 2k
 * and 2k + 1 of the tile's byte i.
 *     | scales, f16: key mean, key lines, value mean, value lines |
 *     | key mean: low, middle, high plane | key lines: a plane each | value mean: a plane | value lines: a plane each |
 *     | a_t | b_t << 4, a byte a token [16] of each block | zeros up to a multiple of 4 |
 * A code c of b bits stands for (2 c - (2^b - 1)) * scale, as in packed.h. The code of a_t or b_t has no scale: the
 * scale of the lines has it.
 *
 * The algorithm of score_digests for one row and one page:
 *   1. dot    with the row's whole numbers, as step 1 of packed.h: mean = ((float) raw * unit) * scale for the key
 *             mean, and first, second likewise for the key lines.
 *   2. token  s[t] = fma(b_t, second, fma(a_t, first, mean)), then scale and softcap (step 2 of kernels.h).
 *   3. max    over t, and + 0. NaN is passed over.
 *   4. exp    p[t] = exp(s[t] - max) as in step 4 of kernels.h.
 *   5. sum    from +0, sum = sum + p[t], lean[0] = fma(p[t], a_t, lean[0]), lean[1] = fma(p[t], b_t, lean[1]), for
 *             t = 0, 1, ...
 *   6. mass   = max + ln(sum), with ln as logarithm.h writes it down; and both leans are divided by sum.
 * The algorithm of blend_digests: out[d] = out[d] + 0 first; then for pages i = 0, 1, ... whose weight w is not 0:
 *     out[d] = fma(w * s0, v0[d], out[d]), then fma((w * lean[0]) * s1, v1[d], out[d]), then the same with lean[1]
 * where v are the odd whole numbers of the value mean and lines, and s their scales.
 *
 * Details. Where two lines are too few, because queries look for one exact token, a page's keys can be kept beside its
 * digest: key_t = key mean + what token t has of its own, in 4 bits a number.
 *     | scales of the 16 tokens, f16 | token 0: low plane, high plane | token 1 ... | zeros up to a multiple of 4 |
 * Step 2 is another one then: s[t] = mean + ((float) raw * unit) * scale of the token, then scale and softcap. Leans
 * are along the digest's lines as before.
 *
 * Numbers that are not finite: when a key is none, the page's masses are NaN; when a value is none, what the page gives
 * to an output is NaN; when a query is none, its row is NaN.
 *
 * Threads: pure functions. Memory is the caller's.
 */
#ifndef PGD_KERNELS_DIGEST_H
#define PGD_KERNELS_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#define PGD_DIGEST_LINES 2u
#define PGD_DIGEST_TILE 64u /* numbers of a tile */
#define PGD_DIGEST_QUERIES_MAX 16u
#define PGD_DIGEST_BLOCKS_MAX 8u

/* Where the parts of a digest are, in bytes. */
struct pgd_digest_layout {
    uint32_t key_plane; /* bytes of a plane */
    uint32_t key_mean;  /* three planes */
    uint32_t key_lines; /* PGD_DIGEST_LINES planes */
    uint32_t value_plane;
    uint32_t value_mean; /* one plane, then those of the lines */
    uint32_t along;      /* a_t and b_t of the first block, then those of the others */
};

enum pgd_digest_scale { PGD_DIGEST_KEY_MEAN, PGD_DIGEST_KEY_LINE, PGD_DIGEST_VALUE_MEAN = 3, PGD_DIGEST_VALUE_LINE };
#define PGD_DIGEST_SCALES 6u

struct pgd_digest_layout pgd_digest_layout(uint32_t key_size, uint32_t value_size);

/* Bytes of the digest of so many blocks and one KV head; a multiple of 4. */
uint32_t pgd_digest_bytes(uint32_t key_size, uint32_t value_size, uint32_t blocks);

/* The same of the detail of one block. */
uint32_t pgd_detail_bytes(uint32_t key_size);

/* What is known about the queries of a KV head: their spread in each coordinate, and the mean of each query head.
 * Coordinates are those of the model, not rotated. Only proportions count. */
struct pgd_digest_queries {
    const float *variance; /* [key_size] about the means; not negative */
    const float *means;    /* [mean_count][key_size] */
    uint32_t mean_count;   /* 0 .. PGD_DIGEST_QUERIES_MAX */
};

/* Scale `which` of a digest, or of token `which` of a detail. */
float pgd_digest_scale(const uint8_t *digest, uint32_t which);

/* The two bits that a plane has of number d of a vector of `size`. */
uint32_t pgd_digest_bits(uint32_t size, const uint8_t *plane, uint32_t d);

/* Floats of scratch that pgd_digest_make needs. */
size_t pgd_digest_make_floats(uint32_t key_size, uint32_t tokens);

/* Makes the digest of `tokens` rotated rows (up to PGD_DIGEST_BLOCKS_MAX blocks, all but the last whole),
 * keys[t * key_size + d], which are used up. `queries` may be NULL: then all directions count alike, which chooses
 * worse lines. The same bytes on every processor. */
void pgd_digest_make(uint32_t key_size, uint32_t value_size, uint32_t tokens, float *keys, float *values,
                     const struct pgd_digest_queries *queries, float *scratch, uint8_t *digest);

/* Makes the detail of the rows of one of a digest's blocks, 1 .. PGD_LANES. The same bytes on every processor. */
void pgd_detail_make(uint32_t key_size, uint32_t tokens, const float *keys, const uint8_t *digest, uint8_t *detail);

/* Pages that a query is asked about. */
struct pgd_digest_pages {
    uint32_t count;
    uint32_t tokens;               /* 1 .. PGD_LANES, of each */
    const uint8_t *const *digests; /* [count]; neighbours may have the same */
    const uint8_t *const *along;   /* [count], where in its digest a page's a_t and b_t are */
    const uint8_t *const *details; /* [count], or NULL: none has any */
};

/* What score_digests tells of each row and page, at [row * stride + page]. */
struct pgd_digest_scores {
    float *mass;                   /* logarithm of the page's attention mass, before the softmax's division */
    float *lean[PGD_DIGEST_LINES]; /* how far along each line the row looks; for blend_digests */
    uint32_t stride;
};

/* Floats of scratch that score_digests needs, 64-byte aligned. */
size_t pgd_digest_scratch_floats(uint32_t key_size, uint32_t rows);

/* The rows' whole numbers in the order of a digest's planes, [row][tile][high, low][16 words], in scratch. */
void pgd_digest_arrange(uint32_t key_size, const struct pgd_packed_rows *rows, int32_t *words);

#endif
