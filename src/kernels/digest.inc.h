/* kernels/digest.inc.h - scoring and blending digests, written once over a vocabulary; included by attend.inc.h.
 *
 *   v16i_load_bytes(p)         16 bytes, one a lane
 *   v16i_bits(a, at, count)    (a >> at) & (2^count - 1), lane by lane; 0 <= a
 *   v16i_sum(a)                the sum of all lanes
 *   v64_load_bits(p)           16 bytes as 64 codes of 2 bits: code 16 k + i is bits 2k and 2k + 1 of byte i
 *   v64_join(low, high, at)    low | high << at, byte by byte; at is 2 or 4, and nothing is carried out of a byte
 *   v16i_dot4_each(sums, codes, words)   sums[i] += codes[4i .. 4i+3] . words[4i .. 4i+3]; codes are below 128, the
 *                              bytes of words have a sign
 */
#include "kernels/digest.h"
#include "kernels/logarithm.h"

#define TILE PGD_DIGEST_TILE
#define QUARTER (TILE / 4)

struct score_call {
    const struct pgd_attend_shape *shape;
    const struct pgd_packed_rows *rows;
    const struct pgd_digest_scores *scores;
    struct pgd_digest_layout layout;
    const uint8_t *words; /* [row][tile][high, low][TILE] */
    uint32_t tokens;
    uint32_t tiles;
};

/* Sixteen pages of one row, before what is done for all of them at once. */
struct score_batch {
    float max[LANES];
    float sum[LANES];
    float lean[PGD_DIGEST_LINES][LANES];
};

INLINE v16 logarithm(v16 x)
{
    const v16 four = v16_set1(4.0f);
    const v16 two = v16_set1(2.0f);
    v16 whole = v16_where_less(four, x, v16_set1(2 * PGD_LN_2), v16_set1(0.0f));
    x = v16_where_less(four, x, v16_mul(x, v16_set1(0.25f)), x);
    whole = v16_where_less(two, x, v16_add(whole, v16_set1(PGD_LN_2)), whole);
    x = v16_where_less(two, x, v16_mul(x, v16_set1(0.5f)), x);
    const v16 one = v16_set1(1.0f);
    const v16 z = v16_div(v16_sub(x, one), v16_add(x, one));
    const v16 square = v16_mul(z, z);
    v16 p = v16_set1(PGD_LN_C5);
    p = v16_fma(p, square, v16_set1(PGD_LN_C4));
    p = v16_fma(p, square, v16_set1(PGD_LN_C3));
    p = v16_fma(p, square, v16_set1(PGD_LN_C2));
    p = v16_fma(p, square, v16_set1(PGD_LN_C1));
    p = v16_fma(p, square, v16_set1(PGD_LN_C0));
    return v16_fma(p, z, whole);
}

/* The codes of a tile: 16 bytes, or 4 * quarter codes of the last tile. */
INLINE v64 load_bits(const uint8_t *plane, uint32_t quarter)
{
    if (quarter == QUARTER) {
        return v64_load_bits(plane);
    }
    uint8_t bytes[QUARTER] = {0};
    memcpy(bytes, plane, quarter);
    return v64_load_bits(bytes);
}

/* ---- step 1 ---- */

#define DIGEST_VECTORS (1 + PGD_DIGEST_LINES)   /* the mean and the lines */
#define DIGEST_TILES (PGD_HEAD_SIZE_MAX / TILE) /* at most */

/* The codes of a page's key mean and lines. */
static void unpack_keys(const struct score_call *call, const uint8_t *digest, v64 codes[DIGEST_VECTORS][DIGEST_TILES])
{
    const uint32_t plane_bytes = call->layout.key_plane;
    for (uint32_t tile = 0; tile < call->tiles; tile++) {
        const uint32_t at = tile * QUARTER;
        const uint32_t quarter = min_u32(QUARTER, plane_bytes - at);
        const uint8_t *plane = digest + call->layout.key_mean + at;
        const v64 low = load_bits(plane, quarter);
        const v64 middle = load_bits(plane + plane_bytes, quarter);
        const v64 high = load_bits(plane + (size_t) 2 * plane_bytes, quarter);
        codes[0][tile] = v64_join(v64_join(low, middle, 2), high, 4);
        for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
            codes[1 + line][tile] = load_bits(plane + (size_t) (3 + line) * plane_bytes, quarter);
        }
    }
}

INLINE float dot_vector(const struct score_call *call, uint32_t row, const v64 *codes, int32_t levels, float scale)
{
    const uint8_t *words = call->words + (size_t) row * call->tiles * 2 * TILE;
    v16i high = v16i_zero();
    v16i low = v16i_zero();
    for (uint32_t tile = 0; tile < call->tiles; tile++) {
        high = v16i_dot4_each(high, codes[tile], v64_load(words + (size_t) tile * 2 * TILE));
        low = v16i_dot4_each(low, codes[tile], v64_load(words + (size_t) tile * 2 * TILE + TILE));
    }
    const int32_t sum = v16i_sum(v16i_add(v16i_shift_left_7(high), low));
    return ((float) (2 * sum - levels * call->rows->sum[row]) * call->rows->unit[row]) * scale;
}

/* ---- steps 2 to 5, and the sums of step 6 ---- */

static void score_tokens(const struct score_call *call, const float lines[DIGEST_VECTORS], v16 first, v16 second,
                         struct score_batch *batch, uint32_t i)
{
    const struct span span = {0, call->tokens};
    v16 score = v16_fma(first, v16_set1(lines[1]), v16_set1(lines[0]));
    score = scaled(v16_fma(second, v16_set1(lines[2]), score), call->shape->scale, call->shape->softcap);
    const v16 lowest = v16_set1(-INFINITY);
    const float max = v16_largest(v16_greater(masked(score, span, 0, -INFINITY), lowest)) + 0.0f;
    const v16 weight = masked(exponential(v16_sub(score, v16_set1(max))), span, 0, 0.0f);
    batch->max[i] = max;
    batch->sum[i] = v16_sum(weight);
    batch->lean[0][i] = v16_sum(v16_mul(weight, first));
    batch->lean[1][i] = v16_sum(v16_mul(weight, second));
}

INLINE void finish_batch(const struct score_call *call, uint32_t row, uint32_t page, uint32_t count,
                         const struct score_batch *batch)
{
    const size_t at = (size_t) row * call->scores->stride + page;
    const v16 sum = v16_load_n(batch->sum, count);
    v16_store_n(call->scores->mass + at, v16_add(v16_load_n(batch->max, count), logarithm(sum)), count);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        v16_store_n(call->scores->lean[line] + at, v16_div(v16_load_n(batch->lean[line], count), sum), count);
    }
}

/* The numbers of a_t (line 0) or b_t. */
INLINE v16 load_along(const uint8_t *digest, const struct pgd_digest_layout *layout, uint32_t line)
{
    const v16i codes = v16i_bits(v16i_load_bytes(digest + layout->tokens), 4 * line, 4);
    return v16_fma(v16i_to_float(codes), v16_set1(2.0f), v16_set1(-15.0f));
}

static void load_scales(const uint8_t *digest, float scales[LANES])
{
    v16_store(scales, v16_load_f16_n((const uint16_t *) (const void *) digest, PGD_DIGEST_SCALES));
}

#define SCORE_ROWS 4u /* that share the work of reading a digest */

static void score_rows(const struct score_call *call, uint32_t row, uint32_t rows, uint32_t page, uint32_t pages,
                       const uint8_t *const *digests)
{
    static const int32_t levels[DIGEST_VECTORS] = {63, 3, 3};
    struct score_batch batches[SCORE_ROWS];
    for (uint32_t i = 0; i < pages; i++) {
        const uint8_t *digest = digests[page + i];
        v64 codes[DIGEST_VECTORS][DIGEST_TILES];
        float scales[LANES];
        unpack_keys(call, digest, codes);
        load_scales(digest, scales);
        const v16 first = load_along(digest, &call->layout, 0);
        const v16 second = load_along(digest, &call->layout, 1);
        for (uint32_t r = 0; r < rows; r++) {
            float lines[DIGEST_VECTORS];
            EACH (v, DIGEST_VECTORS) {
                lines[v] = dot_vector(call, row + r, codes[v], levels[v], scales[v]);
            }
            score_tokens(call, lines, first, second, &batches[r], i);
        }
    }
    for (uint32_t r = 0; r < rows; r++) {
        finish_batch(call, row + r, page, pages, &batches[r]);
    }
}

static void score_digests(const struct pgd_attend_shape *shape, uint32_t tokens, uint32_t count,
                          const uint8_t *const *digests, const struct pgd_packed_rows *rows, float *scratch,
                          const struct pgd_digest_scores *scores)
{
    int32_t *words = (int32_t *) (void *) scratch;
    pgd_digest_arrange(shape->key_size, rows, words);
    const struct score_call call = {
        .shape = shape,
        .rows = rows,
        .scores = scores,
        .layout = pgd_digest_layout(shape->key_size, shape->value_size),
        .words = (const uint8_t *) words,
        .tokens = tokens,
        .tiles = div_up(shape->key_size, TILE),
    };
    for (uint32_t page = 0; page < count; page += LANES) {
        for (uint32_t row = 0; row < rows->count; row += SCORE_ROWS) {
            score_rows(&call, row, min_u32(SCORE_ROWS, rows->count - row), page, min_u32(LANES, count - page), digests);
        }
    }
}

/* ---- blending ---- */

/* Numbers [16 k, 16 k + 16) of a tile of a plane, or fewer in the last tile. */
INLINE v16 odd_bits(v16i bytes, uint32_t k)
{
    return v16_fma(v16i_to_float(v16i_bits(bytes, 2 * k, 2)), v16_set1(2.0f), v16_set1(-3.0f));
}

struct blend_call {
    const struct pgd_attend_shape *shape;
    const uint8_t *const *digests;
    const float *weights; /* of the row */
    const float *lean[PGD_DIGEST_LINES];
    struct pgd_digest_layout layout;
    uint32_t count;
};

/* The outputs of one tile of one row. */
static void blend_tile(const struct blend_call *call, uint32_t tile, float *out)
{
    const uint32_t size = min_u32(TILE, call->shape->value_size - tile * TILE);
    const uint32_t quarter = div_up(size, 4);
    float outputs[TILE] = {0};
    v16 sums[4];
    for (uint32_t n = 0; n < size; n++) {
        outputs[16 * (n / quarter) + n % quarter] = out[n];
    }
    EACH (k, 4) {
        sums[k] = v16_load(outputs + (size_t) k * LANES);
    }
    for (uint32_t i = 0; i < call->count; i++) {
        const float weight = call->weights[i];
        if (weight == 0.0f) {
            continue;
        }
        float scales[LANES];
        load_scales(call->digests[i], scales);
        const uint8_t *plane = call->digests[i] + call->layout.value_mean + (size_t) tile * QUARTER;
        EACH (part, DIGEST_VECTORS) {
            const float lean = part == 0 ? weight : weight * call->lean[part - (part > 0)][i];
            const v16 times = v16_set1(lean * scales[PGD_DIGEST_VALUE_MEAN + part]);
            uint8_t bytes[QUARTER] = {0};
            memcpy(bytes, plane + (size_t) part * call->layout.value_plane, quarter);
            const v16i packed = v16i_load_bytes(bytes);
            EACH (k, 4) {
                sums[k] = v16_fma(times, odd_bits(packed, k), sums[k]);
            }
        }
    }
    EACH (k, 4) {
        v16_store(outputs + (size_t) k * LANES, sums[k]);
    }
    for (uint32_t n = 0; n < size; n++) {
        out[n] = outputs[16 * (n / quarter) + n % quarter];
    }
}

static void blend_digests(const struct pgd_attend_shape *shape, uint32_t count, const uint8_t *const *digests,
                          uint32_t rows, const float *weights, const struct pgd_digest_scores *scores, float *out)
{
    for (uint32_t row = 0; row < rows; row++) {
        const size_t at = (size_t) row * scores->stride;
        const struct blend_call call = {
            .shape = shape,
            .digests = digests,
            .weights = weights + at,
            .lean = {scores->lean[0] + at, scores->lean[1] + at},
            .layout = pgd_digest_layout(shape->key_size, shape->value_size),
            .count = count,
        };
        for (uint32_t tile = 0; tile < div_up(shape->value_size, TILE); tile++) {
            blend_tile(&call, tile, out + (size_t) row * shape->value_size + (size_t) tile * TILE);
        }
    }
}
