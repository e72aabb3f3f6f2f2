/* cache/account.c - the honest account, the memory report and the page map. */
#include "base/number.h"
#include "cache/spill.h"

/* Tokens of a block whose pages are in this state: its tokens, times the share of those pages. */
static double tokens_in_state(const struct pagoda_cache *cache, uint32_t index, uint64_t held,
                              enum pagoda_page_state state)
{
    uint32_t there = 0;
    uint32_t pages = 0;
    for (uint32_t layer = 0; cache->spill != NULL && layer < cache->layer_count; layer++) {
        const struct pgd_page *page = pgd_table_page(cache->table, index, layer);
        there += page->state == state ? 1 : 0;
        pages += page->state != PAGODA_PAGE_ABSENT ? 1 : 0;
    }
    return there == 0 ? 0 : (double) held * there / pages;
}

/* Takes whole tokens, at most `most`, so that they add up: what a share leaves over is carried to the next block. */
static uint64_t take_whole(double *tokens, uint64_t most)
{
    const uint64_t whole = pgd_min_u64(most, (uint64_t) *tokens);
    *tokens -= (double) whole;
    return whole;
}

static void add_unread(const struct pagoda_cache *cache, struct pagoda_account *account)
{
    const struct pgd_spill *spill = cache->spill;
    if (spill == NULL) {
        return;
    }
    if (spill->unread_mass_rows > 0) {
        account->unread_mass = spill->unread_mass_sum / (double) spill->unread_mass_rows;
    }
    if (spill->unread_pages > 0) {
        account->unread = (uint64_t) ((double) spill->unread_pages * cache->page_tokens / spill->growing + 0.5);
        account->unread = pgd_min_u64(pgd_max_u64(account->unread, 1), account->spilled);
    }
}

void pagoda_cache_account(const struct pagoda_cache *cache, struct pagoda_account *account)
{
    double spilled = 0;
    double collapsed = 0;
    *account = (struct pagoda_account) {.total = cache->position};
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        const uint64_t held =
            block->first >= cache->position ? 0 : pgd_min_u64(block->count, cache->position - block->first);
        const uint8_t rung = pgd_table_codec(cache->table, index);
        spilled += tokens_in_state(cache, index, held, PAGODA_PAGE_SPILLED);
        collapsed += tokens_in_state(cache, index, held, PAGODA_PAGE_COLLAPSED);
        const uint64_t on_flash = take_whole(&spilled, held);
        const uint64_t given_up = take_whole(&collapsed, held - on_flash);
        const uint64_t away = on_flash + given_up;
        account->spilled += on_flash;
        account->collapsed += given_up;
        account->by_codec[cache->codec_ids[rung]] += held - away;
        if (cache->codecs[rung]->exact) {
            account->ram += held - away;
        } else {
            account->quantized += held - away;
        }
        account->pinned += block->pinned ? held : 0;
    }
    account->dropped = account->total - account->ram - account->quantized - account->spilled - account->collapsed;
    add_unread(cache, account);
    account->exact = account->dropped == 0 && account->quantized == 0 &&
                     (cache->spill == NULL ||
                      cache->spill->skipped_pages + cache->spill->lost_pages + cache->spill->collapsed_pages == 0) &&
                     (account->spilled == 0 || cache->codecs[cache->rung_count - 1]->exact);
}

const char *pagoda_memory_category_name(enum pagoda_memory_category category)
{
    static const char *const names[PAGODA_MEMORY_CATEGORIES] = {
        [PAGODA_MEMORY_KV_EXACT] = "kv exact", [PAGODA_MEMORY_KV_QUANTIZED] = "kv quantized",
        [PAGODA_MEMORY_DIGESTS] = "digests",   [PAGODA_MEMORY_TABLES] = "tables",
        [PAGODA_MEMORY_STAGING] = "staging",   [PAGODA_MEMORY_DRAFT] = "draft",
    };
    return (unsigned) category < PAGODA_MEMORY_CATEGORIES ? names[category] : "unknown";
}

uint64_t pgd_cache_frame_bytes(const struct pagoda_cache *cache)
{
    return pgd_pool_taken_bytes(cache->pool) - cache->ledger.by_category[PAGODA_MEMORY_DIGESTS];
}

static void add_flash(const struct pgd_spill *spill, struct pagoda_memory *memory)
{
    struct pgd_flash_stats stats;
    pgd_flash_get_stats(spill->flash, &stats);
    memory->flash_bytes = stats.bytes_used;
    memory->flash_bytes_written = stats.bytes_written;
    memory->flash_bytes_read = stats.bytes_read;
    memory->digest_tokens = spill->digest_cells * PGD_LANES;
    memory->flash_is_direct = stats.direct;
    memory->spilled_pages = spill->spilled_pages;
    memory->recalled_pages = spill->recalled_pages;
    memory->collapsed_pages = spill->collapsed_pages;
    memory->late_pages = spill->late_pages;
    memory->lost_pages = spill->lost_pages;
    memory->stalled_ns = spill->stalled_ns;
    memory->flash_problem = spill->problem.status != PAGODA_OK ? spill->problem.message : NULL;
}

void pagoda_cache_memory(const struct pagoda_cache *cache, struct pagoda_memory *memory)
{
    *memory = (struct pagoda_memory) {
        .budget_bytes = cache->ledger.budget_bytes,
        .opened_bytes = cache->ledger.opened_bytes,
        .used_bytes = cache->ledger.used_bytes,
        .peak_bytes = cache->ledger.peak_bytes,
        .live_row_bytes = cache->live_row_bytes,
        .frame_bytes = pgd_cache_frame_bytes(cache),
        .tokens_capacity = cache->tokens_capacity,
        .tokens_max = cache->tokens_max,
        .bytes_per_token = cache->row_bytes,
        .evicted_pages = cache->evicted_pages,
        .reencoded_pages = cache->reencoded_pages,
        .released_window_pages = cache->released_pages,
    };
    for (uint32_t i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        memory->by_category[i] = cache->ledger.by_category[i];
    }
    if (cache->spill != NULL) {
        add_flash(cache->spill, memory);
    }
    memory->utilisation_at_peak =
        cache->peak_frame_bytes == 0 ? 1.0 : (double) cache->peak_live_bytes / (double) cache->peak_frame_bytes;
}

/* How many tokens of a block a layer's next query sees. */
static uint64_t seen_tokens(const struct pagoda_cache *cache, const struct pgd_block *block, uint32_t layer)
{
    const uint64_t window = cache->layers[layer].shape.window;
    const uint64_t end = block->first + block->count;
    const uint64_t start = window == 0 || cache->position + 1 < window ? 0 : cache->position + 1 - window;
    return end <= start ? 0 : pgd_min_u64(block->count, end - start);
}

uint64_t pagoda_cache_read_bytes(const struct pagoda_cache *cache)
{
    uint64_t bytes = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
            if (pgd_page_has_frame(pgd_table_page(cache->table, index, layer))) {
                const uint64_t whole = pgd_cache_live_bytes(cache, index, layer);
                bytes += whole * seen_tokens(cache, block, layer) / block->count;
            }
        }
    }
    return bytes;
}

/* State of a full block on the page map: on flash as soon as one page is nowhere else. */
static enum pagoda_page_state state_of_block(const struct pagoda_cache *cache, uint32_t index)
{
    enum pagoda_page_state state = PAGODA_PAGE_SEALED;
    for (uint32_t layer = 0; layer < cache->layer_count; layer++) {
        const enum pagoda_page_state here = pgd_table_page(cache->table, index, layer)->state;
        state = here > state ? here : state; /* in the order of the enumeration */
    }
    return state;
}

void pagoda_cache_visit(const struct pagoda_cache *cache, bool (*visit)(void *user, const struct pagoda_span *span),
                        void *user)
{
    uint64_t at = 0;
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        if (block->first > at) {
            const struct pagoda_span gap = {.first = at, .count = block->first - at, .state = PAGODA_PAGE_ABSENT};
            if (!visit(user, &gap)) {
                return;
            }
        }
        const bool sealed = block->count == cache->page_tokens;
        const struct pagoda_span span = {
            .first = block->first,
            .count = block->count,
            .state = sealed ? state_of_block(cache, index) : PAGODA_PAGE_OPEN,
            .codec = cache->codec_ids[pgd_table_codec(cache->table, index)],
            .pinned = block->pinned,
        };
        if (!visit(user, &span)) {
            return;
        }
        at = block->first + block->count;
    }
    if (at < cache->position) {
        const struct pagoda_span gap = {.first = at, .count = cache->position - at, .state = PAGODA_PAGE_ABSENT};
        visit(user, &gap);
    }
}
