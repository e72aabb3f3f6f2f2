/* cli/terminal.c - see terminal.h. */
#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/safe.h"
#include "cli/wrap.h"

void pgd_terminal_guard_streams(void)
{
    /* Reading and writing the wrong way round: a stream that was closed must go on failing. */
    static const int wrong_way[3] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
            const int opened = open("/dev/null", wrong_way[fd]);
            if (opened != fd && opened >= 0) {
                close(opened); /* cannot happen: the lowest free number is given out */
            }
        }
    }
}

static bool is_dumb(void)
{
    const char *term = getenv("TERM");
    return term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
}

static enum pgd_palette richest_palette(void)
{
    const char *term = getenv("TERM");
    const char *color = getenv("COLORTERM");
    if (color != NULL && (strcmp(color, "truecolor") == 0 || strcmp(color, "24bit") == 0)) {
        return PGD_PALETTE_TRUE;
    }
    return term != NULL && strstr(term, "256color") != NULL ? PGD_PALETTE_256 : PGD_PALETTE_16;
}

static enum pgd_palette palette_of(enum pgd_color wish, bool is_tty, bool dumb)
{
    const char *no_color = getenv("NO_COLOR");
    if (wish == PGD_COLOR_NEVER) {
        return PGD_PALETTE_NONE;
    }
    if (wish == PGD_COLOR_AUTO && (!is_tty || dumb || (no_color != NULL && no_color[0] != '\0'))) {
        return PGD_PALETTE_NONE;
    }
    return richest_palette();
}

/* Characters by the user's locale. In a locale without UTF-8, drawings are ASCII, but lines are still read
 * as UTF-8: a bare "C" locale is mostly a container whose terminal is a modern one. */
static bool set_locale(void)
{
    if (setlocale(LC_CTYPE, "") != NULL && strcasecmp(nl_langinfo(CODESET), "UTF-8") == 0) {
        return true;
    }
    if (setlocale(LC_CTYPE, "C.UTF-8") == NULL) {
        setlocale(LC_CTYPE, "en_US.UTF-8");
    }
    return false;
}

void pgd_terminal_open(const struct pgd_options *options, struct pgd_terminal *terminal)
{
    const enum pgd_color color = (enum pgd_color) options->color;
    terminal->in_is_tty = isatty(STDIN_FILENO) != 0;
    terminal->out_is_tty = isatty(STDOUT_FILENO) != 0;
    terminal->err_is_tty = isatty(STDERR_FILENO) != 0;
    terminal->dumb = is_dumb();
    terminal->unicode = set_locale() && !options->ascii;
    terminal->out_palette = palette_of(color, terminal->out_is_tty, terminal->dumb);
    terminal->err_palette = palette_of(color, terminal->err_is_tty, terminal->dumb);
}

static struct winsize window_size(void)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        size = (struct winsize) {0};
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) {
            size = (struct winsize) {0};
        }
    }
    return size;
}

uint32_t pgd_terminal_columns(void)
{
    const struct winsize size = window_size();
    if (size.ws_col > 0) {
        return size.ws_col;
    }
    const char *columns = getenv("COLUMNS");
    const long number = columns == NULL ? 0 : strtol(columns, NULL, 10);
    return number > 0 && number <= 1000 ? (uint32_t) number : 80;
}

uint32_t pgd_terminal_rows(void)
{
    const struct winsize size = window_size();
    return size.ws_row > 0 ? size.ws_row : 24;
}

bool pgd_terminal_wraps(const struct pgd_terminal *terminal)
{
    return terminal->out_is_tty && !terminal->dumb;
}

bool pgd_terminal_write(const struct pgd_terminal *terminal, const char *bytes, size_t count)
{
    if (!terminal->out_is_tty) {
        return fwrite(bytes, 1, count, stdout) == count && fflush(stdout) == 0;
    }
    struct pgd_buffer safe = {0};
    pgd_safe_disarm(&safe, bytes, count);
    const bool written =
        !safe.failed && fwrite(pgd_buffer_text(&safe), 1, safe.count, stdout) == safe.count && fflush(stdout) == 0;
    pgd_buffer_free(&safe);
    return written;
}

bool pgd_terminal_finish_output(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return true;
    }
    static bool told;
    if (errno != EPIPE && errno != EBADF && errno != 0 && !told) {
        pgd_say_error("cannot write to standard output: %s", strerror(errno));
        told = true;
    }
    return false;
}

/* ---- talk ---- */

/* `columns`: where lines are broken; 0: nowhere. */
static void say(const char *prefix, const char *suffix, uint32_t columns, const char *format, va_list arguments)
{
    char line[2048];
    fflush(stdout); /* both may be the same terminal */
    vsnprintf(line, sizeof(line), format, arguments);
    struct pgd_buffer safe = {0};
    struct pgd_buffer text = {0};
    struct pgd_wrap wrap = {.column = 0};
    pgd_safe_disarm(&safe, line, strlen(line));
    pgd_wrap_add(&wrap, pgd_buffer_text(&safe), safe.count, columns == 0 ? UINT32_MAX : columns, &text);
    pgd_wrap_end(&wrap, columns == 0 ? UINT32_MAX : columns, &text);
    fprintf(stderr, "%s%s%s\n", prefix, pgd_buffer_text(&text), suffix);
    pgd_buffer_free(&safe);
    pgd_buffer_free(&text);
}

void pgd_say_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("pagoda: error: ", "", 0, format, arguments);
    va_end(arguments);
}

void pgd_say_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("pagoda: warning: ", "", 0, format, arguments);
    va_end(arguments);
}

void pgd_say_note(const struct pgd_terminal *terminal, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(pgd_terminal_dim(terminal->err_palette), pgd_terminal_plain(terminal->err_palette),
        terminal->err_is_tty && !terminal->dumb ? pgd_terminal_columns() : 0, format, arguments);
    va_end(arguments);
}

const char *pgd_terminal_dim(enum pgd_palette palette)
{
    return palette == PGD_PALETTE_NONE ? "" : "\033[2m";
}

const char *pgd_terminal_bold(enum pgd_palette palette)
{
    return palette == PGD_PALETTE_NONE ? "" : "\033[1m";
}

const char *pgd_terminal_plain(enum pgd_palette palette)
{
    return palette == PGD_PALETTE_NONE ? "" : "\033[0m";
}
