/* engine/pressure.c - see pressure.h. */
#include "engine/pressure.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/number.h"
#include "base/status.h"
#include "base/system.h"
#include "cache/cache.h"
#include "os/os.h"

struct pgd_pressure {
    struct pagoda_cache *cache;
    struct pgd_system system;
    struct pgd_os_pressure source;
    struct pgd_sensor sensor;
    struct pgd_governor governor;
    struct pgd_pressure_view view;
    uint64_t opened_ns;
    uint64_t next_us;
    bool refuses;
    bool has_read;   /* inside a batch; the next poll acts on it */
    bool can_give;   /* something was left above the floor when it was last looked at */
    double token_us; /* of a batch, lately; 0: not known yet */
    atomic_bool warned;
};

static uint64_t microseconds(const struct pgd_pressure *pressure)
{
    const struct pagoda_clock *clock = &pressure->system.clock;
    return (clock->now_ns(clock->user) - pressure->opened_ns) / 1000 + 1; /* 0 would be no time at all */
}

enum pagoda_status pgd_pressure_open(struct pagoda_cache *cache, const struct pgd_pressure_options *options,
                                     struct pgd_pressure **out, struct pagoda_error *error)
{
    struct pgd_pressure *pressure = calloc(1, sizeof(*pressure));
    if (pressure == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory to watch the memory");
    }
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    pressure->cache = cache;
    pressure->view.least_budget_bytes = memory.budget_bytes;
    pgd_os_system(options->system, &pressure->system);
    pressure->opened_ns = pressure->system.clock.now_ns(pressure->system.clock.user);
    pgd_os_pressure_open(&pressure->source, options->root != NULL ? options->root : "", options->calls);
    pgd_sensor_init(&pressure->sensor);
    pgd_governor_init(&pressure->governor);
    *out = pressure;
    return PAGODA_OK;
}

void pgd_pressure_close(struct pgd_pressure *pressure)
{
    if (pressure != NULL) {
        pgd_os_pressure_close(&pressure->source);
        free(pressure);
    }
}

/* ---- reading ---- */

static void read_values(struct pgd_pressure *pressure, struct pgd_os_pressure_values *read,
                        struct pgd_sensor_values *values)
{
    const bool alarm = values->alarm; /* a trigger tells once, and reading may have to be done twice */
    pgd_os_pressure_read(&pressure->source, read);
    *values = (struct pgd_sensor_values) {
        .machine_bytes = read->total_bytes != 0 ? read->easy_bytes : UINT64_MAX,
        .machine_limit_bytes = read->total_bytes,
        .group_bytes = read->group.easy_bytes,
        .group_limit_bytes = read->group.easy_limit_bytes,
        .group_name = read->group.name,
        .alarm = alarm || read->alarm,
    };
    for (uint32_t i = 0; i < PGD_SENSOR_STALLS; i++) {
        values->stalls[i].known = read->stalls[i].known;
        values->stalls[i].total_us = read->stalls[i].total_us;
        values->stalls[i].share = read->stalls[i].share;
    }
}
_Static_assert(PGD_SENSOR_STALLS == PGD_STALL_SOURCES, "every source of stalls is looked at");

static void take_reading(struct pgd_pressure *pressure, bool alarm)
{
    struct pgd_os_pressure_values read;
    struct pgd_sensor_values values = {.alarm = alarm};
    read_values(pressure, &read, &values);
    if (!pgd_sensor_take(&pressure->sensor, microseconds(pressure), &values, &pressure->view.reading)) {
        read_values(pressure, &read, &values);
        const bool believed =
            pgd_sensor_take(&pressure->sensor, microseconds(pressure), &values, &pressure->view.reading);
        PGD_ASSERT(believed);
    }
    pressure->view.readings++;
}

/* ---- doing ---- */

static struct pgd_pressure_event *new_event(struct pgd_pressure *pressure)
{
    struct pgd_pressure_event *event = &pressure->view.events[pressure->view.event_count % PGD_PRESSURE_EVENTS_MAX];
    pressure->view.event_count++;
    event->at_ms = microseconds(pressure) / 1000;
    return event;
}

static bool has_action(const struct pgd_governor_decision *decision, enum pgd_governor_action action)
{
    for (uint32_t i = 0; i < decision->action_count; i++) {
        if (decision->actions[i] == action) {
            return true;
        }
    }
    return false;
}

/* Slice by slice: what has been made free is the system's while the next is made free. */
static enum pagoda_status lower(struct pgd_pressure *pressure, const struct pgd_governor_decision *decision,
                                const struct pagoda_memory *before, struct pagoda_error *error)
{
    const bool loses_text =
        decision->state == PGD_GOVERNOR_CRITICAL && pressure->cache->on_full == PAGODA_ON_FULL_EVICT;
    uint64_t bytes = pgd_min_u64(before->used_bytes, before->budget_bytes);
    enum pagoda_status status = PAGODA_OK;
    do {
        const uint64_t slice = bytes - pgd_min_u64(bytes, PGD_PRESSURE_SLICE_BYTES);
        bytes = pgd_max_u64(slice, decision->budget_bytes);
        status = loses_text ? pagoda_cache_set_budget(pressure->cache, bytes, error)
                            : pgd_cache_lower_budget(pressure->cache, bytes, error);
    } while (status == PAGODA_OK && bytes > decision->budget_bytes);
    return status;
}

static void obey(struct pgd_pressure *pressure, const struct pgd_governor_decision *decision,
                 const struct pagoda_memory *before, uint64_t start_us)
{
    struct pagoda_error error;
    struct pgd_pressure_view *view = &pressure->view;
    if (decision->words[0] != '\0') {
        snprintf(new_event(pressure)->words, PGD_GOVERNOR_WORDS_BYTES, "%s", decision->words);
    }
    if (decision->budget_bytes == before->budget_bytes) {
        return;
    }
    const enum pagoda_status status = decision->budget_bytes < before->budget_bytes
                                          ? lower(pressure, decision, before, &error)
                                          : pagoda_cache_set_budget(pressure->cache, decision->budget_bytes, &error);
    struct pagoda_memory after;
    pagoda_cache_memory(pressure->cache, &after);
    if (status != PAGODA_OK || after.budget_bytes > decision->budget_bytes) {
        snprintf(new_event(pressure)->words, PGD_GOVERNOR_WORDS_BYTES, "the KV budget stays at %.1f MiB: %.220s",
                 (double) after.budget_bytes / 1048576.0,
                 status != PAGODA_OK ? error.message : "no more could be made free without losing text");
    }
    view->steps_down += after.budget_bytes < before->budget_bytes ? 1 : 0;
    view->steps_up += after.budget_bytes > before->budget_bytes ? 1 : 0;
    view->least_budget_bytes = pgd_min_u64(view->least_budget_bytes, after.budget_bytes);
    view->slowest_us = pgd_max_u64(view->slowest_us, microseconds(pressure) - start_us);
}

static uint64_t memory_used(const struct pgd_pressure *pressure)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pressure->cache, &memory);
    return memory.used_bytes;
}

void pgd_pressure_poll(struct pgd_pressure *pressure)
{
    const uint64_t start_us = microseconds(pressure);
    const bool alarm = pgd_os_pressure_rang(&pressure->source);
    const bool warned = atomic_exchange(&pressure->warned, false);
    if (!alarm && !warned && !pressure->has_read && start_us < pressure->next_us) {
        return;
    }
    if (alarm || !pressure->has_read) {
        take_reading(pressure, alarm);
    }
    pressure->has_read = false;
    struct pagoda_memory memory;
    pagoda_cache_memory(pressure->cache, &memory);
    uint64_t resident = 0;
    uint64_t peak = 0;
    pgd_os_process_memory(&resident, &peak);
    const struct pgd_governor_input input = {
        .now_ms = start_us / 1000,
        .reading = pressure->view.reading,
        .warning = warned ? PGD_WARNING_LOW : PGD_WARNING_NONE,
        .budget_bytes = memory.budget_bytes,
        .used_bytes = memory.used_bytes,
        .own_bytes = resident,
        .floor_bytes = pagoda_cache_budget_floor(pressure->cache),
        .text_floor_bytes = pgd_cache_text_floor(pressure->cache),
        .ceiling_bytes = memory.opened_bytes,
        .may_spill = pressure->cache->on_full == PAGODA_ON_FULL_SPILL,
        .may_let_go = pressure->cache->on_full == PAGODA_ON_FULL_EVICT, /* spill makes room, and drops for nobody */
    };
    struct pgd_governor_decision decision;
    pgd_governor_step(&pressure->governor, &input, &decision);
    pressure->view.state = decision.state;
    pressure->refuses = has_action(&decision, PGD_ACTION_REFUSE);
    pressure->next_us = start_us + (uint64_t) decision.next_ms * 1000;
    pressure->view.mark_bytes = decision.mark_bytes;
    obey(pressure, &decision, &memory, start_us);
    pressure->can_give = memory_used(pressure) > (input.may_let_go ? input.floor_bytes : input.text_floor_bytes);
}

/* ---- inside a batch ---- */

bool pgd_pressure_interrupts(struct pgd_pressure *pressure)
{
    const uint64_t now_us = microseconds(pressure);
    if (pressure->has_read || !pressure->can_give || now_us < pressure->next_us) {
        return false;
    }
    take_reading(pressure, false);
    pressure->next_us = now_us + PGD_GOVERNOR_NEAR_MS * 1000;
    const struct pgd_reading *reading = &pressure->view.reading;
    pressure->has_read = reading->known && reading->available_bytes < pressure->view.mark_bytes;
    pressure->view.interrupted += pressure->has_read ? 1 : 0;
    return pressure->has_read;
}

void pgd_pressure_note_batch(struct pgd_pressure *pressure, uint32_t tokens, double seconds)
{
    if (tokens >= PGD_PRESSURE_STEP_TOKENS) {
        pressure->token_us = seconds * 1e6 / tokens;
    }
}

bool pgd_pressure_is_long(const struct pgd_pressure *pressure, uint32_t tokens)
{
    return tokens > PGD_PRESSURE_STEP_TOKENS && pressure->token_us * tokens > PGD_PRESSURE_BATCH_MS * 1e3;
}

uint32_t pgd_pressure_batch(const struct pgd_pressure *pressure)
{
    const bool is_short = pressure->has_read || pressure->view.state != PGD_GOVERNOR_COMFORTABLE;
    if (!is_short || pressure->token_us <= 0) {
        return UINT32_MAX;
    }
    const double tokens = PGD_PRESSURE_BATCH_MS * 1e3 / pressure->token_us;
    const uint64_t steps = tokens < UINT32_MAX ? (uint64_t) tokens / PGD_PRESSURE_STEP_TOKENS : UINT32_MAX;
    return (uint32_t) pgd_min_u64(pgd_max_u64(steps, 1) * PGD_PRESSURE_STEP_TOKENS, UINT32_MAX);
}

/* ---- for others ---- */

void pgd_pressure_warn(struct pgd_pressure *pressure)
{
    atomic_store(&pressure->warned, true);
}

bool pgd_pressure_refuses(const struct pgd_pressure *pressure)
{
    return pressure->refuses;
}

uint32_t pgd_pressure_wait_ms(const struct pgd_pressure *pressure)
{
    const uint64_t now_us = microseconds(pressure);
    return now_us >= pressure->next_us ? 0 : (uint32_t) ((pressure->next_us - now_us) / 1000 + 1);
}

const struct pgd_pressure_view *pgd_pressure_look(const struct pgd_pressure *pressure)
{
    return &pressure->view;
}
