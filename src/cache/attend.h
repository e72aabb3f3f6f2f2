/* cache/attend.h - the parts of one call of pagoda_cache_attend, as one thread sees it.
 *
 *   gather.c   which cells of a chunk a layer still holds, and which of their tokens a row sees
 *   rows.c     the query rows of an item, in the forms that codecs want
 *   attend.c   items, and the order in which partial results are merged
 *
 * Threads: everything here belongs to the calling thread, but for what attend.c says of counters and partials.
 */
#ifndef PGD_CACHE_ATTEND_H
#define PGD_CACHE_ATTEND_H

#include "cache/cache.h"

struct pgd_attend_call {
    struct pagoda_cache *cache;
    struct pgd_layer *layer;
    uint32_t layer_index;
    const struct pagoda_queries *queries;
    const struct pagoda_outputs *outputs;
    struct pgd_worker *worker;
    struct pgd_attend_shape shape;
    uint32_t group;  /* query heads of one KV head */
    uint32_t thread; /* of the team's ... */
    uint32_t threads;
    uint32_t slots; /* partial results of one KV head */
    bool selects;   /* the token reads only some of the pages on flash */
    bool draws;     /* what this token draws on in this layer is counted (draws.h) */
};

/* Tokens [token, token + tokens) of the batch for KV heads [head, head + heads). Its rows are numbered head by head,
 * then by token, then by query head of the group. */
struct pgd_attend_item {
    uint32_t head;
    uint32_t heads;
    uint32_t token;
    uint32_t tokens;
};

/* Rows of one KV head of an item. */
static inline uint32_t pgd_attend_head_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    return item->tokens * call->group;
}

/* ---- gather.c ---- */

/* The cells of a chunk that this layer still holds, with the positions they stand for. */
struct pgd_gathered {
    uint32_t count;
    const unsigned char *cell[PGD_CHUNK_BLOCKS]; /* of KV head 0; the other heads' lie head_bytes apart */
    uint64_t head_bytes;
    uint32_t block[PGD_CHUNK_BLOCKS]; /* index in the table of each cell's block */
    uint64_t first[PGD_CHUNK_BLOCKS]; /* position of lane 0 of each cell */
    uint32_t lanes;                   /* lanes that hold a token: all before the last cell are full */
};

/* At most cells_max of them. */
void pgd_attend_gather(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t cells_max,
                       struct pgd_gathered *gathered);

/* Sets first and end of the worker's rows, the same for every KV head: up to a row's own token, and from the start of
 * its window. */
void pgd_attend_set_visible(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                            const struct pgd_plan_chunk *chunk, const struct pgd_gathered *gathered);

/* ---- rows.c ---- */

/* Packs the item's queries into the worker. */
void pgd_attend_pack_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item);

/* The rows of KV head item->head + head as the chunk's codec wants them, rotated back by the chunk's shift. Valid until
 * the next call. */
struct pgd_query_rows pgd_attend_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                      const struct pgd_plan_chunk *chunk, uint32_t head);

/* The same in whole numbers, whatever the chunk's codec: digests are read in no other way. */
struct pgd_packed_rows pgd_attend_packed_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                              const struct pgd_plan_chunk *chunk, uint32_t head);

/* ---- attend.c ---- */

/* Where partial result `index` of a KV head lives, of the one token in hand: max and sum of the group, then outputs. */
struct pgd_partial pgd_attend_partial(const struct pgd_attend_call *call, uint32_t head, uint32_t index);

/* The partial result of rows that see nothing. */
void pgd_attend_set_unseen(const struct pgd_partial *partial, uint32_t rows, uint32_t value_size);

/* What an item has seen so far, in both bases: chunks of rotated codecs are merged apart from the others. */
struct pgd_merging {
    struct pgd_partial running;
    struct pgd_partial rotated;
};

/* The item's place in `streamed` (running states of all rows of the batch, plain and rotated), or the worker's. */
struct pgd_merging pgd_attend_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                      const struct pgd_partial *streamed);
void pgd_attend_begin_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                              const struct pgd_merging *merging);
void pgd_attend_merge(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                      const struct pgd_plan_chunk *chunk, const struct pgd_merging *merging,
                      const struct pgd_partial *partial);

/* Turns the rotated outputs back, joins them to the others, and writes the result. */
void pgd_attend_finish_merging(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                               const struct pgd_merging *merging);

/* The rows of KV head item->head + head over cells that were gathered; visible lanes are set. */
void pgd_attend_gathered(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                         const struct pgd_plan_chunk *chunk, const struct pgd_gathered *gathered, uint32_t head,
                         const struct pgd_partial *partial);

/* One token, all KV heads: the pages of a chunk that are in memory, into the chunk's partial results. */
void pgd_attend_memory(const struct pgd_attend_call *call, const struct pgd_attend_item *all, uint32_t chunk_index);

/* Chunks [first, end) of the plan, as one of several turns or as all there are. */
struct pgd_attend_turn {
    uint32_t first;
    uint32_t end;
    atomic_uint *next_item;
    const struct pgd_partial *streamed; /* as above; NULL: one turn does it all */
};
void pgd_attend_chunks(const struct pgd_attend_call *call, const struct pgd_attend_turn *turn);

#endif
