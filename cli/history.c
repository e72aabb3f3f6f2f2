/* cli/history.c - see history.h. */
#include "cli/history.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 1024

struct pgd_history {
    History *lines;
    char path[PATH_BYTES]; /* "": nowhere to write */
};

/* $XDG_STATE_HOME/pagoda, or ~/.local/state/pagoda. A relative path in the variable is to be ignored. */
static bool find_directory(char *path, size_t bytes)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int length = -1;
    if (state != NULL && state[0] == '/') {
        length = snprintf(path, bytes, "%s/pagoda", state);
    } else if (home != NULL && home[0] == '/') {
        length = snprintf(path, bytes, "%s/.local/state/pagoda", home);
    }
    return length > 0 && (size_t) length < bytes;
}

/* Makes a directory and those above it, as far as they lack. */
static bool make_directory(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700); /* one that is there already is as good */
        *slash = '/';
    }
    mkdir(path, 0700);
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void find_path(struct pgd_history *past)
{
    char directory[PATH_BYTES - 16];
    if (!find_directory(directory, sizeof(directory)) || !make_directory(directory)) {
        return;
    }
    snprintf(past->path, sizeof(past->path), "%s/history", directory);
    struct stat status;
    if (lstat(past->path, &status) == 0 && !S_ISREG(status.st_mode)) {
        past->path[0] = '\0'; /* a device, a link to somewhere else: not ours to write through */
    }
}

struct pgd_history *pgd_history_open(void)
{
    struct pgd_history *past = calloc(1, sizeof(*past));
    if (past == NULL) {
        return NULL;
    }
    past->lines = history_init();
    if (past->lines == NULL) {
        free(past);
        return NULL;
    }
    HistEvent event;
    history(past->lines, &event, H_SETSIZE, PGD_HISTORY_LINES_MAX);
    history(past->lines, &event, H_SETUNIQUE, 1);
    find_path(past);
    if (past->path[0] != '\0') {
        history(past->lines, &event, H_LOAD, past->path);
    }
    return past;
}

void pgd_history_close(struct pgd_history *past)
{
    if (past == NULL) {
        return;
    }
    history_end(past->lines);
    free(past);
}

void pgd_history_add(struct pgd_history *past, const char *text)
{
    HistEvent event;
    history(past->lines, &event, H_ENTER, text);
    if (past->path[0] == '\0') {
        return;
    }
    const mode_t before = umask(0077); /* the file is never readable to others, not even before its mode is set */
    history(past->lines, &event, H_SAVE, past->path);
    umask(before);
}

History *pgd_history_lines(struct pgd_history *past)
{
    return past->lines;
}
