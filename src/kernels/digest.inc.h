/* kernels/digest.inc.h - scoring and blending digests, written once over a vocabulary; included by attend.inc.h.
 *
 *   v16i_load_bytes(p)         16 bytes, one a lane
 *   v16i_bits(a, at, count)    (a >> at) & (2^count - 1), lane by lane; 0 <= a
 *   v16i_sums(a)               from 16 vectors: lane i is the sum of the lanes of a[i]
 *   v16_odd(a, at)             2 * (a >> at & 3) - 3, lane by lane
 *   v64_load_bits(p)           16 bytes as 64 codes of 2 bits: code 16 k + i is bits 2k and 2k + 1 of byte i
 *   v64_join(low, high, at)    low | high << at, byte by byte; at is 2 or 4, and nothing is carried out of a byte
 *   v16i_dot4_each(sums, codes, words)   sums[i] += codes[4i .. 4i+3] . words[4i .. 4i+3]; codes are below 128, the
 *                              bytes of words have a sign
 *
 * Pages go in batches of 16. A page is dotted with the rows when its codes are at hand; all that comes after has a page
 * in each lane, so that nothing is summed across lanes but the dot products, and those 16 at a time.
 */
#include "kernels/digest.h"
#include "kernels/logarithm.h"

#define TILE PGD_DIGEST_TILE
#define QUARTER (TILE / 4)
#define DIGEST_VECTORS (1 + PGD_DIGEST_LINES)   /* a mean and the lines */
#define DIGEST_TILES (PGD_HEAD_SIZE_MAX / TILE) /* at most */
#define DIGEST_ROWS 4u                          /* that share the work of reading a digest */

/* Up to 16 pages; the last one is repeated when they are fewer. */
struct batch {
    const uint8_t *digests[LANES];
    const uint8_t *ahead[LANES]; /* those of the next batch, to be fetched meanwhile */
    const uint8_t *along[LANES]; /* for scoring only, like details */
    const uint8_t *details[LANES];
    uint32_t page; /* of the first */
    uint32_t count;
};

struct score_call {
    const struct pgd_attend_shape *shape;
    const struct pgd_packed_rows *rows;
    const struct pgd_digest_scores *scores;
    struct pgd_digest_layout layout;
    const struct pgd_digest_pages *pages;
    const uint8_t *words; /* [row][tile][high, low][TILE] */
    uint32_t tiles;
};

static struct batch batch_at(const uint8_t *const *digests, uint32_t page, uint32_t pages)
{
    struct batch batch = {.page = page, .count = min_u32(LANES, pages - page)};
    for (uint32_t i = 0; i < LANES; i++) {
        batch.digests[i] = digests[page + min_u32(i, batch.count - 1)];
        batch.ahead[i] = digests[min_u32(page + LANES + i, pages - 1)];
    }
    return batch;
}

/* Fetches bytes [first, end) of a digest of the next batch. */
INLINE void fetch_bytes(const uint8_t *digest, uint32_t first, uint32_t end)
{
    for (uint32_t at = first; at < end; at += PGD_PACKED_LINE) {
        __builtin_prefetch(digest + at, 0, 3);
    }
    __builtin_prefetch(digest + end - 1, 0, 3);
}

/* Scale `which` of every page. */
INLINE v16 batch_scales(const struct batch *batch, uint32_t which)
{
    uint16_t halves[LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        memcpy(&halves[i], batch->digests[i] + which * sizeof *halves, sizeof *halves);
    }
    return v16_load_f16(halves);
}

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

/* Sums for all vectors of a page, for some rows: sums[row][vector] of this page. */
INLINE void dot_page(const struct score_call *call, uint32_t row, uint32_t rows,
                     v64 codes[DIGEST_VECTORS][DIGEST_TILES], uint32_t page,
                     v16i sums[DIGEST_ROWS][DIGEST_VECTORS][LANES])
{
    for (uint32_t r = 0; r < rows; r++) {
        const uint8_t *words = call->words + (size_t) (row + r) * call->tiles * 2 * TILE;
        v16i high[DIGEST_VECTORS];
        v16i low[DIGEST_VECTORS];
        EACH (v, DIGEST_VECTORS) {
            high[v] = v16i_zero();
            low[v] = v16i_zero();
        }
        for (uint32_t tile = 0; tile < call->tiles; tile++) {
            const v64 high_words = v64_load(words + (size_t) tile * 2 * TILE);
            const v64 low_words = v64_load(words + (size_t) tile * 2 * TILE + TILE);
            EACH (v, DIGEST_VECTORS) {
                high[v] = v16i_dot4_each(high[v], codes[v][tile], high_words);
                low[v] = v16i_dot4_each(low[v], codes[v][tile], low_words);
            }
        }
        EACH (v, DIGEST_VECTORS) {
            sums[r][v][page] = v16i_add(v16i_shift_left_7(high[v]), low[v]);
        }
    }
}

/* What the sums of one vector of all pages stand for. */
INLINE v16 dotted(const struct score_call *call, uint32_t row, const v16i sums[LANES], int32_t levels, v16 scales)
{
    const v16i sum = v16i_sums(sums);
    const v16i raw = v16i_sub(v16i_add(sum, sum), v16i_set1(levels * call->rows->sum[row]));
    return v16_mul(v16_mul(v16i_to_float(raw), v16_set1(call->rows->unit[row])), scales);
}

/* ---- steps 2 to 6 ---- */

/* The codes of a_t and b_t, a token's of all pages together. */
static void turn_tokens(const struct batch *batch, uint8_t codes[LANES][LANES])
{
    for (uint32_t i = 0; i < LANES; i++) {
        for (uint32_t t = 0; t < LANES; t++) {
            codes[t][i] = batch->along[i][t];
        }
    }
}

/* a_t (line 0) or b_t of all pages. */
INLINE v16 along(const uint8_t codes[LANES], uint32_t line)
{
    const v16i numbers = v16i_bits(v16i_load_bytes(codes), 4 * line, 4);
    return v16_fma(v16i_to_float(numbers), v16_set1(2.0f), v16_set1(-15.0f));
}

static void sum_tokens(const struct score_call *call, uint32_t row, const struct batch *batch,
                       uint8_t codes[LANES][LANES], const v16 scores[LANES])
{
    v16 max = v16_set1(-INFINITY);
    for (uint32_t t = 0; t < call->pages->tokens; t++) {
        max = v16_greater(scores[t], max);
    }
    max = v16_add(max, v16_set1(0.0f));
    v16 sum = v16_set1(0.0f);
    v16 lean[PGD_DIGEST_LINES] = {sum, sum};
    for (uint32_t t = 0; t < call->pages->tokens; t++) {
        const v16 weight = exponential(v16_sub(scores[t], max));
        sum = v16_add(sum, weight);
        EACH (line, PGD_DIGEST_LINES) {
            lean[line] = v16_fma(weight, along(codes[t], line), lean[line]);
        }
    }
    const size_t at = (size_t) row * call->scores->stride + batch->page;
    v16_store_n(call->scores->mass + at, v16_add(max, logarithm(sum)), batch->count);
    EACH (line, PGD_DIGEST_LINES) {
        v16_store_n(call->scores->lean[line] + at, v16_div(lean[line], sum), batch->count);
    }
}

static void score_batch(const struct score_call *call, uint32_t row, uint32_t rows, const struct batch *batch)
{
    static const int32_t levels[DIGEST_VECTORS] = {63, 3, 3};
    v16i sums[DIGEST_ROWS][DIGEST_VECTORS][LANES];
    uint8_t tokens[LANES][LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        v64 codes[DIGEST_VECTORS][DIGEST_TILES];
        fetch_bytes(batch->ahead[i], 0, call->layout.value_mean);
        unpack_keys(call, batch->digests[i], codes);
        dot_page(call, row, rows, codes, i, sums);
    }
    turn_tokens(batch, tokens);
    v16 scales[DIGEST_VECTORS];
    EACH (v, DIGEST_VECTORS) {
        scales[v] = batch_scales(batch, v);
    }
    for (uint32_t r = 0; r < rows; r++) {
        v16 lines[DIGEST_VECTORS];
        EACH (v, DIGEST_VECTORS) {
            lines[v] = dotted(call, row + r, sums[r][v], levels[v], scales[v]);
        }
        v16 scores[LANES];
        for (uint32_t t = 0; t < call->pages->tokens; t++) {
            const v16 first = v16_fma(along(tokens[t], 0), lines[1], lines[0]);
            scores[t] = scaled(v16_fma(along(tokens[t], 1), lines[2], first), call->shape->scale, call->shape->softcap);
        }
        sum_tokens(call, row + r, batch, tokens, scores);
    }
}

/* ---- the same with details ---- */

/* What each token of a page has of its own, with some rows: a token in each lane. */
static void dot_tokens(const struct score_call *call, uint32_t row, uint32_t rows, const uint8_t *detail,
                       v16 own[DIGEST_ROWS])
{
    const uint32_t plane_bytes = call->layout.key_plane;
    const uint8_t *planes = detail + LANES * sizeof(uint16_t);
    uint16_t halves[LANES];
    v16i sums[DIGEST_ROWS][LANES];
    for (uint32_t t = 0; t < LANES; t++) {
        v16i high[DIGEST_ROWS];
        v16i low[DIGEST_ROWS];
        for (uint32_t r = 0; r < rows; r++) {
            high[r] = v16i_zero();
            low[r] = v16i_zero();
        }
        for (uint32_t tile = 0; tile < call->tiles; tile++) {
            const uint32_t at = tile * QUARTER;
            const uint32_t quarter = min_u32(QUARTER, plane_bytes - at);
            const uint8_t *plane = planes + (size_t) 2 * t * plane_bytes + at;
            const v64 codes = v64_join(load_bits(plane, quarter), load_bits(plane + plane_bytes, quarter), 2);
            for (uint32_t r = 0; r < rows; r++) {
                const uint8_t *words = call->words + ((size_t) (row + r) * call->tiles + tile) * 2 * TILE;
                high[r] = v16i_dot4_each(high[r], codes, v64_load(words));
                low[r] = v16i_dot4_each(low[r], codes, v64_load(words + TILE));
            }
        }
        for (uint32_t r = 0; r < rows; r++) {
            sums[r][t] = v16i_add(v16i_shift_left_7(high[r]), low[r]);
        }
    }
    memcpy(halves, detail, sizeof halves);
    const v16 scales = v16_load_f16(halves);
    for (uint32_t r = 0; r < rows; r++) {
        own[r] = dotted(call, row + r, sums[r], 15, scales);
    }
}

/* The key means of all pages, with some rows. */
static void dot_means(const struct score_call *call, uint32_t row, uint32_t rows, const struct batch *batch,
                      v16 means[DIGEST_ROWS])
{
    v16i sums[DIGEST_ROWS][DIGEST_VECTORS][LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        v64 codes[DIGEST_VECTORS][DIGEST_TILES];
        unpack_keys(call, batch->digests[i], codes);
        dot_page(call, row, rows, codes, i, sums);
    }
    for (uint32_t r = 0; r < rows; r++) {
        means[r] = dotted(call, row + r, sums[r][0], 63, batch_scales(batch, PGD_DIGEST_KEY_MEAN));
    }
}

static void score_batch_in_detail(const struct score_call *call, uint32_t row, uint32_t rows, const struct batch *batch)
{
    float own[DIGEST_ROWS][LANES][LANES]; /* [row][token][page] */
    uint8_t tokens[LANES][LANES];
    v16 means[DIGEST_ROWS];
    for (uint32_t i = 0; i < LANES; i++) {
        v16 of_page[DIGEST_ROWS];
        dot_tokens(call, row, rows, batch->details[i], of_page);
        for (uint32_t r = 0; r < rows; r++) {
            float lanes[LANES];
            v16_store(lanes, of_page[r]);
            for (uint32_t t = 0; t < LANES; t++) {
                own[r][t][i] = lanes[t];
            }
        }
    }
    dot_means(call, row, rows, batch, means);
    turn_tokens(batch, tokens);
    for (uint32_t r = 0; r < rows; r++) {
        v16 scores[LANES];
        for (uint32_t t = 0; t < call->pages->tokens; t++) {
            scores[t] = scaled(v16_add(means[r], v16_load(own[r][t])), call->shape->scale, call->shape->softcap);
        }
        sum_tokens(call, row + r, batch, tokens, scores);
    }
}

static struct batch score_batch_at(const struct pgd_digest_pages *pages, uint32_t page)
{
    struct batch batch = batch_at(pages->digests, page, pages->count);
    for (uint32_t i = 0; i < LANES; i++) {
        const uint32_t at = page + min_u32(i, batch.count - 1);
        batch.along[i] = pages->along[at];
        batch.details[i] = pages->details == NULL ? NULL : pages->details[at];
    }
    return batch;
}

static void score_digests(const struct pgd_attend_shape *shape, const struct pgd_digest_pages *pages,
                          const struct pgd_packed_rows *rows, float *scratch, const struct pgd_digest_scores *scores)
{
    int32_t *words = (int32_t *) (void *) scratch;
    pgd_digest_arrange(shape->key_size, rows, words);
    const struct score_call call = {
        .shape = shape,
        .rows = rows,
        .scores = scores,
        .layout = pgd_digest_layout(shape->key_size, shape->value_size),
        .pages = pages,
        .words = (const uint8_t *) words,
        .tiles = div_up(shape->key_size, TILE),
    };
    for (uint32_t page = 0; page < pages->count; page += LANES) {
        const struct batch batch = score_batch_at(pages, page);
        for (uint32_t row = 0; row < rows->count; row += DIGEST_ROWS) {
            const uint32_t now = min_u32(DIGEST_ROWS, rows->count - row);
            if (pages->details == NULL) {
                score_batch(&call, row, now, &batch);
            } else {
                score_batch_in_detail(&call, row, now, &batch);
            }
        }
    }
}

/* ---- blending ---- */

struct blend_call {
    const struct pgd_digest_layout *layout;
    const struct batch *batch;
    uint32_t rows;
    bool idle[LANES];                                /* no row wants the page */
    float times[LANES][DIGEST_ROWS][DIGEST_VECTORS]; /* of a page's value mean and lines */
};

/* What weights and leans make of the scales of the value mean and lines. */
static void weigh_batch(struct blend_call *call, const float *weights, const struct pgd_digest_scores *scores,
                        uint32_t row)
{
    const uint32_t count = call->batch->count;
    v16 scales[DIGEST_VECTORS];
    EACH (v, DIGEST_VECTORS) {
        scales[v] = batch_scales(call->batch, PGD_DIGEST_VALUE_MEAN + v);
    }
    for (uint32_t r = 0; r < call->rows; r++) {
        const size_t at = (size_t) (row + r) * scores->stride + call->batch->page;
        const v16 weight = v16_load_n(weights + at, count);
        EACH (v, DIGEST_VECTORS) {
            const v16 leaning = v == 0 ? weight : v16_mul(weight, v16_load_n(scores->lean[v - (v > 0)] + at, count));
            float times[LANES];
            v16_store(times, v16_mul(leaning, scales[v]));
            for (uint32_t i = 0; i < count; i++) {
                call->times[i][r][v] = weights[at + i] == 0.0f ? 0.0f : times[i];
            }
        }
        for (uint32_t i = 0; i < count; i++) {
            call->idle[i] = (r == 0 || call->idle[i]) && weights[at + i] == 0.0f;
        }
    }
}

INLINE v16i load_plane(const uint8_t *plane, uint32_t quarter)
{
    uint8_t bytes[QUARTER] = {0};
    if (quarter < QUARTER) {
        memcpy(bytes, plane, quarter);
        plane = bytes;
    }
    return v16i_load_bytes(plane);
}

/* Adds to outputs k * quarter <= d < k * quarter + n of a tile; `plane` is where the tile starts in the value mean. */
INLINE void blend_quarter(uint32_t rows, const struct blend_call *call, size_t plane, uint32_t quarter, uint32_t k,
                          uint32_t n, float *out, size_t out_stride)
{
    v16 sums[DIGEST_ROWS];
    EACH (r, rows) {
        sums[r] = n == LANES ? v16_load(out + r * out_stride) : v16_load_n(out + r * out_stride, n);
    }
    for (uint32_t i = 0; i < call->batch->count; i++) {
        if (call->idle[i]) {
            continue;
        }
        EACH (v, DIGEST_VECTORS) {
            const uint8_t *bytes = call->batch->digests[i] + plane + (size_t) v * call->layout->value_plane;
            const v16 numbers = v16_odd(load_plane(bytes, quarter), 2 * k);
            EACH (r, rows) {
                sums[r] = v16_fma(v16_set1(call->times[i][r][v]), numbers, sums[r]);
            }
        }
    }
    EACH (r, rows) {
        if (n == LANES) {
            v16_store(out + r * out_stride, sums[r]);
        } else {
            v16_store_n(out + r * out_stride, sums[r], n);
        }
    }
}

static void blend_batch(const struct blend_call *call, uint32_t size, float *out)
{
#define BLEND_QUARTER(constant_rows) blend_quarter(constant_rows, call, plane, quarter, k, n, out + d, size)
#define BLEND_WHOLE(constant_rows) blend_quarter(constant_rows, call, plane, QUARTER, k, LANES, out + d, size)
    for (uint32_t start = 0; start < size; start += TILE) {
        const uint32_t quarter = div_up(min_u32(TILE, size - start), 4);
        const size_t plane = call->layout->value_mean + start / 4;
        for (uint32_t k = 0; k < 4 && k * quarter < size - start; k++) {
            const uint32_t d = start + k * quarter;
            const uint32_t n = min_u32(quarter, size - d);
            if (n == LANES) {
                FOR_4_ROWS(call->rows, BLEND_WHOLE)
            } else {
                FOR_4_ROWS(call->rows, BLEND_QUARTER)
            }
        }
    }
}

static void blend_digests(const struct pgd_attend_shape *shape, uint32_t count, const uint8_t *const *digests,
                          uint32_t rows, const float *weights, const struct pgd_digest_scores *scores, float *out)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(shape->key_size, shape->value_size);
    for (size_t i = 0; i < (size_t) rows * shape->value_size; i++) {
        out[i] += 0.0f; /* turns -0 into +0: then nothing times a number changes nothing */
    }
    for (uint32_t page = 0; page < count; page += LANES) {
        const struct batch batch = batch_at(digests, page, count);
        for (uint32_t row = 0; row < rows; row += DIGEST_ROWS) {
            struct blend_call call = {.layout = &layout, .batch = &batch, .rows = min_u32(DIGEST_ROWS, rows - row)};
            for (uint32_t i = 0; i < LANES && row == 0; i++) {
                fetch_bytes(batch.ahead[i], layout.value_mean, layout.along);
            }
            weigh_batch(&call, weights, scores, row);
            blend_batch(&call, shape->value_size, out + (size_t) row * shape->value_size);
        }
    }
}
