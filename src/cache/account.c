/* cache/account.c - the honest account, the memory report and the page map. */
#include "base/number.h"
#include "cache/cache.h"

void pagoda_cache_account(const struct pagoda_cache *cache, struct pagoda_account *account)
{
    *account = (struct pagoda_account) {.total = cache->position};
    for (uint32_t index = 0; index < pgd_table_count(cache->table); index++) {
        const struct pgd_block *block = pgd_table_block(cache->table, index);
        const uint64_t held =
            block->first >= cache->position ? 0 : pgd_min_u64(block->count, cache->position - block->first);
        const uint8_t rung = pgd_table_codec(cache->table, index);
        account->by_codec[cache->codec_ids[rung]] += held;
        if (cache->codecs[rung]->exact) {
            account->ram += held;
        } else {
            account->quantized += held;
        }
        account->pinned += block->pinned ? held : 0;
    }
    account->dropped = account->total - account->ram - account->quantized;
    account->exact = account->dropped == 0 && account->quantized == 0 && account->unread == 0;
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

void pagoda_cache_memory(const struct pagoda_cache *cache, struct pagoda_memory *memory)
{
    *memory = (struct pagoda_memory) {
        .budget_bytes = cache->ledger.budget_bytes,
        .used_bytes = cache->ledger.used_bytes,
        .peak_bytes = cache->ledger.peak_bytes,
        .live_row_bytes = cache->live_row_bytes,
        .frame_bytes = pgd_pool_taken_bytes(cache->pool),
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
            if (pgd_table_page(cache->table, index, layer)->state != PAGODA_PAGE_ABSENT) {
                const uint64_t whole = pgd_cache_live_bytes(cache, index, layer);
                bytes += whole * seen_tokens(cache, block, layer) / block->count;
            }
        }
    }
    return bytes;
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
            .state = sealed ? PAGODA_PAGE_SEALED : PAGODA_PAGE_OPEN,
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
