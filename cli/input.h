/* cli/input.h - texts of the user's. The prompt of `run`: from a flag, words, a file or standard input; checked.
 *
 * Bytes that are not UTF-8 become U+FFFD, with a warning; a NUL byte or no text at all is refused.
 */
#ifndef PGD_CLI_INPUT_H
#define PGD_CLI_INPUT_H

#include "cli/buffer.h"
#include "cli/options.h"
#include "cli/terminal.h"

#define PGD_INPUT_BYTES_MAX (UINT64_C(256) << 20)

/* Fills `prompt`. One newline at the end of a file is not a part of the prompt, unless it is to be read raw.
 * Errors: INVALID (no prompt, empty, NUL byte), NOT_FOUND (no such file), IO, LIMIT, NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_input_read(const struct pgd_options *options, const struct pgd_terminal *terminal,
                                                 struct pgd_buffer *prompt, struct pagoda_error *error);

/* Adds the bytes of a file, as they are; "-" is standard input. Errors: NOT_FOUND, IO, LIMIT, NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_input_read_file(const char *path, struct pgd_buffer *bytes,
                                                      struct pagoda_error *error);

/* Adds `count` bytes of the user's to `text` as above; `what` names them in messages. Errors: INVALID, NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_input_check(const char *what, const char *bytes, size_t count,
                                                  struct pgd_buffer *text, struct pagoda_error *error);

#endif
