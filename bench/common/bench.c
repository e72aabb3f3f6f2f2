/* bench/common/bench.c - see bench.h. */
#include "bench/common/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"

void bench_check(enum pagoda_status status, const struct pagoda_error *error, const char *what)
{
    if (status != PAGODA_OK) {
        fprintf(stderr, "%s: %s\n", what, error->message);
        exit(1);
    }
}

const char *bench_option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return argv[i + 1];
        }
    }
    return otherwise;
}

uint64_t bench_number(int argc, char **argv, const char *name, uint64_t otherwise)
{
    const char *text = bench_option(argc, argv, name, NULL);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

struct pgd_model *bench_open_model(int argc, char **argv)
{
    const char *path = bench_option(argc, argv, "--model", "build/models/smollm2-135m-instruct-q4_1.gguf");
    const struct pgd_model_options options = {.copy_weights = false};
    struct pgd_model *model = NULL;
    struct pagoda_error error;
    bench_check(pgd_model_open(path, &options, &model, &error), &error, path);
    return model;
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s cannot be opened: run `make texts` first\n", path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    *bytes = (size_t) ftell(file);
    rewind(file);
    char *text = malloc(*bytes + 1);
    if (text == NULL || fread(text, 1, *bytes, file) != *bytes) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    fclose(file);
    return text;
}

/* Tokens of text [skip, skip + wanted) of a file, cut at its end. */
static int32_t *tokens_of_part(const struct pgd_model *model, const char *path, size_t skip, size_t wanted,
                               uint64_t *count)
{
    size_t bytes = 0;
    char *text = read_file(path, &bytes);
    skip = skip < bytes ? skip : bytes;
    int32_t *tokens = NULL;
    size_t found = 0;
    struct pagoda_error error;
    const size_t part = bytes - skip < wanted ? bytes - skip : wanted;
    bench_check(pgd_model_tokenize(model, text + skip, part, true, false, &tokens, &found, &error), &error, path);
    free(text);
    *count = found;
    return tokens;
}

int32_t *bench_all_tokens(const struct pgd_model *model, const char *path, size_t bytes, uint64_t *count)
{
    return tokens_of_part(model, path, 0, bytes, count);
}

int32_t *bench_tokens(const struct pgd_model *model, const char *path, size_t skip_bytes, uint64_t count)
{
    /* Twelve bytes a token are plenty; tokenizing the whole book would take longer than the benchmark. */
    uint64_t found = 0;
    int32_t *tokens = tokens_of_part(model, path, skip_bytes, (size_t) count * 12, &found);
    if (found < count) {
        fprintf(stderr, "%s has only %llu tokens of the %llu that were asked for\n", path, (unsigned long long) found,
                (unsigned long long) count);
        exit(1);
    }
    return tokens;
}

double bench_seconds(void)
{
    return pgd_os_seconds();
}

uint64_t bench_resident_bytes(void)
{
    uint64_t resident = 0;
    uint64_t peak = 0;
    pgd_os_process_memory(&resident, &peak);
    return resident;
}
