/* cli/interrupt.h - Ctrl-C.
 *
 *   ignored by nobody: the program ends at once, with 130     until pgd_interrupt_catch
 *   caught:            a flag is raised, the bridge is told   until pgd_interrupt_release
 *
 * A third Ctrl-C that nobody has answered ends the program even while caught.
 *
 * Threads: the main thread; the handler itself only stores, and calls pgd_bridge_cancel.
 */
#ifndef PGD_CLI_INTERRUPT_H
#define PGD_CLI_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

#include "engine/bridge.h"

/* Installs the handler, and makes writing to a closed pipe an ordinary error. */
void pgd_interrupt_install(void);

/* From now on Ctrl-C raises the flag, and cancels the decode of `bridge` (may be NULL). The flag is down. */
void pgd_interrupt_catch(struct pgd_bridge *bridge);
void pgd_interrupt_release(void);

/* Another bridge is at work: its decode is cancelled from now on. The flag is as it was. */
void pgd_interrupt_aim(struct pgd_bridge *bridge);

bool pgd_interrupt_raised(void);
void pgd_interrupt_lower(void);

/* The flag itself, for the engine to look at. */
const volatile sig_atomic_t *pgd_interrupt_flag(void);

#endif
