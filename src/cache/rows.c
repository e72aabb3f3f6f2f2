/* cache/rows.c - see attend.h. Queries are packed once for an item, and turned into whole numbers once for a run of
 * chunks that see them alike. */
#include <string.h>

#include "base/number.h"
#include "cache/attend.h"

void pgd_attend_pack_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    const size_t size = call->shape.key_size;
    float *to = call->worker->queries;
    call->worker->packed_is_ready = false;
    for (uint32_t h = 0; h < item->heads; h++) {
        for (uint32_t t = 0; t < item->tokens; t++) {
            const float *from = call->queries->data + (item->token + t) * call->queries->token_stride +
                                (size_t) (item->head + h) * call->group * call->queries->head_stride;
            for (uint32_t g = 0; g < call->group; g++) {
                memcpy(to, from + g * call->queries->head_stride, size * sizeof(*to));
                to += size;
            }
        }
    }
}

/* The packed queries, `rows` of them from row `first` on, as a chunk with this shift must see them. */
static const float *queries_for_shift(const struct pgd_attend_call *call, uint32_t first, uint32_t rows, uint32_t shift)
{
    const struct pgd_rope_table *table = &call->cache->ropes[call->layer->rope];
    const uint32_t pairs = table->rope.pair_count;
    const size_t size = call->shape.key_size;
    const float *queries = call->worker->queries + first * size;
    if (shift == 0 || pairs == 0) {
        return queries;
    }
    const float *cosine = table->cosine + (size_t) shift * pairs;
    const float *sine = table->sine + (size_t) shift * pairs;
    memcpy(call->worker->rotated, queries, rows * size * sizeof(float));
    for (uint32_t r = 0; r < rows; r++) {
        if (table->rope.split_pairs) {
            pgd_rotate_split(pairs, cosine, sine, call->worker->rotated + r * size);
        } else {
            pgd_rotate_adjacent(pairs, cosine, sine, call->worker->rotated + r * size);
        }
    }
    return call->worker->rotated;
}

/* All rows of the item after the Hadamard transform, as whole numbers. */
static void transform_rows(const struct pgd_attend_call *call, uint32_t rows, uint32_t shift)
{
    struct pgd_worker *worker = call->worker;
    const size_t size = call->shape.key_size;
    const float *queries = queries_for_shift(call, 0, rows, shift);
    if (queries != worker->rotated) {
        memcpy(worker->rotated, queries, rows * size * sizeof(float));
    }
    worker->packed.tiles = (uint32_t) pgd_div_up_u64(size, 4);
    for (uint32_t r = 0; r < rows; r++) {
        pgd_hadamard((uint32_t) size, worker->rotated + r * size);
        pgd_packed_query((uint32_t) size, worker->rotated + r * size, &worker->packed, r);
    }
    worker->packed_is_ready = true;
    worker->packed_shift = shift;
}

struct pgd_packed_rows pgd_attend_packed_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                              const struct pgd_plan_chunk *chunk, uint32_t head)
{
    const struct pgd_worker *worker = call->worker;
    const uint32_t rows = pgd_attend_head_rows(call, item);
    const uint32_t first = head * rows;
    if (!worker->packed_is_ready || worker->packed_shift != chunk->shift) {
        transform_rows(call, item->heads * rows, chunk->shift);
    }
    const size_t words = (size_t) first * worker->packed.tiles;
    return (struct pgd_packed_rows) {
        .count = rows,
        .tiles = worker->packed.tiles,
        .high = worker->packed.high + words,
        .low = worker->packed.low + words,
        .unit = worker->packed.unit + first,
        .sum = worker->packed.sum + first,
        .first = worker->first,
        .end = worker->end,
    };
}

struct pgd_query_rows pgd_attend_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                      const struct pgd_plan_chunk *chunk, uint32_t head)
{
    const uint32_t rows = pgd_attend_head_rows(call, item);
    struct pgd_query_rows result;
    if (call->cache->codecs[chunk->rung]->rotated) {
        result.packed = pgd_attend_packed_rows(call, item, chunk, head);
    } else {
        result.exact = (struct pgd_rows) {
            .count = rows,
            .queries = queries_for_shift(call, head * rows, rows, chunk->shift),
            .first = call->worker->first,
            .end = call->worker->end,
        };
    }
    return result;
}
