/* cache/cache.h - the inside of struct pagoda_cache, shared by the files of this folder only.
 *
 *   open.c     options -> one cache                   sizes.c   what a budget holds
 *   room.c     who must leave, what fits              shrink.c  full pages into smaller codecs
 *   compact.c  pages together, to free a slab          budget.c  a budget that moves
 *   spill.h    pages on flash, with files of its own
 *   batch.c    begin, end, abort, rollback            plan.c    the batch's chunks and rotations
 *   ingest.c   rows into pages                        attend.c, gather.c, rows.c  the walk over pages
 *   pin.c      pins and policy                        account.c the numbers
 *   draws.h    what single tokens draw on
 *
 * Invariants (asserted where they could break)
 *   I1  ledger.by_category[KV_EXACT] + by_category[KV_QUANTIZED] + by_category[DIGESTS] == bytes of all frames taken.
 *   I2  position == tokens ever accepted less those rolled back; every held token has position < position,
 *       or belongs to the open batch.
 *   I3  While a batch is open its pages are placed, and no page leaves.
 *   I4  Everything below `staging` is written only between begin and end, by the team.
 */
#ifndef PGD_CACHE_CACHE_H
#define PGD_CACHE_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/system.h"
#include "codec/codec.h"
#include "kernels/kernels.h"
#include "page/ledger.h"
#include "page/pool.h"
#include "page/table.h"
#include "pagoda/cache.h"
#include "pagoda/stats.h"

#define PGD_POSITION_MAX 0x7fffffffu /* engines count positions in 31 bits */
#define PGD_SHIFTS_MAX 64u           /* position gaps that are closed apart, and runs of blocks in one codec */
#define PGD_RUNGS_MAX 3u             /* codecs that one cache uses: f16, and up to two smaller ones */
#define PGD_THRIFT_LEVELS 30u        /* sizes.c: from plenty to as tight as can be */
#define PGD_ROWS_MAX 96u             /* query rows that one work item takes at most */
#define PGD_BLOCKS_MAX (1u << 27)

/* What one layer's pages are in one codec. */
struct pgd_page_kind {
    uint64_t cell_bytes;
    uint64_t page_bytes; /* = bytes of its frame class */
    uint32_t frame_class;
};

/* One attention layer as the cache uses it. */
struct pgd_layer {
    struct pagoda_layer shape; /* sinks and frequencies point to copies of our own */
    struct pgd_page_kind kinds[PGD_RUNGS_MAX];
    uint32_t rope;        /* which rotation table; layers with equal frequencies share one */
    uint64_t row_bytes;   /* K and V rows of one token in the f16 account: live bytes */
    uint32_t item_tokens; /* tokens in a work item of many rows */
    bool given[2];        /* keys, values of this batch; written by thread 0 of the team */
    atomic_uint next_item;
    atomic_uint *head_left; /* [kv_heads] chunks of the batch still to be attended */
};

/* One chunk of the batch's plan: consecutive cells in token order, the same for all layers. */
struct pgd_plan_chunk {
    uint32_t block; /* index in the block table of its first cell ... */
    uint32_t cell;  /* ... and which cell of that block */
    uint32_t cells; /* how many */
    uint32_t shift; /* index into plan.shifts: how far its queries are rotated back */
    uint32_t rung;  /* index into the cache's codecs: the one of all its cells */
    uint64_t first; /* position of its first token */
    uint64_t last;  /* position of its last token */
};

struct pgd_rope_table {
    struct pagoda_rope rope;
    float *cosine; /* [PGD_SHIFTS_MAX][pair_count] */
    float *sine;
};

struct pgd_plan {
    struct pgd_plan_chunk *chunks; /* [chunk_capacity] */
    uint32_t chunk_capacity;
    uint32_t chunk_count;
    uint32_t shift_count;            /* shift 0 is "none" */
    uint64_t shifts[PGD_SHIFTS_MAX]; /* dropped tokens between a chunk and the query */
};

/* Working memory of one thread. All carved from one block. */
struct pgd_worker {
    float *kernel;                 /* scratch of the kernels */
    float *queries;                /* [rows][key_size] packed */
    float *rotated;                /* the same, rotated */
    struct pgd_packed_rows packed; /* the same once more, transformed and in whole numbers, if ... */
    bool packed_is_ready;          /* ... this says so, for the shift packed_shift */
    uint32_t packed_shift;
    uint32_t *first;
    uint32_t *end;
    struct pgd_partial running;
    struct pgd_partial running_rotated; /* over chunks of rotated codecs; joins the other at the end */
    struct pgd_partial partial;
    float *scores; /* of digests: [3][rows][PGD_CHUNK_BLOCKS], with a flash tier only, as ... */
    float *digest; /* ... the scratch of their kernel */
};

struct pgd_batch {
    bool open;
    uint64_t first; /* position of its first token */
    uint32_t count;
    uint32_t blocks_before; /* blocks in the table before it came */
    uint32_t tail_before;   /* tokens in the last of them, when that one was open */
};

struct pgd_spill; /* spill.h */
struct pgd_draws; /* draws.h */

struct pagoda_cache {
    struct pgd_system system;
    struct pgd_layer *layers;
    uint32_t layer_count;
    uint32_t page_tokens;
    uint32_t page_cells;
    uint32_t batch_tokens;
    uint32_t batch_most; /* of these, what a batch may have where memory is tight */
    uint32_t threads_max;
    uint64_t tokens_max;
    uint64_t close_gaps_at;
    uint64_t rollback_tokens;
    uint32_t exact_first;
    uint32_t recent_wanted;                        /* by the options: at most so many of the latest tokens ... */
    uint32_t exact_recent;                         /* ... and these are exact, those that may be taken back included */
    uint32_t shifts_max;                           /* up to PGD_SHIFTS_MAX */
    uint32_t runs_max;                             /* likewise, of blocks in one codec */
    const struct pgd_codec *codecs[PGD_RUNGS_MAX]; /* f16 first, smaller ones behind it */
    enum pagoda_codec codec_ids[PGD_RUNGS_MAX];
    uint32_t rung_count;
    bool two_bases;        /* pages, or digests, in the rotated basis may be among others */
    uint32_t rung_settled; /* what pages become as soon as they have left the exact ones: 0, or 1 */
    enum pagoda_on_full on_full;
    struct pagoda_policy policy;
    const struct pgd_kernels *kernels;

    struct pgd_ledger ledger;
    struct pgd_pool *pool;
    struct pgd_table *table;
    struct pgd_spill *spill; /* NULL: nothing goes to flash */
    struct pgd_draws *draws; /* NULL: nobody wants to know */
    uint32_t class_count;
    uint32_t block_frames[PGD_RUNGS_MAX][PGD_POOL_CLASSES_MAX]; /* frames of each class in a whole block */
    uint64_t block_bytes[PGD_RUNGS_MAX];

    uint64_t position;
    uint64_t held_tokens; /* in the table, the open batch included */
    uint64_t rollback_floor;
    uint64_t settled_to;    /* blocks that end before it have settled, or never will */
    uint64_t released_to;   /* blocks that end before it hold no page that a window layer could give */
    uint32_t window_widest; /* 0: no layer has a window */
    uint64_t tokens_capacity;
    uint64_t live_row_bytes;
    uint64_t row_bytes; /* of one token, all layers */
    uint64_t evicted_pages;
    uint64_t released_pages;
    uint64_t reencoded_pages;
    uint64_t peak_frame_bytes;
    uint64_t peak_live_bytes;
    struct pgd_batch batch;

    struct pgd_plan plan;
    struct pgd_rope_table *ropes;
    uint32_t rope_count;
    struct pgd_worker *workers; /* [threads_max] */
    float *partials;            /* decode: [chunks][query heads of the widest layer][value_size + 2] */
    float *cell_rows;           /* shrink.c: keys and values of one cell of the widest layer */
    void *memory;               /* plan, partials and workers are carved from this one allocation ... */
    size_t memory_bytes;
    size_t base_bytes; /* ... and the cache, its layers and rotation tables from that of the cache itself */
};

/* Which category of the ledger the frames of a page are, by the rung of its codec. */
static inline enum pagoda_memory_category pgd_cache_category(uint32_t rung)
{
    return rung == 0 ? PAGODA_MEMORY_KV_EXACT : PAGODA_MEMORY_KV_QUANTIZED;
}

/* ---- room.c ---- */

/* Drops block `index` in every layer. */
void pgd_cache_drop_block(struct pagoda_cache *cache, uint32_t index);

/* Whether a layer has a window, and no query to come can see the tokens of this block. */
bool pgd_cache_window_has_passed(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* Frees pages that window layers have passed: no token from `position` on can see them. */
void pgd_cache_release_windows(struct pagoda_cache *cache);

/* Frames of each class that `count` more tokens need, and a block that is re-encoded meanwhile. */
void pgd_cache_frames_needed(const struct pagoda_cache *cache, uint32_t count, uint32_t *needs);

/* Lets one block go, as the rules for a full budget say; false when none may leave. */
PGD_MUST_CHECK bool pgd_cache_evict_one(struct pagoda_cache *cache);

/* Makes room for `count` tokens or says why not; see pagoda_cache_begin. */
PGD_MUST_CHECK enum pagoda_status pgd_cache_make_room(struct pagoda_cache *cache, uint32_t count,
                                                      struct pagoda_error *error);

/* Slabs that stay without a class: the next re-encoding may need one of its own. */
uint32_t pgd_cache_spare_slabs(const struct pagoda_cache *cache);

/* Whether the frames that `count` more tokens need are free now. */
bool pgd_cache_frames_fit(const struct pagoda_cache *cache, uint32_t count);

/* Whether a frame of this class can be taken without taking from what the next `count` tokens need. */
bool pgd_cache_has_spare(const struct pagoda_cache *cache, uint32_t class_index, uint32_t count);

/* Gives the frame of a page back, and takes it off the books. No effect when the page is absent. */
void pgd_cache_free_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* Bytes of live rows in a page: what its tokens need in its codec. Not of absent pages. */
uint64_t pgd_cache_live_bytes(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* The policy's view of block `index`. */
struct pgd_policy_block;
void pgd_cache_policy_block(const void *cache, uint32_t index, struct pgd_policy_block *block);

/* ---- sizes.c ---- */

/* Codecs, cell and page sizes of every layer, and the frame classes that they make, into class_bytes. Errors: LIMIT. */
PGD_MUST_CHECK enum pagoda_status pgd_cache_size_layers(struct pagoda_cache *cache, uint64_t *class_bytes,
                                                        struct pagoda_error *error);

/* Before anything is laid out: how much is set aside for what is not text, from 0 (plenty) to PGD_THRIFT_LEVELS - 1.
 * Without a flash tier only level 0 makes sense. Sets the bytes of frames of digests. */
void pgd_cache_set_thrift(struct pagoda_cache *cache, uint32_t level, uint64_t *class_bytes);

/* The largest batch that there must be room for. With a flash tier smaller ones do: what digests leave is not much, and
 * pages that stay in memory are worth more than the speed of reading a prompt. */
uint32_t pgd_cache_least_batch(const struct pagoda_cache *cache);

/* The most blocks that can ever be held, whatever the budget. */
uint64_t pgd_cache_blocks_limit(const struct pagoda_cache *cache);

/* An arena that surely holds `blocks` blocks, those that must be exact in f16 and the others as small as allowed. */
uint64_t pgd_cache_arena_bytes(const struct pagoda_cache *cache, uint64_t blocks, const uint64_t *class_bytes);

/* ---- shrink.c ---- */

/* Re-encodes what has left the exact tokens once the sequence ends at `end_position`, as far as frames are there. */
void pgd_cache_settle(struct pagoda_cache *cache, uint64_t end_position);

/* Whether a block may leave f16, or go further down, once the sequence ends at `end_position`. */
bool pgd_cache_may_shrink(const struct pagoda_cache *cache, uint32_t index, uint64_t end_position);

/* Re-encodes one block: the oldest that can be made smaller, all to the next codec before any to the one after.
 * False when none can. */
PGD_MUST_CHECK bool pgd_cache_shrink_one(struct pagoda_cache *cache, uint64_t end_position);

/* Bytes of frames that pgd_cache_shrink_one could free in all. */
uint64_t pgd_cache_shrink_gain(const struct pagoda_cache *cache, uint64_t end_position);

/* ---- compact.c ---- */

/* Empties one slab by moving its pages into others of their class; false when there is none to empty. */
PGD_MUST_CHECK bool pgd_cache_compact(struct pagoda_cache *cache);

/* Marks the slabs whose pages must stay where they are. */
void pgd_cache_mark_fixed(const struct pagoda_cache *cache);

/* ---- budget.c ---- */

/* Whether frames for `count` more tokens surely fit once all that may leave has left; where text is kept, all that may
 * leave for flash. Where it says no, they still may: slabs are counted as if pages that stay could not be packed well.
 * O(pages). */
bool pgd_cache_surely_fits(const struct pagoda_cache *cache, uint32_t count, bool keeps_text);

/* The smallest budget that holds all text, made as small as it can be, or on flash. Never less than
 * pagoda_cache_budget_floor, and not more than the budget as it is. */
uint64_t pgd_cache_text_floor(const struct pagoda_cache *cache);

/* Lowers the budget towards `bytes` as pagoda_cache_set_budget does, but no text leaves for it: where that is in the
 * way, or flash is full, the budget goes down as far as it can. Errors: BUSY. */
PGD_MUST_CHECK enum pagoda_status pgd_cache_lower_budget(struct pagoda_cache *cache, uint64_t bytes,
                                                         struct pagoda_error *error);

/* ---- plan.c ---- */

/* Lays the chunks of the open batch out and fills the rotation tables. */
void pgd_cache_plan(struct pagoda_cache *cache);

/* ---- account.c ---- */

/* Bytes of the frames that pages have: all that are taken, but for those of digests. */
uint64_t pgd_cache_frame_bytes(const struct pagoda_cache *cache);

/* ---- batch.c ---- */

/* Takes everything from `position` on away. */
void pgd_cache_truncate(struct pagoda_cache *cache, uint64_t position);

/* PAGODA_BUSY while a batch is open. */
PGD_MUST_CHECK enum pagoda_status pgd_cache_check_idle(const struct pagoda_cache *cache, struct pagoda_error *error);

#endif
