/* os/pressure.h - what the system says about memory running short: all of it, as it says it.
 *
 * Three sources, none of which has to be there:
 *   cgroups    the limits of this process's groups and of those above (cgroup.h)
 *   meminfo    MemAvailable, with what is mapped and unwritten taken off as for cgroups
 *   stalls     PSI: how long tasks waited for memory, of the machine and of our own group of version 2. A trigger
 *              wakes us when they waited 150 ms of 2 s: kernels grant ordinary users windows of multiples of 2 s only,
 *              so it is an early alarm. Where it is refused, the numbers are still read.
 * What they mean together is the business of governor/sensor.h. Nothing in them is trusted.
 * Threads: the owner's.
 */
#ifndef PGD_OS_PRESSURE_H
#define PGD_OS_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "os/cgroup.h"
#include "os/text.h"

#define PGD_STALL_SOURCES 2u
#define PGD_STALL_TRIGGER "some 150000 2000000"

/* One file of stalls. */
struct pgd_os_stall {
    bool known;
    uint64_t total_us; /* since the system started */
    double share;      /* of the latest 10 seconds, 0 .. 1 */
};

struct pgd_os_pressure_values {
    uint64_t total_bytes; /* MemTotal; 0: unknown */
    uint64_t easy_bytes;  /* of the whole machine, before it hurts; 0: nothing, or unknown if total_bytes is */
    struct pgd_cgroup_memory group;
    struct pgd_os_stall stalls[PGD_STALL_SOURCES]; /* the machine's, our group's */
    bool alarm;                                    /* a trigger has gone off since the last reading */
};

/* How triggers are set and asked, so that tests can refuse them as kernels do. `arm` opens a file and writes the
 * trigger, and returns a descriptor, or a negative error number; `rang` is 1 when it went off, 0 when not, negative
 * when there is none any more; `disarm` closes it. */
struct pgd_os_trigger_calls {
    int (*arm)(void *user, const char *path);
    int (*rang)(void *user, int descriptor);
    void (*disarm)(void *user, int descriptor);
    void *user;
};

struct pgd_os_pressure {
    char root[PGD_TEXT_PATH_MAX];
    struct pgd_os_trigger_calls calls;
    int triggers[PGD_STALL_SOURCES]; /* descriptors; negative: none */
};

/* `root` is "" for the real machine, or a directory that holds proc/ and sys/. calls NULL: the system's. Never fails:
 * what is not there is not used. */
void pgd_os_pressure_open(struct pgd_os_pressure *pressure, const char *root, const struct pgd_os_trigger_calls *calls);
void pgd_os_pressure_close(struct pgd_os_pressure *pressure);

/* Whether a trigger has gone off: one system call for each that is set, none otherwise. */
PGD_MUST_CHECK bool pgd_os_pressure_rang(struct pgd_os_pressure *pressure);

/* Reads everything. About ten small files. */
void pgd_os_pressure_read(struct pgd_os_pressure *pressure, struct pgd_os_pressure_values *values);

#endif
