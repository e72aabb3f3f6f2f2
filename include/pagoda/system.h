/* pagoda/system.h - what the library asks of its surroundings, as tables that a host may replace.
 *
 * An embedding program, and every test, can put its own allocator, clock or memory here. The
 * defaults are the C library and the operating system.
 */
#ifndef PAGODA_SYSTEM_H
#define PAGODA_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Small bookkeeping memory. `allocate` returns zeroed memory aligned for any type, or NULL.
 * `release` gets the size that was asked for. pagoda allocates when a cache is opened and never
 * while it appends or attends. Threads: called from the thread that calls into the library. */
struct pagoda_allocator {
    void *(*allocate)(void *user, size_t bytes);
    void (*release)(void *user, void *memory, size_t bytes);
    void *user;
};

/* The big arena. `reserve` returns zeroed, page-aligned memory that costs nothing until touched,
 * or NULL; `release` returns all of it; `discard` gives the whole system pages inside the range back
 * (they read as zero afterwards). The default is mmap, munmap and madvise. */
struct pagoda_memory_source {
    void *(*reserve)(void *user, size_t bytes);
    void (*release)(void *user, void *memory, size_t bytes);
    void (*discard)(void *user, void *memory, size_t bytes);
    void *user;
};

/* Monotonic time in nanoseconds. */
struct pagoda_clock {
    uint64_t (*now_ns)(void *user);
    void *user;
};

/* A set of the above. NULL members stand for the defaults. The tables must outlive what uses them. */
struct pagoda_system {
    const struct pagoda_allocator *allocator;
    const struct pagoda_memory_source *memory;
    const struct pagoda_clock *clock;
};

#ifdef __cplusplus
}
#endif
#endif
