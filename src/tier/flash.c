/* tier/flash.c - see flash.h. Extents are in extents.c, reads in reads.c; here are the file and the writes.
 *
 *   0                 held_end        end          file_bytes
 *   | used, free      | used, free    | not in use |
 *     surely on disk    maybe a hole
 *
 * A write below held_end takes no space of the file system, so that the reserve need not be asked about.
 */
#include "tier/flash.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "tier/extents.h"
#include "tier/reads.h"

#define PATH_BYTES 4096
#define UNIT_BYTES PGD_FLASH_ALIGN

/* Free extents that can be told apart: one for this many bytes of the file, within bounds. */
#define BYTES_PER_ENTRY (UINT64_C(256) << 10)
#define ENTRIES_MIN 64u
#define ENTRIES_MAX 4096u

/* Holes are looked for when an eighth of the file has been freed since the last time, within bounds. */
#define SWEEP_SHARE 8u
#define SWEEP_BYTES_MIN (UINT64_C(1) << 20)
#define SWEEP_BYTES_MAX (UINT64_C(256) << 20)

struct pgd_flash {
    struct pgd_system system;
    const struct pgd_vfs *vfs;
    struct pgd_file *file;
    uint64_t block_bytes; /* of this allocation */
    uint64_t bytes_max;
    uint64_t reserve_bytes;
    uint64_t write_budget_bytes;
    uint64_t held_end;
    uint64_t file_bytes;
    uint64_t freed_bytes; /* since holes were last looked for */
    uint64_t bytes_punched;
    uint64_t bytes_written;
    uint64_t writes;
    uint64_t write_retries;
    uint64_t write_errors;
    _Atomic bool direct;
    bool in_memory;
    bool can_punch;
    struct pgd_extents extents;
    struct pgd_reads reads;
};

/* ---- the size of it ---- */

static uint32_t entries_for(uint64_t bytes_max)
{
    const uint64_t wanted = bytes_max / BYTES_PER_ENTRY;
    return (uint32_t) pgd_min_u64(pgd_max_u64(wanted, ENTRIES_MIN), ENTRIES_MAX);
}

/* The flash, its tickets, their queue and the free extents are one allocation, in this order. */
static uint64_t block_bytes_of(const struct pgd_flash_options *options)
{
    return sizeof(struct pgd_flash) + options->reads_max * (sizeof(struct pgd_read) + sizeof(uint32_t)) +
           entries_for(options->bytes_max) * sizeof(struct pgd_extent);
}
_Static_assert(sizeof(struct pgd_flash) % _Alignof(struct pgd_read) == 0, "tickets follow unpadded");
_Static_assert(_Alignof(struct pgd_extent) == _Alignof(uint32_t), "so do queue and extents");

uint64_t pgd_flash_table_bytes(const struct pgd_flash_options *options)
{
    const uint64_t ring = options->backend != PGD_FLASH_THREADS ? pgd_reads_bytes(options->reads_max, true) : 0;
    const uint64_t threads = options->backend != PGD_FLASH_URING ? pgd_reads_bytes(options->reads_max, false) : 0;
    return block_bytes_of(options) + pgd_max_u64(ring, threads);
}

/* ---- writing ---- */

static bool is_direct(const struct pgd_flash *flash)
{
    return atomic_load_explicit(&flash->direct, memory_order_relaxed);
}

/* A file system that took the flag may refuse the transfer. */
static bool gives_up_direct(struct pgd_flash *flash, int number)
{
    if (number != EINVAL || !is_direct(flash) || flash->vfs->set_direct(flash->vfs->user, flash->file, false) != 0) {
        return false;
    }
    atomic_store_explicit(&flash->direct, false, memory_order_relaxed);
    return true;
}

/* Writes all that is left, or counts an interruption. 0 or an errno. */
static int write_some(struct pgd_flash *flash, const char *from, uint64_t bytes, uint64_t offset, uint64_t *done,
                      uint32_t *interruptions)
{
    const uint64_t done_before = *done;
    const int64_t put =
        flash->vfs->write_once(flash->vfs->user, flash->file, offset + *done, from + *done, (size_t) (bytes - *done));
    if (put > 0) {
        PGD_ASSERT((uint64_t) put <= bytes - *done);
        *done += (uint64_t) put;
        flash->bytes_written += (uint64_t) put;
        /* Direct transfers go on at a whole block. */
        *done -= *done < bytes && is_direct(flash) ? *done % UNIT_BYTES : 0;
    }
    const int number = put < 0 ? (int) -put : EIO;
    const bool may_go_on = *done > done_before || gives_up_direct(flash, number) ||
                           pgd_reads_is_interruption(put > 0 ? EINTR : number, interruptions);
    return may_go_on ? 0 : number;
}

/* 0 or an errno. Other than reads, writes that failed are not repeated: the bytes are still in memory, and the caller
 * has better to do with them than to insist. */
static int write_bytes(struct pgd_flash *flash, const char *from, uint64_t bytes, uint64_t offset)
{
    uint64_t done = 0;
    uint32_t interruptions = 0;
    while (done < bytes) {
        const int number = write_some(flash, from, bytes, offset, &done, &interruptions);
        if (number != 0) {
            return number;
        }
        flash->write_retries += done < bytes ? 1 : 0;
    }
    return is_direct(flash) ? 0 : flash->vfs->settle(flash->vfs->user, flash->file, offset, bytes);
}

/* ---- giving space back to the file system ---- */

/* Failing here only keeps space taken. */
static void cut_tail(struct pgd_flash *flash)
{
    const uint64_t end = (uint64_t) flash->extents.end * UNIT_BYTES;
    if (flash->file_bytes > end && flash->vfs->truncate(flash->vfs->user, flash->file, end) == 0) {
        flash->file_bytes = end;
        flash->held_end = pgd_min_u64(flash->held_end, end);
    }
}

static void punch(struct pgd_flash *flash, struct pgd_extent extent)
{
    if (extent.count == 0 || !flash->can_punch) {
        return;
    }
    const uint64_t offset = (uint64_t) extent.offset * UNIT_BYTES;
    const uint64_t bytes = (uint64_t) extent.count * UNIT_BYTES;
    const int number = flash->vfs->punch(flash->vfs->user, flash->file, offset, bytes);
    if (number == 0) {
        flash->bytes_punched += bytes;
        flash->held_end = pgd_min_u64(flash->held_end, offset);
    } else if (number == EOPNOTSUPP || number == ENOSYS) {
        flash->can_punch = false;
    }
}

static void sweep(struct pgd_flash *flash)
{
    cut_tail(flash);
    for (uint32_t i = 0; i < flash->extents.entry_count; i++) {
        punch(flash, flash->extents.entries[i]);
    }
    flash->freed_bytes = 0;
}

static uint64_t sweep_bytes(const struct pgd_flash *flash)
{
    return pgd_min_u64(pgd_max_u64(flash->bytes_max / SWEEP_SHARE, SWEEP_BYTES_MIN), SWEEP_BYTES_MAX);
}

static void give(struct pgd_flash *flash, uint64_t offset, uint64_t bytes)
{
    punch(flash, pgd_extents_give(&flash->extents, (uint32_t) (offset / UNIT_BYTES), (uint32_t) (bytes / UNIT_BYTES)));
}

static bool is_extent(const struct pgd_flash *flash, uint64_t offset, uint64_t bytes)
{
    const uint64_t end = (uint64_t) flash->extents.end * UNIT_BYTES;
    return bytes > 0 && bytes % UNIT_BYTES == 0 && offset % UNIT_BYTES == 0 && offset < end && bytes <= end - offset;
}

void pgd_flash_free(struct pgd_flash *flash, uint64_t offset, uint64_t bytes)
{
    PGD_ASSERT(is_extent(flash, offset, bytes));
    give(flash, offset, bytes);
    flash->freed_bytes += bytes;
    const uint64_t used = (uint64_t) flash->extents.used * UNIT_BYTES;
    if (flash->freed_bytes >= sweep_bytes(flash) && flash->file_bytes - used > used) {
        sweep(flash);
    }
}

static void assert_nothing_in_flight(const struct pgd_flash *flash)
{
    for (uint32_t i = 0; i < flash->reads.ticket_count; i++) {
        const uint32_t state = atomic_load_explicit(&flash->reads.tickets[i].state, memory_order_relaxed);
        PGD_ASSERT(state != PGD_FLASH_PENDING);
    }
}

void pgd_flash_reset(struct pgd_flash *flash)
{
    assert_nothing_in_flight(flash);
    pgd_extents_init(&flash->extents, flash->extents.entries, flash->extents.capacity, flash->extents.units);
    flash->freed_bytes = 0;
    cut_tail(flash);
}

/* ---- what a write needs ---- */

static enum pagoda_status check_write_budget(const struct pgd_flash *flash, uint64_t bytes, struct pagoda_error *error)
{
    const uint64_t left = flash->write_budget_bytes - pgd_min_u64(flash->bytes_written, flash->write_budget_bytes);
    if (flash->write_budget_bytes == 0 || bytes <= left) {
        return PAGODA_OK;
    }
    return pgd_fail(error, PAGODA_LIMIT, "The flash tier may write %llu bytes in all, and has written %llu.",
                    (unsigned long long) flash->write_budget_bytes, (unsigned long long) flash->bytes_written);
}

static enum pagoda_status take(struct pgd_flash *flash, uint64_t bytes, uint64_t *offset, struct pagoda_error *error)
{
    uint32_t unit = 0;
    if (bytes > flash->bytes_max || !pgd_extents_take(&flash->extents, (uint32_t) (bytes / UNIT_BYTES), &unit)) {
        return pgd_fail(error, PAGODA_FULL,
                        "The flash tier is full: %llu of %llu bytes are in use, and %llu more do "
                        "not fit.",
                        (unsigned long long) flash->extents.used * UNIT_BYTES, (unsigned long long) flash->bytes_max,
                        (unsigned long long) bytes);
    }
    *offset = (uint64_t) unit * UNIT_BYTES;
    return PAGODA_OK;
}

static enum pagoda_status check_reserve(const struct pgd_flash *flash, uint64_t offset, uint64_t bytes,
                                        struct pagoda_error *error)
{
    const uint64_t end = offset + bytes;
    if (flash->reserve_bytes == 0 || end <= flash->held_end) {
        return PAGODA_OK;
    }
    const uint64_t wanted = end - pgd_max_u64(offset, flash->held_end);
    uint64_t available = 0;
    const int number = flash->vfs->free_bytes(flash->vfs->user, flash->file, &available);
    if (number != 0) {
        return pgd_fail(error, PAGODA_IO, "Cannot tell how much space is free for the flash tier: %s.",
                        strerror(number));
    }
    if (pgd_add_capped_u64(flash->reserve_bytes, wanted) <= available) {
        return PAGODA_OK;
    }
    return pgd_fail(error, PAGODA_FULL,
                    "The flash tier stops here: %llu bytes of its file system are free, and %llu "
                    "are left to others.",
                    (unsigned long long) available, (unsigned long long) flash->reserve_bytes);
}

/* Writes into an extent that has been taken. */
static enum pagoda_status fill(struct pgd_flash *flash, const void *from, uint64_t bytes, uint64_t offset,
                               struct pagoda_error *error)
{
    const int number = write_bytes(flash, from, bytes, offset);
    flash->file_bytes = pgd_max_u64(flash->file_bytes, offset + bytes); /* also when only a part of it is there */
    if (number != 0) {
        flash->write_errors++;
        return pgd_fail(error, PAGODA_IO, "Cannot write to the flash tier: %s.", strerror(number));
    }
    flash->writes++;
    if (offset <= flash->held_end) {
        flash->held_end = pgd_max_u64(flash->held_end, offset + bytes);
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_flash_write(struct pgd_flash *flash, const void *from, uint64_t bytes, uint64_t *offset,
                                   struct pagoda_error *error)
{
    PGD_ASSERT(bytes > 0 && bytes % UNIT_BYTES == 0 && (uintptr_t) from % PGD_FLASH_ALIGN == 0);
    enum pagoda_status status = check_write_budget(flash, bytes, error);
    if (status != PAGODA_OK) {
        return status;
    }
    uint64_t taken = 0;
    status = take(flash, bytes, &taken, error);
    if (status != PAGODA_OK) {
        return status;
    }
    status = check_reserve(flash, taken, bytes, error);
    if (status == PAGODA_OK) {
        status = fill(flash, from, bytes, taken, error);
    }
    if (status != PAGODA_OK) {
        give(flash, taken, bytes);
        cut_tail(flash); /* on a full device every block counts */
        return status;
    }
    *offset = taken;
    return PAGODA_OK;
}

/* ---- reading ---- */

void pgd_flash_queue(struct pgd_flash *flash, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into)
{
    PGD_ASSERT(ticket < flash->reads.ticket_count && (uintptr_t) into % PGD_FLASH_ALIGN == 0);
    PGD_ASSERT(bytes > 0 && bytes % UNIT_BYTES == 0 && offset % UNIT_BYTES == 0);
    PGD_ASSERT(bytes <= flash->bytes_max && offset <= flash->bytes_max - bytes);
    pgd_reads_begin(&flash->reads, ticket, offset, bytes, into);
}

void pgd_flash_submit(struct pgd_flash *flash)
{
    pgd_reads_submit(&flash->reads);
}

void pgd_flash_read(struct pgd_flash *flash, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into)
{
    pgd_flash_queue(flash, ticket, offset, bytes, into);
    pgd_flash_submit(flash);
}

enum pgd_flash_read_state pgd_flash_poll(struct pgd_flash *flash, uint32_t ticket)
{
    PGD_ASSERT(ticket < flash->reads.ticket_count);
    return pgd_reads_poll(&flash->reads, ticket);
}

enum pgd_flash_read_state pgd_flash_wait(struct pgd_flash *flash, uint32_t ticket, uint64_t deadline_ns)
{
    PGD_ASSERT(ticket < flash->reads.ticket_count);
    return pgd_reads_wait(&flash->reads, ticket, deadline_ns);
}

void pgd_flash_finish(struct pgd_flash *flash, uint32_t ticket)
{
    PGD_ASSERT(ticket < flash->reads.ticket_count);
    _Atomic uint32_t *const state = &flash->reads.tickets[ticket].state;
    const uint32_t before = atomic_exchange_explicit(state, PGD_FLASH_IDLE, memory_order_acq_rel);
    PGD_ASSERT(before == PGD_FLASH_DONE || before == PGD_FLASH_FAILED);
}

enum pagoda_status pgd_flash_explain(const struct pgd_flash *flash, uint32_t ticket, struct pagoda_error *error)
{
    PGD_ASSERT(ticket < flash->reads.ticket_count);
    const struct pgd_read *const read = &flash->reads.tickets[ticket];
    PGD_ASSERT(atomic_load_explicit(&read->state, memory_order_acquire) == PGD_FLASH_FAILED);
    return pgd_fail(error, PAGODA_IO, "Cannot read %llu bytes of the flash tier: %s.", (unsigned long long) read->bytes,
                    strerror(read->error_number));
}

/* ---- opening and closing ---- */

static enum pagoda_status check_options(const struct pgd_flash_options *options, struct pagoda_error *error)
{
    if (options->reads_max == 0 || options->reads_max > PGD_FLASH_READS_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "reads_max is %u: it must be from 1 to %u.", options->reads_max,
                        PGD_FLASH_READS_MAX);
    }
    if (options->bytes_max > PGD_FLASH_BYTES_MAX) {
        return pgd_fail(error, PAGODA_LIMIT, "The flash tier would have %llu bytes: %llu is the most.",
                        (unsigned long long) options->bytes_max, (unsigned long long) PGD_FLASH_BYTES_MAX);
    }
    return PAGODA_OK;
}

static struct pgd_flash *allocate(const struct pgd_flash_options *options)
{
    const uint64_t bytes = block_bytes_of(options);
    struct pgd_flash *const flash = pgd_allocate(options->system, (size_t) bytes);
    if (flash == NULL) {
        return NULL;
    }
    struct pgd_read *const tickets = (void *) (flash + 1);
    uint32_t *const queue = (void *) (tickets + options->reads_max);
    struct pgd_extent *const entries = (void *) (queue + options->reads_max);
    flash->system = *options->system;
    flash->vfs = options->vfs != NULL ? options->vfs : pgd_os_vfs();
    flash->block_bytes = bytes;
    flash->bytes_max = options->bytes_max - options->bytes_max % UNIT_BYTES;
    flash->reserve_bytes = options->reserve_bytes;
    flash->write_budget_bytes = options->write_budget_bytes;
    flash->can_punch = true;
    pgd_extents_init(&flash->extents, entries, entries_for(options->bytes_max),
                     (uint32_t) (flash->bytes_max / UNIT_BYTES));
    flash->reads.vfs = flash->vfs;
    flash->reads.clock = flash->system.clock;
    flash->reads.tickets = tickets;
    flash->reads.queue = queue;
    flash->reads.ticket_count = options->reads_max;
    flash->reads.direct = &flash->direct;
    return flash;
}

static enum pagoda_status make_file(struct pgd_flash *flash, const char *directory, struct pagoda_error *error)
{
    char path[PATH_BYTES];
    if (directory == NULL && !pgd_os_cache_directory(path, sizeof path)) {
        return pgd_fail(error, PAGODA_NOT_FOUND,
                        "There is no directory for the flash tier that can be written: "
                        "neither the cache directory nor a temporary one.");
    }
    const enum pagoda_status status =
        flash->vfs->open_scratch(flash->vfs->user, directory != NULL ? directory : path, &flash->file, error);
    if (status != PAGODA_OK) {
        return status;
    }
    flash->reads.file = flash->file;
    const int number = flash->vfs->set_direct(flash->vfs->user, flash->file, true);
    flash->in_memory = number == EOPNOTSUPP;
    flash->direct = number == 0;
    if (number != 0) {
        (void) flash->vfs->set_direct(flash->vfs->user, flash->file, false);
    }
    return PAGODA_OK;
}

/* A block to try the file with before anything depends on it. */
struct trial {
    _Alignas(PGD_FLASH_ALIGN) unsigned char bytes[PGD_FLASH_ALIGN];
};

static void fill_trial(struct trial *trial)
{
    for (uint32_t i = 0; i < sizeof trial->bytes; i++) {
        trial->bytes[i] = (unsigned char) (i * 31 + i / 256);
    }
}

static enum pagoda_status write_trial(struct pgd_flash *flash, struct pagoda_error *error)
{
    struct trial trial;
    fill_trial(&trial);
    const int number = write_bytes(flash, (const char *) trial.bytes, sizeof trial.bytes, 0);
    flash->file_bytes = sizeof trial.bytes;
    return number == 0 ? PAGODA_OK
                       : pgd_fail(error, PAGODA_IO, "Cannot write to the flash tier: %s.", strerror(number));
}

/* Reads the block back by whatever was just opened. */
static enum pagoda_status read_trial(struct pgd_flash *flash, struct pagoda_error *error)
{
    struct trial trial;
    struct trial expected;
    memset(&trial, 0, sizeof trial);
    fill_trial(&expected);
    pgd_reads_begin(&flash->reads, 0, 0, sizeof trial.bytes, trial.bytes);
    pgd_reads_submit(&flash->reads);
    enum pagoda_status status = PAGODA_OK;
    if (pgd_reads_wait(&flash->reads, 0, 0) == PGD_FLASH_FAILED) {
        status = pgd_flash_explain(flash, 0, error);
    } else if (memcmp(trial.bytes, expected.bytes, sizeof trial.bytes) != 0) {
        status = pgd_fail(error, PAGODA_CORRUPT, "The flash tier does not give back what was written to it.");
    }
    pgd_flash_finish(flash, 0);
    return status;
}

static enum pagoda_status open_backend(struct pgd_flash *flash, bool uses_ring, struct pagoda_error *error)
{
    const int number = pgd_reads_open(&flash->reads, uses_ring);
    if (number != 0) {
        return pgd_fail(error, uses_ring ? PAGODA_UNSUPPORTED : PAGODA_NOMEM, "Cannot start %s: %s.",
                        uses_ring ? "io_uring" : "the threads of the flash tier", strerror(number));
    }
    const enum pagoda_status status = read_trial(flash, error);
    if (status != PAGODA_OK) {
        pgd_reads_close(&flash->reads);
    }
    return status;
}

/* The trial is no business of anybody's: what it wrote, read and failed at is not counted. */
static void forget_trial(struct pgd_flash *flash)
{
    flash->bytes_written = 0;
    flash->write_retries = 0;
    flash->reads.bytes_read = 0;
    flash->reads.begun = 0;
    flash->reads.retries = 0;
    flash->reads.failed = 0;
    cut_tail(flash);
}

static enum pagoda_status open_reads(struct pgd_flash *flash, enum pgd_flash_backend backend,
                                     struct pagoda_error *error)
{
    enum pagoda_status status = write_trial(flash, error);
    if (status != PAGODA_OK) {
        return status;
    }
    switch (backend) {
    case PGD_FLASH_URING: status = open_backend(flash, true, error); break;
    case PGD_FLASH_THREADS: status = open_backend(flash, false, error); break;
    case PGD_FLASH_AUTO:
        status = open_backend(flash, true, NULL);
        if (status != PAGODA_OK) {
            status = open_backend(flash, false, error);
        }
        break;
    }
    forget_trial(flash);
    return status;
}

static void release(struct pgd_flash *flash)
{
    flash->vfs->close(flash->vfs->user, flash->file);
    const struct pgd_system system = flash->system; /* it lies in what is released */
    pgd_release(&system, flash, (size_t) flash->block_bytes);
}

enum pagoda_status pgd_flash_open(const struct pgd_flash_options *options, struct pgd_flash **flash,
                                  struct pagoda_error *error)
{
    enum pagoda_status status = check_options(options, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_flash *const made = allocate(options);
    if (made == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "No memory for the tables of the flash tier.");
    }
    status = make_file(made, options->directory, error);
    if (status == PAGODA_OK) {
        status = open_reads(made, options->backend, error);
    }
    if (status != PAGODA_OK) {
        release(made);
        return status;
    }
    made->reads.throttle_bytes_per_second = options->throttle_bytes_per_second; /* only now: not for the trial */
    *flash = made;
    return PAGODA_OK;
}

void pgd_flash_close(struct pgd_flash *flash)
{
    if (flash != NULL) {
        pgd_reads_close(&flash->reads);
        release(flash);
    }
}

/* ---- counting ---- */

void pgd_flash_get_stats(const struct pgd_flash *flash, struct pgd_flash_stats *stats)
{
    const struct pgd_reads *const reads = &flash->reads;
    *stats = (struct pgd_flash_stats) {
        .bytes_used = (uint64_t) flash->extents.used * UNIT_BYTES,
        .file_bytes = flash->file_bytes,
        .bytes_lost = (uint64_t) flash->extents.lost * UNIT_BYTES,
        .bytes_punched = flash->bytes_punched,
        .bytes_written = flash->bytes_written,
        .bytes_read = atomic_load_explicit(&reads->bytes_read, memory_order_relaxed),
        .writes = flash->writes,
        .reads = atomic_load_explicit(&reads->begun, memory_order_relaxed),
        .retries = flash->write_retries + atomic_load_explicit(&reads->retries, memory_order_relaxed),
        .read_errors = atomic_load_explicit(&reads->failed, memory_order_relaxed),
        .write_errors = flash->write_errors,
        .direct = is_direct(flash),
        .in_memory = flash->in_memory,
        .backend = reads->ring != NULL ? "io_uring" : "threads",
    };
}

uint64_t pgd_flash_free_bytes(const struct pgd_flash *flash)
{
    uint64_t bytes = 0;
    return flash->vfs->free_bytes(flash->vfs->user, flash->file, &bytes) == 0 ? bytes : 0;
}
