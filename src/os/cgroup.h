/* os/cgroup.h - the limits that control groups put on this process, version 1 or 2.
 *
 * A process is bound by the limits of its own group and of every group above it. All of them are
 * looked at, as far as they can be seen: a container may see its own group as the topmost one, under
 * a path that does not exist inside; then only the topmost is there, and that one counts.
 * Threads: any. Nothing is cached.
 */
#ifndef PGD_OS_CGROUP_H
#define PGD_OS_CGROUP_H

#include <stdint.h>

/* UINT64_MAX in both when no group has a limit. */
struct pgd_cgroup_memory {
    uint64_t limit_bytes; /* the tightest limit */
    uint64_t room_bytes;  /* the least that is left in any group: limit - (usage - reclaimable file cache) */
};
void pgd_cgroup_memory_read(const char *root, struct pgd_cgroup_memory *memory);

/* Whole CPUs' worth of time per period that the tightest quota grants, rounded up; UINT32_MAX: no quota. */
uint32_t pgd_cgroup_cpu_quota(const char *root);

#endif
