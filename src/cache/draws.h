/* cache/draws.h - what single tokens draw on: how much of their attention goes to which block.
 *
 * Kernels tell what each cell of a chunk has of the chunk's sum; whoever merges a head knows the sum of all, and so
 * each cell's share. That is done in one of PGD_DRAWS_EVERY calls of attend, and in all of the first token, so that a
 * reply of one word has an account too. Layers with a window are left out, unless there are no others: they see little
 * but the latest text. Pages that digests stand in for count by what their digests expect.
 *
 * Invariants
 *   D1  The shares of all blocks, and `gone`, add up to the rows that were counted.
 * Ownership: memory of the cache's. Threads: cells belong to whoever attends them, shares to the thread that merges;
 *   everything else is the owner's, between batches.
 */
#ifndef PGD_CACHE_DRAWS_H
#define PGD_CACHE_DRAWS_H

#include "cache/attend.h"
#include "cache/carver.h"

#define PGD_DRAWS_EVERY 8u

/* The cells of one partial result of a KV head, by the blocks that they belong to. */
struct pgd_draws_cells {
    uint32_t count;
    uint32_t block[PGD_CHUNK_BLOCKS]; /* index in the table */
};

struct pgd_draws {
    bool is_begun;
    bool windows_count;            /* all layers have windows */
    uint64_t since;                /* position of the first token that is counted */
    double gone;                   /* in blocks that are there no more */
    uint32_t capacity;             /* blocks of the table */
    uint32_t slots;                /* partial results of a KV head, at most */
    double *shares;                /* [threads_max][capacity] by slot of the table */
    uint64_t *rows;                /* [threads_max] query rows counted */
    struct pgd_draws_cells *cells; /* [KV heads][slots] */
    float *sums;                   /* [KV heads][slots][group][PGD_CHUNK_BLOCKS] */
};

/* Carves what depends on the number of blocks, and of partial results. */
void pgd_draws_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, uint64_t blocks, uint64_t slots);

/* Whether this call of attend is one that is counted. */
bool pgd_draws_counts(const struct pagoda_cache *cache, uint32_t layer);

/* Of a call that is counted: where partial result `index` of a KV head leaves the sums of its cells. */
float *pgd_draws_sums(const struct pgd_attend_call *call, uint32_t head, uint32_t index);

/* Of such a call: which cells those are. */
void pgd_draws_note(const struct pgd_attend_call *call, uint32_t head, uint32_t index,
                    const struct pgd_gathered *gathered);

/* Of such a call: all of a KV head is merged, from the partial results below `count` and digests, into `total`. Where
 * pages have collapsed and the token does not select, the worker's rows are those of this head. */
void pgd_draws_add(const struct pgd_attend_call *call, uint32_t head, uint32_t count, const struct pgd_partial *total);

/* Owner: a block is about to be removed; everything is. */
void pgd_draws_forget(struct pagoda_cache *cache, uint32_t index);
void pgd_draws_reset(struct pagoda_cache *cache);

#endif
