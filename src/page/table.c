/* page/table.c - the block table: slots that never move, and an order over them.
 *
 *   order   | 3 | 0 | 4 | 1 | 2 |            [0, count) the blocks in token order, as slot numbers
 *             blocks --->|<--- free             [count, capacity) the slots that are free
 *   blocks  | slot 0 | slot 1 | ...          one struct pgd_block per slot
 *   pages   | slot 0: layer 0, 1, ... | slot 1: ...
 *
 * `order` is always a permutation of all slots, so that taking a slot, freeing one and listing the
 * blocks need no second structure, and removing a block moves four bytes per block after it.
 * Everything is one allocation: struct, blocks, pages, order. A slot is written when it is appended
 * and not before: memory that is not in use is not touched.
 */
#include "page/table.h"

#include <stddef.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"

struct pgd_table {
    struct pgd_system system;
    size_t bytes; /* of this allocation */
    uint32_t layer_count;
    uint32_t page_tokens;
    uint32_t capacity;
    uint32_t count;
    bool last_is_open;        /* the last block is being written */
    struct pgd_block *blocks; /* [capacity] by slot */
    struct pgd_page *pages;   /* [capacity][layer_count] by slot */
    uint32_t *order;          /* [capacity] */
};
_Static_assert(sizeof(struct pgd_table) % _Alignof(struct pgd_block) == 0, "blocks follow the table unpadded");
_Static_assert(sizeof(struct pgd_block) == 24, "a block counts against the budget");
_Static_assert(sizeof(struct pgd_block) % _Alignof(struct pgd_page) == 0, "pages follow the blocks unpadded");
_Static_assert(_Alignof(struct pgd_page) % _Alignof(uint32_t) == 0, "the order follows the pages unpadded");

/* ---- making and ending ---- */

uint64_t pgd_table_bytes(uint32_t layer_count, uint32_t block_capacity)
{
    uint64_t bytes = (uint64_t) layer_count * sizeof(struct pgd_page);
    bytes += sizeof(struct pgd_block) + sizeof(uint32_t);
    if (!pgd_mul_u64(bytes, block_capacity, &bytes) || !pgd_add_u64(bytes, sizeof(struct pgd_table), &bytes)) {
        return UINT64_MAX;
    }
    return bytes;
}

static void lay_out(struct pgd_table *table)
{
    char *const start = (char *) (table + 1);
    const size_t blocks_bytes = table->capacity * sizeof(struct pgd_block);
    const size_t pages_bytes = (size_t) table->capacity * table->layer_count * sizeof(struct pgd_page);
    table->blocks = (struct pgd_block *) (void *) start;
    table->pages = (struct pgd_page *) (void *) (start + blocks_bytes);
    table->order = (uint32_t *) (void *) (start + blocks_bytes + pages_bytes);
    PGD_ASSERT((char *) (table->order + table->capacity) == (char *) table + table->bytes);
    for (uint32_t i = 0; i < table->capacity; i++) {
        table->order[i] = i;
    }
}

enum pagoda_status pgd_table_open(const struct pgd_system *system, uint32_t layer_count, uint32_t page_tokens,
                                  uint32_t block_capacity, struct pgd_table **table, struct pagoda_error *error)
{
    if (layer_count == 0 || page_tokens == 0) {
        return pgd_fail(error, PAGODA_INVALID, "A block table needs at least one layer and one token per page.");
    }
    const uint64_t bytes = pgd_table_bytes(layer_count, block_capacity);
    struct pgd_table *const made = bytes < SIZE_MAX ? pgd_allocate(system, (size_t) bytes) : NULL;
    if (made == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "No memory for a block table of %llu bytes.", (unsigned long long) bytes);
    }
    made->system = *system;
    made->bytes = (size_t) bytes;
    made->layer_count = layer_count;
    made->page_tokens = page_tokens;
    made->capacity = block_capacity;
    lay_out(made);
    *table = made;
    return PAGODA_OK;
}

void pgd_table_close(struct pgd_table *table)
{
    if (table == NULL) {
        return;
    }
    const struct pgd_system system = table->system;
    pgd_release(&system, table, table->bytes);
}

/* ---- looking ---- */

uint32_t pgd_table_count(const struct pgd_table *table)
{
    return table->count;
}

uint32_t pgd_table_capacity(const struct pgd_table *table)
{
    return table->capacity;
}

static struct pgd_block *block_at(const struct pgd_table *table, uint32_t index)
{
    PGD_ASSERT(index < table->count);
    return &table->blocks[table->order[index]];
}

static struct pgd_page *pages_at(const struct pgd_table *table, uint32_t index)
{
    PGD_ASSERT(index < table->count);
    return &table->pages[(size_t) table->order[index] * table->layer_count];
}

static struct pgd_page *page_at(const struct pgd_table *table, uint32_t index, uint32_t layer)
{
    PGD_ASSERT(layer < table->layer_count);
    return &pages_at(table, index)[layer];
}

const struct pgd_block *pgd_table_block(const struct pgd_table *table, uint32_t index)
{
    return block_at(table, index);
}

const struct pgd_page *pgd_table_page(const struct pgd_table *table, uint32_t index, uint32_t layer)
{
    return page_at(table, index, layer);
}

uint32_t pgd_table_slot(const struct pgd_table *table, uint32_t index)
{
    PGD_ASSERT(index < table->count);
    return table->order[index];
}

static uint64_t end_of(const struct pgd_block *block)
{
    return block->first + block->count;
}

uint32_t pgd_table_find(const struct pgd_table *table, uint64_t position)
{
    /* Ends never decrease (I3): all blocks below `low` end at or before position, all from `high` on after it. */
    uint32_t low = 0;
    uint32_t high = table->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (end_of(block_at(table, middle)) > position) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static bool is_open_block(const struct pgd_table *table, uint32_t index)
{
    return table->last_is_open && index + 1 == table->count;
}

/* ---- growing and shrinking ---- */

static void empty_pages(struct pgd_table *table, uint32_t index)
{
    struct pgd_page *const pages = pages_at(table, index);
    for (uint32_t layer = 0; layer < table->layer_count; layer++) {
        pages[layer] = (struct pgd_page) {.frame = PGD_FRAME_NONE, .state = PAGODA_PAGE_ABSENT};
    }
}

bool pgd_table_append(struct pgd_table *table, uint64_t first)
{
    PGD_ASSERT(!table->last_is_open);
    PGD_ASSERT(first % table->page_tokens == 0);
    PGD_ASSERT(first <= UINT64_MAX - table->page_tokens);
    if (table->count > 0) {
        PGD_ASSERT(first >= end_of(block_at(table, table->count - 1)));
    }
    if (table->count == table->capacity) {
        return false;
    }
    const uint32_t index = table->count++;
    *block_at(table, index) = (struct pgd_block) {.first = first};
    empty_pages(table, index);
    table->last_is_open = true;
    return true;
}

void pgd_table_remove(struct pgd_table *table, uint32_t index)
{
    const struct pgd_block *const block = block_at(table, index);
    PGD_ASSERT(block->pages_present == 0);
    PGD_ASSERT(!block->pinned);
    if (index + 1 == table->count) {
        table->last_is_open = false;
    }
    const uint32_t slot = table->order[index];
    table->count--;
    memmove(&table->order[index], &table->order[index + 1], (table->count - index) * sizeof table->order[0]);
    table->order[table->count] = slot;
}

void pgd_table_reset(struct pgd_table *table)
{
    /* The order stays as it is: any permutation serves, and append empties the slot that it takes. */
    table->count = 0;
    table->last_is_open = false;
}

/* ---- arrows of the state machine ---- */

void pgd_table_place(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame, uint8_t codec)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_ABSENT && page->frame == PGD_FRAME_NONE);
    PGD_ASSERT(frame != PGD_FRAME_NONE);
    PGD_ASSERT(is_open_block(table, index));
    *page = (struct pgd_page) {.frame = frame, .state = PAGODA_PAGE_OPEN, .codec = codec};
    struct pgd_block *const block = block_at(table, index);
    block->pages_present++;
    PGD_ASSERT(block->pages_present <= table->layer_count);
}

uint32_t pgd_table_clear_page(struct pgd_table *table, uint32_t index, uint32_t layer)
{
    struct pgd_page *const page = page_at(table, index, layer);
    struct pgd_block *const block = block_at(table, index);
    PGD_ASSERT(page->state != PAGODA_PAGE_ABSENT);
    PGD_ASSERT(block->pages_present > 0);
    const uint32_t frame = page->frame;
    *page = (struct pgd_page) {.frame = PGD_FRAME_NONE, .state = PAGODA_PAGE_ABSENT};
    block->pages_present--;
    return frame;
}

uint32_t pgd_table_reencode(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame, uint8_t codec)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_SEALED || (page->state == PAGODA_PAGE_CLEAN && page->codec == codec));
    PGD_ASSERT(frame != PGD_FRAME_NONE);
    const uint32_t before = page->frame;
    page->frame = frame;
    page->codec = codec;
    return before;
}

void pgd_table_set_clean(struct pgd_table *table, uint32_t index, uint32_t layer)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_SEALED);
    page->state = PAGODA_PAGE_CLEAN;
}

uint32_t pgd_table_spill(struct pgd_table *table, uint32_t index, uint32_t layer)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_CLEAN);
    const uint32_t frame = page->frame;
    page->frame = PGD_FRAME_NONE;
    page->state = PAGODA_PAGE_SPILLED;
    return frame;
}

void pgd_table_recall(struct pgd_table *table, uint32_t index, uint32_t layer, uint32_t frame)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_SPILLED && frame != PGD_FRAME_NONE);
    page->frame = frame;
    page->state = PAGODA_PAGE_CLEAN;
}

uint32_t pgd_table_collapse(struct pgd_table *table, uint32_t index, uint32_t layer)
{
    struct pgd_page *const page = page_at(table, index, layer);
    PGD_ASSERT(page->state == PAGODA_PAGE_SEALED || page->state == PAGODA_PAGE_CLEAN ||
               page->state == PAGODA_PAGE_SPILLED);
    const uint32_t frame = page->frame;
    page->frame = PGD_FRAME_NONE;
    page->state = PAGODA_PAGE_COLLAPSED;
    return frame;
}

void pgd_table_set_heat(struct pgd_table *table, uint32_t index, uint32_t layer, uint16_t heat)
{
    page_at(table, index, layer)->heat = heat;
}

uint8_t pgd_table_codec(const struct pgd_table *table, uint32_t index)
{
    const struct pgd_page *const pages = pages_at(table, index);
    for (uint32_t layer = 0; layer < table->layer_count; layer++) {
        if (pages[layer].state != PAGODA_PAGE_ABSENT) {
            return pages[layer].codec;
        }
    }
    return 0;
}

/* Moves every page of a block that is in state `from` to `to`; all present pages are in `from`. */
static void move_pages(struct pgd_table *table, uint32_t index, enum pagoda_page_state from, enum pagoda_page_state to)
{
    struct pgd_page *const pages = pages_at(table, index);
    uint32_t moved = 0;
    for (uint32_t layer = 0; layer < table->layer_count; layer++) {
        if (pages[layer].state == (uint8_t) from) {
            pages[layer].state = (uint8_t) to;
            moved++;
        }
    }
    PGD_ASSERT(moved == block_at(table, index)->pages_present);
}

void pgd_table_seal(struct pgd_table *table, uint32_t index)
{
    PGD_ASSERT(is_open_block(table, index));
    PGD_ASSERT(block_at(table, index)->count == table->page_tokens);
    move_pages(table, index, PAGODA_PAGE_OPEN, PAGODA_PAGE_SEALED);
    table->last_is_open = false;
}

void pgd_table_reopen(struct pgd_table *table, uint32_t index)
{
    PGD_ASSERT(index + 1 == table->count);
    PGD_ASSERT(!table->last_is_open);
    move_pages(table, index, PAGODA_PAGE_SEALED, PAGODA_PAGE_OPEN);
    table->last_is_open = true;
}

void pgd_table_set_count(struct pgd_table *table, uint32_t index, uint32_t count)
{
    PGD_ASSERT(is_open_block(table, index));
    PGD_ASSERT(count <= table->page_tokens);
    block_at(table, index)->count = count;
}

void pgd_table_set_pinned(struct pgd_table *table, uint32_t index, bool pinned)
{
    block_at(table, index)->pinned = pinned;
}

/* ---- the full walk ---- */

static bool has_frame_in(uint8_t state)
{
    return state == PAGODA_PAGE_OPEN || state == PAGODA_PAGE_SEALED || state == PAGODA_PAGE_CLEAN;
}

static bool pages_are_valid(const struct pgd_table *table, uint32_t index)
{
    const struct pgd_page *const pages = pages_at(table, index);
    const bool open = is_open_block(table, index);
    uint32_t present = 0;
    for (uint32_t layer = 0; layer < table->layer_count; layer++) {
        if (has_frame_in(pages[layer].state) != pgd_page_has_frame(&pages[layer])) {
            return false; /* I1 */
        }
        if (pages[layer].state != PAGODA_PAGE_ABSENT && open != (pages[layer].state == PAGODA_PAGE_OPEN)) {
            return false; /* I2 */
        }
        present += pages[layer].state == PAGODA_PAGE_ABSENT ? 0 : 1;
    }
    return present == table->blocks[table->order[index]].pages_present;
}

static bool block_is_valid(const struct pgd_table *table, uint32_t index)
{
    const struct pgd_block *const block = block_at(table, index);
    const bool open = is_open_block(table, index);
    if (block->first % table->page_tokens != 0 || block->count > table->page_tokens) {
        return false; /* I3 */
    }
    if (index > 0 && block->first < end_of(block_at(table, index - 1))) {
        return false; /* I3 */
    }
    return (open || block->count == table->page_tokens) && pages_are_valid(table, index); /* I4 */
}

/* Two sums that every permutation of [0, capacity) has, and that a slot listed twice spoils. */
static bool order_is_valid(const struct pgd_table *table)
{
    uint64_t sum = 0;
    uint64_t squares = 0;
    uint64_t expected_sum = 0;
    uint64_t expected_squares = 0;
    for (uint32_t i = 0; i < table->capacity; i++) {
        const uint64_t slot = table->order[i];
        if (slot >= table->capacity) {
            return false;
        }
        sum += slot;
        squares += slot * slot;
        expected_sum += i;
        expected_squares += (uint64_t) i * i;
    }
    return sum == expected_sum && squares == expected_squares;
}

bool pgd_table_is_valid(const struct pgd_table *table)
{
    if (table->count > table->capacity || (table->last_is_open && table->count == 0) || !order_is_valid(table)) {
        return false;
    }
    for (uint32_t i = 0; i < table->count; i++) {
        if (!block_is_valid(table, i)) {
            return false;
        }
    }
    return true;
}
