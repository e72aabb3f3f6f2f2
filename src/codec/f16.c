/* codec/f16.c - see f16.h. A cell is the two blocks that kernels.h describes, keys first. */
#include "codec/f16.h"

#include <math.h>

#include "base/number.h"

#define CELL_ALIGN 64u
#define R15_LEVELS 16383.0f /* a number and its sign in 15 bits */

/* Bytes of the key block, rounded up so that the value block is aligned as well. */
static uint64_t key_block_bytes(uint32_t key_size)
{
    return pgd_round_up_u64((uint64_t) key_size * PGD_LANES * sizeof(uint16_t), CELL_ALIGN);
}

uint64_t pgd_f16_cell_bytes(const struct pgd_codec *codec, struct pgd_cell_shape shape)
{
    (void) codec;
    return key_block_bytes(shape.key_size) +
           pgd_round_up_u64((uint64_t) shape.value_size * PGD_LANES * sizeof(uint16_t), CELL_ALIGN);
}

static uint16_t *values_of(void *cell, uint32_t key_size)
{
    return (uint16_t *) (void *) ((unsigned char *) cell + key_block_bytes(key_size));
}

static const uint16_t *values_in(const void *cell, uint32_t key_size)
{
    return (const uint16_t *) (const void *) ((const unsigned char *) cell + key_block_bytes(key_size));
}

void pgd_f16_write_keys(const struct pgd_kernels *kernels, struct pgd_cell_shape shape, void *cell, uint32_t lane,
                        uint32_t count, const float *rows, size_t row_stride)
{
    if (count == PGD_LANES) {
        kernels->store_key_block_f16(shape.key_size, rows, row_stride, cell);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        kernels->store_key_f16(shape.key_size, rows + i * row_stride, lane + i, cell);
    }
}

void pgd_f16_write_values(const struct pgd_kernels *kernels, struct pgd_cell_shape shape, void *cell, uint32_t lane,
                          uint32_t count, const float *rows, size_t row_stride)
{
    uint16_t *values = values_of(cell, shape.key_size);
    for (uint32_t i = 0; i < count; i++) {
        kernels->store_value_f16(shape.value_size, rows + i * row_stride, lane + i, values);
    }
}

/* Rounds a row to whole multiples of its largest number / levels. */
static void round_row(float *row, uint32_t size, float levels)
{
    float most = 0;
    for (uint32_t d = 0; d < size; d++) {
        most = fmaxf(most, fabsf(row[d]));
    }
    const float step = most / levels;
    for (uint32_t d = 0; d < size && step > 0 && step < INFINITY; d++) {
        row[d] = nearbyintf(row[d] / step) * step;
    }
}

void pgd_f16_cell_encode(const struct pgd_codec *codec, struct pgd_cell_shape shape, float *keys, float *values,
                         void *cell)
{
    uint16_t *key_block = cell;
    uint16_t *value_block = values_of(cell, shape.key_size);
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        float *key = keys + (size_t) lane * shape.key_size;
        float *value = values + (size_t) lane * shape.value_size;
        if (!codec->exact) {
            round_row(key, shape.key_size, R15_LEVELS);
            round_row(value, shape.value_size, R15_LEVELS);
        }
        for (uint32_t d = 0; d < shape.key_size; d++) {
            key_block[(size_t) d * PGD_LANES + lane] = pgd_f32_to_f16(key[d]);
        }
        for (uint32_t d = 0; d < shape.value_size; d++) {
            value_block[(size_t) lane * shape.value_size + d] = pgd_f32_to_f16(value[d]);
        }
    }
}

void pgd_f16_cell_decode(const struct pgd_codec *codec, struct pgd_cell_shape shape, const void *cell, float *keys,
                         float *values)
{
    (void) codec;
    const uint16_t *key_block = cell;
    const uint16_t *value_block = values_in(cell, shape.key_size);
    for (uint32_t d = 0; d < shape.key_size; d++) {
        for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
            keys[(size_t) lane * shape.key_size + d] = pgd_f16_to_f32(key_block[(size_t) d * PGD_LANES + lane]);
        }
    }
    for (size_t i = 0; i < (size_t) PGD_LANES * shape.value_size; i++) {
        values[i] = pgd_f16_to_f32(value_block[i]);
    }
}

void pgd_f16_cells_attend(const struct pgd_codec *codec, const struct pgd_kernels *kernels,
                          const struct pgd_attend_shape *shape, const struct pgd_cells *cells,
                          const struct pgd_query_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    (void) codec;
    struct pgd_chunk_f16 chunk = {.block_count = cells->count};
    for (uint32_t i = 0; i < cells->count; i++) {
        chunk.keys[i] = cells->cell[i];
        chunk.values[i] = values_in(cells->cell[i], shape->key_size);
    }
    for (uint32_t i = 0; i < PGD_CELLS_AHEAD; i++) {
        chunk.ahead[i] = cells->ahead[i];
    }
    kernels->attend_chunk_f16(shape, &chunk, &rows->exact, scratch, partial);
}
