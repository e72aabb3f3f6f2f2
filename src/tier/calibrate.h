/* tier/calibrate.h - a short measurement of the device behind a directory, as the flash tier would use it.
 *
 * What it costs: about a second, up to 32 MiB written to a file that is gone afterwards, and as much memory as
 * PGD_CALIBRATE_DEPTH_MAX of the longest reads. What it cannot know: caches of the device itself, or of a host below a
 * virtual machine, which make reads of what was just written look fast.
 */
#ifndef PGD_TIER_CALIBRATE_H
#define PGD_TIER_CALIBRATE_H

#include <stdbool.h>
#include <stdint.h>

#include "tier/flash.h"

#define PGD_CALIBRATE_RUNS 5u   /* 4K, 16K, 64K, 256K, 1M: each four times the one before */
#define PGD_CALIBRATE_DEPTHS 2u /* 1 and PGD_CALIBRATE_DEPTH_MAX reads in flight */
#define PGD_CALIBRATE_DEPTH_MAX 8u

struct pgd_device {
    double latency_us;     /* of one read of 4 KiB, the median */
    double latency_p99_us; /* the 99th percentile */
    double write_bytes_per_second;
    double read_bytes_per_second[PGD_CALIBRATE_RUNS][PGD_CALIBRATE_DEPTHS]; /* 0: too slow to be measured */
    uint64_t run_bytes;     /* what to read at once: the shortest run with 80 % of the best bandwidth */
    uint32_t depth;         /* and how many of them in flight: 1 if that is enough */
    uint64_t bytes_written; /* by this measurement */
    uint64_t free_bytes;    /* of the file system */
    bool direct;            /* as in struct pgd_flash_stats */
    bool in_memory;
    const char *backend;
};

/* Bytes of run number i, and reads in flight of depth number i. */
uint64_t pgd_calibrate_run_bytes(uint32_t i);
uint32_t pgd_calibrate_depth(uint32_t i);

/* Measures. Of the options, directory, reserve_bytes, backend, throttle_bytes_per_second, system and vfs count. Errors:
 * those of pgd_flash_open and pgd_flash_write (without room for a single MiB), NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_calibrate(const struct pgd_flash_options *options, struct pgd_device *device,
                                                struct pagoda_error *error);

/* Fills in run_bytes and depth from the bandwidths. */
void pgd_calibrate_choose(struct pgd_device *device);

#endif
