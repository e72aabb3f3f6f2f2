/* cli/watch.h - what the governor does, for people: a signal that warns it, its sentences, its state.
 *
 * SIGUSR1 is the host's warning that memory is short. Threads: the main thread; the handler only stores.
 */
#ifndef PGD_CLI_WATCH_H
#define PGD_CLI_WATCH_H

#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/bridge.h"
#include "engine/pressure.h"

struct pgd_watch {
    const struct pgd_options *options;
    const struct pgd_terminal *terminal;
    struct pgd_pressure *pressure; /* NULL: not governed, and everything here does nothing */
    uint64_t told;                 /* events told so far */
};

/* Until SIGUSR1 is caught, it is ignored: a warning that comes too early must not end the program. */
void pgd_watch_install(void);

void pgd_watch_start(struct pgd_watch *watch, const struct pgd_options *options, const struct pgd_terminal *terminal,
                     struct pgd_bridge *bridge);
void pgd_watch_stop(void);

/* Between replies: tells what happened since the last time; with -v every sentence, else the first and the latest. */
void pgd_watch_tell(struct pgd_watch *watch);

/* While waiting for something else; returns after how many milliseconds to call again, or -1 for never. */
int pgd_watch_idle(void *watch);

/* On standard output, short lines: state, what is left, where the budget is. */
void pgd_watch_print(const struct pgd_watch *watch, const struct pagoda_memory *memory);

/* True, and told, when memory is so short that a new turn must not begin. */
bool pgd_watch_refuses(struct pgd_watch *watch);

#endif
