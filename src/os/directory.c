/* os/directory.c - where files that can be made again may lie. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"

/* A variable that names a directory: set, and not a relative path, which would mean another one after a chdir. */
static const char *directory_variable(const char *name)
{
    const char *const value = getenv(name);
    return value != NULL && value[0] == '/' ? value : NULL;
}

static bool is_writable_directory(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode) && access(path, W_OK | X_OK) == 0;
}

/* Makes `path` and what lacks above it. */
static bool make_directories(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void) mkdir(path, S_IRWXU); /* mostly there already; the last one tells */
        *slash = '/';
    }
    return mkdir(path, S_IRWXU) == 0 || errno == EEXIST;
}

/* base + below as `path`, made if it is not there. */
static bool try_directory(const char *base, const char *below, char *path, size_t bytes)
{
    if (base == NULL) {
        return false;
    }
    const int length = snprintf(path, bytes, "%s%s", base, below);
    return length > 0 && (size_t) length < bytes && make_directories(path) && is_writable_directory(path);
}

bool pgd_os_cache_directory(char *path, size_t bytes)
{
    /* /var/tmp before /tmp: that one is often in memory, which is what a cache on a disk is meant to save. */
    return try_directory(directory_variable("XDG_CACHE_HOME"), "/pagoda", path, bytes) ||
           try_directory(directory_variable("HOME"), "/.cache/pagoda", path, bytes) ||
           try_directory(directory_variable("TMPDIR"), "", path, bytes) || try_directory("/var/tmp", "", path, bytes) ||
           try_directory("/tmp", "", path, bytes);
}
