/* os/memory.c - memory of the machine and of this process, and CPUs, as Linux tells it. */
#define _GNU_SOURCE 1

#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/number.h"
#include "os/cgroup.h"
#include "os/os.h"
#include "os/text.h"

/* A field in kB, as bytes; 0 when unknown. Known but zero becomes 1, because 0 says unknown. */
static uint64_t field_kb(const char *text, const char *key)
{
    uint64_t kilobytes;
    uint64_t bytes;
    if (!pgd_text_field(text, key, &kilobytes)) {
        return 0;
    }
    if (!pgd_mul_u64(kilobytes, 1024, &bytes)) {
        return 0; /* more than a machine can have: not to be believed */
    }
    return pgd_max_u64(bytes, 1);
}

void pgd_os_memory_read(const char *root, struct pgd_os_memory *memory)
{
    *memory = (struct pgd_os_memory) {0};
    char text[PGD_TEXT_BYTES_MAX];
    if (pgd_text_read(root, "proc", "meminfo", text, sizeof text)) {
        memory->total_bytes = field_kb(text, "MemTotal:");
        memory->available_bytes = field_kb(text, "MemAvailable:");
    }
    struct pgd_cgroup_memory cgroup;
    pgd_cgroup_memory_read(root, &cgroup);
    if (cgroup.limit_bytes == UINT64_MAX) {
        return;
    }
    memory->limit_bytes = pgd_max_u64(cgroup.limit_bytes, 1);
    const uint64_t room_bytes = pgd_max_u64(cgroup.room_bytes, 1);
    if (memory->available_bytes == 0 || memory->available_bytes > room_bytes) {
        memory->available_bytes = room_bytes;
    }
    PGD_ASSERT(memory->available_bytes <= memory->limit_bytes);
}

/* Peak resident bytes from the C library's accounting, for systems whose /proc has no VmHWM. */
static uint64_t peak_from_rusage(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss <= 0) {
        return 0;
    }
    return (uint64_t) usage.ru_maxrss * 1024;
}

void pgd_os_process_memory(uint64_t *resident_bytes, uint64_t *peak_bytes)
{
    char text[PGD_TEXT_BYTES_MAX];
    *resident_bytes = 0;
    *peak_bytes = 0;
    if (pgd_text_read("", "proc/self", "status", text, sizeof text)) {
        *resident_bytes = field_kb(text, "VmRSS:");
        *peak_bytes = field_kb(text, "VmHWM:");
    }
    if (*peak_bytes == 0) {
        *peak_bytes = peak_from_rusage();
    }
    /* The kernel counts per thread and adds up now and then: the peak may lag behind. */
    *peak_bytes = pgd_max_u64(*peak_bytes, *resident_bytes);
}

void pgd_os_process_parts(uint64_t *own_bytes, uint64_t *file_bytes)
{
    char text[PGD_TEXT_BYTES_MAX];
    *own_bytes = 0;
    *file_bytes = 0;
    if (pgd_text_read("", "proc/self", "status", text, sizeof text)) {
        *own_bytes = field_kb(text, "RssAnon:");
        *file_bytes = field_kb(text, "RssFile:");
    }
}

/* CPUs in the affinity mask; 0 when the mask cannot be read (a machine with more than 1024 CPUs). */
static uint32_t cpus_in_mask(void)
{
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) {
        return 0;
    }
    return (uint32_t) CPU_COUNT(&mask);
}

void pgd_os_yield(void)
{
    (void) sched_yield();
}

uint32_t pgd_os_cpu_count(void)
{
    uint32_t cpus = cpus_in_mask();
    if (cpus == 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        cpus = online > 0 && online < INT32_MAX ? (uint32_t) online : 1;
    }
    cpus = (uint32_t) pgd_min_u64(cpus, pgd_cgroup_cpu_quota(""));
    PGD_ASSERT(cpus >= 1);
    return cpus;
}
