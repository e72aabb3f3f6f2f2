/* cli/bandwidth.c - see bandwidth.h. */
#include "cli/bandwidth.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/machine.h"
#include "engine/statistics.h"
#include "pagoda/pagoda.h"

#define PASSES 7
#define LEAST_BYTES (UINT64_C(512) << 20)
#define UNIT_BYTES (UINT64_C(2) << 20) /* parts begin at whole large pages */

/* What the threads share. They start behind the gate; then each pass lies between two meetings at the barrier. */
struct probe {
    pthread_mutex_t gate;
    bool abandoned; /* set before the gate opens */
    pthread_barrier_t barrier;
    unsigned char *buffer;
    uint64_t part_bytes;
};

struct reader {
    struct probe *probe;
    pthread_t thread;
    uint32_t number;
    uint64_t sum; /* the compiler must not leave the reading out */
};

static uint64_t sum_words(const uint64_t *words, size_t count)
{
    enum { AT_ONCE = 16 };
    uint64_t sums[AT_ONCE] = {0};
    for (size_t i = 0; i < count; i += AT_ONCE) {
        for (size_t j = 0; j < AT_ONCE; j++) {
            sums[j] += words[i + j];
        }
    }
    uint64_t sum = 0;
    for (size_t j = 0; j < AT_ONCE; j++) {
        sum += sums[j];
    }
    return sum;
}

static void *read_part(void *user)
{
    struct reader *reader = user;
    struct probe *probe = reader->probe;
    pthread_mutex_lock(&probe->gate);
    const bool abandoned = probe->abandoned;
    pthread_mutex_unlock(&probe->gate);
    if (abandoned) {
        return NULL;
    }
    unsigned char *part = probe->buffer + reader->number * probe->part_bytes;
    memset(part, 1, probe->part_bytes); /* memory never written to would be one page of zeros */
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&probe->barrier);
        reader->sum += sum_words((const uint64_t *) (const void *) part, probe->part_bytes / sizeof(uint64_t));
        pthread_barrier_wait(&probe->barrier);
    }
    return NULL;
}

/* Bytes a second, in the middle of all passes. */
static double time_passes(struct probe *probe, uint64_t bytes)
{
    double speeds[PASSES];
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&probe->barrier);
        const double start = pgd_machine_seconds();
        pthread_barrier_wait(&probe->barrier);
        speeds[pass] = (double) bytes / (pgd_machine_seconds() - start);
    }
    return pgd_statistics_median(speeds, PASSES);
}

/* All threads or none: the barrier waits for as many as were promised. */
static enum pagoda_status run_readers(struct probe *probe, uint32_t threads, struct pgd_bandwidth *bandwidth,
                                      struct pagoda_error *error)
{
    struct reader readers[PAGODA_THREADS_MAX];
    uint32_t started = 0;
    pthread_barrier_init(&probe->barrier, NULL, threads + 1);
    pthread_mutex_lock(&probe->gate);
    while (started < threads) {
        readers[started] = (struct reader) {.probe = probe, .number = started};
        if (pthread_create(&readers[started].thread, NULL, read_part, &readers[started]) != 0) {
            probe->abandoned = true;
            break;
        }
        started++;
    }
    pthread_mutex_unlock(&probe->gate);
    if (!probe->abandoned) {
        bandwidth->gb_per_s = time_passes(probe, bandwidth->buffer_bytes) * 1e-9;
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(readers[i].thread, NULL);
    }
    pthread_barrier_destroy(&probe->barrier);
    return probe->abandoned ? pgd_fail(error, PAGODA_NOMEM, "the system did not give %u threads", threads) : PAGODA_OK;
}

enum pagoda_status pgd_bandwidth_measure(uint32_t threads, struct pgd_bandwidth *bandwidth, struct pagoda_error *error)
{
    const uint64_t cache_bytes = pgd_machine_cache_bytes();
    uint64_t bytes = pgd_max_u64(4 * cache_bytes, LEAST_BYTES);
    const uint64_t available = pgd_machine_available_bytes();
    if (available != 0) {
        bytes = pgd_min_u64(bytes, available / 4);
    }
    struct probe probe = {
        .gate = PTHREAD_MUTEX_INITIALIZER,
        .part_bytes = pgd_max_u64(bytes / threads / UNIT_BYTES, 1) * UNIT_BYTES,
    };
    bytes = probe.part_bytes * threads;
    *bandwidth = (struct pgd_bandwidth) {.buffer_bytes = bytes, .cache_bytes = cache_bytes};
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a buffer of %llu bytes", (unsigned long long) bytes);
    }
    madvise(memory, bytes, MADV_HUGEPAGE); /* if it can: fewer address translations */
    probe.buffer = memory;
    enum pagoda_status status = run_readers(&probe, threads, bandwidth, error);
    munmap(memory, bytes);
    return status;
}
