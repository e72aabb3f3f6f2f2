/* cli/trace.c - see trace.h. */
#include "cli/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/machine.h"
#include "cli/report.h"
#include "cli/trace_line.h"

#define LINE_SECONDS 0.05
static const char magic[] = "{\"pagoda\":"; /* how a trace starts */

struct pgd_trace {
    const struct pgd_options *options;
    struct pgd_bridge *bridge; /* NULL before the start */
    int fd;
    bool failed; /* told; nothing more is written */
    double start_seconds;
    double written_seconds; /* when the latest line was */

    struct pgd_trace_line last; /* as it was written */
    uint64_t batch_tokens;      /* since then */
    double batch_seconds;
    uint64_t refused; /* tokens that did not fit */
};

/* ---- the file ---- */

/* Whether what is there may be overwritten. */
static bool is_trace(const char *path)
{
    char start[sizeof(magic)] = "";
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    const ssize_t count = read(fd, start, sizeof(magic) - 1);
    close(fd);
    return count == 0 || (count == (ssize_t) sizeof(magic) - 1 && memcmp(start, magic, sizeof(magic) - 1) == 0);
}

/* Not truncated yet: a run that does not start leaves an older trace alone. */
static enum pagoda_status open_file(const char *path, int *fd, struct pagoda_error *error)
{
    struct stat about;
    *fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
    if (*fd < 0 || fstat(*fd, &about) != 0) {
        const char *reason = errno == ENXIO ? "nobody reads this pipe" : strerror(errno);
        return pgd_fail(error, PAGODA_IO, "--trace: cannot write %.300s: %s", path, reason);
    }
    if (S_ISREG(about.st_mode) && about.st_size > 0 && !is_trace(path)) {
        return pgd_fail(error, PAGODA_IO,
                        "--trace: %.300s is there already and is not a trace; it was left alone, give another name",
                        path);
    }
    return PAGODA_OK;
}

/* A line that was not taken at all is no failure: the reader of a pipe is slow, and the next line tells the same. */
static bool write_bytes(struct pgd_trace *trace, const char *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        const ssize_t written = write(trace->fd, bytes + done, count - done);
        if (written < 0 && errno == EAGAIN && done == 0) {
            return false;
        }
        if (written < 0 && errno != EINTR) {
            pgd_say_warning("--trace: cannot write %s: %s; the run goes on without it", trace->options->trace,
                            errno == EAGAIN ? "its reader is too slow" : strerror(errno));
            trace->failed = true;
            return false;
        }
        done += written > 0 ? (size_t) written : 0;
    }
    return true;
}

static bool write_object(struct pgd_trace *trace, json_t *object)
{
    struct pgd_buffer text = {0};
    pgd_trace_line_print(object, &text);
    const bool written = !text.failed && write_bytes(trace, pgd_buffer_text(&text), text.count);
    pgd_buffer_free(&text);
    return written;
}

/* ---- lines ---- */

static struct pgd_trace_line measure(const struct pgd_trace *trace, double now)
{
    const struct pagoda_cache *cache = pgd_bridge_cache(trace->bridge);
    struct pgd_trace_line line = {
        .seconds = now - trace->start_seconds,
        .batch_tokens = trace->batch_tokens,
        .tokens_per_second = pgd_report_speed(trace->batch_tokens, trace->batch_seconds),
        .rss_bytes = pgd_machine_rss_bytes(),
        .available_bytes = pgd_machine_available_bytes(),
    };
    pagoda_cache_memory(cache, &line.memory);
    pagoda_cache_account(cache, &line.account);
    return line;
}

static json_t *find_events(const struct pgd_trace *trace, const struct pgd_trace_line *line)
{
    json_t *events = pgd_trace_events(&trace->last, line);
    if (trace->refused > 0) {
        char words[96];
        snprintf(words, sizeof(words), "%s tokens did not fit and were refused", pgd_count_words(trace->refused).text);
        pgd_trace_add_event(events, "refused", 0, trace->refused, words);
    }
    return events;
}

static void write_line(struct pgd_trace *trace, double now, const char *last_words)
{
    const struct pgd_trace_line line = measure(trace, now);
    json_t *object = pgd_trace_line_object(&line);
    json_t *events = find_events(trace, &line);
    if (last_words != NULL) {
        pgd_trace_add_event(events, "end", 0, 0, last_words);
    }
    if (json_array_size(events) > 0) {
        json_object_set(object, "events", events);
    }
    json_decref(events);
    trace->written_seconds = now;
    if (write_object(trace, object)) {
        trace->last = line;
        trace->batch_tokens = 0;
        trace->batch_seconds = 0;
        trace->refused = 0;
    }
}

static void take_decode(void *user, uint32_t count, double seconds, enum pagoda_status status)
{
    struct pgd_trace *trace = user;
    if (status == PAGODA_OK) {
        trace->batch_tokens += count;
        trace->batch_seconds += seconds;
    } else if (status == PAGODA_FULL) {
        trace->refused += count;
    }
    const double now = pgd_machine_seconds();
    if (!trace->failed && now - trace->written_seconds >= LINE_SECONDS) {
        write_line(trace, now, NULL);
    }
}

/* ---- the first line ---- */

static json_t *model_object(const struct pgd_trace *trace, const struct pgd_loaded *loaded)
{
    const struct pgd_model_info *info = pgd_model_get_info(loaded->model);
    struct pgd_bridge_memory bridge;
    pgd_bridge_memory(loaded->bridge, &bridge);
    json_t *object = json_object();
    json_object_set_new(object, "file", pgd_report_string(trace->options->model));
    json_object_set_new(object, "name", pgd_report_string(info->name));
    json_object_set_new(object, "description", pgd_report_string(info->description));
    json_object_set_new(object, "layers", json_integer(info->layers));
    json_object_set_new(object, "trained_tokens", json_integer(info->trained_tokens));
    json_object_set_new(object, "window", json_integer(info->window));
    json_object_set_new(object, "weights_bytes", json_integer((json_int_t) bridge.weights_bytes));
    json_object_set_new(object, "compute_bytes", json_integer((json_int_t) bridge.compute_bytes));
    return object;
}

static const char *codec_words(const struct pgd_options *options)
{
    const struct pgd_codec_choice codec = pgd_options_codec(options);
    return codec.settled == codec.tight ? pagoda_codec_name(codec.settled) : "auto";
}

/* What the flags say about memory. The prompt is not in the trace. */
static json_t *flags_object(const struct pgd_options *options, const struct pgd_bridge *bridge)
{
    json_t *object = json_object();
    json_object_set_new(object, "on_full", json_string(pgd_on_full_words[pgd_bridge_on_full(bridge)]));
    json_object_set_new(object, "policy", json_string(pgd_policy_words[options->policy]));
    json_object_set_new(object, "window", json_integer((json_int_t) options->window));
    json_object_set_new(object, "sinks", json_integer((json_int_t) options->sinks));
    json_object_set_new(object, "kv_codec", json_string(codec_words(options)));
    json_object_set_new(object, "page", json_integer((json_int_t) options->page));
    json_object_set_new(object, "ctx_size", json_integer((json_int_t) options->ctx_size));
    json_object_set_new(object, "threads", json_integer((json_int_t) options->threads));
    json_object_set_new(object, "no_pin", json_boolean(options->no_pin));
    json_object_set_new(object, "keep_gaps", json_boolean(options->keep_gaps));
    return object;
}

static json_t *run_object(const struct pgd_trace *trace, const struct pgd_loaded *loaded)
{
    char started[32] = "";
    const time_t now = time(NULL);
    struct tm parts;
    if (gmtime_r(&now, &parts) != NULL) {
        strftime(started, sizeof(started), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    json_t *object = json_object();
    json_object_set_new(object, "pagoda", json_string(pagoda_version()));
    json_object_set_new(object, "trace", json_integer(PGD_TRACE_VERSION));
    json_object_set_new(object, "command", json_string(trace->options->command == PGD_COMMAND_CHAT ? "chat" : "run"));
    json_object_set_new(object, "started", json_string(started));
    json_object_set_new(object, "model", model_object(trace, loaded));
    json_object_set_new(object, "flags", flags_object(trace->options, loaded->bridge));
    return object;
}

/* ---- life ---- */

enum pgd_exit pgd_trace_open(const struct pgd_options *options, struct pgd_trace **trace)
{
    *trace = NULL;
    if (options->trace == NULL || options->trace[0] == '\0') {
        return PGD_EXIT_OK;
    }
    int fd = -1;
    struct pagoda_error error;
    struct pgd_trace *opened = calloc(1, sizeof(*opened));
    enum pagoda_status status = opened == NULL ? pgd_fail(&error, PAGODA_NOMEM, "no memory for the trace")
                                               : open_file(options->trace, &fd, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        if (fd >= 0) {
            close(fd);
        }
        free(opened);
        return PGD_EXIT_FAILURE;
    }
    *opened = (struct pgd_trace) {.options = options, .fd = fd, .start_seconds = pgd_machine_seconds()};
    *trace = opened;
    return PGD_EXIT_OK;
}

/* Nothing is written yet of what an older trace said; a pipe has nothing to cut. */
static void clear_file(const struct pgd_trace *trace)
{
    struct stat about;
    if (fstat(trace->fd, &about) == 0 && S_ISREG(about.st_mode) && ftruncate(trace->fd, 0) != 0) {
        pgd_say_warning("--trace: cannot empty %s: %s", trace->options->trace, strerror(errno));
    }
}

void pgd_trace_start(struct pgd_trace *trace, struct pgd_loaded *loaded)
{
    if (trace == NULL) {
        return;
    }
    const struct pgd_bridge_watcher watcher = {.decoded = take_decode, .user = trace};
    trace->bridge = loaded->bridge;
    clear_file(trace);
    const bool written = write_object(trace, run_object(trace, loaded));
    if (!written && !trace->failed) { /* a pipe that is full before its first line */
        pgd_say_warning("--trace: cannot write %s: its reader is too slow; the run goes on without it",
                        trace->options->trace);
        trace->failed = true;
    }
    const double now = pgd_machine_seconds();
    trace->last = measure(trace, now);
    if (written) {
        write_line(trace, now, NULL);
    }
    pgd_bridge_watch(trace->bridge, &watcher);
}

void pgd_trace_close(struct pgd_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    if (trace->bridge != NULL) {
        pgd_bridge_watch(trace->bridge, NULL);
        if (!trace->failed) {
            write_line(trace, pgd_machine_seconds(), "the run ended");
        }
    }
    close(trace->fd);
    free(trace);
}
