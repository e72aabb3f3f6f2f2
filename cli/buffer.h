/* cli/buffer.h - text that grows.
 *
 * A buffer that ran out of memory stays failed and takes nothing more, so that a writer checks once, at
 * the end, and not after every piece.
 *
 * Ownership: the buffer owns its bytes. Threads: one.
 */
#ifndef PGD_CLI_BUFFER_H
#define PGD_CLI_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

/* Zero-initialise. */
struct pgd_buffer {
    char *bytes; /* terminated once something was added; NULL before */
    size_t count;
    size_t capacity;
    bool failed; /* out of memory */
};

void pgd_buffer_add(struct pgd_buffer *buffer, const char *bytes, size_t count);
void pgd_buffer_print(struct pgd_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pgd_buffer_clear(struct pgd_buffer *buffer);
void pgd_buffer_free(struct pgd_buffer *buffer);

/* The text so far, never NULL. */
const char *pgd_buffer_text(const struct pgd_buffer *buffer);

#endif
