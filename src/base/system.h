/* base/system.h - the host's tables (pagoda/system.h) with every default filled in, and calls through them.
 *
 * os/ supplies the defaults (pgd_os_system); base/ only carries the tables, so that the lower layers
 * need not know where memory comes from.
 */
#ifndef PGD_BASE_SYSTEM_H
#define PGD_BASE_SYSTEM_H

#include "base/check.h"
#include "pagoda/system.h"

/* All members are complete. Copied by value; the tables behind it must outlive the copies. */
struct pgd_system {
    struct pagoda_allocator allocator;
    struct pagoda_memory_source memory;
    struct pagoda_clock clock;
};

/* Zeroed bookkeeping memory, or NULL. bytes > 0. */
void *pgd_allocate(const struct pgd_system *system, size_t bytes);

/* NULL is allowed. */
void pgd_release(const struct pgd_system *system, void *memory, size_t bytes);

#endif
