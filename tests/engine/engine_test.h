/* What the engine's tests share: opening the test models and bridges, and files of their own. */
#ifndef PAGODA_TESTS_ENGINE_TEST_H
#define PAGODA_TESTS_ENGINE_TEST_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bridge.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "gguf.h"
#include "harness/test.h"

#define SMOLLM2 "smollm2-135m-instruct-q4_1.gguf"
#define GEMMA3 "gemma-3-270m-q4_k_m.gguf"

/* The call is the one whose last argument is &error; its message is printed when it fails. */
#define CHECK_OK(call) \
    do { \
        const enum pagoda_status check_ok_status = (call); \
        if (check_ok_status != PAGODA_OK) { \
            test_fail(__FILE__, __LINE__, "%s: %s: %s", #call, pagoda_status_name(check_ok_status), error.message); \
        } \
    } while (0)

#define CHECK_FAILS(call, expected) \
    do { \
        error = (struct pagoda_error) {.status = PAGODA_OK}; \
        const enum pagoda_status check_fails_status = (call); \
        CHECK_EQ_INT(check_fails_status, expected); \
        CHECK_EQ_INT(error.status, expected); \
        CHECK(error.message[0] != '\0'); \
    } while (0)

#define CHECK_SAYS(part) \
    (strstr(error.message, (part)) != NULL \
         ? (void) 0 \
         : test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", error.message, (part)))

__attribute__((unused)) static struct pgd_model *open_model(const char *path)
{
    struct pagoda_error error;
    struct pgd_model *model = NULL;
    CHECK_OK(pgd_model_open(path, NULL, &model, &error));
    return model;
}

__attribute__((unused)) static struct pgd_bridge *open_bridge(const struct pgd_model *model, double kv_mib,
                                                              enum pagoda_on_full on_full)
{
    struct pagoda_error error;
    struct pgd_bridge *bridge = NULL;
    const struct pgd_bridge_options options = {
        .kv_bytes = (uint64_t) (kv_mib * 1048576.0),
        .on_full = on_full,
        .policy = {.kind = PAGODA_POLICY_SINK},
        .threads = 2,
    };
    CHECK_OK(pgd_bridge_open(model, &options, &bridge, &error));
    return bridge;
}

__attribute__((unused)) static struct pgd_sampler *open_greedy(const struct pgd_model *model)
{
    struct pagoda_error error;
    struct pgd_sampler *sampler = NULL;
    struct pgd_sampler_options options;
    pgd_sampler_options_default(&options);
    options.temperature = 0;
    CHECK_OK(pgd_sampler_open(model, &options, &sampler, &error));
    return sampler;
}

/* ---- a directory of its own for a test ---- */

static char folder[512];

__attribute__((unused)) static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void) about;
    (void) kind;
    (void) where;
    return remove(path);
}

__attribute__((unused)) static void make_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/pagoda-test-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    CHECK(mkdtemp(folder) != NULL);
}

__attribute__((unused)) static void remove_folder(void)
{
    CHECK_EQ_INT(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The path of a file in it; good until the next call. */
__attribute__((unused)) static const char *in_folder(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

__attribute__((unused)) static const char *put_file(const char *name, const void *bytes, size_t count)
{
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, count, file) == count);
    CHECK(fclose(file) == 0);
    return path;
}

/* A copy of a model, in the folder, with another chat template. */
__attribute__((unused)) static const char *copy_with_template(const char *path, const char *name, const char *template)
{
    struct gguf_context *gguf = gguf_init_from_file(path, (struct gguf_init_params) {.no_alloc = true});
    CHECK(gguf != NULL);
    const size_t data_offset = gguf_get_data_offset(gguf);
    gguf_set_val_str(gguf, "tokenizer.chat_template", template);
    const size_t header_bytes = gguf_get_meta_size(gguf); /* padded, as the data needs it */
    void *header = malloc(header_bytes);
    CHECK(header != NULL);
    gguf_get_meta_data(gguf, header);
    gguf_free(gguf);
    const char *copy = put_file(name, header, header_bytes);
    free(header);
    FILE *from = fopen(path, "rb");
    FILE *to = fopen(copy, "ab");
    static char piece[1 << 20];
    CHECK(from != NULL && to != NULL && fseek(from, (long) data_offset, SEEK_SET) == 0);
    for (size_t count = 0; (count = fread(piece, 1, sizeof(piece), from)) > 0;) {
        CHECK(fwrite(piece, 1, count, to) == count);
    }
    fclose(from);
    CHECK(fclose(to) == 0);
    return copy;
}

/* A text that grows. */
struct text {
    char bytes[65536];
    size_t count;
    size_t calls;
    size_t calls_max; /* then the listener hangs up; 0: never */
};

__attribute__((unused)) static bool listen(void *user, const char *bytes, size_t count)
{
    struct text *text = user;
    CHECK(text->count + count < sizeof(text->bytes));
    memcpy(text->bytes + text->count, bytes, count);
    text->count += count;
    text->bytes[text->count] = '\0';
    text->calls++;
    return text->calls_max == 0 || text->calls < text->calls_max;
}

#endif
