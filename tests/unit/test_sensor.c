/* The sensor and what it reads: every file missing, refused, absurd or jumping, from fixture trees. */
#define _GNU_SOURCE 1 /* nftw */

#include "governor/sensor.h"

#include <unistd.h>

#include "harness/test.h"
#include "os/pressure.h"
#include "unit/tree.h"

#define MIB ((uint64_t) 1 << 20)
#define GIB ((uint64_t) 1 << 30)
#define V1 "sys/fs/cgroup/memory/"

static struct pgd_os_pressure_values read_tree(void)
{
    struct pgd_os_pressure pressure;
    struct pgd_os_pressure_values values;
    pgd_os_pressure_open(&pressure, root, NULL);
    pgd_os_pressure_read(&pressure, &values);
    pgd_os_pressure_close(&pressure);
    return values;
}

static void put_machine(uint64_t available_kb, uint64_t inactive_kb, uint64_t active_kb, uint64_t mapped_kb)
{
    char text[512];
    (void) snprintf(text, sizeof text,
                    "MemTotal:       8388608 kB\nMemAvailable:   %llu kB\nActive(file):    %llu kB\n"
                    "Inactive(file):  %llu kB\nDirty:             0 kB\nWriteback:         0 kB\nMapped:  %llu kB\n",
                    (unsigned long long) available_kb, (unsigned long long) active_kb, (unsigned long long) inactive_kb,
                    (unsigned long long) mapped_kb);
    put("proc/meminfo", text);
}

/* ---- files that are not there, or make no sense ---- */

TEST(nothing_is_known_of_an_empty_tree)
{
    make_root();
    const struct pgd_os_pressure_values values = read_tree();
    CHECK_EQ_U64(values.total_bytes, 0);
    CHECK_EQ_U64(values.group.easy_bytes, UINT64_MAX);
    CHECK(!values.stalls[0].known && !values.stalls[1].known && !values.alarm);
    remove_root();
}

TEST(files_without_permission_are_not_there)
{
    char path[2 * PATH_BYTES];
    make_root();
    put_machine(1 << 20, 0, 0, 0);
    put("proc/pressure/memory", "some avg10=1.00 avg60=0.00 avg300=0.00 total=5\n");
    CHECK(read_tree().stalls[0].known);
    for (int i = 0; i < 2; i++) {
        (void) snprintf(path, sizeof path, "%s/%s", root, i == 0 ? "proc/pressure/memory" : "proc/meminfo");
        CHECK_EQ_INT(chmod(path, 0), 0);
        if (geteuid() == 0) { /* root may read everything: a directory instead, which nobody can */
            CHECK_EQ_INT(unlink(path), 0);
            CHECK_EQ_INT(mkdir(path, 0700), 0);
        }
    }
    const struct pgd_os_pressure_values values = read_tree();
    CHECK(!values.stalls[0].known);
    CHECK_EQ_U64(values.total_bytes, 0);
    remove_root();
}

TEST(garbage_is_unknown)
{
    static const char *const stalls[] = {
        "",
        "some\n",
        "some avg10= total=\n",
        "some avg10=nan avg60=0 avg300=0 total=5\n",
        "some avg10=-1.00 avg60=0 avg300=0 total=5\n",
        "some avg10=101.00 avg60=0 avg300=0 total=5\n",
        "some avg10=1.00 avg60=0 avg300=0 total=many\n",
        "some avg10=1.00 avg60=0 avg300=0\nfull avg10=1.00 avg60=0 avg300=0 total=5\n",
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=5\n",
        "awesome avg10=1.00 avg60=0.00 avg300=0.00 total=5\n",
    };
    make_root();
    for (size_t i = 0; i < sizeof stalls / sizeof stalls[0]; i++) {
        put("proc/pressure/memory", stalls[i]);
        CHECK(!read_tree().stalls[0].known);
    }
    put("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: lots\n");
    CHECK_EQ_U64(read_tree().total_bytes, 0);
    put("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 200 kB\n"); /* more than there is */
    CHECK_EQ_U64(read_tree().total_bytes, 0);
    put("proc/meminfo", "MemAvailable: 200 kB\n");
    CHECK_EQ_U64(read_tree().total_bytes, 0);
    put("proc/meminfo", "MemTotal: 99999999999999999999 kB\nMemAvailable: 99999999999999999999 kB\n");
    CHECK_EQ_U64(read_tree().total_bytes, 0);
    remove_root();
}

/* ---- what is left ---- */

TEST(machine_without_its_mapped_files)
{
    make_root();
    put_machine(4 << 20, 1 << 20, 2 << 20, 0);
    CHECK_EQ_U64(read_tree().total_bytes, 8 * GIB);
    CHECK_EQ_U64(read_tree().easy_bytes, 3 * GIB); /* half of the active gigabytes stays */
    put_machine(4 << 20, 1 << 20, 2 << 20, 2 << 20);
    CHECK_EQ_U64(read_tree().easy_bytes, 2 * GIB); /* weights of a model are mapped */
    put_machine(4 << 20, 1 << 20, 2 << 20, 9 << 20);
    CHECK_EQ_U64(read_tree().easy_bytes, 1 * GIB); /* shared memory is mapped too: never more than the cache */
    put_machine(0, 0, 0, 0);
    CHECK_EQ_U64(read_tree().easy_bytes, 0);
    CHECK_EQ_U64(read_tree().total_bytes, 8 * GIB);
    remove_root();
}

static void check_group(uint64_t easy, uint64_t limit, const char *name)
{
    const struct pgd_os_pressure_values values = read_tree();
    CHECK_EQ_U64(values.group.easy_bytes, easy);
    CHECK_EQ_U64(values.group.easy_limit_bytes, limit);
    CHECK_STR(values.group.name, name);
}

TEST(groups_of_version_2)
{
    make_root();
    put("proc/self/cgroup", "0::/top/own\n");
    put("sys/fs/cgroup/top/own/memory.max", "1073741824\n");
    put("sys/fs/cgroup/top/own/memory.current", "805306368\n");
    check_group(256 * MIB, GIB, "memory.max of /top/own (cgroup v2)");
    put("sys/fs/cgroup/top/own/memory.stat",
        "anon 1\nfile 402653184\nfile_mapped 134217728\nfile_dirty 33554432\nfile_writeback 33554432\n"
        "inactive_file 201326592\nactive_file 268435456\n");
    /* 192 - 64 idle, and 256 active, less 128 mapped: 128 and half of 128 */
    check_group((256 + 128 + 64) * MIB, GIB, "memory.max of /top/own (cgroup v2)");
    put("sys/fs/cgroup/top/own/memory.high", "939524096\n");
    check_group((128 + 128 + 64) * MIB, 896 * MIB, "memory.high of /top/own (cgroup v2)");
    put("sys/fs/cgroup/top/memory.max", "8589934592\n"); /* a group above, with less left */
    put("sys/fs/cgroup/top/memory.current", "8573157376\n");
    check_group(16 * MIB, 8 * GIB, "memory.max of /top (cgroup v2)");
    put("sys/fs/cgroup/top/memory.current", "9573157376\n"); /* over its limit */
    check_group(0, 8 * GIB, "memory.max of /top (cgroup v2)");
    remove_root();
}

TEST(groups_of_version_1)
{
    make_root();
    put("proc/self/cgroup", "4:memory:/own\n0::/\n");
    put(V1 "own/memory.limit_in_bytes", "1073741824\n");
    put(V1 "own/memory.usage_in_bytes", "805306368\n");
    put(V1 "own/memory.stat", "inactive_file 1\nhierarchical_memory_limit 1073741824\ntotal_inactive_file 134217728\n"
                              "total_active_file 0\ntotal_dirty 33554432\ntotal_mapped_file 33554432\n");
    check_group((256 + 64) * MIB, GIB, "memory.limit_in_bytes of /own (cgroup v1)");
    put(V1 "own/memory.stat", "hierarchical_memory_limit 838860800\n"); /* a group above that is not to be seen */
    check_group(32 * MIB, 800 * MIB, "memory.limit_in_bytes of /own (cgroup v1)");
    put(V1 "own/memory.limit_in_bytes", "9223372036854771712\n");
    put(V1 "own/memory.stat", "hierarchical_memory_limit 9223372036854771712\n");
    check_group(UINT64_MAX, UINT64_MAX, "");
    remove_root();
}

/* ---- stalls and triggers ---- */

TEST(stalls_of_the_machine_and_of_the_group)
{
    make_root();
    put("proc/self/cgroup", "0::/own\n");
    put("proc/pressure/memory",
        "some avg10=12.50 avg60=0.00 avg300=0.00 total=987654321\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=7\n");
    put("sys/fs/cgroup/own/memory.pressure", "some avg10=50.00 avg60=0.00 avg300=0.00 total=5\n");
    CHECK(read_tree().stalls[0].known && !read_tree().stalls[1].known); /* no group can be seen there yet */
    put("sys/fs/cgroup/own/cgroup.controllers", "memory\n");
    const struct pgd_os_pressure_values values = read_tree();
    CHECK(values.stalls[0].known && values.stalls[1].known);
    CHECK_NEAR(values.stalls[0].share, 0.125, 1e-9);
    CHECK_EQ_U64(values.stalls[0].total_us, 987654321);
    CHECK_NEAR(values.stalls[1].share, 0.5, 1e-9);
    CHECK_EQ_U64(values.stalls[1].total_us, 5);
    remove_root();
}

/* A kernel that answers as told. */
struct kernel {
    int arm[2]; /* for the machine, for the group */
    int rang;
    int armed;
    int closed;
};

static int arm(void *user, const char *path)
{
    struct kernel *kernel = user;
    const bool is_group = strstr(path, "memory.pressure") != NULL;
    CHECK(is_group || strstr(path, "/proc/pressure/memory") != NULL);
    kernel->armed++;
    return kernel->arm[is_group ? 1 : 0];
}

static int rang(void *user, int descriptor)
{
    const struct kernel *kernel = user;
    CHECK(descriptor == 71 || descriptor == 72);
    return kernel->rang;
}

static void disarm(void *user, int descriptor)
{
    struct kernel *kernel = user;
    CHECK(descriptor == 71 || descriptor == 72);
    kernel->closed++;
}

TEST(triggers_that_are_refused_leave_the_numbers)
{
    static const int refusals[] = {-ENOENT, -EACCES, -EPERM, -EINVAL, -EOPNOTSUPP, -EBUSY};
    make_root();
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cgroup.controllers", "\n");
    put("sys/fs/cgroup/memory.pressure", "some avg10=50.00 avg60=0.00 avg300=0.00 total=5\n");
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct kernel kernel = {.arm = {refusals[i], refusals[i]}, .rang = 1};
        const struct pgd_os_trigger_calls calls = {arm, rang, disarm, &kernel};
        struct pgd_os_pressure pressure;
        struct pgd_os_pressure_values values;
        pgd_os_pressure_open(&pressure, root, &calls);
        pgd_os_pressure_read(&pressure, &values);
        CHECK(!values.alarm && values.stalls[1].known);
        pgd_os_pressure_close(&pressure);
        CHECK_EQ_INT(kernel.armed, 2);
        CHECK_EQ_INT(kernel.closed, 0);
    }
    remove_root();
}

TEST(triggers_ring_until_they_break)
{
    make_root();
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cgroup.controllers", "\n");
    struct kernel kernel = {.arm = {71, 72}};
    const struct pgd_os_trigger_calls calls = {arm, rang, disarm, &kernel};
    struct pgd_os_pressure pressure;
    pgd_os_pressure_open(&pressure, root, &calls);
    CHECK(!pgd_os_pressure_rang(&pressure));
    kernel.rang = 1;
    CHECK(pgd_os_pressure_rang(&pressure));
    kernel.rang = -1; /* POLLERR: the group was removed */
    CHECK(!pgd_os_pressure_rang(&pressure));
    CHECK_EQ_INT(kernel.closed, 2);
    kernel.rang = 1;
    CHECK(!pgd_os_pressure_rang(&pressure)); /* nobody is asked any more */
    pgd_os_pressure_close(&pressure);
    CHECK_EQ_INT(kernel.closed, 2);
    remove_root();
}

/* The real thing, as far as this machine has it. */
TEST(this_machine)
{
    struct pgd_os_pressure pressure;
    struct pgd_os_pressure_values values;
    pgd_os_pressure_open(&pressure, "", NULL);
    pgd_os_pressure_read(&pressure, &values);
    CHECK(values.total_bytes > 16 * MIB && values.easy_bytes <= values.total_bytes);
    CHECK(values.group.easy_bytes <= values.group.room_bytes);
    const bool has_stalls = access("/proc/pressure/memory", R_OK) == 0;
    CHECK(values.stalls[0].known == has_stalls);
    for (uint32_t i = 0; i < PGD_STALL_SOURCES; i++) {
        CHECK(pressure.triggers[i] < 0 || has_stalls);
    }
    pgd_os_pressure_close(&pressure);
    if (!has_stalls) {
        SKIP("no /proc/pressure/memory here");
    }
}

/* ---- one number from many ---- */

static struct pgd_sensor_values unknown_values(void)
{
    return (struct pgd_sensor_values) {.machine_bytes = UINT64_MAX, .group_bytes = UINT64_MAX, .group_name = "group"};
}

static struct pgd_sensor_values machine_values(uint64_t bytes)
{
    struct pgd_sensor_values values = unknown_values();
    values.machine_bytes = bytes;
    values.machine_limit_bytes = 8 * GIB;
    return values;
}

TEST(the_smallest_headroom_wins)
{
    struct pgd_sensor sensor;
    struct pgd_reading reading;
    struct pgd_sensor_values values = unknown_values();
    pgd_sensor_init(&sensor);
    CHECK(pgd_sensor_take(&sensor, 1000, &values, &reading));
    CHECK(!reading.known);
    values = machine_values(3 * GIB);
    CHECK(pgd_sensor_take(&sensor, 2000, &values, &reading));
    CHECK(reading.known && reading.available_bytes == 3 * GIB && reading.limit_bytes == 8 * GIB);
    CHECK_STR(reading.source, "MemAvailable");
    values.group_bytes = 2 * GIB;
    values.group_limit_bytes = 4 * GIB;
    CHECK(pgd_sensor_take(&sensor, 3000, &values, &reading));
    CHECK(reading.available_bytes == 2 * GIB && reading.limit_bytes == 4 * GIB);
    CHECK_STR(reading.source, "group");
    values.group_bytes = 9 * GIB; /* more than its limit, and still more than the machine has */
    CHECK(pgd_sensor_take(&sensor, 4000, &values, &reading));
    CHECK_EQ_U64(reading.available_bytes, 3 * GIB);
    values.machine_bytes = 9 * GIB;
    values.group_bytes = UINT64_MAX;
    CHECK(pgd_sensor_take(&sensor, 5000, &values, &reading));
    CHECK_EQ_U64(reading.available_bytes, 8 * GIB); /* not more than there is */
}

TEST(one_absurd_value_is_not_believed)
{
    struct pgd_sensor sensor;
    struct pgd_reading reading;
    const struct pgd_sensor_values full = machine_values(6 * GIB);
    const struct pgd_sensor_values nothing = machine_values(0);
    pgd_sensor_init(&sensor);
    CHECK(pgd_sensor_take(&sensor, 1000, &full, &reading));
    CHECK(!pgd_sensor_take(&sensor, 2000, &nothing, &reading)); /* read again, please */
    CHECK(pgd_sensor_take(&sensor, 2001, &full, &reading));
    CHECK_EQ_U64(reading.available_bytes, 6 * GIB);
    CHECK(!pgd_sensor_take(&sensor, 3000, &nothing, &reading));
    CHECK(pgd_sensor_take(&sensor, 3001, &nothing, &reading)); /* it is true */
    CHECK_EQ_U64(reading.available_bytes, 0);
    const struct pgd_sensor_values less = machine_values(5 * GIB);
    CHECK(pgd_sensor_take(&sensor, 4000, &full, &reading)); /* up is believed */
    CHECK(pgd_sensor_take(&sensor, 5000, &less, &reading)); /* so is a fall of an eighth */
    CHECK_EQ_U64(reading.available_bytes, 5 * GIB);
}

TEST(stalls_are_measured_between_readings)
{
    struct pgd_sensor sensor;
    struct pgd_reading reading;
    struct pgd_sensor_values values = machine_values(6 * GIB);
    pgd_sensor_init(&sensor);
    values.stalls[0].known = true;
    values.stalls[0].total_us = 1000000;
    values.stalls[0].share = 0.25;
    CHECK(pgd_sensor_take(&sensor, 10000000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 0.25, 1e-9); /* the first: the kernel's average */
    values.stalls[0].total_us = 1050000;
    CHECK(pgd_sensor_take(&sensor, 10100000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 0.5, 1e-9);
    values.stalls[0].total_us = 1050001;
    CHECK(pgd_sensor_take(&sensor, 10100001, &values, &reading)); /* too soon to say */
    CHECK_NEAR(reading.stall_share, 0.5, 1e-9);
    CHECK(pgd_sensor_take(&sensor, 10200000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 0.00001, 1e-6);
    values.stalls[0].total_us = 5; /* backwards */
    CHECK(pgd_sensor_take(&sensor, 10300000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 0.25, 1e-9);
    values.stalls[0].total_us = UINT64_MAX; /* forwards, out of this world */
    CHECK(pgd_sensor_take(&sensor, 10400000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 1, 1e-9);
    values.stalls[1].known = true;
    values.stalls[1].share = 0.75;
    values.stalls[0].known = false;
    CHECK(pgd_sensor_take(&sensor, 10500000, &values, &reading));
    CHECK_NEAR(reading.stall_share, 0.75, 1e-9); /* the worst of both */
}

TEST(random_values_make_sound_readings)
{
    struct test_rng rng = test_rng(test_seed());
    struct pgd_sensor sensor;
    uint64_t now_us = 1;
    pgd_sensor_init(&sensor);
    for (int i = 0; i < 200000; i++) {
        struct pgd_sensor_values values = unknown_values();
        struct pgd_reading reading = {.known = false};
        uint64_t *const numbers[] = {&values.machine_bytes,      &values.machine_limit_bytes,
                                     &values.group_bytes,        &values.group_limit_bytes,
                                     &values.stalls[0].total_us, &values.stalls[1].total_us};
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
            *numbers[n] = test_rng_u64(&rng) >> test_rng_below(&rng, 64);
        }
        values.stalls[0].known = test_rng_below(&rng, 2) == 0;
        values.stalls[1].known = test_rng_below(&rng, 2) == 0;
        values.stalls[0].share = (double) test_rng_float(&rng, 0, 1);
        now_us += test_rng_below(&rng, 2000000);
        if (!pgd_sensor_take(&sensor, now_us, &values, &reading)) {
            CHECK(pgd_sensor_take(&sensor, now_us, &values, &reading));
        }
        CHECK(reading.stall_share >= 0 && reading.stall_share <= 1);
        CHECK(!reading.known || (reading.limit_bytes > 0 && reading.available_bytes <= reading.limit_bytes));
    }
}
