/* cache/spill.h - pages on flash: how they leave memory, how they are read, and which of them a token reads.
 *
 *   spill.c    what is kept about them; groups of blocks to flash; pages out of memory
 *   digests.c  frames of digests, and where in them a cell's are
 *   fetch.c    pages from flash into staging, part by part
 *   queries.c  what queries have been like
 *   trust.c    how far digests have been right
 *   detail.c   heads of which all keys are known in memory; what digests say
 *   select.c   which pages a token reads; heat; pages back into memory
 *   stream.c   attention for layers with pages on flash
 *   yardstick.c two other ways to choose, for measuring
 *
 * A group is up to group_blocks neighbouring blocks in one codec that go to flash together: in every layer their
 * pages lie side by side in one extent, so that reading a run of them is one read. The extents are given back when
 * the last block of the group is gone. A page's bytes are written once.
 *
 * A page that left memory is known by its digests (kernels/digest.h), one for each cell and KV head: they tell what
 * a query may find in it, and stand in for it when it is not read. All digests of a block share a frame of the pool.
 * Where memory is tight (sizes.c), neighbouring blocks share a frame, and the cells in it share digests: a span.
 * Layers with a window keep their pages in memory: the window is their bound.
 *
 * Reading has two forms. Streamed: all pages take part, a chunk is attended when its pages have arrived; the bytes are
 * those of a cache that holds everything in memory. Selected (one token, unless read_all, and not in layers that are
 * dense for a while): pages in memory are attended, digests of the others scored, those pages read that are expected
 * to matter, and the rest stood in for while the device works. While other layers are at work, the first pages of the
 * next layer that will be streamed are on their way.
 *
 * Invariants
 *   S1  A page that is SPILLED or COLLAPSED belongs to a block with digests; one that is CLEAN or SPILLED, to a group.
 *   S2  layers[l].away == pages of layer l that are SPILLED or COLLAPSED.
 *   S3  No read is in flight between two calls of attend, but those that came too late (pgd_fetch_begin) and those
 *       into fetch[PGD_FETCH_AHEAD] for layer `ahead`; between two batches, none of the latter either.
 * Threads: between begin and end the team's thread 0 is the conductor: it alone changes anything here; the others read
 *   what it wrote before a barrier of the team.
 */
#ifndef PGD_CACHE_SPILL_H
#define PGD_CACHE_SPILL_H

#include <stdatomic.h>

#include "cache/attend.h"
#include "cache/cache.h"
#include "cache/carver.h"
#include "kernels/digest.h"
#include "tier/flash.h"

#define PGD_GROUP_BLOCKS 16u /* fewer where memory is tight (sizes.c) */
#define PGD_GROUP_NONE UINT32_MAX
#define PGD_FETCHES 3u
#define PGD_FETCH_AHEAD 2u  /* the one that is filled for a layer before its turn, and larger than the others */
#define PGD_AHEAD_CHUNKS 4u /* what is read ahead is not waited for, but takes memory: so much where there is plenty */
#define PGD_LAYER_NONE UINT32_MAX
#define PGD_DETAIL_NONE 0u
#define PGD_DETAIL_PART 12u
#define PGD_CHEAP_BYTES (UINT64_C(1) << 20)
#define PGD_TRUST_SLOTS 8u                      /* tokens of a batch that digests are tried on */
#define PGD_FLASH_RESERVE (UINT64_C(256) << 20) /* free bytes of the file system that are left to others */

/* A layer whose pages may go to flash, or one with a window (grows is false). */
struct pgd_spill_layer {
    bool grows;
    uint32_t ordinal;      /* among the layers that grow */
    uint32_t digest_bytes; /* of one digest */
    uint32_t digest_along; /* where in it its first cell's part is */
    uint64_t digest_at;    /* where its digests begin in a frame of digests */
    bool dense;            /* read in full by the next token: pages on flash lack details (detail.c) */
    uint32_t away;         /* S2 */
    uint32_t collapsed;    /* of these */
};

/* What is known about a block, by its slot in the table. */
struct pgd_spill_block {
    uint32_t group;   /* PGD_GROUP_NONE: its pages were not written */
    uint32_t rank;    /* which block of the group */
    uint32_t digests; /* frame; PGD_FRAME_NONE */
    uint32_t place;   /* which block of those that share it */
};

struct pgd_spill_group {
    uint32_t blocks; /* when it was written */
    uint32_t live;   /* of these; 0: the group is free */
};

#define PGD_UNREAD_LATE UINT8_MAX

enum pgd_fetch_outcome { PGD_FETCH_WAITED = 0, PGD_FETCH_GOOD, PGD_FETCH_BAD, PGD_FETCH_LATE };

struct pgd_fetch_read {
    uint64_t offset;
    uint64_t bytes;
    uint64_t at; /* in the part's memory */
};
struct pgd_fetch_page {
    uint32_t block; /* index in the table */
    uint32_t read;
    uint64_t at;
    uint32_t shift; /* of a selected page: how far its queries are rotated back */
    enum pgd_fetch_outcome outcome;
};

/* One part of the staging memory: while its pages are attended, the others are being read. */
struct pgd_fetch {
    unsigned char *memory;
    uint64_t bytes;
    uint32_t pages_max;
    uint32_t first_ticket;
    uint32_t read_count;
    uint32_t page_count;
    struct pgd_fetch_read *reads; /* [pages_max] */
    struct pgd_fetch_page *pages; /* [pages_max] */
    uint64_t used;
    uint32_t first; /* chunks, or selected pages, that it is for */
    uint32_t end;
    bool is_last;
    uint32_t first_packet; /* selected pages: number of its first packet among all */
    atomic_uint next_page; /* to be waited for */
    atomic_uint next_item;
    atomic_uint missing; /* pages that are bad or late */
};

/* A barrier of the team inside one call of attend. */
struct pgd_team {
    atomic_uint arrived;
    atomic_uint turn;
};

struct pgd_spill {
    struct pagoda_flash_options options;
    struct pgd_flash *flash;
    bool failed; /* a write was refused: flash counts as full until the next batch, or something was freed */
    struct pagoda_error problem;

    bool all_in_memory;             /* sizes.c: how much would hold everything without flash? */
    struct pgd_spill_layer *layers; /* [layer_count] */
    uint32_t growing;               /* layers that grow */
    uint32_t digest_class;
    uint32_t digest_cells; /* of a digest */
    uint32_t span;         /* blocks that share a frame of digests, at most */

    uint32_t detail_count; /* slots for heads with details */
    uint64_t details_at;   /* where they begin in a frame of digests */
    uint64_t detail_bytes; /* of a slot and cell */

    struct pgd_spill_block *blocks; /* [capacity] by slot */
    uint16_t *detailed_heads;       /* [detail_count] names of heads: trust's index and 1, or PGD_DETAIL_NONE */
    uint16_t *details;              /* [capacity][detail_count] by slot: whose details a block has */
    uint32_t *checksums;            /* [capacity][growing] by slot */
    struct pgd_spill_group *groups; /* [capacity] */
    uint32_t *extents;              /* [capacity][growing], in units of PGD_FLASH_ALIGN */
    uint32_t *free_groups;          /* [capacity] a stack */
    uint32_t free_group_count;
    uint32_t capacity;
    uint32_t group_blocks;       /* of a group, at most */
    unsigned char *write_buffer; /* room for an extent, in the same memory as the cache's partials */

    struct pgd_fetch fetch[PGD_FETCHES];
    uint32_t fetches;             /* of these: PGD_FETCHES, or one less where memory is too tight to read ahead */
    uint32_t tickets;             /* of all of them */
    uint64_t chunk_bytes;         /* room for the pages of any chunk */
    uint64_t smallest_page;       /* in bytes */
    uint32_t ahead;               /* layer that fetch[PGD_FETCH_AHEAD] is being filled for, or PGD_LAYER_NONE */
    const unsigned char **staged; /* [capacity] by index: where a page of the layer in hand lies; NULL */
    struct pgd_team team;

    float *mass;                   /* [query heads][capacity x cells of a page] by index: log of what digests expect */
    float *lean[PGD_DIGEST_LINES]; /* the same: where the row looks between the tokens that a digest sketches */
    float *share;                  /* [query heads][capacity] of a row's attention, as far as digests can tell */
    float *row_left;               /* [query heads] share of spilled pages that are not selected */
    float *row_squares;            /* [query heads] the same, each squared */
    uint32_t *selected;            /* [capacity] indices, in token order */
    uint32_t selected_count;
    uint32_t *ranked;  /* [capacity] candidates */
    float *rank_score; /* [capacity] by index */
    uint8_t *unread;   /* [capacity] by index: 0, or why a page is stood in for: its state, or PGD_UNREAD_LATE */
    bool has_late;     /* some were selected, and came too late or not at all */
    float *rows;       /* keys, values of a digest's cells, and what else is needed to make it */
    struct pgd_queries *queries;   /* [growing] queries.c */
    struct pgd_trust *trust;       /* [layer_count][trust_heads] */
    uint32_t trust_heads;          /* KV heads of the widest layer */
    struct pgd_lift *lifts;        /* [layer_count][lift_heads] */
    uint32_t lift_heads;           /* query heads of the widest layer */
    float *judged;                 /* trust.c: [PGD_TRUST_SLOTS][trust_heads] */
    struct pgd_lift *judged_lifts; /* trust.c: [PGD_TRUST_SLOTS][lift_heads] */
    float *chunk_mass;             /* trust.c: [PGD_TRUST_SLOTS][query heads][chunk capacity] log of what a chunk has */
    struct pgd_partial streamed[2]; /* [batch_most x query heads] running states, plain and rotated: there too */
    uint32_t packet_count;          /* packets of selected pages, each with a partial result */
    atomic_uint next_row;           /* whose shares are to be found */
    atomic_uint next_stand_in;      /* chunk whose unread pages are to be stood in for */
    atomic_uint next_head;          /* to be merged */

    uint64_t cheap_bytes;   /* of a token: what any device reads in little time (select.c) */
    uint64_t stall_left_ns; /* of the token in hand */
    uint64_t stalled_ns;    /* waited for flash since open or reset */
    uint64_t lost_pages;    /* could not be read any more: only digests are left */
    uint64_t late_pages;
    uint64_t spilled_pages;   /* written since open or reset */
    uint64_t collapsed_pages; /* given up for their digests since open or reset */
    uint64_t recalled_pages;
    uint64_t unread_pages;  /* by the last token */
    uint64_t skipped_pages; /* by all tokens since open or reset */
    double unread_mass_sum; /* over rows, layers and tokens since open or reset */
    uint64_t unread_mass_rows;
};

/* ---- spill.c ---- */

/* Whether a page takes part only by way of flash or its digest. */
static inline bool pgd_page_is_away(const struct pgd_page *page)
{
    return page->state == PAGODA_PAGE_SPILLED || page->state == PAGODA_PAGE_COLLAPSED;
}

/* Pages go to flash in the smallest codec that the cache has: its rung, and the bytes of a layer's pages in it. */
static inline uint32_t pgd_spill_rung(const struct pagoda_cache *cache)
{
    return cache->rung_count - 1;
}
static inline uint64_t pgd_spill_page_bytes(const struct pagoda_cache *cache, uint32_t layer)
{
    return cache->layers[layer].kinds[pgd_spill_rung(cache)].page_bytes;
}

/* What is known about block `index`, and whether it has digests. */
static inline struct pgd_spill_block *pgd_spill_about(const struct pagoda_cache *cache, uint32_t index)
{
    return &cache->spill->blocks[pgd_table_slot(cache->table, index)];
}
static inline bool pgd_spill_has_digests(const struct pagoda_cache *cache, uint32_t index)
{
    return pgd_spill_about(cache, index)->digests != PGD_FRAME_NONE;
}

/* Fills in what depends on the layers, and adds the class of digests to the pool's classes, but not its bytes. Errors:
 * LIMIT, UNSUPPORTED (no layer grows). */
PGD_MUST_CHECK enum pagoda_status pgd_spill_size(struct pagoda_cache *cache, struct pagoda_error *error);

/* Before anything is laid out: how many chunks are read ahead, 0 to PGD_AHEAD_CHUNKS. */
void pgd_spill_set_ahead(struct pagoda_cache *cache, uint32_t chunks);

/* Carves what depends on the number of blocks, and of chunks that a plan of them has at most. */
void pgd_spill_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, uint64_t blocks, uint64_t chunks);

/* Memory that has one use at a time: partial results while one token attends, running states while a batch of several
 * is streamed, an extent while none is open. The floats that the latter two take, and their places in it. */
uint64_t pgd_spill_shared_floats(const struct pagoda_cache *cache);
void pgd_spill_share(struct pagoda_cache *cache, float *memory);

/* Opens the flash file. Errors: those of pgd_flash_open. */
PGD_MUST_CHECK enum pagoda_status pgd_spill_open(struct pagoda_cache *cache, struct pagoda_error *error);
void pgd_spill_close(struct pagoda_cache *cache);
void pgd_spill_forget_all(struct pagoda_cache *cache);
void pgd_spill_reset(struct pagoda_cache *cache);

/* Bytes that the flash tier allocates at open. */
uint64_t pgd_spill_table_bytes(const struct pagoda_cache *cache);

/* What a token takes in the file, in whole groups. */
uint64_t pgd_spill_bytes_per_token(const struct pagoda_cache *cache);

/* Whether the file system has more to spare than what is left to others. */
bool pgd_spill_has_space(const struct pagoda_cache *cache);

/* One step towards more room: pages that are on flash leave memory, or a group of blocks is written. False when nothing
 * more can be done. */
PGD_MUST_CHECK bool pgd_spill_make_room(struct pagoda_cache *cache, uint64_t end_position);

/* Another, when flash has refused a write: a block collapses to its digests. When flash lacks space, the oldest of what
 * it holds makes place for what is younger; else, and when it holds nothing, the oldest of what was to be written goes
 * instead. False while nothing waits to be written: there is nothing to gain then. */
PGD_MUST_CHECK bool pgd_spill_collapse_oldest(struct pagoda_cache *cache, uint64_t end_position);

/* Once something was spilled: what has grown old enough is written before there is need, so that any of it can make
 * place for pages that draw more attention. `count` tokens are about to come. */
void pgd_spill_write_behind(struct pagoda_cache *cache, uint32_t count);

/* Whether a page can make place for another: its bytes are on flash, and its digests in memory. */
bool pgd_spill_may_leave(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* The oldest block that may be dropped and of which nothing but digests is left; the number of blocks when there is
 * none. */
uint32_t pgd_spill_oldest_collapsed(const struct pagoda_cache *cache);

/* A block is about to be removed from the table. */
void pgd_spill_forget(struct pagoda_cache *cache, uint32_t index);

/* The bytes of a spilled page cannot be had any more. */
void pgd_spill_lose(struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* Where a page's bytes lie in the file. */
uint64_t pgd_spill_offset(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);
uint32_t pgd_spill_checksum(const void *bytes, uint64_t count);
uint32_t pgd_spill_expected(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* ---- digests.c ---- */

/* Before anything is laid out: of how many cells a digest is, about, and that one KV head in `detail_part` has details;
 * the bytes of frames of digests follow from it. */
void pgd_spill_set_digests(struct pagoda_cache *cache, uint32_t cells, uint32_t detail_part, uint64_t *class_bytes);

/* Floats of working memory that a layer's digests take to make. */
uint64_t pgd_spill_digest_floats(const struct pagoda_cache *cache, uint32_t layer);

/* The most frames that the digests of `digested` blocks that have some, and of `more` that get some, take: those of a
 * span share one, and the end of a group may cut a span. */
uint64_t pgd_spill_digest_frames(const struct pagoda_cache *cache, uint64_t digested, uint64_t more);

/* Digests of `count` neighbouring blocks, a span at most, whose pages are all in memory; false when there is no frame
 * for them. */
PGD_MUST_CHECK bool pgd_spill_make_digests(struct pagoda_cache *cache, uint32_t first, uint32_t count);

/* A block has no digests any more; those of its neighbours stay. */
void pgd_spill_give_digests(struct pagoda_cache *cache, uint32_t index);

/* Frames of digests stay where they are when slabs are emptied. */
void pgd_spill_mark_frames(const struct pagoda_cache *cache);

/* The digest that tells of one cell of a page, for one KV head. The block has digests. */
const uint8_t *pgd_spill_digest(const struct pagoda_cache *cache, uint32_t index, uint32_t layer, uint32_t head,
                                uint32_t cell);

/* Number of the block's first cell among those that share its frame of digests. */
static inline uint32_t pgd_spill_first_cell(const struct pagoda_cache *cache, uint32_t index)
{
    return pgd_spill_about(cache, index)->place * cache->page_cells;
}

/* Some cells of a layer by their number, block x cells of a page, with the digests of one KV head. */
struct pgd_spill_cells {
    uint32_t count;
    uint32_t head;
    uint32_t at[PGD_CHUNK_BLOCKS];
    const uint8_t *digests[PGD_CHUNK_BLOCKS];
    const uint8_t *along[PGD_CHUNK_BLOCKS]; /* each cell's part of its digest */
};

/* Some of them in a row as the kernels want them, without details. */
static inline struct pgd_digest_pages pgd_spill_pages(const struct pgd_spill_cells *cells, uint32_t first, uint32_t end)
{
    return (struct pgd_digest_pages) {
        .count = end - first, .tokens = PGD_LANES, .digests = cells->digests + first, .along = cells->along + first};
}

/* Adds a cell whose block has digests. */
void pgd_spill_add_cell(const struct pagoda_cache *cache, uint32_t layer, uint32_t at, struct pgd_spill_cells *cells);

/* All cells of a chunk whose blocks have digests. */
void pgd_spill_find_cells(const struct pagoda_cache *cache, uint32_t layer, const struct pgd_plan_chunk *chunk,
                          uint32_t head, struct pgd_spill_cells *cells);

/* Turns to the digests of another KV head. */
void pgd_spill_turn_to(const struct pagoda_cache *cache, uint32_t layer, uint32_t head, struct pgd_spill_cells *cells);

/* Keys and values of one cell of a page in the smallest codec, rotated, [token][size]. */
void pgd_spill_decode_cell(const struct pagoda_cache *cache, uint32_t layer, const unsigned char *page, uint32_t head,
                           uint32_t cell, float *keys, float *values);

/* ---- queries.c ---- */

/* What the queries of a layer have been like, for digests: running means and variances. */
struct pgd_queries {
    uint32_t count;  /* tokens seen, up to a limit: after that old ones fade */
    float *means;    /* [query_heads][key_size] */
    float *variance; /* [kv_heads][key_size] about the means, averaged over the heads of the group */
};

void pgd_queries_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, struct pgd_queries *queries);

/* Conductor: looks at a few tokens of the batch. */
void pgd_queries_note(const struct pgd_attend_call *call);

struct pgd_digest_queries pgd_queries_of(const struct pagoda_cache *cache, uint32_t layer, uint32_t head);

/* ---- trust.c ---- */

/* How far the digests of a KV head have been wrong about what its queries drew on. */
struct pgd_trust {
    uint32_t count; /* queries looked at, up to a limit: after that old ones fade */
    float
        missed; /* share of the attention, on average, in chunks that hold much of it and that digests took for less */
};

/* How much more attention a query head pays to pages than their digests say. */
struct pgd_lift {
    float weight; /* of the tokens looked at: what they drew from pages; old ones fade */
    float log;
};

/* Whoever streams an item: before its first chunk, with each chunk, after the last. */
void pgd_trust_begin(const struct pgd_attend_call *call, const struct pgd_attend_item *item);
void pgd_trust_note(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t chunk_index,
                    const struct pgd_partial *partial);
void pgd_trust_judge(const struct pgd_attend_call *call, const struct pgd_attend_item *item);

/* Conductor, after a streamed call: adds what was found to what is known of the layer. */
void pgd_trust_fold(const struct pgd_attend_call *call);

/* To be added to what digests say, a logarithm. */
float pgd_trust_lift(const struct pagoda_cache *cache, uint32_t layer, uint32_t query_head);

/* ---- detail.c ---- */

/* How many of so many KV heads, over all layers that grow, have details: usually, one in PGD_DETAIL_PART. */
uint32_t pgd_detail_slots(uint32_t kv_heads, uint32_t part);

/* Owner, as a batch begins: which heads those are, and which layers are dense. */
void pgd_detail_decide(struct pagoda_cache *cache);

/* Makes the details of a page whose block has digests, from its bytes in the smallest codec. */
void pgd_detail_make_page(struct pagoda_cache *cache, uint32_t index, uint32_t layer, const unsigned char *page);

/* A page whose block has digests is about to leave memory: it gets the details that it lacks, as long as its bytes are
 * at hand. Once it is on flash, its whole layer would have to be read for them. */
void pgd_detail_keep(struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* A block has no details any more. */
void pgd_detail_forget(struct pagoda_cache *cache, uint32_t index);

/* Conductor: pages of a dense layer that were read get the details that they lack. */
void pgd_detail_catch_up(struct pagoda_cache *cache, uint32_t layer, const struct pgd_fetch *fetch);

/* Fetches the digests and details of a page into the processor's caches. The block has digests. */
void pgd_detail_fetch(const struct pagoda_cache *cache, uint32_t index, uint32_t layer);

/* What digests, or details where there are any, say of cells of one KV head. Rows are numbered token by token, then by
 * query head of the group. */
void pgd_detail_score(const struct pgd_attend_call *call, const struct pgd_packed_rows *rows,
                      const struct pgd_spill_cells *cells, const struct pgd_digest_scores *scores);

/* ---- fetch.c ---- */

/* Conductor: empties it; false when reads that came too late are still on their way into it. */
PGD_MUST_CHECK bool pgd_fetch_begin(struct pagoda_cache *cache, struct pgd_fetch *fetch);

/* Conductor: waits until no read into it is in flight, and empties it. */
void pgd_fetch_settle(struct pagoda_cache *cache, struct pgd_fetch *fetch);

/* Conductor: adds a spilled page of a layer; false, and nothing is added, when there is no room for it. */
PGD_MUST_CHECK bool pgd_fetch_add(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer, uint32_t index);

/* Conductor: begins to read what was added. */
void pgd_fetch_submit(struct pagoda_cache *cache, struct pgd_fetch *fetch);

/* Everybody: waits for the pages and checks them; good ones are in `staged` after the team's next barrier. */
void pgd_fetch_complete(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer, uint64_t deadline_ns);

/* Conductor, after that barrier: reads bad pages once more, and gives up those that stay bad. */
void pgd_fetch_repair(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer);

/* Owner: waits until no read is in flight at all. */
void pgd_fetch_drain(struct pagoda_cache *cache);

/* Conductor, when nobody needs the pages any more; `next` is where the pages after them are, or NULL. */
void pgd_fetch_end(struct pagoda_cache *cache, struct pgd_fetch *fetch, const struct pgd_fetch *next);

/* ---- select.c ---- */

/* Owner: a batch begins. */
void pgd_select_begin(struct pagoda_cache *cache);

/* Everybody, a while before: fetches what is needed for that into the processor's caches, if there is such a chunk. */
void pgd_select_fetch(const struct pgd_attend_call *call, uint32_t chunk_index);

/* Everybody: scores the digests of one chunk of the plan for all KV heads. */
void pgd_select_score(const struct pgd_attend_call *call, const struct pgd_attend_item *all,
                      const struct pgd_plan_chunk *chunk);

/* Conductor: notes which pages of the layer are away, in `unread`. */
void pgd_select_note_away(const struct pgd_attend_call *call);

/* Everybody, when all chunks were scored and all pages in memory attended: finds the shares of all rows. */
void pgd_select_share(const struct pgd_attend_call *call);

/* Conductor, when that is done: chooses what is read. */
void pgd_select_choose(const struct pgd_attend_call *call);

/* Conductor: pages that were read get frames: those that nobody needs, and, when `may_swap`, those of pages of the
 * layer that have drawn less attention. */
void pgd_select_keep(struct pagoda_cache *cache, const struct pgd_fetch *fetch, uint32_t layer, bool may_swap);

/* The logarithm of a sum, of numbers given by their logarithms. */
float pgd_select_log_of_sum(const float *logs, uint32_t count);

/* ---- yardstick.c ---- */

/* Conductor, before shares are found: for the oracle, replaces what digests expect of pages on flash by what is
 * there. */
void pgd_yardstick_weigh(const struct pgd_attend_call *call, const struct pgd_attend_item *all);

/* Conductor, once pages were chosen: by lot, chooses as many others in their place. */
void pgd_yardstick_draw(const struct pgd_attend_call *call);

/* ---- stream.c ---- */

/* The pages of block `index` and those after it that a chunk of the plan has cells of. */
static inline uint32_t pgd_chunk_blocks(const struct pagoda_cache *cache, const struct pgd_plan_chunk *chunk)
{
    return (chunk->cell + chunk->cells + cache->page_cells - 1) / cache->page_cells;
}

/* pagoda_cache_attend for a layer with pages away. */
void pgd_attend_streamed(const struct pgd_attend_call *call);
void pgd_attend_selected(const struct pgd_attend_call *call);

/* Whether the token in hand reads only some of the layer's pages. Ask once, before any barrier of the call. */
bool pgd_attend_selects(const struct pagoda_cache *cache, uint32_t layer);

/* Where this thread's scores of up to PGD_CHUNK_BLOCKS digests go. */
struct pgd_digest_scores pgd_attend_scores(const struct pgd_attend_call *call, uint32_t rows);

/* The cells of a chunk that nothing but digests is left of. */
void pgd_attend_find_collapsed(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t head,
                               struct pgd_spill_cells *cells);

/* Merges the stand-ins of all pages that are not read into `rotated`, for one KV head of an item whose queries are
 * packed. */
void pgd_attend_stand_ins(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t head,
                          const struct pgd_partial *rotated);

#endif
