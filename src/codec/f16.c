/* codec/f16.c - see f16.h. A cell is the two blocks that kernels.h describes, keys first. */
#include "codec/f16.h"

#include "base/number.h"

#define CELL_ALIGN 64u

/* Bytes of the key block, rounded up so that the value block is aligned as well. */
static uint64_t key_block_bytes(uint32_t key_size)
{
    return pgd_round_up_u64((uint64_t) key_size * PGD_LANES * sizeof(uint16_t), CELL_ALIGN);
}

static uint64_t cell_bytes(uint32_t key_size, uint32_t value_size)
{
    return key_block_bytes(key_size) +
           pgd_round_up_u64((uint64_t) value_size * PGD_LANES * sizeof(uint16_t), CELL_ALIGN);
}

static uint16_t *values_of(void *cell, uint32_t key_size)
{
    return (uint16_t *) (void *) ((unsigned char *) cell + key_block_bytes(key_size));
}

static void write_keys(const struct pgd_kernels *kernels, const struct pagoda_layer *layer, void *cell, uint32_t lane,
                       uint32_t count, const float *rows, size_t row_stride)
{
    if (count == PGD_LANES) {
        kernels->store_key_block_f16(layer->key_size, rows, row_stride, cell);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        kernels->store_key_f16(layer->key_size, rows + i * row_stride, lane + i, cell);
    }
}

static void write_values(const struct pgd_kernels *kernels, const struct pagoda_layer *layer, void *cell, uint32_t lane,
                         uint32_t count, const float *rows, size_t row_stride)
{
    uint16_t *values = values_of(cell, layer->key_size);
    for (uint32_t i = 0; i < count; i++) {
        kernels->store_value_f16(layer->value_size, rows + i * row_stride, lane + i, values);
    }
}

static void attend(const struct pgd_kernels *kernels, const struct pgd_attend_shape *shape,
                   const struct pgd_cells *cells, const struct pgd_rows *rows, float *scratch,
                   const struct pgd_partial *partial)
{
    struct pgd_chunk_f16 chunk = {.block_count = cells->count};
    const uint64_t value_offset = key_block_bytes(shape->key_size);
    for (uint32_t i = 0; i < cells->count; i++) {
        const unsigned char *cell = cells->cell[i];
        chunk.keys[i] = (const uint16_t *) (const void *) cell;
        chunk.values[i] = (const uint16_t *) (const void *) (cell + value_offset);
    }
    kernels->attend_chunk_f16(shape, &chunk, rows, scratch, partial);
}

const struct pgd_codec pgd_codec_f16 = {
    .name = "f16",
    .exact = true,
    .cell_bytes = cell_bytes,
    .write_keys = write_keys,
    .write_values = write_values,
    .attend = attend,
};
