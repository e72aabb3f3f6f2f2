/* Measuring a device: what is chosen from which numbers, a device whose speed is known, and devices that fail. */
#include "harness/failing_system.h"
#include "tier/calibrate.h"
#include "unit/flash_rig.h"

/* ---- the choice ---- */

static void check_choice(const double speeds[PGD_CALIBRATE_RUNS][PGD_CALIBRATE_DEPTHS], uint64_t run, uint32_t depth)
{
    struct pgd_device device = {0};
    memcpy(device.read_bytes_per_second, speeds, sizeof device.read_bytes_per_second);
    pgd_calibrate_choose(&device);
    CHECK_EQ_U64(device.run_bytes, run);
    CHECK_EQ_U64(device.depth, depth);
}

TEST(the_shortest_run_that_is_nearly_as_fast_as_the_best)
{
    static const double phone[][PGD_CALIBRATE_DEPTHS] = {{10, 60}, {40, 200}, {130, 700}, {390, 1010}, {800, 1000}};
    check_choice(phone, 256 * KIB, 8);
    static const double card[][PGD_CALIBRATE_DEPTHS] = {{3, 3}, {11, 11}, {30, 30}, {79, 79}, {100, 0}};
    check_choice(card, MIB, 1);
    static const double memory[][PGD_CALIBRATE_DEPTHS] = {{80, 70}, {100, 90}, {100, 90}, {90, 80}, {80, 70}};
    check_choice(memory, 4 * KIB, 1);
    static const double drive[][PGD_CALIBRATE_DEPTHS] = {
        {80, 500}, {300, 3000}, {900, 6400}, {2500, 7000}, {3000, 7000}};
    check_choice(drive, 64 * KIB, 8);
}

/* ---- measuring ---- */

static struct pgd_device must_measure(const struct rig *rig)
{
    struct pgd_device device;
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pgd_calibrate(&rig->options, &device, &error);
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    CHECK(failing_vfs_is_clean(&rig->disk));
    return device;
}

TEST(this_machine)
{
    struct rig rig;
    prepare(&rig, &variants[2]);
    rig.options.backend = PGD_FLASH_AUTO;
    const struct pgd_device device = must_measure(&rig);
    CHECK(device.latency_us <= device.latency_p99_us && device.write_bytes_per_second > 0);
    CHECK(device.read_bytes_per_second[0][0] > 0 && device.free_bytes > 0);
    CHECK(device.bytes_written >= MIB && device.bytes_written <= 32 * MIB);
    CHECK(device.run_bytes >= BLOCK && device.run_bytes <= MIB && (device.depth == 1 || device.depth == 8));
}

/* A device of 64 MiB/s, as the throttle makes it: no number is above that, and long runs come near it. */
TEST(a_device_of_known_speed)
{
    struct rig rig;
    prepare(&rig, &variants[3]);
    rig.options.directory = fast_directory();
    rig.options.throttle_bytes_per_second = 64 * MIB;
    rig.disk.direct_answer = 0;
    const struct pgd_device device = must_measure(&rig);
    double best = 0;
    for (uint32_t i = 0; i < PGD_CALIBRATE_RUNS * PGD_CALIBRATE_DEPTHS; i++) {
        const double speed = device.read_bytes_per_second[i / 2][i % 2];
        CHECK(speed <= 64.5 * (double) MIB);
        best = speed > best ? speed : best;
    }
    CHECK(best > 16 * (double) MIB); /* on a busy machine, too */
    CHECK(device.latency_us >= 61);  /* 4 KiB at 64 MiB/s */
    CHECK(device.in_memory == (strcmp(rig.options.directory, "/dev/shm") == 0));
}

/* Eight MiB in flight would take it a minute. */
TEST(a_slow_device_is_not_waited_for)
{
    struct rig rig;
    prepare(&rig, &variants[3]);
    rig.options.directory = fast_directory();
    rig.options.throttle_bytes_per_second = 128 * KIB;
    const uint64_t began_ns = rig.system.clock.now_ns(rig.system.clock.user);
    const struct pgd_device device = must_measure(&rig);
    CHECK(rig.system.clock.now_ns(rig.system.clock.user) - began_ns < UINT64_C(5000000000));
    CHECK(device.read_bytes_per_second[0][0] > 0 && device.read_bytes_per_second[4][1] <= 0);
}

static void check_fails(const struct rig *rig, enum pagoda_status status, const char *word)
{
    struct pgd_device device = {.depth = 4711};
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(pgd_calibrate(&rig->options, &device, &error), status);
    CHECK(strstr(error.message, word) != NULL);
    CHECK_EQ_U64(device.depth, 4711);
    CHECK(failing_vfs_is_clean(&rig->disk));
}

TEST(devices_that_fail)
{
    struct rig rig;
    prepare(&rig, &variants[3]);
    rig.options.directory = fast_directory();
    failing_vfs_arm(&rig.disk, FAILING_READ, 2, true, EIO); /* the first is the trial of open */
    check_fails(&rig, PAGODA_IO, "does not give back");
    failing_vfs_arm(&rig.disk, FAILING_WRITE, 2, true, ENOSPC);
    check_fails(&rig, PAGODA_IO, "No space left");
    failing_vfs_arm(&rig.disk, FAILING_WRITE, 1, true, EDQUOT);
    check_fails(&rig, PAGODA_IO, "quota");
    failing_vfs_arm(&rig.disk, FAILING_WRITE, 3, true, ENOSPC); /* one MiB is enough to measure with */
    CHECK_EQ_U64(must_measure(&rig).bytes_written, MIB);
    failing_vfs_arm(&rig.disk, FAILING_WRITE, 0, false, 0);
    rig.options.reserve_bytes = UINT64_MAX;
    check_fails(&rig, PAGODA_FULL, "left to others");
    rig.options.directory = "/nowhere/at/all";
    check_fails(&rig, PAGODA_NOT_FOUND, "/nowhere/at/all");
}

TEST(memory_that_is_refused)
{
    struct failing_system host;
    struct rig rig;
    failing_system_init(&host);
    prepare(&rig, &variants[3]);
    rig.options.directory = fast_directory();
    rig.system.allocator = host.allocator;
    rig.system.memory = host.memory;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        failing_system_arm(&host, nth, false);
        check_fails(&rig, PAGODA_NOMEM, "No memory");
        CHECK(failing_system_is_clean(&host));
    }
    failing_system_arm(&host, 0, false);
    (void) must_measure(&rig);
    CHECK(failing_system_is_clean(&host));
}
