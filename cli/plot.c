/* cli/plot.c - pagoda plot: a trace as one HTML page that needs nothing else, no network either.
 *
 * The page is cli/page/plot.html with its holes filled: {{name}} stands for an embedded file, {{data}} for the trace.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/buffer.h"
#include "cli/embedded.h"
#include "cli/plot_data.h"
#include "cli/size.h"
#include "cli/verbs.h"

/* ---- the page ---- */

static const struct pgd_embedded *find_file(const char *name, size_t length)
{
    for (const struct pgd_embedded *file = pgd_embedded_files; file->name != NULL; file++) {
        if (strlen(file->name) == length && memcmp(file->name, name, length) == 0) {
            return file;
        }
    }
    return NULL;
}

/* JSON inside an element of HTML: no text of the trace may end the element. */
static void add_data(struct pgd_buffer *page, const json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (text == NULL) {
        page->failed = true;
        return;
    }
    for (const char *at = text; *at != '\0'; at += strcspn(at, "<")) {
        if (*at == '<') {
            pgd_buffer_print(page, "\\u003c");
            at++;
        }
        pgd_buffer_add(page, at, strcspn(at, "<"));
    }
    free(text);
}

static void fill_page(struct pgd_buffer *page, const json_t *data)
{
    const struct pgd_embedded *template = find_file("plot.html", strlen("plot.html"));
    const char *at = (const char *) template->bytes;
    const char *end = at + template->count;
    while (at < end) {
        const char *hole = memmem(at, (size_t) (end - at), "{{", 2);
        const char *close = hole == NULL ? NULL : memmem(hole, (size_t) (end - hole), "}}", 2);
        if (close == NULL) {
            pgd_buffer_add(page, at, (size_t) (end - at));
            return;
        }
        pgd_buffer_add(page, at, (size_t) (hole - at));
        const struct pgd_embedded *file = find_file(hole + 2, (size_t) (close - hole - 2));
        if (file != NULL) {
            pgd_buffer_add(page, (const char *) file->bytes, file->count);
        } else {
            add_data(page, data);
        }
        at = close + 2;
    }
}

/* ---- files ---- */

/* trace.jsonl becomes trace.html; a name that would be the trace's own gets the ending added. */
static void name_page(const struct pgd_options *options, struct pgd_buffer *name)
{
    const char *trace = strcmp(options->trace, "-") == 0 ? "trace" : options->trace;
    if (options->out != NULL) {
        pgd_buffer_print(name, "%s", options->out);
        return;
    }
    const char *slash = strrchr(trace, '/');
    const char *dot = strrchr(slash != NULL ? slash : trace, '.');
    const bool replace = dot != NULL && dot != trace && dot[-1] != '/' && strcmp(dot, ".html") != 0;
    const size_t length = replace ? (size_t) (dot - trace) : strlen(trace);
    pgd_buffer_add(name, trace, length);
    pgd_buffer_print(name, ".html");
}

static enum pagoda_status read_trace(const char *path, struct pgd_plot_data *data, struct pagoda_error *error)
{
    const bool is_standard = strcmp(path, "-") == 0;
    FILE *file = is_standard ? stdin : fopen(path, "rbe");
    if (file == NULL) {
        return pgd_fail(error, PAGODA_IO, "cannot read %.300s: %s", path, strerror(errno));
    }
    struct pagoda_error reason;
    enum pagoda_status status = pgd_plot_data_read(file, data, &reason);
    if (!is_standard) {
        fclose(file);
    }
    return status == PAGODA_OK ? status
                               : pgd_fail(error, status, "cannot draw %.300s: %.400s",
                                          is_standard ? "standard input" : path, reason.message);
}

static enum pagoda_status write_page(const char *path, const struct pgd_buffer *page, struct pagoda_error *error)
{
    if (page->failed) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the page");
    }
    FILE *file = fopen(path, "wbe");
    bool written = file != NULL && fwrite(page->bytes, 1, page->count, file) == page->count;
    const int failed_with = errno;
    if (file != NULL && fclose(file) != 0) {
        return pgd_fail(error, PAGODA_IO, "cannot write %.300s: %s", path, strerror(errno));
    }
    return written ? PAGODA_OK : pgd_fail(error, PAGODA_IO, "cannot write %.300s: %s", path, strerror(failed_with));
}

/* ---- the command ---- */

/* What is worth knowing before the page is opened. */
static void tell(const struct pgd_terminal *terminal, const struct pgd_plot_data *data, const char *path)
{
    if (data->cut_off) {
        pgd_say_note(terminal, "the last line is not whole and was left out");
    }
    if (!data->has_end) {
        pgd_say_note(terminal, "the trace does not say how the run ended: it goes on, or was killed");
    }
    if (path != NULL) {
        pgd_say_note(terminal, "%s: %s lines, %s events", path, pgd_count_words(data->lines).text,
                     pgd_count_words(data->events).text);
    }
}

static enum pgd_exit draw(const struct pgd_options *options, const struct pgd_terminal *terminal,
                          const struct pgd_plot_data *data, const char *path)
{
    struct pgd_buffer page = {0};
    struct pagoda_error error;
    enum pagoda_status status = PAGODA_OK;
    fill_page(&page, data->page);
    const bool to_standard = options->out != NULL && strcmp(options->out, "-") == 0;
    bool printed = true;
    if (to_standard) {
        printed = !page.failed && fwrite(page.bytes, 1, page.count, stdout) == page.count;
        printed = pgd_terminal_finish_output() && printed;
    } else {
        status = write_page(path, &page, &error);
    }
    pgd_buffer_free(&page);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    } else if (printed) {
        tell(terminal, data, to_standard ? NULL : path);
    }
    return status == PAGODA_OK && printed ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}

enum pgd_exit pgd_plot_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct pgd_plot_data data;
    struct pagoda_error error;
    if (read_trace(options->trace, &data, &error) != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return PGD_EXIT_FAILURE;
    }
    struct pgd_buffer path = {0};
    name_page(options, &path);
    const enum pgd_exit code = draw(options, terminal, &data, pgd_buffer_text(&path));
    pgd_buffer_free(&path);
    pgd_plot_data_free(&data);
    return code;
}
