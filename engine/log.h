/* engine/log.h - libllama's log lines, caught so that none reaches the terminal.
 *
 * libllama has one log callback for the whole process, so this is the one global of the engine: a host that
 * installs a callback of its own after us takes the lines away, and messages then lack their reasons. Lines are
 * kept in a small buffer; the first or last error may go into a message for the user, and buffer sizes, which the
 * public API does not tell, are read from the lines that announce them.
 *
 * Threads: lines may come from any thread; all functions lock.
 */
#ifndef PGD_ENGINE_LOG_H
#define PGD_ENGINE_LOG_H

#include <stddef.h>
#include <stdint.h>

/* Installs the callback, once for the process; further calls do nothing. */
void pgd_log_install(void);

/* Forgets all lines: call before the operation whose lines matter. */
void pgd_log_reset(void);

/* Copies the last error line since the reset (or the last warning, or "no reason given") into `text`, without its
 * newline. */
void pgd_log_last_error(char *text, size_t bytes);

/* Copies the first error line since the reset into `text`, without the name of the function that wrote it: where
 * one error leads to others, the first tells why. As above when there is none. */
void pgd_log_first_error(char *text, size_t bytes);

/* Sum in bytes of the sizes that lines since the reset announce as "<what> = <number> MiB". */
uint64_t pgd_log_sum_mib(const char *what);

#endif
