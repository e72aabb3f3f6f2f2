/* engine/pressure.h - the governor at work: reads, decides, moves the budget of one cache, and remembers what it did.
 *
 *     files of the system -> os/pressure.h -> governor/sensor.h -> governor/governor.h -> pagoda_cache_set_budget
 *
 * It is a poll and not a thread: pages can only go between batches, and that is where it is called, which costs a
 * clock, and a look at the kernel's triggers, until the next reading is due (every second, every 100 ms when pressure
 * is near). Whoever waits for something else calls it while waiting.
 *
 * Ownership: the cache is the caller's and must outlive it. Threads: the cache's owner; only warn may be called from
 * elsewhere, also from a signal handler.
 */
#ifndef PGD_ENGINE_PRESSURE_H
#define PGD_ENGINE_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "governor/governor.h"
#include "os/pressure.h"
#include "pagoda/pagoda.h"

#define PGD_PRESSURE_EVENTS_MAX 32u

struct pgd_pressure_options {
    const char *root;                         /* of the system's files; NULL: the real ones */
    const struct pgd_os_trigger_calls *calls; /* NULL: the real ones */
    const struct pagoda_system *system;       /* for its clock; NULL: the default */
};

struct pgd_pressure;

/* Errors: NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_pressure_open(struct pagoda_cache *cache,
                                                       const struct pgd_pressure_options *options,
                                                       struct pgd_pressure **pressure, struct pagoda_error *error);
void pgd_pressure_close(struct pgd_pressure *pressure);

/* Between batches: reads if a reading is due, and does what the governor says. */
void pgd_pressure_poll(struct pgd_pressure *pressure);

/* The host knows that memory is short: the next poll gives a part of what can leave back. Async-signal-safe. */
void pgd_pressure_warn(struct pgd_pressure *pressure);

/* Whether new work should be turned away: memory is critical, and everything that can leave has left. */
bool pgd_pressure_refuses(const struct pgd_pressure *pressure);

/* Milliseconds until the next reading is due. */
uint32_t pgd_pressure_wait_ms(const struct pgd_pressure *pressure);

/* What it did: a sentence for each change, the latest PGD_PRESSURE_EVENTS_MAX of them. */
struct pgd_pressure_event {
    uint64_t at_ms; /* since it was opened */
    char words[PGD_GOVERNOR_WORDS_BYTES];
};
struct pgd_pressure_view {
    enum pgd_governor_state state;
    struct pgd_reading reading; /* the latest */
    uint64_t readings;
    uint64_t steps_down;
    uint64_t steps_up;
    uint64_t least_budget_bytes;
    uint64_t slowest_us;  /* from the start of a reading until the memory was given back */
    uint64_t event_count; /* ever; event i is events[i % PGD_PRESSURE_EVENTS_MAX] */
    struct pgd_pressure_event events[PGD_PRESSURE_EVENTS_MAX];
};
const struct pgd_pressure_view *pgd_pressure_look(const struct pgd_pressure *pressure);

#endif
