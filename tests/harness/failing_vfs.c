/* harness/failing_vfs.c - see failing_vfs.h. */
#include "harness/failing_vfs.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/status.h"

/* Counts a call. 0: it goes on; an errno, or FAILING_SHORT. */
static int verdict(struct failing_vfs *disk, enum failing_call call)
{
    const uint64_t nth = atomic_fetch_add(&disk->calls[call], 1) + 1;
    if (call != disk->call || disk->fail_at == 0 || nth < disk->fail_at || (nth > disk->fail_at && !disk->sticky)) {
        return 0;
    }
    atomic_fetch_add(&disk->failed, 1);
    return disk->number;
}

/* Calls that transfer nothing can be neither short nor wrong. */
static int verdict_whole(struct failing_vfs *disk, enum failing_call call)
{
    const int number = verdict(disk, call);
    return number < 0 ? EIO : number;
}

/* ---- a slow device ---- */

static uint64_t now_ns(void)
{
    struct timespec now = {0};
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Of the delay that began with the latest read, what is left. */
static uint64_t left_ns(const struct failing_vfs *disk)
{
    const uint64_t until = disk->slow_until_ns;
    const uint64_t now = until > 0 ? now_ns() : 0;
    return until > now ? until - now : 0;
}

static void begin_delay(struct failing_vfs *disk)
{
    const uint64_t delay_us = disk->read_delay_us;
    disk->slow_until_ns = delay_us > 0 ? now_ns() + delay_us * 1000 : 0;
}

static void nap(uint64_t nanoseconds)
{
    const struct timespec time = {(time_t) (nanoseconds / 1000000000u), (long) (nanoseconds % 1000000000u)};
    (void) nanosleep(&time, NULL);
}

static void rot(unsigned char *bytes, int64_t count)
{
    if (count > 0) {
        bytes[count / 2] ^= 16;
    }
}

/* ---- files ---- */

static enum pagoda_status failing_open_read(void *user, const char *path, struct pgd_file **file,
                                            struct pagoda_error *error)
{
    struct failing_vfs *const disk = user;
    const enum pagoda_status status = pgd_os_vfs()->open_read(NULL, path, file, error);
    disk->open_things += status == PAGODA_OK ? 1 : 0;
    return status;
}

static enum pagoda_status failing_open_scratch(void *user, const char *directory, struct pgd_file **file,
                                               struct pagoda_error *error)
{
    struct failing_vfs *const disk = user;
    const int number = verdict_whole(disk, FAILING_OPEN);
    if (number != 0) {
        return pgd_fail(error, PAGODA_IO, "Cannot make a scratch file in \"%s\": %s.", directory, strerror(number));
    }
    const enum pagoda_status status = pgd_os_vfs()->open_scratch(NULL, directory, file, error);
    disk->open_things += status == PAGODA_OK ? 1 : 0;
    return status;
}

static void failing_close(void *user, struct pgd_file *file)
{
    struct failing_vfs *const disk = user;
    disk->open_things -= file != NULL ? 1 : 0;
    pgd_os_vfs()->close(NULL, file);
}

static int64_t failing_read_once(void *user, struct pgd_file *file, uint64_t offset, void *buffer, size_t bytes)
{
    struct failing_vfs *const disk = user;
    const int number = verdict(disk, FAILING_READ);
    begin_delay(disk);
    nap(left_ns(disk));
    if (number > 0) {
        return -number;
    }
    const int64_t got = pgd_os_vfs()->read_once(NULL, file, offset, buffer, bytes);
    if (number == FAILING_ROT) {
        rot(buffer, got);
    }
    return number == FAILING_SHORT && got > 0 ? got / 2 : got;
}

/* Half of it. A half that is no whole block cannot be written directly: then the blocks before it are. */
static int64_t write_short(struct pgd_file *file, uint64_t offset, const void *buffer, size_t bytes)
{
    const size_t half = bytes / 2;
    const size_t whole = half / 4096 * 4096;
    int64_t put = pgd_os_vfs()->write_once(NULL, file, offset, buffer, half);
    if (put == -EINVAL) {
        put = whole > 0 ? pgd_os_vfs()->write_once(NULL, file, offset, buffer, whole) : 0;
        put = put == (int64_t) whole ? (int64_t) half : put;
    }
    return put;
}

static int64_t failing_write_once(void *user, struct pgd_file *file, uint64_t offset, const void *buffer, size_t bytes)
{
    const int number = verdict(user, FAILING_WRITE);
    if (number > 0) {
        return -number;
    }
    if (number == FAILING_SHORT) {
        return write_short(file, offset, buffer, bytes);
    }
    return pgd_os_vfs()->write_once(NULL, file, offset, buffer, bytes);
}

static int failing_set_direct(void *user, struct pgd_file *file, bool direct)
{
    struct failing_vfs *const disk = user;
    const int number = verdict_whole(disk, FAILING_DIRECT);
    if (number != 0 || (direct && disk->direct_answer != 0)) {
        return number != 0 ? number : disk->direct_answer;
    }
    return pgd_os_vfs()->set_direct(NULL, file, direct);
}

static int failing_settle(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    const int number = verdict_whole(user, FAILING_SETTLE);
    return number != 0 ? number : pgd_os_vfs()->settle(NULL, file, offset, bytes);
}

static void failing_forget(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    struct failing_vfs *const disk = user;
    disk->forgotten++;
    pgd_os_vfs()->forget(NULL, file, offset, bytes);
}

static int failing_punch(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes)
{
    const int number = verdict_whole(user, FAILING_PUNCH);
    return number != 0 ? number : pgd_os_vfs()->punch(NULL, file, offset, bytes);
}

static int failing_truncate(void *user, struct pgd_file *file, uint64_t bytes)
{
    const int number = verdict_whole(user, FAILING_TRUNCATE);
    return number != 0 ? number : pgd_os_vfs()->truncate(NULL, file, bytes);
}

static int failing_free_bytes(void *user, struct pgd_file *file, uint64_t *bytes)
{
    struct failing_vfs *const disk = user;
    const int number = verdict_whole(disk, FAILING_FREE_BYTES);
    if (number == 0 && disk->says_free) {
        *bytes = disk->free_bytes;
        return 0;
    }
    return number != 0 ? number : pgd_os_vfs()->free_bytes(NULL, file, bytes);
}

/* ---- rings ---- */

static int failing_ring_open(void *user, struct pgd_file *file, uint32_t depth, struct pgd_ring **ring)
{
    struct failing_vfs *const disk = user;
    int number = verdict_whole(disk, FAILING_RING_OPEN);
    if (number == 0) {
        number = pgd_os_vfs()->ring_open(NULL, file, depth, ring);
        disk->open_things += number == 0 ? 1 : 0;
    }
    return number;
}

static bool failing_ring_add(void *user, struct pgd_ring *ring, uint32_t tag, uint64_t offset, void *buffer,
                             size_t bytes)
{
    struct failing_vfs *const disk = user;
    (void) ring;
    if (verdict_whole(disk, FAILING_RING_ADD) != 0 || disk->added_count == FAILING_TAGS) {
        return false;
    }
    disk->added[disk->added_count++] = (struct failing_read) {tag, offset, buffer, bytes};
    return true;
}

/* What is not to be taken never comes to the real ring. */
static int failing_ring_submit(void *user, struct pgd_ring *ring, uint32_t *taken)
{
    struct failing_vfs *const disk = user;
    int number = verdict(disk, FAILING_RING_SUBMIT);
    if (number == FAILING_CROWDED) {
        number = pgd_os_vfs()->ring_ready(NULL, ring) ? EBUSY : 0;
    }
    const uint32_t count = number == FAILING_SHORT ? disk->added_count / 2 : number > 0 ? 0 : disk->added_count;
    disk->added_count = 0;
    *taken = 0;
    if (count == 0) {
        return number > 0 ? number : 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct failing_read *const read = &disk->added[i];
        disk->into[read->tag] = read->buffer;
        (void) pgd_os_vfs()->ring_add(NULL, ring, read->tag, read->offset, read->buffer, read->bytes);
    }
    begin_delay(disk);
    return pgd_os_vfs()->ring_submit(NULL, ring, taken);
}

static bool failing_ring_ready(void *user, const struct pgd_ring *ring)
{
    return left_ns(user) == 0 && pgd_os_vfs()->ring_ready(NULL, ring);
}

static bool failing_ring_take(void *user, struct pgd_ring *ring, struct pgd_ring_done *done)
{
    struct failing_vfs *const disk = user;
    if (left_ns(disk) > 0 || !pgd_os_vfs()->ring_take(NULL, ring, done)) {
        return false;
    }
    const int number = verdict(disk, FAILING_READ);
    if (number == FAILING_ROT) {
        rot(disk->into[done->tag], done->result);
    } else if (number != 0) {
        done->result = number == FAILING_SHORT ? done->result / 2 : -number;
    }
    return true;
}

static void failing_ring_wait(void *user, struct pgd_ring *ring, uint64_t timeout_ns)
{
    const uint64_t slow_ns = left_ns(user);
    if (slow_ns > 0) {
        nap(slow_ns < timeout_ns ? slow_ns : timeout_ns);
    } else {
        pgd_os_vfs()->ring_wait(NULL, ring, timeout_ns);
    }
}

static void failing_ring_close(void *user, struct pgd_ring *ring)
{
    struct failing_vfs *const disk = user;
    disk->open_things -= ring != NULL ? 1 : 0;
    pgd_os_vfs()->ring_close(NULL, ring);
}

/* ---- making ---- */

void failing_vfs_init(struct failing_vfs *disk)
{
    memset(disk, 0, sizeof *disk);
    disk->vfs = *pgd_os_vfs();
    disk->vfs.open_read = failing_open_read;
    disk->vfs.open_scratch = failing_open_scratch;
    disk->vfs.close = failing_close;
    disk->vfs.read_once = failing_read_once;
    disk->vfs.write_once = failing_write_once;
    disk->vfs.set_direct = failing_set_direct;
    disk->vfs.settle = failing_settle;
    disk->vfs.forget = failing_forget;
    disk->vfs.punch = failing_punch;
    disk->vfs.truncate = failing_truncate;
    disk->vfs.free_bytes = failing_free_bytes;
    disk->vfs.ring_open = failing_ring_open;
    disk->vfs.ring_add = failing_ring_add;
    disk->vfs.ring_submit = failing_ring_submit;
    disk->vfs.ring_ready = failing_ring_ready;
    disk->vfs.ring_take = failing_ring_take;
    disk->vfs.ring_wait = failing_ring_wait;
    disk->vfs.ring_close = failing_ring_close;
    disk->vfs.user = disk;
}

void failing_vfs_arm(struct failing_vfs *disk, enum failing_call call, uint64_t nth, bool sticky, int number)
{
    for (int i = 0; i < FAILING_CALLS; i++) {
        disk->calls[i] = 0;
    }
    disk->failed = 0;
    disk->forgotten = 0;
    disk->call = call;
    disk->fail_at = nth;
    disk->sticky = sticky;
    disk->number = number;
}

bool failing_vfs_is_clean(const struct failing_vfs *disk)
{
    return disk->open_things == 0;
}
