/* cache/stream.c - see spill.h: attention for layers with pages on flash. */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "cache/draws.h"
#include "cache/spill.h"
#include "kernels/digest.h"
#include "os/os.h"

#define SPINS_BEFORE_YIELD 2000u

bool pgd_attend_selects(const struct pagoda_cache *cache, uint32_t layer)
{
    const struct pgd_spill *spill = cache->spill;
    const bool has_time = spill->options.stall_ms == 0 || spill->stall_left_ns > 0;
    return cache->batch.count == 1 && !spill->options.read_all && !(spill->layers[layer].dense && has_time);
}

static uint64_t now_ns(const struct pgd_attend_call *call)
{
    return call->cache->system.clock.now_ns(call->cache->system.clock.user);
}

/* Conductor: what was waited counts against the token. */
static void note_stall(const struct pgd_attend_call *call, uint64_t began)
{
    struct pgd_spill *spill = call->cache->spill;
    const uint64_t waited = now_ns(call) - began;
    spill->stall_left_ns -= pgd_min_u64(spill->stall_left_ns, waited);
    spill->stalled_ns += waited;
}

/* ---- the team ---- */

/* Returns when all threads of the team have called it. */
static void wait_for_team(const struct pgd_attend_call *call)
{
    struct pgd_team *team = &call->cache->spill->team;
    const uint32_t turn = atomic_load_explicit(&team->turn, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == call->threads) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->turn, turn + 1, memory_order_release);
        return;
    }
    uint32_t spins = 0;
    while (atomic_load_explicit(&team->turn, memory_order_acquire) == turn) {
        if (++spins % SPINS_BEFORE_YIELD == 0) {
            pgd_os_yield();
        }
    }
}

static bool is_conductor(const struct pgd_attend_call *call)
{
    return call->thread == 0;
}

/* ---- streamed: turns of whole chunks ---- */

/* What a part of the staging memory held before a chunk was added. */
struct mark {
    uint32_t reads;
    uint32_t pages;
    uint64_t used;
    uint64_t last_bytes;
};

static struct mark mark_fetch(const struct pgd_fetch *fetch)
{
    return (struct mark) {fetch->read_count, fetch->page_count, fetch->used,
                          fetch->read_count == 0 ? 0 : fetch->reads[fetch->read_count - 1].bytes};
}

static void return_to(struct pgd_fetch *fetch, const struct mark *mark)
{
    fetch->read_count = mark->reads;
    fetch->page_count = mark->pages;
    fetch->used = mark->used;
    if (mark->reads > 0) {
        fetch->reads[mark->reads - 1].bytes = mark->last_bytes;
    }
}

/* All spilled pages of a chunk, or none. */
static bool add_chunk(struct pagoda_cache *cache, uint32_t layer, struct pgd_fetch *fetch,
                      const struct pgd_plan_chunk *chunk)
{
    const struct mark before = mark_fetch(fetch);
    const uint32_t end = chunk->block + pgd_chunk_blocks(cache, chunk);
    for (uint32_t index = chunk->block; index < end; index++) {
        if (pgd_table_page(cache->table, index, layer)->state == PAGODA_PAGE_SPILLED &&
            !pgd_fetch_add(cache, fetch, layer, index)) {
            return_to(fetch, &before);
            return false;
        }
    }
    return true;
}

/* As many chunks from `first` on as there is room for. */
static void prepare_chunks(struct pagoda_cache *cache, uint32_t layer, struct pgd_fetch *fetch, uint32_t first)
{
    const struct pgd_plan *plan = &cache->plan;
    pgd_fetch_settle(cache, fetch);
    fetch->first = first;
    fetch->end = first;
    while (fetch->end < plan->chunk_count && add_chunk(cache, layer, fetch, &plan->chunks[fetch->end])) {
        fetch->end++;
    }
    PGD_ASSERT(fetch->end > first); /* there is room for any chunk */
    fetch->is_last = fetch->end == plan->chunk_count;
    pgd_fetch_submit(cache, fetch);
}

/* Conductor, when its layer waits for nothing any more: begins to read for the next layer that will be streamed. */
static void read_ahead(const struct pgd_attend_call *call)
{
    struct pagoda_cache *cache = call->cache;
    struct pgd_spill *spill = cache->spill;
    uint32_t layer = spill->fetches == PGD_FETCHES ? call->layer_index + 1 : cache->layer_count;
    while (layer < cache->layer_count && (spill->layers[layer].away == 0 || pgd_attend_selects(cache, layer))) {
        layer++;
    }
    if (layer < cache->layer_count && spill->ahead != layer) {
        prepare_chunks(cache, layer, &spill->fetch[PGD_FETCH_AHEAD], 0);
        spill->ahead = layer;
    }
}

/* Where the chunks of a turn are read to: those of the first may be on their way since before. */
static struct pgd_fetch *fetch_of_turn(struct pgd_spill *spill, uint32_t turn)
{
    return &spill->fetch[(PGD_FETCH_AHEAD + turn) % spill->fetches];
}

/* Conductor: begins a turn, if there is one after the turn before it. */
static void begin_turn(const struct pgd_attend_call *call, uint32_t turn)
{
    const struct pgd_fetch *before = fetch_of_turn(call->cache->spill, turn - 1);
    if (!before->is_last) {
        prepare_chunks(call->cache, call->layer_index, fetch_of_turn(call->cache->spill, turn), before->end);
    }
}

static void begin_streaming(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    if (spill->ahead != call->layer_index) {
        prepare_chunks(call->cache, call->layer_index, fetch_of_turn(spill, 0), 0);
    }
    spill->ahead = PGD_LAYER_NONE;
    for (uint32_t turn = 1; turn + 1 < spill->fetches; turn++) {
        begin_turn(call, turn);
    }
}

void pgd_attend_streamed(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    const bool is_single = call->cache->batch.count == 1;
    if (is_conductor(call)) {
        begin_streaming(call);
    }
    wait_for_team(call);
    for (uint32_t turn = 0;; turn++) {
        struct pgd_fetch *fetch = fetch_of_turn(spill, turn);
        const bool is_last = fetch->is_last;
        const uint64_t began = now_ns(call);
        if (is_conductor(call) && !is_last) {
            begin_turn(call, turn + spill->fetches - 1);
        }
        pgd_fetch_complete(call->cache, fetch, call->layer_index, 0);
        wait_for_team(call);
        if (is_conductor(call) && is_single) {
            note_stall(call, began);
        }
        if (atomic_load_explicit(&fetch->missing, memory_order_relaxed) > 0) {
            if (is_conductor(call)) {
                pgd_fetch_repair(call->cache, fetch, call->layer_index);
            }
            wait_for_team(call);
        }
        const struct pgd_attend_turn part = {fetch->first, fetch->end, &fetch->next_item, spill->streamed};
        pgd_attend_chunks(call, &part);
        wait_for_team(call);
        if (is_conductor(call)) {
            pgd_detail_catch_up(call->cache, call->layer_index, fetch);
            if (is_single && spill->layers[call->layer_index].dense) {
                pgd_select_keep(call->cache, fetch, call->layer_index, false);
            }
            pgd_fetch_end(call->cache, fetch, is_last ? NULL : fetch_of_turn(spill, turn + 1));
        }
        if (is_last) {
            break;
        }
    }
    if (is_conductor(call)) {
        pgd_trust_fold(call);
        read_ahead(call);
    }
}

/* ---- stand-ins ---- */

struct pgd_digest_scores pgd_attend_scores(const struct pgd_attend_call *call, uint32_t rows)
{
    float *scores = call->worker->scores;
    const size_t floats = (size_t) rows * PGD_CHUNK_BLOCKS;
    return (struct pgd_digest_scores) {scores, {scores + floats, scores + 2 * floats}, PGD_CHUNK_BLOCKS};
}

/* A softmax over what the digests of some cells stand for, with their scores, to the rows of one KV head. */
static void stand_in(const struct pgd_attend_call *call, uint32_t rows, const struct pgd_spill_cells *cells,
                     const struct pgd_digest_scores *scores, const struct pgd_partial *partial)
{
    const uint32_t count = cells->count;
    const struct pgd_kernels *kernels = call->cache->kernels;
    for (uint32_t r = 0; r < rows; r++) {
        float *weight = scores->mass + (size_t) r * scores->stride;
        float max = -INFINITY;
        float sum = 0;
        for (uint32_t i = 0; i < count; i++) {
            max = weight[i] > max ? weight[i] : max;
        }
        kernels->exponentials(count, weight, max, weight);
        for (uint32_t i = 0; i < count; i++) {
            sum += weight[i];
        }
        partial->max[r] = max;
        partial->sum[r] = sum;
    }
    memset(partial->out, 0, (size_t) rows * call->shape.value_size * sizeof(float));
    kernels->blend_digests(&call->shape, count, cells->digests, rows, scores->mass, scores, partial->out);
}

/* Scores of cells `at` (block x cells of a page) for the rows of one KV head, as select.c has left them. */
static void recall_scores(const struct pgd_attend_call *call, uint32_t head, const uint32_t *at, uint32_t count,
                          const struct pgd_digest_scores *scores)
{
    const struct pgd_spill *spill = call->cache->spill;
    for (uint32_t r = 0; r < call->group; r++) {
        const size_t row = (size_t) (head * call->group + r) * spill->capacity * call->cache->page_cells;
        for (uint32_t i = 0; i < count; i++) {
            scores->mass[r * scores->stride + i] = spill->mass[row + at[i]];
            for (uint32_t line = 0; line < PGD_DIGEST_LINES; line++) {
                scores->lean[line][r * scores->stride + i] = spill->lean[line][row + at[i]];
            }
        }
    }
}

/* Cells of a chunk that are stood in for: what `is_absent` says of their blocks. */
static void find_absent(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t head,
                        bool (*is_absent)(const struct pgd_attend_call *call, uint32_t index),
                        struct pgd_spill_cells *absent)
{
    const uint32_t page_cells = call->cache->page_cells;
    const uint32_t first = chunk->block * page_cells + chunk->cell;
    absent->count = 0;
    absent->head = head;
    for (uint32_t at = first; at < first + chunk->cells; at++) {
        if (is_absent(call, at / page_cells)) {
            pgd_spill_add_cell(call->cache, call->layer_index, at, absent);
        }
    }
}

static bool is_collapsed(const struct pgd_attend_call *call, uint32_t index)
{
    return pgd_table_page(call->cache->table, index, call->layer_index)->state == PAGODA_PAGE_COLLAPSED;
}

static bool is_late(const struct pgd_attend_call *call, uint32_t index)
{
    return call->cache->spill->unread[index] == PGD_UNREAD_LATE;
}

static bool is_unread(const struct pgd_attend_call *call, uint32_t index)
{
    return call->cache->spill->unread[index] != 0 && !is_late(call, index);
}

void pgd_attend_find_collapsed(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t head,
                               struct pgd_spill_cells *cells)
{
    find_absent(call, chunk, head, is_collapsed, cells);
}

void pgd_attend_stand_ins(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t head,
                          const struct pgd_partial *rotated)
{
    const struct pagoda_cache *cache = call->cache;
    const uint32_t rows = pgd_attend_head_rows(call, item);
    const struct pgd_digest_scores scores = pgd_attend_scores(call, rows);
    for (uint32_t c = 0; c < cache->plan.chunk_count; c++) {
        const struct pgd_plan_chunk *chunk = &cache->plan.chunks[c];
        struct pgd_spill_cells absent;
        pgd_attend_find_collapsed(call, chunk, item->head + head, &absent);
        if (absent.count > 0) {
            const struct pgd_packed_rows packed = pgd_attend_packed_rows(call, item, chunk, head);
            pgd_detail_score(call, &packed, &absent, &scores);
            stand_in(call, rows, &absent, &scores, &call->worker->partial);
            cache->kernels->merge(rows, call->shape.value_size, rotated, &call->worker->partial);
        }
    }
}

/* Stands in for cells of one KV head, with scores as select.c has left them. */
static void stand_in_scored(const struct pgd_attend_call *call, uint32_t head, struct pgd_spill_cells *absent,
                            const struct pgd_partial *partial)
{
    const struct pgd_digest_scores scores = pgd_attend_scores(call, call->group);
    recall_scores(call, head, absent->at, absent->count, &scores);
    pgd_spill_turn_to(call->cache, call->layer_index, head, absent);
    stand_in(call, call->group, absent, &scores, partial);
}

/* The partial result of what is stood in for in a chunk. */
static struct pgd_partial stand_in_partial(const struct pgd_attend_call *call, uint32_t head, uint32_t chunk_index)
{
    return pgd_attend_partial(call, head, 2 * call->cache->plan.chunk_capacity + chunk_index);
}

/* Everybody, while selected pages are being read: chunk by chunk, for all KV heads. */
static void stand_in_for_unread(const struct pgd_attend_call *call, uint32_t kv_heads)
{
    const struct pgd_plan *plan = &call->cache->plan;
    atomic_uint *next = &call->cache->spill->next_stand_in;
    uint32_t c;
    while ((c = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < plan->chunk_count) {
        struct pgd_spill_cells absent;
        find_absent(call, &plan->chunks[c], 0, is_unread, &absent);
        for (uint32_t head = 0; head < kv_heads; head++) {
            const struct pgd_partial partial = stand_in_partial(call, head, c);
            if (absent.count > 0) {
                stand_in_scored(call, head, &absent, &partial);
            } else {
                pgd_attend_set_unseen(&partial, call->group, call->shape.value_size);
            }
        }
    }
}

/* One KV head's pages that were selected, but did not come. */
static void stand_in_for_late(const struct pgd_attend_call *call, uint32_t head, const struct pgd_partial *rotated)
{
    const struct pgd_plan *plan = &call->cache->plan;
    for (uint32_t c = 0; c < plan->chunk_count; c++) {
        struct pgd_spill_cells absent;
        find_absent(call, &plan->chunks[c], 0, is_late, &absent);
        if (absent.count > 0) {
            stand_in_scored(call, head, &absent, &call->worker->partial);
            call->cache->kernels->merge(call->group, call->shape.value_size, rotated, &call->worker->partial);
        }
    }
}

/* ---- selected: one token ---- */

/* Pages in one piece of work. */
static uint32_t packet_pages(const struct pagoda_cache *cache)
{
    return (uint32_t) pgd_max_u64(1, PGD_CHUNK_BLOCKS / cache->page_cells);
}

/* Whether page `i` of a fetch begins a packet of its own, `filled` pages being in the one before. */
static bool begins_packet(const struct pgd_attend_call *call, const struct pgd_fetch *fetch, uint32_t i,
                          uint32_t filled)
{
    return i == 0 || filled == packet_pages(call->cache) || fetch->pages[i].shift != fetch->pages[i - 1].shift;
}

/* Finds packet `number` of a fetch: its pages are [*first, *end). False when there are not so many. */
static bool find_packet(const struct pgd_attend_call *call, const struct pgd_fetch *fetch, uint32_t number,
                        uint32_t *first, uint32_t *end)
{
    uint32_t packets = 0;
    uint32_t filled = 0;
    for (uint32_t i = 0; i <= fetch->page_count; i++) {
        if (i == fetch->page_count || begins_packet(call, fetch, i, filled)) {
            if (packets == number + 1) {
                *end = i;
                return true;
            }
            *first = i;
            packets++;
            filled = 0;
        }
        filled++;
    }
    return false;
}

static uint32_t count_packets(const struct pgd_attend_call *call, const struct pgd_fetch *fetch)
{
    uint32_t count = 0;
    uint32_t first = 0;
    uint32_t end = 0;
    while (find_packet(call, fetch, count, &first, &end)) {
        count++;
    }
    return count;
}

/* Selected pages that there is no room or no time for stay unread. */
static void give_up(const struct pgd_attend_call *call, struct pgd_fetch *fetch, uint32_t from)
{
    struct pgd_spill *spill = call->cache->spill;
    for (uint32_t i = from; i < spill->selected_count; i++) {
        spill->unread[spill->selected[i]] = PGD_UNREAD_LATE;
        spill->late_pages++;
    }
    spill->has_late = spill->has_late || from < spill->selected_count;
    fetch->is_last = true;
}

/* The shift of the chunk that a page begins in; *chunk only goes forward. */
static uint32_t shift_at(const struct pgd_attend_call *call, uint32_t index, uint32_t *chunk)
{
    const struct pgd_plan *plan = &call->cache->plan;
    while (*chunk + 1 < plan->chunk_count && plan->chunks[*chunk + 1].block <= index) {
        (*chunk)++;
    }
    return plan->chunks[*chunk].shift;
}

/* Adds as many selected pages from number `first` on as there is room for. */
static void prepare_selected(const struct pgd_attend_call *call, struct pgd_fetch *fetch, uint32_t first)
{
    struct pagoda_cache *cache = call->cache;
    struct pgd_spill *spill = cache->spill;
    uint32_t chunk = 0;
    fetch->first = first;
    fetch->end = first;
    fetch->is_last = false;
    if (!pgd_fetch_begin(cache, fetch)) {
        fetch->page_count = 0;
        give_up(call, fetch, first);
        return;
    }
    while (fetch->end < spill->selected_count) {
        const uint32_t index = spill->selected[fetch->end];
        if (!pgd_fetch_add(cache, fetch, call->layer_index, index)) {
            break;
        }
        fetch->pages[fetch->page_count - 1].shift = shift_at(call, index, &chunk);
        fetch->end++;
    }
    fetch->first_packet = spill->packet_count;
    const uint32_t packets = count_packets(call, fetch);
    if (spill->packet_count + packets > cache->plan.chunk_capacity) {
        fetch->page_count = 0;
        fetch->read_count = 0;
        give_up(call, fetch, first);
        return;
    }
    spill->packet_count += packets;
    fetch->is_last = fetch->end == spill->selected_count;
}

/* Attends to one packet for all KV heads. */
static void attend_packet(const struct pgd_attend_call *call, const struct pgd_attend_item *all,
                          const struct pgd_fetch *fetch, uint32_t number, uint32_t first, uint32_t end)
{
    const struct pagoda_cache *cache = call->cache;
    const uint32_t rung = pgd_spill_rung(cache);
    const uint64_t cell_bytes = call->layer->kinds[rung].cell_bytes;
    const struct pgd_plan_chunk chunk = {.shift = fetch->pages[first].shift, .rung = rung};
    struct pgd_gathered gathered = {.count = 0, .head_bytes = cache->page_cells * cell_bytes};
    for (uint32_t i = first; i < end; i++) {
        const unsigned char *page = cache->spill->staged[fetch->pages[i].block];
        for (uint32_t cell = 0; page != NULL && cell < cache->page_cells; cell++) {
            gathered.block[gathered.count] = fetch->pages[i].block;
            gathered.cell[gathered.count++] = page + cell * cell_bytes;
        }
    }
    for (uint32_t r = 0; r < call->group; r++) {
        call->worker->first[r] = 0;
        call->worker->end[r] = gathered.count * PGD_LANES;
    }
    for (uint32_t head = 0; head < all->heads; head++) {
        const uint32_t index = cache->plan.chunk_count + fetch->first_packet + number;
        const struct pgd_partial partial = pgd_attend_partial(call, head, index);
        if (call->draws) {
            pgd_draws_note(call, head, index, &gathered);
        }
        pgd_attend_gathered(call, all, &chunk, &gathered, head, &partial);
    }
}

static void attend_packets(const struct pgd_attend_call *call, const struct pgd_attend_item *all,
                           struct pgd_fetch *fetch)
{
    uint32_t first = 0;
    uint32_t end = 0;
    for (;;) {
        const uint32_t number = atomic_fetch_add_explicit(&fetch->next_item, 1, memory_order_relaxed);
        if (!find_packet(call, fetch, number, &first, &end)) {
            return;
        }
        attend_packet(call, all, fetch, number, first, end);
    }
}

/* Conductor: what did not arrive is stood in for. */
static void note_missing(const struct pgd_attend_call *call, struct pgd_fetch *fetch)
{
    struct pgd_spill *spill = call->cache->spill;
    pgd_fetch_repair(call->cache, fetch, call->layer_index);
    for (uint32_t i = 0; i < fetch->page_count; i++) {
        if (fetch->pages[i].outcome != PGD_FETCH_GOOD) {
            spill->unread[fetch->pages[i].block] = PGD_UNREAD_LATE;
            spill->has_late = true;
        }
    }
}

/* When the token may not wait any longer; 0: it may. */
static uint64_t deadline(const struct pgd_attend_call *call, uint64_t now)
{
    const struct pgd_spill *spill = call->cache->spill;
    return spill->options.stall_ms == 0 ? 0 : now + spill->stall_left_ns + 1;
}

/* Conductor: decides which of the selected pages are read first. */
static void prepare_first(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    if (spill->selected_count > 0) {
        prepare_selected(call, &spill->fetch[0], 0);
        if (!spill->fetch[0].is_last) {
            prepare_selected(call, &spill->fetch[1], spill->fetch[0].end);
        }
    }
}

/* Conductor: begins to read them, unless they were given up. */
static void submit_selected(const struct pgd_attend_call *call, struct pgd_fetch *fetch)
{
    if (fetch->page_count > 0) { /* else its reads are those that came too late for others */
        pgd_fetch_submit(call->cache, fetch);
    }
}

/* Conductor, while the others are at work already. */
static void submit_first(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    if (spill->selected_count > 0) {
        submit_selected(call, &spill->fetch[0]);
        if (!spill->fetch[0].is_last) {
            submit_selected(call, &spill->fetch[1]);
        }
    }
}

/* Waits for the selected pages, and attends to them. */
static void attend_selected_pages(const struct pgd_attend_call *call, const struct pgd_attend_item *all)
{
    struct pgd_spill *spill = call->cache->spill;
    for (uint32_t turn = 0;; turn++) {
        struct pgd_fetch *fetch = &spill->fetch[turn % 2];
        const struct pgd_fetch *next = &spill->fetch[(turn + 1) % 2];
        const bool is_last = fetch->is_last;
        const uint64_t began = now_ns(call);
        pgd_fetch_complete(call->cache, fetch, call->layer_index, deadline(call, began));
        wait_for_team(call);
        if (is_conductor(call)) {
            note_stall(call, began);
        }
        if (atomic_load_explicit(&fetch->missing, memory_order_relaxed) > 0) {
            if (is_conductor(call)) {
                note_missing(call, fetch);
            }
            wait_for_team(call);
        }
        attend_packets(call, all, fetch);
        wait_for_team(call);
        if (is_conductor(call)) {
            pgd_select_keep(call->cache, fetch, call->layer_index, true);
            pgd_fetch_end(call->cache, fetch, NULL);
            if (!is_last && !next->is_last) {
                prepare_selected(call, fetch, next->end);
                submit_selected(call, fetch);
            }
        }
        if (is_last) {
            return;
        }
    }
}

/* Merges what one KV head found: chunks in memory, packets, stand-ins. */
static void merge_selected(const struct pgd_attend_call *call, uint32_t head)
{
    const struct pagoda_cache *cache = call->cache;
    const uint32_t chunks = cache->plan.chunk_count;
    const struct pgd_attend_item item = {.head = head, .heads = 1, .token = 0, .tokens = 1};
    const struct pgd_plan_chunk packet = {.rung = pgd_spill_rung(cache)};
    const struct pgd_merging merging = pgd_attend_merging(call, &item, NULL);
    pgd_attend_begin_merging(call, &item, &merging);
    for (uint32_t c = 0; c < chunks + cache->spill->packet_count; c++) {
        const struct pgd_partial partial = pgd_attend_partial(call, head, c);
        pgd_attend_merge(call, &item, c < chunks ? &cache->plan.chunks[c] : &packet, &merging, &partial);
    }
    for (uint32_t c = 0; c < chunks; c++) {
        const struct pgd_partial partial = stand_in_partial(call, head, c);
        cache->kernels->merge(call->group, call->shape.value_size, &merging.rotated, &partial);
    }
    if (cache->spill->has_late) {
        stand_in_for_late(call, head, &merging.rotated);
    }
    pgd_attend_finish_merging(call, &item, &merging);
    if (call->draws) {
        pgd_draws_add(call, head, cache->plan.chunk_count + cache->spill->packet_count, &merging.running);
    }
}

/* Conductor, before the team scores. */
static void begin_selecting(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    spill->packet_count = 0;
    atomic_store_explicit(&spill->next_row, 0, memory_order_relaxed);
    atomic_store_explicit(&spill->next_stand_in, 0, memory_order_relaxed);
    atomic_store_explicit(&spill->next_head, 0, memory_order_relaxed);
    pgd_select_note_away(call);
}

void pgd_attend_selected(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    const uint32_t kv_heads = call->layer->shape.kv_heads;
    const struct pgd_attend_item all = {.head = 0, .heads = kv_heads, .token = 0, .tokens = 1};
    const uint32_t chunks = call->cache->plan.chunk_count;
    uint32_t i;
    if (is_conductor(call)) {
        begin_selecting(call);
    }
    pgd_attend_pack_rows(call, &all);
    while ((i = atomic_fetch_add_explicit(&call->layer->next_item, 1, memory_order_relaxed)) < chunks) {
        pgd_select_fetch(call, i + call->threads); /* what this thread is likely to take next */
        pgd_attend_memory(call, &all, i);
        pgd_select_score(call, &all, &call->cache->plan.chunks[i]);
    }
    wait_for_team(call);
    if (spill->options.yardstick == PAGODA_YARDSTICK_ORACLE) {
        if (is_conductor(call)) {
            pgd_yardstick_weigh(call, &all);
        }
        wait_for_team(call);
    }
    pgd_select_share(call);
    wait_for_team(call);
    if (is_conductor(call)) {
        pgd_select_choose(call);
        prepare_first(call);
    }
    wait_for_team(call);
    if (is_conductor(call)) {
        submit_first(call);
    }
    stand_in_for_unread(call, kv_heads);
    wait_for_team(call);
    if (spill->selected_count > 0) {
        attend_selected_pages(call, &all);
    }
    if (is_conductor(call)) {
        read_ahead(call);
    }
    while ((i = atomic_fetch_add_explicit(&spill->next_head, 1, memory_order_relaxed)) < kv_heads) {
        merge_selected(call, i);
    }
}
