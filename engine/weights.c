/* engine/weights.c - see weights.h. */
#include "engine/weights.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "gguf.h"

static uint32_t number_of(const struct gguf_context *file, const char *architecture, const char *key)
{
    char name[128];
    snprintf(name, sizeof(name), "%s.%s", architecture, key);
    const int64_t id = gguf_find_key(file, name);
    return id >= 0 && gguf_get_kv_type(file, id) == GGUF_TYPE_UINT32 ? gguf_get_val_u32(file, id) : 0;
}

/* The share of the experts that a token does not use. */
static double idle_experts(const struct gguf_context *file)
{
    const int64_t id = gguf_find_key(file, "general.architecture");
    if (id < 0 || gguf_get_kv_type(file, id) != GGUF_TYPE_STRING) {
        return 0;
    }
    const char *architecture = gguf_get_val_str(file, id);
    const double count = number_of(file, architecture, "expert_count");
    const double used = number_of(file, architecture, "expert_used_count");
    return used > 0 && used < count ? 1 - used / count : 0;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

static uint64_t unread_bytes(const struct gguf_context *file)
{
    const bool own_output = gguf_find_tensor(file, "output.weight") >= 0;
    const double idle = idle_experts(file);
    uint64_t bytes = 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(file); i++) {
        const char *name = gguf_get_tensor_name(file, i);
        const size_t size = gguf_get_tensor_size(file, i);
        if ((own_output && strcmp(name, "token_embd.weight") == 0) ||
            strcmp(name, "per_layer_token_embd.weight") == 0) {
            bytes += size;
        } else if (ends_with(name, "_exps.weight")) {
            bytes += (uint64_t) ((double) size * idle);
        }
    }
    return bytes;
}

uint64_t pgd_weights_read_bytes(const char *path, uint64_t weights_bytes)
{
    const struct gguf_init_params params = {.no_alloc = true, .ctx = NULL};
    struct gguf_context *file = gguf_init_from_file(path, params);
    if (file == NULL) {
        return weights_bytes;
    }
    const uint64_t bytes = weights_bytes - pgd_min_u64(unread_bytes(file), weights_bytes);
    gguf_free(file);
    return bytes;
}
