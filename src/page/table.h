/* page/table.h - the block table of one sequence: which pages it has, in token order.
 *
 * A block is the pages of one run of up to page_tokens consecutive tokens, one page per layer.
 * Blocks leave as a whole (the policy), or layer by layer (a window layer that has passed them, or pages that
 * go to flash).
 *
 * States of a page, and who moves it:
 *
 *              pgd_table_place                 pgd_table_seal                pgd_table_set_clean
 *    ABSENT ---------------------> OPEN ------------------------> SEALED ------------------------> CLEAN
 *      ^                               <------------------------                                   |   ^
 *      |                                     pgd_table_reopen                     pgd_table_spill  |   | pgd_table_
 *      |                                                                                           v   |   recall
 *      +--- pgd_table_clear_page: from any state         COLLAPSED <------------------------ SPILLED --+
 *                                                                  pgd_table_collapse
 *    pgd_table_collapse takes a SEALED or CLEAN page as well. pgd_table_reencode gives a SEALED or CLEAN page another
 *    frame, and leaves its state.
 *
 * Invariants
 *   I1  A page is in exactly one state, and has a frame if and only if it is OPEN, SEALED or CLEAN.
 *   I2  At most one block is open, and it is the last one; all others are sealed (where present).
 *   I3  Blocks are in increasing order of position, each starts at a multiple of page_tokens, and
 *       they do not overlap.
 *   I4  A sealed block holds exactly page_tokens tokens.
 *   I5  A pinned block is never removed (pgd_table_remove asserts it): rollback unpins it first, and
 *       reset forgets everything.
 * Ownership: the table owns its arrays, never the frames behind the numbers. Threads: the owner's;
 *   others may read pages between pagoda_cache_begin and pagoda_cache_end.
 */
#ifndef PGD_PAGE_TABLE_H
#define PGD_PAGE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/system.h"
#include "page/pool.h"
#include "pagoda/stats.h"

struct pgd_page {
    uint32_t frame; /* PGD_FRAME_NONE when it is not in memory */
    uint8_t state;  /* enum pagoda_page_state */
    uint8_t codec;  /* number of the codec that its bytes are in, as the owner counts them */
    uint16_t heat;  /* how much attention it drew lately, as the owner measures it */
};
_Static_assert(sizeof(struct pgd_page) == 8, "a page descriptor is 8 bytes: it counts against the budget");

struct pgd_block {
    uint64_t first; /* position of its first token, a multiple of page_tokens */
    uint32_t count; /* tokens in it, 1 .. page_tokens; 0 only between append and the first token */
    bool pinned;
    uint32_t pages_present; /* that are not ABSENT */
};

/* Whether a page's bytes are in memory. */
static inline bool pgd_page_has_frame(const struct pgd_page *page)
{
    return page->frame != PGD_FRAME_NONE;
}

struct pgd_table;

/* Errors: INVALID (no layer, no token per page), NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_table_open(const struct pgd_system *system, uint32_t layer_count,
                                                 uint32_t page_tokens, uint32_t block_capacity,
                                                 struct pgd_table **table, struct pagoda_error *error);
void pgd_table_close(struct pgd_table *table);

/* Bytes that a table of this size allocates; UINT64_MAX when they do not fit in 64 bits. */
uint64_t pgd_table_bytes(uint32_t layer_count, uint32_t block_capacity);

uint32_t pgd_table_count(const struct pgd_table *table);    /* blocks held */
uint32_t pgd_table_capacity(const struct pgd_table *table); /* blocks that fit */

/* Block `index` in token order; valid until the next append, remove or reset. */
const struct pgd_block *pgd_table_block(const struct pgd_table *table, uint32_t index);

/* Page of block `index` in `layer`. */
const struct pgd_page *pgd_table_page(const struct pgd_table *table, uint32_t index, uint32_t layer);

/* A number below the capacity that stays a block's own for as long as the block is there, for what others keep
 * about it. */
uint32_t pgd_table_slot(const struct pgd_table *table, uint32_t index);

/* Appends an empty block at position `first`, all pages absent; false when the table is full. The
 * block before it must be sealed. O(layers). */
PGD_MUST_CHECK bool pgd_table_append(struct pgd_table *table, uint64_t first);

/* Arrows of the state machine, for page (index, layer). A page is only placed in the open block.
 * clear_page returns the frame to give back, PGD_FRAME_NONE when there was none. */
void pgd_table_place(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame, uint8_t codec);
PGD_MUST_CHECK uint32_t pgd_table_clear_page(struct pgd_table *table, uint32_t index, uint32_t layer);

/* A sealed or clean page gets another frame, in which its tokens are the same, or (sealed only) are in another codec.
 * Returns the frame to give back. */
PGD_MUST_CHECK uint32_t pgd_table_reencode(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame,
                                           uint8_t codec);

/* A sealed page was written to flash. */
void pgd_table_set_clean(struct pgd_table *table, uint32_t index, uint32_t layer);

/* A clean page leaves memory: returns the frame to give back. */
PGD_MUST_CHECK uint32_t pgd_table_spill(struct pgd_table *table, uint32_t index, uint32_t layer);

/* A spilled page is in memory again, in `frame`. */
void pgd_table_recall(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame);

/* The bytes of a sealed, clean or spilled page are lost, or given up: returns the frame to give back, PGD_FRAME_NONE
 * when there was none. */
PGD_MUST_CHECK uint32_t pgd_table_collapse(struct pgd_table *table, uint32_t index, uint32_t layer);

void pgd_table_set_heat(struct pgd_table *table, uint32_t index, uint32_t layer, uint16_t heat);

/* Codec of a block: all its pages are in the same one outside of a re-encoding. A block without pages: 0. O(layers). */
uint8_t pgd_table_codec(const struct pgd_table *table, uint32_t index);

/* Seals, or reopens, all present pages of a block (reopen: only the last block, whose pages are all SEALED). */
void pgd_table_seal(struct pgd_table *table, uint32_t index);
void pgd_table_reopen(struct pgd_table *table, uint32_t index);

/* Sets the number of tokens in the open block. */
void pgd_table_set_count(struct pgd_table *table, uint32_t index, uint32_t count);
void pgd_table_set_pinned(struct pgd_table *table, uint32_t index, bool pinned);

/* Removes a block whose pages are all absent already. O(blocks after it), four bytes each. */
void pgd_table_remove(struct pgd_table *table, uint32_t index);

/* Index of the first block that ends after `position` (first + count > position); count when none. O(log n). */
uint32_t pgd_table_find(const struct pgd_table *table, uint64_t position);

/* Forgets all blocks, also pinned ones; their frames are the caller's matter. O(1). */
void pgd_table_reset(struct pgd_table *table);

/* Full walk of I1-I4, for tests. */
bool pgd_table_is_valid(const struct pgd_table *table);

#endif
