/* engine/shape.c - see shape.h. */
#include "engine/shape.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/architecture.h"
#include "engine/gguf_check.h"
#include "pagoda/cache.h"

#define FULL_INTERVAL 4u                   /* of hybrids that do not say which layers attend to everything */
#define TOKEN_SHIFTS 2u                    /* of recurrent models that do not say how many tokens they look back */
#define PROGRAM_BYTES (UINT64_C(14) << 20) /* measured, as the next two: code, libraries, stacks, the graph ... */
#define TOKEN_BYTES 170u                   /* ... what tokenizer and sampler keep for a token of the vocabulary ... */
#define MERGE_BYTES 170u                   /* ... and for a merge */
#define STATE_MOST 1048576u                /* of any size that a state is made of */

/* A header on its way to a shape. */
struct shaping {
    const char *path;
    const struct pgd_header *header;
    const struct pgd_architecture *architecture;
    struct pgd_shape *shape;
    uint32_t layers; /* draft layers included */
};

static enum pagoda_status fail_missing(const struct shaping *shaping, enum pgd_key key, struct pagoda_error *error)
{
    const bool wrong = shaping->header->keys[key].given;
    return pgd_fail(error, PAGODA_CORRUPT, "the header of %s %s (%s.%s)", shaping->path,
                    wrong ? "says something that cannot be" : "does not say all that is needed",
                    shaping->header->architecture, pgd_header_key_name(key));
}

static uint32_t number(const struct shaping *shaping, enum pgd_key key)
{
    return pgd_header_number(shaping->header, key, 0);
}

/* ---- windows ---- */

/* The window's length; 0: this model has none. */
static uint32_t window_of(const struct shaping *shaping)
{
    const struct pgd_architecture *architecture = shaping->architecture;
    const bool too_shallow = architecture->only_deep != 0 && shaping->shape->layer_count != architecture->only_deep;
    if (architecture->windows == PGD_WINDOWS_NONE || too_shallow) {
        return 0;
    }
    const uint32_t said = pgd_header_number(shaping->header, PGD_KEY_WINDOW, architecture->window);
    const bool chunked = strcmp(architecture->name, "llama4") == 0; /* its chunks have one length, whatever is said */
    return said != 0 && chunked ? architecture->window : said;
}

static bool is_windowed(const struct shaping *shaping, uint32_t index)
{
    const struct pgd_architecture *architecture = shaping->architecture;
    const struct pgd_header_key *pattern = &shaping->header->keys[PGD_KEY_WINDOW_PATTERN];
    uint32_t said = 0;
    if (architecture->windows == PGD_WINDOWS_ALL) {
        return true;
    }
    if (pattern->given && pattern->is_list) {
        return pgd_header_item(shaping->header, PGD_KEY_WINDOW_PATTERN, index, &said) && said != 0;
    }
    const uint32_t period = pgd_header_number(shaping->header, PGD_KEY_WINDOW_PATTERN, architecture->period);
    const uint32_t full = architecture->windows == PGD_WINDOWS_FIRST_FULL ? 0 : period - 1;
    return period == 0 || index % period != full;
}

static enum pagoda_status check_pattern(const struct shaping *shaping, struct pagoda_error *error)
{
    const struct pgd_header_key *pattern = &shaping->header->keys[PGD_KEY_WINDOW_PATTERN];
    const bool listed = pattern->given && pattern->is_list && !pattern->wrong;
    const bool needed = shaping->architecture->windows == PGD_WINDOWS_LISTED;
    if ((needed && !listed) || (pattern->given && pattern->wrong) || (listed && pattern->count < shaping->layers)) {
        return fail_missing(shaping, PGD_KEY_WINDOW_PATTERN, error);
    }
    return needed && window_of(shaping) == 0 ? fail_missing(shaping, PGD_KEY_WINDOW, error) : PAGODA_OK;
}

/* ---- states ---- */

/* Numbers of a state are kept in 32 bits. Factors are at most STATE_MOST, so nothing overflows. */
static uint64_t state_bytes(const struct shaping *shaping, uint32_t heads)
{
    const uint64_t conv = number(shaping, PGD_KEY_SSM_CONV);
    const uint64_t inner = number(shaping, PGD_KEY_SSM_INNER);
    const uint64_t state = number(shaping, PGD_KEY_SSM_STATE);
    const uint64_t groups = number(shaping, PGD_KEY_SSM_GROUPS);
    const uint64_t kda = number(shaping, PGD_KEY_KDA_SIZE);
    const uint64_t wkv = number(shaping, PGD_KEY_WKV_SIZE);
    const uint64_t short_conv = number(shaping, PGD_KEY_SHORT_CONV);
    const uint64_t shifts = pgd_header_number(shaping->header, PGD_KEY_TOKEN_SHIFTS, TOKEN_SHIFTS);
    const uint64_t embedding = shaping->shape->embedding;
    uint64_t numbers = 0;
    if (wkv != 0) {
        numbers = shifts * embedding + embedding * wkv;
    } else if (short_conv != 0) {
        numbers = embedding * (short_conv - 1);
    } else if (kda != 0) {
        numbers = 3 * (conv > 0 ? conv - 1 : 3) * heads * kda + kda * kda * heads;
    } else {
        numbers = (conv > 0 ? conv - 1 : 0) * (inner + 2 * groups * state) + inner * state;
    }
    return numbers * sizeof(float);
}

static enum pagoda_status check_state(const struct shaping *shaping, struct pagoda_error *error)
{
    static const enum pgd_key keys[] = {PGD_KEY_SSM_CONV, PGD_KEY_SSM_INNER, PGD_KEY_SSM_STATE,    PGD_KEY_SSM_GROUPS,
                                        PGD_KEY_KDA_SIZE, PGD_KEY_WKV_SIZE,  PGD_KEY_TOKEN_SHIFTS, PGD_KEY_SHORT_CONV};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const bool small = keys[i] == PGD_KEY_SSM_CONV || keys[i] == PGD_KEY_SSM_GROUPS ||
                           keys[i] == PGD_KEY_KDA_SIZE || keys[i] == PGD_KEY_TOKEN_SHIFTS ||
                           keys[i] == PGD_KEY_SHORT_CONV;
        if (number(shaping, keys[i]) > (small ? 4096u : STATE_MOST)) {
            return fail_missing(shaping, keys[i], error);
        }
    }
    return PAGODA_OK;
}

static bool has_state(const struct shaping *shaping, uint32_t index, uint32_t kv_heads)
{
    uint32_t said = 0;
    switch (shaping->architecture->state) {
    case PGD_STATE_NONE: return false;
    case PGD_STATE_ALL:
    case PGD_STATE_BESIDE: return true;
    case PGD_STATE_HEADLESS: return kv_heads == 0;
    case PGD_STATE_IDLE:
        return kv_heads == 0 && pgd_header_item(shaping->header, PGD_KEY_FEED_FORWARD, index, &said) && said == 0;
    case PGD_STATE_INTERVAL:
        if (shaping->header->keys[PGD_KEY_RECURRENT_LAYERS].given) {
            return pgd_header_item(shaping->header, PGD_KEY_RECURRENT_LAYERS, index, &said) && said != 0;
        }
        said = pgd_header_number(shaping->header, PGD_KEY_FULL_INTERVAL, FULL_INTERVAL);
        return said != 0 && (index + 1) % said != 0;
    }
    return false;
}

/* ---- heads ---- */

static uint32_t first_heads(const struct shaping *shaping)
{
    uint32_t heads = 0;
    for (uint32_t i = 0; i < shaping->layers && heads == 0; i++) {
        if (!pgd_header_item(shaping->header, PGD_KEY_HEADS, i, &heads)) {
            return 0;
        }
    }
    return heads;
}

/* The size of a key (value) of a layer: as said, as said for layers with a window, or its share of the embedding. */
static uint32_t size_of(const struct shaping *shaping, enum pgd_key key, enum pgd_key windowed_key, bool windowed)
{
    const uint32_t heads = first_heads(shaping);
    const uint32_t share = heads == 0 ? 0 : shaping->shape->embedding / heads;
    const uint32_t size = pgd_header_number(shaping->header, key, share);
    return windowed ? pgd_header_number(shaping->header, windowed_key, size) : size;
}

static void rotate(const struct shaping *shaping, uint32_t index, struct pgd_shape_layer *layer)
{
    const enum pgd_rotation rotation = shaping->architecture->rotation;
    const bool windowed = layer->window != 0;
    const bool still = rotation == PGD_ROTATION_NONE || (rotation == PGD_ROTATION_FOURTH && (index + 1) % 4 == 0) ||
                       (rotation == PGD_ROTATION_WINDOWED && !windowed && window_of(shaping) != 0);
    const uint32_t all = pgd_header_number(shaping->header, PGD_KEY_ROTATED, layer->key_size);
    const uint32_t rotated = windowed ? pgd_header_number(shaping->header, PGD_KEY_ROTATED_WINDOWED, all) : all;
    layer->rotated_pairs = still ? 0 : (uint32_t) pgd_min_u64(rotated, layer->key_size) / 2;
    layer->rotates_apart = rotation == PGD_ROTATION_TWO && windowed;
}

/* Keys and values of a layer that has them. */
static enum pagoda_status shape_heads(const struct shaping *shaping, uint32_t index, uint32_t kv_heads,
                                      struct pgd_shape_layer *layer, struct pagoda_error *error)
{
    uint32_t heads = 0;
    if (!pgd_header_item(shaping->header, PGD_KEY_HEADS, index, &heads)) {
        return fail_missing(shaping, PGD_KEY_HEADS, error);
    }
    const uint32_t window = window_of(shaping);
    layer->window = window != 0 && is_windowed(shaping, index) ? window : 0;
    const bool windowed = layer->window != 0;
    layer->kv_heads = kv_heads;
    layer->query_heads = heads;
    layer->key_size = size_of(shaping, PGD_KEY_KEY_SIZE, PGD_KEY_KEY_SIZE_WINDOWED, windowed);
    layer->value_size = size_of(shaping, PGD_KEY_VALUE_SIZE, PGD_KEY_VALUE_SIZE_WINDOWED, windowed);
    layer->has_sinks = shaping->architecture->has_sinks;
    if (number(shaping, PGD_KEY_KEY_SIZE_LATENT) != 0) {
        layer->kv_heads = 1;
        layer->key_size = (uint32_t) pgd_min_u64(
            (uint64_t) number(shaping, PGD_KEY_LATENT_RANK) + number(shaping, PGD_KEY_ROTATED), UINT32_MAX);
        layer->value_size = 0;
        if (number(shaping, PGD_KEY_LATENT_RANK) == 0) {
            return fail_missing(shaping, PGD_KEY_LATENT_RANK, error);
        }
    }
    const uint32_t widest = layer->value_size == 0 ? 8 * PAGODA_HEAD_SIZE_MAX : PAGODA_HEAD_SIZE_MAX;
    if (heads == 0 || heads > PAGODA_HEADS_MAX || layer->kv_heads > heads || heads % layer->kv_heads != 0) {
        return fail_missing(shaping, PGD_KEY_KV_HEADS, error);
    }
    if (layer->key_size == 0 || layer->key_size > widest || layer->value_size > widest ||
        (layer->value_size == 0 && number(shaping, PGD_KEY_KEY_SIZE_LATENT) == 0)) {
        return fail_missing(
            shaping, layer->key_size == 0 || layer->key_size > widest ? PGD_KEY_KEY_SIZE : PGD_KEY_VALUE_SIZE, error);
    }
    rotate(shaping, index, layer);
    return PAGODA_OK;
}

static enum pagoda_status shape_layer(const struct shaping *shaping, uint32_t index, uint32_t kv_layers,
                                      struct pagoda_error *error)
{
    struct pgd_shape_layer *layer = &shaping->shape->layers[index];
    uint32_t heads = 0;
    uint32_t kv_heads = 0;
    const enum pgd_state state = shaping->architecture->state;
    if (state != PGD_STATE_ALL) {
        if (!pgd_header_item(shaping->header, PGD_KEY_HEADS, index, &heads)) {
            return fail_missing(shaping, PGD_KEY_HEADS, error);
        }
        if (!shaping->header->keys[PGD_KEY_KV_HEADS].given) {
            kv_heads = heads;
        } else if (!pgd_header_item(shaping->header, PGD_KEY_KV_HEADS, index, &kv_heads)) {
            return fail_missing(shaping, PGD_KEY_KV_HEADS, error);
        }
    }
    const bool keeps_state = has_state(shaping, index, kv_heads);
    if (keeps_state) {
        layer->state_bytes = state_bytes(shaping, heads);
    }
    const bool attends = kv_heads != 0 && index < kv_layers && (!keeps_state || state == PGD_STATE_BESIDE);
    return attends ? shape_heads(shaping, index, kv_heads, layer, error) : PAGODA_OK;
}

static enum pagoda_status shape_layers(const struct shaping *shaping, struct pagoda_error *error)
{
    struct pgd_shape *shape = shaping->shape;
    const uint32_t shared = number(shaping, PGD_KEY_SHARED_LAYERS);
    uint32_t kv_layers = shaping->architecture->kv_layers != 0 ? shaping->architecture->kv_layers : shape->layer_count;
    if (shared > shape->layer_count) {
        return fail_missing(shaping, PGD_KEY_SHARED_LAYERS, error);
    }
    kv_layers = (uint32_t) pgd_min_u64(kv_layers, shape->layer_count - shared);
    enum pagoda_status status = check_pattern(shaping, error);
    if (status == PAGODA_OK) {
        status = check_state(shaping, error);
    }
    for (uint32_t i = 0; i < shape->layer_count && status == PAGODA_OK; i++) {
        status = shape_layer(shaping, i, kv_layers, error);
    }
    return status;
}

/* ---- the whole ---- */

static void fill_sizes(const struct shaping *shaping)
{
    struct pgd_shape *shape = shaping->shape;
    const struct pgd_header *header = shaping->header;
    snprintf(shape->name, sizeof(shape->name), "%s", header->name);
    snprintf(shape->architecture, sizeof(shape->architecture), "%s", header->architecture);
    shape->refusal = pgd_gguf_refusal(header);
    shape->trained_tokens = number(shaping, PGD_KEY_CONTEXT);
    shape->embedding = (uint32_t) pgd_min_u64(number(shaping, PGD_KEY_EMBEDDING), STATE_MOST);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        uint32_t size = 0;
        if (pgd_header_item(header, PGD_KEY_FEED_FORWARD, i, &size)) {
            shape->feed_forward = (uint32_t) pgd_max_u64(shape->feed_forward, size);
        }
    }
    if (number(shaping, PGD_KEY_EXPERTS) > 0) {
        shape->experts_used = number(shaping, PGD_KEY_EXPERTS_USED);
        shape->feed_forward = pgd_header_number(header, PGD_KEY_EXPERT_SIZE, shape->feed_forward);
    }
    shape->vocabulary = header->tensors.embedding_rows != 0 ? header->tensors.embedding_rows
                        : header->vocabulary != 0           ? header->vocabulary
                                                            : number(shaping, PGD_KEY_VOCABULARY);
    shape->weights_bytes = header->tensors.bytes;
    const bool tied = header->tensors.output_bytes == 0;
    shape->copied_bytes =
        pgd_add_capped_u64(header->tensors.copied_bytes, tied ? header->tensors.embedding_copied_bytes : 0);
    shape->program_bytes = PROGRAM_BYTES + pgd_min_u64(header->vocabulary, STATE_MOST) * TOKEN_BYTES +
                           pgd_min_u64(header->merges, STATE_MOST) * MERGE_BYTES;
    shape->file_bytes = header->file_bytes;
}

enum pagoda_status pgd_shape_of(const char *path, const struct pgd_header *header, struct pgd_shape *shape,
                                struct pagoda_error *error)
{
    enum pagoda_status status = pgd_gguf_check_header(path, header, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct shaping shaping = {.path = path, .header = header, .shape = shape};
    shaping.architecture = pgd_architecture_find(header->architecture);
    if (shaping.architecture == NULL || !shaping.architecture->planned) {
        const char *reason = shaping.architecture == NULL ? NULL : shaping.architecture->reason;
        return pgd_fail(error, PAGODA_UNSUPPORTED,
                        "%s: pagoda does not know the memory layout of the architecture '%s' yet%s%s", path,
                        header->architecture, reason == NULL ? "" : ": ", reason == NULL ? "" : reason);
    }
    shaping.layers = number(&shaping, PGD_KEY_LAYERS);
    const uint32_t drafts = number(&shaping, PGD_KEY_DRAFT_LAYERS);
    if (shaping.layers == 0 || drafts >= shaping.layers) {
        return fail_missing(&shaping, shaping.layers == 0 ? PGD_KEY_LAYERS : PGD_KEY_DRAFT_LAYERS, error);
    }
    memset(shape, 0, sizeof(*shape));
    shape->layer_count = shaping.layers - drafts;
    fill_sizes(&shaping);
    if (shape->embedding == 0) {
        return fail_missing(&shaping, PGD_KEY_EMBEDDING, error);
    }
    return shape_layers(&shaping, error);
}

uint64_t pgd_shape_row_bytes(const struct pgd_shape_layer *layer)
{
    return (uint64_t) layer->kv_heads * (layer->key_size + layer->value_size) * sizeof(uint16_t);
}
