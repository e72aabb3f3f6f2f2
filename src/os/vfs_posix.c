/* os/vfs_posix.c - files by the calls of POSIX. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/number.h"
#include "base/status.h"
#include "os/file.h"
#include "os/os.h"
#include "os/ring.h"

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

/* ---- single calls ---- */

/* More than this in one call is cut short by the kernel anyway. */
#define CALL_BYTES_MAX ((size_t) 1 << 30)

static int64_t posix_read_once(void *user, struct pgd_file *file, uint64_t offset, void *buffer, size_t bytes)
{
    (void) user;
    if (!fits_off_t(offset, bytes)) {
        return -EINVAL;
    }
    const size_t part = (size_t) pgd_min_u64(bytes, CALL_BYTES_MAX);
    const ssize_t got = pread(file->descriptor, buffer, part, (off_t) offset);
    return got < 0 ? -(int64_t) errno : (int64_t) got;
}

static int64_t posix_write_once(void *user, struct pgd_file *file, uint64_t offset, const void *buffer, size_t bytes)
{
    (void) user;
    if (!fits_off_t(offset, bytes)) {
        return -EINVAL;
    }
    const size_t part = (size_t) pgd_min_u64(bytes, CALL_BYTES_MAX);
    const ssize_t put = pwrite(file->descriptor, buffer, part, (off_t) offset);
    return put < 0 ? -(int64_t) errno : (int64_t) put;
}

/* Newer kernels take O_DIRECT for files in memory too, and go through the page cache all the same: there is nothing
 * else behind them. */
static bool is_in_memory(int descriptor)
{
    enum { TMPFS = 0x01021994, RAMFS = (int) 0x858458f6 };
    struct statfs about;
    return fstatfs(descriptor, &about) == 0 && ((int) about.f_type == TMPFS || (int) about.f_type == RAMFS);
}

static int posix_set_direct(void *user, struct pgd_file *file, bool direct)
{
    (void) user;
    if (is_in_memory(file->descriptor)) {
        return direct ? EOPNOTSUPP : 0;
    }
    const int flags = fcntl(file->descriptor, F_GETFL);
    if (flags < 0 || fcntl(file->descriptor, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) != 0) {
        return errno;
    }
    if (!direct) {
        /* No read-ahead: pages are wanted in no order, and what was not asked for would only eat memory. */
        (void) posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_RANDOM);
    }
    return 0;
}

static void posix_forget(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    (void) user;
    (void) posix_fadvise(file->descriptor, (off_t) offset, (off_t) bytes, POSIX_FADV_DONTNEED);
}

static int posix_settle(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (sync_file_range(file->descriptor, (off_t) offset, (off_t) bytes, all) != 0 && errno != ENOSYS) {
        return errno;
    }
    posix_forget(user, file, offset, bytes);
    return 0;
}

static int posix_punch(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    (void) user;
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(file->descriptor, mode, (off_t) offset, (off_t) bytes) != 0 ? errno : 0;
}

static int posix_truncate(void *user, struct pgd_file *file, uint64_t bytes)
{
    (void) user;
    return ftruncate(file->descriptor, (off_t) bytes) != 0 ? errno : 0;
}

static int posix_free_bytes(void *user, struct pgd_file *file, uint64_t *bytes)
{
    (void) user;
    struct statvfs about;
    if (fstatvfs(file->descriptor, &about) != 0) {
        return errno;
    }
    return pgd_mul_u64(about.f_bavail, about.f_frsize, bytes) ? 0 : EOVERFLOW;
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
        .read_once = posix_read_once,
        .write_once = posix_write_once,
        .set_direct = posix_set_direct,
        .settle = posix_settle,
        .forget = posix_forget,
        .punch = posix_punch,
        .truncate = posix_truncate,
        .free_bytes = posix_free_bytes,
        .ring_open = pgd_ring_open,
        .ring_add = pgd_ring_add,
        .ring_submit = pgd_ring_submit,
        .ring_ready = pgd_ring_ready,
        .ring_take = pgd_ring_take,
        .ring_wait = pgd_ring_wait,
        .ring_close = pgd_ring_close,
        .user = NULL,
    };
    return &vfs;
}
