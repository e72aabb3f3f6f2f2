/* cli/machine.h - the few things the program itself asks the machine. Threads: any. */
#ifndef PGD_CLI_MACHINE_H
#define PGD_CLI_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* Memory that can still be had without swapping, lowered by the limits of this process's control groups (v1 or
 * v2, and those above it); 0 when unknown. */
uint64_t pgd_machine_available_bytes(void);

/* All memory of the machine; 0 when unknown. */
uint64_t pgd_machine_total_bytes(void);

/* The most memory this process ever had resident; 0 when unknown. */
uint64_t pgd_machine_peak_rss_bytes(void);

/* What it has resident now; 0 when unknown. */
uint64_t pgd_machine_rss_bytes(void);

/* Monotonic time in seconds. */
double pgd_machine_seconds(void);

/* What the processor calls itself, as far as it fits. */
void pgd_machine_cpu_name(char *name, size_t bytes);

/* Bytes of the largest cache of a processor; 0 when unknown. */
uint64_t pgd_machine_cache_bytes(void);

/* A number that differs from run to run. */
uint32_t pgd_machine_random(void);

#endif
