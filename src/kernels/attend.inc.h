/* kernels/attend.inc.h - the vector kernels, written once over a vocabulary of 16-lane vectors.
 *
 * An instruction set's file defines the vocabulary, includes this file, and ends with PGD_DEFINE_LEVEL.
 *
 *   v16                           16 floats
 *   v16_set1(x)                   x in every lane
 *   v16_load(p), v16_store(p, a)  no alignment needed, as everywhere here
 *   v16_load_n, v16_store_n       the first n lanes, 1 <= n <= 16; others are loaded as +0 and not stored
 *   v16_load_f16(p), v16_load_f16_n(p, n), v16_store_f16(p, a)
 *   v16_add, v16_sub, v16_mul, v16_div, v16_fma(a, b, c) = a * b + c with one rounding
 *   v16_greater(a, b)             a > b ? a : b
 *   v16_where_less(a, b, x, y)    a < b ? x : y
 *   v16_where_lanes(m, n, x, y)   lanes m <= i < n from x, others from y
 *   v16_shift_to_exponent(t)      the float with bits (bits of t << 23) + (bits of 1.0f)
 *   v16_sum(a)                    the tree of step 5
 *   v16_largest(a)                the largest lane; no lane is NaN
 *   v16i, v64, ...                see packed.inc.h and digest.inc.h
 *   DOT_ROWS, DOT_BLOCKS          a tile of scores is so many rows x so many blocks of keys; it has
 *                                 2 * DOT_ROWS * DOT_BLOCKS accumulators
 *   WEIGH_ROWS, WEIGH_VECTORS     a tile of outputs is so many rows x so many vectors, each an accumulator
 *   FOR_DOT_ROWS, FOR_WEIGH_ROWS  FOR_n_ROWS below, with n = DOT_ROWS and n = WEIGH_ROWS
 *
 * How a call runs. The chunk is cut into groups of blocks that stay in the first cache; rows are cut into
 * tiles of neighbours. Scores go group by group, and in a group tile by tile; then the softmax, row by row;
 * then outputs as scores. With few rows (decoding) f16 is converted on the way from memory to the registers of
 * a tile; with more (reading a prompt) a group is converted once and all tiles use it.
 *
 * Why the bytes do not depend on tiles and groups: an output is a chain of fma over the row's visible lanes in
 * order, wherever the chain is cut; a score belongs to one lane; lanes a row does not see are computed for its
 * neighbours' sake, but thrown away before they meet the row's sums.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/exponential.h"
#include "kernels/levels.h"

#define INLINE static inline __attribute__((always_inline))
#define LANES PGD_LANES
#define CONVERT_ABOVE_TILES 2u /* with more tiles, converting a group once is cheaper */

/* A loop over a tile. Unrolled always, so that the tile lives in registers. */
#ifdef __clang__
#define EACH(i, n) _Pragma("clang loop unroll(full)") for (uint32_t i = 0; i < (n); i++)
#else
#define EACH(i, n) _Pragma("GCC unroll 16") for (uint32_t i = 0; i < (n); i++)
#endif

/* f(rows) with a constant in place of rows, 1 <= rows <= n. */
#define FOR_3_ROWS(rows, f) \
    switch (rows) { \
    case 1: f(1); break; \
    case 2: f(2); break; \
    default: f(3); break; \
    }
#define FOR_4_ROWS(rows, f) \
    switch (rows) { \
    case 1: f(1); break; \
    case 2: f(2); break; \
    case 3: f(3); break; \
    default: f(4); break; \
    }
#define FOR_6_ROWS(rows, f) \
    switch (rows) { \
    case 1: f(1); break; \
    case 2: f(2); break; \
    case 3: f(3); break; \
    case 4: f(4); break; \
    case 5: f(5); break; \
    default: f(6); break; \
    }

/* Lanes first <= lane < end of the chunk; empty when first >= end. */
struct span {
    uint32_t first;
    uint32_t end;
};

/* Everything that the steps of one call share. */
struct call {
    const struct pgd_attend_shape *shape;
    const struct pgd_chunk_f16 *chunk;
    const struct pgd_rows *rows;
    const struct pgd_partial *partial;
    float *group;          /* a group of blocks as f32, when `converted` */
    float *scores;         /* [rows][PGD_CHUNK_TOKENS]; step 4 turns them into weights */
    uint32_t group_blocks; /* blocks of a group, and how far ahead of the loads to prefetch */
    uint32_t value_floats; /* a converted value row: value_size in whole vectors */
    uint32_t dot_rows;     /* rows of a tile of scores, and of outputs */
    uint32_t weigh_rows;
    bool converted;
};

struct tile {
    uint32_t row;
    uint32_t rows;
    struct span any; /* from the first lane that one of its rows sees to the last */
    struct span all; /* lanes that all of its rows see */
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static struct span intersection(struct span a, struct span b)
{
    return (struct span) {max_u32(a.first, b.first), min_u32(a.end, b.end)};
}

static struct span visible(const struct call *call, uint32_t row)
{
    return (struct span) {call->rows->first[row], call->rows->end[row]};
}

/* The tile that starts at `row`, of at most `rows` rows. */
static struct tile tile_at(const struct call *call, uint32_t row, uint32_t rows)
{
    struct tile tile = {row, min_u32(rows, call->rows->count - row), {UINT32_MAX, 0}, {0, UINT32_MAX}};
    for (uint32_t r = row; r < row + tile.rows; r++) {
        const struct span span = visible(call, r);
        if (span.first < span.end) {
            tile.any.first = min_u32(tile.any.first, span.first);
            tile.any.end = max_u32(tile.any.end, span.end);
        }
        tile.all = intersection(tile.all, span);
    }
    return tile;
}

/* Into the second cache: the first is full of what is being used. Any address will do: a prefetch cannot fail. */
INLINE void prefetch(const uint16_t *halves, size_t index)
{
    __builtin_prefetch((const void *) ((uintptr_t) halves + index * sizeof *halves), 0, 2);
}

INLINE v16 exponential(v16 x)
{
    const v16 t = v16_fma(x, v16_set1(PGD_EXP_LOG2_E), v16_set1(PGD_EXP_ROUNDER));
    const v16 n = v16_sub(t, v16_set1(PGD_EXP_ROUNDER));
    v16 r = v16_fma(n, v16_set1(-PGD_EXP_LN2_HIGH), x);
    r = v16_fma(n, v16_set1(-PGD_EXP_LN2_LOW), r);
    v16 p = v16_set1(PGD_EXP_C6);
    p = v16_fma(p, r, v16_set1(PGD_EXP_C5));
    p = v16_fma(p, r, v16_set1(PGD_EXP_C4));
    p = v16_fma(p, r, v16_set1(PGD_EXP_C3));
    p = v16_fma(p, r, v16_set1(PGD_EXP_C2));
    p = v16_fma(p, r, v16_set1(PGD_EXP_C1));
    p = v16_fma(p, r, v16_set1(PGD_EXP_C0));
    p = v16_mul(p, v16_shift_to_exponent(t));
    return v16_where_less(x, v16_set1(PGD_EXP_LOWEST), v16_set1(0.0f), p);
}

/* ---- steps 1 and 2: scores ---- */

struct dot {
    uint32_t key_size;
    float scale;
    float softcap;
    const float *queries;              /* of the tile's first row */
    float *scores;                     /* of the tile's first row, at the lane of the first block */
    const void *keys[DOT_BLOCKS];      /* f16, or f32 when converted */
    const uint16_t *ahead[DOT_BLOCKS]; /* what to prefetch meanwhile, if not converted */
};

INLINE v16 load_key(bool converted, const void *keys, uint32_t d)
{
    const size_t at = (size_t) d * LANES;
    return converted ? v16_load((const float *) keys + at) : v16_load_f16((const uint16_t *) keys + at);
}

INLINE v16 scaled(v16 score, float scale, float softcap)
{
    score = v16_mul(score, v16_set1(scale));
    if (softcap != 0.0f) {
        const v16 one = v16_set1(1.0f);
        const v16 highest = v16_set1(PGD_EXP_HIGHEST);
        const v16 x = v16_div(score, v16_set1(softcap));
        const v16 twice = v16_add(x, x);
        const v16 e = exponential(v16_where_less(highest, twice, highest, twice));
        score = v16_mul(v16_set1(softcap), v16_sub(one, v16_div(v16_set1(2.0f), v16_add(e, one))));
    }
    return score;
}

INLINE void dot_step(uint32_t rows, uint32_t blocks, bool converted, const struct dot *dot, uint32_t d,
                     v16 sums[DOT_ROWS][DOT_BLOCKS])
{
    v16 keys[DOT_BLOCKS];
    EACH (b, blocks) {
        keys[b] = load_key(converted, dot->keys[b], d);
    }
    EACH (r, rows) {
        const v16 query = v16_set1(dot->queries[(size_t) r * dot->key_size + d]);
        EACH (b, blocks) {
            sums[r][b] = v16_fma(query, keys[b], sums[r][b]);
        }
    }
}

INLINE void dot_tile(uint32_t rows, uint32_t blocks, bool converted, const struct dot *dot)
{
    v16 even[DOT_ROWS][DOT_BLOCKS];
    v16 odd[DOT_ROWS][DOT_BLOCKS];
    EACH (r, rows) {
        EACH (b, blocks) {
            even[r][b] = v16_set1(0.0f);
            odd[r][b] = v16_set1(0.0f);
        }
    }
    const uint32_t pairs = dot->key_size / 2;
    for (uint32_t i = 0; i < pairs; i++) {
        if (!converted) {
            EACH (b, blocks) {
                prefetch(dot->ahead[b], (size_t) i * 2 * LANES);
            }
        }
        dot_step(rows, blocks, converted, dot, 2 * i, even);
        dot_step(rows, blocks, converted, dot, 2 * i + 1, odd);
    }
    if (dot->key_size % 2 != 0) {
        dot_step(rows, blocks, converted, dot, dot->key_size - 1, even);
    }
    EACH (r, rows) {
        EACH (b, blocks) {
            const v16 score = scaled(v16_add(even[r][b], odd[r][b]), dot->scale, dot->softcap);
            v16_store(dot->scores + (size_t) r * PGD_CHUNK_TOKENS + (size_t) b * LANES, score);
        }
    }
}

static void dot_blocks(bool converted, const struct dot *dot, uint32_t rows, uint32_t blocks)
{
#define DOT_TILE(constant_rows) dot_tile(constant_rows, DOT_BLOCKS, true, dot)
#define DOT_TILE_F16(constant_rows) dot_tile(constant_rows, DOT_BLOCKS, false, dot)
#define DOT_BLOCK(constant_rows) dot_tile(constant_rows, 1, true, dot)
#define DOT_BLOCK_F16(constant_rows) dot_tile(constant_rows, 1, false, dot)
    if (blocks == DOT_BLOCKS) {
        if (converted) {
            FOR_DOT_ROWS(rows, DOT_TILE)
        } else {
            FOR_DOT_ROWS(rows, DOT_TILE_F16)
        }
    } else if (converted) {
        FOR_DOT_ROWS(rows, DOT_BLOCK)
    } else {
        FOR_DOT_ROWS(rows, DOT_BLOCK_F16)
    }
}

/* What is read a group later than key block `block`: another key block, or one of the values. */
static const uint16_t *ahead_of_keys(const struct call *call, uint32_t block)
{
    const uint32_t count = call->chunk->block_count;
    const uint32_t next = block + call->group_blocks;
    return next < count ? call->chunk->keys[next] : call->chunk->values[min_u32(next - count, count - 1)];
}

/* What is read a group later than value block `block`: another one, or keys of the chunk after this one. */
static const uint16_t *ahead_of_values(const struct call *call, uint32_t block)
{
    const uint32_t last = call->chunk->block_count - 1;
    const uint32_t later = block + call->group_blocks;
    if (later <= last) {
        return call->chunk->values[later];
    }
    const uint16_t *next = later - last <= PGD_CELLS_AHEAD ? call->chunk->ahead[later - last - 1] : NULL;
    return next != NULL ? next : call->chunk->values[last];
}

/* The scores of a tile for blocks [first, end) of one group, which starts at block `group`. */
static void dot_group(const struct call *call, const struct tile *tile, uint32_t group, uint32_t first, uint32_t end)
{
    const struct pgd_attend_shape *shape = call->shape;
    const size_t block_floats = (size_t) shape->key_size * LANES;
    for (uint32_t block = first; block < end;) {
        const uint32_t blocks = end - block < DOT_BLOCKS ? 1 : DOT_BLOCKS;
        struct dot dot = {
            .key_size = shape->key_size,
            .scale = shape->scale,
            .softcap = shape->softcap,
            .queries = call->rows->queries + (size_t) tile->row * shape->key_size,
            .scores = call->scores + (size_t) tile->row * PGD_CHUNK_TOKENS + (size_t) block * LANES,
        };
        for (uint32_t b = 0; b < blocks; b++) {
            if (call->converted) {
                dot.keys[b] = call->group + (block + b - group) * block_floats;
            } else {
                dot.keys[b] = call->chunk->keys[block + b];
                dot.ahead[b] = tile->row == 0 ? ahead_of_keys(call, block + b) : call->chunk->keys[block + b];
            }
        }
        dot_blocks(call->converted, &dot, tile->rows, blocks);
        block += blocks;
    }
}

static void convert_keys(const struct call *call, uint32_t first, uint32_t end)
{
    const size_t block_floats = (size_t) call->shape->key_size * LANES;
    float *to = call->group;
    for (uint32_t block = first; block < end; block++) {
        for (size_t i = 0; i < block_floats; i += LANES) {
            v16_store(to + i, v16_load_f16(call->chunk->keys[block] + i));
        }
        to += block_floats;
    }
}

static void dot_rows(const struct call *call, struct span any)
{
    const uint32_t last = div_up(any.end, LANES);
    for (uint32_t group = any.first / LANES; group < last; group += call->group_blocks) {
        const uint32_t group_end = min_u32(group + call->group_blocks, last);
        if (call->converted) {
            convert_keys(call, group, group_end);
        }
        for (uint32_t row = 0; row < call->rows->count; row += call->dot_rows) {
            const struct tile tile = tile_at(call, row, call->dot_rows);
            dot_group(call, &tile, group, max_u32(group, tile.any.first / LANES),
                      min_u32(group_end, div_up(tile.any.end, LANES)));
        }
    }
}

/* ---- steps 3 to 5: softmax ---- */

/* `a` in the lanes of this block that the row sees, `hidden` in the others. */
INLINE v16 masked(v16 a, struct span span, uint32_t block, float hidden)
{
    const uint32_t lane = block * LANES;
    if (span.first <= lane && lane + LANES <= span.end) {
        return a;
    }
    return v16_where_lanes(max_u32(span.first, lane) - lane, min_u32(span.end - lane, LANES), a, v16_set1(hidden));
}

/* Scores of the lanes that a row sees become weights. */
static void softmax_row(float *scores, struct span span, float *max_out, float *sum_out)
{
    if (span.first >= span.end) {
        *max_out = -INFINITY;
        *sum_out = 0.0f;
        return;
    }
    const uint32_t block_first = span.first / LANES;
    const uint32_t block_end = div_up(span.end, LANES);
    v16 largest = v16_set1(-INFINITY);
    for (uint32_t block = block_first; block < block_end; block++) {
        largest = v16_greater(masked(v16_load(scores + (size_t) block * LANES), span, block, -INFINITY), largest);
    }
    const float max = v16_largest(largest) + 0.0f; /* the sum turns -0 into +0 */
    v16 sums = v16_set1(0.0f);
    for (uint32_t block = block_first; block < block_end; block++) {
        float *at = scores + (size_t) block * LANES;
        const v16 weight = masked(exponential(v16_sub(v16_load(at), v16_set1(max))), span, block, 0.0f);
        v16_store(at, weight);
        sums = v16_add(sums, weight);
    }
    const float sum = v16_sum(sums);
    *sum_out = sum;
    *max_out = isnan(sum) ? sum : max;
}

/* What each block has of the row's sum; its weights are those that softmax_row left. */
static void sum_blocks(const float *weights, struct span span, float *blocks)
{
    const bool sees = span.first < span.end;
    for (uint32_t block = 0; block < PGD_CHUNK_BLOCKS; block++) {
        const bool seen = sees && span.first / LANES <= block && block < div_up(span.end, LANES);
        blocks[block] = seen ? v16_sum(v16_load(weights + (size_t) block * LANES)) : 0.0f;
    }
}

/* Steps 3 to 5 for one row. */
static void finish_scores(float *scores, struct span span, uint32_t row, const struct pgd_partial *partial)
{
    float *of_row = scores + (size_t) row * PGD_CHUNK_TOKENS;
    softmax_row(of_row, span, &partial->max[row], &partial->sum[row]);
    if (partial->blocks != NULL) {
        sum_blocks(of_row, span, partial->blocks + (size_t) row * PGD_CHUNK_BLOCKS);
    }
}

/* ---- step 6: outputs ---- */

struct weigh {
    const struct call *call;
    uint32_t group; /* first block of the converted group */
    uint32_t row;   /* first row */
    struct span lanes;
};

INLINE v16 load_value(bool converted, const void *values, size_t at, uint32_t n)
{
    if (converted) {
        return v16_load((const float *) values + at);
    }
    const uint16_t *halves = (const uint16_t *) values + at;
    return n == LANES ? v16_load_f16(halves) : v16_load_f16_n(halves, n);
}

/* Outputs d <= i < d + 16 * vectors; with one vector, d <= i < d + n. */
INLINE void weigh_tile(uint32_t rows, uint32_t vectors, bool converted, const struct weigh *weigh, uint32_t d,
                       uint32_t n)
{
    const struct call *call = weigh->call;
    const size_t stride = converted ? call->value_floats : call->shape->value_size;
    const size_t out_stride = call->shape->value_size;
    const float *weights = call->scores + (size_t) weigh->row * PGD_CHUNK_TOKENS;
    float *out = call->partial->out + weigh->row * out_stride + d;
    v16 sums[WEIGH_ROWS][WEIGH_VECTORS];
    EACH (r, rows) {
        EACH (v, vectors) {
            const float *from = out + r * out_stride + (size_t) v * LANES;
            sums[r][v] = n == LANES ? v16_load(from) : v16_load_n(from, n);
        }
    }
    for (uint32_t lane = weigh->lanes.first; lane < weigh->lanes.end;) {
        const uint32_t block = lane / LANES;
        const void *values = converted ? (const void *) (call->group + (block - weigh->group) * LANES * stride)
                                       : (const void *) call->chunk->values[block];
        const uint16_t *ahead = ahead_of_values(call, block);
        const uint32_t stop = min_u32(weigh->lanes.end, (block + 1) * LANES);
        for (; lane < stop; lane++) {
            const size_t at = (lane - block * LANES) * stride + d;
            v16 weight[WEIGH_ROWS];
            EACH (r, rows) {
                weight[r] = v16_set1(weights[(size_t) r * PGD_CHUNK_TOKENS + lane]);
            }
            EACH (v, vectors) {
                if (!converted && (vectors == 1 ? d / LANES : v) % 2 == 0) { /* a cache line holds two */
                    prefetch(ahead, at + (size_t) v * LANES);
                }
                const v16 value = load_value(converted, values, at + (size_t) v * LANES, n);
                EACH (r, rows) {
                    sums[r][v] = v16_fma(weight[r], value, sums[r][v]);
                }
            }
        }
    }
    EACH (r, rows) {
        EACH (v, vectors) {
            float *to = out + r * out_stride + (size_t) v * LANES;
            if (n == LANES) {
                v16_store(to, sums[r][v]);
            } else {
                v16_store_n(to, sums[r][v], n);
            }
        }
    }
}

/* All outputs of `rows` rows over lanes that all of them see. */
static void weigh_lanes(const struct weigh *weigh, uint32_t rows)
{
#define WEIGH_TILE(constant_rows) weigh_tile(constant_rows, WEIGH_VECTORS, true, weigh, d, LANES)
#define WEIGH_TILE_F16(constant_rows) weigh_tile(constant_rows, WEIGH_VECTORS, false, weigh, d, LANES)
#define WEIGH_VECTOR(constant_rows) weigh_tile(constant_rows, 1, true, weigh, d, n)
#define WEIGH_VECTOR_F16(constant_rows) weigh_tile(constant_rows, 1, false, weigh, d, n)
    const uint32_t size = weigh->call->shape->value_size;
    const bool converted = weigh->call->converted;
    if (weigh->lanes.first >= weigh->lanes.end) {
        return;
    }
    uint32_t d = 0;
    for (; size - d >= WEIGH_VECTORS * LANES; d += WEIGH_VECTORS * LANES) {
        if (converted) {
            FOR_WEIGH_ROWS(rows, WEIGH_TILE)
        } else {
            FOR_WEIGH_ROWS(rows, WEIGH_TILE_F16)
        }
    }
    for (; d < size; d += LANES) {
        const uint32_t n = min_u32(LANES, size - d);
        if (converted) {
            FOR_WEIGH_ROWS(rows, WEIGH_VECTOR)
        } else {
            FOR_WEIGH_ROWS(rows, WEIGH_VECTOR_F16)
        }
    }
}

/* The tile's outputs over the lanes of one group: together where all rows see, one by one at the edges. */
static void weigh_group(const struct call *call, const struct tile *tile, uint32_t group, struct span lanes)
{
    struct weigh weigh = {.call = call, .group = group};
    const struct span all = intersection(tile->all, lanes);
    const bool shared = all.first < all.end;
    for (uint32_t r = tile->row; r < tile->row + tile->rows; r++) {
        weigh.row = r;
        weigh.lanes = intersection(visible(call, r), lanes);
        weigh.lanes.end = shared ? all.first : weigh.lanes.end;
        weigh_lanes(&weigh, 1);
    }
    if (shared) {
        weigh.row = tile->row;
        weigh.lanes = all;
        weigh_lanes(&weigh, tile->rows);
        for (uint32_t r = tile->row; r < tile->row + tile->rows; r++) {
            weigh.row = r;
            weigh.lanes = intersection(visible(call, r), lanes);
            weigh.lanes.first = all.end;
            weigh_lanes(&weigh, 1);
        }
    }
}

static void convert_values(const struct call *call, uint32_t first, uint32_t end)
{
    const uint32_t size = call->shape->value_size;
    float *to = call->group;
    for (uint32_t block = first; block < end; block++) {
        for (size_t lane = 0; lane < LANES; lane++) {
            const uint16_t *from = call->chunk->values[block] + lane * size;
            uint32_t d = 0;
            for (; d + LANES <= size; d += LANES) {
                v16_store(to + d, v16_load_f16(from + d));
            }
            if (d < size) {
                v16_store(to + d, v16_load_f16_n(from + d, size - d));
            }
            to += call->value_floats;
        }
    }
}

static void weigh_rows(const struct call *call, struct span any)
{
    memset(call->partial->out, 0, (size_t) call->rows->count * call->shape->value_size * sizeof(float));
    const uint32_t last = div_up(any.end, LANES);
    for (uint32_t group = any.first / LANES; group < last; group += call->group_blocks) {
        const uint32_t group_end = min_u32(group + call->group_blocks, last);
        if (call->converted) {
            convert_values(call, group, group_end);
        }
        for (uint32_t row = 0; row < call->rows->count; row += call->weigh_rows) {
            const struct tile tile = tile_at(call, row, call->weigh_rows);
            weigh_group(call, &tile, group, (struct span) {group * LANES, group_end * LANES});
        }
    }
}

/* ---- the table's functions ---- */

/* Rows of a tile, so that tiles are of even size: not full ones and a small rest. */
static uint32_t even_part(uint32_t rows, uint32_t rows_max)
{
    return rows <= rows_max ? max_u32(rows, 1) : div_up(rows, div_up(rows, rows_max));
}

static void attend_chunk_f16(const struct pgd_attend_shape *shape, const struct pgd_chunk_f16 *chunk,
                             const struct pgd_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    const struct call call = {
        .shape = shape,
        .chunk = chunk,
        .rows = rows,
        .partial = partial,
        .group = scratch,
        .scores = scratch + pgd_kernels_group_floats(shape),
        .group_blocks = pgd_kernels_group_blocks(shape),
        .value_floats = div_up(shape->value_size, LANES) * LANES,
        .dot_rows = even_part(rows->count, DOT_ROWS),
        .weigh_rows = even_part(rows->count, WEIGH_ROWS),
        .converted = rows->count > CONVERT_ABOVE_TILES * DOT_ROWS,
    };
    const struct span any = tile_at(&call, 0, rows->count).any;
    dot_rows(&call, any);
    for (uint32_t row = 0; row < rows->count; row++) {
        finish_scores(call.scores, visible(&call, row), row, partial);
    }
    weigh_rows(&call, any);
}

static void merge_row(uint32_t size, float *max, float *sum, float *out, float later_max, float later_sum,
                      const float *later)
{
    if (later_max == -INFINITY) {
        return;
    }
    if (*max == -INFINITY) {
        *max = later_max;
        *sum = later_sum;
        memcpy(out, later, size * sizeof *out);
        return;
    }
    const float larger = later_max > *max ? later_max : *max;
    const v16 a = exponential(v16_set1(*max - larger));
    const v16 b = exponential(v16_set1(later_max - larger));
    float sums[LANES];
    v16_store(sums, v16_fma(v16_set1(*sum), a, v16_mul(v16_set1(later_sum), b)));
    *sum = sums[0];
    *max = isnan(sums[0]) ? sums[0] : larger;
    uint32_t d = 0;
    for (; d + LANES <= size; d += LANES) {
        v16_store(out + d, v16_fma(v16_load(out + d), a, v16_mul(v16_load(later + d), b)));
    }
    if (d < size) {
        const uint32_t n = size - d;
        v16_store_n(out + d, v16_fma(v16_load_n(out + d, n), a, v16_mul(v16_load_n(later + d, n), b)), n);
    }
}

static void merge(uint32_t count, uint32_t value_size, const struct pgd_partial *into, const struct pgd_partial *from)
{
    for (uint32_t r = 0; r < count; r++) {
        const size_t at = (size_t) r * value_size;
        merge_row(value_size, &into->max[r], &into->sum[r], into->out + at, from->max[r], from->sum[r], from->out + at);
    }
}

static void exponentials(uint32_t count, const float *x, float minus, float *out)
{
    uint32_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        v16_store(out + i, exponential(v16_sub(v16_load(x + i), v16_set1(minus))));
    }
    if (i < count) {
        v16_store_n(out + i, exponential(v16_sub(v16_load_n(x + i, count - i), v16_set1(minus))), count - i);
    }
}

/* to[i] = f16(from[i]); `to` has room for whole vectors. */
static void convert_row(uint32_t size, const float *from, uint16_t *to)
{
    uint32_t d = 0;
    for (; d + LANES <= size; d += LANES) {
        v16_store_f16(to + d, v16_load(from + d));
    }
    if (d < size) {
        v16_store_f16(to + d, v16_load_n(from + d, size - d));
    }
}

static void store_key_f16(uint32_t key_size, const float *row, uint32_t lane, uint16_t *keys)
{
    uint16_t halves[PGD_HEAD_SIZE_MAX];
    convert_row(key_size, row, halves);
    for (uint32_t d = 0; d < key_size; d++) {
        keys[(size_t) d * LANES + lane] = halves[d];
    }
}

static void store_value_f16(uint32_t value_size, const float *row, uint32_t lane, uint16_t *values)
{
    const uint32_t whole = value_size / LANES * LANES;
    uint16_t *to = values + (size_t) lane * value_size;
    convert_row(whole, row, to);
    if (whole < value_size) {
        uint16_t halves[LANES];
        convert_row(value_size - whole, row + whole, halves);
        memcpy(to + whole, halves, (value_size - whole) * sizeof *to);
    }
}

static void store_key_block_f16(uint32_t key_size, const float *rows, size_t row_stride, uint16_t *keys)
{
    uint16_t halves[LANES][LANES]; /* [lane][coordinate] */
    for (uint32_t d = 0; d < key_size; d += LANES) {
        const uint32_t n = min_u32(LANES, key_size - d);
        for (uint32_t lane = 0; lane < LANES; lane++) {
            convert_row(n, rows + lane * row_stride + d, halves[lane]);
        }
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t lane = 0; lane < LANES; lane++) {
                keys[((size_t) d + i) * LANES + lane] = halves[lane][i];
            }
        }
    }
}

#include "kernels/packed.inc.h"
/* This one needs what packed.inc.h needs, and more. */
#include "kernels/digest.inc.h"

#define PGD_DEFINE_LEVEL(variable, level_name) \
    const struct pgd_kernels variable = { \
        .name = level_name, \
        .attend_chunk_f16 = attend_chunk_f16, \
        .attend_chunk_packed = attend_chunk_packed, \
        .score_digests = score_digests, \
        .blend_digests = blend_digests, \
        .exponentials = exponentials, \
        .merge = merge, \
        .store_key_f16 = store_key_f16, \
        .store_value_f16 = store_value_f16, \
        .store_key_block_f16 = store_key_block_f16, \
    }
