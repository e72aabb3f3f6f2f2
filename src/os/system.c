/* os/system.c - the default tables: the C library's heap, mmap for the arena, the monotonic clock. */
#define _GNU_SOURCE 1

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

static void *default_allocate(void *user, size_t bytes)
{
    (void) user;
    return calloc(1, bytes);
}

static void default_release(void *user, void *memory, size_t bytes)
{
    (void) user;
    (void) bytes;
    free(memory);
}

/* NORESERVE: the budget is the promise here, and what it holds is only paid for when it is touched. */
static void *default_reserve(void *user, size_t bytes)
{
    (void) user;
    void *const memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void default_unreserve(void *user, void *memory, size_t bytes)
{
    (void) user;
    const int failed = munmap(memory, bytes);
    PGD_ASSERT(failed == 0); /* only for a range that never was a mapping */
}

static void default_discard(void *user, void *memory, size_t bytes)
{
    (void) user;
    pgd_os_discard(memory, bytes);
}

static uint64_t default_now_ns(void *user)
{
    (void) user;
    struct timespec now = {0};
    const int failed = clock_gettime(CLOCK_MONOTONIC, &now);
    PGD_ASSERT(failed == 0);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

static bool is_complete(const struct pgd_system *system)
{
    return system->allocator.allocate != NULL && system->allocator.release != NULL && system->memory.reserve != NULL &&
           system->memory.release != NULL && system->memory.discard != NULL && system->clock.now_ns != NULL;
}

void pgd_os_system(const struct pagoda_system *host, struct pgd_system *system)
{
    *system = (struct pgd_system) {
        .allocator = {default_allocate, default_release, NULL},
        .memory = {default_reserve, default_unreserve, default_discard, NULL},
        .clock = {default_now_ns, NULL},
    };
    if (host != NULL && host->allocator != NULL) {
        system->allocator = *host->allocator;
    }
    if (host != NULL && host->memory != NULL) {
        system->memory = *host->memory;
    }
    if (host != NULL && host->clock != NULL) {
        system->clock = *host->clock;
    }
    PGD_ASSERT(is_complete(system)); /* a table of a host has all its functions */
}

void pgd_os_discard(void *memory, size_t bytes)
{
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    const size_t into_page = (size_t) ((uintptr_t) memory % page);
    const size_t skipped = into_page != 0 ? page - into_page : 0;
    if (bytes < skipped || bytes - skipped < page) {
        return; /* no whole page inside */
    }
    char *const start = (char *) memory + skipped;
    const size_t whole = (bytes - skipped) / page * page;
    if (madvise(start, whole, MADV_DONTNEED) != 0) {
        memset(start, 0, whole); /* locked in memory, say: then it stays, but it reads as zero as promised */
    }
}

double pgd_os_seconds(void)
{
    return (double) default_now_ns(NULL) * 1e-9;
}
