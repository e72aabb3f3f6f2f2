/* cli/interrupt.c - see interrupt.h. A signal handler has nothing but globals to work with; these are they. */
#include "cli/interrupt.h"

#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "cli/exit.h"

#define PRESSES_MAX 3

static volatile sig_atomic_t presses;
static volatile sig_atomic_t caught;
static _Atomic(struct pgd_bridge *) target;

static void handle(int signal_number)
{
    (void) signal_number;
    if (!caught || presses + 1 >= PRESSES_MAX) {
        _exit(PGD_EXIT_INTERRUPTED);
    }
    presses = presses + 1;
    struct pgd_bridge *bridge = atomic_load(&target);
    if (bridge != NULL) {
        pgd_bridge_cancel(bridge);
    }
}

void pgd_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = handle}; /* not SA_RESTART: reading a line must wake up */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a limit on the size of files is an error of a write, not the end */
}

void pgd_interrupt_aim(struct pgd_bridge *bridge)
{
    atomic_store(&target, bridge);
}

void pgd_interrupt_catch(struct pgd_bridge *bridge)
{
    atomic_store(&target, bridge);
    presses = 0;
    caught = 1;
}

void pgd_interrupt_release(void)
{
    caught = 0;
    atomic_store(&target, NULL);
    presses = 0;
}

bool pgd_interrupt_raised(void)
{
    return presses != 0;
}

void pgd_interrupt_lower(void)
{
    presses = 0;
}

const volatile sig_atomic_t *pgd_interrupt_flag(void)
{
    return &presses;
}
