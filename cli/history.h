/* cli/history.h - the lines typed before, in $XDG_STATE_HOME/pagoda/history.
 *
 * The file holds private text: mode 0600, in a directory of mode 0700. A home that cannot be written costs
 * the history and nothing else.
 *
 * Threads: the main thread.
 */
#ifndef PGD_CLI_HISTORY_H
#define PGD_CLI_HISTORY_H

#include <histedit.h>

#include "base/check.h"

#define PGD_HISTORY_LINES_MAX 1000

struct pgd_history;

/* Opens the history and reads the file, if there is one. NULL: no memory. */
struct pgd_history *pgd_history_open(void);
void pgd_history_close(struct pgd_history *past);

/* Adds a message and writes the file. */
void pgd_history_add(struct pgd_history *past, const char *text);

/* For the line editor. */
History *pgd_history_lines(struct pgd_history *past);

#endif
