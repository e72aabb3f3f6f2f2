/* cli/trace_line.c - see trace_line.h. */
#include "cli/trace_line.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/report.h"
#include "cli/size.h"

/* The counts of a line, in the order of the file: reading and writing go through this table. */
struct field {
    const char *group; /* the object that it is in; NULL: the line itself */
    const char *name;
    size_t offset;
};
#define AT(member) offsetof(struct pgd_trace_line, member)
static const struct field fields[] = {
    {NULL, "batch_tokens", AT(batch_tokens)},
    {NULL, "budget_bytes", AT(memory.budget_bytes)},
    {NULL, "used_bytes", AT(memory.used_bytes)},
    {NULL, "peak_bytes", AT(memory.peak_bytes)},
    {NULL, "rss_bytes", AT(rss_bytes)},
    {NULL, "available_bytes", AT(available_bytes)},
    {"tokens", "total", AT(account.total)},
    {"tokens", "ram", AT(account.ram)},
    {"tokens", "quantized", AT(account.quantized)},
    {"tokens", "spilled", AT(account.spilled)},
    {"tokens", "unread", AT(account.unread)},
    {"tokens", "collapsed", AT(account.collapsed)},
    {"tokens", "dropped", AT(account.dropped)},
    {"tokens", "pinned", AT(account.pinned)},
    {"pages", "dropped", AT(memory.evicted_pages)},
    {"pages", "reencoded", AT(memory.reencoded_pages)},
    {"pages", "passed_by_windows", AT(memory.released_window_pages)},
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

void pgd_trace_category_name(enum pagoda_memory_category category, char name[PGD_TRACE_NAME_BYTES])
{
    snprintf(name, PGD_TRACE_NAME_BYTES, "%s", pagoda_memory_category_name(category));
    for (char *at = name; *at != '\0'; at++) {
        *at = *at == ' ' ? '_' : *at;
    }
}

/* ---- writing ---- */

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t) (value > INT64_MAX ? INT64_MAX : value));
}

/* With three decimals: what is written is short. */
static json_t *thousandths(double value)
{
    return json_real(isfinite(value) ? round(value * 1000) / 1000 : 0);
}

/* The object that a field is in, made when it is the first there. */
static json_t *group_of(json_t *line, const char *group)
{
    if (group == NULL) {
        return line;
    }
    if (json_object_get(line, group) == NULL) {
        json_object_set_new(line, group, json_object());
    }
    return json_object_get(line, group);
}

json_t *pgd_trace_line_object(const struct pgd_trace_line *line)
{
    json_t *object = json_object();
    json_object_set_new(object, "t", thousandths(line->seconds));
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *) line + fields[i].offset, sizeof(value));
        json_object_set_new(group_of(object, fields[i].group), fields[i].name, count(value));
    }
    for (enum pagoda_memory_category i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        char name[PGD_TRACE_NAME_BYTES];
        pgd_trace_category_name(i, name);
        json_object_set_new(group_of(object, "bytes"), name, count(line->memory.by_category[i]));
    }
    json_object_set_new(object, "tokens_per_second", thousandths(line->tokens_per_second));
    return object;
}

void pgd_trace_line_print(json_t *object, struct pgd_buffer *text)
{
    char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (line == NULL) {
        text->failed = true;
    } else {
        pgd_buffer_print(text, "%s\n", line);
        free(line);
    }
    json_decref(object);
}

/* ---- reading ---- */

static enum pagoda_status read_count(const json_t *object, const char *group, const char *name, uint64_t *value,
                                     struct pagoda_error *error)
{
    const json_t *number = json_object_get(group == NULL ? object : json_object_get(object, group), name);
    if (!json_is_integer(number) || json_integer_value(number) < 0) {
        return pgd_fail(error, PAGODA_CORRUPT, "it has no count '%s%s%s'", group == NULL ? "" : group,
                        group == NULL ? "" : ".", name);
    }
    *value = (uint64_t) json_integer_value(number);
    return PAGODA_OK;
}

static enum pagoda_status read_number(const json_t *object, const char *name, double *value, struct pagoda_error *error)
{
    const json_t *number = json_object_get(object, name);
    if (!json_is_number(number) || json_number_value(number) < 0) {
        return pgd_fail(error, PAGODA_CORRUPT, "it has no number '%s'", name);
    }
    *value = json_number_value(number);
    return PAGODA_OK;
}

enum pagoda_status pgd_trace_line_read(const json_t *object, struct pgd_trace_line *line, struct pagoda_error *error)
{
    *line = (struct pgd_trace_line) {.seconds = 0};
    enum pagoda_status status = read_number(object, "t", &line->seconds, error);
    for (size_t i = 0; i < FIELD_COUNT && status == PAGODA_OK; i++) {
        uint64_t value = 0;
        status = read_count(object, fields[i].group, fields[i].name, &value, error);
        memcpy((char *) line + fields[i].offset, &value, sizeof(value));
    }
    for (enum pagoda_memory_category i = 0; i < PAGODA_MEMORY_CATEGORIES && status == PAGODA_OK; i++) {
        char name[PGD_TRACE_NAME_BYTES];
        pgd_trace_category_name(i, name);
        status = read_count(object, "bytes", name, &line->memory.by_category[i], error);
    }
    return status != PAGODA_OK ? status : read_number(object, "tokens_per_second", &line->tokens_per_second, error);
}

/* ---- what happened ---- */

void pgd_trace_add_event(json_t *events, const char *what, uint64_t pages, uint64_t tokens, const char *words)
{
    json_t *event = json_object();
    json_object_set_new(event, "what", json_string(what));
    if (pages > 0) {
        json_object_set_new(event, "pages", count(pages));
    }
    if (tokens > 0) {
        json_object_set_new(event, "tokens", count(tokens));
    }
    json_object_set_new(event, "words", json_string(words));
    json_array_append_new(events, event);
}

/* How much a count has grown; one that starts again counts from zero. */
static uint64_t growth(uint64_t before, uint64_t after)
{
    return after >= before ? after - before : after;
}

static void add_shrinking(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    const uint64_t pages = growth(before->memory.reencoded_pages, after->memory.reencoded_pages);
    if (pages > 0) {
        char words[128];
        snprintf(words, sizeof(words), "%s pages were re-encoded smaller; %s tokens are held so",
                 pgd_count_words(pages).text, pgd_count_words(after->account.quantized).text);
        pgd_trace_add_event(events, "re-encoded", pages, 0, words);
    }
}

static void add_drops(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    const uint64_t pages = growth(before->memory.evicted_pages, after->memory.evicted_pages);
    const uint64_t dropped = after->account.dropped;
    const uint64_t tokens = dropped > before->account.dropped ? dropped - before->account.dropped : 0;
    if (pages > 0 || tokens > 0) {
        char words[128];
        snprintf(words, sizeof(words), "%s pages with %s tokens were dropped", pgd_count_words(pages).text,
                 pgd_count_words(tokens).text);
        pgd_trace_add_event(events, "dropped", pages, tokens, words);
    }
}

static void add_spills(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    if (after->account.spilled > before->account.spilled) {
        const uint64_t tokens = after->account.spilled - before->account.spilled;
        char words[128];
        snprintf(words, sizeof(words), "%s tokens went to flash", pgd_count_words(tokens).text);
        pgd_trace_add_event(events, "spilled", 0, tokens, words);
    }
}

static void add_collapses(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    const uint64_t pages = growth(before->memory.collapsed_pages, after->memory.collapsed_pages);
    if (pages > 0) {
        char words[128];
        snprintf(words, sizeof(words), "flash was full: of %s pages only a summary is left; so it is for %s tokens",
                 pgd_count_words(pages).text, pgd_count_words(after->account.collapsed).text);
        pgd_trace_add_event(events, "collapsed", pages, 0, words);
    }
}

static void add_pins(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    if (after->account.pinned != before->account.pinned) {
        char words[128];
        snprintf(words, sizeof(words), "%s tokens are pinned, %s before", pgd_count_words(after->account.pinned).text,
                 pgd_count_words(before->account.pinned).text);
        pgd_trace_add_event(events, "pinned", 0, 0, words);
    }
}

static void add_budget(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    if (after->memory.budget_bytes != before->memory.budget_bytes) {
        char words[128];
        snprintf(words, sizeof(words), "the budget went from %s to %s",
                 pgd_size_words(before->memory.budget_bytes).text, pgd_size_words(after->memory.budget_bytes).text);
        pgd_trace_add_event(events, "budget", 0, 0, words);
    }
}

/* A turn that was taken back, or a conversation that was forgotten. */
static void add_returns(json_t *events, const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    if (after->account.total < before->account.total + after->batch_tokens) {
        const uint64_t tokens = before->account.total + after->batch_tokens - after->account.total;
        char words[128];
        snprintf(words, sizeof(words), "%s tokens were taken back", pgd_count_words(tokens).text);
        pgd_trace_add_event(events, "taken back", 0, tokens, words);
    }
}

json_t *pgd_trace_events(const struct pgd_trace_line *before, const struct pgd_trace_line *after)
{
    json_t *events = json_array();
    add_budget(events, before, after);
    add_returns(events, before, after);
    add_shrinking(events, before, after);
    add_spills(events, before, after);
    add_collapses(events, before, after);
    add_drops(events, before, after);
    add_pins(events, before, after);
    return events;
}
