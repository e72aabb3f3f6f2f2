/* base/system.c - calls through the host's tables. */
#include "base/system.h"

#include <stddef.h>

void *pgd_allocate(const struct pgd_system *system, size_t bytes)
{
    PGD_ASSERT(bytes > 0);
    return system->allocator.allocate(system->allocator.user, bytes);
}

void pgd_release(const struct pgd_system *system, void *memory, size_t bytes)
{
    if (memory == NULL) {
        return;
    }
    PGD_ASSERT(bytes > 0);
    system->allocator.release(system->allocator.user, memory, bytes);
}
