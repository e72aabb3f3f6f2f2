/* cli/plot_data.c - see plot_data.h. */
#include "cli/plot_data.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/trace_line.h"

struct reader {
    FILE *file;
    char *text; /* the line that was read last */
    size_t capacity;
    uint64_t number;
    bool whole; /* it ended with a newline */

    json_t *run;
    json_t *events; /* rows of time, what, pages, tokens, words */
    struct pgd_trace_line *lines;
    size_t count;
    size_t room;
    struct pgd_plot_data *data;
};

/* ---- reading ---- */

/* The next line as JSON. NULL at the end, and for what is no JSON: *status tells which. */
static json_t *next_object(struct reader *reader, enum pagoda_status *status, struct pagoda_error *error)
{
    errno = 0;
    const ssize_t length = getline(&reader->text, &reader->capacity, reader->file);
    if (length < 0) {
        *status = ferror(reader->file) ? pgd_fail(error, PAGODA_IO, "%s", strerror(errno)) : PAGODA_OK;
        return NULL;
    }
    json_error_t reason;
    reader->number++;
    reader->whole = reader->text[length - 1] == '\n';
    json_t *object = json_loadb(reader->text, (size_t) length, JSON_REJECT_DUPLICATES, &reason);
    if (!json_is_object(object)) {
        json_decref(object);
        object = NULL;
        *status = pgd_fail(error, PAGODA_CORRUPT, "line %" PRIu64 " is not a line of a trace: %s", reader->number,
                           object == NULL ? reason.text : "not an object");
    }
    return object;
}

static enum pagoda_status read_run(struct reader *reader, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    reader->run = next_object(reader, &status, error);
    if (status == PAGODA_OK && reader->run == NULL) {
        return pgd_fail(error, PAGODA_CORRUPT, "it is empty");
    }
    if (status == PAGODA_IO) {
        return status;
    }
    if (status != PAGODA_OK || json_object_get(reader->run, "pagoda") == NULL) {
        return reader->whole ? pgd_fail(error, PAGODA_CORRUPT, "its first line is not that of a trace")
                             : pgd_fail(error, PAGODA_CORRUPT, "it is cut off in its first line, or not a trace");
    }
    const json_int_t version = json_integer_value(json_object_get(reader->run, "trace"));
    if (version != PGD_TRACE_VERSION) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "it is a trace of version %lld, and this program reads version %d",
                        (long long) version, PGD_TRACE_VERSION);
    }
    return PAGODA_OK;
}

static const char *text_of(const json_t *event, const char *name)
{
    const char *text = json_string_value(json_object_get(event, name));
    return text != NULL ? text : "";
}

static void take_events(struct reader *reader, const json_t *object, double seconds)
{
    size_t i;
    const json_t *event;
    json_array_foreach(json_object_get(object, "events"), i, event)
    {
        const char *what = text_of(event, "what");
        json_t *row = json_array();
        json_array_append_new(row, json_real(seconds));
        json_array_append_new(row, json_string(what));
        json_array_append_new(row, json_integer(json_integer_value(json_object_get(event, "pages"))));
        json_array_append_new(row, json_integer(json_integer_value(json_object_get(event, "tokens"))));
        json_array_append_new(row, json_string(text_of(event, "words")));
        json_array_append_new(reader->events, row);
        reader->data->has_end |= strcmp(what, "end") == 0;
    }
}

static enum pagoda_status take_line(struct reader *reader, const json_t *object, struct pagoda_error *error)
{
    if (reader->count == reader->room) {
        const size_t room = reader->room == 0 ? 256 : 2 * reader->room;
        struct pgd_trace_line *lines = realloc(reader->lines, room * sizeof(*lines));
        if (lines == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for its %zu lines", reader->count);
        }
        reader->lines = lines;
        reader->room = room;
    }
    struct pgd_trace_line *line = &reader->lines[reader->count];
    struct pagoda_error reason;
    if (pgd_trace_line_read(object, line, &reason) != PAGODA_OK) {
        return pgd_fail(error, PAGODA_CORRUPT, "line %" PRIu64 " is not a line of a trace: %.300s", reader->number,
                        reason.message);
    }
    if (reader->count > 0 && line->seconds < line[-1].seconds) {
        return pgd_fail(error, PAGODA_CORRUPT, "line %" PRIu64 " is earlier than the line before", reader->number);
    }
    take_events(reader, object, line->seconds);
    reader->count++;
    return PAGODA_OK;
}

/* All lines after the first. A last one that is not whole is what a run leaves that was killed while it wrote. */
static enum pagoda_status read_lines(struct reader *reader, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    while (status == PAGODA_OK) {
        json_t *object = next_object(reader, &status, error);
        if (object == NULL) {
            break;
        }
        status = take_line(reader, object, error);
        json_decref(object);
    }
    if (status == PAGODA_CORRUPT && !reader->whole) {
        reader->data->cut_off = true;
        status = PAGODA_OK;
    }
    if (status == PAGODA_OK && reader->count == 0) {
        return pgd_fail(error, PAGODA_CORRUPT, "it has no line but the first: nothing was measured");
    }
    return status;
}

/* ---- the columns ---- */

/* Keeps one of every few lines. */
static void thin(struct reader *reader)
{
    const size_t step = (size_t) pgd_div_up_u64(reader->count, PGD_PLOT_POINTS_MAX);
    size_t kept = 0;
    for (size_t first = 0; first < reader->count; first += step) {
        size_t best = first;
        for (size_t i = first; i < reader->count && i < first + step; i++) {
            if (reader->lines[i].memory.used_bytes > reader->lines[best].memory.used_bytes) {
                best = i;
            }
        }
        reader->lines[kept++] = reader->lines[best];
    }
    reader->count = kept;
}

/* Turns the objects of lines into one object of columns of the same names. */
static void add_to_columns(json_t *columns, const json_t *line)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *) line, name, value)
    {
        json_t *column = json_object_get(columns, name);
        if (column == NULL) {
            column = json_is_object(value) ? json_object() : json_array();
            json_object_set_new(columns, name, column);
        }
        if (json_is_object(value)) {
            add_to_columns(column, value);
        } else {
            json_array_append(column, value);
        }
    }
}

static enum pagoda_status make_page(struct reader *reader, struct pagoda_error *error)
{
    struct pgd_plot_data *data = reader->data;
    json_t *columns = json_object();
    data->lines = reader->count;
    data->events = json_array_size(reader->events);
    thin(reader);
    data->points = reader->count;
    for (size_t i = 0; i < reader->count; i++) {
        json_t *line = pgd_trace_line_object(&reader->lines[i]);
        add_to_columns(columns, line);
        json_decref(line);
    }
    data->page = json_object();
    json_object_set(data->page, "run", reader->run);
    json_object_set_new(data->page, "columns", columns);
    json_object_set(data->page, "events", reader->events);
    json_object_set_new(data->page, "lines", json_integer((json_int_t) data->lines));
    json_object_set_new(data->page, "has_end", json_boolean(data->has_end));
    return data->page != NULL && columns != NULL ? PAGODA_OK : pgd_fail(error, PAGODA_NOMEM, "no memory for the page");
}

enum pagoda_status pgd_plot_data_read(FILE *file, struct pgd_plot_data *data, struct pagoda_error *error)
{
    *data = (struct pgd_plot_data) {.page = NULL};
    struct reader reader = {.file = file, .data = data, .events = json_array()};
    enum pagoda_status status = read_run(&reader, error);
    if (status == PAGODA_OK) {
        status = read_lines(&reader, error);
    }
    if (status == PAGODA_OK) {
        status = make_page(&reader, error);
    }
    json_decref(reader.run);
    json_decref(reader.events);
    free(reader.lines);
    free(reader.text);
    if (status != PAGODA_OK) {
        pgd_plot_data_free(data);
    }
    return status;
}

void pgd_plot_data_free(struct pgd_plot_data *data)
{
    json_decref(data->page);
    data->page = NULL;
}
