/* governor/sensor.c - see sensor.h for S1-S4. */
#include "governor/sensor.h"

#include <string.h>

#include "base/number.h"

#define STALL_SPAN_MIN_US 20000u /* between two readings that are closer, a share would be noise */

void pgd_sensor_init(struct pgd_sensor *sensor)
{
    memset(sensor, 0, sizeof *sensor);
}

static void copy_name(struct pgd_reading *reading, const char *name)
{
    size_t length = 0;
    while (length + 1 < sizeof reading->source && name[length] != '\0') {
        reading->source[length] = name[length];
        length++;
    }
    reading->source[length] = '\0';
}

/* S1. */
static void offer(struct pgd_reading *reading, uint64_t bytes, uint64_t limit, const char *name)
{
    if (limit == 0 || limit == UINT64_MAX || bytes == UINT64_MAX) {
        return;
    }
    bytes = pgd_min_u64(bytes, limit);
    if (!reading->known || bytes < reading->available_bytes) {
        reading->known = true;
        reading->available_bytes = bytes;
        reading->limit_bytes = limit;
        copy_name(reading, name);
    }
}

/* S3. */
static bool is_doubtful(const struct pgd_sensor *sensor, const struct pgd_reading *reading)
{
    return sensor->has_last && !sensor->doubts && reading->known && reading->available_bytes < sensor->last_bytes &&
           sensor->last_bytes - reading->available_bytes > reading->limit_bytes / 4;
}

/* S4. The share of one source, and the new state of what is remembered of it. */
static double measure_stall(struct pgd_sensor *sensor, uint32_t index, uint64_t span_us,
                            const struct pgd_sensor_values *values)
{
    const bool before = sensor->stalls[index].known;
    const uint64_t total_us = values->stalls[index].total_us;
    const uint64_t last_us = sensor->stalls[index].total_us;
    double share = values->stalls[index].share;
    if (!values->stalls[index].known) {
        sensor->stalls[index].known = false;
        return 0;
    }
    if (before && total_us >= last_us && span_us > 0) {
        share = (double) (total_us - last_us) / (double) span_us;
    }
    sensor->stalls[index].known = true;
    sensor->stalls[index].total_us = total_us;
    sensor->stalls[index].share = share > 1 ? 1 : share >= 0 ? share : 0;
    return sensor->stalls[index].share;
}

static double measure_stalls(struct pgd_sensor *sensor, uint64_t now_us, const struct pgd_sensor_values *values)
{
    double worst = 0;
    const uint64_t span_us = sensor->last_us != 0 && now_us > sensor->last_us ? now_us - sensor->last_us : 0;
    const bool is_too_soon = sensor->last_us != 0 && span_us < STALL_SPAN_MIN_US;
    for (uint32_t i = 0; i < PGD_SENSOR_STALLS; i++) {
        const double share = is_too_soon ? sensor->stalls[i].share : measure_stall(sensor, i, span_us, values);
        worst = share > worst ? share : worst;
    }
    if (!is_too_soon) {
        sensor->last_us = now_us;
    }
    return worst;
}

bool pgd_sensor_take(struct pgd_sensor *sensor, uint64_t now_us, const struct pgd_sensor_values *values,
                     struct pgd_reading *reading)
{
    struct pgd_reading taken = {.alarm = values->alarm};
    offer(&taken, values->machine_bytes, values->machine_limit_bytes, "MemAvailable");
    offer(&taken, values->group_bytes, values->group_limit_bytes, values->group_name);
    if (is_doubtful(sensor, &taken)) {
        sensor->doubts = true;
        return false;
    }
    sensor->doubts = false;
    sensor->has_last = taken.known;
    sensor->last_bytes = taken.available_bytes;
    taken.stall_share = measure_stalls(sensor, now_us, values);
    PGD_ASSERT(!taken.known || (taken.available_bytes <= taken.limit_bytes && taken.limit_bytes > 0));
    *reading = taken;
    return true;
}
