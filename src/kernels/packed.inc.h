/* kernels/packed.inc.h - attention on packed blocks, written once over a vocabulary; included by attend.inc.h.
 *
 *   v16i                            16 whole numbers of 32 bits
 *   v16i_zero(), v16i_set1(n)
 *   v16i_add(a, b), v16i_sub(a, b), v16i_mul(a, b)   modulo 2^32
 *   v16i_shift_left_7(a)
 *   v16i_to_float(a)                rounded to nearest even
 *   v16_round(a)                    to whole numbers, nearest even; |a| < 2^22
 *   v16i_store_planes(high, low, a) 0 <= a < 2^14: 16 bytes of a >> 7 and 16 bytes of a & 127
 *   v64                             64 codes: a tile
 *   v64_load(p)                     64 bytes
 *   v64_nibble(line, odd)           the low or the high nibble of each byte
 *   v64_with_bits(tile, line, at, count)   tile | (line >> at & (2^count - 1)) << 4, byte by byte; count is 1 or 2
 *   v16i_dot4(sums, codes, word)    sums[i] += codes[4i .. 4i+3] . the four signed bytes of `word`, codes below 128
 *   v16i_dot4_wide(...)             the same for codes up to 255
 *   v16i_store(p, a)
 *   PACKED_DOT_ROWS                 rows of a tile of scores: 2 accumulators a row and block
 *   PACKED_WEIGH_ROWS, PACKED_WEIGH_VECTORS   a tile of outputs: 2 accumulators a row and vector
 *   FOR_PACKED_DOT_ROWS, FOR_PACKED_WEIGH_ROWS
 *
 * All sums are of whole numbers, so their order is free: tiles of rows and outputs change no byte.
 */
#include "kernels/packed.h"

/* Everything that the steps of one call share. */
struct packed_call {
    const struct pgd_attend_shape *shape;
    const struct pgd_packed_chunk *chunk;
    const struct pgd_packed_rows *rows;
    const struct pgd_partial *partial;
    float *scores;   /* [rows][PGD_CHUNK_TOKENS]; become weights, then the two planes of whole weights */
    struct span any; /* lanes that some row sees */
    uint32_t tiles;  /* of a block's keys */
};

/* A tile of a plane of `bits` bits. `tile` modulo 8 is a constant where speed matters. */
INLINE v64 load_tile(uint32_t bits, const uint8_t *low, const uint8_t *high, uint32_t tile)
{
    if (bits == 8) {
        return v64_load(low + (size_t) tile * PGD_PACKED_LINE);
    }
    const v64 codes = v64_nibble(v64_load(low + (size_t) (tile / 2) * PGD_PACKED_LINE), tile % 2);
    if (bits == 5) {
        return v64_with_bits(codes, v64_load(high + (size_t) (tile / 8) * PGD_PACKED_LINE), tile % 8, 1);
    }
    if (bits == 6) {
        return v64_with_bits(codes, v64_load(high + (size_t) (tile / 4) * PGD_PACKED_LINE), 2 * (tile % 4), 2);
    }
    return codes;
}

INLINE v16i dot_codes(uint32_t bits, v16i sums, v64 codes, int32_t word)
{
    return bits == 8 ? v16i_dot4_wide(sums, codes, word) : v16i_dot4(sums, codes, word);
}

/* 128 * high + low, twice, less the middle of the codes times `sum`: the odd numbers that codes stand for. */
INLINE v16i odd_numbers(uint32_t bits, v16i high, v16i low, v16i sum)
{
    const v16i all = v16i_add(v16i_shift_left_7(high), low);
    return v16i_sub(v16i_add(all, all), v16i_mul(v16i_set1((int32_t) ((1u << bits) - 1u)), sum));
}

/* ---- step 1: scores of one block for a tile of rows ---- */

/* What is fetched while a block's keys are being used: a later block, all of it, so that its values are near too when
 * their turn comes. A part for every tile of keys; two lines cover a part. */
struct ahead {
    const uint8_t *block; /* NULL: nothing is fetched */
    uint32_t part_bytes;
};

#define BLOCKS_AHEAD 2u /* at most PGD_CELLS_AHEAD */

static struct ahead ahead_of(const struct packed_call *call, uint32_t row, uint32_t block)
{
    const uint32_t later = block + BLOCKS_AHEAD;
    const uint32_t count = call->chunk->block_count;
    if (row != 0) {
        return (struct ahead) {NULL, 0};
    }
    const uint8_t *bytes = later < count ? call->chunk->blocks[later] : call->chunk->ahead[later - count];
    return (struct ahead) {bytes, div_up(call->chunk->layout->bytes, call->tiles)};
}

INLINE void fetch_ahead(const struct ahead *ahead, uint32_t tile)
{
    if (ahead->block != NULL) {
        const uint8_t *part = ahead->block + (size_t) tile * ahead->part_bytes;
        __builtin_prefetch(part, 0, 2);
        __builtin_prefetch(part + PGD_PACKED_LINE, 0, 2);
    }
}

INLINE void packed_dot_step(uint32_t rows, uint32_t bits, const uint8_t *block, const uint8_t *block_high,
                            const int32_t *high, const int32_t *low, uint32_t stride, uint32_t tile,
                            v16i sums[PACKED_DOT_ROWS][2])
{
    const v64 codes = load_tile(bits, block, block_high, tile);
    EACH (r, rows) {
        sums[r][0] = dot_codes(bits, sums[r][0], codes, high[(size_t) r * stride + tile]);
        sums[r][1] = dot_codes(bits, sums[r][1], codes, low[(size_t) r * stride + tile]);
    }
}

INLINE void packed_dot_tile(uint32_t rows, uint32_t bits, const struct packed_call *call, uint32_t row, uint32_t block)
{
    const uint8_t *bytes = call->chunk->blocks[block];
    const uint8_t *bytes_high = bytes + call->chunk->layout->key_high;
    const int32_t *high = call->rows->high + (size_t) row * call->tiles;
    const int32_t *low = call->rows->low + (size_t) row * call->tiles;
    const struct ahead ahead = ahead_of(call, row, block);
    v16i sums[PACKED_DOT_ROWS][2];
    EACH (r, rows) {
        sums[r][0] = v16i_zero();
        sums[r][1] = v16i_zero();
    }
    uint32_t tile = 0;
    for (; tile + 8 <= call->tiles; tile += 8) {
        EACH (i, 8) { /* tile + i modulo 8 is a constant here */
            fetch_ahead(&ahead, tile + i);
            packed_dot_step(rows, bits, bytes + (size_t) tile * PGD_PACKED_LINE * (bits == 8 ? 2 : 1) / 2,
                            bytes_high + (size_t) tile / (bits == 5 ? 8 : 4) * PGD_PACKED_LINE, high + tile, low + tile,
                            call->tiles, i, sums);
        }
    }
    for (; tile < call->tiles; tile++) {
        packed_dot_step(rows, bits, bytes, bytes_high, high, low, call->tiles, tile, sums);
    }
    const v16 scales = v16_load_f16((const uint16_t *) (const void *) (bytes + call->chunk->layout->key_scales));
    EACH (r, rows) {
        const v16i raw = odd_numbers(bits, sums[r][0], sums[r][1], v16i_set1(call->rows->sum[row + r]));
        const v16 score = v16_mul(v16_mul(v16i_to_float(raw), v16_set1(call->rows->unit[row + r])), scales);
        v16_store(call->scores + (size_t) (row + r) * PGD_CHUNK_TOKENS + (size_t) block * LANES,
                  scaled(score, call->shape->scale, call->shape->softcap));
    }
}

INLINE void packed_dot_rows(uint32_t bits, const struct packed_call *call)
{
#define PACKED_DOT(constant_rows) packed_dot_tile(constant_rows, bits, call, row, block)
    const uint32_t step = even_part(call->rows->count, PACKED_DOT_ROWS);
    for (uint32_t block = call->any.first / LANES; block < div_up(call->any.end, LANES); block++) {
        for (uint32_t row = 0; row < call->rows->count; row += step) {
            const uint32_t rows = min_u32(step, call->rows->count - row);
            FOR_PACKED_DOT_ROWS(rows, PACKED_DOT)
        }
    }
}

static void packed_dot(const struct packed_call *call)
{
    switch (call->chunk->layout->key_bits) {
    case 4: packed_dot_rows(4, call); break;
    case 5: packed_dot_rows(5, call); break;
    case 6: packed_dot_rows(6, call); break;
    default: packed_dot_rows(8, call); break;
    }
}

/* ---- step 6: whole weights, and outputs ---- */

/* The planes of a row's whole weights lie where its scores were: the high plane first. */
INLINE uint8_t *planes_of(const struct packed_call *call, uint32_t row)
{
    return (uint8_t *) (void *) (call->scores + (size_t) row * PGD_CHUNK_TOKENS);
}

INLINE v16 value_scales(const struct packed_call *call, uint32_t block)
{
    const uint8_t *bytes = call->chunk->blocks[block] + call->chunk->layout->value_scales;
    return v16_load_f16((const uint16_t *) (const void *) bytes);
}

/* Returns what one stands for; *sum becomes the sum of the whole weights. Blocks of `any` outside the row's span
 * get zeros. */
static float packed_weights(const struct packed_call *call, uint32_t row, int32_t *sum)
{
    const struct span span = {call->rows->first[row], call->rows->end[row]};
    const float *scores = call->scores + (size_t) row * PGD_CHUNK_TOKENS;
    const uint32_t block_first = call->any.first / LANES;
    const uint32_t block_end = div_up(call->any.end, LANES);
    const bool sees = span.first < span.end;
    v16 weights[PGD_CHUNK_BLOCKS];
    v16 largest = v16_set1(0.0f);
    v16 sums = v16_set1(0.0f);
    for (uint32_t block = block_first; block < block_end; block++) {
        const bool seen = sees && span.first / LANES <= block && block < div_up(span.end, LANES);
        weights[block] = v16_set1(0.0f);
        if (seen) {
            const v16 weight = v16_mul(v16_load(scores + (size_t) block * LANES), value_scales(call, block));
            weights[block] = masked(weight, span, block, 0.0f);
            largest = v16_greater(weights[block], largest);
            sums = v16_add(sums, weights[block]);
        }
    }
    const float max = v16_sum(sums) < INFINITY ? v16_largest(largest) : NAN;
    const float factor = max >= PGD_PACKED_WEIGHT_LEAST ? (float) PGD_PACKED_WEIGHT_MAX / max : 0.0f;
    uint8_t *planes = planes_of(call, row);
    v16i whole_sum = v16i_zero();
    for (uint32_t block = block_first; block < block_end; block++) {
        const v16i whole = factor == 0.0f ? v16i_zero() : v16_round(v16_mul(weights[block], v16_set1(factor)));
        v16i_store_planes(planes + (size_t) block * LANES, planes + PGD_CHUNK_TOKENS + (size_t) block * LANES, whole);
        whole_sum = v16i_add(whole_sum, whole);
    }
    int32_t lanes[LANES];
    v16i_store(lanes, whole_sum);
    *sum = 0;
    for (uint32_t i = 0; i < LANES; i++) {
        *sum += lanes[i];
    }
    return max / (float) PGD_PACKED_WEIGHT_MAX;
}

INLINE int32_t word_at(const uint8_t *bytes)
{
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* What the rows of a tile stand for. */
struct packed_units {
    float unit[PACKED_WEIGH_ROWS];
    int32_t sum[PACKED_WEIGH_ROWS];
};

/* Outputs of vectors [vector, vector + vectors) of a tile of rows; parity = vector % 2. Two vectors are eight
 * tiles, so with a constant parity the places of all bits are constants. */
INLINE void packed_weigh_tile(uint32_t rows, uint32_t vectors, uint32_t parity, uint32_t bits,
                              const struct packed_call *call, uint32_t row, uint32_t vector,
                              const struct packed_units *units)
{
    const struct pgd_packed_layout *layout = call->chunk->layout;
    v16i sums[PACKED_WEIGH_ROWS][PACKED_WEIGH_VECTORS][2];
    EACH (r, rows) {
        EACH (v, vectors) {
            sums[r][v][0] = v16i_zero();
            sums[r][v][1] = v16i_zero();
        }
    }
    for (uint32_t block = call->any.first / LANES; block < div_up(call->any.end, LANES); block++) {
        const uint8_t *bytes = call->chunk->blocks[block];
        const size_t tile = (size_t) 4 * (vector - parity);
        const uint8_t *low = bytes + layout->value_low + tile * PGD_PACKED_LINE * (bits == 8 ? 2 : 1) / 2;
        const uint8_t *high = bytes + layout->value_high + tile / (bits == 5 ? 8 : 4) * PGD_PACKED_LINE;
        EACH (t, 4) {
            int32_t words[PACKED_WEIGH_ROWS][2];
            EACH (r, rows) {
                const uint8_t *planes = planes_of(call, row + r) + (size_t) block * LANES + (size_t) t * 4;
                words[r][0] = word_at(planes);
                words[r][1] = word_at(planes + PGD_CHUNK_TOKENS);
            }
            EACH (v, vectors) {
                const v64 codes = load_tile(bits, low, high, 4 * (parity + v) + t);
                EACH (r, rows) {
                    sums[r][v][0] = dot_codes(bits, sums[r][v][0], codes, words[r][0]);
                    sums[r][v][1] = dot_codes(bits, sums[r][v][1], codes, words[r][1]);
                }
            }
        }
    }
    EACH (r, rows) {
        EACH (v, vectors) {
            const v16i raw = odd_numbers(bits, sums[r][v][0], sums[r][v][1], v16i_set1(units->sum[r]));
            const v16 out = v16_mul(v16i_to_float(raw), v16_set1(units->unit[r]));
            const uint32_t d = (vector + v) * LANES;
            float *to = call->partial->out + (size_t) (row + r) * call->shape->value_size + d;
            const uint32_t n = min_u32(LANES, call->shape->value_size - d);
            if (n == LANES) {
                v16_store(to, out);
            } else {
                v16_store_n(to, out, n);
            }
        }
    }
}

INLINE void packed_weigh_tiles(uint32_t rows, uint32_t bits, const struct packed_call *call, uint32_t row,
                               const struct packed_units *units)
{
    const uint32_t count = div_up(call->shape->value_size, LANES);
    uint32_t vector = 0;
    for (; PACKED_WEIGH_VECTORS % 2 == 0 && vector + PACKED_WEIGH_VECTORS <= count; vector += PACKED_WEIGH_VECTORS) {
        packed_weigh_tile(rows, PACKED_WEIGH_VECTORS, 0, bits, call, row, vector, units);
    }
    for (; vector < count; vector++) {
        if (vector % 2 == 0) {
            packed_weigh_tile(rows, 1, 0, bits, call, row, vector, units);
        } else {
            packed_weigh_tile(rows, 1, 1, bits, call, row, vector, units);
        }
    }
}

INLINE void packed_weigh_rows(uint32_t bits, const struct packed_call *call)
{
#define PACKED_WEIGH(constant_rows) packed_weigh_tiles(constant_rows, bits, call, row, &units)
    const uint32_t step = even_part(call->rows->count, PACKED_WEIGH_ROWS);
    for (uint32_t row = 0; row < call->rows->count; row += step) {
        const uint32_t rows = min_u32(step, call->rows->count - row);
        struct packed_units units;
        for (uint32_t r = 0; r < rows; r++) {
            units.unit[r] = packed_weights(call, row + r, &units.sum[r]);
        }
        FOR_PACKED_WEIGH_ROWS(rows, PACKED_WEIGH)
    }
}

static void packed_weigh(const struct packed_call *call)
{
    switch (call->chunk->layout->value_bits) {
    case 4: packed_weigh_rows(4, call); break;
    case 5: packed_weigh_rows(5, call); break;
    case 6: packed_weigh_rows(6, call); break;
    default: packed_weigh_rows(8, call); break;
    }
}

/* ---- the table's function ---- */

static struct span seen_by_any(const struct pgd_packed_rows *rows)
{
    struct span any = {UINT32_MAX, 0};
    for (uint32_t r = 0; r < rows->count; r++) {
        if (rows->first[r] < rows->end[r]) {
            any.first = min_u32(any.first, rows->first[r]);
            any.end = max_u32(any.end, rows->end[r]);
        }
    }
    return any.end == 0 ? (struct span) {0, 0} : any;
}

static void attend_chunk_packed(const struct pgd_attend_shape *shape, const struct pgd_packed_chunk *chunk,
                                const struct pgd_packed_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    const struct packed_call call = {
        .shape = shape,
        .chunk = chunk,
        .rows = rows,
        .partial = partial,
        .scores = scratch,
        .any = seen_by_any(rows),
        .tiles = rows->tiles,
    };
    packed_dot(&call);
    for (uint32_t row = 0; row < rows->count; row++) {
        finish_scores(call.scores, (struct span) {rows->first[row], rows->end[row]}, row, partial);
    }
    packed_weigh(&call);
}
