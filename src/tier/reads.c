/* tier/reads.c - see reads.h. */
#include "tier/reads.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "base/number.h"

#define ERRORS_MAX 2u       /* a call that failed is repeated so often */
#define INTERRUPTS_MAX 100u /* likewise, when it was only interrupted or the kernel had no room for it */
#define SPINS_MAX 5000u
#define SLEEP_NS_MAX UINT64_C(50000000) /* looks at the clock of the host so often: it need not be the kernel's */
#define THREAD_STACK_BYTES ((size_t) 128 << 10)
#define THREAD_TOUCHED_BYTES 16384u /* of a stack, by a thread that only reads */

/* ---- one read ---- */

bool pgd_reads_is_interruption(int number, uint32_t *count)
{
    return (number == EINTR || number == EAGAIN) && ++*count <= INTERRUPTS_MAX;
}

/* A direct transfer that ended inside its first block was no error, but no progress either: as if interrupted. */
static bool may_retry(struct pgd_read *read, int64_t answer, int number)
{
    return pgd_reads_is_interruption(answer > 0 ? EINTR : number, &read->interrupts) || ++read->errors <= ERRORS_MAX;
}

static void publish(struct pgd_read *read, enum pgd_flash_read_state state)
{
    atomic_store_explicit(&read->state, (uint32_t) state, memory_order_release);
}

static bool is_pending(const struct pgd_read *read)
{
    return atomic_load_explicit(&read->state, memory_order_acquire) == PGD_FLASH_PENDING;
}

/* Counts what a call transferred. Direct transfers go on at a whole block. True: that is all of it. */
static bool take_bytes(struct pgd_reads *reads, struct pgd_read *read, uint64_t got)
{
    PGD_ASSERT(got <= read->bytes - read->bytes_done);
    read->bytes_done += got;
    if (read->bytes_done == read->bytes) {
        return true;
    }
    if (atomic_load_explicit(reads->direct, memory_order_relaxed)) {
        read->bytes_done -= read->bytes_done % PGD_FLASH_ALIGN;
    }
    return false;
}

static void succeed(struct pgd_reads *reads, struct pgd_read *read)
{
    if (!atomic_load_explicit(reads->direct, memory_order_relaxed)) {
        reads->vfs->forget(reads->vfs->user, reads->file, read->offset, read->bytes);
    }
    atomic_fetch_add_explicit(&reads->bytes_read, read->bytes, memory_order_relaxed);
    publish(read, PGD_FLASH_DONE);
}

/* Whether a file system that took direct I/O when the file was opened refuses this transfer: then all go without. */
static bool gives_up_direct(struct pgd_reads *reads, int number)
{
    return number == EINVAL && atomic_load_explicit(reads->direct, memory_order_relaxed) &&
           reads->vfs->set_direct(reads->vfs->user, reads->file, false) == 0 &&
           atomic_exchange_explicit(reads->direct, false, memory_order_relaxed);
}

static void fail(struct pgd_reads *reads, struct pgd_read *read, int number)
{
    read->error_number = number;
    atomic_fetch_add_explicit(&reads->failed, 1, memory_order_relaxed);
    publish(read, PGD_FLASH_FAILED);
}

/* Takes the answer of a call: bytes or -errno. True: there must be another call; else the read's state is published. */
static bool take_answer(struct pgd_reads *reads, struct pgd_read *read, int64_t answer)
{
    const uint64_t done_before = read->bytes_done;
    if (answer > 0 && take_bytes(reads, read, (uint64_t) answer)) {
        succeed(reads, read);
        return false;
    }
    const int number = answer < 0 ? (int) -answer : EIO; /* 0: the file ends where it must not */
    const bool is_further = read->bytes_done > done_before;
    if (is_further || gives_up_direct(reads, number) || may_retry(read, answer, number)) {
        atomic_fetch_add_explicit(&reads->retries, 1, memory_order_relaxed);
        return true;
    }
    fail(reads, read, number);
    return false;
}

/* ---- the queue; all under the lock ---- */

static uint32_t pop(struct pgd_reads *reads)
{
    const uint32_t ticket = reads->queue[reads->queue_first];
    reads->queue_first = (reads->queue_first + 1) % reads->ticket_count;
    reads->queue_length--;
    return ticket;
}

static void push(struct pgd_reads *reads, uint32_t ticket)
{
    PGD_ASSERT(reads->queue_length < reads->ticket_count); /* a ticket is in it at most once */
    reads->queue[(reads->queue_first + reads->queue_length) % reads->ticket_count] = ticket;
    reads->queue_length++;
}

static void wake_waiters(struct pgd_reads *reads)
{
    if (reads->waiters > 0) {
        pthread_cond_broadcast(&reads->changed);
    }
}

/* ---- by the ring; all under the lock ---- */

static bool is_reaping(const struct pgd_reads *reads)
{
    return atomic_load_explicit(&reads->is_reaping, memory_order_relaxed);
}

/* Takes the answers that are there; reads that need another call are in the queue then. */
static void take_answers(struct pgd_reads *reads)
{
    struct pgd_ring_done done;
    while (reads->vfs->ring_take(reads->vfs->user, reads->ring, &done)) {
        PGD_ASSERT(done.tag < reads->ticket_count);
        if (take_answer(reads, &reads->tickets[done.tag], done.result)) {
            push(reads, done.tag);
        }
    }
}

/* Adds to the ring what is queued, as far as it has room. Whether there was any. */
static bool fill_ring(struct pgd_reads *reads)
{
    uint32_t count = 0;
    bool has_room = true;
    while (has_room && count < reads->queue_length) {
        const uint32_t ticket = reads->queue[(reads->queue_first + count) % reads->ticket_count];
        const struct pgd_read *const read = &reads->tickets[ticket];
        has_room = reads->vfs->ring_add(reads->vfs->user, reads->ring, ticket, read->offset + read->bytes_done,
                                        (char *) read->into + read->bytes_done, read->bytes - read->bytes_done);
        count += has_room ? 1 : 0;
    }
    return count > 0;
}

/* The ring took nothing. All that is queued was to go with that call: what may not be tried again has failed. */
static void take_refusal(struct pgd_reads *reads, int number)
{
    const uint32_t count = reads->queue_length;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t ticket = pop(reads);
        struct pgd_read *const read = &reads->tickets[ticket];
        if (may_retry(read, 0, number == EBUSY ? EAGAIN : number)) {
            push(reads, ticket);
        } else {
            fail(reads, read, number);
        }
    }
    if (reads->queue_length > 0) {
        atomic_fetch_add_explicit(&reads->retries, 1, memory_order_relaxed);
    }
    if (reads->queue_length < count) {
        wake_waiters(reads);
    }
}

/* A kernel may want to be rid of answers before it takes more. */
static void make_room(struct pgd_reads *reads)
{
    if (!is_reaping(reads)) {
        take_answers(reads);
        wake_waiters(reads);
    }
}

/* Hands out what is queued: with one call, unless the kernel does not take all of it. */
static void hand_out(struct pgd_reads *reads)
{
    while (reads->queue_length > 0) {
        int number = EAGAIN;
        uint32_t taken = 0;
        if (fill_ring(reads)) {
            number = reads->vfs->ring_submit(reads->vfs->user, reads->ring, &taken);
        }
        for (uint32_t i = 0; i < taken; i++) {
            (void) pop(reads);
        }
        if (taken == 0) {
            take_refusal(reads, number != 0 ? number : EAGAIN);
            make_room(reads);
        }
    }
}

static void take_completions(struct pgd_reads *reads)
{
    take_answers(reads);
    hand_out(reads);
}

/* ---- by threads ---- */

static void run_read(struct pgd_reads *reads, struct pgd_read *read)
{
    int64_t answer;
    do {
        answer =
            reads->vfs->read_once(reads->vfs->user, reads->file, read->offset + read->bytes_done,
                                  (char *) read->into + read->bytes_done, (size_t) (read->bytes - read->bytes_done));
    } while (take_answer(reads, read, answer));
}

static void *work(void *argument)
{
    struct pgd_reads *const reads = argument;
    pthread_mutex_lock(&reads->lock);
    while (!reads->is_stopping || reads->queue_length > 0) {
        if (reads->queue_length == 0) {
            pthread_cond_wait(&reads->work, &reads->lock);
            continue;
        }
        struct pgd_read *const read = &reads->tickets[pop(reads)];
        pthread_mutex_unlock(&reads->lock);
        run_read(reads, read);
        pthread_mutex_lock(&reads->lock);
        wake_waiters(reads);
    }
    pthread_mutex_unlock(&reads->lock);
    return NULL;
}

static void wake_workers(struct pgd_reads *reads)
{
    for (uint32_t i = 0; i < reads->thread_count && i < reads->queue_length; i++) {
        pthread_cond_signal(&reads->work);
    }
}

static uint32_t threads_for(uint32_t ticket_count)
{
    return ticket_count < PGD_READS_THREADS_MAX ? ticket_count : PGD_READS_THREADS_MAX;
}

/* Signals are the program's: its own threads get them. */
static int start_threads(struct pgd_reads *reads)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    int number = pthread_attr_init(&attributes);
    if (number != 0) {
        return number;
    }
    (void) pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES); /* else it is larger, and as little touched */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (number == 0 && reads->thread_count < threads_for(reads->ticket_count)) {
        number = pthread_create(&reads->threads[reads->thread_count], &attributes, work, reads);
        reads->thread_count += number == 0 ? 1 : 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void) pthread_attr_destroy(&attributes);
    return reads->thread_count > 0 ? 0 : number; /* fewer will do */
}

static void stop_threads(struct pgd_reads *reads)
{
    pthread_mutex_lock(&reads->lock);
    reads->is_stopping = true;
    pthread_cond_broadcast(&reads->work);
    pthread_mutex_unlock(&reads->lock);
    for (uint32_t i = 0; i < reads->thread_count; i++) {
        pthread_join(reads->threads[i], NULL);
    }
}

/* ---- opening and closing ---- */

static int make_conditions(struct pgd_reads *reads)
{
    pthread_condattr_t attributes;
    int number = pthread_condattr_init(&attributes);
    if (number != 0) {
        return number;
    }
    number = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (number == 0) {
        number = pthread_cond_init(&reads->changed, &attributes);
    }
    (void) pthread_condattr_destroy(&attributes);
    if (number != 0) {
        return number;
    }
    number = pthread_cond_init(&reads->work, NULL);
    if (number != 0) {
        (void) pthread_cond_destroy(&reads->changed);
    }
    return number;
}

static int make_locks(struct pgd_reads *reads)
{
    int number = pthread_mutex_init(&reads->lock, NULL);
    if (number != 0) {
        return number;
    }
    number = make_conditions(reads);
    if (number != 0) {
        (void) pthread_mutex_destroy(&reads->lock);
    }
    return number;
}

static void destroy_locks(struct pgd_reads *reads)
{
    (void) pthread_cond_destroy(&reads->work);
    (void) pthread_cond_destroy(&reads->changed);
    (void) pthread_mutex_destroy(&reads->lock);
}

int pgd_reads_open(struct pgd_reads *reads, bool uses_ring)
{
    PGD_ASSERT(reads->ticket_count > 0 && reads->thread_count == 0 && reads->ring == NULL);
    int number = make_locks(reads);
    if (number != 0) {
        return number;
    }
    number = uses_ring ? reads->vfs->ring_open(reads->vfs->user, reads->file, reads->ticket_count, &reads->ring)
                       : start_threads(reads);
    if (number != 0) {
        destroy_locks(reads);
    }
    return number;
}

void pgd_reads_close(struct pgd_reads *reads)
{
    for (uint32_t i = 0; i < reads->ticket_count; i++) {
        reads->tickets[i].due_ns = 0;
        (void) pgd_reads_wait(reads, i, 0);
    }
    stop_threads(reads);
    reads->vfs->ring_close(reads->vfs->user, reads->ring);
    destroy_locks(reads);
    reads->ring = NULL;
    reads->thread_count = 0;
    reads->is_stopping = false;
}

uint64_t pgd_reads_bytes(uint32_t ticket_count, bool uses_ring)
{
    return uses_ring ? pgd_os_ring_bytes(ticket_count) : (uint64_t) threads_for(ticket_count) * THREAD_TOUCHED_BYTES;
}

/* ---- reading ---- */

/* When a device of the throttle's bandwidth would be done with this one too. */
static uint64_t due_after(struct pgd_reads *reads, uint64_t bytes)
{
    if (reads->throttle_bytes_per_second == 0) {
        return 0;
    }
    const uint64_t now_ns = reads->clock.now_ns(reads->clock.user);
    const double takes_ns = 1e9 * (double) bytes / (double) reads->throttle_bytes_per_second;
    reads->busy_until_ns = pgd_max_u64(reads->busy_until_ns, now_ns) + (uint64_t) takes_ns;
    return reads->busy_until_ns;
}

void pgd_reads_begin(struct pgd_reads *reads, uint32_t ticket, uint64_t offset, uint64_t bytes, void *into)
{
    struct pgd_read *const read = &reads->tickets[ticket];
    PGD_ASSERT(atomic_load_explicit(&read->state, memory_order_relaxed) == PGD_FLASH_IDLE);
    atomic_fetch_add_explicit(&reads->begun, 1, memory_order_relaxed);
    pthread_mutex_lock(&reads->lock);
    read->errors = 0;
    read->interrupts = 0;
    read->offset = offset;
    read->bytes = bytes;
    read->bytes_done = 0;
    read->due_ns = due_after(reads, bytes);
    read->into = into;
    publish(read, PGD_FLASH_PENDING);
    push(reads, ticket);
    pthread_mutex_unlock(&reads->lock);
}

/* Under the lock. */
static void submit(struct pgd_reads *reads)
{
    if (reads->ring != NULL) {
        hand_out(reads);
    } else {
        wake_workers(reads);
    }
}

void pgd_reads_submit(struct pgd_reads *reads)
{
    pthread_mutex_lock(&reads->lock);
    submit(reads);
    pthread_mutex_unlock(&reads->lock);
}

enum pgd_flash_read_state pgd_reads_poll(struct pgd_reads *reads, uint32_t ticket)
{
    struct pgd_read *const read = &reads->tickets[ticket];
    if (reads->ring != NULL && is_pending(read) && !is_reaping(reads) &&
        reads->vfs->ring_ready(reads->vfs->user, reads->ring) && pthread_mutex_trylock(&reads->lock) == 0) {
        if (!is_reaping(reads)) {
            take_completions(reads);
            wake_waiters(reads);
        }
        pthread_mutex_unlock(&reads->lock);
    }
    const uint32_t state = atomic_load_explicit(&read->state, memory_order_acquire);
    if ((state == PGD_FLASH_DONE || state == PGD_FLASH_FAILED) && read->due_ns > 0 &&
        reads->clock.now_ns(reads->clock.user) < read->due_ns) {
        return PGD_FLASH_PENDING;
    }
    return (enum pgd_flash_read_state) state;
}

/* ---- waiting ---- */

static void nap(uint64_t sleep_ns)
{
    const struct timespec time = {(time_t) (sleep_ns / 1000000000u), (long) (sleep_ns % 1000000000u)};
    (void) nanosleep(&time, NULL);
}

static void sleep_until_changed(struct pgd_reads *reads, uint64_t sleep_ns)
{
    struct timespec until = {0};
    (void) clock_gettime(CLOCK_MONOTONIC, &until);
    const uint64_t nanoseconds = (uint64_t) until.tv_nsec + sleep_ns;
    until.tv_sec += (time_t) (nanoseconds / 1000000000u);
    until.tv_nsec = (long) (nanoseconds % 1000000000u);
    (void) pthread_cond_timedwait(&reads->changed, &reads->lock, &until);
}

/* Sleeps in the kernel for all that wait; under the lock, which is let go meanwhile. */
static void reap(struct pgd_reads *reads, const struct pgd_read *read, uint64_t sleep_ns)
{
    take_completions(reads);
    if (is_pending(read)) {
        reads->is_reaping = true;
        pthread_mutex_unlock(&reads->lock);
        reads->vfs->ring_wait(reads->vfs->user, reads->ring, sleep_ns);
        pthread_mutex_lock(&reads->lock);
        reads->is_reaping = false;
        take_completions(reads);
    }
    wake_waiters(reads); /* also because one of them must reap now */
}

/* Sleeps until something changed that may matter to this read, at most so long. */
static void sleep_for(struct pgd_reads *reads, const struct pgd_read *read, uint64_t now_ns, uint64_t sleep_ns)
{
    if (!is_pending(read)) { /* the throttle keeps it back */
        nap(read->due_ns > now_ns ? pgd_min_u64(sleep_ns, read->due_ns - now_ns) : 0);
        return;
    }
    pthread_mutex_lock(&reads->lock);
    submit(reads); /* what is only queued would never come */
    if (reads->ring != NULL && !is_reaping(reads)) {
        reap(reads, read, sleep_ns);
    } else if (is_pending(read)) {
        reads->waiters++;
        sleep_until_changed(reads, sleep_ns);
        reads->waiters--;
    }
    pthread_mutex_unlock(&reads->lock);
}

enum pgd_flash_read_state pgd_reads_wait(struct pgd_reads *reads, uint32_t ticket, uint64_t deadline_ns)
{
    enum pgd_flash_read_state state = pgd_reads_poll(reads, ticket);
    for (uint32_t i = 0; i < SPINS_MAX && state == PGD_FLASH_PENDING; i++) {
        state = pgd_reads_poll(reads, ticket);
    }
    while (state == PGD_FLASH_PENDING) {
        const uint64_t now_ns = reads->clock.now_ns(reads->clock.user);
        if (deadline_ns != 0 && now_ns >= deadline_ns) {
            break;
        }
        const uint64_t left_ns = deadline_ns != 0 ? deadline_ns - now_ns : SLEEP_NS_MAX;
        sleep_for(reads, &reads->tickets[ticket], now_ns, pgd_min_u64(left_ns, SLEEP_NS_MAX));
        state = pgd_reads_poll(reads, ticket);
    }
    return state;
}
