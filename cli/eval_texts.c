/* cli/eval_texts.c - see eval_texts.h. */
#include "cli/eval_texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/input.h"

#define USUAL_BYTES_PER_TOKEN 6u /* more than most texts have; when it is not enough, all of a part is taken */

static const char *const fetched_names[] = {"debian-handbook.txt", "bible-kjv.txt", "newton-opticks.txt"};

/* ---- finding and reading ---- */

static enum pagoda_status read_text(struct pgd_eval_texts *texts, const char *path, struct pagoda_error *error)
{
    struct pgd_eval_text *text = &texts->items[texts->count];
    struct pgd_buffer raw = {0};
    char what[PGD_EVAL_PATH_BYTES];
    snprintf(text->path, sizeof(text->path), "%s", path);
    snprintf(what, sizeof(what), "%.200s", path);
    texts->count++; /* from here on its bytes are freed with the rest */
    enum pagoda_status status = pgd_input_read_file(path, &raw, error);
    if (status == PAGODA_OK && raw.count == 0) {
        status = pgd_fail(error, PAGODA_INVALID, "%.200s is empty", path);
    }
    if (status == PAGODA_OK) {
        status = pgd_input_check(what, raw.bytes, raw.count, &text->bytes, error);
    }
    pgd_buffer_free(&raw);
    return status;
}

/* The folder of the running program, with its slash; "" where a system does not tell. */
static void find_program_folder(char *folder, size_t bytes)
{
    const ssize_t length = readlink("/proc/self/exe", folder, bytes - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[1] = '\0';
    }
}

static enum pagoda_status read_fetched(struct pgd_eval_texts *texts, struct pagoda_error *error)
{
    char program[PGD_EVAL_PATH_BYTES / 2];
    find_program_folder(program, sizeof(program));
    const char *const folders[] = {"build/", program};
    for (size_t f = 0; f < sizeof(folders) / sizeof(folders[0]) && texts->count == 0; f++) {
        for (size_t i = 0; i < sizeof(fetched_names) / sizeof(fetched_names[0]); i++) {
            char path[PGD_EVAL_PATH_BYTES];
            snprintf(path, sizeof(path), "%stexts/%s", folders[f], fetched_names[i]);
            enum pagoda_status status = access(path, R_OK) == 0 ? read_text(texts, path, error) : PAGODA_OK;
            if (status != PAGODA_OK) {
                return status;
            }
        }
    }
    if (texts->count == 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "no text to measure on: give one with --text FILE (three are better than one), or fetch "
                        "three with 'make texts' and start pagoda in that directory");
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_eval_texts_read(const struct pgd_options *options, struct pgd_eval_texts *texts,
                                       struct pagoda_error *error)
{
    enum pagoda_status status = options->texts.count == 0 ? read_fetched(texts, error) : PAGODA_OK;
    for (uint32_t i = 0; i < options->texts.count && status == PAGODA_OK; i++) {
        status = read_text(texts, options->texts.items[i], error);
    }
    return status;
}

void pgd_eval_texts_free(struct pgd_eval_texts *texts)
{
    for (uint32_t i = 0; i < texts->count; i++) {
        pgd_buffer_free(&texts->items[i].bytes);
    }
    texts->count = 0;
}

const char *pgd_eval_text_name(const struct pgd_eval_text *text)
{
    const char *slash = strrchr(text->path, '/');
    return slash == NULL ? text->path : slash + 1;
}

/* ---- cutting ---- */

/* The first start of a line in [start, end), or `start`. */
static size_t next_line(const struct pgd_buffer *bytes, size_t start, size_t end)
{
    if (start == 0) {
        return 0;
    }
    const char *line_break = memchr(bytes->bytes + start, '\n', end - start);
    return line_break != NULL && line_break + 1 < bytes->bytes + end ? (size_t) (line_break + 1 - bytes->bytes) : start;
}

const char *pgd_eval_text_from(const struct pgd_eval_text *text, double share, size_t *bytes)
{
    const size_t start = next_line(&text->bytes, (size_t) (share * (double) text->bytes.count), text->bytes.count);
    *bytes = text->bytes.count - start;
    return text->bytes.bytes + start;
}

/* The tokens of bytes [start, end) of a text, cut at `wanted`; a document without tokens when there are fewer. */
static enum pagoda_status try_part(const struct pgd_eval_text *text, const struct pgd_model *model, size_t start,
                                   size_t end, uint64_t wanted, struct pgd_eval_document *document,
                                   struct pagoda_error *error)
{
    document->offset = next_line(&text->bytes, start, end);
    enum pagoda_status status = pgd_model_tokenize(model, text->bytes.bytes + document->offset, end - document->offset,
                                                   true, false, &document->tokens, &document->count, error);
    if (status == PAGODA_OK && document->count < wanted) {
        free(document->tokens);
        document->tokens = NULL;
    }
    return status;
}

enum pagoda_status pgd_eval_texts_cut(const struct pgd_eval_texts *texts, const struct pgd_model *model, uint32_t index,
                                      uint32_t documents, uint64_t wanted, struct pgd_eval_document *document,
                                      struct pagoda_error *error)
{
    *document = (struct pgd_eval_document) {.text = index % texts->count};
    const struct pgd_eval_text *text = &texts->items[document->text];
    const uint32_t parts = (documents - document->text + texts->count - 1) / texts->count;
    const size_t part_bytes = text->bytes.count / parts;
    const size_t start = part_bytes * (index / texts->count);
    const size_t likely = (size_t) pgd_min_u64(wanted * USUAL_BYTES_PER_TOKEN, part_bytes);
    const size_t middle = start + (part_bytes - likely) / 2;
    enum pagoda_status status = try_part(text, model, middle, middle + likely, wanted, document, error);
    if (status == PAGODA_OK && document->tokens == NULL && likely < part_bytes) {
        status = try_part(text, model, start, start + part_bytes, wanted, document, error);
    }
    if (status == PAGODA_OK && document->tokens == NULL) {
        status = pgd_fail(error, PAGODA_INVALID,
                          "%.200s is too short: %s of it has %zu tokens, a document takes %llu; use --tokens, fewer "
                          "--docs or a longer text",
                          text->path, parts == 1 ? "all" : "a share", document->count, (unsigned long long) wanted);
    }
    if (status == PAGODA_OK) {
        document->count = (size_t) wanted;
    }
    return status;
}
