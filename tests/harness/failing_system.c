/* harness/failing_system.c - see failing_system.h. */
#include "harness/failing_system.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define GUARD_BYTES 64u
#define GUARD_VALUE 0xA5

/* One live allocation or reservation. Kept beside the memory, not before it, so that a write one byte
 * before the memory is the sanitizer's to find and not a broken record. */
struct held {
    struct held *next;
    char *memory;      /* what the library got */
    char *block;       /* what free wants */
    size_t bytes;      /* what the library asked for */
    size_t tail_bytes; /* guard bytes behind them */
};

static bool is_refused(struct failing_system *host)
{
    host->calls++;
    host->total_calls++;
    const bool refused =
        host->fail_at != 0 && (host->calls == host->fail_at || (host->sticky && host->calls > host->fail_at));
    host->refused += refused ? 1 : 0;
    return refused;
}

/* calloc, so that a big reservation that is never touched costs nothing here either. `slack` bytes are
 * for alignment and guard; without them the sanitizer's own guard follows the last byte at once. */
static void *hold(struct failing_system *host, size_t bytes, size_t alignment, size_t slack)
{
    struct held *const record = malloc(sizeof *record);
    char *const block = bytes <= SIZE_MAX - slack ? calloc(1, bytes + slack) : NULL;
    if (record == NULL || block == NULL) {
        free(record);
        free(block);
        return NULL;
    }
    const size_t misplaced = (size_t) ((uintptr_t) block % alignment);
    record->memory = block + (misplaced != 0 ? alignment - misplaced : 0);
    record->block = block;
    record->bytes = bytes;
    record->tail_bytes = slack - (size_t) (record->memory - block);
    memset(record->memory + bytes, GUARD_VALUE, record->tail_bytes);
    record->next = host->held;
    host->held = record;
    host->live_allocations++;
    host->live_bytes += bytes;
    if (host->live_bytes > host->peak_bytes) {
        host->peak_bytes = host->live_bytes;
    }
    return record->memory;
}

static bool guard_is_intact(const struct held *record)
{
    for (size_t i = 0; i < record->tail_bytes; i++) {
        if ((unsigned char) record->memory[record->bytes + i] != GUARD_VALUE) {
            return false;
        }
    }
    return true;
}

static void let_go(struct failing_system *host, void *memory, size_t bytes)
{
    struct held *before = NULL;
    struct held *record = host->held;
    while (record != NULL && record->memory != (char *) memory) {
        before = record;
        record = record->next;
    }
    if (record == NULL || record->bytes != bytes) {
        host->misuses++;
        return;
    }
    if (before == NULL) {
        host->held = record->next;
    } else {
        before->next = record->next;
    }
    host->live_allocations--;
    host->live_bytes -= bytes;
    host->misuses += guard_is_intact(record) ? 0 : 1;
    free(record->block);
    free(record);
}

static void *failing_allocate(void *user, size_t bytes)
{
    struct failing_system *const host = user;
    if (is_refused(host)) {
        return NULL;
    }
    return hold(host, bytes, 1, 0); /* calloc itself aligns for any type */
}

static void *failing_reserve(void *user, size_t bytes)
{
    struct failing_system *const host = user;
    if (is_refused(host)) {
        return NULL;
    }
    return hold(host, bytes, PAGE_BYTES, PAGE_BYTES - 1 + GUARD_BYTES);
}

static void failing_release(void *user, void *memory, size_t bytes)
{
    let_go(user, memory, bytes);
}

static void failing_discard(void *user, void *memory, size_t bytes)
{
    struct failing_system *const host = user;
    char *const start = memory;
    const struct held *record = host->held;
    while (record != NULL && !(start >= record->memory && (size_t) (start - record->memory) <= record->bytes &&
                               bytes <= record->bytes - (size_t) (start - record->memory))) {
        record = record->next;
    }
    if (record == NULL) {
        host->misuses++;
        return;
    }
    const size_t into_page = (size_t) ((uintptr_t) start % PAGE_BYTES);
    const size_t skipped = into_page != 0 ? PAGE_BYTES - into_page : 0;
    if (bytes > skipped) {
        memset(start + skipped, 0, (bytes - skipped) / PAGE_BYTES * PAGE_BYTES);
    }
}

static uint64_t failing_now_ns(void *user)
{
    const struct failing_system *const host = user;
    return host->now_ns;
}

void failing_system_init(struct failing_system *host)
{
    memset(host, 0, sizeof *host);
    host->allocator = (struct pagoda_allocator) {failing_allocate, failing_release, host};
    host->memory = (struct pagoda_memory_source) {failing_reserve, failing_release, failing_discard, host};
    host->clock = (struct pagoda_clock) {failing_now_ns, host};
    host->system = (struct pagoda_system) {&host->allocator, &host->memory, &host->clock};
}

void failing_system_arm(struct failing_system *host, uint64_t nth, bool sticky)
{
    host->calls = 0;
    host->refused = 0;
    host->fail_at = nth;
    host->sticky = sticky;
}

bool failing_system_is_clean(const struct failing_system *host)
{
    return host->live_allocations == 0 && host->live_bytes == 0 && host->misuses == 0;
}
