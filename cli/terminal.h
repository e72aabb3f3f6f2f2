/* cli/terminal.h - what the streams can show, and words to the user.
 *
 * Data goes to standard output, talk to standard error. Nothing but plain text is written to what is not
 * a terminal; NO_COLOR and TERM=dumb are respected; glyphs beyond ASCII need a UTF-8 locale.
 *
 * Threads: the main thread.
 */
#ifndef PGD_CLI_TERMINAL_H
#define PGD_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

/* How many colours a stream shows. */
enum pgd_palette { PGD_PALETTE_NONE = 0, PGD_PALETTE_16, PGD_PALETTE_256, PGD_PALETTE_TRUE };

struct pgd_terminal {
    bool in_is_tty;
    bool out_is_tty;
    bool err_is_tty;
    bool dumb;    /* cannot move its cursor */
    bool unicode; /* may be sent more than ASCII drawings */
    enum pgd_palette out_palette;
    enum pgd_palette err_palette;
};

/* Opens the missing ones of the three standard streams, so that no file that is opened later becomes one of
 * them by accident; what is written to a standard output that was closed fails. Call first of all. */
void pgd_terminal_guard_streams(void);

/* Sets the locale for characters (numbers stay as in C) and looks at the streams. */
void pgd_terminal_open(const struct pgd_options *options, struct pgd_terminal *terminal);

/* Columns and rows of the terminal on standard output or error; 80 x 24 when it does not tell. */
uint32_t pgd_terminal_columns(void);
uint32_t pgd_terminal_rows(void);

/* Whether lines of text on standard output are broken between words. */
bool pgd_terminal_wraps(const struct pgd_terminal *terminal);

/* Writes text of a model or a file to standard output; what could steer the terminal is taken out when there
 * is one. false: it cannot be written. */
PGD_MUST_CHECK bool pgd_terminal_write(const struct pgd_terminal *terminal, const char *bytes, size_t count);

/* Flushes standard output. False when this or any earlier write failed; the reason is told, except for a
 * reader that went away, which is no error of ours. */
PGD_MUST_CHECK bool pgd_terminal_finish_output(void);

/* A line on standard error: "pagoda: error: ...", "pagoda: warning: ...", and a plain remark. */
void pgd_say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void pgd_say_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void pgd_say_note(const struct pgd_terminal *terminal, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Escape sequences, "" when the palette has none. */
const char *pgd_terminal_dim(enum pgd_palette palette);
const char *pgd_terminal_bold(enum pgd_palette palette);
const char *pgd_terminal_plain(enum pgd_palette palette);

#endif
