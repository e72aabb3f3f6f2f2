/* cli/progress.h - one line on standard error that says how far a long wait is, and is gone when it is over.
 *
 * Shown only on a terminal that can move its cursor, only after a moment, at most ten times a second.
 *
 * Threads: the main thread.
 */
#ifndef PGD_CLI_PROGRESS_H
#define PGD_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/terminal.h"

struct pgd_progress {
    const struct pgd_terminal *terminal;
    bool wanted;
    bool shown;
    double start_seconds;
    double drawn_seconds;
};

/* `quiet`: never show anything. */
void pgd_progress_start(struct pgd_progress *progress, const struct pgd_terminal *terminal, bool quiet);

/* Tokens read so far, for struct pgd_feed_options; `user` is the progress. */
void pgd_progress_tokens(void *user, uint64_t done, uint64_t count);

/* How much of the model is there, 0 to 1, for struct pgd_model_options. Always true. */
bool pgd_progress_loading(void *user, float fraction);

/* How much of a longer piece of work is done, 0 to 1, and what is being done. */
void pgd_progress_work(struct pgd_progress *progress, const char *what, double fraction, const char *doing);

/* Erases the line. */
void pgd_progress_end(struct pgd_progress *progress);

#endif
