/* cache/select.c - see spill.h: which pages a token reads, and which stay in memory.
 *
 * What is in memory has been attended by then, so its share of the softmax is known exactly; what is not is estimated
 * from digests. Pages are taken in order of the largest share that any query head expects of them (the maximum over
 * the heads of a group, as in ShadowKV, Sun et al. 2024, arXiv 2410.21465), until no head leaves more than 1 - recall
 * of its attention unread (top-p over pages, after Twilight, Lin et al. 2025, arXiv 2502.02770), or what it leaves is
 * spread over so many pages that it does not matter. For the rest joins as pseudo-tokens (stream.c), and what these get
 * wrong, each in its own direction, adds up as squares do: a head that leaves 30 % to 300 pages errs less than one that
 * leaves 5 % to a single one. docs/selection.md has what that saves.
 *
 * Heat is the logarithm of the largest share a page had, less a constant for each token since: the page with the
 * least heat makes place for one that was just read and has more (score-decayed replacement).
 */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "cache/spill.h"
#include "kernels/digest.h"

#define HEAT_OCTAVES 48  /* shares below 2^-48 are all the same */
#define HEAT_STEPS 1365u /* of an octave */
#define MANTISSA_BITS 23
#define HEAT_DECAY 170u   /* of a token: half as hot after eight */
#define HEAT_MARGIN 170u  /* a page must be this much hotter than the one it takes the place of */
#define UNREAD_PART 0.55f /* the root of the sum of squares may be this part of 1 - recall */
#define CHEAP_LAYERS 8u
#define CHEAP_SURE 3u /* one in so many of the pages that are cheap to read is read in any case */

void pgd_select_begin(struct pagoda_cache *cache)
{
    struct pgd_spill *spill = cache->spill;
    spill->stall_left_ns = spill->options.stall_ms * UINT64_C(1000000);
    spill->unread_pages = 0;
    spill->failed = false; /* what was refused before may be taken now */
    pgd_fetch_drain(cache);
    pgd_detail_decide(cache);
}

void pgd_select_fetch(const struct pgd_attend_call *call, uint32_t chunk_index)
{
    const struct pagoda_cache *cache = call->cache;
    if (chunk_index >= cache->plan.chunk_count) {
        return;
    }
    const struct pgd_plan_chunk *chunk = &cache->plan.chunks[chunk_index];
    const uint32_t end = chunk->block + pgd_chunk_blocks(cache, chunk);
    for (uint32_t index = chunk->block; index < end; index++) {
        if (pgd_spill_has_digests(cache, index)) {
            pgd_detail_fetch(cache, index, call->layer_index);
        }
    }
}

/* Where scores of cells from number `at` on belong, for one KV head. */
static struct pgd_digest_scores scores_from(const struct pgd_attend_call *call, uint32_t head, uint32_t at)
{
    const struct pgd_spill *spill = call->cache->spill;
    const uint32_t stride = spill->capacity * call->cache->page_cells;
    const size_t first = (size_t) head * call->group * stride + at;
    return (struct pgd_digest_scores) {spill->mass + first, {spill->lean[0] + first, spill->lean[1] + first}, stride};
}

/* The same for cells that are not in a row: scored apart, and put in their places. */
static void score_scattered(const struct pgd_attend_call *call, const struct pgd_packed_rows *rows,
                            const struct pgd_spill_cells *cells)
{
    const struct pgd_digest_scores scores = pgd_attend_scores(call, call->group);
    const struct pgd_digest_scores all = scores_from(call, cells->head, 0);
    pgd_detail_score(call, rows, cells, &scores);
    for (uint32_t r = 0; r < call->group; r++) {
        for (uint32_t i = 0; i < cells->count; i++) {
            const size_t from = (size_t) r * scores.stride + i;
            const size_t to = (size_t) r * all.stride + cells->at[i];
            all.mass[to] = scores.mass[from];
            for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
                all.lean[line][to] = scores.lean[line][from];
            }
        }
    }
}

void pgd_select_score(const struct pgd_attend_call *call, const struct pgd_attend_item *all,
                      const struct pgd_plan_chunk *chunk)
{
    struct pgd_spill_cells cells;
    pgd_spill_find_cells(call->cache, call->layer_index, chunk, 0, &cells);
    for (uint32_t head = 0; cells.count > 0 && head < all->heads; head++) {
        const struct pgd_packed_rows rows = pgd_attend_packed_rows(call, all, chunk, head);
        pgd_spill_turn_to(call->cache, call->layer_index, head, &cells);
        if (cells.at[cells.count - 1] - cells.at[0] == cells.count - 1) {
            const struct pgd_digest_scores scores = scores_from(call, head, cells.at[0]);
            pgd_detail_score(call, &rows, &cells, &scores);
        } else {
            score_scattered(call, &rows, &cells);
        }
    }
}

/* ---- shares ---- */

float pgd_select_log_of_sum(const float *logs, uint32_t count)
{
    float max = -INFINITY;
    float sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        max = fmaxf(max, logs[i]);
    }
    for (uint32_t i = 0; i < count && max > -INFINITY; i++) {
        sum += pgd_ref_exp(logs[i] - max);
    }
    return max + logf(sum);
}

/* The logarithm of what a row has found in memory, and of its learned sink. */
static float log_of_memory(const struct pgd_attend_call *call, uint32_t query_head)
{
    const uint32_t head = query_head / call->group;
    const uint32_t row = query_head % call->group;
    const float *sinks = call->layer->shape.sinks;
    float max = sinks == NULL ? -INFINITY : sinks[query_head];
    float sum = sinks == NULL ? 0 : 1;
    for (uint32_t c = 0; c < call->cache->plan.chunk_count; c++) {
        const struct pgd_partial partial = pgd_attend_partial(call, head, c);
        const float m = partial.max[row];
        if (m > max) {
            sum = sum * pgd_ref_exp(max - m) + partial.sum[row];
            max = m;
        } else if (m > -INFINITY) {
            sum += partial.sum[row] * pgd_ref_exp(m - max);
        }
    }
    return max + logf(sum);
}

/* The logarithms of the mass that a row expects of pages: of all their cells together, -infinity without digests. */
static void expect_pages(const struct pagoda_cache *cache, uint32_t query_head, float *expected)
{
    const uint32_t cells = cache->page_cells;
    const float *mass = cache->spill->mass + (size_t) query_head * cache->spill->capacity * cells;
    for (uint32_t i = 0; i < pgd_table_count(cache->table); i++) {
        const float all = cells == 1 ? mass[i] : pgd_select_log_of_sum(mass + (size_t) i * cells, cells);
        expected[i] = pgd_spill_has_digests(cache, i) ? all : -INFINITY;
    }
}

/* Sets a row's shares of all pages with digests, and the share that lies in pages which may be read. */
static void share_row(const struct pgd_attend_call *call, uint32_t query_head)
{
    const struct pagoda_cache *cache = call->cache;
    struct pgd_spill *spill = cache->spill;
    const uint32_t count = pgd_table_count(cache->table);
    float *share = spill->share + (size_t) query_head * spill->capacity;
    const float memory = log_of_memory(call, query_head);
    float max = memory;
    expect_pages(cache, query_head, share);
    for (uint32_t i = 0; i < count; i++) {
        max = share[i] > max && spill->unread[i] != 0 ? share[i] : max;
    }
    cache->kernels->exponentials(count, share, max, share);
    float spilled = 0;
    float collapsed = 0;
    float squares = 0;
    for (uint32_t i = 0; i < count; i++) {
        spilled += spill->unread[i] == PAGODA_PAGE_SPILLED ? share[i] : 0;
        squares += spill->unread[i] == PAGODA_PAGE_SPILLED ? share[i] * share[i] : 0;
        collapsed += spill->unread[i] == PAGODA_PAGE_COLLAPSED ? share[i] : 0;
    }
    const float part = 1 / (pgd_ref_exp(memory - max) + spilled + collapsed);
    for (uint32_t i = 0; i < count; i++) {
        share[i] *= part;
    }
    spill->row_left[query_head] = spilled * part;
    spill->row_squares[query_head] = squares * part * part;
}

void pgd_select_share(const struct pgd_attend_call *call)
{
    atomic_uint *next = &call->cache->spill->next_row;
    uint32_t row;
    while ((row = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < call->layer->shape.query_heads) {
        share_row(call, row);
    }
}

/* The largest share that a row expects of each page, into rank_score. */
static void find_largest_shares(const struct pgd_attend_call *call)
{
    const struct pgd_spill *spill = call->cache->spill;
    const uint32_t count = pgd_table_count(call->cache->table);
    memcpy(spill->rank_score, spill->share, count * sizeof(float));
    for (uint32_t r = 1; r < call->layer->shape.query_heads; r++) {
        const float *share = spill->share + (size_t) r * spill->capacity;
        for (uint32_t i = 0; i < count; i++) {
            spill->rank_score[i] = share[i] > spill->rank_score[i] ? share[i] : spill->rank_score[i];
        }
    }
}

/* The logarithm as the bits of a number have it: right for powers of two, and straight between them. */
static uint16_t heat_of(float share)
{
    const float least = 1.0f / (float) (UINT64_C(1) << HEAT_OCTAVES);
    int32_t bits;
    int32_t least_bits;
    memcpy(&bits, &share, sizeof bits);
    memcpy(&least_bits, &least, sizeof least_bits);
    if (!(share > least)) { /* NaN is cold */
        return 0;
    }
    return (uint16_t) pgd_min_u64((uint64_t) (bits - least_bits) * HEAT_STEPS >> MANTISSA_BITS, UINT16_MAX);
}

static void warm(struct pagoda_cache *cache, uint32_t index, uint32_t layer, float share)
{
    const uint32_t before = pgd_table_page(cache->table, index, layer)->heat;
    const uint16_t cooled = (uint16_t) (before - pgd_min_u64(before, HEAT_DECAY));
    const uint16_t now = heat_of(share);
    pgd_table_set_heat(cache->table, index, layer, now > cooled ? now : cooled);
}

/* ---- the candidate with the largest share, again and again: a heap ---- */

static void sift_down(uint32_t *heap, uint32_t count, uint32_t at, const float *score)
{
    const uint32_t moved = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && score[heap[child + 1]] > score[heap[child]]) {
            child++;
        }
        if (!(score[heap[child]] > score[moved])) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void make_heap(uint32_t *heap, uint32_t count, const float *score)
{
    for (uint32_t i = count / 2; i-- > 0;) {
        sift_down(heap, count, i, score);
    }
}

static uint32_t pop(uint32_t *heap, uint32_t *count, const float *score)
{
    const uint32_t top = heap[0];
    heap[0] = heap[--*count];
    if (*count > 0) {
        sift_down(heap, *count, 0, score);
    }
    return top;
}

/* ---- choosing ---- */

/* Pages that a layer reads before what is spread out goes unread, a part of them in any case: none where there are many
 * layers, as each that reads at all waits for the device once. */
static uint32_t cheap_pages(const struct pgd_attend_call *call)
{
    const uint32_t layers = call->cache->spill->growing;
    const uint64_t page = pgd_spill_page_bytes(call->cache, call->layer_index);
    return layers > CHEAP_LAYERS ? 0 : (uint32_t) (call->cache->spill->cheap_bytes / layers / page);
}

/* Whether more is read: what is cheap in any case, or because some row still leaves more unread than it may. */
static bool wants_more(const struct pgd_attend_call *call, uint32_t cheap)
{
    const struct pgd_spill *spill = call->cache->spill;
    const float most = (float) (1 - spill->options.recall);
    if (spill->selected_count < cheap / CHEAP_SURE) { /* digests may say far too little of one page */
        return true;
    }
    const float most_squares = spill->selected_count < cheap ? 0 : UNREAD_PART * most * UNREAD_PART * most;
    for (uint32_t r = 0; r < call->layer->shape.query_heads; r++) {
        if (spill->row_left[r] > most && spill->row_squares[r] > most_squares) {
            return true;
        }
    }
    return false;
}

static void take_page(const struct pgd_attend_call *call, uint32_t index)
{
    struct pgd_spill *spill = call->cache->spill;
    spill->unread[index] = 0;
    spill->selected_count++;
    for (uint32_t r = 0; r < call->layer->shape.query_heads; r++) {
        const float share = spill->share[(size_t) r * spill->capacity + index];
        spill->row_left[r] -= share;
        spill->row_squares[r] -= share * share;
    }
}

void pgd_select_note_away(const struct pgd_attend_call *call)
{
    const struct pagoda_cache *cache = call->cache;
    cache->spill->has_late = false;
    for (uint32_t i = 0; i < pgd_table_count(cache->table); i++) {
        const struct pgd_page *page = pgd_table_page(cache->table, i, call->layer_index);
        cache->spill->unread[i] = pgd_page_is_away(page) ? page->state : 0;
    }
}

/* Shares of all pages with digests: heat, and candidates for reading. */
static uint32_t rank_pages(const struct pgd_attend_call *call, uint32_t cheap)
{
    struct pagoda_cache *cache = call->cache;
    struct pgd_spill *spill = cache->spill;
    const float little = (float) (1 - spill->options.recall) / (float) (spill->layers[call->layer_index].away + 1);
    const float least = cheap > 0 ? 0 : little;
    uint32_t candidates = 0;
    find_largest_shares(call);
    for (uint32_t i = 0; i < pgd_table_count(cache->table); i++) {
        if (!pgd_spill_has_digests(cache, i)) {
            continue;
        }
        warm(cache, i, call->layer_index, spill->rank_score[i]);
        if (spill->unread[i] == PAGODA_PAGE_SPILLED && spill->rank_score[i] > least) {
            spill->ranked[candidates++] = i;
        }
    }
    make_heap(spill->ranked, candidates, spill->rank_score);
    return candidates;
}

/* What is going to be unread, for the account. */
static void note_unread(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    for (uint32_t r = 0; r < call->layer->shape.query_heads; r++) {
        spill->unread_mass_sum += fmaxf(spill->row_left[r], 0);
        spill->unread_mass_rows++;
    }
    uint32_t unread = 0;
    for (uint32_t i = 0; i < pgd_table_count(call->cache->table); i++) {
        unread += spill->unread[i] == PAGODA_PAGE_SPILLED ? 1 : 0;
    }
    spill->unread_pages += unread;
    spill->skipped_pages += unread;
}

void pgd_select_choose(const struct pgd_attend_call *call)
{
    struct pagoda_cache *cache = call->cache;
    struct pgd_spill *spill = cache->spill;
    const uint32_t cheap = cheap_pages(call);
    uint32_t candidates = rank_pages(call, cheap);
    spill->selected_count = 0;
    while (candidates > 0 && wants_more(call, cheap)) {
        take_page(call, pop(spill->ranked, &candidates, spill->rank_score));
    }
    pgd_yardstick_draw(call);
    note_unread(call);
    uint32_t count = 0;
    for (uint32_t i = 0; i < pgd_table_count(cache->table) && count < spill->selected_count; i++) {
        const struct pgd_page *page = pgd_table_page(cache->table, i, call->layer_index);
        if (page->state == PAGODA_PAGE_SPILLED && spill->unread[i] == 0) {
            spill->selected[count++] = i;
        }
    }
}

/* ---- keeping ---- */

static void give_frame(struct pagoda_cache *cache, uint32_t index, uint32_t layer, uint32_t frame,
                       const unsigned char *bytes)
{
    memcpy(pgd_pool_address(cache->pool, frame), bytes, pgd_spill_page_bytes(cache, layer));
    pgd_table_recall(cache->table, index, layer, frame);
    cache->spill->recalled_pages++;
}

/* A frame that nobody needs, while the next tokens still have room. */
static bool take_spare_frame(struct pagoda_cache *cache, uint32_t layer, uint32_t *frame)
{
    const uint32_t rung = pgd_spill_rung(cache);
    const uint32_t class_index = cache->layers[layer].kinds[rung].frame_class;
    if (!pgd_cache_has_spare(cache, class_index, cache->page_tokens + 1) ||
        !pgd_pool_take(cache->pool, class_index, frame)) {
        return false;
    }
    const bool admitted =
        pgd_ledger_take(&cache->ledger, pgd_cache_category(rung), pgd_pool_frame_bytes(cache->pool, class_index));
    PGD_ASSERT(admitted); /* the arena is within the budget */
    return true;
}

/* The layer's pages that may leave memory, the coldest first; returns how many. */
static uint32_t rank_coldest(const struct pagoda_cache *cache, uint32_t layer)
{
    struct pgd_spill *spill = cache->spill;
    uint32_t count = 0;
    for (uint32_t i = 0; i < pgd_table_count(cache->table); i++) {
        if (pgd_spill_may_leave(cache, i, layer)) {
            spill->rank_score[i] = -(float) pgd_table_page(cache->table, i, layer)->heat;
            spill->ranked[count++] = i;
        }
    }
    make_heap(spill->ranked, count, spill->rank_score);
    return count;
}

/* Puts a page in the place of the coldest one of its layer, if that has drawn less attention. */
static void swap_in(struct pagoda_cache *cache, uint32_t index, uint32_t layer, const unsigned char *bytes,
                    uint32_t *victims)
{
    struct pgd_spill *spill = cache->spill;
    const float heat = (float) pgd_table_page(cache->table, index, layer)->heat;
    if (*victims > 0 && heat + spill->rank_score[spill->ranked[0]] > HEAT_MARGIN) {
        const uint32_t victim = pop(spill->ranked, victims, spill->rank_score);
        pgd_detail_keep(cache, victim, layer);
        give_frame(cache, index, layer, pgd_table_spill(cache->table, victim, layer), bytes);
    }
}

void pgd_select_keep(struct pagoda_cache *cache, const struct pgd_fetch *fetch, uint32_t layer, bool may_swap)
{
    bool has_spare = true;
    uint32_t victims = may_swap ? rank_coldest(cache, layer) : 0;
    for (uint32_t i = 0; i < fetch->page_count && (has_spare || victims > 0); i++) {
        const struct pgd_fetch_page *fetched = &fetch->pages[i];
        const unsigned char *bytes = fetch->memory + fetched->at;
        uint32_t frame = PGD_FRAME_NONE;
        /* A page at the border of two chunks may have come back with those before. */
        if (fetched->outcome != PGD_FETCH_GOOD ||
            pgd_table_page(cache->table, fetched->block, layer)->state != PAGODA_PAGE_SPILLED) {
            continue;
        }
        has_spare = has_spare && take_spare_frame(cache, layer, &frame);
        if (has_spare) {
            give_frame(cache, fetched->block, layer, frame, bytes);
            cache->live_row_bytes += pgd_cache_live_bytes(cache, fetched->block, layer);
            cache->spill->layers[layer].away--;
        } else {
            swap_in(cache, fetched->block, layer, bytes, &victims);
        }
    }
}
