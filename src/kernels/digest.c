/* kernels/digest.c - see digest.h: rows into digests, and queries into their order. Plain C. */
#include "kernels/digest.h"

#include <math.h>
#include <string.h>

#include "kernels/packed.h"

#define POWER_STEPS 16       /* of the power iteration for a line; it need not be exact */
#define LINE_STEP 0.49785f   /* half the step of the best four levels for a normal number (Max 1960) */
#define DETAIL_STEP 0.16760f /* likewise of the best sixteen */
#define LITTLE 0.1f          /* of the mean square of a query's coordinate: what hardly counts */
#define ROUNDER 0x1.8p+23f   /* as in packed.c */
#define MEAN_LEVELS 63.0f
#define LINE_LEVELS 3.0f
#define TOKEN_LEVELS 15.0f
#define DETAIL_LEVELS 15.0f
#define DETAIL_PLANES 2u
#define TOKENS_MAX (PGD_DIGEST_BLOCKS_MAX * PGD_LANES)

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

struct pgd_digest_layout pgd_digest_layout(uint32_t key_size, uint32_t value_size)
{
    struct pgd_digest_layout layout = {
        .key_plane = div_up(key_size, 4),
        .key_mean = PGD_DIGEST_SCALES * (uint32_t) sizeof(uint16_t),
        .value_plane = div_up(value_size, 4),
    };
    layout.key_lines = layout.key_mean + 3 * layout.key_plane;
    layout.value_mean = layout.key_lines + PGD_DIGEST_LINES * layout.key_plane;
    layout.along = layout.value_mean + (1 + PGD_DIGEST_LINES) * layout.value_plane;
    return layout;
}

uint32_t pgd_digest_bytes(uint32_t key_size, uint32_t value_size, uint32_t blocks)
{
    return div_up(pgd_digest_layout(key_size, value_size).along + blocks * PGD_LANES, 4) * 4;
}

uint32_t pgd_detail_bytes(uint32_t key_size)
{
    const uint32_t planes = PGD_LANES * DETAIL_PLANES * div_up(key_size, 4);
    return div_up(PGD_LANES * (uint32_t) sizeof(uint16_t) + planes, 4) * 4;
}

/* ---- numbers into codes and back ---- */

/* The code of x in steps of 2 * scale. */
static uint32_t code_of(float x, float scale, float levels)
{
    float code = scale > 0 ? x * (0.5f / scale) + 0.5f * levels : 0.0f;
    code = code > 0.0f ? code : 0.0f; /* NaN becomes 0 too: the scale tells */
    code = code < levels ? code : levels;
    return (uint32_t) (code + ROUNDER - ROUNDER);
}

static float odd_number(uint32_t code, float levels)
{
    return (float) (2 * (int32_t) code) - levels;
}

/* A scale is kept in f16. */
static float put_scale(uint8_t *digest, uint32_t which, float scale)
{
    const uint16_t half = pgd_f32_to_f16(scale);
    memcpy(digest + which * sizeof half, &half, sizeof half);
    return pgd_f16_to_f32(half);
}

float pgd_digest_scale(const uint8_t *digest, uint32_t which)
{
    uint16_t half;
    memcpy(&half, digest + which * sizeof half, sizeof half);
    return pgd_f16_to_f32(half);
}

uint32_t pgd_digest_bits(uint32_t size, const uint8_t *plane, uint32_t d)
{
    const uint32_t start = d / PGD_DIGEST_TILE * PGD_DIGEST_TILE;
    const uint32_t count = size - start < PGD_DIGEST_TILE ? size - start : PGD_DIGEST_TILE;
    const uint32_t quarter = div_up(count, 4);
    const uint32_t n = d - start;
    return plane[start / 4 + n % quarter] >> 2 * (n / quarter) & 3u;
}

/* Writes two bits of a code for every number of a vector. */
static void put_plane(uint32_t size, const uint8_t *codes, uint32_t shift, uint8_t *plane)
{
    for (uint32_t start = 0; start < size; start += PGD_DIGEST_TILE) {
        const uint32_t count = size - start < PGD_DIGEST_TILE ? size - start : PGD_DIGEST_TILE;
        const uint32_t quarter = div_up(count, 4);
        for (uint32_t n = 0; n < count; n++) {
            plane[n % quarter] |= (uint8_t) ((codes[start + n] >> shift & 3u) << 2 * (n / quarter));
        }
        plane += quarter;
    }
}

/* ---- means and lines ---- */

/* Rows: what the digest does not tell yet. */
struct page {
    uint32_t tokens;
    uint32_t size;
    float *rows; /* [tokens][size] */
};

static float *row_of(const struct page *page, uint32_t t)
{
    return page->rows + (size_t) t * page->size;
}

/* Adds up times[t] * row t. */
static void add_rows(const struct page *page, const float *times, float *sum)
{
    memset(sum, 0, page->size * sizeof *sum);
    for (uint32_t t = 0; t < page->tokens; t++) {
        const float *row = row_of(page, t);
        for (uint32_t d = 0; d < page->size; d++) {
            sum[d] += times[t] * row[d];
        }
    }
}

/* Subtracts times[t] * line from row t. */
static void subtract_line(const struct page *page, const float *times, const float *line)
{
    for (uint32_t t = 0; t < page->tokens; t++) {
        float *row = row_of(page, t);
        for (uint32_t d = 0; d < page->size; d++) {
            row[d] -= times[t] * line[d];
        }
    }
}

/* The codes of a vector and the numbers that they stand for, times 1 / scale; returns the scale. Normal numbers are
 * expected: `step` is half the distance of two levels, in deviations. */
static float encode_normal(uint32_t size, const float *line, float step, float levels, uint8_t *codes, float *numbers)
{
    float squares = 0.0f;
    for (uint32_t d = 0; d < size; d++) {
        squares += line[d] * line[d];
    }
    const float scale = step * sqrtf(squares / (float) size);
    float product = 0.0f;
    float norm = 0.0f;
    for (uint32_t d = 0; d < size; d++) {
        codes[d] = (uint8_t) code_of(line[d], scale, levels);
        numbers[d] = odd_number(codes[d], levels);
        product += numbers[d] * line[d];
        norm += numbers[d] * numbers[d];
    }
    return product / norm; /* the scale that fits these codes best; NaN stays NaN */
}

/* The same in 2 bits a number. */
static float encode_line(uint32_t size, const float *line, uint8_t *codes, float *numbers)
{
    return encode_normal(size, line, LINE_STEP, LINE_LEVELS, codes, numbers);
}

/* A mean in `planes` planes: out of the rows, into the digest. */
static void encode_mean(const struct page *page, uint32_t planes, uint32_t scale_at, uint8_t *digest, uint8_t *plane)
{
    uint8_t codes[PGD_HEAD_SIZE_MAX];
    float mean[PGD_HEAD_SIZE_MAX];
    float ones[TOKENS_MAX];
    for (uint32_t t = 0; t < page->tokens; t++) {
        ones[t] = 1.0f;
    }
    add_rows(page, ones, mean);
    for (uint32_t d = 0; d < page->size; d++) {
        mean[d] /= (float) page->tokens;
    }
    const float levels = planes == 1 ? LINE_LEVELS : MEAN_LEVELS;
    float numbers[PGD_HEAD_SIZE_MAX];
    const float wanted =
        planes == 1 ? encode_line(page->size, mean, codes, numbers) : pgd_packed_largest(page->size, mean) / levels;
    const float scale = put_scale(digest, scale_at, wanted);
    for (uint32_t d = 0; d < page->size; d++) {
        codes[d] = planes == 1 ? codes[d] : (uint8_t) code_of(mean[d], scale, levels);
        mean[d] = odd_number(codes[d], levels) * scale;
    }
    for (uint32_t p = 0; p < planes; p++) {
        put_plane(page->size, codes, 2 * p, plane + (size_t) p * div_up(page->size, 4));
    }
    subtract_line(page, ones, mean);
}

/* Sixteen partial sums: a chain of additions would take most of the time that a digest takes. */
static float product_of(uint32_t size, const float *a, const float *b)
{
    float sums[PGD_LANES] = {0};
    uint32_t d = 0;
    for (; d + PGD_LANES <= size; d += PGD_LANES) {
        for (uint32_t i = 0; i < PGD_LANES; i++) {
            sums[i] += a[d + i] * b[d + i];
        }
    }
    for (uint32_t i = 0; d + i < size; i++) {
        sums[i] += a[d + i] * b[d + i];
    }
    for (uint32_t half = PGD_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            sums[i] += sums[i + half];
        }
    }
    return sums[0];
}

/* ---- which lines ---- */

/* What queries make of a row. In the model's coordinates. */
struct view {
    uint32_t size;
    const struct pgd_digest_queries *queries; /* NULL: all coordinates count alike, rotated or not */
    float deviation[PGD_HEAD_SIZE_MAX];       /* of queries, by coordinate */
    float attention[PGD_HEAD_SIZE_MAX];       /* about 1 where queries are large, 0 where they are small */
};

static void open_view(struct view *view, uint32_t size, const struct pgd_digest_queries *queries)
{
    view->size = size;
    view->queries = queries;
    if (queries == NULL) {
        return;
    }
    float sum = 0.0f;
    for (uint32_t d = 0; d < size; d++) {
        float square = 0.0f;
        for (uint32_t m = 0; m < queries->mean_count; m++) {
            const float mean = queries->means[(size_t) m * size + d];
            square += mean * mean / (float) queries->mean_count;
        }
        view->deviation[d] = sqrtf(queries->variance[d]);
        view->attention[d] = queries->variance[d] + square;
        sum += view->attention[d];
    }
    const float little = LITTLE * sum / (float) size;
    for (uint32_t d = 0; d < size; d++) {
        view->attention[d] = sum > 0 ? view->attention[d] / (view->attention[d] + little) : 1.0f;
    }
}

/* A row as queries see it: products of two such rows are means of products of scores, for the queries that are
 * expected. They have a number for each coordinate, then one for each mean. */
struct seen {
    struct page page;
    float line[PGD_HEAD_SIZE_MAX + PGD_DIGEST_QUERIES_MAX];
};

static void see(const struct view *view, const float *row, float *seen)
{
    const uint32_t size = view->size;
    memcpy(seen, row, size * sizeof *row);
    if (view->queries == NULL) {
        return;
    }
    pgd_hadamard(size, seen);
    for (uint32_t m = 0; m < view->queries->mean_count; m++) {
        const float product = product_of(size, view->queries->means + (size_t) m * size, seen);
        seen[size + m] = product / sqrtf((float) view->queries->mean_count);
    }
    for (uint32_t d = 0; d < size; d++) {
        seen[d] *= view->deviation[d];
    }
}

/* Takes out of a line what queries hardly look at, so that its few bits go to the rest. */
static void attend_line(const struct view *view, float *line)
{
    if (view->queries != NULL) {
        pgd_hadamard(view->size, line);
        for (uint32_t d = 0; d < view->size; d++) {
            line[d] *= view->attention[d];
        }
        pgd_hadamard(view->size, line);
    }
}

/* Products of all rows with a vector. */
static void products_with(const struct page *page, const float *vector, float *products)
{
    for (uint32_t t = 0; t < page->tokens; t++) {
        products[t] = product_of(page->size, row_of(page, t), vector);
    }
}

/* The vector over tokens along which rows differ most: power iteration from the longest row. */
static void main_direction(const struct page *page, float *direction)
{
    float next[TOKENS_MAX];
    float sum[PGD_HEAD_SIZE_MAX + PGD_DIGEST_QUERIES_MAX];
    uint32_t longest = 0;
    for (uint32_t t = 0; t < page->tokens; t++) {
        next[t] = product_of(page->size, row_of(page, t), row_of(page, t));
        longest = next[t] > next[longest] ? t : longest;
    }
    products_with(page, row_of(page, longest), next);
    for (uint32_t step = 0;; step++) {
        const float length = sqrtf(product_of(page->tokens, next, next));
        for (uint32_t t = 0; t < page->tokens; t++) {
            direction[t] = length > 0 ? next[t] / length : 0.0f;
        }
        if (step + 1 == POWER_STEPS) {
            return;
        }
        add_rows(page, direction, sum);
        products_with(page, sum, next);
    }
}

/* How far along the line each token is, in whole numbers; returns what one stands for. */
static float encode_tokens(const struct seen *seen, uint32_t nibble, uint8_t *codes, float *times)
{
    const uint32_t tokens = seen->page.tokens;
    const float norm = product_of(seen->page.size, seen->line, seen->line);
    products_with(&seen->page, seen->line, times);
    for (uint32_t t = 0; t < tokens; t++) {
        times[t] = norm > 0 ? times[t] / norm : 0.0f;
    }
    const float scale = pgd_packed_largest(tokens, times) / TOKEN_LEVELS;
    for (uint32_t t = 0; t < tokens; t++) {
        const uint32_t code = code_of(times[t], scale, TOKEN_LEVELS);
        codes[t] |= (uint8_t) (code << 4 * nibble);
        times[t] = odd_number(code, TOKEN_LEVELS);
    }
    return scale;
}

/* One line of keys: out of the rows, into the digest. times[t] becomes the whole number of token t. */
static void encode_key_line(const struct page *page, uint32_t line, const struct pgd_digest_layout *layout,
                            const struct view *view, float *scratch, uint8_t *digest, float *times)
{
    struct seen seen;
    seen.page =
        (struct page) {page->tokens, page->size + (view->queries == NULL ? 0 : view->queries->mean_count), scratch};
    uint8_t codes[PGD_HEAD_SIZE_MAX];
    float vector[PGD_HEAD_SIZE_MAX];
    float numbers[PGD_HEAD_SIZE_MAX];
    for (uint32_t t = 0; t < page->tokens; t++) {
        see(view, row_of(page, t), row_of(&seen.page, t));
    }
    float direction[TOKENS_MAX];
    main_direction(&seen.page, direction);
    add_rows(page, direction, vector);
    attend_line(view, vector);
    encode_line(page->size, vector, codes, numbers);
    put_plane(page->size, codes, 0, digest + layout->key_lines + (size_t) line * layout->key_plane);
    see(view, numbers, seen.line);
    const float token_scale = encode_tokens(&seen, line, digest + layout->along, times);
    const float scale = put_scale(digest, PGD_DIGEST_KEY_LINE + line, token_scale);
    for (uint32_t d = 0; d < page->size; d++) {
        numbers[d] *= scale;
    }
    subtract_line(page, times, numbers);
}

/* The line of values that goes with it. */
static void encode_value_line(const struct page *page, uint32_t line, const struct pgd_digest_layout *layout,
                              const float *times, uint8_t *digest)
{
    uint8_t codes[PGD_HEAD_SIZE_MAX];
    float vector[PGD_HEAD_SIZE_MAX];
    float numbers[PGD_HEAD_SIZE_MAX];
    const float norm = product_of(page->tokens, times, times);
    add_rows(page, times, vector);
    for (uint32_t d = 0; d < page->size; d++) {
        vector[d] /= norm; /* the whole numbers are odd: never all zero */
    }
    const float scale =
        put_scale(digest, PGD_DIGEST_VALUE_LINE + line, encode_line(page->size, vector, codes, numbers));
    put_plane(page->size, codes, 0, digest + layout->value_mean + (size_t) (1 + line) * layout->value_plane);
    for (uint32_t d = 0; d < page->size; d++) {
        numbers[d] *= scale;
    }
    subtract_line(page, times, numbers);
}

size_t pgd_digest_make_floats(uint32_t key_size, uint32_t tokens)
{
    return (size_t) tokens * (key_size + PGD_DIGEST_QUERIES_MAX);
}

void pgd_digest_make(uint32_t key_size, uint32_t value_size, uint32_t tokens, float *keys, float *values,
                     const struct pgd_digest_queries *queries, float *scratch, uint8_t *digest)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(key_size, value_size);
    memset(digest, 0, pgd_digest_bytes(key_size, value_size, div_up(tokens, PGD_LANES)));
    const struct page key_rows = {tokens, key_size, keys};
    const struct page value_rows = {tokens, value_size, values};
    float times[PGD_DIGEST_LINES][TOKENS_MAX];
    struct view view;
    open_view(&view, key_size, queries);
    encode_mean(&key_rows, 3, PGD_DIGEST_KEY_MEAN, digest, digest + layout.key_mean);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        encode_key_line(&key_rows, line, &layout, &view, scratch, digest, times[line]);
    }
    encode_mean(&value_rows, 1, PGD_DIGEST_VALUE_MEAN, digest, digest + layout.value_mean);
    for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
        encode_value_line(&value_rows, line, &layout, times[line], digest);
    }
}

/* ---- details ---- */

/* The key mean as a digest has it. */
static void decode_key_mean(uint32_t key_size, const uint8_t *digest, float *mean)
{
    const struct pgd_digest_layout layout = pgd_digest_layout(key_size, key_size);
    const float scale = pgd_digest_scale(digest, PGD_DIGEST_KEY_MEAN);
    for (uint32_t d = 0; d < key_size; d++) {
        uint32_t code = 0;
        for (uint32_t p = 0; p < 3; p++) {
            code |= pgd_digest_bits(key_size, digest + layout.key_mean + (size_t) p * layout.key_plane, d) << 2 * p;
        }
        mean[d] = odd_number(code, MEAN_LEVELS) * scale;
    }
}

void pgd_detail_make(uint32_t key_size, uint32_t tokens, const float *keys, const uint8_t *digest, uint8_t *detail)
{
    uint8_t codes[PGD_HEAD_SIZE_MAX];
    float numbers[PGD_HEAD_SIZE_MAX];
    float mean[PGD_HEAD_SIZE_MAX];
    float own[PGD_HEAD_SIZE_MAX];
    const uint32_t plane_bytes = div_up(key_size, 4);
    decode_key_mean(key_size, digest, mean);
    memset(detail, 0, pgd_detail_bytes(key_size));
    for (uint32_t t = 0; t < tokens; t++) {
        uint8_t *planes = detail + PGD_LANES * sizeof(uint16_t) + (size_t) DETAIL_PLANES * t * plane_bytes;
        for (uint32_t d = 0; d < key_size; d++) {
            own[d] = keys[(size_t) t * key_size + d] - mean[d];
        }
        put_scale(detail, t, encode_normal(key_size, own, DETAIL_STEP, DETAIL_LEVELS, codes, numbers));
        for (uint32_t p = 0; p < DETAIL_PLANES; p++) {
            put_plane(key_size, codes, 2 * p, planes + (size_t) p * plane_bytes);
        }
    }
}

/* ---- queries ---- */

static uint32_t tiles_of(uint32_t size)
{
    return div_up(size, PGD_DIGEST_TILE);
}

size_t pgd_digest_scratch_floats(uint32_t key_size, uint32_t rows)
{
    return (size_t) rows * tiles_of(key_size) * 2 * (PGD_DIGEST_TILE / 4);
}

/* Number n of a tile of `count` goes to byte 16 k + i, with n = k * quarter + i. */
static void arrange_tile(uint32_t count, const uint8_t *from, uint8_t *to)
{
    const uint32_t quarter = div_up(count, 4);
    if (count == PGD_DIGEST_TILE) {
        memcpy(to, from, PGD_DIGEST_TILE);
        return;
    }
    for (uint32_t n = 0; n < count; n++) {
        to[16 * (n / quarter) + n % quarter] = from[n];
    }
}

void pgd_digest_arrange(uint32_t key_size, const struct pgd_packed_rows *rows, int32_t *words)
{
    memset(words, 0, pgd_digest_scratch_floats(key_size, rows->count) * sizeof *words);
    uint8_t *to = (uint8_t *) words;
    for (uint32_t row = 0; row < rows->count; row++) {
        const uint8_t *high = (const uint8_t *) (rows->high + (size_t) row * rows->tiles);
        const uint8_t *low = (const uint8_t *) (rows->low + (size_t) row * rows->tiles);
        for (uint32_t start = 0; start < key_size; start += PGD_DIGEST_TILE) {
            const uint32_t count = key_size - start < PGD_DIGEST_TILE ? key_size - start : PGD_DIGEST_TILE;
            arrange_tile(count, high + start, to);
            arrange_tile(count, low + start, to + PGD_DIGEST_TILE);
            to += (size_t) 2 * PGD_DIGEST_TILE;
        }
    }
}
