/* os/text.c - see text.h. */
#define _GNU_SOURCE 1

#include "os/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/number.h"

static int open_text(const char *path)
{
    int descriptor;
    do {
        /* Not blocking: a fixture tree or a strange mount may hold a pipe where a file should be. */
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

/* Bytes read until the end of the file, an error or `capacity`; *complete tells the end from the others. */
static size_t fill(int descriptor, char *buffer, size_t capacity, bool *complete)
{
    size_t filled = 0;
    *complete = false;
    while (filled < capacity) {
        const ssize_t got = read(descriptor, buffer + filled, capacity - filled);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            *complete = got == 0;
            break;
        }
        filled += (size_t) got;
    }
    return filled;
}

bool pgd_text_read(const char *root, const char *directory, const char *name, char *text, size_t capacity)
{
    PGD_ASSERT(capacity > 0);
    char path[PGD_TEXT_PATH_MAX];
    const int length = snprintf(path, sizeof path, "%s/%s/%s", root, directory, name);
    if (length < 0 || (size_t) length >= sizeof path) {
        return false;
    }
    const int descriptor = open_text(path);
    if (descriptor < 0) {
        return false;
    }
    bool complete;
    const size_t filled = fill(descriptor, text, capacity - 1, &complete);
    PGD_ASSERT(filled < capacity);
    text[filled] = '\0';
    (void) close(descriptor);
    if (!complete) {
        char *const last_line = strrchr(text, '\n');
        *(last_line != NULL ? last_line + 1 : text) = '\0';
    }
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

bool pgd_text_number(const char *text, uint64_t *number)
{
    while (is_blank(*text)) {
        text++;
    }
    if (*text < '0' || *text > '9') {
        return false;
    }
    uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (!pgd_mul_u64(value, 10, &value) || !pgd_add_u64(value, (uint64_t) (*text - '0'), &value)) {
            value = UINT64_MAX;
        }
    }
    if (*text != '\0' && *text != '\n' && *text != '\r' && !is_blank(*text)) {
        return false;
    }
    *number = value;
    return true;
}

bool pgd_text_field(const char *text, const char *key, uint64_t *number)
{
    const size_t length = strlen(key);
    PGD_ASSERT(length > 0);
    while (*text != '\0') {
        if (strncmp(text, key, length) == 0 && is_blank(text[length])) {
            return pgd_text_number(text + length, number);
        }
        const char *const end = strchr(text, '\n');
        if (end == NULL) {
            break;
        }
        text = end + 1;
    }
    return false;
}
