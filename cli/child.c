/* cli/child.c - see child.h. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/safe.h"

#define LOOK_UP_MS 200 /* how often the wait looks whether Ctrl-C was pressed */
#define GRACE_TURNS 10

extern char **environ;

enum stream { OUT, ERR, STREAMS };

struct child {
    pid_t process;
    int from[STREAMS]; /* what it writes; -1: it has closed it */
    struct pgd_buffer *text[STREAMS];
};

/* ---- starting ---- */

static int spawn(struct child *child, char *const argv[], int to[STREAMS])
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* ignored by us, see interrupt.c */
    sigaddset(&defaults, SIGXFSZ);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, to[OUT], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, to[ERR], STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const int failed = posix_spawn(&child->process, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static void close_all(int descriptors[STREAMS])
{
    for (int i = 0; i < STREAMS; i++) {
        if (descriptors[i] >= 0) {
            close(descriptors[i]);
            descriptors[i] = -1;
        }
    }
}

static enum pagoda_status start(struct child *child, char *const argv[], struct pagoda_error *error)
{
    int to[STREAMS] = {-1, -1};
    child->from[OUT] = child->from[ERR] = -1;
    int failed = 0;
    for (int i = 0; i < STREAMS && failed == 0; i++) {
        int ends[2];
        failed = pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;
        if (failed == 0) {
            child->from[i] = ends[0];
            to[i] = ends[1];
        }
    }
    if (failed == 0) {
        failed = spawn(child, argv, to);
    }
    close_all(to);
    if (failed != 0) {
        close_all(child->from);
        return pgd_fail(error, PAGODA_IO, "cannot be run: %s", strerror(failed));
    }
    return PAGODA_OK;
}

/* ---- listening ---- */

/* Takes what is there; false once the stream has ended. */
static bool take(struct child *child, int stream)
{
    char piece[4096];
    const ssize_t got = read(child->from[stream], piece, sizeof(piece));
    if (got < 0 && errno == EINTR) {
        return true;
    }
    if (got <= 0) {
        return false;
    }
    struct pgd_buffer *text = child->text[stream];
    if (stream == OUT || text->count < PGD_CHILD_ERR_MAX) {
        pgd_buffer_add(text, piece, (size_t) got);
    }
    return true;
}

/* Waits until something comes, at most for a moment. */
static void listen_once(struct child *child)
{
    struct pollfd ends[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        ends[i] = (struct pollfd) {.fd = child->from[i], .events = POLLIN};
    }
    if (poll(ends, STREAMS, LOOK_UP_MS) <= 0) {
        return;
    }
    for (int i = 0; i < STREAMS; i++) {
        if (ends[i].revents != 0 && !take(child, i)) {
            close(child->from[i]);
            child->from[i] = -1;
        }
    }
}

/* Listens until both streams have ended: OK, or a reason to end the child early. */
static enum pagoda_status listen_to(struct child *child, struct pagoda_error *error)
{
    while (child->from[OUT] >= 0 || child->from[ERR] >= 0) {
        listen_once(child);
        if (pgd_interrupt_raised()) {
            return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
        }
        if (child->text[OUT]->count > PGD_CHILD_OUT_MAX) {
            return pgd_fail(error, PAGODA_LIMIT, "writes without an end");
        }
    }
    return PAGODA_OK;
}

/* ---- ending ---- */

/* Asks politely, then not. */
static void end_early(const struct child *child)
{
    const struct timespec moment = {.tv_nsec = 50 * 1000 * 1000};
    int ignored = 0;
    kill(child->process, SIGTERM);
    for (int turn = 0; turn < GRACE_TURNS; turn++) {
        if (waitpid(child->process, &ignored, WNOHANG) == child->process) {
            return;
        }
        nanosleep(&moment, NULL);
    }
    kill(child->process, SIGKILL);
    while (waitpid(child->process, &ignored, 0) < 0 && errno == EINTR) {
    }
}

/* The last line that is not blank, with nothing in it that could steer a terminal. */
static void last_line(const struct pgd_buffer *text, char *line, size_t bytes)
{
    size_t end = text->count;
    while (end > 0 && strchr(" \t\r\n", text->bytes[end - 1]) != NULL) {
        end--;
    }
    size_t start = end;
    while (start > 0 && text->bytes[start - 1] != '\n') {
        start--;
    }
    struct pgd_buffer safe = {0};
    if (end > start) {
        pgd_safe_disarm(&safe, text->bytes + start, end - start);
    }
    snprintf(line, bytes, "%s", safe.count > 0 ? pgd_buffer_text(&safe) : "it does not say why");
    pgd_buffer_free(&safe);
}

static enum pagoda_status judge(int state, const struct pgd_buffer *err, struct pagoda_error *error)
{
    char line[200];
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) {
        return PAGODA_OK;
    }
    last_line(err, line, sizeof(line));
    if (WIFSIGNALED(state)) {
        return pgd_fail(error, PAGODA_IO, "was killed by signal %d: %s", WTERMSIG(state), line);
    }
    return pgd_fail(error, PAGODA_IO, "ended with code %d: %s", WEXITSTATUS(state), line);
}

enum pagoda_status pgd_child_run(char *const argv[], struct pgd_buffer *out, struct pgd_buffer *err,
                                 struct pagoda_error *error)
{
    struct child child = {.text = {out, err}};
    enum pagoda_status status = start(&child, argv, error);
    if (status != PAGODA_OK) {
        return status;
    }
    status = listen_to(&child, error);
    close_all(child.from);
    if (status != PAGODA_OK) {
        end_early(&child);
        return status;
    }
    int state = 0;
    while (waitpid(child.process, &state, 0) < 0) {
        if (errno != EINTR) {
            return pgd_fail(error, PAGODA_IO, "was lost: %s", strerror(errno));
        }
        if (pgd_interrupt_raised()) {
            end_early(&child);
            return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
        }
    }
    if (out->failed || err->failed) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for what it wrote");
    }
    return judge(state, err, error);
}
