/* cache/ingest.c - rows of a batch into its pages, shared out among a team by (cell, head). */
#include "base/number.h"
#include "cache/cache.h"
#include "codec/f16.h"

/* Rows of one call, and where they go. */
struct rows_in {
    const float *rows;
    size_t stride;
    enum pagoda_side side;
    uint32_t head_size;
};

/* Writes the batch's tokens that lie in the cell starting at position `cell_first`, for one KV head. */
static void write_cell(const struct pagoda_cache *cache, uint32_t layer_index, const struct rows_in *in,
                       uint64_t cell_first, uint32_t head)
{
    const struct pgd_layer *layer = &cache->layers[layer_index];
    const uint64_t batch_end = cache->batch.first + cache->batch.count;
    const uint64_t first = pgd_max_u64(cell_first, cache->batch.first);
    const uint64_t end = pgd_min_u64(cell_first + PGD_LANES, batch_end);
    const uint32_t index = pgd_table_find(cache->table, first);
    const struct pgd_page *page = pgd_table_page(cache->table, index, layer_index);
    const uint64_t cell = (first - pgd_table_block(cache->table, index)->first) / PGD_LANES;
    unsigned char *bytes = pgd_pool_address(cache->pool, page->frame);
    bytes += (head * (uint64_t) cache->page_cells + cell) * layer->kinds[0].cell_bytes;

    const float *rows = in->rows + (first - cache->batch.first) * in->stride + (size_t) head * in->head_size;
    const uint32_t lane = (uint32_t) (first - cell_first);
    const uint32_t count = (uint32_t) (end - first);
    const struct pgd_cell_shape shape = {layer->shape.key_size, layer->shape.value_size};
    if (in->side == PAGODA_KEYS) {
        pgd_f16_write_keys(cache->kernels, shape, bytes, lane, count, rows, in->stride);
    } else {
        pgd_f16_write_values(cache->kernels, shape, bytes, lane, count, rows, in->stride);
    }
}

enum pagoda_status pagoda_cache_ingest(struct pagoda_cache *cache, uint32_t layer_index, enum pagoda_side side,
                                       const float *rows, size_t row_stride, uint32_t thread, uint32_t threads)
{
    if (!cache->batch.open || layer_index >= cache->layer_count || threads == 0 || threads > cache->threads_max ||
        thread >= threads || (side != PAGODA_KEYS && side != PAGODA_VALUES)) {
        return PAGODA_INVALID;
    }
    struct pgd_layer *layer = &cache->layers[layer_index];
    const struct rows_in in = {
        .rows = rows,
        .stride = row_stride,
        .side = side,
        .head_size = side == PAGODA_KEYS ? layer->shape.key_size : layer->shape.value_size,
    };
    const uint64_t first_cell = cache->batch.first / PGD_LANES;
    const uint64_t cells = (cache->batch.first + cache->batch.count - 1) / PGD_LANES - first_cell + 1;
    const uint64_t units = cells * layer->shape.kv_heads;
    for (uint64_t unit = thread; unit < units; unit += threads) {
        write_cell(cache, layer_index, &in, (first_cell + unit / layer->shape.kv_heads) * PGD_LANES,
                   (uint32_t) (unit % layer->shape.kv_heads));
    }
    if (thread == 0) {
        layer->given[side] = true;
    }
    return PAGODA_OK;
}
