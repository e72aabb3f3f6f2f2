/* cli/safe.h - text from outside made safe to pass on. Pure; any thread. */
#ifndef PGD_CLI_SAFE_H
#define PGD_CLI_SAFE_H

#include <stddef.h>

#include "cli/buffer.h"

/* Adds `bytes` to `buffer` with U+FFFD in place of every byte that is not UTF-8; returns how many were. */
size_t pgd_safe_repair(struct pgd_buffer *buffer, const char *bytes, size_t count);

/* The same, and what could steer a terminal becomes '?': control characters other than newline and tab.
 * A model, a file name or metadata may hold anything. */
void pgd_safe_disarm(struct pgd_buffer *buffer, const char *bytes, size_t count);

#endif
