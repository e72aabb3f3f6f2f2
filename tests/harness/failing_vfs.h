/* harness/failing_vfs.h - a file system that fails on demand, call by call, in every way that a real one can.
 *
 *     struct failing_vfs disk;
 *     failing_vfs_init(&disk);
 *     failing_vfs_arm(&disk, FAILING_WRITE, 3, false, ENOSPC);   // the third write from now on finds the disk full
 *     thing_open(..., &disk.vfs, ...);
 *     CHECK(failing_vfs_is_clean(&disk));                        // all files and rings are closed
 *
 * What does not fail is done by the system's file system. Threads: any; arm while no call is under way.
 */
#ifndef HARNESS_FAILING_VFS_H
#define HARNESS_FAILING_VFS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "os/os.h"

enum failing_call {
    FAILING_OPEN,
    FAILING_READ, /* also what a ring has read */
    FAILING_WRITE,
    FAILING_DIRECT,
    FAILING_SETTLE,
    FAILING_PUNCH,
    FAILING_TRUNCATE,
    FAILING_FREE_BYTES,
    FAILING_RING_OPEN,
    FAILING_RING_ADD,    /* the queue of a ring is full, whatever the number says */
    FAILING_RING_SUBMIT, /* handing out what was added; FAILING_SHORT: half of it is taken */
    FAILING_CALLS
};

/* In place of an errno: the transfer is cut to half, and to nothing when it was a single byte. */
#define FAILING_SHORT (-1)

/* In place of an errno, for FAILING_READ: it succeeds, but one bit in the middle is not what was written. */
#define FAILING_ROT (-2)

/* In place of an errno, for FAILING_RING_SUBMIT: EBUSY, for as long as there are answers to be taken. */
#define FAILING_CROWDED (-3)

#define FAILING_TAGS 1024

/* A read added to a ring. */
struct failing_read {
    uint32_t tag;
    uint64_t offset;
    unsigned char *buffer;
    size_t bytes;
};

struct failing_vfs {
    struct pgd_vfs vfs; /* hand out &disk.vfs */
    enum failing_call call;
    uint64_t fail_at; /* 0: none */
    bool sticky;
    int number;
    _Atomic uint64_t calls[FAILING_CALLS]; /* since arm */
    _Atomic uint64_t failed;               /* since arm */
    _Atomic uint64_t forgotten;            /* calls of forget since arm */
    _Atomic int64_t open_things;           /* files and rings */
    bool says_free;                        /* free_bytes answers free_bytes */
    uint64_t free_bytes;
    int direct_answer;                 /* != 0: what set_direct(true) says */
    _Atomic uint64_t read_delay_us;    /* a slow device: no read is done sooner after the latest began */
    _Atomic uint64_t slow_until_ns;    /* private, and what follows */
    unsigned char *into[FAILING_TAGS]; /* of the reads given to a ring */
    struct failing_read added[FAILING_TAGS];
    uint32_t added_count;
};

void failing_vfs_init(struct failing_vfs *disk);

/* From now on call number `nth` of this kind (1 is the next) fails, and, when sticky, all later ones. nth 0: none. */
void failing_vfs_arm(struct failing_vfs *disk, enum failing_call call, uint64_t nth, bool sticky, int number);

bool failing_vfs_is_clean(const struct failing_vfs *disk);

#endif
