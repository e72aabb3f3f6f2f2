/* cache/fetch.c - see spill.h: pages from flash into staging.
 *
 * The staging memory has several parts, so that one can be read while the pages in another are attended. Pages that lie
 * side by side in the file become one read. Whoever waits for a page checks its sum: a page is only `staged` when its
 * bytes are those that were written.
 */
#include "base/number.h"
#include "cache/spill.h"

bool pgd_fetch_begin(struct pagoda_cache *cache, struct pgd_fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->read_count; i++) {
        const uint32_t ticket = fetch->first_ticket + i;
        if (pgd_flash_poll(cache->spill->flash, ticket) == PGD_FLASH_PENDING) {
            return false;
        }
    }
    for (uint32_t i = 0; i < fetch->read_count; i++) {
        if (pgd_flash_poll(cache->spill->flash, fetch->first_ticket + i) != PGD_FLASH_IDLE) {
            pgd_flash_finish(cache->spill->flash, fetch->first_ticket + i);
        }
    }
    fetch->read_count = 0;
    fetch->page_count = 0;
    fetch->used = 0;
    atomic_store_explicit(&fetch->next_page, 0, memory_order_relaxed);
    atomic_store_explicit(&fetch->next_item, 0, memory_order_relaxed);
    atomic_store_explicit(&fetch->missing, 0, memory_order_relaxed);
    return true;
}

bool pgd_fetch_add(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer, uint32_t index)
{
    if (fetch->page_count > 0 && fetch->pages[fetch->page_count - 1].block == index) {
        return true; /* the end of the chunk before was its beginning */
    }
    const uint64_t offset = pgd_spill_offset(cache, index, layer);
    const uint64_t low = offset - offset % PGD_FLASH_ALIGN;
    const uint64_t high = pgd_round_up_u64(offset + pgd_spill_page_bytes(cache, layer), PGD_FLASH_ALIGN);
    struct pgd_fetch_read *last = fetch->read_count == 0 ? NULL : &fetch->reads[fetch->read_count - 1];
    const bool joins = last != NULL && low >= last->offset && low <= last->offset + last->bytes;
    const uint64_t before = joins ? last->offset + last->bytes : low;
    const uint64_t more = high - pgd_min_u64(high, before);
    if (fetch->page_count == fetch->pages_max || fetch->used + more > fetch->bytes) {
        return false;
    }
    if (joins) {
        last->bytes += more;
    } else {
        last = &fetch->reads[fetch->read_count++];
        *last = (struct pgd_fetch_read) {.offset = low, .bytes = more, .at = fetch->used};
    }
    fetch->used += more;
    fetch->pages[fetch->page_count++] = (struct pgd_fetch_page) {
        .block = index,
        .read = fetch->read_count - 1,
        .at = last->at + (offset - last->offset),
        .outcome = PGD_FETCH_WAITED,
    };
    return true;
}

static void queue_read(const struct pagoda_cache *cache, const struct pgd_fetch *fetch, uint32_t read)
{
    const struct pgd_fetch_read *about = &fetch->reads[read];
    pgd_flash_queue(cache->spill->flash, fetch->first_ticket + read, about->offset, about->bytes,
                    fetch->memory + about->at);
}

void pgd_fetch_submit(struct pagoda_cache *cache, struct pgd_fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->read_count; i++) {
        queue_read(cache, fetch, i);
    }
    pgd_flash_submit(cache->spill->flash);
}

/* Sets a page's outcome, and where it lies. */
static void judge(struct pagoda_cache *cache, struct pgd_fetch *fetch, struct pgd_fetch_page *page, uint32_t layer,
                  enum pgd_flash_read_state state)
{
    const unsigned char *bytes = fetch->memory + page->at;
    const bool good = state == PGD_FLASH_DONE && pgd_spill_checksum(bytes, pgd_spill_page_bytes(cache, layer)) ==
                                                     pgd_spill_expected(cache, page->block, layer);
    page->outcome = good ? PGD_FETCH_GOOD : state == PGD_FLASH_PENDING ? PGD_FETCH_LATE : PGD_FETCH_BAD;
    cache->spill->staged[page->block] = good ? bytes : NULL;
}

void pgd_fetch_complete(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer, uint64_t deadline_ns)
{
    for (;;) {
        const uint32_t i = atomic_fetch_add_explicit(&fetch->next_page, 1, memory_order_relaxed);
        if (i >= fetch->page_count) {
            return;
        }
        struct pgd_fetch_page *page = &fetch->pages[i];
        judge(cache, fetch, page, layer,
              pgd_flash_wait(cache->spill->flash, fetch->first_ticket + page->read, deadline_ns));
        if (page->outcome != PGD_FETCH_GOOD) {
            atomic_fetch_add_explicit(&fetch->missing, 1, memory_order_relaxed);
        }
    }
}

/* Reads once more, and judges all pages of the read: what a failing device leaves behind is not to be trusted. */
static void repair_read(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t read, uint32_t layer)
{
    const uint32_t ticket = fetch->first_ticket + read;
    pgd_flash_finish(cache->spill->flash, ticket);
    queue_read(cache, fetch, read);
    pgd_flash_submit(cache->spill->flash);
    const enum pgd_flash_read_state state = pgd_flash_wait(cache->spill->flash, ticket, 0);
    for (uint32_t i = 0; i < fetch->page_count; i++) {
        struct pgd_fetch_page *page = &fetch->pages[i];
        if (page->read == read) {
            judge(cache, fetch, page, layer, state);
            if (page->outcome == PGD_FETCH_BAD) {
                pgd_spill_lose(cache, page->block, layer);
            }
        }
    }
}

void pgd_fetch_repair(struct pagoda_cache *cache, struct pgd_fetch *fetch, uint32_t layer)
{
    for (uint32_t i = 0; i < fetch->page_count; i++) {
        struct pgd_fetch_page *page = &fetch->pages[i];
        const bool given_up = pgd_table_page(cache->table, page->block, layer)->state != PAGODA_PAGE_SPILLED;
        if (page->outcome == PGD_FETCH_BAD && !given_up) {
            repair_read(cache, fetch, page->read, layer);
        }
        cache->spill->late_pages += page->outcome == PGD_FETCH_LATE ? 1 : 0;
    }
}

void pgd_fetch_end(struct pagoda_cache *cache, struct pgd_fetch *fetch, const struct pgd_fetch *next)
{
    const uint32_t shared = next != NULL && next->page_count > 0 ? next->pages[0].block : UINT32_MAX;
    for (uint32_t i = 0; i < fetch->page_count; i++) {
        if (fetch->pages[i].block != shared) { /* a page at the border of two chunks is in both */
            cache->spill->staged[fetch->pages[i].block] = NULL;
        }
    }
    fetch->page_count = 0;
}

void pgd_fetch_settle(struct pagoda_cache *cache, struct pgd_fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->read_count; i++) {
        pgd_flash_wait(cache->spill->flash, fetch->first_ticket + i, 0);
    }
    const bool idle = pgd_fetch_begin(cache, fetch);
    PGD_ASSERT(idle);
}

void pgd_fetch_drain(struct pagoda_cache *cache)
{
    cache->spill->ahead = PGD_LAYER_NONE;
    for (uint32_t part = 0; part < cache->spill->fetches; part++) {
        pgd_fetch_settle(cache, &cache->spill->fetch[part]);
    }
}
