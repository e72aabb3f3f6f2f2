/* cli/wrap.h - text that arrives in pieces, broken between words at the edge of a terminal.
 *
 * A word is kept back until something that ends it comes, so no word is ever taken back from the screen. Lines that
 * the text breaks itself stay, and so do the blanks at their start. Wide letters count two columns and may be parted.
 *
 * Ownership: the caller frees. Threads: one.
 */
#ifndef PGD_CLI_WRAP_H
#define PGD_CLI_WRAP_H

#include <stddef.h>
#include <stdint.h>

#include "cli/buffer.h"

/* Zero-initialise. */
struct pgd_wrap {
    struct pgd_buffer word; /* not written yet */
    uint32_t word_columns;
    uint32_t blanks; /* before it */
    uint32_t column; /* where the cursor is */
};

/* Adds what can be written now to `text`: no line gets longer than `columns`, unless one word is. `bytes` must be
 * whole characters. */
void pgd_wrap_add(struct pgd_wrap *wrap, const char *bytes, size_t count, uint32_t columns, struct pgd_buffer *text);

/* Nothing more comes: adds what was kept back, and frees it. */
void pgd_wrap_end(struct pgd_wrap *wrap, uint32_t columns, struct pgd_buffer *text);

#endif
