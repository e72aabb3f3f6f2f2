/* cli/lines.c - see lines.h.
 *
 * libedit's own signal handling sends signals on to the whole process group, so it stays off: characters
 * are read here, and a read that a signal woke up looks at what happened.
 */
#include "cli/lines.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/buffer.h"
#include "cli/history.h"
#include "cli/interrupt.h"

struct pgd_lines {
    const struct pgd_terminal *terminal;
    const char *const *commands;
    EditLine *editor; /* NULL: plain lines */
    struct pgd_history *history;
    struct pgd_buffer message;
    char *line; /* of getline */
    size_t line_capacity;
    bool continues;             /* the prompt of a further line */
    int (*waiting)(void *user); /* NULL: nothing to do meanwhile */
    void *waiting_user;
};

static volatile sig_atomic_t window_changed;
static volatile sig_atomic_t was_stopped;

static void note_signal(int number)
{
    if (number == SIGWINCH) {
        window_changed = 1;
    } else {
        was_stopped = 1;
    }
}

/* ---- the editor ---- */

static struct pgd_lines *owner_of(EditLine *editor)
{
    void *lines = NULL;
    el_get(editor, EL_CLIENTDATA, &lines);
    return lines;
}

static char *prompt(EditLine *editor)
{
    static char plain[] = "> ";
    static char bold[] = "\001\033[1m\001>\001\033[0m\001 "; /* libedit shows no sequence behind the last letter */
    static char more[] = ". ";
    const struct pgd_lines *lines = owner_of(editor);
    if (lines->continues) {
        return more;
    }
    return lines->terminal->out_palette == PGD_PALETTE_NONE ? plain : bold;
}

/* After a signal: whether reading goes on. */
static bool answer_signal(EditLine *editor)
{
    if (pgd_interrupt_raised()) {
        return false;
    }
    if (window_changed) {
        window_changed = 0;
        el_resize(editor);
    }
    if (was_stopped) { /* the shell has set the terminal to its own taste meanwhile */
        was_stopped = 0;
        el_set(editor, EL_PREP_TERM, 1);
        el_set(editor, EL_REFRESH);
    }
    return true;
}

/* Until there is something to read; false when a signal came, or poll failed otherwise (errno). */
static bool wait_for_byte(const struct pgd_lines *lines)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = 0;
    while (lines->waiting != NULL && ready == 0) {
        ready = poll(&input, 1, lines->waiting(lines->waiting_user));
    }
    return ready >= 0;
}

static ssize_t read_byte(EditLine *editor, char *byte)
{
    for (;;) {
        const ssize_t count = wait_for_byte(owner_of(editor)) ? read(STDIN_FILENO, byte, 1) : -1;
        if (count >= 0 || errno != EINTR || !answer_signal(editor)) {
            return count;
        }
    }
}

/* One character for the editor: 1, 0 at the end, -1 on an interrupt. What is no character is left out. */
static int read_character(EditLine *editor, wchar_t *character)
{
    mbstate_t state;
    memset(&state, 0, sizeof(state));
    for (;;) {
        char byte = 0;
        const ssize_t count = read_byte(editor, &byte);
        if (count <= 0) {
            return (int) count;
        }
        const size_t length = mbrtowc(character, &byte, 1, &state);
        if (length == (size_t) -1) {
            memset(&state, 0, sizeof(state));
        } else if (length != (size_t) -2) {
            return 1;
        }
    }
}

/* The longest beginning that all commands with this beginning share; 0 when there is none. */
static size_t shared_length(const char *const *commands, const char *typed, size_t typed_length, const char **first)
{
    size_t shared = 0;
    *first = NULL;
    for (; *commands != NULL; commands++) {
        if (strncmp(*commands, typed, typed_length) != 0) {
            continue;
        }
        if (*first == NULL) {
            *first = *commands;
            shared = strlen(*commands);
        }
        size_t same = 0;
        while (same < shared && (*first)[same] == (*commands)[same]) {
            same++;
        }
        shared = same;
    }
    return shared;
}

static unsigned char complete(EditLine *editor, int character)
{
    (void) character;
    const struct pgd_lines *lines = owner_of(editor);
    const LineInfo *info = el_line(editor);
    const size_t typed = (size_t) (info->cursor - info->buffer);
    if (typed == 0 || info->buffer[0] != '/' || info->cursor != info->lastchar || lines->continues) {
        return CC_REFRESH_BEEP;
    }
    const char *first = NULL;
    const size_t shared = shared_length(lines->commands, info->buffer, typed, &first);
    if (shared <= typed) {
        return CC_REFRESH_BEEP;
    }
    char rest[32];
    snprintf(rest, sizeof(rest), "%.*s", (int) (shared - typed), first + typed);
    return el_insertstr(editor, rest) == 0 ? CC_REFRESH : CC_REFRESH_BEEP;
}

static void catch_terminal_signals(void)
{
    struct sigaction action = {.sa_handler = note_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
}

/* Without an editor or a history there are still lines. */
static void open_editor(struct pgd_lines *lines)
{
    lines->history = pgd_history_open();
    lines->editor = lines->history == NULL ? NULL : el_init("pagoda", stdin, stdout, stderr);
    if (lines->editor == NULL) {
        return;
    }
    el_set(lines->editor, EL_CLIENTDATA, lines);
    el_set(lines->editor, EL_PROMPT_ESC, prompt, '\001');
    el_set(lines->editor, EL_SIGNAL, 0);
    el_set(lines->editor, EL_EDITOR, "emacs");
    el_set(lines->editor, EL_HIST, history, pgd_history_lines(lines->history));
    el_set(lines->editor, EL_GETCFN, read_character);
    el_set(lines->editor, EL_ADDFN, "pagoda-complete", "Completes a command", complete);
    el_set(lines->editor, EL_BIND, "^I", "pagoda-complete", NULL);
    el_set(lines->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(lines->editor, NULL);
    catch_terminal_signals();
}

struct pgd_lines *pgd_lines_open(const struct pgd_terminal *terminal, const char *const *commands)
{
    struct pgd_lines *lines = calloc(1, sizeof(*lines));
    if (lines == NULL) {
        return NULL;
    }
    lines->terminal = terminal;
    lines->commands = commands;
    if (pgd_lines_is_interactive(lines) && !terminal->dumb) {
        open_editor(lines);
    }
    return lines;
}

void pgd_lines_close(struct pgd_lines *lines)
{
    if (lines == NULL) {
        return;
    }
    if (lines->editor != NULL) {
        el_end(lines->editor);
    }
    pgd_history_close(lines->history);
    pgd_buffer_free(&lines->message);
    free(lines->line);
    free(lines);
}

void pgd_lines_while_waiting(struct pgd_lines *lines, int (*call)(void *user), void *user)
{
    lines->waiting = call;
    lines->waiting_user = user;
}

bool pgd_lines_is_interactive(const struct pgd_lines *lines)
{
    return lines->terminal->in_is_tty && lines->terminal->out_is_tty;
}

/* ---- one line ---- */

static enum pgd_lines_result read_edited(struct pgd_lines *lines, const char **text, size_t *count)
{
    int length = 0;
    errno = 0;
    *text = el_gets(lines->editor, &length);
    if (*text == NULL || length <= 0) {
        if (pgd_interrupt_raised()) {
            /* What was typed must not come back with the next line. */
            el_reset(lines->editor);
            fputs("^C\n", stdout);
            return PGD_LINES_INTERRUPTED;
        }
        return PGD_LINES_END;
    }
    *count = (size_t) length;
    return PGD_LINES_MESSAGE;
}

static enum pgd_lines_result read_plain(struct pgd_lines *lines, const char **text, size_t *count)
{
    if (pgd_lines_is_interactive(lines)) {
        fputs(lines->continues ? ". " : "> ", stdout);
        fflush(stdout);
    }
    ssize_t length = 0;
    do {
        errno = 0;
        length = getline(&lines->line, &lines->line_capacity, stdin);
        if (length < 0 && errno == EINTR) {
            clearerr(stdin);
        }
    } while (length < 0 && errno == EINTR && !pgd_interrupt_raised());
    if (length < 0 && pgd_interrupt_raised()) {
        fputs("\n", stdout);
        return PGD_LINES_INTERRUPTED;
    }
    if (length < 0 && !feof(stdin)) {
        pgd_say_error("cannot read standard input: %s", strerror(errno));
        return PGD_LINES_FAILED;
    }
    if (length <= 0) {
        return PGD_LINES_END;
    }
    *text = lines->line;
    *count = (size_t) length;
    return PGD_LINES_MESSAGE;
}

/* A line without its newline. */
static enum pgd_lines_result read_line(struct pgd_lines *lines, const char **text, size_t *count)
{
    const enum pgd_lines_result result =
        lines->editor != NULL ? read_edited(lines, text, count) : read_plain(lines, text, count);
    if (result == PGD_LINES_MESSAGE && *count > 0 && (*text)[*count - 1] == '\n') {
        (*count)--;
    }
    return result;
}

/* ---- messages ---- */

static const char fence[] = "\"\"\"";
#define FENCE_BYTES 3u

static bool starts_with_fence(const char *text, size_t count)
{
    return count >= FENCE_BYTES && memcmp(text, fence, FENCE_BYTES) == 0;
}

static bool ends_with_fence(const char *text, size_t count)
{
    return count >= FENCE_BYTES && memcmp(text + count - FENCE_BYTES, fence, FENCE_BYTES) == 0;
}

/* Adds a further line. The end of the input ends the message as well. */
static enum pgd_lines_result read_further(struct pgd_lines *lines, const char **text, size_t *count)
{
    lines->continues = true;
    const enum pgd_lines_result result = read_line(lines, text, count);
    lines->continues = false;
    return result;
}

/* Everything up to the closing """. */
static enum pgd_lines_result read_fenced(struct pgd_lines *lines, const char *text, size_t count)
{
    struct pgd_buffer *message = &lines->message;
    text += FENCE_BYTES;
    count -= FENCE_BYTES;
    for (bool first = true;; first = false) {
        if (!first) {
            pgd_buffer_add(message, "\n", 1);
        }
        if (ends_with_fence(text, count)) {
            pgd_buffer_add(message, text, count - FENCE_BYTES);
            return PGD_LINES_MESSAGE;
        }
        pgd_buffer_add(message, text, count);
        const enum pgd_lines_result result = read_further(lines, &text, &count);
        if (result != PGD_LINES_MESSAGE) {
            return result == PGD_LINES_END ? PGD_LINES_MESSAGE : result;
        }
    }
}

static enum pgd_lines_result read_continued(struct pgd_lines *lines, const char *text, size_t count)
{
    struct pgd_buffer *message = &lines->message;
    while (count > 0 && text[count - 1] == '\\') {
        pgd_buffer_add(message, text, count - 1);
        pgd_buffer_add(message, "\n", 1);
        const enum pgd_lines_result result = read_further(lines, &text, &count);
        if (result != PGD_LINES_MESSAGE) {
            return result == PGD_LINES_END ? PGD_LINES_MESSAGE : result;
        }
    }
    pgd_buffer_add(message, text, count);
    return PGD_LINES_MESSAGE;
}

enum pgd_lines_result pgd_lines_read(struct pgd_lines *lines, const char **text, size_t *count)
{
    pgd_buffer_clear(&lines->message);
    enum pgd_lines_result result = read_line(lines, text, count);
    if (result != PGD_LINES_MESSAGE) {
        return result;
    }
    result =
        starts_with_fence(*text, *count) ? read_fenced(lines, *text, *count) : read_continued(lines, *text, *count);
    if (result != PGD_LINES_MESSAGE) {
        return result;
    }
    if (lines->message.failed) {
        pgd_say_error("no memory for a message of %zu bytes", lines->message.count);
        return PGD_LINES_FAILED;
    }
    *text = pgd_buffer_text(&lines->message);
    *count = lines->message.count;
    if (lines->history != NULL && *count > 0) {
        pgd_history_add(lines->history, *text);
    }
    return PGD_LINES_MESSAGE;
}
