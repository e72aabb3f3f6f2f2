/* cli/input.c - see input.h. */
#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/safe.h"

enum pagoda_status pgd_input_check(const char *what, const char *bytes, size_t count, struct pgd_buffer *text,
                                   struct pagoda_error *error)
{
    const char *nul = count == 0 ? NULL : memchr(bytes, '\0', count);
    if (nul != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "%s has a NUL byte at offset %zu: it is not text", what,
                        (size_t) (nul - bytes));
    }
    const size_t replaced = pgd_safe_repair(text, bytes, count);
    if (text->failed) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %s of %zu bytes", what, count);
    }
    if (replaced > 0) {
        pgd_say_warning("%s is not all UTF-8: %zu byte%s read as U+FFFD", what, replaced, replaced == 1 ? "" : "s");
    }
    return PAGODA_OK;
}

static enum pagoda_status read_stream(FILE *stream, const char *name, struct pgd_buffer *bytes,
                                      struct pagoda_error *error)
{
    char piece[16384];
    size_t count = 0;
    while ((count = fread(piece, 1, sizeof(piece), stream)) > 0) {
        pgd_buffer_add(bytes, piece, count);
        if (bytes->failed) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for the text in %.200s", name);
        }
        if (bytes->count > PGD_INPUT_BYTES_MAX) {
            return pgd_fail(error, PAGODA_LIMIT, "the text in %.200s is longer than %s", name,
                            pgd_size_words(PGD_INPUT_BYTES_MAX).text);
        }
    }
    if (ferror(stream)) {
        return pgd_fail(error, PAGODA_IO, "cannot read %.200s: %s", name, strerror(errno));
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_input_read_file(const char *path, struct pgd_buffer *bytes, struct pagoda_error *error)
{
    if (strcmp(path, "-") == 0) {
        return read_stream(stdin, "standard input", bytes, error);
    }
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return pgd_fail(error, errno == ENOENT ? PAGODA_NOT_FOUND : PAGODA_IO, "cannot read %.200s: %s", path,
                        strerror(errno));
    }
    enum pagoda_status status = read_stream(file, path, bytes, error);
    fclose(file);
    return status;
}

static void join_words(const struct pgd_options *options, struct pgd_buffer *bytes)
{
    for (int i = 0; i < options->word_count; i++) {
        pgd_buffer_print(bytes, "%s%s", i == 0 ? "" : " ", options->words[i]);
    }
}

static enum pagoda_status read_bytes(const struct pgd_options *options, const struct pgd_terminal *terminal,
                                     struct pgd_buffer *bytes, struct pagoda_error *error)
{
    if (options->prompt != NULL) {
        pgd_buffer_add(bytes, options->prompt, strlen(options->prompt));
        return PAGODA_OK;
    }
    if (options->word_count > 0) {
        join_words(options, bytes);
        return PAGODA_OK;
    }
    if (options->file == NULL && terminal->in_is_tty) {
        return pgd_fail(error, PAGODA_INVALID, "no prompt: use -p TEXT, -f FILE, words after the model, or pipe it in");
    }
    enum pagoda_status status = pgd_input_read_file(options->file != NULL ? options->file : "-", bytes, error);
    if (status == PAGODA_OK && !options->raw && bytes->count > 0 && bytes->bytes[bytes->count - 1] == '\n') {
        bytes->bytes[--bytes->count] = '\0';
    }
    return status;
}

enum pagoda_status pgd_input_read(const struct pgd_options *options, const struct pgd_terminal *terminal,
                                  struct pgd_buffer *prompt, struct pagoda_error *error)
{
    struct pgd_buffer bytes = {0};
    enum pagoda_status status = read_bytes(options, terminal, &bytes, error);
    if (status == PAGODA_OK && bytes.count == 0) {
        status = pgd_fail(error, PAGODA_INVALID, "the prompt is empty");
    }
    if (status == PAGODA_OK) {
        status = pgd_input_check("the prompt", bytes.bytes, bytes.count, prompt, error);
    }
    pgd_buffer_free(&bytes);
    return status;
}
