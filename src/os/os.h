/* os/os.h - the only place of libpagoda that calls the operating system.
 *
 * Seams (docs in pagoda/system.h): allocator, memory source, clock. Files and memory-pressure sources
 * have their seams here too, so that every fallback can be tested with a directory of fixtures or a
 * failing file system.
 */
#ifndef PGD_OS_OS_H
#define PGD_OS_OS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/system.h"

/* The host's tables with defaults for all that is missing. `host` may be NULL; a table that is there has
 * all its functions. */
void pgd_os_system(const struct pagoda_system *host, struct pgd_system *system);

/* Seconds by the monotonic clock of this machine. */
double pgd_os_seconds(void);

/* ---- files (VFS) ---- */

struct pgd_file; /* opaque; made by a struct pgd_vfs */
struct pgd_ring; /* likewise */

/* A read that a ring has done: what read_once would have answered. */
struct pgd_ring_done {
    uint32_t tag; /* as given to ring_read */
    int32_t result;
};

/* A file system. All functions return PAGODA_OK or a typed error; reads and writes transfer exactly
 * `bytes` at `offset` (EINTR and short transfers are handled inside), end of file included: reading
 * past the end is PAGODA_CORRUPT. */
struct pgd_vfs {
    enum pagoda_status (*open_read)(void *user, const char *path, struct pgd_file **file, struct pagoda_error *error);
    /* A nameless file in `directory`, mode 0600, that is gone when closed, however the process ends. */
    enum pagoda_status (*open_scratch)(void *user, const char *directory, struct pgd_file **file,
                                       struct pagoda_error *error);
    enum pagoda_status (*size)(void *user, struct pgd_file *file, uint64_t *bytes, struct pagoda_error *error);
    enum pagoda_status (*read)(void *user, struct pgd_file *file, uint64_t offset, void *buffer, size_t bytes,
                               struct pagoda_error *error);
    enum pagoda_status (*write)(void *user, struct pgd_file *file, uint64_t offset, const void *buffer, size_t bytes,
                                struct pagoda_error *error);
    void (*close)(void *user, struct pgd_file *file); /* NULL is allowed */

    /* ---- for scratch files: single calls, answered as the system answers them ----
     * An int is 0 or an errno. Offsets, sizes and buffers of a file that is direct are multiples of 4096. */

    /* Bytes transferred, perhaps fewer than asked, 0 at the end of the file; or -errno, EINTR among them. */
    int64_t (*read_once)(void *user, struct pgd_file *file, uint64_t offset, void *buffer, size_t bytes);
    int64_t (*write_once)(void *user, struct pgd_file *file, uint64_t offset, const void *buffer, size_t bytes);
    /* Whether transfers go past the page cache. EINVAL: not this file system. EOPNOTSUPP: its files are memory. */
    int (*set_direct)(void *user, struct pgd_file *file, bool direct);
    /* For a file that is not direct: puts what was written on the device, and the pages out of the page cache. */
    int (*settle)(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes);
    /* For a file that is not direct: puts pages that were read out of the page cache. */
    void (*forget)(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes);
    /* Gives the device's blocks of this range back; it reads as zero. EOPNOTSUPP where there is no such thing. */
    int (*punch)(void *user, struct pgd_file *file, uint64_t offset, uint64_t bytes);
    int (*truncate)(void *user, struct pgd_file *file, uint64_t bytes);
    /* Bytes of the file system that this process may still take. */
    int (*free_bytes)(void *user, struct pgd_file *file, uint64_t *bytes);

    /* A queue of reads that the kernel works off (io_uring); see struct pgd_ring_done. ENOSYS and EPERM where there
     * is none. One thread at a time adds, submits or takes; any may wait meanwhile or ask if something is ready. */
    int (*ring_open)(void *user, struct pgd_file *file, uint32_t depth, struct pgd_ring **ring);
    /* Adds a read to those that ring_submit hands out next. False: there is no room for it before that. */
    bool (*ring_add)(void *user, struct pgd_ring *ring, uint32_t tag, uint64_t offset, void *buffer, size_t bytes);
    /* Hands out what was added, with one system call. *taken of them are on their way, the first ones; the others are
     * forgotten, and may be added again. */
    int (*ring_submit)(void *user, struct pgd_ring *ring, uint32_t *taken);
    bool (*ring_ready)(void *user, const struct pgd_ring *ring);
    bool (*ring_take)(void *user, struct pgd_ring *ring, struct pgd_ring_done *done);
    /* Sleeps until something is ready, at most so long; it may wake early. */
    void (*ring_wait)(void *user, struct pgd_ring *ring, uint64_t timeout_ns);
    void (*ring_close)(void *user, struct pgd_ring *ring); /* NULL is allowed; nothing may be in flight */
    void *user;
};

/* The POSIX file system. */
const struct pgd_vfs *pgd_os_vfs(void);

/* Bytes of memory that a ring of this depth takes, the kernel's part included. */
uint64_t pgd_os_ring_bytes(uint32_t depth);

/* The directory for files that can be made again: $XDG_CACHE_HOME/pagoda, else ~/.cache/pagoda, made with mode 0700 if
 * it is not there; else the temporary directory ($TMPDIR, /var/tmp, /tmp). False when none of them can be written. */
PGD_MUST_CHECK bool pgd_os_cache_directory(char *path, size_t bytes);

/* ---- memory of the machine and of the process ---- */

/* What the system says about memory, each 0 when unknown; known to be nothing is 1. `root` is "" for the
 * real machine or a directory that holds proc/ and sys/ for tests. */
struct pgd_os_memory {
    uint64_t total_bytes;     /* MemTotal */
    uint64_t available_bytes; /* MemAvailable, lowered by the tightest cgroup limit (v1 or v2, own and
                               * ancestors; memory.high counts) less what that group uses and cannot
                               * reclaim: its file cache can be */
    uint64_t limit_bytes;     /* the tightest cgroup limit; 0: none */
};
void pgd_os_memory_read(const char *root, struct pgd_os_memory *memory);

/* Peak and current resident bytes of this process (VmHWM, VmRSS); 0 when unknown. */
void pgd_os_process_memory(uint64_t *resident_bytes, uint64_t *peak_bytes);

/* What is resident of this process: memory of its own, and pages of files, which the system can read again. 0 when
 * unknown. */
void pgd_os_process_parts(uint64_t *own_bytes, uint64_t *file_bytes);

/* Gives the whole system pages inside [memory, memory + bytes) back; they read as zero afterwards. */
void pgd_os_discard(void *memory, size_t bytes);

/* Lets another thread have the CPU. */
void pgd_os_yield(void);

/* Logical CPUs this process may use, by its affinity mask and by the CPU quota of its cgroups, rounded up;
 * at least 1. */
uint32_t pgd_os_cpu_count(void);

/* Whether an ARM processor has the dot product of bytes (ARMv8.2); false elsewhere. */
bool pgd_os_cpu_has_dotprod(void);

#endif
