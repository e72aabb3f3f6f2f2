/* cli/report.h - the JSON object of `run --json`, a contract with scripts: fields are added, never renamed. */
#ifndef PGD_CLI_REPORT_H
#define PGD_CLI_REPORT_H

#include <stddef.h>

#include "cli/buffer.h"
#include "cli/options.h"
#include "engine/bridge.h"
#include "engine/generate.h"
#include "engine/pressure.h"

/* What a run was. Ownership: borrows everything but `why`. */
struct pgd_report {
    const struct pgd_options *options;
    const char *text;
    size_t text_bytes;
    enum pgd_stop stop;
    uint64_t prompt_tokens;
    uint64_t generated_tokens;
    double prompt_seconds;
    double reply_seconds;
    double first_token_seconds; /* from the start of reading */
    uint32_t seed;
    uint64_t peak_rss_bytes;
    struct pagoda_account account;
    struct pagoda_memory memory;
    struct pgd_bridge_memory bridge;
    enum pagoda_on_full on_full;
    const char *fallback; /* why it is not the default; NULL: it is, or was asked for */
    uint64_t mapped_bytes;
    const struct pgd_pressure_view *pressure; /* NULL: not governed */
    struct json_t *why; /* what the reply drew on; NULL: nobody asked. The report's, once written */
};

/* Takes account and memory from the bridge as they are now. */
void pgd_report_measure(struct pgd_report *report, struct pgd_bridge *bridge);

/* Adds the object as one line, with its newline. A failed buffer tells that memory ran out. */
void pgd_report_write(const struct pgd_report *report, struct pgd_buffer *line);

/* Adds any JSON value the same way, and frees it. */
struct json_t;
void pgd_report_write_json(struct json_t *value, struct pgd_buffer *line);

/* The same, to standard output; false when memory ran out. */
bool pgd_report_print_json(struct json_t *value);

/* How many tokens are in which codec, as JSON. */
struct json_t *pgd_report_codecs(const struct pagoda_account *account);

/* A text of a file or the system, which may not be UTF-8, as JSON, which must. */
struct json_t *pgd_report_string(const char *text);

/* Tokens per second; 0 when there is nothing to divide. */
double pgd_report_speed(uint64_t tokens, double seconds);

#endif
