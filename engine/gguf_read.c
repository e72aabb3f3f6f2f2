/* engine/gguf_read.c - see gguf_read.h. */
#include "engine/gguf_read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/number.h"
#include "base/status.h"
#include "ggml.h"
#include "gguf.h"
#include "os/os.h"

#define PREFIX_BYTES 24u /* magic, version, number of tensors, number of keys */
#define WINDOW_BYTES 16384u
#define VALUE_BYTES_MIN 14u  /* a key of one letter, its type, a value of one byte */
#define TENSOR_BYTES_MIN 24u /* no name, no dimension */
#define NAME_BYTES_MAX 65535u

/* The file through a window of it. */
struct reader {
    const struct pgd_gguf_source *source;
    struct pagoda_error *error;
    enum pagoda_status status; /* the first failure; then every further read fails too */
    uint64_t at;               /* where the next byte is */
    uint64_t window_first;
    size_t window_count;
    unsigned char window[WINDOW_BYTES];
};

/* ---- bytes ---- */

static uint64_t left_in(const struct reader *reader)
{
    return reader->source->bytes - reader->at;
}

static bool fail_cut_short(struct reader *reader)
{
    reader->status = pgd_fail(reader->error, PAGODA_CORRUPT,
                              "the header of %s is damaged or cut short (it goes on where the file ends, at %llu "
                              "bytes); download it again",
                              reader->source->name, (unsigned long long) reader->source->bytes);
    return false;
}

static bool fail_damaged(struct reader *reader, const char *what, uint64_t number)
{
    reader->status =
        pgd_fail(reader->error, PAGODA_CORRUPT, "the header of %s is damaged or cut short (%s %llu); download it again",
                 reader->source->name, what, (unsigned long long) number);
    return false;
}

/* Makes the next `count` bytes be in the window. */
static bool need(struct reader *reader, size_t count)
{
    if (reader->status != PAGODA_OK) {
        return false;
    }
    if (count > left_in(reader)) {
        return fail_cut_short(reader);
    }
    if (reader->at >= reader->window_first && reader->at - reader->window_first <= reader->window_count &&
        count <= reader->window_count - (reader->at - reader->window_first)) {
        return true;
    }
    const size_t fetched = (size_t) pgd_min_u64(sizeof(reader->window), left_in(reader));
    reader->status = reader->source->read(reader->source->user, reader->at, reader->window, fetched, reader->error);
    reader->window_first = reader->at;
    reader->window_count = reader->status == PAGODA_OK ? fetched : 0;
    return reader->status == PAGODA_OK;
}

/* The next `bytes` (at most 8) as a whole number; 0 after a failure. */
static uint64_t take_whole(struct reader *reader, uint32_t bytes)
{
    uint64_t value = 0;
    if (!need(reader, bytes)) {
        return 0;
    }
    const unsigned char *from = reader->window + (reader->at - reader->window_first);
    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint64_t) from[i] << (8 * i);
    }
    reader->at += bytes;
    return value;
}

static bool skip(struct reader *reader, uint64_t count)
{
    if (reader->status != PAGODA_OK) {
        return false;
    }
    if (count > left_in(reader)) {
        return fail_cut_short(reader);
    }
    reader->at += count;
    return true;
}

/* A text with its length; what does not fit is skipped. Bytes of 0 become blanks, so that the text ends at its end. */
static bool take_text(struct reader *reader, uint64_t bytes_max, char *text, size_t room)
{
    const uint64_t length = take_whole(reader, 8);
    if (reader->status == PAGODA_OK && length > bytes_max) {
        return fail_damaged(reader, "a text of a length of", length);
    }
    const size_t kept = (size_t) pgd_min_u64(length, room - 1);
    if (length > left_in(reader) || !need(reader, kept)) {
        return reader->status == PAGODA_OK ? fail_cut_short(reader) : false;
    }
    memcpy(text, reader->window + (reader->at - reader->window_first), kept);
    text[kept] = '\0';
    for (size_t i = 0; i < kept; i++) {
        text[i] = (char) (text[i] == '\0' ? ' ' : text[i]);
    }
    return skip(reader, length);
}

/* ---- keys ---- */

/* Bytes of a number of this type; 0: no number. */
static uint32_t bytes_of(uint64_t type)
{
    static const uint8_t bytes[] = {
        [GGUF_TYPE_UINT8] = 1,  [GGUF_TYPE_INT8] = 1,  [GGUF_TYPE_UINT16] = 2,  [GGUF_TYPE_INT16] = 2,
        [GGUF_TYPE_UINT32] = 4, [GGUF_TYPE_INT32] = 4, [GGUF_TYPE_FLOAT32] = 4, [GGUF_TYPE_BOOL] = 1,
        [GGUF_TYPE_UINT64] = 8, [GGUF_TYPE_INT64] = 8, [GGUF_TYPE_FLOAT64] = 8,
    };
    return type < sizeof(bytes) ? bytes[type] : 0;
}

static bool is_signed(uint64_t type)
{
    return type == GGUF_TYPE_INT8 || type == GGUF_TYPE_INT16 || type == GGUF_TYPE_INT32;
}

static enum pgd_gguf_kind kind_of(uint64_t type)
{
    if (type == GGUF_TYPE_STRING) {
        return PGD_GGUF_TEXT;
    }
    if (type == GGUF_TYPE_FLOAT32 || type == GGUF_TYPE_FLOAT64) {
        return PGD_GGUF_REAL;
    }
    return type == GGUF_TYPE_BOOL ? PGD_GGUF_BOOL : PGD_GGUF_WHOLE;
}

static uint64_t take_item(struct reader *reader, uint64_t type)
{
    const uint32_t bytes = bytes_of(type);
    const uint64_t value = take_whole(reader, bytes);
    const uint64_t top = UINT64_C(1) << (8 * bytes - 1);
    return is_signed(type) && (value & top) != 0 ? value | ~(2 * top - 1) : value;
}

static bool take_texts(struct reader *reader, uint64_t count)
{
    if (count > left_in(reader) / sizeof(uint64_t)) {
        return fail_damaged(reader, "an array has more texts than the file has room for:", count);
    }
    for (uint64_t i = 0; i < count && reader->status == PAGODA_OK; i++) {
        skip(reader, take_whole(reader, sizeof(uint64_t)));
    }
    return reader->status == PAGODA_OK;
}

static bool take_numbers(struct reader *reader, uint64_t type, struct pgd_gguf_value *value)
{
    const uint32_t bytes = bytes_of(type);
    if (value->count > left_in(reader) / bytes) {
        return fail_damaged(reader, "an array has more numbers than the file has room for:", value->count);
    }
    const uint64_t kept = value->kind == PGD_GGUF_REAL ? 0 : pgd_min_u64(value->count, PGD_GGUF_ITEMS_MAX);
    for (uint64_t i = 0; i < kept; i++) {
        value->items[i] = take_item(reader, type);
    }
    return skip(reader, (value->count - kept) * bytes);
}

static bool take_value(struct reader *reader, struct pgd_gguf_value *value)
{
    if (!take_text(reader, NAME_BYTES_MAX, value->key, sizeof(value->key))) {
        return false;
    }
    uint64_t type = take_whole(reader, 4);
    value->is_array = type == GGUF_TYPE_ARRAY;
    value->count = 1;
    if (value->is_array) {
        type = take_whole(reader, 4);
        value->count = take_whole(reader, 8);
    }
    if (reader->status != PAGODA_OK) {
        return false;
    }
    if (value->key[0] == '\0') {
        return fail_damaged(reader, "a key without a name before byte", reader->at);
    }
    if (bytes_of(type) == 0 && type != GGUF_TYPE_STRING) {
        return fail_damaged(reader, "a key of the unknown type", type);
    }
    value->kind = kind_of(type);
    if (type != GGUF_TYPE_STRING) {
        return take_numbers(reader, type, value);
    }
    return value->is_array ? take_texts(reader, value->count)
                           : take_text(reader, UINT64_MAX, value->text, sizeof(value->text));
}

/* ---- tensors ---- */

static enum pagoda_status fail_tensor(struct reader *reader, uint64_t index, const char *what)
{
    if (reader->status == PAGODA_OK) {
        reader->status = pgd_fail(reader->error, PAGODA_CORRUPT, "the header of %s is damaged: tensor %llu %s",
                                  reader->source->name, (unsigned long long) index, what);
    }
    return reader->status;
}

/* How many bytes a tensor of this type takes. */
static enum pagoda_status size_tensor(struct reader *reader, uint64_t index, uint64_t type,
                                      struct pgd_gguf_tensor *tensor)
{
    if (type >= GGML_TYPE_COUNT || ggml_blck_size((enum ggml_type) type) == 0) {
        return reader->status = pgd_fail(reader->error, PAGODA_UNSUPPORTED,
                                         "tensor %llu of %s is of type %llu, which this build does not know",
                                         (unsigned long long) index, reader->source->name, (unsigned long long) type);
    }
    const uint64_t block = (uint64_t) ggml_blck_size((enum ggml_type) type);
    tensor->type = (uint32_t) type;
    tensor->elements = 1;
    bool fits = true;
    for (uint32_t i = 0; i < PGD_GGUF_DIMENSIONS_MAX; i++) {
        fits =
            fits && tensor->sizes[i] <= INT64_MAX && pgd_mul_u64(tensor->elements, tensor->sizes[i], &tensor->elements);
    }
    if (!fits || tensor->elements > INT64_MAX ||
        !pgd_mul_u64(tensor->elements / block, ggml_type_size((enum ggml_type) type), &tensor->bytes)) {
        return fail_tensor(reader, index, "has an impossible size");
    }
    if (tensor->sizes[0] % block != 0) {
        return fail_tensor(reader, index, "has rows that its type cannot have");
    }
    return PAGODA_OK;
}

static enum pagoda_status take_tensor(struct reader *reader, uint64_t index, struct pgd_gguf_tensor *tensor)
{
    if (!take_text(reader, NAME_BYTES_MAX, tensor->name, sizeof(tensor->name))) {
        return reader->status;
    }
    if (strlen(tensor->name) >= GGML_MAX_NAME) {
        return fail_tensor(reader, index, "has a name that is too long");
    }
    tensor->dimensions = (uint32_t) take_whole(reader, 4);
    if (tensor->dimensions > PGD_GGUF_DIMENSIONS_MAX) {
        return fail_tensor(reader, index, "has too many dimensions");
    }
    for (uint32_t i = 0; i < PGD_GGUF_DIMENSIONS_MAX; i++) {
        tensor->sizes[i] = i < tensor->dimensions ? take_whole(reader, 8) : 1;
    }
    const uint64_t type = take_whole(reader, 4);
    tensor->offset = take_whole(reader, 8);
    return reader->status != PAGODA_OK ? reader->status : size_tensor(reader, index, type, tensor);
}

/* ---- the file ---- */

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

/* The first bytes, up to the counts. */
static enum pagoda_status take_start(struct reader *reader)
{
    static const uint64_t version_min = 2;
    const char *name = reader->source->name;
    unsigned char prefix[PREFIX_BYTES] = {0};
    const size_t count = (size_t) pgd_min_u64(sizeof(prefix), reader->source->bytes);
    if (count == 0) {
        return reader->status = pgd_fail(reader->error, PAGODA_CORRUPT, "%s is empty", name);
    }
    if (!need(reader, count)) {
        return reader->status;
    }
    memcpy(prefix, reader->window, count);
    if (memcmp(prefix, GGUF_MAGIC, 4) != 0) {
        return reader->status =
                   pgd_fail(reader->error, PAGODA_CORRUPT, "%s is not a GGUF file%s", name, guess_content(prefix));
    }
    if (count < sizeof(prefix)) {
        return reader->status = pgd_fail(reader->error, PAGODA_CORRUPT,
                                         "%s is cut short: it ends after %zu bytes; download it again", name, count);
    }
    reader->at = 4;
    const uint64_t version = take_whole(reader, 4);
    if (version < version_min || version > GGUF_VERSION) {
        const char *guess = (version & 0xFFFFu) == 0 ? " (or of a machine with the other byte order)" : "";
        return reader->status =
                   pgd_fail(reader->error, PAGODA_UNSUPPORTED,
                            "%s is a GGUF file of version %llu%s; this build reads versions %llu to %d", name,
                            (unsigned long long) version, guess, (unsigned long long) version_min, GGUF_VERSION);
    }
    return PAGODA_OK;
}

/* All keys; *alignment is that of the tensors' data. */
static enum pagoda_status take_values(struct reader *reader, uint64_t count, const struct pgd_gguf_visitor *visitor,
                                      uint64_t *alignment)
{
    struct pgd_gguf_value value;
    if (count > left_in(reader) / VALUE_BYTES_MIN) {
        fail_damaged(reader, "it has more keys than the file has room for:", count);
    }
    *alignment = GGUF_DEFAULT_ALIGNMENT;
    for (uint64_t i = 0; i < count && reader->status == PAGODA_OK; i++) {
        if (take_value(reader, &value) && visitor->value != NULL) {
            reader->status = visitor->value(visitor->user, &value, reader->error);
        }
        if (reader->status == PAGODA_OK && strcmp(value.key, GGUF_KEY_GENERAL_ALIGNMENT) == 0) {
            const bool one = value.kind == PGD_GGUF_WHOLE && !value.is_array;
            *alignment = one ? value.items[0] : 0;
            if (*alignment == 0 || *alignment > UINT32_MAX || (*alignment & (*alignment - 1)) != 0) {
                fail_damaged(reader, "an alignment that is no power of 2:", one ? value.items[0] : 0);
            }
        }
    }
    return reader->status;
}

/* All tensors; *data_bytes is where the last of them ends. */
static enum pagoda_status take_tensors(struct reader *reader, uint64_t count, const struct pgd_gguf_visitor *visitor,
                                       uint64_t alignment, uint64_t *data_bytes)
{
    struct pgd_gguf_tensor tensor;
    if (count > left_in(reader) / TENSOR_BYTES_MIN) {
        fail_damaged(reader, "it has more tensors than the file has room for:", count);
    }
    *data_bytes = 0;
    for (uint64_t i = 0; i < count && reader->status == PAGODA_OK; i++) {
        if (take_tensor(reader, i, &tensor) != PAGODA_OK) {
            break;
        }
        uint64_t end = 0;
        if (!pgd_add_u64(tensor.offset, tensor.bytes, &end) || tensor.offset % alignment != 0) {
            return fail_tensor(reader, i, "is at an impossible place");
        }
        *data_bytes = pgd_max_u64(*data_bytes, end);
        if (visitor->tensor != NULL) {
            reader->status = visitor->tensor(visitor->user, &tensor, reader->error);
        }
    }
    return reader->status;
}

/* Whether all of every tensor is in the file. */
static enum pagoda_status check_length(struct reader *reader, uint64_t alignment, uint64_t data_bytes)
{
    const uint64_t file_bytes = reader->source->bytes;
    const uint64_t padding = (alignment - reader->at % alignment) % alignment;
    const uint64_t needed =
        data_bytes == 0 ? 0 : pgd_add_capped_u64(pgd_add_capped_u64(reader->at, padding), data_bytes);
    if (needed > file_bytes) {
        reader->status =
            pgd_fail(reader->error, PAGODA_CORRUPT, "%s is cut short: %llu of %llu bytes are there; download it again",
                     reader->source->name, (unsigned long long) file_bytes, (unsigned long long) needed);
    }
    return reader->status;
}

enum pagoda_status pgd_gguf_read(const struct pgd_gguf_source *source, const struct pgd_gguf_visitor *visitor,
                                 struct pagoda_error *error)
{
    struct reader reader;
    reader.source = source;
    reader.error = error;
    reader.status = PAGODA_OK;
    reader.at = 0;
    reader.window_first = 0;
    reader.window_count = 0;
    enum pagoda_status status = take_start(&reader);
    if (status != PAGODA_OK) {
        return status;
    }
    const uint64_t tensors = take_whole(&reader, 8);
    const uint64_t values = take_whole(&reader, 8);
    uint64_t alignment = 0;
    uint64_t data_bytes = 0;
    status = take_values(&reader, values, visitor, &alignment);
    if (status == PAGODA_OK) {
        status = take_tensors(&reader, tensors, visitor, alignment, &data_bytes);
    }
    return status == PAGODA_OK ? check_length(&reader, alignment, data_bytes) : status;
}

/* ---- a file by its name ---- */

static enum pagoda_status check_kind(const char *path, struct pagoda_error *error)
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
    return PAGODA_OK;
}

static enum pagoda_status read_from_file(void *user, uint64_t offset, void *bytes, size_t count,
                                         struct pagoda_error *error)
{
    const struct pgd_vfs *vfs = pgd_os_vfs();
    return vfs->read(vfs->user, user, offset, bytes, count, error);
}

enum pagoda_status pgd_gguf_read_file(const char *path, const struct pgd_gguf_visitor *visitor, uint64_t *file_bytes,
                                      struct pagoda_error *error)
{
    const struct pgd_vfs *vfs = pgd_os_vfs();
    struct pgd_file *file = NULL;
    enum pagoda_status status = check_kind(path, error);
    if (status == PAGODA_OK) {
        status = vfs->open_read(vfs->user, path, &file, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_gguf_source source = {.read = read_from_file, .user = file, .name = path};
    status = vfs->size(vfs->user, file, &source.bytes, error);
    if (status == PAGODA_OK) {
        status = pgd_gguf_read(&source, visitor, error);
    }
    vfs->close(vfs->user, file);
    if (status == PAGODA_OK) {
        *file_bytes = source.bytes;
    }
    return status;
}
