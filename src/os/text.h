/* os/text.h - reading the small text files in which Linux tells about itself.
 *
 * Nothing in them is trusted: what is missing, too long or not a number is unknown, never an error.
 * Threads: any.
 */
#ifndef PGD_OS_TEXT_H
#define PGD_OS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#define PGD_TEXT_BYTES_MAX 16384u
#define PGD_TEXT_PATH_MAX 4096u

/* Reads up to `capacity` - 1 bytes of root/directory/name and terminates them; when the file goes on, the
 * last line is cut off whole. False when there is no such file or its path is too long. */
PGD_MUST_CHECK bool pgd_text_read(const char *root, const char *directory, const char *name, char *text,
                                  size_t capacity);

/* The number that `text` begins with, after blanks; one too big for 64 bits becomes UINT64_MAX.
 * False when there is none, or when something other than white space follows the digits. */
PGD_MUST_CHECK bool pgd_text_number(const char *text, uint64_t *number);

/* The number in the line of `text` whose first word is `key`. False when there is no such line. */
PGD_MUST_CHECK bool pgd_text_field(const char *text, const char *key, uint64_t *number);

#endif
