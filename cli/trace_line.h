/* cli/trace_line.h - one moment of a run, as numbers and as a line of a trace; and what happened between two of them.
 *
 * A trace is a text file of JSON objects, one a line (docs/trace.md). The first describes the run; the others are of
 * this form. Counts that this version does not know are ignored when reading, those that it knows must be there.
 *
 * Pure; any thread.
 */
#ifndef PGD_CLI_TRACE_LINE_H
#define PGD_CLI_TRACE_LINE_H

#include <jansson.h>
#include <stdint.h>

#include "base/check.h"
#include "cli/buffer.h"
#include "pagoda/pagoda.h"

#define PGD_TRACE_VERSION 1

struct pgd_trace_line {
    double seconds;           /* since the run started */
    uint64_t batch_tokens;    /* read or written since the line before */
    double tokens_per_second; /* of these, while the model worked on them */
    uint64_t rss_bytes;       /* of the process; 0: unknown */
    uint64_t available_bytes; /* to the process; 0: unknown */
    struct pagoda_memory memory;
    struct pagoda_account account;
};

/* What a line tells of a page category, "kv_exact" and so on, is named so. */
#define PGD_TRACE_NAME_BYTES 32u
void pgd_trace_category_name(enum pagoda_memory_category category, char name[PGD_TRACE_NAME_BYTES]);

/* What became of the pages between two lines, in words: an array of objects with "what" and "words", and with "pages"
 * and "tokens" where they count. The caller owns it. */
json_t *pgd_trace_events(const struct pgd_trace_line *before, const struct pgd_trace_line *after);

/* Adds one more. */
void pgd_trace_add_event(json_t *events, const char *what, uint64_t pages, uint64_t tokens, const char *words);

/* The line as an object, without events. The caller owns it. */
json_t *pgd_trace_line_object(const struct pgd_trace_line *line);

/* Back again. Errors: CORRUPT, with what is missing. */
PGD_MUST_CHECK enum pagoda_status pgd_trace_line_read(const json_t *object, struct pgd_trace_line *line,
                                                      struct pagoda_error *error);

/* Adds an object as one line, and frees it. */
void pgd_trace_line_print(json_t *object, struct pgd_buffer *text);

#endif
