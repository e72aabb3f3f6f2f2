/* tier/flash.h - a file of extents that outgrows memory: pages are written to it once and read back by the ticket.
 *
 *   write     owner ---- write_once ----> file                     (blocks; retries what came short)
 *   read      conductor -- queue(ticket) ..., submit -> the kernel (io_uring) or a few threads -> into memory
 *             anybody    -- poll, wait -> DONE or FAILED
 *
 * A ticket, and who moves it:
 *
 *     IDLE -- queue -> PENDING -- the last byte is there ----------------> DONE   -- finish --> IDLE
 *                         |   ^                                             |
 *                         |   +-- short: the rest; EIO and others: twice    |
 *                         +------ once more than that --------> FAILED -----+
 *
 * The file has no name and mode 0600: nothing is left of it, however the process ends. It is read and written past
 * the page cache (O_DIRECT) where the file system can; where it cannot, pages are put out of the page cache after every
 * use, so that it neither makes reads look fast nor takes memory that the budget does not know of.
 *
 * Promises
 *   No memory is allocated between open and close, and none but pgd_flash_table_bytes at open.
 *   queue and submit neither block nor allocate. A DONE read has all its bytes, exactly as they were written by the
 *   device's account; telling a device that lies is the reader's part (checksums).
 *   The file is never larger than bytes_max, leaves reserve_bytes of the file system free at the time of every write,
 *   and no more than write_budget_bytes are ever written.
 * Ownership: buffers are the caller's, `from` until write returns, `into` from queue until finish.
 * Threads:   write, free, reset, open and close: the owner's thread. queue, submit, read, finish: one thread at a time,
 *            which may be another one than the owner's, also while the owner writes. poll and wait: any number of
 *            threads. An extent that is being read may not be freed, nor the file be reset.
 * Signals:   a process under a limit on the size of files must ignore SIGXFSZ, or a write ends it.
 * Units:     offsets and sizes are bytes of the file and multiples of PGD_FLASH_ALIGN, as are buffers' addresses.
 */
#ifndef PGD_TIER_FLASH_H
#define PGD_TIER_FLASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/system.h"
#include "os/os.h"
#include "pagoda/status.h"

#define PGD_FLASH_ALIGN 4096u                   /* offsets, sizes and buffers are multiples of this */
#define PGD_FLASH_READS_MAX 1024u               /* most tickets */
#define PGD_FLASH_BYTES_MAX (UINT64_C(1) << 43) /* most bytes of a file */

enum pgd_flash_backend {
    PGD_FLASH_AUTO = 0, /* io_uring, or threads where the kernel refuses it or its first read goes wrong */
    PGD_FLASH_URING,    /* UNSUPPORTED where it does not work */
    PGD_FLASH_THREADS   /* a few threads with pread */
};

struct pgd_flash;

struct pgd_flash_options {
    const char *directory;       /* where the file is made; NULL: pgd_os_cache_directory */
    uint64_t bytes_max;          /* most bytes of the file, rounded down to PGD_FLASH_ALIGN */
    uint64_t reserve_bytes;      /* free space of the file system that is left to others */
    uint64_t write_budget_bytes; /* most bytes ever written; 0: no bound */
    uint32_t reads_max;          /* 1 .. PGD_FLASH_READS_MAX: tickets, and most reads in flight */
    enum pgd_flash_backend backend;
    uint64_t throttle_bytes_per_second; /* 0: none; else reads are done no sooner than a device with this bandwidth
                                         * would have done them, one after the other */
    const struct pgd_system *system;    /* copied; its tables must outlive the flash */
    const struct pgd_vfs *vfs;          /* NULL: the system's; must outlive the flash */
};

/* Opens an empty file. Errors: NOT_FOUND and IO (the directory, or the first write and read in it), INVALID
 * (reads_max), LIMIT (bytes_max), UNSUPPORTED (URING where there is none), NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_flash_open(const struct pgd_flash_options *options, struct pgd_flash **flash,
                                                 struct pagoda_error *error);

/* Waits for reads in flight. NULL is allowed. */
void pgd_flash_close(struct pgd_flash *flash);

/* Bytes of memory that open takes and close gives back: tickets, free extents, the queues of the kernel or what the
 * threads touch of their stacks. The larger of both with AUTO, so that it is known before. */
uint64_t pgd_flash_table_bytes(const struct pgd_flash_options *options);

/* ---- writing: the owner's thread ---- */

/* Takes `bytes` (> 0) of the file and writes them from `from`; *offset says where. On failure the extent is free again,
 * and nothing is written but what a failing device took.
 * Errors: FULL (no room of that size within bytes_max, or the reserve would be touched: freeing may help), LIMIT (the
 * write budget is used up), IO (the device; the message tells EIO, ENOSPC and EDQUOT apart). */
PGD_MUST_CHECK enum pagoda_status pgd_flash_write(struct pgd_flash *flash, const void *from, uint64_t bytes,
                                                  uint64_t *offset, struct pagoda_error *error);

/* Gives an extent back, whole, as it was written. Its space is written again; when much more lies free than is in use,
 * the device's blocks are given back too (holes are punched), where the file system can do that. */
void pgd_flash_free(struct pgd_flash *flash, uint64_t offset, uint64_t bytes);

/* Nothing is in the file any more. Counters go on. No read may be in flight. */
void pgd_flash_reset(struct pgd_flash *flash);

/* ---- reading: one thread at a time begins and finishes, any may look and wait ---- */

enum pgd_flash_read_state {
    PGD_FLASH_IDLE = 0,
    PGD_FLASH_PENDING,
    PGD_FLASH_DONE,  /* `into` holds the bytes */
    PGD_FLASH_FAILED /* what `into` holds means nothing */
};

/* Takes an idle ticket, 0 .. reads_max - 1, to read [offset, offset + bytes) with the next submit. `bytes` > 0. */
void pgd_flash_queue(struct pgd_flash *flash, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into);

/* Begins all reads that are queued, with one system call where there is io_uring. (So does whoever waits.) */
void pgd_flash_submit(struct pgd_flash *flash);

/* Both for one read. */
void pgd_flash_read(struct pgd_flash *flash, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into);

/* What has become of it, without waiting. With DONE, `into` may be read by the asking thread. */
enum pgd_flash_read_state pgd_flash_poll(struct pgd_flash *flash, uint32_t ticket);

/* The same, once it is no longer PENDING or the system's clock says deadline_ns (0: never). Looks a few times, then
 * sleeps: the threads that compute may be as many as there are CPUs. */
enum pgd_flash_read_state pgd_flash_wait(struct pgd_flash *flash, uint32_t ticket, uint64_t deadline_ns);

/* Makes a ticket idle that is DONE or FAILED. */
void pgd_flash_finish(struct pgd_flash *flash, uint32_t ticket);

/* Why a ticket is FAILED, as PAGODA_IO. */
enum pagoda_status pgd_flash_explain(const struct pgd_flash *flash, uint32_t ticket, struct pagoda_error *error);

/* ---- counting: the owner's thread, or any while nobody writes ---- */

struct pgd_flash_stats {
    uint64_t bytes_used;    /* extents written and not freed */
    uint64_t file_bytes;    /* length of the file; bytes_used and what lies free between */
    uint64_t bytes_lost;    /* free, but out of reach until reset: the list of free extents was full */
    uint64_t bytes_punched; /* given back to the file system */
    uint64_t bytes_written;
    uint64_t bytes_read; /* by reads that are done */
    uint64_t writes;
    uint64_t reads;        /* begun */
    uint64_t retries;      /* calls repeated after an error or a short transfer */
    uint64_t read_errors;  /* reads that failed for good */
    uint64_t write_errors; /* writes that failed; those that were refused before do not count */
    bool direct;           /* past the page cache */
    bool in_memory;        /* the file system itself is memory (tmpfs): what is spilled there saves nothing */
    const char *backend;   /* "io_uring" or "threads" */
};
void pgd_flash_get_stats(const struct pgd_flash *flash, struct pgd_flash_stats *stats);

/* Free bytes of the file system, the reserve among them; 0 when it does not tell. */
uint64_t pgd_flash_free_bytes(const struct pgd_flash *flash);

#endif
