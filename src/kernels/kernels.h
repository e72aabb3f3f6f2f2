/* kernels/kernels.h - attention over pages: the table of kernels and what each must compute.
 *
 * The plain C kernels in ref/ are the specification. Every other instruction set gives the same
 * bytes, because each step below fixes the order of its floating-point operations and each step
 * is one IEEE operation (fma, mul, add, sub, div, max, round to nearest even).
 *
 * Vocabulary
 *   block   PGD_LANES consecutive tokens of one KV head. Keys are stored transposed,
 *           [key_size][PGD_LANES] f16, so that one vector holds one coordinate of 16 keys;
 *           values are stored by token, [PGD_LANES][value_size] f16.
 *   chunk   up to PGD_CHUNK_BLOCKS blocks in token order. The softmax is exact inside a chunk, and
 *           chunks are merged from left to right. Chunk borders depend on token positions only, so
 *           results depend neither on page size, nor on threads, nor on how tokens were batched.
 *   row     one query vector: one (token, query head) pair. All rows of a call share a KV head.
 *   lane    index of a key inside its chunk, 0 .. 16 * block_count - 1.
 *
 * The algorithm for one row and one chunk (FlashAttention's partial softmax, Dao et al. 2022,
 * arXiv 2205.14135, in the split-KV form of Flash-Decoding):
 *   1. dot   even = odd = +0; for d = 0, 2, 4, ...: even = fma(q[d], k[d][lane], even),
 *            odd = fma(q[d+1], k[d+1][lane], odd); s = even + odd.
 *            An odd key_size ends with an even step only.
 *   2. scale s = s * scale; when softcap != 0: s = softcap * tanh(s / softcap), with
 *            tanh(x) = 1 - 2 / (exp(min(x + x, 88)) + 1) and exp as in step 4.
 *   3. max   over the lanes that the row sees, first <= lane < end, and + 0 (which turns -0 into +0).
 *            When the row sees no lane: max = -infinity, sum = 0, out = 0, and the row is done.
 *   4. exp   p = exp(s - max) as exponential.h writes it down; +0 for lanes that the row does not see.
 *   5. sum   16 partial sums, one per lane modulo 16, added block after block from +0; then the tree
 *            (i, i+8), (i, i+4), (i, i+2), (i, i+1).
 *      Whoever wants it (partial->blocks) gets the sum of every block by itself too: the same tree over its 16 weights,
 *      +0 for a block of which the row sees no lane.
 *   6. value out[d] = +0; for lane = first, first + 1, ..., end - 1: out[d] = fma(p[lane], v[lane][d], out[d]).
 * What lies in lanes that a row does not see has no effect on it, not even NaN or infinity.
 * When one of the scores that it sees is NaN (or all are -infinity, or one is +infinity), max, sum and out are NaN.
 *
 * Merging the next chunk (m2, l2, o2) into (m1, l1, o1): m2 = -infinity leaves everything as it is;
 * m1 = -infinity copies; else m = max(m1, m2), a = exp(m1 - m), b = exp(m2 - m),
 * l = fma(l1, a, l2 * b), o[d] = fma(o1[d], a, o2[d] * b); and when l is NaN, so is m.
 *
 * Ownership: kernels own nothing; all memory is the caller's. Threads: pure functions.
 * Alignment: blocks are 64-byte aligned; everything else has only its natural alignment.
 */
#ifndef PGD_KERNELS_KERNELS_H
#define PGD_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define PGD_LANES 16u        /* tokens in a block */
#define PGD_CHUNK_BLOCKS 16u /* blocks in a chunk */
#define PGD_CELLS_AHEAD 4u   /* blocks of the next chunk that a kernel may fetch */
#define PGD_CHUNK_TOKENS (PGD_LANES * PGD_CHUNK_BLOCKS)
#define PGD_HEAD_SIZE_MAX 1024u /* largest key_size or value_size the kernels accept */

/* What all rows of a call have in common. */
struct pgd_attend_shape {
    uint32_t key_size;   /* 1 .. PGD_HEAD_SIZE_MAX */
    uint32_t value_size; /* 1 .. PGD_HEAD_SIZE_MAX */
    float scale;
    float softcap; /* 0: none */
};

/* One chunk of f16 blocks of one KV head. */
struct pgd_chunk_f16 {
    uint32_t block_count;                     /* 1 .. PGD_CHUNK_BLOCKS */
    const uint16_t *keys[PGD_CHUNK_BLOCKS];   /* each [key_size][PGD_LANES] */
    const uint16_t *values[PGD_CHUNK_BLOCKS]; /* each [PGD_LANES][value_size] */
    const uint16_t *ahead[PGD_CELLS_AHEAD];   /* keys of the chunk after this one, to be fetched; may be NULL */
};

/* Query rows that share a KV head. Row r sees lanes first[r] <= lane < end[r] of the chunk;
 * end[r] <= 16 * block_count; first[r] >= end[r] means that it sees none. */
struct pgd_rows {
    uint32_t count;
    const float *queries;  /* [count][key_size], packed */
    const uint32_t *first; /* [count] */
    const uint32_t *end;   /* [count] */
};

/* Running or partial softmax state of the same rows. */
struct pgd_partial {
    float *max;    /* [count] */
    float *sum;    /* [count] */
    float *out;    /* [count][value_size], packed, not yet divided by sum */
    float *blocks; /* [count][PGD_CHUNK_BLOCKS], of partial results only: what each block has of sum; NULL: not asked */
};

struct pgd_packed_chunk;
struct pgd_packed_rows;
struct pgd_digest_pages;
struct pgd_digest_scores;

/* The contract of a kernel level. `scratch` has at least scratch_floats(...) floats, 64-byte aligned. */
struct pgd_kernels {
    const char *name; /* "ref", "avx2", ... */

    /* Steps 1-6 for every row of one chunk; overwrites `partial`. */
    void (*attend_chunk_f16)(const struct pgd_attend_shape *shape, const struct pgd_chunk_f16 *chunk,
                             const struct pgd_rows *rows, float *scratch, const struct pgd_partial *partial);

    /* The same for packed blocks: steps 1-6 of packed.h. */
    void (*attend_chunk_packed)(const struct pgd_attend_shape *shape, const struct pgd_packed_chunk *chunk,
                                const struct pgd_packed_rows *rows, float *scratch, const struct pgd_partial *partial);

    /* What pages are worth to each row, from their digests: steps 1-6 of digest.h. `scratch` has
     * pgd_digest_scratch_floats floats. */
    void (*score_digests)(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages,
                          const struct pgd_packed_rows *rows, float *scratch, const struct pgd_digest_scores *scores);

    /* Adds what pages give to the outputs of `rows` rows, as their digests tell: weights[row * scores->stride + page]
     * times a value between the page's tokens, at the row's lean; out[row * value_size + d]. Pages in order. */
    void (*blend_digests)(const struct pgd_attend_shape *shape, uint32_t count, const uint8_t *const *digests,
                          uint32_t rows, const float *weights, const struct pgd_digest_scores *scores, float *out);

    /* out[i] = exp(x[i] - minus) for i < count, with exp as in step 4. x and out may be the same. */
    void (*exponentials)(uint32_t count, const float *x, float minus, float *out);

    /* Merges `from` (the later chunk) into `into`, for `count` rows. */
    void (*merge)(uint32_t count, uint32_t value_size, const struct pgd_partial *into, const struct pgd_partial *from);

    /* Writes token `lane` of a block from an f32 row: keys[d][lane] = f16(row[d]), rounded to
     * nearest even (F16C and ggml round alike). */
    void (*store_key_f16)(uint32_t key_size, const float *row, uint32_t lane, uint16_t *keys);

    /* values[lane][d] = f16(row[d]). */
    void (*store_value_f16)(uint32_t value_size, const float *row, uint32_t lane, uint16_t *values);

    /* Writes PGD_LANES tokens of a block at once; rows are row_stride floats apart. Same bytes as
     * sixteen single stores. */
    void (*store_key_block_f16)(uint32_t key_size, const float *rows, size_t row_stride, uint16_t *keys);
};

/* Floats of scratch that either attend needs at every level for `rows` rows at most. */
size_t pgd_kernels_scratch_floats(const struct pgd_attend_shape *shape, uint32_t rows);

/* The best level of this CPU, or the level called `name` when it is not NULL and not "auto".
 * Returns NULL when this CPU, or this build, does not have it. Levels: ref avx2 avx512 avx512vnni
 * neon dotprod. */
const struct pgd_kernels *pgd_kernels_select(const char *name);

/* Level number `index` of this build that this CPU can run, best last; NULL past the end. */
const struct pgd_kernels *pgd_kernels_at(uint32_t index);

/* Rotates the first 2 * pairs coordinates of `row` by the given angles, in place: the query-side
 * rotation that closes position gaps without rewriting keys. Adjacent pairs are (2j, 2j+1) (RoPE of
 * Su et al. 2021, arXiv 2104.09864), split pairs are (j, j + pairs) (GPT-NeoX layout). Plain C at
 * every level: x' = x * cos - y * sin, y' = x * sin + y * cos, each operation rounded. */
void pgd_rotate_adjacent(uint32_t pairs, const float *cosine, const float *sine, float *row);
void pgd_rotate_split(uint32_t pairs, const float *cosine, const float *sine, float *row);

/* f16 conversions of the specification: round to nearest even, denormals kept, NaN stays NaN. */
float pgd_f16_to_f32(uint16_t half);
uint16_t pgd_f32_to_f16(float value);

/* The exponential of step 4 for x <= 88, within 1 ulp; below -87.3 the result is +0. NaN stays NaN. */
float pgd_ref_exp(float x);

#endif
