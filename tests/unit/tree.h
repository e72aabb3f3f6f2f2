/* unit/tree.h - a directory of fixtures for one test: files as Linux would show them on machines we cannot test on. */
#ifndef PAGODA_TESTS_UNIT_TREE_H
#define PAGODA_TESTS_UNIT_TREE_H

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/test.h"

#define PATH_BYTES 4096

static char root[PATH_BYTES];

static inline int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void) about;
    (void) kind;
    (void) where;
    return remove(path);
}

static inline void make_root(void)
{
    const char *const base = getenv("TMPDIR");
    (void) snprintf(root, sizeof root, "%s/pagoda-test-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    CHECK(mkdtemp(root) != NULL);
}

static inline void remove_root(void)
{
    CHECK_EQ_INT(nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Writes a file below the root, with the directories that it needs. */
static inline void put(const char *name, const char *text)
{
    char path[2 * PATH_BYTES];
    (void) snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *const file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK_EQ_INT(fclose(file), 0);
}

#endif
