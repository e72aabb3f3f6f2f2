/* tier/calibrate.c - see calibrate.h. Every measurement has a slice of time and ends with it; one that would take
 * longer by what the ones before have shown is left out. */
#include "tier/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"

#define WRITE_BYTES (UINT64_C(1) << 20) /* at once */
#define WRITES_MAX 32u
#define WRITE_SLICE_NS UINT64_C(250000000)
#define LATENCY_SLICE_NS UINT64_C(80000000)
#define READ_SLICE_NS UINT64_C(55000000)
#define SAMPLES_MAX 1024u
#define ENOUGH 0.8 /* of the best bandwidth */
#define RUN_BYTES_MAX (UINT64_C(1) << 20)
#define BUFFER_BYTES (PGD_CALIBRATE_DEPTH_MAX * RUN_BYTES_MAX)

struct calibration {
    struct pgd_flash *flash;
    struct pagoda_clock clock;
    unsigned char *buffer; /* BUFFER_BYTES: RUN_BYTES_MAX for each read in flight */
    uint64_t written_bytes;
    uint64_t random;
    bool failed; /* a read did */
    uint32_t sample_count;
    uint32_t samples_us[SAMPLES_MAX];
};

uint64_t pgd_calibrate_run_bytes(uint32_t i)
{
    PGD_ASSERT(i < PGD_CALIBRATE_RUNS);
    return (uint64_t) PGD_FLASH_ALIGN << (2 * i);
}
_Static_assert(((uint64_t) PGD_FLASH_ALIGN << (2 * (PGD_CALIBRATE_RUNS - 1))) == RUN_BYTES_MAX, "the longest run");

uint32_t pgd_calibrate_depth(uint32_t i)
{
    PGD_ASSERT(i < PGD_CALIBRATE_DEPTHS);
    return i == 0 ? 1 : PGD_CALIBRATE_DEPTH_MAX;
}

static uint64_t now_ns(const struct calibration *calibration)
{
    return calibration->clock.now_ns(calibration->clock.user);
}

static uint64_t next_random(struct calibration *calibration)
{
    calibration->random ^= calibration->random << 13;
    calibration->random ^= calibration->random >> 7;
    calibration->random ^= calibration->random << 17;
    return calibration->random;
}

static double per_second(uint64_t bytes, uint64_t nanoseconds)
{
    return nanoseconds > 0 ? (double) bytes * 1e9 / (double) nanoseconds : 0;
}

/* ---- writing ---- */

/* Numbers that no device can make shorter. */
static void fill(struct calibration *calibration)
{
    for (uint64_t i = 0; i < WRITE_BYTES; i += sizeof(uint64_t)) {
        const uint64_t random = next_random(calibration);
        memcpy(calibration->buffer + i, &random, sizeof random);
    }
}

/* The first write must succeed; the others end with the slice, or where the room does. */
static enum pagoda_status measure_writes(struct calibration *calibration, struct pgd_device *device,
                                         struct pagoda_error *error)
{
    uint64_t spent_ns = 0;
    for (uint32_t i = 0; i < WRITES_MAX && spent_ns < WRITE_SLICE_NS; i++) {
        uint64_t offset = 0;
        fill(calibration);
        const uint64_t began_ns = now_ns(calibration);
        const enum pagoda_status status =
            pgd_flash_write(calibration->flash, calibration->buffer, WRITE_BYTES, &offset, i == 0 ? error : NULL);
        if (status != PAGODA_OK && i == 0) {
            return status;
        }
        if (status != PAGODA_OK) {
            break;
        }
        spent_ns += now_ns(calibration) - began_ns;
        calibration->written_bytes += WRITE_BYTES;
    }
    device->write_bytes_per_second = per_second(calibration->written_bytes, spent_ns);
    return PAGODA_OK;
}

/* ---- reading ---- */

static void begin(struct calibration *calibration, uint32_t ticket, uint64_t bytes)
{
    const uint64_t places = (calibration->written_bytes - bytes) / PGD_FLASH_ALIGN + 1;
    const uint64_t offset = next_random(calibration) % places * PGD_FLASH_ALIGN;
    pgd_flash_read(calibration->flash, ticket, offset, bytes, calibration->buffer + ticket * RUN_BYTES_MAX);
}

static void end(struct calibration *calibration, uint32_t ticket)
{
    calibration->failed = pgd_flash_wait(calibration->flash, ticket, 0) != PGD_FLASH_DONE || calibration->failed;
    pgd_flash_finish(calibration->flash, ticket);
}

/* Keeps `depth` reads in flight until the slice is over and all have come. Bytes per second. */
static double measure_reads(struct calibration *calibration, uint64_t bytes, uint32_t depth)
{
    const uint64_t began_ns = now_ns(calibration);
    uint64_t done_bytes = 0;
    for (uint32_t i = 0; i < depth; i++) {
        begin(calibration, i, bytes);
    }
    uint32_t in_flight = depth;
    for (uint32_t i = 0; in_flight > 0; i = (i + 1) % depth) {
        end(calibration, i);
        done_bytes += bytes;
        if (in_flight == depth && now_ns(calibration) - began_ns < READ_SLICE_NS) {
            begin(calibration, i, bytes);
        } else {
            in_flight--; /* they end in the order in which they began */
        }
    }
    return per_second(done_bytes, now_ns(calibration) - began_ns);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *) a;
    const uint32_t y = *(const uint32_t *) b;
    return (x > y) - (x < y);
}

static void measure_latency(struct calibration *calibration, struct pgd_device *device)
{
    const uint64_t began_ns = now_ns(calibration);
    uint64_t at_ns = began_ns;
    while (calibration->sample_count < SAMPLES_MAX && at_ns - began_ns < LATENCY_SLICE_NS) {
        begin(calibration, 0, PGD_FLASH_ALIGN);
        end(calibration, 0);
        const uint64_t after_ns = now_ns(calibration);
        calibration->samples_us[calibration->sample_count++] =
            (uint32_t) pgd_min_u64((after_ns - at_ns) / 1000, UINT32_MAX);
        at_ns = after_ns;
    }
    const uint32_t count = calibration->sample_count;
    qsort(calibration->samples_us, count, sizeof calibration->samples_us[0], by_size);
    device->latency_us = calibration->samples_us[count / 2];
    device->latency_p99_us = calibration->samples_us[count - 1 - count / 100];
}

/* Whether what is in flight at once comes within a few slices even at the best bandwidth so far. */
static bool is_affordable(double best_bytes_per_second, uint64_t bytes)
{
    return best_bytes_per_second <= 0 || (double) bytes * 1e9 / best_bytes_per_second <= 2.0 * (double) READ_SLICE_NS;
}

static void measure_bandwidths(struct calibration *calibration, struct pgd_device *device)
{
    double best = 0;
    for (uint32_t run = 0; run < PGD_CALIBRATE_RUNS; run++) {
        for (uint32_t i = 0; i < PGD_CALIBRATE_DEPTHS; i++) {
            const uint64_t bytes = pgd_calibrate_run_bytes(run);
            const uint32_t depth = pgd_calibrate_depth(i);
            if (bytes <= calibration->written_bytes && is_affordable(best, bytes * depth)) {
                const double speed = measure_reads(calibration, bytes, depth);
                device->read_bytes_per_second[run][i] = speed;
                best = speed > best ? speed : best;
            }
        }
    }
}

/* ---- the choice ---- */

void pgd_calibrate_choose(struct pgd_device *device)
{
    double best = 0;
    for (uint32_t i = 0; i < PGD_CALIBRATE_RUNS * PGD_CALIBRATE_DEPTHS; i++) {
        const double speed = device->read_bytes_per_second[i / PGD_CALIBRATE_DEPTHS][i % PGD_CALIBRATE_DEPTHS];
        best = speed > best ? speed : best;
    }
    for (uint32_t run = 0; run < PGD_CALIBRATE_RUNS; run++) {
        for (uint32_t i = 0; i < PGD_CALIBRATE_DEPTHS; i++) {
            if (device->read_bytes_per_second[run][i] >= ENOUGH * best) {
                device->run_bytes = pgd_calibrate_run_bytes(run);
                device->depth = pgd_calibrate_depth(i);
                return;
            }
        }
    }
}

/* ---- all of it ---- */

static enum pagoda_status measure(struct calibration *calibration, struct pgd_device *device,
                                  struct pagoda_error *error)
{
    const enum pagoda_status status = measure_writes(calibration, device, error);
    if (status != PAGODA_OK) {
        return status;
    }
    measure_latency(calibration, device);
    measure_bandwidths(calibration, device);
    if (calibration->failed) {
        return pgd_fail(error, PAGODA_IO, "The device does not give back what was written to it a moment ago.");
    }
    pgd_calibrate_choose(device);
    return PAGODA_OK;
}

static void describe(const struct calibration *calibration, struct pgd_device *device)
{
    struct pgd_flash_stats stats;
    pgd_flash_get_stats(calibration->flash, &stats);
    device->bytes_written = stats.bytes_written;
    device->direct = stats.direct;
    device->in_memory = stats.in_memory;
    device->backend = stats.backend;
}

enum pagoda_status pgd_calibrate(const struct pgd_flash_options *options, struct pgd_device *device,
                                 struct pagoda_error *error)
{
    struct pgd_flash_options wanted = *options;
    const struct pagoda_memory_source *const memory = &options->system->memory;
    wanted.bytes_max = WRITES_MAX * WRITE_BYTES;
    wanted.write_budget_bytes = 0;
    wanted.reads_max = PGD_CALIBRATE_DEPTH_MAX;
    struct calibration calibration = {.clock = options->system->clock, .random = UINT64_C(0x9E3779B97F4A7C15)};
    calibration.buffer = memory->reserve(memory->user, BUFFER_BYTES);
    if (calibration.buffer == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "No memory to measure a device with.");
    }
    struct pgd_device measured = {0};
    enum pagoda_status status = pgd_flash_open(&wanted, &calibration.flash, error);
    if (status == PAGODA_OK) {
        measured.free_bytes = pgd_flash_free_bytes(calibration.flash); /* before it is written to */
        status = measure(&calibration, &measured, error);
        describe(&calibration, &measured);
        pgd_flash_close(calibration.flash);
    }
    if (status == PAGODA_OK) {
        *device = measured;
    }
    memory->release(memory->user, calibration.buffer, BUFFER_BYTES);
    return status;
}
