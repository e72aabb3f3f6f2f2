/* cli/trace.h - the file of --trace: where memory and tokens are while a model runs.
 *
 * A line is written after a decode, at most 20 a second, and never less than tells every event: what happens between
 * two lines is in the later one. Writing never holds up or ends a run: a file that cannot be opened is refused before
 * anything starts; after that, what cannot be written is told once and given up, and a pipe whose reader is slow
 * misses lines. A file that is there already is overwritten only if it is a trace.
 *
 * All functions take NULL for a run without a trace. Ownership: a trace borrows the bridge it watches, which must stay
 * open until pgd_trace_close. Threads: the thread that owns the bridge.
 */
#ifndef PGD_CLI_TRACE_H
#define PGD_CLI_TRACE_H

#include "cli/exit.h"
#include "cli/load.h"
#include "cli/options.h"

struct pgd_trace;

/* Opens the file that the options name; *trace is NULL when they name none. What went wrong has been told. */
PGD_MUST_CHECK enum pgd_exit pgd_trace_open(const struct pgd_options *options, struct pgd_trace **trace);

/* Writes what the run is, and watches its bridge from here on. */
void pgd_trace_start(struct pgd_trace *trace, struct pgd_loaded *loaded);

/* Writes the last line and closes the file. */
void pgd_trace_close(struct pgd_trace *trace);

#endif
