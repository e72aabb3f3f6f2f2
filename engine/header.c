/* engine/header.c - see header.h. */
#include "engine/header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/utf8.h"
#include "engine/weights.h"
#include "llama.h"

#define PATH_BYTES_MAX 4096u

static const char *const key_names[PGD_KEYS] = {
    [PGD_KEY_LAYERS] = "block_count",
    [PGD_KEY_CONTEXT] = "context_length",
    [PGD_KEY_EMBEDDING] = "embedding_length",
    [PGD_KEY_VOCABULARY] = "vocab_size",
    [PGD_KEY_FEED_FORWARD] = "feed_forward_length",
    [PGD_KEY_HEADS] = "attention.head_count",
    [PGD_KEY_KV_HEADS] = "attention.head_count_kv",
    [PGD_KEY_KEY_SIZE] = "attention.key_length",
    [PGD_KEY_VALUE_SIZE] = "attention.value_length",
    [PGD_KEY_KEY_SIZE_WINDOWED] = "attention.key_length_swa",
    [PGD_KEY_VALUE_SIZE_WINDOWED] = "attention.value_length_swa",
    [PGD_KEY_KEY_SIZE_LATENT] = "attention.key_length_mla",
    [PGD_KEY_LATENT_RANK] = "attention.kv_lora_rank",
    [PGD_KEY_ROTATED] = "rope.dimension_count",
    [PGD_KEY_ROTATED_WINDOWED] = "rope.dimension_count_swa",
    [PGD_KEY_WINDOW] = "attention.sliding_window",
    [PGD_KEY_WINDOW_PATTERN] = "attention.sliding_window_pattern",
    [PGD_KEY_SHARED_LAYERS] = "attention.shared_kv_layers",
    [PGD_KEY_DRAFT_LAYERS] = "nextn_predict_layers",
    [PGD_KEY_RECURRENT_LAYERS] = "attention.recurrent_layers",
    [PGD_KEY_FULL_INTERVAL] = "full_attention_interval",
    [PGD_KEY_SSM_CONV] = "ssm.conv_kernel",
    [PGD_KEY_SSM_INNER] = "ssm.inner_size",
    [PGD_KEY_SSM_STATE] = "ssm.state_size",
    [PGD_KEY_SSM_GROUPS] = "ssm.group_count",
    [PGD_KEY_KDA_SIZE] = "kda.head_dim",
    [PGD_KEY_WKV_SIZE] = "wkv.head_size",
    [PGD_KEY_TOKEN_SHIFTS] = "token_shift_count",
    [PGD_KEY_SHORT_CONV] = "shortconv.l_cache",
    [PGD_KEY_EXPERTS] = "expert_count",
    [PGD_KEY_EXPERTS_USED] = "expert_used_count",
    [PGD_KEY_EXPERT_SIZE] = "expert_feed_forward_length",
    [PGD_KEY_POOLING] = "pooling_type",
    [PGD_KEY_CAUSAL] = "attention.causal",
};

const char *pgd_header_key_name(enum pgd_key key)
{
    return key_names[key];
}

uint32_t pgd_header_number(const struct pgd_header *header, enum pgd_key key, uint32_t otherwise)
{
    const struct pgd_header_key *found = &header->keys[key];
    return found->given && !found->wrong && !found->is_list ? found->items[0] : otherwise;
}

bool pgd_header_item(const struct pgd_header *header, enum pgd_key key, uint32_t index, uint32_t *number)
{
    const struct pgd_header_key *found = &header->keys[key];
    if (!found->given || found->wrong ||
        (found->is_list && (index >= found->count || index >= PGD_HEADER_LAYERS_MAX))) {
        return false;
    }
    *number = found->items[found->is_list ? index : 0];
    return true;
}

/* ---- keys ---- */

/* A header that is being read. The architecture's name mostly comes first, but need not. */
struct reading {
    struct pgd_header *header;
    const char *name; /* of the file */
};

/* Copies a text, without what could move a terminal's cursor. */
static void copy_text(const struct pgd_gguf_value *value, char *text, size_t bytes)
{
    text[0] = '\0';
    if (value->kind != PGD_GGUF_TEXT || value->is_array) {
        return;
    }
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = 0;
    for (size_t i = 0; value->text[i] != '\0' && used + PGD_UTF8_ROOM(1) < bytes; i++) {
        const unsigned char byte = (unsigned char) value->text[i];
        const char clean = byte < 0x20 || byte == 0x7F ? ' ' : value->text[i];
        used += pgd_utf8_push(&stream, &clean, 1, text + used);
    }
    text[used] = '\0';
}

static uint32_t copy_number(const struct pgd_gguf_value *value)
{
    const bool good = value->kind == PGD_GGUF_WHOLE && !value->is_array && value->items[0] <= UINT32_MAX;
    return good ? (uint32_t) value->items[0] : 0;
}

static enum pagoda_status take_general(void *user, const struct pgd_gguf_value *value, struct pagoda_error *error)
{
    struct reading *reading = user;
    struct pgd_header *header = reading->header;
    if (strcmp(value->key, "general.architecture") == 0) {
        if (header->architecture[0] != '\0') {
            return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: it names its architecture twice",
                            reading->name);
        }
        copy_text(value, header->architecture, sizeof(header->architecture));
    } else if (strcmp(value->key, "general.type") == 0) {
        copy_text(value, header->type, sizeof(header->type));
    } else if (strcmp(value->key, "general.name") == 0) {
        copy_text(value, header->name, sizeof(header->name));
    } else if (strcmp(value->key, "split.count") == 0) {
        header->split_count = copy_number(value);
    } else if (strcmp(value->key, "split.no") == 0) {
        header->split_number = copy_number(value);
    } else if (strcmp(value->key, "tokenizer.ggml.tokens") == 0) {
        header->vocabulary = value->is_array && value->kind == PGD_GGUF_TEXT ? value->count : 0;
    } else if (strcmp(value->key, "tokenizer.ggml.merges") == 0) {
        header->merges = value->is_array && value->kind == PGD_GGUF_TEXT ? value->count : 0;
    }
    return PAGODA_OK;
}

static void copy_items(const struct pgd_gguf_value *value, struct pgd_header_key *key)
{
    key->given = true;
    key->is_list = value->is_array;
    key->is_bool = value->kind == PGD_GGUF_BOOL;
    key->count = value->count;
    key->wrong = value->kind == PGD_GGUF_TEXT || value->kind == PGD_GGUF_REAL;
    const uint64_t kept = key->wrong ? 0 : pgd_min_u64(value->count, PGD_HEADER_LAYERS_MAX);
    for (uint64_t i = 0; i < kept; i++) {
        key->wrong = key->wrong || value->items[i] > UINT32_MAX;
        key->items[i] = (uint32_t) value->items[i];
    }
}

static enum pagoda_status take_own(void *user, const struct pgd_gguf_value *value, struct pagoda_error *error)
{
    struct reading *reading = user;
    struct pgd_header *header = reading->header;
    const size_t length = strlen(header->architecture);
    if (strncmp(value->key, header->architecture, length) != 0 || value->key[length] != '.') {
        return PAGODA_OK;
    }
    for (enum pgd_key i = 0; i < PGD_KEYS; i++) {
        if (strcmp(value->key + length + 1, key_names[i]) == 0) {
            if (header->keys[i].given) {
                return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: it has the key %s twice",
                                reading->name, value->key);
            }
            copy_items(value, &header->keys[i]);
        }
    }
    return PAGODA_OK;
}

/* ---- tensors ---- */

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

static enum pagoda_status take_tensor(void *user, const struct pgd_gguf_tensor *tensor, struct pagoda_error *error)
{
    struct reading *reading = user;
    struct pgd_header_tensors *tensors = &reading->header->tensors;
    if (!pgd_add_u64(tensors->bytes, tensor->bytes, &tensors->bytes) ||
        !pgd_add_u64(tensors->elements, tensor->elements, &tensors->elements)) {
        return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: its tensors are impossibly large together",
                        reading->name);
    }
    tensors->count++;
    if (strcmp(tensor->name, "token_embd.weight") == 0) {
        tensors->embedding_bytes = tensor->bytes;
        tensors->embedding_rows = tensor->sizes[1];
    } else if (strcmp(tensor->name, "per_layer_token_embd.weight") == 0) {
        tensors->layer_embedding_bytes = tensor->bytes;
    } else if (strcmp(tensor->name, "output.weight") == 0) {
        tensors->output_bytes = tensor->bytes;
    } else if (ends_with(tensor->name, "_exps.weight")) {
        tensors->expert_bytes += tensor->bytes; /* part of the sum above, which fits */
    }
    const uint64_t copied = pgd_weights_copied_bytes(tensor);
    if (strcmp(tensor->name, "token_embd.weight") == 0) {
        tensors->embedding_copied_bytes = copied;
    } else if (strcmp(tensor->name, "per_layer_token_embd.weight") != 0) {
        tensors->copied_bytes = pgd_add_capped_u64(tensors->copied_bytes, copied);
    }
    return PAGODA_OK;
}

/* ---- one file, and several ---- */

/* Reads a source with two visitors: who it is first, then its own keys. */
typedef enum pagoda_status (*read_with)(const void *what, const struct pgd_gguf_visitor *visitor, uint64_t *bytes,
                                        struct pagoda_error *error);

static enum pagoda_status read_twice(read_with read, const void *what, const char *name, struct pgd_header *header,
                                     struct pagoda_error *error)
{
    struct reading reading = {.header = header, .name = name};
    const struct pgd_gguf_visitor general = {.value = take_general, .tensor = take_tensor, .user = &reading};
    const struct pgd_gguf_visitor own = {.value = take_own, .user = &reading};
    enum pagoda_status status = read(what, &general, &header->file_bytes, error);
    if (status == PAGODA_OK && header->architecture[0] != '\0') {
        status = read(what, &own, &header->file_bytes, error);
    }
    return status;
}

static enum pagoda_status read_source(const void *what, const struct pgd_gguf_visitor *visitor, uint64_t *bytes,
                                      struct pagoda_error *error)
{
    const struct pgd_gguf_source *source = what;
    *bytes = source->bytes;
    return pgd_gguf_read(source, visitor, error);
}

static enum pagoda_status read_file(const void *what, const struct pgd_gguf_visitor *visitor, uint64_t *bytes,
                                    struct pagoda_error *error)
{
    return pgd_gguf_read_file(what, visitor, bytes, error);
}

enum pagoda_status pgd_header_read(const struct pgd_gguf_source *source, struct pgd_header *header,
                                   struct pagoda_error *error)
{
    memset(header, 0, sizeof(*header));
    return read_twice(read_source, source, source->name, header, error);
}

static enum pagoda_status add_part(const char *path, uint32_t number, struct pgd_header *header,
                                   struct pagoda_error *error)
{
    struct reading reading = {.header = header, .name = path};
    const struct pgd_gguf_visitor visitor = {.tensor = take_tensor, .user = &reading};
    struct pagoda_error why = {.status = PAGODA_OK};
    uint64_t bytes = 0;
    enum pagoda_status status = pgd_gguf_read_file(path, &visitor, &bytes, &why);
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "part %u of %u: %s", number, header->split_count, why.message);
    }
    header->file_bytes = pgd_add_capped_u64(header->file_bytes, bytes);
    return PAGODA_OK;
}

static enum pagoda_status add_parts(const char *path, struct pgd_header *header, struct pagoda_error *error)
{
    char prefix[PATH_BYTES_MAX];
    char part[PATH_BYTES_MAX];
    const uint32_t count = header->split_count;
    if (header->split_number != 0) {
        return pgd_fail(error, PAGODA_INVALID, "%s is part %u of a model in %u files: give the first one", path,
                        header->split_number + 1, count);
    }
    if (count > UINT16_MAX || llama_split_prefix(prefix, sizeof(prefix), path, 0, (int32_t) count) <= 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "%s is the first of %u files, but is not named like it: its name must end in "
                        "-00001-of-%05u.gguf",
                        path, count, count);
    }
    for (uint32_t i = 1; i < count; i++) {
        llama_split_path(part, sizeof(part), prefix, (int32_t) i, (int32_t) count);
        enum pagoda_status status = add_part(part, i + 1, header, error);
        if (status != PAGODA_OK) {
            return status;
        }
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_header_open(const char *path, struct pgd_header **out, struct pagoda_error *error)
{
    struct pgd_header *header = calloc(1, sizeof(*header));
    if (header == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the header of %s", path);
    }
    enum pagoda_status status = read_twice(read_file, path, path, header, error);
    if (status == PAGODA_OK && header->split_count > 1) {
        status = add_parts(path, header, error);
    }
    if (status != PAGODA_OK) {
        free(header);
        return status;
    }
    *out = header;
    return PAGODA_OK;
}
