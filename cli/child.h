/* cli/child.h - another program: run it to its end, and keep what it says.
 *
 * It gets nothing to read. Ctrl-C ends it and the wait for it. Threads: the main thread.
 */
#ifndef PGD_CLI_CHILD_H
#define PGD_CLI_CHILD_H

#include "cli/buffer.h"

#define PGD_CHILD_OUT_MAX ((size_t) 4 << 20) /* more on standard output is an error */
#define PGD_CHILD_ERR_MAX ((size_t) 1 << 16) /* more on standard error is dropped */

/* Runs the program at path argv[0]; `out` and `err` are given what it writes. OK: it ended with code 0. Errors, with a
 * message that quotes its last line on standard error: IO (it cannot be run, failed, or was killed), LIMIT (it wrote
 * too much), NOMEM, CANCELLED (Ctrl-C). */
PGD_MUST_CHECK enum pagoda_status pgd_child_run(char *const argv[], struct pgd_buffer *out, struct pgd_buffer *err,
                                                struct pagoda_error *error);

#endif
