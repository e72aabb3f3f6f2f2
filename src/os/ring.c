/* os/ring.c - reads by io_uring, by its three system calls.
 *
 *   submission   each read is written into the entry after `tail`, its number into the array, and tail goes up;
 *                io_uring_enter hands all of them over. What it does not take is taken back: the queue is empty
 *                after each call
 *   completion   the kernel writes entries at its tail; we read from `head` to tail and move head
 *
 * A small wrapper instead of liburing: one operation on one file needs little of it, and a build needs no library
 * more. Only the heads and tails are shared with the kernel, and each has one writer.
 */
#define _GNU_SOURCE 1

#include "os/ring.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"
#include "os/file.h"

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

/* With headers older than what is needed of the kernel, there is no ring: see the end of this file. */
#ifdef IORING_FEAT_EXT_ARG

#define CALL_BYTES_MAX ((size_t) 1 << 30)
#define DEPTH_MAX 4096u

/* What is needed of the kernel: one mapping for both queues, waiting with a time-out, and no completion lost. */
#define FEATURES_NEEDED (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP)

struct pgd_ring {
    int descriptor;
    int file;
    char *queues; /* the mapping of both queues */
    size_t queues_bytes;
    struct io_uring_sqe *entries;
    size_t entries_bytes;
    _Atomic uint32_t *submit_tail;
    uint32_t *submit_array;
    uint32_t submit_mask;
    uint32_t added; /* since the last call */
    uint32_t complete_mask;
    _Atomic uint32_t *complete_head;
    _Atomic uint32_t *complete_tail;
    const struct io_uring_cqe *completions;
};

uint64_t pgd_os_ring_bytes(uint32_t depth)
{
    uint64_t entries = 1;
    while (entries < depth) {
        entries *= 2;
    }
    /* A head of both queues, the array, twice as many completions, each mapping in whole pages. */
    const uint64_t queues = 512 + entries * sizeof(uint32_t) + 2 * entries * sizeof(struct io_uring_cqe);
    return sizeof(struct pgd_ring) + pgd_round_up_u64(queues, 4096) +
           pgd_round_up_u64(entries * sizeof(struct io_uring_sqe), 4096);
}

static int enter(const struct pgd_ring *ring, unsigned submit, unsigned complete, unsigned flags, void *argument,
                 size_t argument_bytes)
{
    const long answer =
        syscall(SYS_io_uring_enter, ring->descriptor, submit, complete, flags, argument, argument_bytes);
    return answer < 0 ? -errno : (int) answer;
}

static void *map(const struct pgd_ring *ring, size_t bytes, off_t what)
{
    void *const memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->descriptor, what);
    return memory == MAP_FAILED ? NULL : memory;
}

static int map_queues(struct pgd_ring *ring, const struct io_uring_params *about)
{
    const size_t submit_bytes = about->sq_off.array + about->sq_entries * sizeof(uint32_t);
    const size_t complete_bytes = about->cq_off.cqes + about->cq_entries * sizeof(struct io_uring_cqe);
    ring->queues_bytes = submit_bytes > complete_bytes ? submit_bytes : complete_bytes;
    ring->queues = map(ring, ring->queues_bytes, (off_t) IORING_OFF_SQ_RING);
    ring->entries_bytes = about->sq_entries * sizeof(struct io_uring_sqe);
    ring->entries = map(ring, ring->entries_bytes, (off_t) IORING_OFF_SQES);
    if (ring->queues == NULL || ring->entries == NULL) {
        return ENOMEM;
    }
    char *const base = ring->queues;
    ring->submit_tail = (void *) (base + about->sq_off.tail);
    ring->submit_array = (void *) (base + about->sq_off.array);
    ring->submit_mask = *(const uint32_t *) (void *) (base + about->sq_off.ring_mask);
    ring->complete_head = (void *) (base + about->cq_off.head);
    ring->complete_tail = (void *) (base + about->cq_off.tail);
    ring->complete_mask = *(const uint32_t *) (void *) (base + about->cq_off.ring_mask);
    ring->completions = (const void *) (base + about->cq_off.cqes);
    return 0;
}

int pgd_ring_open(void *user, struct pgd_file *file, uint32_t depth, struct pgd_ring **ring)
{
    PGD_ASSERT(depth > 0);
    if (depth > DEPTH_MAX) {
        return EINVAL;
    }
    struct pgd_ring *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ENOMEM;
    }
    struct io_uring_params about = {0};
    made->file = file->descriptor;
    made->descriptor = (int) syscall(SYS_io_uring_setup, depth, &about); /* closed on exec by itself */
    int number = made->descriptor < 0 ? errno : 0;
    if (number == 0 && (about.features & FEATURES_NEEDED) != FEATURES_NEEDED) {
        number = ENOSYS;
    }
    if (number == 0) {
        number = map_queues(made, &about);
    }
    if (number != 0) {
        pgd_ring_close(user, made);
        return number;
    }
    *ring = made;
    return 0;
}

void pgd_ring_close(void *user, struct pgd_ring *ring)
{
    (void) user;
    if (ring == NULL) {
        return;
    }
    if (ring->queues != NULL) {
        (void) munmap(ring->queues, ring->queues_bytes);
    }
    if (ring->entries != NULL) {
        (void) munmap(ring->entries, ring->entries_bytes);
    }
    if (ring->descriptor >= 0) {
        (void) close(ring->descriptor);
    }
    free(ring);
}

bool pgd_ring_add(void *user, struct pgd_ring *ring, uint32_t tag, uint64_t offset, void *buffer, size_t bytes)
{
    (void) user;
    if (ring->added > ring->submit_mask) {
        return false;
    }
    const uint32_t tail = atomic_load_explicit(ring->submit_tail, memory_order_relaxed);
    const uint32_t place = tail & ring->submit_mask;
    ring->entries[place] = (struct io_uring_sqe) {
        .opcode = IORING_OP_READ,
        .fd = ring->file,
        .off = offset,
        .addr = (uint64_t) (uintptr_t) buffer,
        .len = (uint32_t) pgd_min_u64(bytes, CALL_BYTES_MAX),
        .user_data = tag,
    };
    ring->submit_array[place] = place;
    atomic_store_explicit(ring->submit_tail, tail + 1, memory_order_release);
    ring->added++;
    return true;
}

int pgd_ring_submit(void *user, struct pgd_ring *ring, uint32_t *taken)
{
    (void) user;
    const int answer = enter(ring, ring->added, 0, 0, NULL, 0);
    *taken = answer < 0 ? 0 : (uint32_t) answer;
    PGD_ASSERT(*taken <= ring->added);
    /* The kernel looks at the tail inside a call that submits only: what it did not take can be taken back. */
    const uint32_t tail = atomic_load_explicit(ring->submit_tail, memory_order_relaxed);
    atomic_store_explicit(ring->submit_tail, tail - (ring->added - *taken), memory_order_release);
    ring->added = 0;
    return answer < 0 ? -answer : 0;
}

bool pgd_ring_ready(void *user, const struct pgd_ring *ring)
{
    (void) user;
    return atomic_load_explicit(ring->complete_head, memory_order_relaxed) !=
           atomic_load_explicit(ring->complete_tail, memory_order_acquire);
}

bool pgd_ring_take(void *user, struct pgd_ring *ring, struct pgd_ring_done *done)
{
    if (!pgd_ring_ready(user, ring)) {
        return false;
    }
    const uint32_t head = atomic_load_explicit(ring->complete_head, memory_order_relaxed);
    const struct io_uring_cqe *const entry = &ring->completions[head & ring->complete_mask];
    done->tag = (uint32_t) entry->user_data;
    done->result = entry->res;
    atomic_store_explicit(ring->complete_head, head + 1, memory_order_release);
    return true;
}

void pgd_ring_wait(void *user, struct pgd_ring *ring, uint64_t timeout_ns)
{
    (void) user;
    struct __kernel_timespec timeout = {
        .tv_sec = (int64_t) (timeout_ns / 1000000000u),
        .tv_nsec = (long long) (timeout_ns % 1000000000u),
    };
    struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8, .ts = (uint64_t) (uintptr_t) &timeout};
    (void) enter(ring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument);
}

#else

uint64_t pgd_os_ring_bytes(uint32_t depth)
{
    (void) depth;
    return 0;
}

int pgd_ring_open(void *user, struct pgd_file *file, uint32_t depth, struct pgd_ring **ring)
{
    (void) user;
    (void) file;
    (void) depth;
    (void) ring;
    return ENOSYS;
}

bool pgd_ring_add(void *user, struct pgd_ring *ring, uint32_t tag, uint64_t offset, void *buffer, size_t bytes)
{
    (void) user;
    (void) ring;
    (void) tag;
    (void) offset;
    (void) buffer;
    (void) bytes;
    return false;
}

int pgd_ring_submit(void *user, struct pgd_ring *ring, uint32_t *taken)
{
    (void) user;
    (void) ring;
    *taken = 0;
    return ENOSYS;
}

bool pgd_ring_ready(void *user, const struct pgd_ring *ring)
{
    (void) user;
    (void) ring;
    return false;
}

bool pgd_ring_take(void *user, struct pgd_ring *ring, struct pgd_ring_done *done)
{
    (void) user;
    (void) ring;
    (void) done;
    return false;
}

void pgd_ring_wait(void *user, struct pgd_ring *ring, uint64_t timeout_ns)
{
    (void) user;
    (void) ring;
    (void) timeout_ns;
}

void pgd_ring_close(void *user, struct pgd_ring *ring)
{
    (void) user;
    (void) ring;
}

#endif
