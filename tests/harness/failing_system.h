/* harness/failing_system.h - a host's tables that fail on demand, and that remember what is still held.
 *
 *     struct failing_system host;
 *     failing_system_init(&host);
 *     for (uint64_t nth = 1;; nth++) {
 *         failing_system_arm(&host, nth, false);
 *         status = thing_open(..., &host.system, ...);          // allocation number nth fails
 *         if (status == PAGODA_OK) { thing_close(...); break; } // all have had their turn
 *         CHECK(status == PAGODA_NOMEM && failing_system_is_clean(&host));
 *     }
 *
 * Memory is guarded by the sanitizers as any other heap memory. `discard` does exactly what the
 * contract promises, with pages of 4 KiB, and no more: what lies in broken pages at the ends stays.
 * Threads: one, as pagoda's allocator asks.
 */
#ifndef HARNESS_FAILING_SYSTEM_H
#define HARNESS_FAILING_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>

#include "pagoda/system.h"

struct failing_system {
    struct pagoda_system system; /* hand out &host.system; all three members are set */
    struct pagoda_allocator allocator;
    struct pagoda_memory_source memory;
    struct pagoda_clock clock;

    uint64_t calls;   /* of allocate and reserve since the last arm */
    uint64_t fail_at; /* 1: the next call fails; 0: none does */
    bool sticky;      /* all calls after that one fail too */
    uint64_t refused; /* calls that failed since the last arm */

    uint64_t live_allocations; /* allocations and reservations not yet released */
    uint64_t live_bytes;       /* their bytes */
    uint64_t peak_bytes;       /* highest live_bytes since init */
    uint64_t total_calls;      /* of allocate and reserve since init: has anything been allocated? */
    uint64_t misuses;          /* wrong releases, discards outside, writes past the end of a reservation */
    uint64_t now_ns;           /* what the clock says; tests move it */
    void *held;                /* private: list of what is live */
};

/* `host` must not move afterwards. */
void failing_system_init(struct failing_system *host);

/* From now on call number `nth` of allocate or reserve (counted together, 1 is the next) fails, and, when
 * sticky, all later ones. nth 0: none. */
void failing_system_arm(struct failing_system *host, uint64_t nth, bool sticky);

/* Nothing is live, and nothing was released wrongly. */
bool failing_system_is_clean(const struct failing_system *host);

#endif
