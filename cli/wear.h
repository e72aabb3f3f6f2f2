/* cli/wear.h - how much chat, run and show --device have written to flash day by day: it wears out by writing.
 *
 * A small text file in the cache directory, "flash-writes.txt", with a line "2026-11-25 33554432" for each day (in UTC)
 * of the last 30 on which something was written. Nothing depends on it: what cannot be read counts as nothing, and what
 * cannot be written is forgotten. Threads and processes: any; the file is locked while it is changed.
 */
#ifndef PGD_CLI_WEAR_H
#define PGD_CLI_WEAR_H

#include <stdint.h>

struct pgd_wear {
    uint64_t today_bytes;
    uint64_t month_bytes; /* of the last 30 days, today among them */
};

void pgd_wear_add(uint64_t bytes);
void pgd_wear_read(struct pgd_wear *wear);

#endif
