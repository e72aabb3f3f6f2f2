/* cli/machine.c - see machine.h. */
#include "cli/machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "cli/size.h"
#include "os/os.h"
#include "os/text.h"

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

uint64_t pgd_machine_rss_bytes(void)
{
    uint64_t resident = 0;
    uint64_t peak = 0;
    pgd_os_process_memory(&resident, &peak);
    return resident;
}

double pgd_machine_seconds(void)
{
    return pgd_os_seconds();
}

void pgd_machine_cpu_name(char *name, size_t bytes)
{
    char text[PGD_TEXT_BYTES_MAX];
    struct utsname system;
    snprintf(name, bytes, "%s", uname(&system) == 0 ? system.machine : "unknown");
    if (!pgd_text_read("", "proc", "cpuinfo", text, sizeof(text))) {
        return;
    }
    const char *at = strstr(text, "model name");
    at = at == NULL ? NULL : strchr(at, ':');
    if (at != NULL) {
        at += 1 + strspn(at + 1, " \t");
        snprintf(name, bytes, "%.*s", (int) strcspn(at, "\n"), at);
    }
}

uint64_t pgd_machine_cache_bytes(void)
{
    uint64_t largest = 0;
    for (int i = 0; i < 8; i++) {
        char directory[64];
        char text[64];
        uint64_t bytes = 0;
        struct pagoda_error ignored;
        snprintf(directory, sizeof(directory), "sys/devices/system/cpu/cpu0/cache/index%d", i);
        if (pgd_text_read("", directory, "size", text, sizeof(text))) {
            text[strcspn(text, "\n")] = '\0'; /* such as 49152K */
            if (pgd_size_parse(text, &bytes, &ignored) == PAGODA_OK && bytes > largest) {
                largest = bytes;
            }
        }
    }
    return largest;
}

uint32_t pgd_machine_random(void)
{
    uint32_t number = 0;
    if (getentropy(&number, sizeof(number)) != 0) {
        number = (uint32_t) time(NULL) * 2654435761u ^ (uint32_t) getpid();
    }
    return number;
}
