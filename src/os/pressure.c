/* os/pressure.c - see pressure.h. The formats: Documentation/accounting/psi.rst and filesystems/proc.rst of the Linux
 * kernel. */
#define _GNU_SOURCE 1

#include "os/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "os/os.h"

/* ---- triggers ---- */

/* The system's own. The file must be one of the kernel's: an ordinary one would be overwritten. */
static int arm(void *user, const char *path)
{
    (void) user;
    const int descriptor = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) {
        return -errno;
    }
    const ssize_t bytes = (ssize_t) sizeof PGD_STALL_TRIGGER; /* with its zero */
    if (write(descriptor, PGD_STALL_TRIGGER, (size_t) bytes) != bytes) {
        const int reason = errno != 0 ? errno : EIO;
        (void) close(descriptor);
        return -reason;
    }
    return descriptor;
}

static int rang(void *user, int descriptor)
{
    (void) user;
    struct pollfd wait = {.fd = descriptor, .events = POLLPRI};
    const int ready = poll(&wait, 1, 0);
    if (ready <= 0) {
        return 0;
    }
    return (wait.revents & (POLLERR | POLLNVAL)) != 0 ? -1 : 1;
}

static void disarm(void *user, int descriptor)
{
    (void) user;
    (void) close(descriptor);
}

/* Directory and name of a source of stalls; false when there is none. */
static bool find_source(const struct pgd_os_pressure *pressure, uint32_t source, char *directory, size_t capacity,
                        const char **name)
{
    if (source == 0) {
        (void) snprintf(directory, capacity, "proc/pressure");
        *name = "memory";
        return true;
    }
    *name = "memory.pressure";
    return pgd_cgroup_own_directory(pressure->root, directory, capacity);
}

void pgd_os_pressure_open(struct pgd_os_pressure *pressure, const char *root, const struct pgd_os_trigger_calls *calls)
{
    *pressure = (struct pgd_os_pressure) {.calls = {arm, rang, disarm, NULL}};
    (void) snprintf(pressure->root, sizeof pressure->root, "%s", root);
    if (calls != NULL) {
        pressure->calls = *calls;
    }
    for (uint32_t i = 0; i < PGD_STALL_SOURCES; i++) {
        char directory[PGD_TEXT_PATH_MAX];
        char path[2 * PGD_TEXT_PATH_MAX];
        const char *name = NULL;
        pressure->triggers[i] = -1;
        /* In a tree of fixtures the files are ordinary ones, and writing to them would destroy them. */
        const bool is_real = root[0] == '\0' || calls != NULL;
        if (is_real && find_source(pressure, i, directory, sizeof directory, &name)) {
            (void) snprintf(path, sizeof path, "%s/%s/%s", root, directory, name);
            pressure->triggers[i] = pressure->calls.arm(pressure->calls.user, path);
        }
    }
}

static void close_trigger(struct pgd_os_pressure *pressure, uint32_t source)
{
    if (pressure->triggers[source] >= 0) {
        pressure->calls.disarm(pressure->calls.user, pressure->triggers[source]);
        pressure->triggers[source] = -1;
    }
}

void pgd_os_pressure_close(struct pgd_os_pressure *pressure)
{
    for (uint32_t i = 0; i < PGD_STALL_SOURCES; i++) {
        close_trigger(pressure, i);
    }
}

bool pgd_os_pressure_rang(struct pgd_os_pressure *pressure)
{
    bool any = false;
    for (uint32_t i = 0; i < PGD_STALL_SOURCES; i++) {
        if (pressure->triggers[i] < 0) {
            continue;
        }
        const int answer = pressure->calls.rang(pressure->calls.user, pressure->triggers[i]);
        if (answer < 0) {
            close_trigger(pressure, i); /* its group is gone, say: polling goes on without it */
        }
        any = any || answer > 0;
    }
    return any;
}

/* ---- numbers ---- */

/* The line "some avg10=1.23 avg60=... total=456". */
static void read_stall(const char *text, struct pgd_os_stall *stall)
{
    const char *line = strstr(text, "some ");
    if (line == NULL || (line != text && line[-1] != '\n')) {
        return;
    }
    const char *const end = strchr(line, '\n');
    const char *const average = strstr(line, "avg10=");
    const char *const total = strstr(line, "total=");
    if (average == NULL || total == NULL || (end != NULL && total > end)) {
        return;
    }
    char *average_end = NULL;
    const double percent = strtod(average + 6, &average_end);
    uint64_t total_us = 0;
    if (average_end == average + 6 || !(percent >= 0 && percent <= 100) || !pgd_text_number(total + 6, &total_us)) {
        return;
    }
    *stall = (struct pgd_os_stall) {.known = true, .total_us = total_us, .share = percent / 100};
}

static uint64_t field_bytes(const char *text, const char *key)
{
    uint64_t kilobytes = 0;
    uint64_t bytes = 0;
    if (!pgd_text_field(text, key, &kilobytes) || !pgd_mul_u64(kilobytes, 1024, &bytes) || bytes > INT64_MAX) {
        return 0; /* more than a machine can have: not to be believed */
    }
    return bytes;
}

static void read_machine(const char *text, struct pgd_os_pressure_values *values)
{
    uint64_t kilobytes = 0;
    const uint64_t available = field_bytes(text, "MemAvailable:");
    values->total_bytes = field_bytes(text, "MemTotal:");
    if (!pgd_text_field(text, "MemAvailable:", &kilobytes) || available > values->total_bytes) {
        values->total_bytes = 0;
        return;
    }
    const uint64_t inactive = field_bytes(text, "Inactive(file):");
    const uint64_t active = field_bytes(text, "Active(file):");
    const uint64_t unwritten = field_bytes(text, "Dirty:") + field_bytes(text, "Writeback:");
    const uint64_t easy_cache = pgd_cgroup_easy_cache(inactive, active, unwritten, field_bytes(text, "Mapped:"));
    const uint64_t hard = inactive + active - easy_cache; /* counted as available, but not to be had for nothing */
    values->easy_bytes = available - pgd_min_u64(available, hard);
}

void pgd_os_pressure_read(struct pgd_os_pressure *pressure, struct pgd_os_pressure_values *values)
{
    *values = (struct pgd_os_pressure_values) {.alarm = pgd_os_pressure_rang(pressure)};
    char text[PGD_TEXT_BYTES_MAX];
    if (pgd_text_read(pressure->root, "proc", "meminfo", text, sizeof text)) {
        read_machine(text, values);
    }
    pgd_cgroup_memory_read(pressure->root, &values->group);
    for (uint32_t i = 0; i < PGD_STALL_SOURCES; i++) {
        char directory[PGD_TEXT_PATH_MAX];
        const char *name = NULL;
        if (find_source(pressure, i, directory, sizeof directory, &name) &&
            pgd_text_read(pressure->root, directory, name, text, sizeof text)) {
            read_stall(text, &values->stalls[i]);
        }
    }
}
