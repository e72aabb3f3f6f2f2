/* tier/reads.h - reads of one file in flight, by a queue of the kernel or by a few threads. Inside of tier/flash.
 *
 * Locking. `lock` guards the queue, the ring and everything of a ticket that is in flight but its state;
 * it is never held while something is waited for. A state is published with release and read with acquire.
 *
 * With a ring nobody is in charge of its completions: whoever polls or waits takes what is ready. Of several waiters
 * one is the reaper: it sleeps in the kernel and then wakes the others, which sleep on `changed`. While there is a
 * reaper nobody else takes completions, or its sleep could miss the last one.
 */
#ifndef PGD_TIER_READS_H
#define PGD_TIER_READS_H

#include <pthread.h>
#include <stdatomic.h>

#include "tier/flash.h"

#define PGD_READS_THREADS_MAX 4u

struct pgd_read {
    _Atomic uint32_t state; /* enum pgd_flash_read_state, but for the throttle: see due_ns */
    uint32_t errors;        /* calls that failed */
    uint32_t interrupts;
    int error_number; /* of a FAILED read */
    uint64_t offset;
    uint64_t bytes;
    uint64_t bytes_done;
    uint64_t due_ns; /* not DONE for anybody before; 0: as soon as it is */
    void *into;
};

struct pgd_reads {
    const struct pgd_vfs *vfs;
    struct pgd_file *file;
    struct pagoda_clock clock;
    struct pgd_read *tickets; /* [ticket_count] */
    uint32_t *queue;          /* [ticket_count] tickets to be handed to the ring or taken by a thread: a circle */
    uint32_t ticket_count;
    uint32_t queue_first;
    uint32_t queue_length;
    uint32_t waiters;
    uint32_t thread_count;
    _Atomic bool is_reaping; /* atomic only for those that look before they take the lock */
    bool is_stopping;
    _Atomic bool *direct;
    uint64_t throttle_bytes_per_second;
    uint64_t busy_until_ns; /* of the device that the throttle stands for */
    struct pgd_ring *ring;  /* NULL: threads */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* some ticket is no longer pending */
    pthread_cond_t work;
    pthread_t threads[PGD_READS_THREADS_MAX];
    _Atomic uint64_t bytes_read;
    _Atomic uint64_t begun;
    _Atomic uint64_t retries;
    _Atomic uint64_t failed;
};

/* Starts. The caller has filled in vfs, file, clock, tickets, queue, ticket_count, direct, throttle_bytes_per_second;
 * all else is zero. The answer is 0 or an errno; then nothing is left to close. */
int pgd_reads_open(struct pgd_reads *reads, bool uses_ring);
void pgd_reads_close(struct pgd_reads *reads); /* waits for what is in flight */

/* Memory of the queue or the threads beside struct pgd_reads and its arrays. */
uint64_t pgd_reads_bytes(uint32_t ticket_count, bool uses_ring);

/* As the functions of tier/flash.h: begin is pgd_flash_queue. */
void pgd_reads_begin(struct pgd_reads *reads, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into);
void pgd_reads_submit(struct pgd_reads *reads);
enum pgd_flash_read_state pgd_reads_poll(struct pgd_reads *reads, uint32_t ticket);
enum pgd_flash_read_state pgd_reads_wait(struct pgd_reads *reads, uint32_t ticket, uint64_t deadline_ns);

/* Whether a call that failed with this errno has nothing to do with the device, and a counter of such calls, which
 * are repeated a fixed number of times, allows one more. */
bool pgd_reads_is_interruption(int number, uint32_t *count);

#endif
