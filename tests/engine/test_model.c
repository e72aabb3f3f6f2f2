/* Opening models: clear refusals, silence, and the vocabulary. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/gguf_check.h"
#include "engine/log.h"
#include "engine_test.h"
#include "ggml.h"
#include "gguf.h"

static struct pagoda_error error;

/* ---- files that are no models ---- */

static void check_refused(const char *path, enum pagoda_status status, const char *says)
{
    struct pgd_model *model = NULL;
    CHECK_FAILS(pgd_model_open(path, NULL, &model, &error), status);
    CHECK(model == NULL);
    CHECK_SAYS(says);
    CHECK_SAYS(path);
}

TEST(what_is_no_model_file_is_named)
{
    make_folder();
    check_refused("no/such/model.gguf", PAGODA_NOT_FOUND, "there is no file");
    check_refused(folder, PAGODA_INVALID, "directory");
    check_refused(put_file("empty", "", 0), PAGODA_CORRUPT, "is empty");
    check_refused(put_file("text", "hello, I am not a model at all", 30), PAGODA_CORRUPT, "not a GGUF file");
    check_refused(put_file("page", "<!DOCTYPE html><html>...", 24), PAGODA_CORRUPT, "web page");
    check_refused(put_file("lfs", "version https://git-lfs.github.com/spec/v1", 42), PAGODA_CORRUPT, "git lfs pull");
    check_refused(put_file("zip", "PK\x03\x04..........................", 30), PAGODA_CORRUPT, "archive");
    check_refused(put_file("magic", "GGUF", 4), PAGODA_CORRUPT, "ends after 4 bytes");
    check_refused(put_file("short", "GGUF\x03\0\0\0\x01\0\0\0", 12), PAGODA_CORRUPT, "ends after 12 bytes");
    check_refused(put_file("old", "GGUF\x01\0\0\0..................", 26), PAGODA_UNSUPPORTED, "version 1");
    check_refused(put_file("big", "GGUF\0\0\0\x03..................", 26), PAGODA_UNSUPPORTED, "byte order");
    CHECK_EQ_INT(mkfifo(in_folder("pipe"), 0600), 0);
    check_refused(in_folder("pipe"), PAGODA_INVALID, "not a regular file");
    remove_folder();
}

/* ---- crafted files ---- */

#define CRAFTED_TENSOR_FLOATS 64

/* A GGUF file with one small tensor. `edit` adds keys. */
static const char *craft(const char *name, const char *architecture, bool with_tensor,
                         void (*edit)(struct gguf_context *gguf))
{
    struct gguf_context *gguf = gguf_init_empty();
    struct ggml_context *ggml = ggml_init((struct ggml_init_params) {.mem_size = 65536});
    if (architecture != NULL) {
        gguf_set_val_str(gguf, "general.architecture", architecture);
    }
    if (edit != NULL) {
        edit(gguf);
    }
    if (with_tensor) {
        struct ggml_tensor *tensor = ggml_new_tensor_1d(ggml, GGML_TYPE_F32, CRAFTED_TENSOR_FLOATS);
        memset(tensor->data, 0, CRAFTED_TENSOR_FLOATS * sizeof(float));
        ggml_set_name(tensor, "token_embd.weight");
        gguf_add_tensor(gguf, tensor);
    }
    const char *path = in_folder(name);
    CHECK(gguf_write_to_file(gguf, path, false));
    ggml_free(ggml);
    gguf_free(gguf);
    return path;
}

TEST(kinds_that_cannot_be_run_are_refused_with_a_reason)
{
    static const char *const kinds[][2] = {
        {"bert", "embeddings"}, {"nomic-bert", "embeddings"}, {"gemma-embedding", "embeddings"},
        {"t5", "encoder"},      {"mamba", "recurrent"},       {"rwkv7", "recurrent"},
        {"jamba", "recurrent"}, {"lfm2", "recurrent"},        {"qwen3next", "recurrent"},
        {"llada", "diffusion"}, {"dream", "diffusion"},       {"deepseek32", "index"},
        {"deepseek4", "index"}, {"glm-dsa", "index"},         {"minimax-m3", "index"},
        {"llama4", "chunks"},   {"grok", "scores"},           {"clip", "part of another model"},
    };
    make_folder();
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const char *path = craft("kind.gguf", kinds[i][0], true, NULL);
        check_refused(path, PAGODA_UNSUPPORTED, kinds[i][1]);
        CHECK_SAYS(kinds[i][0]);
    }
    check_refused(craft("new.gguf", "quantum", true, NULL), PAGODA_UNSUPPORTED, "does not know");
    check_refused(craft("none.gguf", NULL, true, NULL), PAGODA_CORRUPT, "general.architecture");
    check_refused(craft("void.gguf", "llama", false, NULL), PAGODA_CORRUPT, "no weights");
    check_refused(craft("bare.gguf", "llama", true, NULL), PAGODA_CORRUPT, "cannot be loaded");
    remove_folder();
}

static void set_pooling(struct gguf_context *gguf)
{
    gguf_set_val_u32(gguf, "qwen3.pooling_type", 3);
}
static void set_causal(struct gguf_context *gguf)
{
    gguf_set_val_bool(gguf, "llama.attention.causal", false);
}
static void set_latent(struct gguf_context *gguf)
{
    gguf_set_val_u32(gguf, "deepseek2.attention.key_length_mla", 192);
}
static void set_layers(struct gguf_context *gguf)
{
    gguf_set_val_u32(gguf, "llama.block_count", 0);
}
static void set_adapter(struct gguf_context *gguf)
{
    gguf_set_val_str(gguf, "general.type", "adapter");
}
static void set_second_part(struct gguf_context *gguf)
{
    gguf_set_val_u16(gguf, "split.count", 3);
    gguf_set_val_u16(gguf, "split.no", 1);
}
static void set_first_part(struct gguf_context *gguf)
{
    gguf_set_val_u16(gguf, "split.count", 2);
    gguf_set_val_u16(gguf, "split.no", 0);
}
static void set_wrong_types(struct gguf_context *gguf)
{
    gguf_set_val_str(gguf, "llama.pooling_type", "mean");
    gguf_set_val_u32(gguf, "llama.attention.causal", 0);
    gguf_set_val_f32(gguf, "split.count", 2.0f);
    gguf_set_val_u32(gguf, "general.name", 1);
}
static void set_nasty_name(struct gguf_context *gguf)
{
    gguf_set_val_str(gguf, "general.name", "a\033[31mred\xFF\nb");
}

TEST(keys_that_make_a_model_unusable_are_seen)
{
    make_folder();
    check_refused(craft("a", "qwen3", true, set_pooling), PAGODA_UNSUPPORTED, "embeddings");
    check_refused(craft("b", "llama", true, set_causal), PAGODA_UNSUPPORTED, "embeddings");
    check_refused(craft("c", "deepseek2", true, set_latent), PAGODA_UNSUPPORTED, "MLA");
    check_refused(craft("d", "llama", true, set_layers), PAGODA_CORRUPT, "0 layers");
    check_refused(craft("e", "llama", true, set_adapter), PAGODA_UNSUPPORTED, "'adapter'");
    check_refused(craft("f", "llama", true, set_second_part), PAGODA_INVALID, "part 2 of a model in 3 files");
    check_refused(craft("g", "llama", true, set_first_part), PAGODA_INVALID, "-00001-of-00002.gguf");
    struct pgd_model *model = NULL;
    CHECK_FAILS(pgd_model_open(craft("h-00001-of-00002.gguf", "llama", true, set_first_part), NULL, &model, &error),
                PAGODA_NOT_FOUND);
    CHECK_SAYS("part 2 of 2");
    CHECK_SAYS("h-00002-of-00002.gguf");
    remove_folder();
}

TEST(keys_of_the_wrong_type_are_not_believed)
{
    struct pgd_gguf_facts facts;
    make_folder();
    CHECK_OK(pgd_gguf_check(craft("a", "llama", true, set_wrong_types), &facts, &error));
    CHECK_STR(facts.name, "");
    CHECK_STR(facts.architecture, "llama");
    CHECK_OK(pgd_gguf_check(craft("b", "llama", true, set_nasty_name), &facts, &error));
    CHECK_STR(facts.name, "a [31mred\xEF\xBF\xBD b");
    remove_folder();
}

TEST(parts_are_counted_together)
{
    struct pgd_gguf_facts facts;
    struct stat about;
    make_folder();
    craft("m-00002-of-00002.gguf", "llama", true, set_second_part);
    CHECK_EQ_INT(stat(in_folder("m-00002-of-00002.gguf"), &about), 0);
    const uint64_t second = (uint64_t) about.st_size;
    CHECK_OK(pgd_gguf_check(craft("m-00001-of-00002.gguf", "llama", true, set_first_part), &facts, &error));
    CHECK_EQ_INT(stat(in_folder("m-00001-of-00002.gguf"), &about), 0);
    CHECK_EQ_U64(facts.file_bytes, second + (uint64_t) about.st_size);
    CHECK_EQ_INT(truncate(in_folder("m-00002-of-00002.gguf"), (off_t) second - 40), 0);
    CHECK_FAILS(pgd_gguf_check(in_folder("m-00001-of-00002.gguf"), &facts, &error), PAGODA_CORRUPT);
    CHECK_SAYS("part 2 of 2");
    remove_folder();
}

/* The whole file, in memory. */
static unsigned char *read_file(const char *path, size_t *count)
{
    struct stat about;
    CHECK_EQ_INT(stat(path, &about), 0);
    unsigned char *bytes = malloc((size_t) about.st_size);
    FILE *file = fopen(path, "rb");
    CHECK(bytes != NULL && file != NULL);
    *count = fread(bytes, 1, (size_t) about.st_size, file);
    CHECK_EQ_U64(*count, about.st_size);
    fclose(file);
    return bytes;
}

TEST(damaged_headers_are_survived)
{
    struct test_rng rng = test_rng(test_seed());
    make_folder();
    size_t count = 0;
    pgd_log_install();
    unsigned char *good = read_file(craft("good", "llama", true, set_wrong_types), &count);
    unsigned char *bad = malloc(count);
    for (int round = 0; round < 3000; round++) {
        memcpy(bad, good, count);
        for (uint64_t i = 0; i <= test_rng_below(&rng, 4); i++) {
            bad[test_rng_below(&rng, count)] = (unsigned char) test_rng_u64(&rng);
        }
        const size_t length = test_rng_below(&rng, 3) == 0 ? test_rng_below(&rng, count) : count;
        struct pgd_gguf_facts facts;
        error.message[0] = '\0';
        const enum pagoda_status status = pgd_gguf_check(put_file("bad", bad, length), &facts, &error);
        CHECK(status == PAGODA_OK || error.message[0] != '\0');
    }
    free(good);
    free(bad);
    remove_folder();
}

/* ---- real models ---- */

/* The first `count` bytes of a model; holes cost nothing. */
static const char *cut_copy(const char *path, size_t count)
{
    static unsigned char bytes[1 << 16];
    FILE *from = fopen(path, "rb");
    FILE *to = fopen(in_folder("cut.gguf"), "wb");
    CHECK(from != NULL && to != NULL);
    for (size_t done = 0; done < count && done < (4u << 20);) {
        const size_t piece = count - done < sizeof(bytes) ? count - done : sizeof(bytes);
        CHECK_EQ_U64(fread(bytes, 1, piece, from), piece);
        CHECK_EQ_U64(fwrite(bytes, 1, piece, to), piece);
        done += piece;
    }
    fclose(from);
    fclose(to);
    CHECK_EQ_INT(truncate(in_folder("cut.gguf"), (off_t) count), 0);
    return in_folder("cut.gguf");
}

TEST(a_model_that_is_cut_short_is_refused_before_loading)
{
    const char *path = test_model_path(SMOLLM2);
    make_folder();
    check_refused(cut_copy(path, 1000), PAGODA_CORRUPT, "damaged or cut short");
    check_refused(cut_copy(path, 1000000), PAGODA_CORRUPT, "damaged or cut short");
    check_refused(cut_copy(path, 50000000), PAGODA_CORRUPT, "50000000 of 98362432 bytes");
    check_refused(cut_copy(path, 98362431), PAGODA_CORRUPT, "98362431 of 98362432 bytes");
    remove_folder();
}

TEST(a_model_tells_about_itself)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const struct pgd_model_info *info = pgd_model_get_info(model);
    CHECK_STR(info->architecture, "llama");
    CHECK_STR(info->name, "Smollm2 135M 8k Lc100K Mix1 Ep2");
    CHECK(strstr(info->description, "Q4_1") != NULL);
    CHECK_EQ_INT(info->layers, 30);
    CHECK_EQ_INT(info->trained_tokens, 8192);
    CHECK_EQ_INT(info->vocabulary, 49152);
    CHECK_EQ_INT(info->window, 0);
    CHECK_EQ_U64(info->parameters, 134515008);
    CHECK_EQ_U64(info->file_bytes, 98362432);
    CHECK(info->weights_bytes > 90000000 && info->weights_bytes < info->file_bytes);
    CHECK(info->has_chat_template);
    pgd_model_close(model);
    pgd_model_close(NULL);
}

TEST(a_model_with_windows_tells_their_size)
{
    struct pgd_model *model = open_model(test_model_path(GEMMA3));
    const struct pgd_model_info *info = pgd_model_get_info(model);
    CHECK_STR(info->architecture, "gemma3");
    CHECK_EQ_INT(info->window, 512);
    CHECK_EQ_INT(info->trained_tokens, 32768);
    CHECK(!info->has_chat_template);
    pgd_model_close(model);
}

TEST(nothing_reaches_the_terminal)
{
    const char *path = test_model_path(SMOLLM2);
    make_folder();
    fflush(stdout);
    const int out = dup(STDOUT_FILENO);
    const int err = dup(STDERR_FILENO);
    const int caught = open(in_folder("caught"), O_RDWR | O_CREAT, 0600);
    CHECK(out >= 0 && err >= 0 && caught >= 0);
    dup2(caught, STDOUT_FILENO);
    dup2(caught, STDERR_FILENO);
    struct pgd_model *model = NULL;
    const enum pagoda_status good = pgd_model_open(path, NULL, &model, &error);
    struct pgd_bridge *bridge = NULL;
    const struct pgd_bridge_options options = {.kv_bytes = 4 << 20, .threads = 2};
    const enum pagoda_status bridged = good == PAGODA_OK ? pgd_bridge_open(model, &options, &bridge, &error) : good;
    struct pgd_model *none = NULL;
    const enum pagoda_status bad = pgd_model_open(craft("bare.gguf", "llama", true, NULL), NULL, &none, NULL);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    CHECK_EQ_INT(good, PAGODA_OK);
    CHECK_OK(bridged);
    CHECK_EQ_INT(bad, PAGODA_CORRUPT);
    CHECK_EQ_INT(lseek(caught, 0, SEEK_END), 0);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
    remove_folder();
}

struct progress {
    float last;
    int calls;
    int cancel_at;
};

static bool on_progress(void *user, float fraction)
{
    struct progress *progress = user;
    CHECK(fraction >= progress->last && fraction <= 1.0f);
    progress->last = fraction;
    progress->calls++;
    return progress->calls != progress->cancel_at;
}

TEST(loading_shows_progress_and_can_be_cancelled)
{
    const char *path = test_model_path(SMOLLM2);
    for (int copy = 0; copy < 2; copy++) {
        struct progress progress = {.last = 0};
        struct pgd_model_options options = {.copy_weights = copy == 1, .progress = on_progress, .user = &progress};
        struct pgd_model *model = NULL;
        CHECK_OK(pgd_model_open(path, &options, &model, &error));
        CHECK(progress.calls >= 2 && progress.last == 1.0f);
        pgd_model_close(model);
        progress = (struct progress) {.cancel_at = 2};
        CHECK_FAILS(pgd_model_open(path, &options, &model, &error), PAGODA_CANCELLED);
    }
}

/* ---- tokens ---- */

static size_t tokenize(const struct pgd_model *model, const char *text, size_t bytes, bool add_special,
                       bool parse_special, int32_t *tokens, size_t room)
{
    int32_t *made = NULL;
    size_t count = 0;
    CHECK_OK(pgd_model_tokenize(model, text, bytes, add_special, parse_special, &made, &count, &error));
    CHECK(count <= room);
    memcpy(tokens, made, count * sizeof(*tokens));
    free(made);
    return count;
}

/* text -> tokens -> text */
static void check_round_trip(const struct pgd_model *model, const char *text, size_t bytes, const char *wanted,
                             size_t wanted_bytes)
{
    int32_t tokens[256];
    char back[256 * PGD_PIECE_BYTES_MAX];
    size_t used = 0;
    const size_t count = tokenize(model, text, bytes, false, false, tokens, 256);
    for (size_t i = 0; i < count; i++) {
        used += pgd_model_piece(model, tokens[i], true, back + used);
    }
    CHECK_EQ_U64(used, wanted_bytes);
    CHECK_MEM(back, wanted, used);
}

#define ROUND_TRIP(model, text, wanted) check_round_trip(model, text, sizeof(text) - 1, wanted, sizeof(wanted) - 1)

TEST(text_comes_back_from_its_tokens)
{
    static const char *const names[] = {SMOLLM2, GEMMA3};
    for (int i = 0; i < 2; i++) {
        struct pgd_model *model = open_model(test_model_path(names[i]));
        ROUND_TRIP(model, "", "");
        ROUND_TRIP(model, "The quick brown fox, 12 dogs.", "The quick brown fox, 12 dogs.");
        ROUND_TRIP(model, "  two\n\nlines\t", "  two\n\nlines\t");
        ROUND_TRIP(model,
                   "Gr\xC3\xBC\xC3\x9F"
                   "e \xE2\x82\xAC \xF0\x9F\x8F\xAF",
                   "Gr\xC3\xBC\xC3\x9F"
                   "e \xE2\x82\xAC \xF0\x9F\x8F\xAF");
        ROUND_TRIP(model, "one\0two\0", "one\0two\0");
        ROUND_TRIP(model, "a\xFF\xE2\x82z", "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");
        ROUND_TRIP(model, "<|im_start|> <bos>", "<|im_start|> <bos>");
        pgd_model_close(model);
    }
}

TEST(control_tokens_are_read_only_when_asked_for)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t tokens[64];
    const char text[] = "<|im_end|>";
    CHECK_EQ_U64(tokenize(model, text, strlen(text), false, true, tokens, 64), 1);
    CHECK_EQ_INT(tokens[0], 2);
    CHECK(pgd_model_is_end(model, tokens[0]));
    char piece[PGD_PIECE_BYTES_MAX];
    CHECK_EQ_U64(pgd_model_piece(model, tokens[0], false, piece), 0);
    CHECK_EQ_U64(pgd_model_piece(model, tokens[0], true, piece), strlen(text));
    CHECK(tokenize(model, text, strlen(text), false, false, tokens, 64) > 1);
    CHECK(!pgd_model_is_end(model, tokens[0]));
    CHECK(!pgd_model_is_end(model, -1) && !pgd_model_is_end(model, INT32_MAX));
    CHECK_EQ_U64(pgd_model_piece(model, -1, true, piece), 0);
    CHECK_EQ_U64(pgd_model_piece(model, 49152, true, piece), 0);
    pgd_model_close(model);
}

TEST(the_start_token_comes_once)
{
    int32_t tokens[64];
    struct pgd_model *gemma = open_model(test_model_path(GEMMA3)); /* wants BOS, number 2 */
    CHECK_EQ_U64(tokenize(gemma, "", 0, true, true, tokens, 64), 1);
    CHECK_EQ_INT(tokens[0], 2);
    CHECK_EQ_U64(tokenize(gemma, "Hello", 5, true, true, tokens, 64), 2);
    CHECK_EQ_INT(tokens[0], 2);
    CHECK_EQ_U64(tokenize(gemma, "<bos>Hello", 10, true, true, tokens, 64), 2);
    CHECK_EQ_INT(tokens[0], 2);
    CHECK_EQ_U64(tokenize(gemma, "Hello", 5, false, true, tokens, 64), 1);
    pgd_model_close(gemma);
    struct pgd_model *smollm = open_model(test_model_path(SMOLLM2)); /* has one, but wants none */
    CHECK_EQ_U64(tokenize(smollm, "Hello", 5, true, true, tokens, 64), 1);
    pgd_model_close(smollm);
}

TEST(a_text_past_the_limit_is_refused)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = NULL;
    size_t count = 0;
    CHECK_FAILS(pgd_model_tokenize(model, "", (size_t) INT32_MAX + 1, false, false, &tokens, &count, &error),
                PAGODA_LIMIT);
    pgd_model_close(model);
}
