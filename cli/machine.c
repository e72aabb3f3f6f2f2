/* cli/machine.c - see machine.h. */
#include "cli/machine.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"

#define PATH_BYTES 1024

/* The number after `key` at the start of a line of a /proc or control group file. */
static bool read_field(const char *path, const char *key, uint64_t *number)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    char line[512];
    bool found = false;
    const size_t length = strlen(key);
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = strncmp(line, key, length) == 0 && sscanf(line + length, " %" SCNu64, number) == 1;
    }
    fclose(file);
    return found;
}

/* The two versions of control groups name their files differently and mean the same. */
struct cgroup_files {
    const char *mount;
    const char *limit;
    const char *usage;
    const char *cache[2]; /* fields of memory.stat: file pages that the kernel may take back */
};
static const struct cgroup_files v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                       {"total_inactive_file ", "total_active_file "}};
static const struct cgroup_files v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                       {"inactive_file ", "active_file "}};

/* What is left in the group at `folder`; UINT64_MAX when it sets no limit. */
static uint64_t room_in(const struct cgroup_files *files, const char *folder)
{
    char path[2 * PATH_BYTES];
    uint64_t limit = 0;
    uint64_t usage = 0;
    snprintf(path, sizeof(path), "%s%s/%s", files->mount, folder, files->limit);
    if (!read_field(path, "", &limit)) { /* "max" is no number */
        return UINT64_MAX;
    }
    snprintf(path, sizeof(path), "%s%s/%s", files->mount, folder, files->usage);
    if (!read_field(path, "", &usage)) {
        return limit;
    }
    snprintf(path, sizeof(path), "%s%s/memory.stat", files->mount, folder);
    for (int i = 0; i < 2; i++) {
        uint64_t cache = 0;
        if (read_field(path, files->cache[i], &cache)) {
            usage -= pgd_min_u64(usage, cache);
        }
    }
    return limit - pgd_min_u64(limit, usage);
}

/* The least room in the group at `folder` and all above it. Shortens `folder`. */
static uint64_t least_room(const struct cgroup_files *files, char *folder)
{
    uint64_t room = UINT64_MAX;
    for (;;) {
        room = pgd_min_u64(room, room_in(files, folder));
        char *slash = strrchr(folder, '/');
        if (slash == NULL) {
            return room;
        }
        *slash = '\0';
    }
}

/* Lines are "number:controllers:folder"; version 2 has no controllers. */
static uint64_t cgroup_room(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    char line[PATH_BYTES];
    uint64_t room = UINT64_MAX;
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *folder = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (folder == NULL) {
            continue;
        }
        *folder++ = '\0';
        controllers++;
        if (controllers[0] == '\0') {
            room = pgd_min_u64(room, least_room(&v2, folder));
        } else if (strcmp(controllers, "memory") == 0) {
            room = pgd_min_u64(room, least_room(&v1, folder));
        }
    }
    fclose(file);
    return room;
}

uint64_t pgd_machine_available_bytes(void)
{
    uint64_t kilobytes = 0;
    uint64_t bytes = 0;
    if (!read_field("/proc/meminfo", "MemAvailable:", &kilobytes) || !pgd_mul_u64(kilobytes, 1024, &bytes)) {
        return 0;
    }
    return pgd_min_u64(bytes, cgroup_room());
}

uint64_t pgd_machine_total_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t) pages * (uint64_t) page_bytes : 0;
}

uint64_t pgd_machine_peak_rss_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss <= 0) {
        return 0;
    }
    return (uint64_t) usage.ru_maxrss * 1024;
}

double pgd_machine_seconds(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

uint32_t pgd_machine_random(void)
{
    uint32_t number = 0;
    if (getentropy(&number, sizeof(number)) != 0) {
        number = (uint32_t) time(NULL) * 2654435761u ^ (uint32_t) getpid();
    }
    return number;
}
