/* os/cgroup.h - the limits that control groups put on this process, version 1 or 2.
 *
 * A process is bound by the limits of its own group and of every group above it. All of them are
 * looked at, as far as they can be seen: a container may see its own group as the topmost one, under
 * a path that does not exist inside; then only the topmost is there, and that one counts.
 * Threads: any. Nothing is cached.
 */
#ifndef PGD_OS_CGROUP_H
#define PGD_OS_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#define PGD_CGROUP_NAME_BYTES 96u

/* UINT64_MAX in all when no group has a limit. */
struct pgd_cgroup_memory {
    uint64_t limit_bytes; /* the tightest limit */
    uint64_t room_bytes;  /* the least that is left in any group: limit - (usage - reclaimable file cache) */
    /* The least that is left in any group before taking more hurts: file cache that is mapped, such as the weights of
     * a model, is needed again at once; what is dirty must be written first; half of what is in active use stays. */
    uint64_t easy_bytes;
    uint64_t easy_limit_bytes;        /* the limit of the group with the least easy_bytes ... */
    char name[PGD_CGROUP_NAME_BYTES]; /* ... and its name: "memory.high of /app (cgroup v2)"; "": none */
};
void pgd_cgroup_memory_read(const char *root, struct pgd_cgroup_memory *memory);

/* How much of a file cache can be had without hurting: see easy_bytes. Also for the whole machine's. */
uint64_t pgd_cgroup_easy_cache(uint64_t inactive, uint64_t active, uint64_t unwritten, uint64_t mapped);

/* Where our own group of version 2 has its files, below `root`; false when we are in none that can be seen. */
PGD_MUST_CHECK bool pgd_cgroup_own_directory(const char *root, char *directory, size_t capacity);

/* Whole CPUs' worth of time per period that the tightest quota grants, rounded up; UINT32_MAX: no quota. */
uint32_t pgd_cgroup_cpu_quota(const char *root);

#endif
