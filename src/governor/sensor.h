/* governor/sensor.h - from many numbers to one: how much more may be taken before it hurts.
 *
 * Pure: numbers in, numbers out. Whoever reads the files (engine/pressure.c, from os/pressure.h) hands them over; tests
 * hand over what they like.
 *
 * Rules
 *   S1  The smallest headroom wins: of the machine, of the groups, of what the host says.
 *   S2  Nothing known is `known` false, never a guess.
 *   S3  A fall by more than a quarter of the limit between two readings is believed when the next reading says so too;
 *       the caller is asked to read again at once. So a single absurd value does nothing, and a real fall is late by
 *       one reading of microseconds.
 *   S4  Stalls are measured from the kernel's running totals, between two readings; totals that run backwards, and
 *       the first reading, fall back to the kernel's own average over 10 seconds.
 * Ownership: plain values. Threads: pure.
 */
#ifndef PGD_GOVERNOR_SENSOR_H
#define PGD_GOVERNOR_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

#define PGD_SENSOR_STALLS 2u
#define PGD_SENSOR_NAME_BYTES 96u

/* What was read. Bytes of UINT64_MAX, or a limit of 0: unknown. */
struct pgd_sensor_values {
    uint64_t machine_bytes; /* headroom of the machine ... */
    uint64_t machine_limit_bytes;
    uint64_t group_bytes; /* ... and of the tightest group */
    uint64_t group_limit_bytes;
    const char *group_name;
    struct {
        bool known;
        uint64_t total_us;
        double share; /* of the latest 10 s */
    } stalls[PGD_SENSOR_STALLS];
    bool alarm;
};

/* What it means. */
struct pgd_reading {
    bool known;
    bool alarm;                         /* the kernel's trigger went off */
    uint64_t available_bytes;           /* how much more this process may take before it hurts */
    uint64_t limit_bytes;               /* of the source that said so; > 0 when known */
    double stall_share;                 /* of the time since the last reading that somebody waited for memory, 0 .. 1 */
    char source[PGD_SENSOR_NAME_BYTES]; /* who said so, for people */
};

struct pgd_sensor {
    bool has_last;
    bool doubts; /* the last values were too strange to believe at once */
    uint64_t last_bytes;
    uint64_t last_us;
    struct {
        bool known;
        uint64_t total_us;
        double share; /* as last measured */
    } stalls[PGD_SENSOR_STALLS];
};

void pgd_sensor_init(struct pgd_sensor *sensor);

/* Takes values that were read at now_us. False: too strange to believe at first sight; read again at once and call
 * again (then it is believed). The reading is only written on true. */
PGD_MUST_CHECK bool pgd_sensor_take(struct pgd_sensor *sensor, uint64_t now_us, const struct pgd_sensor_values *values,
                                    struct pgd_reading *reading);

#endif
