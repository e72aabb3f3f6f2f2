/* The operating system seam: default tables, files, and what Linux says about memory and CPUs, read from fixture
 * trees that look like the machines we cannot test on. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/failing_system.h"
#include "harness/test.h"
#include "os/cgroup.h"
#include "os/os.h"
#include "os/text.h"
#include "unit/tree.h"

#define MIB ((uint64_t) 1 << 20)
#define GIB ((uint64_t) 1 << 30)

static void put_meminfo(uint64_t total_kb, uint64_t available_kb)
{
    char text[512];
    (void) snprintf(text, sizeof text,
                    "MemTotal:       %8llu kB\nMemFree:           12345 kB\nMemAvailable:   %8llu kB\n"
                    "Buffers:             100 kB\nHugePages_Total:       0\n",
                    (unsigned long long) total_kb, (unsigned long long) available_kb);
    put("proc/meminfo", text);
}

static void check_memory(uint64_t total, uint64_t available, uint64_t limit)
{
    struct pgd_os_memory memory = {1, 2, 3};
    pgd_os_memory_read(root, &memory);
    CHECK_EQ_U64(memory.total_bytes, total);
    CHECK_EQ_U64(memory.available_bytes, available);
    CHECK_EQ_U64(memory.limit_bytes, limit);
}

/* ---- memory: what the machine says ---- */

TEST(memory_without_groups)
{
    make_root();
    check_memory(0, 0, 0); /* nothing is there at all */
    put_meminfo(16 << 20, 8 << 20);
    check_memory(16 * GIB, 8 * GIB, 0);
    put("proc/self/cgroup", "");
    check_memory(16 * GIB, 8 * GIB, 0);
    put_meminfo(16 << 20, 0);
    check_memory(16 * GIB, 1, 0); /* known to be nothing: not the same as unknown */
    remove_root();
}

TEST(memory_of_garbage_is_unknown)
{
    make_root();
    put("proc/meminfo", "MemTotal: many kB\nMemAvailable:\nMemAvailableX: 5 kB\n");
    check_memory(0, 0, 0);
    put("proc/meminfo", "MemTotal: 99999999999999999999999999 kB\nMemAvailable: 18014398509481984 kB\n");
    check_memory(0, 0, 0);
    put("proc/meminfo", "MemTotal: -5 kB\nMemAvailable: 12cats kB");
    check_memory(0, 0, 0);
    put("proc/meminfo", "  MemTotal: 5 kB\nXMemTotal: 6 kB\nMemTotal: 7"); /* the last without unit and line end */
    check_memory(7 * 1024, 0, 0);
    put_meminfo(1024, 512);
    put("proc/self/cgroup", "::::\n\n0:\n:memory\nxx\n0::relative\n4:memory:\n7:cpu,memory,io:/a/../..\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "a lot\n");
    put("sys/fs/cgroup/memory.max", "\n");
    check_memory(1024 * 1024, 512 * 1024, 0);
    remove_root();
}

TEST(memory_file_that_never_ends_is_cut)
{
    make_root();
    char *const text = calloc(1, 3 * PGD_TEXT_BYTES_MAX);
    CHECK(text != NULL);
    size_t length = (size_t) snprintf(text, 100, "MemTotal: 1000 kB\n");
    memset(text + length, 'x', PGD_TEXT_BYTES_MAX - 1 - 15 - length); /* then the number is cut in its middle */
    length = PGD_TEXT_BYTES_MAX - 1 - 15;
    text[length - 1] = '\n';
    (void) snprintf(text + length, 100, "MemAvailable: 123456 kB\n");
    put("proc/meminfo", text);
    check_memory(1000 * 1024, 0, 0);
    free(text);
    remove_root();
}

/* ---- memory: cgroup v2 ---- */

TEST(memory_v2_own_group)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "0::/work.slice\n");
    put("sys/fs/cgroup/work.slice/memory.max", "1073741824\n");
    check_memory(16 * GIB, GIB, GIB); /* usage is unknown: the limit binds all the same */
    put("sys/fs/cgroup/work.slice/memory.current", "805306368\n");
    check_memory(16 * GIB, 256 * MIB, GIB);
    put("sys/fs/cgroup/work.slice/memory.stat", "anon 1000\nfile 999999999\nshmem 5\ninactive_file_other 9\n"
                                                "inactive_file 134217728\n"
                                                "active_file 67108864\nunevictable 0\n");
    check_memory(16 * GIB, 448 * MIB, GIB); /* file cache can be taken back */
    put("sys/fs/cgroup/work.slice/memory.current", "1073741824\n");
    put("sys/fs/cgroup/work.slice/memory.stat", "anon 1073741824\n");
    check_memory(16 * GIB, 1, GIB); /* full */
    put("sys/fs/cgroup/work.slice/memory.current", "2147483648\n");
    check_memory(16 * GIB, 1, GIB); /* overfull, after the limit was lowered */
    put("sys/fs/cgroup/work.slice/memory.stat", "inactive_file 18446744073709551615\nactive_file 5\n");
    check_memory(16 * GIB, 1, GIB); /* nonsense is not room */
    put("sys/fs/cgroup/work.slice/memory.stat", "inactive_file 4294967296\n");
    check_memory(16 * GIB, GIB, GIB); /* more cache than usage: never more than the limit */
    remove_root();
}

TEST(memory_v2_max_means_no_limit)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "max\n");
    put("sys/fs/cgroup/a/memory.high", "max\n");
    put("sys/fs/cgroup/a/memory.current", "805306368\n");
    check_memory(16 * GIB, 8 * GIB, 0);
    put("sys/fs/cgroup/a/memory.high", "2147483648\n"); /* above it the group is slowed down to nothing */
    check_memory(16 * GIB, 2 * GIB - 768 * MIB, 2 * GIB);
    put("sys/fs/cgroup/a/memory.max", "99999999999999999999999999999\n");
    put("sys/fs/cgroup/a/memory.high", "max\n");
    check_memory(16 * GIB, 8 * GIB, 0);
    put("sys/fs/cgroup/a/memory.max", "1073741824"); /* no line end */
    check_memory(16 * GIB, 256 * MIB, GIB);
    remove_root();
}

TEST(memory_v2_ancestors_bind_too)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "0::/top/middle/own\n");
    put("sys/fs/cgroup/top/memory.max", "4294967296\n");
    put("sys/fs/cgroup/top/memory.current", "4026531840\n"); /* 256 MiB left, for all below */
    put("sys/fs/cgroup/top/middle/memory.max", "max\n");
    put("sys/fs/cgroup/top/middle/own/memory.max", "2147483648\n");
    put("sys/fs/cgroup/top/middle/own/memory.current", "1073741824\n"); /* 1 GiB left */
    check_memory(16 * GIB, 256 * MIB, 2 * GIB);
    put("sys/fs/cgroup/top/memory.current", "1\n");
    check_memory(16 * GIB, GIB, 2 * GIB);
    put("sys/fs/cgroup/top/middle/memory.max", "1073741824\n");
    put("sys/fs/cgroup/top/middle/memory.current", "1073741800\n");
    check_memory(16 * GIB, 24, GIB);
    put("sys/fs/cgroup/top/other/memory.max", "1\n"); /* not ours */
    check_memory(16 * GIB, 24, GIB);
    put_meminfo(16 << 20, 0);
    check_memory(16 * GIB, 1, GIB); /* the machine is fuller than the groups */
    remove_root();
}

TEST(memory_v2_in_a_container)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "0::/docker/0123456789abcdef\n"); /* the host's name of what is the root in here */
    put("sys/fs/cgroup/memory.max", "1073741824\n");
    put("sys/fs/cgroup/memory.current", "536870912\n");
    check_memory(16 * GIB, 512 * MIB, GIB);
    put("proc/self/cgroup", "0::/\n"); /* with a namespace */
    check_memory(16 * GIB, 512 * MIB, GIB);
    put("proc/self/cgroup", "0::/../other\n"); /* entered from outside */
    check_memory(16 * GIB, 512 * MIB, GIB);
    remove_root();
}

/* ---- memory: cgroup v1, and both ---- */

#define V1 "sys/fs/cgroup/memory/"

TEST(memory_v1_own_and_ancestors)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "12:pids:/x\n4:memory:/jobs/one\n3:cpu,cpuacct:/y\n1:name=systemd:/memory\n");
    put(V1 "jobs/one/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put(V1 "jobs/one/memory.usage_in_bytes", "1000000000\n");
    put(V1 "memory.limit_in_bytes", "9223372036854771712\n");
    check_memory(16 * GIB, 8 * GIB, 0);
    put(V1 "jobs/memory.limit_in_bytes", "2147483648\n");
    put(V1 "jobs/memory.usage_in_bytes", "1610612736\n");
    check_memory(16 * GIB, 512 * MIB, 2 * GIB);
    put(V1 "jobs/memory.stat", "cache 5\ninactive_file 1\nactive_file 1\nhierarchical_memory_limit 2147483648\n"
                               "total_cache 999999999\ntotal_inactive_file 104857600\ntotal_active_file 209715200\n");
    check_memory(16 * GIB, 812 * MIB, 2 * GIB); /* totals: the usage counts the groups below as well */
    put(V1 "jobs/one/memory.limit_in_bytes", "1073741824\n");
    check_memory(16 * GIB, GIB - 1000000000, GIB);
    remove_root();
}

TEST(memory_v1_in_a_container)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "4:memory:/docker/0123\n");
    put(V1 "memory.limit_in_bytes", "1073741824\n");
    put(V1 "memory.usage_in_bytes", "268435456\n");
    check_memory(16 * GIB, 768 * MIB, GIB);
    remove_root();
}

TEST(memory_hybrid_takes_the_tighter)
{
    make_root();
    put_meminfo(16 << 20, 8 << 20);
    put("proc/self/cgroup", "4:cpu,memory:/a\n0::/b\n");
    put(V1 "a/memory.limit_in_bytes", "2147483648\n");
    put(V1 "b/memory.limit_in_bytes", "1\n"); /* not our path in this hierarchy */
    put("sys/fs/cgroup/unified/b/memory.max", "1073741824\n");
    check_memory(16 * GIB, GIB, GIB);
    put("sys/fs/cgroup/unified/b/memory.max", "3221225472\n");
    check_memory(16 * GIB, 2 * GIB, 2 * GIB);
    remove_root();
}

TEST(memory_available_from_the_group_alone)
{
    make_root();
    put("proc/self/cgroup", "0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "1073741824\n");
    put("sys/fs/cgroup/a/memory.current", "1048576\n");
    check_memory(0, 1023 * MIB, GIB);
    remove_root();
}

TEST(memory_paths_too_long_to_use)
{
    make_root();
    put_meminfo(1024, 512);
    char groups[3 * PATH_BYTES];
    int length = snprintf(groups, sizeof groups, "0::");
    while (length < (int) sizeof groups - 20) {
        length += snprintf(groups + length, 16, "/directory");
    }
    put("proc/self/cgroup", groups);
    put("sys/fs/cgroup/memory.max", "65536\n");
    check_memory(MIB, 65536, 65536); /* the topmost is still looked at */
    remove_root();
}

TEST(memory_of_this_machine)
{
    struct pgd_os_memory memory;
    pgd_os_memory_read("", &memory);
    CHECK(memory.total_bytes > 16 * MIB);
    CHECK(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    CHECK(memory.limit_bytes == 0 || memory.available_bytes <= memory.limit_bytes);
}

/* ---- CPUs ---- */

TEST(cpu_quota)
{
    make_root();
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), UINT32_MAX);
    put("proc/self/cgroup", "3:cpuacct,cpu:/a/b\n0::/c/d\n");
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), UINT32_MAX);
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/c/d/cpu.max", "max 100000\n");
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), UINT32_MAX);
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "450000\n");
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), 5);
    put("sys/fs/cgroup/c/cpu.max", "300000 100000\n"); /* an ancestor's */
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), 3);
    put("sys/fs/cgroup/c/d/cpu.max", "1000 100000\n"); /* a hundredth of one */
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), 1);
    put("sys/fs/cgroup/c/d/cpu.max", "0 100000\n");
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), 3);
    put("sys/fs/cgroup/c/d/cpu.max", "100000 0\n");
    put("sys/fs/cgroup/c/cpu.max", "200000\n");
    CHECK_EQ_U64(pgd_cgroup_cpu_quota(root), 5);
    remove_root();
}

TEST(cpu_count_follows_the_affinity_mask)
{
    CHECK(pgd_os_cpu_count() >= 1);
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) {
        SKIP("the affinity mask cannot be read");
    }
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &mask)) {
        cpu++;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK_EQ_INT(sched_setaffinity(0, sizeof one, &one), 0);
    const uint32_t count = pgd_os_cpu_count();
    CHECK_EQ_INT(sched_setaffinity(0, sizeof mask, &mask), 0);
    CHECK_EQ_U64(count, 1);
}

/* ---- text ---- */

static void check_number(const char *text, bool is_number, uint64_t expected)
{
    uint64_t number = 12345;
    CHECK(pgd_text_number(text, &number) == is_number);
    CHECK_EQ_U64(number, is_number ? expected : 12345);
}

TEST(text_numbers)
{
    check_number("0", true, 0);
    check_number(" \t42\n", true, 42);
    check_number("42 kB", true, 42);
    check_number("42\r\n", true, 42);
    check_number("18446744073709551615", true, UINT64_MAX);
    check_number("18446744073709551616", true, UINT64_MAX);
    check_number("18446744073709551620", true, UINT64_MAX);
    check_number("1844674407370955161500000000000001", true, UINT64_MAX);
    check_number("", false, 0);
    check_number("\n42", false, 0);
    check_number("-1", false, 0);
    check_number("+1", false, 0);
    check_number("0x10", false, 0);
    check_number("1e9", false, 0);
    check_number("max", false, 0);
}

/* ---- the default tables ---- */

TEST(system_defaults_and_overrides)
{
    struct failing_system host;
    failing_system_init(&host);
    struct pgd_system system;
    pgd_os_system(&host.system, &system);
    CHECK(system.allocator.user == &host && system.memory.user == &host && system.clock.user == &host);
    host.now_ns = 99;
    CHECK_EQ_U64(system.clock.now_ns(system.clock.user), 99);
    const struct pagoda_system partly = {.memory = &host.memory};
    pgd_os_system(&partly, &system);
    CHECK(system.memory.user == &host && system.allocator.user != &host && system.clock.user != &host);
    CHECK(system.allocator.allocate != NULL && system.allocator.release != NULL && system.clock.now_ns != NULL);
}

static void use_incomplete_table(void *user)
{
    (void) user;
    const struct pagoda_memory_source half = {0};
    const struct pagoda_system host = {.memory = &half};
    struct pgd_system system;
    pgd_os_system(&host, &system);
}

TEST(system_asserts_that_tables_are_complete)
{
    CHECK_ABORTS(use_incomplete_table, NULL);
}

TEST(default_allocator_gives_zeroes_or_nothing)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    for (int round = 0; round < 100; round++) {
        char *const memory = pgd_allocate(&system, 1000);
        CHECK(memory != NULL && (uintptr_t) memory % _Alignof(max_align_t) == 0);
        CHECK(memory[0] == 0 && memcmp(memory, memory + 1, 999) == 0);
        memset(memory, 1, 1000);
        pgd_release(&system, memory, 1000);
    }
}

TEST(default_clock_runs_forward)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const uint64_t start = system.clock.now_ns(system.clock.user);
    uint64_t last = start;
    for (int i = 0; i < 1000; i++) {
        const uint64_t now = system.clock.now_ns(system.clock.user);
        CHECK(now >= last);
        last = now;
    }
    (void) usleep(2000);
    CHECK(system.clock.now_ns(system.clock.user) >= start + 2000000);
}

static uint64_t resident_bytes(void)
{
    uint64_t resident;
    uint64_t peak;
    pgd_os_process_memory(&resident, &peak);
    if (resident == 0) {
        SKIP("the resident size of a process is not known here");
    }
    CHECK(peak >= resident);
    return resident;
}

TEST(reserved_memory_costs_nothing_until_it_is_touched)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const size_t bytes = (size_t) (4 * GIB);
    const uint64_t before = resident_bytes();
    char *const arena = system.memory.reserve(system.memory.user, bytes);
    if (arena == NULL) {
        SKIP("this system does not overcommit memory");
    }
    CHECK_EQ_U64((uintptr_t) arena % (uintptr_t) sysconf(_SC_PAGESIZE), 0);
    CHECK(arena[0] == 0 && arena[bytes - 1] == 0);
    CHECK(resident_bytes() < before + 4 * MIB);
    system.memory.release(system.memory.user, arena, bytes);
    CHECK(system.memory.reserve(system.memory.user, SIZE_MAX / 2) == NULL); /* refused, not a crash */
}

TEST(discarded_memory_goes_back_and_reads_as_zero)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const size_t bytes = (size_t) (64 * MIB);
    char *const arena = system.memory.reserve(system.memory.user, bytes);
    CHECK(arena != NULL);
    memset(arena, 7, bytes);
    const uint64_t full = resident_bytes();
    uint64_t resident;
    uint64_t peak;
    system.memory.discard(system.memory.user, arena, bytes);
    CHECK(resident_bytes() + 60 * MIB <= full);
    pgd_os_process_memory(&resident, &peak);
    CHECK(peak + 4 * MIB >= full && resident < full); /* the peak remembers, as exactly as the kernel counts */
    CHECK(arena[0] == 0 && memcmp(arena, arena + 1, bytes - 1) == 0);
    system.memory.release(system.memory.user, arena, bytes);
}

TEST(discard_takes_whole_pages_inside_the_range_only)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    char *const arena = system.memory.reserve(system.memory.user, 4 * page);
    CHECK(arena != NULL);
    memset(arena, 7, 4 * page);
    pgd_os_discard(arena + 1, page - 1);
    pgd_os_discard(arena + 1, page - 2 + page);
    pgd_os_discard(arena, page - 1);
    pgd_os_discard(arena, 0);
    pgd_os_discard(arena + 1, 0);
    CHECK(arena[0] == 7 && memcmp(arena, arena + 1, 4 * page - 1) == 0);
    pgd_os_discard(arena + 1, 3 * page - 2); /* one whole page inside */
    CHECK(arena[page - 1] == 7 && arena[page] == 0 && arena[2 * page - 1] == 0 && arena[2 * page] == 7);
    pgd_os_discard(arena, page);
    CHECK(arena[0] == 0 && arena[page - 1] == 0);
    system.memory.release(system.memory.user, arena, 4 * page);
}

TEST(discard_of_locked_memory_still_reads_as_zero)
{
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    char *const arena = system.memory.reserve(system.memory.user, 2 * page);
    CHECK(arena != NULL);
    if (mlock(arena, 2 * page) != 0) {
        SKIP("memory cannot be locked here");
    }
    memset(arena, 7, 2 * page);
    pgd_os_discard(arena, 2 * page);
    CHECK(arena[0] == 0 && memcmp(arena, arena + 1, 2 * page - 1) == 0);
    system.memory.release(system.memory.user, arena, 2 * page);
}

/* ---- files ---- */

static struct pgd_file *open_for_reading(const char *name)
{
    char path[2 * PATH_BYTES];
    (void) snprintf(path, sizeof path, "%s/%s", root, name);
    struct pgd_file *file = NULL;
    CHECK_EQ_INT(pgd_os_vfs()->open_read(NULL, path, &file, NULL), PAGODA_OK);
    return file;
}

/* Opens a scratch file below the root, and tells its descriptor: the lowest that was free. */
static struct pgd_file *open_scratch(int *descriptor)
{
    *descriptor = open("/dev/null", O_RDONLY);
    CHECK(*descriptor >= 0);
    (void) close(*descriptor);
    struct pgd_file *file = NULL;
    CHECK_EQ_INT(pgd_os_vfs()->open_scratch(NULL, root, &file, NULL), PAGODA_OK);
    return file;
}

static int entries_in_root(void)
{
    DIR *const directory = opendir(root);
    CHECK(directory != NULL);
    int count = -2; /* . and .. */
    while (readdir(directory) != NULL) {
        count++;
    }
    (void) closedir(directory);
    return count;
}

TEST(file_size_and_contents)
{
    make_root();
    put("data", "0123456789");
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *const file = open_for_reading("data");
    uint64_t size;
    char buffer[16] = "";
    CHECK_EQ_INT(vfs->size(vfs->user, file, &size, NULL), PAGODA_OK);
    CHECK_EQ_U64(size, 10);
    CHECK_EQ_INT(vfs->read(vfs->user, file, 3, buffer, 4, NULL), PAGODA_OK);
    CHECK_STR(buffer, "3456");
    CHECK_EQ_INT(vfs->read(vfs->user, file, 0, buffer, 10, NULL), PAGODA_OK);
    CHECK_STR(buffer, "0123456789");
    CHECK_EQ_INT(vfs->read(vfs->user, file, 10, buffer, 0, NULL), PAGODA_OK);
    CHECK_EQ_INT(vfs->write(vfs->user, file, 0, "x", 1, NULL), PAGODA_IO); /* it was opened to be read */
    vfs->close(vfs->user, file);
    vfs->close(vfs->user, NULL);
    remove_root();
}

TEST(reading_past_the_end_is_corrupt)
{
    make_root();
    put("data", "0123456789");
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *const file = open_for_reading("data");
    static const struct {
        uint64_t offset;
        size_t bytes;
    } cases[] = {{0, 11}, {10, 1}, {9, 2}, {1000, 1}, {INT64_MAX, 1}, {UINT64_MAX, 1}, {UINT64_MAX - 5, 11}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char buffer[16];
        struct pagoda_error error = {PAGODA_OK, ""};
        CHECK_EQ_INT(vfs->read(vfs->user, file, cases[i].offset, buffer, cases[i].bytes, &error), PAGODA_CORRUPT);
        CHECK_EQ_INT(error.status, PAGODA_CORRUPT);
        CHECK(strstr(error.message, root) != NULL && strstr(error.message, "ends early") != NULL);
    }
    vfs->close(vfs->user, file);
    remove_root();
}

static void check_open_fails(const char *path, enum pagoda_status status, const char *reason)
{
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *file = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(vfs->open_read(vfs->user, path, &file, &error), status);
    CHECK(file == NULL);
    CHECK_EQ_INT(error.status, status);
    CHECK(strstr(error.message, path) != NULL && strstr(error.message, reason) != NULL);
}

TEST(opening_what_is_not_a_readable_file)
{
    make_root();
    put("data", "0123456789");
    char path[2 * PATH_BYTES];
    (void) snprintf(path, sizeof path, "%s/missing.gguf", root);
    check_open_fails(path, PAGODA_NOT_FOUND, "No such file");
    (void) snprintf(path, sizeof path, "%s/data/below", root);
    check_open_fails(path, PAGODA_NOT_FOUND, "Not a directory");
    check_open_fails(root, PAGODA_IO, "Is a directory");
    remove_root();
}

TEST(scratch_files_are_nameless_and_private)
{
    static const mode_t masks[] = {0, 0077, 0777};
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    for (int i = 0; i < 3; i++) {
        int descriptor;
        const mode_t before = umask(masks[i]);
        struct pgd_file *const file = open_scratch(&descriptor);
        (void) umask(before);
        struct stat about;
        CHECK_EQ_INT(fstat(descriptor, &about), 0);
        CHECK(S_ISREG(about.st_mode));
        CHECK_EQ_INT(about.st_mode & 07777, 0600);
        CHECK_EQ_INT(about.st_nlink, 0);
        CHECK_EQ_INT(entries_in_root(), 0);
        CHECK((fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
        vfs->close(vfs->user, file);
        CHECK_EQ_INT(fcntl(descriptor, F_GETFD), -1);
    }
    remove_root();
}

TEST(scratch_files_hold_what_is_written)
{
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    int descriptor;
    struct pgd_file *const file = open_scratch(&descriptor);
    char buffer[8] = "";
    uint64_t size;
    CHECK_EQ_INT(vfs->write(vfs->user, file, 100, "pagoda", 6, NULL), PAGODA_OK);
    CHECK_EQ_INT(vfs->size(vfs->user, file, &size, NULL), PAGODA_OK);
    CHECK_EQ_U64(size, 106);
    CHECK_EQ_INT(vfs->read(vfs->user, file, 100, buffer, 6, NULL), PAGODA_OK);
    CHECK_STR(buffer, "pagoda");
    CHECK_EQ_INT(vfs->read(vfs->user, file, 98, buffer, 4, NULL), PAGODA_OK);
    CHECK_MEM(buffer, "\0\0pa", 4);
    CHECK_EQ_INT(vfs->read(vfs->user, file, 101, buffer, 6, NULL), PAGODA_CORRUPT);
    CHECK_EQ_INT(vfs->write(vfs->user, file, INT64_MAX, "x", 1, NULL), PAGODA_RANGE);
    CHECK_EQ_INT(vfs->write(vfs->user, file, UINT64_MAX, "x", 1, NULL), PAGODA_RANGE);
    vfs->close(vfs->user, file);
    remove_root();
}

TEST(scratch_in_a_directory_that_is_not_there)
{
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *file = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(vfs->open_scratch(vfs->user, "/nowhere/at/all", &file, &error), PAGODA_NOT_FOUND);
    CHECK(file == NULL && strstr(error.message, "/nowhere/at/all") != NULL);
}

TEST(a_full_disk_is_a_typed_error)
{
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    const int full = open("/dev/full", O_RDWR);
    if (full < 0) {
        remove_root();
        SKIP("there is no /dev/full");
    }
    int descriptor;
    struct pgd_file *const file = open_scratch(&descriptor);
    CHECK(dup2(full, descriptor) == descriptor); /* as if its disk had run full */
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(vfs->write(vfs->user, file, 0, "pagoda", 6, &error), PAGODA_IO);
    CHECK_EQ_INT(error.status, PAGODA_IO);
    CHECK(strstr(error.message, "No space left") != NULL && strstr(error.message, root) != NULL);
    vfs->close(vfs->user, file);
    (void) close(full);
    remove_root();
}

/* ---- single calls of scratch files ---- */

TEST(single_calls_answer_as_the_system_does)
{
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    int descriptor;
    struct pgd_file *const file = open_scratch(&descriptor);
    char buffer[16] = "";
    uint64_t bytes = 0;
    CHECK_EQ_INT(vfs->write_once(vfs->user, file, 4096, "pagoda", 6), 6);
    CHECK_EQ_INT(vfs->read_once(vfs->user, file, 4096, buffer, sizeof buffer), 6); /* short: the file ends there */
    CHECK_STR(buffer, "pagoda");
    CHECK_EQ_INT(vfs->read_once(vfs->user, file, 8192, buffer, sizeof buffer), 0);
    CHECK_EQ_INT(vfs->read_once(vfs->user, file, UINT64_MAX, buffer, 1), -EINVAL);
    CHECK_EQ_INT(vfs->write_once(vfs->user, file, INT64_MAX, buffer, 1), -EINVAL);
    CHECK_EQ_INT(vfs->settle(vfs->user, file, 4096, 6), 0);
    vfs->forget(vfs->user, file, 0, 8192);
    CHECK_EQ_INT(vfs->truncate(vfs->user, file, 4098), 0);
    CHECK_EQ_INT(vfs->size(vfs->user, file, &bytes, NULL), PAGODA_OK);
    CHECK_EQ_U64(bytes, 4098);
    const int number = vfs->punch(vfs->user, file, 4096, 4096);
    CHECK(number == 0 || number == EOPNOTSUPP);
    CHECK_EQ_INT(vfs->read_once(vfs->user, file, 4096, buffer, 2), 2);
    CHECK_MEM(buffer, number == 0 ? "\0\0" : "pa", 2);
    CHECK_EQ_INT(vfs->free_bytes(vfs->user, file, &bytes), 0);
    CHECK(bytes > 0);
    vfs->close(vfs->user, file);
    remove_root();
}

TEST(direct_transfers_bypass_the_page_cache_or_are_refused)
{
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    int descriptor;
    struct pgd_file *const file = open_scratch(&descriptor);
    const int number = vfs->set_direct(vfs->user, file, true);
    CHECK(number == 0 || number == EINVAL || number == EOPNOTSUPP);
    CHECK(((fcntl(descriptor, F_GETFL) & O_DIRECT) != 0) == (number == 0));
    CHECK_EQ_INT(vfs->set_direct(vfs->user, file, false), 0);
    CHECK_EQ_INT(fcntl(descriptor, F_GETFL) & O_DIRECT, 0);
    vfs->close(vfs->user, file);
    struct pgd_file *shared = NULL;
    if (vfs->open_scratch(vfs->user, "/dev/shm", &shared, NULL) == PAGODA_OK) {
        CHECK_EQ_INT(vfs->set_direct(vfs->user, shared, true), EOPNOTSUPP); /* memory, whatever newer kernels say */
        vfs->close(vfs->user, shared);
    }
    remove_root();
}

/* A ring on a scratch file in a new root; NULL, and nothing is left, where there is no io_uring. */
static struct pgd_ring *open_ring(uint32_t depth, struct pgd_file **file)
{
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_ring *ring = NULL;
    int descriptor;
    make_root();
    *file = open_scratch(&descriptor);
    if (vfs->ring_open(vfs->user, *file, depth, &ring) != 0) {
        vfs->close(vfs->user, *file);
        remove_root();
        return NULL;
    }
    return ring;
}

TEST(a_ring_reads_what_was_written)
{
    enum { DEPTH = 4, BYTES = 1000 };
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *file;
    struct pgd_ring *const ring = open_ring(DEPTH, &file);
    if (ring == NULL) {
        SKIP("there is no io_uring");
    }
    char written[DEPTH][BYTES];
    char read[DEPTH][BYTES];
    for (int i = 0; i < DEPTH; i++) {
        memset(written[i], 'a' + i, BYTES);
        CHECK_EQ_INT(vfs->write_once(vfs->user, file, (uint64_t) i * BYTES, written[i], BYTES), BYTES);
    }
    uint32_t given = 7;
    CHECK(!vfs->ring_ready(vfs->user, ring));
    CHECK_EQ_INT(vfs->ring_submit(vfs->user, ring, &given), 0); /* of nothing */
    CHECK_EQ_INT(given, 0);
    const double began = pgd_os_seconds();
    vfs->ring_wait(vfs->user, ring, 20000000); /* nothing will come: it ends by the time */
    CHECK(pgd_os_seconds() - began >= 0.019);
    for (int round = 0; round < 100; round++) {
        memset(read, 0, sizeof read);
        for (uint32_t i = 0; i < DEPTH; i++) {
            CHECK(vfs->ring_add(vfs->user, ring, i, i * BYTES, read[i], BYTES));
        }
        CHECK(!vfs->ring_add(vfs->user, ring, 9, 0, read[0], BYTES)); /* full */
        CHECK_EQ_INT(vfs->ring_submit(vfs->user, ring, &given), 0);
        CHECK_EQ_INT(given, DEPTH);
        for (uint32_t taken = 0; taken < DEPTH;) {
            struct pgd_ring_done done;
            vfs->ring_wait(vfs->user, ring, 1000000000);
            while (vfs->ring_take(vfs->user, ring, &done)) {
                CHECK_EQ_INT(done.result, BYTES);
                CHECK_MEM(read[done.tag], written[done.tag], BYTES);
                taken++;
            }
        }
    }
    CHECK(vfs->ring_add(vfs->user, ring, 7, (uint64_t) DEPTH * BYTES - 10, read[0], BYTES));
    CHECK_EQ_INT(vfs->ring_submit(vfs->user, ring, &given), 0);
    vfs->ring_wait(vfs->user, ring, 1000000000);
    struct pgd_ring_done done;
    CHECK(vfs->ring_take(vfs->user, ring, &done) && done.tag == 7 && done.result == 10);
    vfs->ring_close(vfs->user, ring);
    vfs->ring_close(vfs->user, NULL);
    vfs->close(vfs->user, file);
    remove_root();
}

/* The kernel stops at an entry that it cannot even prepare: one with a buffer that no process has. */
TEST(a_ring_forgets_what_the_kernel_did_not_take)
{
    enum { DEPTH = 4, BYTES = 100 };
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    struct pgd_file *file;
    struct pgd_ring *const ring = open_ring(DEPTH, &file);
    if (ring == NULL) {
        SKIP("there is no io_uring");
    }
    char written[BYTES];
    char read[DEPTH][BYTES];
    memset(written, 'w', BYTES);
    CHECK_EQ_INT(vfs->write_once(vfs->user, file, 0, written, BYTES), BYTES);
    for (uint32_t round = 0; round < 50; round++) {
        const uint32_t bad = round % (DEPTH + 1); /* DEPTH: none */
        void *const nowhere = (void *) (UINTPTR_MAX - 8191);
        uint32_t taken = 0;
        uint32_t seen = 0;
        memset(read, 0, sizeof read);
        for (uint32_t i = 0; i < DEPTH; i++) {
            CHECK(vfs->ring_add(vfs->user, ring, i, 0, i == bad ? nowhere : read[i], BYTES));
        }
        CHECK_EQ_INT(vfs->ring_submit(vfs->user, ring, &taken), 0);
        CHECK(taken == DEPTH || taken == bad + 1); /* a kernel may also go on */
        while (seen < taken) {
            struct pgd_ring_done done;
            vfs->ring_wait(vfs->user, ring, 1000000000);
            while (vfs->ring_take(vfs->user, ring, &done)) {
                CHECK(done.tag < taken);
                CHECK_EQ_INT(done.result, done.tag == bad ? -EFAULT : BYTES);
                CHECK(done.tag == bad || memcmp(read[done.tag], written, BYTES) == 0);
                seen++;
            }
        }
        CHECK(!vfs->ring_ready(vfs->user, ring));
    }
    vfs->ring_close(vfs->user, ring);
    vfs->close(vfs->user, file);
    remove_root();
}

static uint64_t mapped_bytes(void)
{
    char text[512] = "";
    FILE *const file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fgets(text, sizeof text, file) != NULL);
    (void) fclose(file);
    return strtoull(text, NULL, 10) * (uint64_t) sysconf(_SC_PAGESIZE);
}

TEST(rings_take_no_more_memory_than_they_say)
{
    static const uint32_t depths[] = {1, 2, 3, 8, 64, 100, 1024};
    make_root();
    const struct pgd_vfs *const vfs = pgd_os_vfs();
    int descriptor;
    struct pgd_file *const file = open_scratch(&descriptor);
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        struct pgd_ring *ring = NULL;
        const uint64_t before = mapped_bytes();
        if (vfs->ring_open(vfs->user, file, depths[i], &ring) != 0) {
            break;
        }
        const uint64_t taken = mapped_bytes() - before;
        CHECK(taken > 0 && taken <= pgd_os_ring_bytes(depths[i]));
        CHECK(pgd_os_ring_bytes(depths[i]) - taken <= 8192);
        vfs->ring_close(vfs->user, ring);
    }
    struct pgd_ring *none = NULL;
    CHECK(vfs->ring_open(vfs->user, file, 1000000, &none) != 0 && none == NULL);
    vfs->close(vfs->user, file);
    remove_root();
}
