/* cli/lines.h - the user's messages, from an editable line on a terminal or from any other input.
 *
 * On a terminal: libedit with history and completion of commands. A message may have several lines: a backslash
 * at the end of a line goes on with the next one, and so does everything between two """.
 *
 * Ownership: a message lives until the next read. Threads: the main thread.
 */
#ifndef PGD_CLI_LINES_H
#define PGD_CLI_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/terminal.h"

enum pgd_lines_result {
    PGD_LINES_MESSAGE,
    PGD_LINES_END,         /* Ctrl-D, end of the file */
    PGD_LINES_INTERRUPTED, /* Ctrl-C: what was typed is forgotten */
    PGD_LINES_FAILED       /* cannot be read; told */
};

struct pgd_lines;

/* `commands`: words that Tab completes at the start of a line, NULL at the end. NULL: no memory. */
struct pgd_lines *pgd_lines_open(const struct pgd_terminal *terminal, const char *const *commands);
void pgd_lines_close(struct pgd_lines *lines);

/* While a line is being typed, `call` is called every so often: it says after how many milliseconds it wants to be
 * called again (-1: never). Only on a terminal with an editor. */
void pgd_lines_while_waiting(struct pgd_lines *lines, int (*call)(void *user), void *user);

/* Whether somebody sits at the other end: prompts are shown, and Ctrl-C is for editing. */
bool pgd_lines_is_interactive(const struct pgd_lines *lines);

/* The next message, without its newline; it may hold any byte but has a terminator. */
PGD_MUST_CHECK enum pgd_lines_result pgd_lines_read(struct pgd_lines *lines, const char **text, size_t *count);

#endif
