/* engine/pressure.h - the governor at work: reads, decides, moves the budget of one cache, and remembers what it did.
 *
 *     files of the system -> os/pressure.h -> governor/sensor.h -> governor/governor.h -> pagoda_cache_set_budget
 *
 * It is a poll and not a thread: pages can only go between batches, and that is where it is called, which costs a
 * clock, and a look at the kernel's triggers, until the next reading is due (every 250 ms, every 100 ms when pressure
 * is near). Whoever waits for something else calls it while waiting.
 *
 * Memory is given back within half a second of the moment when less than a mark was available:
 *   250 ms  at most until the next reading is due
 *   100 ms  until somebody comes to take it: a batch that is expected to take longer asks pgd_pressure_interrupts while
 *           it is computed, and is given up and read again in pieces (pgd_pressure_batch) when it says so
 *   150 ms  to make pages smaller; in slices, so that the first of it is back much earlier
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
#define PGD_PRESSURE_BATCH_MS 100u
#define PGD_PRESSURE_STEP_TOKENS 16u
#define PGD_PRESSURE_SLICE_BYTES ((uint64_t) 16 << 20) /* given back at once, before more is made free */

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

/* Inside a batch that takes long: takes a reading if one is due, and does nothing else. True when memory must be given
 * back now, and something can be: the batch should be given up, and the next poll acts on that reading. */
bool pgd_pressure_interrupts(struct pgd_pressure *pressure);

/* How many tokens a batch should have at most: PGD_BRIDGE_BATCH or more when nothing presses; else, what takes
 * PGD_PRESSURE_BATCH_MS at the speed of the batches noted, in whole steps of PGD_PRESSURE_STEP_TOKENS. */
uint32_t pgd_pressure_batch(const struct pgd_pressure *pressure);

/* A batch of so many tokens took so long. */
void pgd_pressure_note_batch(struct pgd_pressure *pressure, uint32_t tokens, double seconds);

/* Whether a batch of so many tokens is expected to take longer than PGD_PRESSURE_BATCH_MS. */
bool pgd_pressure_is_long(const struct pgd_pressure *pressure, uint32_t tokens);

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
    uint64_t mark_bytes;        /* as the governor took it last */
    uint64_t readings;
    uint64_t steps_down;
    uint64_t steps_up;
    uint64_t least_budget_bytes;
    uint64_t interrupted; /* batches */
    uint64_t slowest_us;  /* from the start of a reading until the memory was given back */
    uint64_t event_count; /* ever; event i is events[i % PGD_PRESSURE_EVENTS_MAX] */
    struct pgd_pressure_event events[PGD_PRESSURE_EVENTS_MAX];
};
const struct pgd_pressure_view *pgd_pressure_look(const struct pgd_pressure *pressure);

#endif
