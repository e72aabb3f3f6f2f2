/* engine/gguf_check.c - see gguf_check.h. */
#include "engine/gguf_check.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/log.h"
#include "engine/utf8.h"
#include "gguf.h"
#include "llama.h"
#include "os/os.h"

#define PREFIX_BYTES 24u /* magic, version, number of tensors, number of keys */
#define LAYERS_MAX 512   /* libllama stops the whole process above this */
#define PATH_BYTES_MAX 4096u

/* ---- architectures that are understood but not run ---- */

static const char reason_embedding[] = "it makes embeddings, not text";
static const char reason_encoder[] = "it has an encoder, and only models that just continue text can be run";
static const char reason_recurrent[] = "it keeps a recurrent state and no KV cache";
static const char reason_hybrid[] = "part of its layers keep a recurrent state in place of a KV cache";
static const char reason_diffusion[] = "it writes by diffusion, not token by token";
static const char reason_latent[] = "its keys and values are one shared latent vector (MLA)";
static const char reason_sparse[] = "it chooses the keys it attends to with an index of its own";
static const char reason_chunked[] = "it attends in fixed chunks of text";
static const char reason_softcap[] = "it bends attention scores in a way of its own";
static const char reason_part[] = "it is a part of another model, or works on sound or images";

/* libllama knows more kinds than can be hosted. The structure of the graph is checked again when the model is set
 * up; this list is here to refuse before gigabytes are read, and with a reason. */
static const struct refusal {
    const char *architecture;
    const char *reason;
} refusals[] = {
    {"bert", reason_embedding},
    {"modern-bert", reason_embedding},
    {"nomic-bert", reason_embedding},
    {"nomic-bert-moe", reason_embedding},
    {"neo-bert", reason_embedding},
    {"jina-bert-v2", reason_embedding},
    {"jina-bert-v3", reason_embedding},
    {"eurobert", reason_embedding},
    {"gemma-embedding", reason_embedding},
    {"llama-embed", reason_embedding},
    {"t5", reason_encoder},
    {"t5encoder", reason_encoder},
    {"mamba", reason_recurrent},
    {"mamba2", reason_recurrent},
    {"rwkv6", reason_recurrent},
    {"rwkv6qwen2", reason_recurrent},
    {"rwkv7", reason_recurrent},
    {"arwkv7", reason_recurrent},
    {"jamba", reason_hybrid},
    {"falcon-h1", reason_hybrid},
    {"plamo2", reason_hybrid},
    {"granitehybrid", reason_hybrid},
    {"lfm2", reason_hybrid},
    {"lfm2moe", reason_hybrid},
    {"nemotron_h", reason_hybrid},
    {"nemotron_h_moe", reason_hybrid},
    {"qwen3next", reason_hybrid},
    {"qwen35", reason_hybrid},
    {"qwen35moe", reason_hybrid},
    {"qwen4exp", reason_hybrid},
    {"kimi-linear", reason_hybrid},
    {"kimi-k3", reason_hybrid},
    {"bailingmoe3", reason_hybrid},
    {"glm5-next", reason_hybrid},
    {"minimax-01", reason_hybrid},
    {"dream", reason_diffusion},
    {"llada", reason_diffusion},
    {"llada-moe", reason_diffusion},
    {"rnd1", reason_diffusion},
    {"deepseek32", reason_sparse},
    {"deepseek4", reason_sparse},
    {"glm-dsa", reason_sparse},
    {"minimax-m3", reason_sparse},
    {"llama4", reason_chunked},
    {"grok", reason_softcap},
    {"clip", reason_part},
    {"wavtokenizer-dec", reason_part},
    {"qwen3tts", reason_part},
    {"pockettts", reason_part},
    {"eagle3", reason_part},
    {"dflash", reason_part},
    {"gemma4-assistant", reason_part},
};

static enum pagoda_status refuse(const char *path, const char *architecture, const char *reason,
                                 struct pagoda_error *error)
{
    return pgd_fail(error, PAGODA_UNSUPPORTED, "%s is a model of the kind '%s', which cannot be run: %s", path,
                    architecture, reason);
}

/* ---- reading keys: only of the type that they should have, because gguf.h aborts on any other ---- */

static bool get_u32(const struct gguf_context *gguf, const char *key, uint32_t *value)
{
    const int64_t id = gguf_find_key(gguf, key);
    if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_UINT32) {
        return false;
    }
    *value = gguf_get_val_u32(gguf, id);
    return true;
}

static uint32_t get_u16(const struct gguf_context *gguf, const char *key)
{
    const int64_t id = gguf_find_key(gguf, key);
    return id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_UINT16 ? 0 : gguf_get_val_u16(gguf, id);
}

static bool is_false(const struct gguf_context *gguf, const char *key)
{
    const int64_t id = gguf_find_key(gguf, key);
    return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_BOOL && !gguf_get_val_bool(gguf, id);
}

/* Copies a text, without what could move a terminal's cursor; "" when the key is not there. */
static void get_text(const struct gguf_context *gguf, const char *key, char *text, size_t bytes)
{
    text[0] = '\0';
    const int64_t id = gguf_find_key(gguf, key);
    if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING) {
        return;
    }
    const char *value = gguf_get_val_str(gguf, id);
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = 0;
    for (size_t i = 0; value[i] != '\0' && used + PGD_UTF8_ROOM(1) < bytes; i++) {
        const unsigned char byte = (unsigned char) value[i];
        const char clean = byte < 0x20 || byte == 0x7F ? ' ' : value[i];
        used += pgd_utf8_push(&stream, &clean, 1, text + used);
    }
    text[used] = '\0';
}

/* ---- the file ---- */

static enum pagoda_status check_kind(const char *path, uint64_t *bytes, struct pagoda_error *error)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        const int reason = errno;
        return reason == ENOENT || reason == ENOTDIR
                   ? pgd_fail(error, PAGODA_NOT_FOUND, "there is no file %s", path)
                   : pgd_fail(error, PAGODA_IO, "cannot read %s: %s", path, strerror(reason));
    }
    if (S_ISDIR(about.st_mode)) {
        return pgd_fail(error, PAGODA_INVALID, "%s is a directory: give the .gguf file inside it", path);
    }
    if (!S_ISREG(about.st_mode)) {
        return pgd_fail(error, PAGODA_INVALID, "%s is not a regular file, and a model must be one", path);
    }
    if (about.st_size == 0) {
        return pgd_fail(error, PAGODA_CORRUPT, "%s is empty", path);
    }
    *bytes = (uint64_t) about.st_size;
    return PAGODA_OK;
}

/* Says what a file that is no GGUF seems to be, where that helps. */
static const char *guess_content(const unsigned char *prefix)
{
    if (memcmp(prefix, "version https://git-lfs", 23) == 0) {
        return ", but a Git LFS pointer to one: fetch it with git lfs pull";
    }
    if (prefix[0] == '<') {
        return ", but a web page: was it downloaded from the right address?";
    }
    if (memcmp(prefix, "PK\x03\x04", 4) == 0) {
        return ", but an archive: unpack it first";
    }
    if (memcmp(prefix, "tjgg", 4) == 0 || memcmp(prefix, "fmgg", 4) == 0 || memcmp(prefix, "lmgg", 4) == 0) {
        return ", but its predecessor: convert the model again";
    }
    return prefix[8] == '{' ? ", but it looks like safetensors: convert it to GGUF" : "";
}

static enum pagoda_status check_version(const char *path, const unsigned char *prefix, struct pagoda_error *error)
{
    static const uint32_t version_min = 2;
    const uint32_t version =
        (uint32_t) prefix[4] | (uint32_t) prefix[5] << 8 | (uint32_t) prefix[6] << 16 | (uint32_t) prefix[7] << 24;
    if (version >= version_min && version <= GGUF_VERSION) {
        return PAGODA_OK;
    }
    const char *guess = (version & 0xFFFFu) == 0 ? " (or of a machine with the other byte order)" : "";
    return pgd_fail(error, PAGODA_UNSUPPORTED, "%s is a GGUF file of version %u%s; this build reads versions %u to %d",
                    path, version, guess, version_min, GGUF_VERSION);
}

/* Whether the file is a GGUF file by its first bytes. */
static enum pagoda_status check_start(const char *path, uint64_t file_bytes, struct pagoda_error *error)
{
    const struct pgd_vfs *vfs = pgd_os_vfs();
    struct pgd_file *file = NULL;
    enum pagoda_status status = vfs->open_read(vfs->user, path, &file, error);
    if (status != PAGODA_OK) {
        return status;
    }
    unsigned char prefix[PREFIX_BYTES] = {0};
    const size_t count = (size_t) pgd_min_u64(sizeof(prefix), file_bytes);
    status = vfs->read(vfs->user, file, 0, prefix, count, error);
    vfs->close(vfs->user, file);
    if (status != PAGODA_OK) {
        return status;
    }
    if (memcmp(prefix, GGUF_MAGIC, 4) != 0) {
        return pgd_fail(error, PAGODA_CORRUPT, "%s is not a GGUF file%s", path, guess_content(prefix));
    }
    if (count < sizeof(prefix)) {
        return pgd_fail(error, PAGODA_CORRUPT, "%s is cut short: it ends after %zu bytes; download it again", path,
                        count);
    }
    return check_version(path, prefix, error);
}

/* Whether all of every tensor is in the file. */
static enum pagoda_status check_length(const char *path, const struct gguf_context *gguf, uint64_t file_bytes,
                                       struct pagoda_error *error)
{
    uint64_t needed = gguf_get_data_offset(gguf);
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); i++) {
        uint64_t end = 0;
        if (!pgd_add_u64(gguf_get_data_offset(gguf), gguf_get_tensor_offset(gguf, i), &end) ||
            !pgd_add_u64(end, gguf_get_tensor_size(gguf, i), &end)) {
            return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: tensor %lld has an impossible size",
                            path, (long long) i);
        }
        needed = pgd_max_u64(needed, end);
    }
    if (needed > file_bytes) {
        return pgd_fail(error, PAGODA_CORRUPT, "%s is cut short: %llu of %llu bytes are there; download it again", path,
                        (unsigned long long) file_bytes, (unsigned long long) needed);
    }
    return PAGODA_OK;
}

/* Opens the header of one file, checked; the caller frees it. */
static enum pagoda_status open_header(const char *path, uint64_t *file_bytes, struct gguf_context **gguf,
                                      struct pagoda_error *error)
{
    enum pagoda_status status = check_kind(path, file_bytes, error);
    if (status == PAGODA_OK) {
        status = check_start(path, *file_bytes, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    pgd_log_reset();
    struct gguf_context *header = gguf_init_from_file(path, (struct gguf_init_params) {.no_alloc = true, .ctx = NULL});
    if (header == NULL) {
        char reason[160];
        pgd_log_first_error(reason, sizeof(reason));
        return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged or cut short (%s); download it again", path,
                        reason);
    }
    status = check_length(path, header, *file_bytes, error);
    if (status != PAGODA_OK) {
        gguf_free(header);
        return status;
    }
    *gguf = header;
    return PAGODA_OK;
}

/* ---- what kind of model ---- */

static enum pagoda_status check_architecture(const char *path, const struct gguf_context *gguf,
                                             const char *architecture, struct pagoda_error *error)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (strcmp(architecture, refusals[i].architecture) == 0) {
            return refuse(path, architecture, refusals[i].reason, error);
        }
    }
    char key[128];
    uint32_t number = 0;
    snprintf(key, sizeof(key), "%s.pooling_type", architecture);
    if (get_u32(gguf, key, &number) && number != 0) {
        return refuse(path, architecture, reason_embedding, error);
    }
    snprintf(key, sizeof(key), "%s.attention.causal", architecture);
    if (is_false(gguf, key)) {
        return refuse(path, architecture, reason_embedding, error);
    }
    snprintf(key, sizeof(key), "%s.attention.key_length_mla", architecture);
    if (get_u32(gguf, key, &number) && number != 0) {
        return refuse(path, architecture, reason_latent, error);
    }
    snprintf(key, sizeof(key), "%s.block_count", architecture);
    if (get_u32(gguf, key, &number) && (number == 0 || number > LAYERS_MAX)) {
        return pgd_fail(error, PAGODA_CORRUPT, "the header of %s is damaged: a model cannot have %u layers", path,
                        number);
    }
    return PAGODA_OK;
}

static enum pagoda_status check_model(const char *path, const struct gguf_context *gguf, struct pgd_gguf_facts *facts,
                                      struct pagoda_error *error)
{
    char type[32];
    get_text(gguf, "general.type", type, sizeof(type));
    if (type[0] != '\0' && strcmp(type, "model") != 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "%s is no model, but goes with one: its kind is '%s'", path, type);
    }
    get_text(gguf, "general.name", facts->name, sizeof(facts->name));
    get_text(gguf, "general.architecture", facts->architecture, sizeof(facts->architecture));
    if (facts->architecture[0] == '\0') {
        return pgd_fail(error, PAGODA_CORRUPT, "%s does not say what kind of model it is (general.architecture)", path);
    }
    enum pagoda_status status = check_architecture(path, gguf, facts->architecture, error);
    if (status == PAGODA_OK && gguf_get_n_tensors(gguf) == 0 && get_u16(gguf, "split.count") < 2) {
        status = pgd_fail(error, PAGODA_CORRUPT, "%s holds no weights", path);
    }
    return status;
}

/* ---- models in several files ---- */

static enum pagoda_status check_part(const char *path, uint32_t number, uint32_t count, uint64_t *bytes,
                                     struct pagoda_error *error)
{
    struct gguf_context *gguf = NULL;
    struct pagoda_error why = {.status = PAGODA_OK};
    enum pagoda_status status = open_header(path, bytes, &gguf, &why);
    gguf_free(gguf);
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "part %u of %u: %s", number, count, why.message);
    }
    return PAGODA_OK;
}

static enum pagoda_status check_parts(const char *path, const struct gguf_context *gguf, struct pgd_gguf_facts *facts,
                                      struct pagoda_error *error)
{
    const uint32_t count = get_u16(gguf, "split.count");
    if (count < 2) {
        return PAGODA_OK;
    }
    if (get_u16(gguf, "split.no") != 0) {
        return pgd_fail(error, PAGODA_INVALID, "%s is part %u of a model in %u files: give the first one", path,
                        get_u16(gguf, "split.no") + 1, count);
    }
    char prefix[PATH_BYTES_MAX];
    char part[PATH_BYTES_MAX];
    if (llama_split_prefix(prefix, sizeof(prefix), path, 0, (int32_t) count) <= 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "%s is the first of %u files, but is not named like it: its name must end in "
                        "-00001-of-%05u.gguf",
                        path, count, count);
    }
    for (uint32_t i = 1; i < count; i++) {
        uint64_t bytes = 0;
        llama_split_path(part, sizeof(part), prefix, (int32_t) i, (int32_t) count);
        enum pagoda_status status = check_part(part, i + 1, count, &bytes, error);
        if (status != PAGODA_OK) {
            return status;
        }
        facts->file_bytes += bytes;
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_gguf_check(const char *path, struct pgd_gguf_facts *facts, struct pagoda_error *error)
{
    struct gguf_context *gguf = NULL;
    struct pgd_gguf_facts found = {.file_bytes = 0};
    enum pagoda_status status = open_header(path, &found.file_bytes, &gguf, error);
    if (status != PAGODA_OK) {
        return status;
    }
    status = check_model(path, gguf, &found, error);
    if (status == PAGODA_OK) {
        status = check_parts(path, gguf, &found, error);
    }
    gguf_free(gguf);
    if (status == PAGODA_OK) {
        *facts = found;
    }
    return status;
}
