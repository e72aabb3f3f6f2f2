/* os/vfs_posix.c - files by the calls of POSIX. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/number.h"
#include "base/status.h"
#include "os/os.h"

struct pgd_file {
    int descriptor;
    char name[]; /* for messages: the path, or the directory of a scratch file */
};

/* ---- opening ---- */

/* Wraps an open descriptor; on failure it is closed. */
static enum pagoda_status wrap(int descriptor, const char *name, struct pgd_file **file, struct pagoda_error *error)
{
    PGD_ASSERT(descriptor >= 0);
    const size_t length = strlen(name) + 1;
    struct pgd_file *const made = malloc(sizeof *made + length);
    if (made == NULL) {
        (void) close(descriptor);
        return pgd_fail(error, PAGODA_NOMEM, "No memory to open \"%s\".", name);
    }
    made->descriptor = descriptor;
    memcpy(made->name, name, length);
    *file = made;
    return PAGODA_OK;
}

static enum pagoda_status fail_to_open(struct pagoda_error *error, const char *path, int number)
{
    const bool is_missing = number == ENOENT || number == ENOTDIR;
    return pgd_fail(error, is_missing ? PAGODA_NOT_FOUND : PAGODA_IO, "Cannot open \"%s\": %s.", path,
                    strerror(number));
}

static enum pagoda_status posix_open_read(void *user, const char *path, struct pgd_file **file,
                                          struct pagoda_error *error)
{
    (void) user;
    int descriptor;
    do {
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    } while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0) {
        return fail_to_open(error, path, errno);
    }
    struct stat about;
    if (fstat(descriptor, &about) == 0 && S_ISDIR(about.st_mode)) {
        (void) close(descriptor);
        return fail_to_open(error, path, EISDIR);
    }
    return wrap(descriptor, path, file, error);
}

/* Where the file system or the kernel cannot make a file without a name: makes one with a name that nobody
 * can guess or be given (O_EXCL), and takes the name away at once. */
static int open_unlinked(const char *directory)
{
    static const char pattern[] = "/.scratch-XXXXXX";
    const size_t length = strlen(directory);
    char *const path = malloc(length + sizeof pattern);
    if (path == NULL) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(path, directory, length);
    memcpy(path + length, pattern, sizeof pattern);
    int descriptor = mkostemp(path, O_CLOEXEC);
    if (descriptor >= 0 && unlink(path) != 0) {
        const int number = errno;
        (void) close(descriptor);
        errno = number;
        descriptor = -1;
    }
    free(path);
    return descriptor;
}

static enum pagoda_status posix_open_scratch(void *user, const char *directory, struct pgd_file **file,
                                             struct pagoda_error *error)
{
    (void) user;
    int descriptor = -1;
#ifdef O_TMPFILE
    /* O_EXCL: it can never be given a name either. */
    descriptor = open(directory, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
#endif
    if (descriptor < 0) {
        descriptor = open_unlinked(directory);
    }
    if (descriptor < 0) {
        const int number = errno;
        return pgd_fail(error, number == ENOENT || number == ENOTDIR ? PAGODA_NOT_FOUND : PAGODA_IO,
                        "Cannot make a scratch file in \"%s\": %s.", directory, strerror(number));
    }
    if (fchmod(descriptor, S_IRUSR | S_IWUSR) != 0) { /* whatever the umask says */
        const int number = errno;
        (void) close(descriptor);
        return pgd_fail(error, PAGODA_IO, "Cannot protect a scratch file in \"%s\": %s.", directory, strerror(number));
    }
    return wrap(descriptor, directory, file, error);
}

/* ---- using ---- */

static enum pagoda_status posix_size(void *user, struct pgd_file *file, uint64_t *bytes, struct pagoda_error *error)
{
    (void) user;
    struct stat about;
    if (fstat(file->descriptor, &about) != 0) {
        return pgd_fail(error, PAGODA_IO, "Cannot tell the size of \"%s\": %s.", file->name, strerror(errno));
    }
    PGD_ASSERT(about.st_size >= 0);
    *bytes = (uint64_t) about.st_size;
    return PAGODA_OK;
}

/* Whether [offset, offset + bytes) can be expressed as file offsets at all. */
static bool fits_off_t(uint64_t offset, size_t bytes)
{
    uint64_t end;
    return pgd_add_u64(offset, bytes, &end) && end <= INT64_MAX;
}
_Static_assert(sizeof(off_t) == 8, "file offsets have 64 bits");

static enum pagoda_status posix_read(void *user, struct pgd_file *file, uint64_t offset, void *buffer, size_t bytes,
                                     struct pagoda_error *error)
{
    (void) user;
    size_t done = 0;
    const bool reachable = fits_off_t(offset, bytes);
    while (reachable && done < bytes) {
        const ssize_t got = pread(file->descriptor, (char *) buffer + done, bytes - done, (off_t) (offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return pgd_fail(error, PAGODA_IO, "Cannot read \"%s\": %s.", file->name, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        done += (size_t) got;
        PGD_ASSERT(done <= bytes);
    }
    if (!reachable || done < bytes) {
        return pgd_fail(error, PAGODA_CORRUPT, "\"%s\" ends early: %llu bytes were expected at offset %llu.",
                        file->name, (unsigned long long) bytes, (unsigned long long) offset);
    }
    return PAGODA_OK;
}

static enum pagoda_status posix_write(void *user, struct pgd_file *file, uint64_t offset, const void *buffer,
                                      size_t bytes, struct pagoda_error *error)
{
    (void) user;
    if (!fits_off_t(offset, bytes)) {
        return pgd_fail(error, PAGODA_RANGE, "Cannot write to \"%s\": %llu is no offset in a file.", file->name,
                        (unsigned long long) offset);
    }
    size_t done = 0;
    while (done < bytes) {
        const ssize_t put =
            pwrite(file->descriptor, (const char *) buffer + done, bytes - done, (off_t) (offset + done));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return pgd_fail(error, PAGODA_IO, "Cannot write to \"%s\": %s.", file->name,
                            strerror(put < 0 ? errno : EIO));
        }
        done += (size_t) put;
        PGD_ASSERT(done <= bytes);
    }
    return PAGODA_OK;
}

static void posix_close(void *user, struct pgd_file *file)
{
    (void) user;
    if (file == NULL) {
        return;
    }
    (void) close(file->descriptor); /* never again, not even after EINTR: the number may be another file's by then */
    free(file);
}

const struct pgd_vfs *pgd_os_vfs(void)
{
    static const struct pgd_vfs vfs = {
        .open_read = posix_open_read,
        .open_scratch = posix_open_scratch,
        .size = posix_size,
        .read = posix_read,
        .write = posix_write,
        .close = posix_close,
        .user = NULL,
    };
    return &vfs;
}
