/* kernels/packed.c - see packed.h: rows into codes and back. Plain C, the same bytes on every processor. */
#include "kernels/packed.h"

#include <math.h>
#include <string.h>

#define QUERY_MOST_USUAL 8191.0f /* keys of up to 256: 2 * 255 * 8191 * 256 is below 2^31 */
#define QUERY_MOST_LARGE 2047.0f /* keys of up to 1024 */
#define QUERY_USUAL_SIZE 256u
#define QUERY_LEAST 0x1p-100f /* a query below it is zero: its factor would overflow */
#define ROUNDER 0x1.8p+23f    /* x + ROUNDER - ROUNDER rounds |x| < 2^22 to a whole number, nearest even */

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

/* Bytes of the two planes of so many tiles. */
static uint32_t low_bytes(uint32_t bits, uint32_t tiles)
{
    return PGD_PACKED_LINE * (bits == 8 ? tiles : div_up(tiles, 2));
}

static uint32_t high_bytes(uint32_t bits, uint32_t tiles)
{
    return bits == 5 ? PGD_PACKED_LINE * div_up(tiles, 8) : bits == 6 ? PGD_PACKED_LINE * div_up(tiles, 4) : 0;
}

struct pgd_packed_layout pgd_packed_layout(uint32_t key_size, uint32_t value_size, uint32_t key_bits,
                                           uint32_t value_bits)
{
    struct pgd_packed_layout layout = {
        .key_bits = key_bits,
        .value_bits = value_bits,
        .key_tiles = div_up(key_size, 4),
        .value_tiles = 4 * div_up(value_size, PGD_LANES),
    };
    layout.key_high = low_bytes(key_bits, layout.key_tiles);
    layout.value_low = layout.key_high + high_bytes(key_bits, layout.key_tiles);
    layout.value_high = layout.value_low + low_bytes(value_bits, layout.value_tiles);
    layout.key_scales = layout.value_high + high_bytes(value_bits, layout.value_tiles);
    layout.value_scales = layout.key_scales + PGD_LANES * (uint32_t) sizeof(uint16_t);
    layout.bytes = layout.value_scales + PGD_LANES * (uint32_t) sizeof(uint16_t);
    return layout;
}

/* ---- rows into codes ---- */

/* Adds `code` to planes that are zero there. */
static void put_code(uint32_t bits, uint8_t *low, uint8_t *high, uint32_t tile, uint32_t index, uint32_t code)
{
    if (bits == 8) {
        low[(size_t) tile * PGD_PACKED_LINE + index] = (uint8_t) code;
        return;
    }
    low[(size_t) (tile / 2) * PGD_PACKED_LINE + index] |= (uint8_t) ((code & 15u) << 4 * (tile % 2));
    if (bits == 5) {
        high[(size_t) (tile / 8) * PGD_PACKED_LINE + index] |= (uint8_t) (code >> 4 << tile % 8);
    } else if (bits == 6) {
        high[(size_t) (tile / 4) * PGD_PACKED_LINE + index] |= (uint8_t) (code >> 4 << 2 * (tile % 4));
    }
}

float pgd_packed_largest(uint32_t size, const float *row)
{
    float most = 0.0f;
    float zero = 0.0f;
    for (uint32_t d = 0; d < size; d++) {
        const float a = fabsf(row[d]);
        most = a > most ? a : most;
        zero += row[d] * 0.0f; /* NaN as soon as one number is not finite */
    }
    return most + zero;
}

/* The codes of one row, and its scale. */
static uint16_t encode_row(uint32_t size, const float *row, uint32_t bits, uint8_t *codes)
{
    const float levels = (float) ((1u << bits) - 1u);
    const uint16_t half = pgd_f32_to_f16(pgd_packed_largest(size, row) / levels);
    const float scale = pgd_f16_to_f32(half);
    const float factor = scale > 0 ? 0.5f / scale : 0.0f;
    for (uint32_t d = 0; d < size; d++) {
        float code = row[d] * factor + 0.5f * levels;
        code = code > 0.0f ? code : 0.0f; /* NaN becomes 0 too: the scale tells */
        code = code < levels ? code : levels;
        codes[d] = (uint8_t) (code + ROUNDER - ROUNDER);
    }
    return half;
}

void pgd_packed_encode(const struct pgd_packed_layout *layout, uint32_t key_size, uint32_t value_size,
                       const float *keys, const float *values, uint8_t *block)
{
    uint8_t codes[PGD_HEAD_SIZE_MAX];
    uint16_t key_scales[PGD_LANES];
    uint16_t value_scales[PGD_LANES];
    memset(block, 0, layout->bytes);
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        key_scales[lane] = encode_row(key_size, keys + (size_t) lane * key_size, layout->key_bits, codes);
        for (uint32_t d = 0; d < key_size; d++) {
            put_code(layout->key_bits, block, block + layout->key_high, d / 4, 4 * lane + d % 4, codes[d]);
        }
        value_scales[lane] = encode_row(value_size, values + (size_t) lane * value_size, layout->value_bits, codes);
        for (uint32_t d = 0; d < value_size; d++) {
            put_code(layout->value_bits, block + layout->value_low, block + layout->value_high,
                     4 * (d / PGD_LANES) + lane / 4, 4 * (d % PGD_LANES) + lane % 4, codes[d]);
        }
    }
    memcpy(block + layout->key_scales, key_scales, sizeof key_scales);
    memcpy(block + layout->value_scales, value_scales, sizeof value_scales);
}

/* ---- codes into rows ---- */

static float number_of(uint32_t bits, uint32_t code, float scale)
{
    return (float) (2 * (int32_t) code - (int32_t) ((1u << bits) - 1u)) * scale;
}

void pgd_packed_decode(const struct pgd_packed_layout *layout, uint32_t key_size, uint32_t value_size,
                       const uint8_t *block, float *keys, float *values)
{
    uint16_t key_scales[PGD_LANES];
    uint16_t value_scales[PGD_LANES];
    memcpy(key_scales, block + layout->key_scales, sizeof key_scales);
    memcpy(value_scales, block + layout->value_scales, sizeof value_scales);
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        const float key_scale = pgd_f16_to_f32(key_scales[lane]);
        for (uint32_t d = 0; d < key_size; d++) {
            const uint32_t code =
                pgd_packed_code(layout->key_bits, block, block + layout->key_high, d / 4, 4 * lane + d % 4);
            keys[(size_t) lane * key_size + d] = number_of(layout->key_bits, code, key_scale);
        }
        const float value_scale = pgd_f16_to_f32(value_scales[lane]);
        for (uint32_t d = 0; d < value_size; d++) {
            const uint32_t code =
                pgd_packed_code(layout->value_bits, block + layout->value_low, block + layout->value_high,
                                4 * (d / PGD_LANES) + lane / 4, 4 * (d % PGD_LANES) + lane % 4);
            values[(size_t) lane * value_size + d] = number_of(layout->value_bits, code, value_scale);
        }
    }
}

/* ---- queries ---- */

/* The fast Walsh-Hadamard transform of 2^n numbers, scaled to be orthonormal. */
static void transform(uint32_t size, float *row)
{
    for (uint32_t half = 1; half < size; half *= 2) {
        for (uint32_t start = 0; start < size; start += 2 * half) {
            float *a = row + start;
            float *b = a + half;
            for (uint32_t i = 0; i < half; i++) {
                const float sum = a[i] + b[i];
                b[i] = a[i] - b[i];
                a[i] = sum;
            }
        }
    }
    const float scale = 1.0f / sqrtf((float) size);
    for (uint32_t i = 0; i < size; i++) {
        row[i] *= scale;
    }
}

void pgd_hadamard(uint32_t size, float *row)
{
    while (size > 0) {
        uint32_t part = 1;
        while (part <= size / 2) {
            part *= 2;
        }
        transform(part, row);
        row += part;
        size -= part;
    }
}

void pgd_packed_query(uint32_t key_size, const float *query, const struct pgd_packed_rows *rows, uint32_t row)
{
    const float most = key_size <= QUERY_USUAL_SIZE ? QUERY_MOST_USUAL : QUERY_MOST_LARGE;
    const float max = pgd_packed_largest(key_size, query);
    const float factor = max >= QUERY_LEAST && max < INFINITY ? most / max : 0.0f;
    int32_t number[PGD_HEAD_SIZE_MAX + 3];
    int32_t sum = 0;
    for (uint32_t d = 0; d < key_size; d++) {
        number[d] = factor == 0.0f ? 0 : (int32_t) (query[d] * factor + ROUNDER - ROUNDER);
        sum += number[d];
    }
    for (uint32_t d = key_size; d < 4 * rows->tiles; d++) {
        number[d] = 0;
    }
    int32_t *high = rows->high + (size_t) row * rows->tiles;
    int32_t *low = rows->low + (size_t) row * rows->tiles;
    for (uint32_t tile = 0; tile < rows->tiles; tile++) {
        uint32_t high_word = 0;
        uint32_t low_word = 0;
        for (uint32_t i = 0; i < 4; i++) {
            const int32_t n = number[4 * tile + i];
            high_word |= ((uint32_t) ((n + 8192) / 128 - 64) & 255u) << 8 * i; /* rounds down, also below 0 */
            low_word |= ((uint32_t) (n + 8192) % 128u) << 8 * i;
        }
        memcpy(&high[tile], &high_word, sizeof high_word);
        memcpy(&low[tile], &low_word, sizeof low_word);
    }
    rows->unit[row] = max < INFINITY ? max / most : NAN;
    rows->sum[row] = sum;
}
