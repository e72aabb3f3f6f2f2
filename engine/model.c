/* engine/model.c - see model.h. */
#include "engine/model.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/gguf_check.h"
#include "engine/log.h"
#include "engine/utf8.h"
#include "ggml-backend.h"
#include "llama.h"

struct pgd_model {
    struct llama_model *llama;
    const struct llama_vocab *vocab;
    struct pgd_model_info info;
};

/* ---- opening ---- */

static pthread_once_t started = PTHREAD_ONCE_INIT;

/* A system's libllama may keep its CPU code in plug-ins; ours has it inside, and must not look for any. */
static void start_engine(void)
{
    pgd_log_install();
    llama_backend_init();
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL) {
        ggml_backend_load_all();
    }
}

struct progress {
    const struct pgd_model_options *options;
    bool cancelled;
};

static bool on_progress(float fraction, void *user)
{
    struct progress *progress = user;
    const struct pgd_model_options *options = progress->options;
    if (options->progress != NULL && !options->progress(options->user, fraction)) {
        progress->cancelled = true;
    }
    return !progress->cancelled;
}

static bool contains_one_of(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(text, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* libllama tells only by its log why a file was refused. */
static enum pagoda_status fail_to_load(const char *path, struct pagoda_error *error)
{
    static const char *const unknown[] = {"unknown model architecture", "unknown pre-tokenizer", "unknown tokenizer",
                                          "unsupported"};
    static const char *const memory[] = {"alloc", "Cannot allocate memory"};
    char reason[200];
    pgd_log_first_error(reason, sizeof(reason));
    if (contains_one_of(reason, unknown, sizeof(unknown) / sizeof(unknown[0]))) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the engine does not know this kind of model: %s (%s)", path,
                        reason);
    }
    if (contains_one_of(reason, memory, sizeof(memory) / sizeof(memory[0]))) {
        return pgd_fail(error, PAGODA_NOMEM, "there is not enough memory for %s (%s)", path, reason);
    }
    return pgd_fail(error, PAGODA_CORRUPT, "%s cannot be loaded (%s)", path, reason);
}

static enum pagoda_status load(struct pgd_model *model, const char *path, const struct pgd_model_options *options,
                               struct pagoda_error *error)
{
    ggml_backend_dev_t no_devices[] = {NULL};
    struct progress progress = {.options = options, .cancelled = false};
    struct llama_model_params params = llama_model_default_params();
    params.devices = no_devices;
    params.n_gpu_layers = 0;
    params.load_mode = options->copy_weights ? LLAMA_LOAD_MODE_NONE : LLAMA_LOAD_MODE_MMAP;
    params.progress_callback = on_progress;
    params.progress_callback_user_data = &progress;
    pgd_log_reset();
    model->llama = llama_model_load_from_file(path, params);
    if (model->llama != NULL) {
        model->vocab = llama_model_get_vocab(model->llama);
        return PAGODA_OK;
    }
    if (progress.cancelled) {
        return pgd_fail(error, PAGODA_CANCELLED, "loading %s was cancelled", path);
    }
    return fail_to_load(path, error);
}

/* What the header did not tell; see gguf_check.c for what it did. */
static enum pagoda_status check_loaded(const struct pgd_model *model, const char *path, struct pagoda_error *error)
{
    const char *reason = NULL;
    if (llama_model_has_encoder(model->llama) || !llama_model_has_decoder(model->llama)) {
        reason = "it has an encoder, and only models that just continue text can be run";
    } else if (llama_model_is_recurrent(model->llama) || llama_model_is_hybrid(model->llama)) {
        reason = "its layers keep a recurrent state in place of a KV cache";
    } else if (llama_model_is_diffusion(model->llama)) {
        reason = "it writes by diffusion, not token by token";
    } else if (llama_vocab_type(model->vocab) == LLAMA_VOCAB_TYPE_NONE || llama_vocab_n_tokens(model->vocab) <= 0) {
        reason = "it has no vocabulary, so text cannot be turned into tokens";
    }
    if (reason != NULL) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "%s cannot be run: %s", path, reason);
    }
    return PAGODA_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static void fill_info(struct pgd_model *model, const char *path, const struct pgd_gguf_facts *facts)
{
    struct pgd_model_info *info = &model->info;
    snprintf(info->name, sizeof(info->name), "%s", facts->name[0] != '\0' ? facts->name : base_name(path));
    snprintf(info->architecture, sizeof(info->architecture), "%s", facts->architecture);
    if (llama_model_desc(model->llama, info->description, sizeof(info->description)) < 0) {
        info->description[0] = '\0';
    }
    info->layers = (uint32_t) llama_model_n_layer(model->llama);
    info->trained_tokens = (uint32_t) llama_model_n_ctx_train(model->llama);
    info->vocabulary = (uint32_t) llama_vocab_n_tokens(model->vocab);
    info->window = (uint32_t) llama_model_n_swa(model->llama);
    info->parameters = llama_model_n_params(model->llama);
    info->weights_bytes = llama_model_size(model->llama);
    info->mapped_bytes = pgd_log_sum_mib("_Mapped model buffer size");
    info->file_bytes = facts->file_bytes;
    info->has_chat_template = llama_model_chat_template(model->llama, NULL) != NULL;
}

enum pagoda_status pgd_model_open(const char *path, const struct pgd_model_options *options, struct pgd_model **out,
                                  struct pagoda_error *error)
{
    static const struct pgd_model_options defaults = {.copy_weights = false};
    struct pgd_gguf_facts facts;
    pthread_once(&started, start_engine);
    enum pagoda_status status = pgd_gguf_check(path, &facts, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_model *model = calloc(1, sizeof(*model));
    if (model == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a model");
    }
    status = load(model, path, options != NULL ? options : &defaults, error);
    if (status == PAGODA_OK) {
        status = check_loaded(model, path, error);
    }
    if (status != PAGODA_OK) {
        pgd_model_close(model);
        return status;
    }
    fill_info(model, path, &facts);
    *out = model;
    return PAGODA_OK;
}

void pgd_model_close(struct pgd_model *model)
{
    if (model != NULL) {
        llama_model_free(model->llama);
        free(model);
    }
}

const char *pgd_model_library_version(void)
{
    return PAGODA_LLAMA_VERSION;
}

const struct pgd_model_info *pgd_model_get_info(const struct pgd_model *model)
{
    return &model->info;
}

struct llama_model *pgd_model_llama(const struct pgd_model *model)
{
    return model->llama;
}

/* ---- text and tokens ---- */

/* *valid is malloc'ed. */
static enum pagoda_status make_valid(const char *text, size_t bytes, char **valid, int32_t *valid_bytes,
                                     struct pagoda_error *error)
{
    if (bytes > INT32_MAX) {
        return pgd_fail(error, PAGODA_LIMIT, "a text has at most 2 GiB, this one has %zu bytes", bytes);
    }
    char *copy = malloc(PGD_UTF8_ROOM(bytes));
    if (copy == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a text of %zu bytes", bytes);
    }
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = pgd_utf8_push(&stream, text, bytes, copy);
    used += pgd_utf8_flush(&stream, copy + used);
    if (used > INT32_MAX) {
        free(copy);
        return pgd_fail(error, PAGODA_LIMIT, "a text has at most 2 GiB, this one has %zu bytes", used);
    }
    *valid = copy;
    *valid_bytes = (int32_t) used;
    return PAGODA_OK;
}

/* Puts BOS before the tokens when the model wants it and it is not there yet: a chat template, or a user who
 * writes prompts by hand, may have put it there as text. `tokens` has room for it. */
static int32_t add_bos(const struct pgd_model *model, int32_t *tokens, int32_t count)
{
    const llama_token bos = llama_vocab_bos(model->vocab);
    if (!llama_vocab_get_add_bos(model->vocab) || bos == LLAMA_TOKEN_NULL || (count > 0 && tokens[0] == bos)) {
        return count;
    }
    memmove(tokens + 1, tokens, (size_t) count * sizeof(*tokens));
    tokens[0] = bos;
    return count + 1;
}

/* Splits valid text; *tokens is malloc'ed and has room for one more. Not with libllama's add_special: it would also
 * add an end token, for the few models that want one. */
static enum pagoda_status split(const struct pgd_model *model, const char *text, int32_t bytes, bool parse_special,
                                int32_t **out, int32_t *out_count, struct pagoda_error *error)
{
    /* Hardly ever more tokens than bytes: only blanks that some vocabularies add. Then libllama says how many. */
    int32_t room = bytes < INT32_MAX - 2 ? bytes + 2 : INT32_MAX;
    for (;;) {
        int32_t *tokens = malloc(((size_t) room + 1) * sizeof(*tokens));
        if (tokens == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for the tokens of a text of %d bytes", bytes);
        }
        const int32_t count = llama_tokenize(model->vocab, text, bytes, tokens, room, false, parse_special);
        if (count >= 0) {
            *out = tokens;
            *out_count = count;
            return PAGODA_OK;
        }
        free(tokens);
        if (count == INT32_MIN || -count <= room) {
            return pgd_fail(error, PAGODA_LIMIT, "a text of %d bytes has too many tokens", bytes);
        }
        room = -count;
    }
}

enum pagoda_status pgd_model_tokenize(const struct pgd_model *model, const char *text, size_t bytes, bool add_special,
                                      bool parse_special, int32_t **out, size_t *out_count, struct pagoda_error *error)
{
    char *valid = NULL;
    int32_t valid_bytes = 0;
    enum pagoda_status status = make_valid(text, bytes, &valid, &valid_bytes, error);
    if (status != PAGODA_OK) {
        return status;
    }
    int32_t *tokens = NULL;
    int32_t count = 0;
    status = split(model, valid, valid_bytes, parse_special, &tokens, &count, error);
    free(valid);
    if (status != PAGODA_OK) {
        return status;
    }
    if (add_special) {
        count = add_bos(model, tokens, count);
    }
    int32_t *fitted = realloc(tokens, ((size_t) count + 1) * sizeof(*tokens));
    *out = fitted != NULL ? fitted : tokens;
    *out_count = (size_t) count;
    return PAGODA_OK;
}

/* A token longer than any caller has room for, cut. */
static size_t copy_long_piece(const struct pgd_model *model, int32_t token, bool special, int32_t length, char *bytes)
{
    char *whole = malloc((size_t) length);
    if (whole == NULL) {
        return 0;
    }
    const int32_t got = llama_token_to_piece(model->vocab, token, whole, length, 0, special);
    const size_t kept = got <= 0 ? 0 : got > (int32_t) PGD_PIECE_BYTES_MAX ? PGD_PIECE_BYTES_MAX : (size_t) got;
    memcpy(bytes, whole, kept);
    free(whole);
    return kept;
}

size_t pgd_model_piece(const struct pgd_model *model, int32_t token, bool special, char *bytes)
{
    if (token < 0 || (uint32_t) token >= model->info.vocabulary) {
        return 0;
    }
    const int32_t length = llama_token_to_piece(model->vocab, token, bytes, (int32_t) PGD_PIECE_BYTES_MAX, 0, special);
    return length >= 0 ? (size_t) length : copy_long_piece(model, token, special, -length, bytes);
}

size_t pgd_model_text_bytes(const struct pgd_model *model, const int32_t *tokens, size_t count)
{
    char piece[PGD_PIECE_BYTES_MAX];
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += pgd_model_piece(model, tokens[i], true, piece);
    }
    return bytes;
}

bool pgd_model_is_end(const struct pgd_model *model, int32_t token)
{
    return token >= 0 && (uint32_t) token < model->info.vocabulary && llama_vocab_is_eog(model->vocab, token);
}
