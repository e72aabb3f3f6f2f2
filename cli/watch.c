/* cli/watch.c - see watch.h. A signal handler has nothing but globals to work with. */
#include "cli/watch.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/number.h"
#include "cli/size.h"

static _Atomic(struct pgd_pressure *) target;

static void handle(int signal_number)
{
    (void) signal_number;
    struct pgd_pressure *pressure = atomic_load(&target);
    if (pressure != NULL) {
        pgd_pressure_warn(pressure);
    }
}

void pgd_watch_install(void)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
}

void pgd_watch_start(struct pgd_watch *watch, const struct pgd_options *options, const struct pgd_terminal *terminal,
                     struct pgd_bridge *bridge)
{
    *watch = (struct pgd_watch) {
        .options = options,
        .terminal = terminal,
        .pressure = pgd_bridge_pressure(bridge),
    };
    atomic_store(&target, watch->pressure);
}

void pgd_watch_stop(void)
{
    atomic_store(&target, NULL);
}

void pgd_watch_tell(struct pgd_watch *watch)
{
    if (watch->pressure == NULL) {
        return;
    }
    const struct pgd_pressure_view *view = pgd_pressure_look(watch->pressure);
    const uint64_t kept = view->event_count - pgd_min_u64(view->event_count, PGD_PRESSURE_EVENTS_MAX);
    const uint64_t first = pgd_max_u64(watch->told, kept);
    for (uint64_t i = first; i < view->event_count; i++) {
        const struct pgd_pressure_event *event = &view->events[i % PGD_PRESSURE_EVENTS_MAX];
        if (watch->options->verbose) {
            pgd_say_note(watch->terminal, "[%.1f s] %s", (double) event->at_ms / 1000, event->words);
        } else if (i == first || i + 1 == view->event_count) {
            pgd_say_note(watch->terminal, "%s", event->words);
        }
    }
    watch->told = view->event_count;
}

int pgd_watch_idle(void *user)
{
    const struct pgd_watch *watch = user;
    if (watch->pressure == NULL) {
        return -1;
    }
    pgd_pressure_poll(watch->pressure);
    return (int) pgd_pressure_wait_ms(watch->pressure);
}

void pgd_watch_print(const struct pgd_watch *watch, const struct pagoda_memory *memory)
{
    if (watch->pressure == NULL) {
        return;
    }
    const struct pgd_pressure_view *view = pgd_pressure_look(watch->pressure);
    printf("memory: %s", pgd_governor_state_name(view->state));
    if (view->reading.known) {
        printf(", %s left", pgd_size_words(view->reading.available_bytes).text);
    }
    putchar('\n');
    if (view->reading.known && view->state != PGD_GOVERNOR_COMFORTABLE) {
        printf("  by %s\n", view->reading.source);
    }
    if (memory->budget_bytes < memory->opened_bytes) {
        printf("  KV budget %s of %s\n", pgd_size_words(memory->budget_bytes).text,
               pgd_size_words(memory->opened_bytes).text);
    }
    if (view->steps_down + view->steps_up > 0) {
        printf("  steps down %" PRIu64 ", steps up %" PRIu64 "\n", view->steps_down, view->steps_up);
    }
}

bool pgd_watch_refuses(struct pgd_watch *watch)
{
    if (watch->pressure == NULL) {
        return false;
    }
    pgd_pressure_poll(watch->pressure);
    if (!pgd_pressure_refuses(watch->pressure)) {
        return false;
    }
    pgd_watch_tell(watch);
    pgd_say_error("memory is so short that nothing new can be read now: close something else, and say it again");
    return true;
}
