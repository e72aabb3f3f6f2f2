/* os/cgroup.c - see cgroup.h. The file formats: Documentation/admin-guide/cgroup-v1/memory.rst,
 * cgroup-v1/../cgroup-v2.rst and scheduler/sched-bwc.rst of the Linux kernel.
 *
 * /proc/self/cgroup has a line "number:controllers:path" for each hierarchy of version 1, and
 * "0::path" for version 2. Both may be there at once (the hybrid set-up); a controller belongs to
 * one of them, and in the other its files are simply missing.
 */
#include "os/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/number.h"
#include "os/text.h"

/* Version 1 writes "no limit" as the largest multiple of a page in a signed 64-bit number. */
#define NO_LIMIT_FROM ((uint64_t) 1 << 62)

#define LIST_BYTES_MAX 16384u
#define UNIFIED "sys/fs/cgroup/unified" /* where version 2 is beside version 1 */

/* ---- where the groups are ---- */

/* Whether the comma-separated list [list, end) has `name`. */
static bool list_has(const char *list, const char *end, const char *name)
{
    const size_t length = strlen(name);
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t) (end - list));
        if (comma == NULL) {
            comma = end;
        }
        if ((size_t) (comma - list) == length && memcmp(list, name, length) == 0) {
            return true;
        }
        list = comma + 1;
    }
    return false;
}

/* A path is used as it is below the mount; one with ".." (a group outside of this namespace) is not. */
static bool is_plain_path(const char *path, size_t length)
{
    if (length == 0 || path[0] != '/') {
        return false;
    }
    for (size_t i = 0; i + 2 < length; i++) {
        const bool ends = i + 3 == length || path[i + 3] == '/';
        if (path[i] == '/' && path[i + 1] == '.' && path[i + 2] == '.' && ends) {
            return false;
        }
    }
    return true;
}

/* Copies the path of our group in the hierarchy of `controller` (version 1), or in that of version 2 when
 * `controller` is "". False when we are in no such hierarchy. A path that cannot be used becomes "/". */
static bool find_path(const char *groups, const char *controller, char *path, size_t capacity)
{
    for (const char *line = groups; *line != '\0';) {
        const char *end = strchr(line, '\n');
        if (end == NULL) {
            end = line + strlen(line);
        }
        const char *const first = memchr(line, ':', (size_t) (end - line));
        const char *const second = first != NULL ? memchr(first + 1, ':', (size_t) (end - first - 1)) : NULL;
        if (second != NULL && (*controller == '\0' ? second == first + 1 : list_has(first + 1, second, controller))) {
            const size_t length = (size_t) (end - second - 1);
            const bool usable = length < capacity && is_plain_path(second + 1, length);
            memcpy(path, usable ? second + 1 : "/", usable ? length : 1);
            path[usable ? length : 1] = '\0';
            return true;
        }
        line = *end == '\n' ? end + 1 : end;
    }
    return false;
}

/* Shortens "/a/b" to "/a" and "/a" to "/"; false when it was "/" already. */
static bool to_parent(char *path)
{
    char *const slash = strrchr(path, '/');
    PGD_ASSERT(slash != NULL);
    if (slash[1] == '\0' && slash == path) {
        return false;
    }
    *(slash == path ? slash + 1 : slash) = '\0';
    return true;
}

/* Calls `look` for our group and every one above it, in one hierarchy mounted at `mount`. */
static void climb(const char *root, const char *mount, const char *groups, const char *controller,
                  void (*look)(void *user, const char *root, const char *directory), void *user)
{
    char path[PGD_TEXT_PATH_MAX];
    if (!find_path(groups, controller, path, sizeof path)) {
        return;
    }
    do {
        char directory[PGD_TEXT_PATH_MAX];
        const int length = snprintf(directory, sizeof directory, "%s%s", mount, path);
        if (length > 0 && (size_t) length < sizeof directory) {
            look(user, root, directory);
        }
    } while (to_parent(path));
}

/* ---- memory ---- */

static bool read_number(const char *root, const char *directory, const char *name, uint64_t *number)
{
    char text[256];
    return pgd_text_read(root, directory, name, text, sizeof text) && pgd_text_number(text, number);
}

/* What memory.stat says of the file cache. Shared memory is not in its lists. */
struct file_cache {
    uint64_t inactive;
    uint64_t active;
    uint64_t unwritten; /* dirty, or on its way to the disk */
    uint64_t mapped;    /* of both lists, and of shared memory */
};

/* Under its name of version 1, which includes the groups below as the usage does, or of version 2. */
static uint64_t stat_field(const char *text, const char *name_v1, const char *name_v2)
{
    uint64_t bytes = 0;
    if (!pgd_text_field(text, name_v1, &bytes) && !pgd_text_field(text, name_v2, &bytes)) {
        return 0;
    }
    return bytes < NO_LIMIT_FROM ? bytes : 0; /* nonsense: not to be believed */
}

static struct file_cache read_file_cache(const char *stat)
{
    return (struct file_cache) {
        .inactive = stat_field(stat, "total_inactive_file", "inactive_file"),
        .active = stat_field(stat, "total_active_file", "active_file"),
        .unwritten =
            stat_field(stat, "total_dirty", "file_dirty") + stat_field(stat, "total_writeback", "file_writeback"),
        .mapped = stat_field(stat, "total_mapped_file", "file_mapped"),
    };
}

uint64_t pgd_cgroup_easy_cache(uint64_t inactive, uint64_t active, uint64_t unwritten, uint64_t mapped)
{
    const uint64_t idle = inactive - pgd_min_u64(inactive, unwritten);
    uint64_t cache = pgd_add_capped_u64(idle, active);
    cache -= pgd_min_u64(cache, mapped);
    const uint64_t first = pgd_min_u64(cache, idle);
    return first + (cache - first) / 2;
}

static uint64_t left_of(uint64_t limit, uint64_t usage, uint64_t reclaimable)
{
    return limit - pgd_min_u64(limit, usage - pgd_min_u64(usage, reclaimable));
}

/* Enters one group's limit. An unknown usage counts as none: the limit itself still binds. */
static void enter_limit(struct pgd_cgroup_memory *memory, const char *root, const char *directory, uint64_t limit,
                        const char *usage_name, const char *name)
{
    if (limit >= NO_LIMIT_FROM) {
        return;
    }
    char stat[PGD_TEXT_BYTES_MAX];
    if (!pgd_text_read(root, directory, "memory.stat", stat, sizeof stat)) {
        stat[0] = '\0';
    }
    const struct file_cache cache = read_file_cache(stat);
    uint64_t usage = 0;
    if (!read_number(root, directory, usage_name, &usage)) {
        usage = 0;
    }
    const uint64_t easy_cache = pgd_cgroup_easy_cache(cache.inactive, cache.active, cache.unwritten, cache.mapped);
    const uint64_t easy = left_of(limit, usage, easy_cache);
    memory->limit_bytes = pgd_min_u64(memory->limit_bytes, limit);
    memory->room_bytes = pgd_min_u64(memory->room_bytes, left_of(limit, usage, cache.inactive + cache.active));
    if (easy < memory->easy_bytes) {
        memory->easy_bytes = easy;
        memory->easy_limit_bytes = limit;
        (void) snprintf(memory->name, sizeof memory->name, "%s", name);
    }
}

/* Shows the end of a path that is too long: its group, not its ancestors. */
static void name_group(char *text, size_t capacity, const char *file, const char *directory, const char *mount,
                       const char *version)
{
    const size_t mount_length = strncmp(directory, mount, strlen(mount)) == 0 ? strlen(mount) : 0;
    const char *path = directory + mount_length;
    const size_t length = strlen(path);
    const size_t shown_max = 40;
    const bool is_cut = length > shown_max;
    (void) snprintf(text, capacity, "%s of %s%s (cgroup %s)", file, is_cut ? "..." : "",
                    is_cut ? path + length - shown_max : path, version);
}

/* The hierarchical limit is also that of groups above which cannot be seen from inside a container. */
static void look_at_memory_v1(void *user, const char *root, const char *directory)
{
    uint64_t limit;
    uint64_t above;
    char stat[PGD_TEXT_BYTES_MAX];
    char name[PGD_CGROUP_NAME_BYTES];
    if (!read_number(root, directory, "memory.limit_in_bytes", &limit)) {
        return;
    }
    if (pgd_text_read(root, directory, "memory.stat", stat, sizeof stat) &&
        pgd_text_field(stat, "hierarchical_memory_limit", &above)) {
        limit = pgd_min_u64(limit, above);
    }
    name_group(name, sizeof name, "memory.limit_in_bytes", directory, "sys/fs/cgroup/memory", "v1");
    enter_limit(user, root, directory, limit, "memory.usage_in_bytes", name);
}

/* memory.high counts as well: a group above it is not killed, but slowed down until it stands still. */
static void look_at_memory_v2(void *user, const char *root, const char *directory)
{
    uint64_t max = UINT64_MAX;
    uint64_t high = UINT64_MAX;
    const bool has_max = read_number(root, directory, "memory.max", &max);
    const bool has_high = read_number(root, directory, "memory.high", &high);
    if (has_max || has_high) {
        char name[PGD_CGROUP_NAME_BYTES];
        const char *mount = strncmp(directory, UNIFIED, strlen(UNIFIED)) == 0 ? UNIFIED : "sys/fs/cgroup";
        name_group(name, sizeof name, high < max ? "memory.high" : "memory.max", directory, mount, "v2");
        enter_limit(user, root, directory, pgd_min_u64(max, high), "memory.current", name);
    }
}

void pgd_cgroup_memory_read(const char *root, struct pgd_cgroup_memory *memory)
{
    *memory = (struct pgd_cgroup_memory) {
        .limit_bytes = UINT64_MAX, .room_bytes = UINT64_MAX, .easy_bytes = UINT64_MAX, .easy_limit_bytes = UINT64_MAX};
    char groups[LIST_BYTES_MAX];
    if (!pgd_text_read(root, "proc/self", "cgroup", groups, sizeof groups)) {
        return;
    }
    climb(root, "sys/fs/cgroup/memory", groups, "memory", look_at_memory_v1, memory);
    climb(root, "sys/fs/cgroup", groups, "", look_at_memory_v2, memory);
    climb(root, UNIFIED, groups, "", look_at_memory_v2, memory);
    PGD_ASSERT(memory->room_bytes <= memory->limit_bytes);
    PGD_ASSERT(memory->easy_bytes <= memory->room_bytes);
}

bool pgd_cgroup_own_directory(const char *root, char *directory, size_t capacity)
{
    static const char *const mounts[] = {"sys/fs/cgroup", UNIFIED};
    char groups[LIST_BYTES_MAX];
    char path[PGD_TEXT_PATH_MAX];
    if (!pgd_text_read(root, "proc/self", "cgroup", groups, sizeof groups) ||
        !find_path(groups, "", path, sizeof path)) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        char text[256];
        const int length = snprintf(directory, capacity, "%s%s", mounts[i], path);
        if (length > 0 && (size_t) length < capacity &&
            pgd_text_read(root, directory, "cgroup.controllers", text, sizeof text)) {
            return true;
        }
    }
    return false;
}

/* ---- CPU time ---- */

static void enter_quota(uint32_t *cpus, uint64_t quota, uint64_t period)
{
    if (quota == 0 || period == 0) {
        return;
    }
    *cpus = (uint32_t) pgd_min_u64(*cpus, pgd_div_up_u64(quota, period));
}

/* "-1" is no quota, and no number either. */
static void look_at_cpu_v1(void *user, const char *root, const char *directory)
{
    uint64_t quota;
    uint64_t period;
    if (read_number(root, directory, "cpu.cfs_quota_us", &quota) &&
        read_number(root, directory, "cpu.cfs_period_us", &period)) {
        enter_quota(user, quota, period);
    }
}

/* "QUOTA PERIOD", or "max PERIOD". */
static void look_at_cpu_v2(void *user, const char *root, const char *directory)
{
    char text[256];
    uint64_t quota;
    uint64_t period;
    if (pgd_text_read(root, directory, "cpu.max", text, sizeof text) && pgd_text_number(text, &quota)) {
        const char *const blank = strchr(text, ' ');
        if (blank != NULL && pgd_text_number(blank, &period)) {
            enter_quota(user, quota, period);
        }
    }
}

uint32_t pgd_cgroup_cpu_quota(const char *root)
{
    uint32_t cpus = UINT32_MAX;
    char groups[LIST_BYTES_MAX];
    if (!pgd_text_read(root, "proc/self", "cgroup", groups, sizeof groups)) {
        return cpus;
    }
    climb(root, "sys/fs/cgroup/cpu", groups, "cpu", look_at_cpu_v1, &cpus);
    climb(root, "sys/fs/cgroup/cpu,cpuacct", groups, "cpu", look_at_cpu_v1, &cpus);
    climb(root, "sys/fs/cgroup", groups, "", look_at_cpu_v2, &cpus);
    PGD_ASSERT(cpus > 0);
    return cpus;
}
