/* codec/packed.c - see packed.h. */
#include "codec/packed.h"

#include "base/number.h"

#define CELL_ALIGN 64u

static struct pgd_packed_layout layout_of(const struct pgd_codec *codec, struct pgd_cell_shape shape)
{
    return pgd_packed_layout(shape.key_size, shape.value_size, codec->key_bits, codec->value_bits);
}

uint64_t pgd_packed_cell_bytes(const struct pgd_codec *codec, struct pgd_cell_shape shape)
{
    return pgd_round_up_u64(layout_of(codec, shape).bytes, CELL_ALIGN);
}

static void rotate(struct pgd_cell_shape shape, float *keys, float *values)
{
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        pgd_hadamard(shape.key_size, keys + (size_t) lane * shape.key_size);
        pgd_hadamard(shape.value_size, values + (size_t) lane * shape.value_size);
    }
}

void pgd_packed_cell_encode(const struct pgd_codec *codec, struct pgd_cell_shape shape, float *keys, float *values,
                            void *cell)
{
    const struct pgd_packed_layout layout = layout_of(codec, shape);
    rotate(shape, keys, values);
    pgd_packed_encode(&layout, shape.key_size, shape.value_size, keys, values, cell);
}

void pgd_packed_cell_decode(const struct pgd_codec *codec, struct pgd_cell_shape shape, const void *cell, float *keys,
                            float *values)
{
    const struct pgd_packed_layout layout = layout_of(codec, shape);
    pgd_packed_decode(&layout, shape.key_size, shape.value_size, cell, keys, values);
    rotate(shape, keys, values);
}

void pgd_packed_cells_attend(const struct pgd_codec *codec, const struct pgd_kernels *kernels,
                             const struct pgd_attend_shape *shape, const struct pgd_cells *cells,
                             const struct pgd_query_rows *rows, float *scratch, const struct pgd_partial *partial)
{
    const struct pgd_packed_layout layout =
        layout_of(codec, (struct pgd_cell_shape) {shape->key_size, shape->value_size});
    struct pgd_packed_chunk chunk = {.layout = &layout, .block_count = cells->count};
    for (uint32_t i = 0; i < cells->count; i++) {
        chunk.blocks[i] = cells->cell[i];
    }
    for (uint32_t i = 0; i < PGD_CELLS_AHEAD; i++) {
        chunk.ahead[i] = cells->ahead[i];
    }
    kernels->attend_chunk_packed(shape, &chunk, &rows->packed, scratch, partial);
}
