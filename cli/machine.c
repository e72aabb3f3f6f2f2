/* cli/machine.c - see machine.h. */
#include "cli/machine.h"

#include <time.h>
#include <unistd.h>

#include "os/os.h"

uint64_t pgd_machine_available_bytes(void)
{
    struct pgd_os_memory memory;
    pgd_os_memory_read("", &memory);
    return memory.available_bytes;
}

uint64_t pgd_machine_total_bytes(void)
{
    struct pgd_os_memory memory;
    pgd_os_memory_read("", &memory);
    return memory.total_bytes;
}

uint64_t pgd_machine_peak_rss_bytes(void)
{
    uint64_t resident = 0;
    uint64_t peak = 0;
    pgd_os_process_memory(&resident, &peak);
    return peak;
}

double pgd_machine_seconds(void)
{
    return pgd_os_seconds();
}

uint32_t pgd_machine_random(void)
{
    uint32_t number = 0;
    if (getentropy(&number, sizeof(number)) != 0) {
        number = (uint32_t) time(NULL) * 2654435761u ^ (uint32_t) getpid();
    }
    return number;
}
