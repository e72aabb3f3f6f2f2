/* Headers into plans, and plans against the cache that is opened. */
#include <stdlib.h>
#include <string.h>

#include "engine/gguf_read.h"
#include "engine/plan.h"
#include "engine_test.h"

static struct pagoda_error error;

/* ---- headers in memory ---- */

struct bytes {
    const unsigned char *data;
    size_t count;
    uint64_t furthest; /* end of what was read */
    uint64_t fetched;
};

static enum pagoda_status read_bytes(void *user, uint64_t offset, void *to, size_t count, struct pagoda_error *why)
{
    struct bytes *bytes = user;
    (void) why;
    CHECK(offset <= bytes->count && count <= bytes->count - offset);
    memcpy(to, bytes->data + offset, count);
    bytes->furthest = offset + count > bytes->furthest ? offset + count : bytes->furthest;
    bytes->fetched += count;
    return PAGODA_OK;
}

struct seen {
    const struct gguf_context *gguf;
    int64_t values;
    int64_t tensors;
};

static enum pagoda_status see_value(void *user, const struct pgd_gguf_value *value, struct pagoda_error *why)
{
    struct seen *seen = user;
    const int64_t id = seen->values++;
    (void) why;
    CHECK_STR(value->key, gguf_get_key(seen->gguf, id));
    const enum gguf_type type = gguf_get_kv_type(seen->gguf, id);
    CHECK_EQ_INT(value->is_array, type == GGUF_TYPE_ARRAY);
    if (type == GGUF_TYPE_UINT32) {
        CHECK_EQ_U64(value->items[0], gguf_get_val_u32(seen->gguf, id));
    } else if (type == GGUF_TYPE_BOOL) {
        CHECK_EQ_U64(value->items[0], gguf_get_val_bool(seen->gguf, id) ? 1 : 0);
    } else if (type == GGUF_TYPE_STRING) {
        CHECK(strncmp(value->text, gguf_get_val_str(seen->gguf, id), PGD_GGUF_TEXT_BYTES - 1) == 0);
    } else if (type == GGUF_TYPE_ARRAY) {
        CHECK_EQ_U64(value->count, gguf_get_arr_n(seen->gguf, id));
    }
    return PAGODA_OK;
}

static enum pagoda_status see_tensor(void *user, const struct pgd_gguf_tensor *tensor, struct pagoda_error *why)
{
    struct seen *seen = user;
    const int64_t id = seen->tensors++;
    (void) why;
    CHECK_STR(tensor->name, gguf_get_tensor_name(seen->gguf, id));
    CHECK_EQ_U64(tensor->bytes, gguf_get_tensor_size(seen->gguf, id));
    CHECK_EQ_U64(tensor->offset, gguf_get_tensor_offset(seen->gguf, id));
    return PAGODA_OK;
}

/* The twin is ggml's own reader. */
TEST(headers_of_real_models_are_read_as_ggml_reads_them)
{
    static const char *const names[] = {SMOLLM2, GEMMA3};
    for (size_t i = 0; i < 2; i++) {
        const char *path = test_model_path(names[i]);
        struct gguf_context *gguf = gguf_init_from_file(path, (struct gguf_init_params) {.no_alloc = true});
        CHECK(gguf != NULL);
        struct seen seen = {.gguf = gguf};
        const struct pgd_gguf_visitor visitor = {see_value, see_tensor, &seen};
        uint64_t bytes = 0;
        CHECK_OK(pgd_gguf_read_file(path, &visitor, &bytes, &error));
        CHECK_EQ_INT(seen.values, gguf_get_n_kv(gguf));
        CHECK_EQ_INT(seen.tensors, gguf_get_n_tensors(gguf));
        gguf_free(gguf);
    }
}

TEST(the_data_behind_a_header_is_not_read)
{
    struct gguf_context *gguf =
        gguf_init_from_file(test_model_path(SMOLLM2), (struct gguf_init_params) {.no_alloc = true});
    CHECK(gguf != NULL);
    const size_t header_bytes = gguf_get_meta_size(gguf);
    unsigned char *data = malloc(header_bytes);
    gguf_get_meta_data(gguf, data);
    gguf_free(gguf);
    struct bytes bytes = {.data = data, .count = header_bytes};
    /* A file that is far larger than what can be read of it. */
    const struct pgd_gguf_source source = {read_bytes, &bytes, UINT64_C(98362432), "m"};
    const struct pgd_gguf_visitor nobody = {.value = NULL};
    struct pagoda_error ignored;
    /* The window may reach behind the header, where this source has nothing: give it room to. */
    unsigned char *roomy = calloc(1, header_bytes + 65536);
    memcpy(roomy, data, header_bytes);
    bytes.data = roomy;
    bytes.count = header_bytes + 65536;
    CHECK_OK(pgd_gguf_read(&source, &nobody, &ignored));
    CHECK(bytes.furthest < header_bytes + 32768);
    CHECK(bytes.fetched < 2 * header_bytes);
    free(data);
    free(roomy);
}

/* ---- the engine's own finding ---- */

/* What the header says is what the probe reads from the graph. */
static void check_layers(const char *name)
{
    const char *path = test_model_path(name);
    struct pgd_header *header = NULL;
    static struct pgd_shape shape;
    CHECK_OK(pgd_header_open(path, &header, &error));
    CHECK_OK(pgd_shape_of(path, header, &shape, &error));
    struct pgd_model *model = open_model(path);
    struct pgd_bridge *bridge = open_bridge(model, 16, PAGODA_ON_FULL_STOP);
    CHECK_EQ_U64(shape.layer_count, pgd_bridge_layer_count(bridge));
    for (uint32_t i = 0; i < shape.layer_count; i++) {
        const struct pagoda_layer *real = pgd_bridge_layer(bridge, i);
        const struct pgd_shape_layer *said = &shape.layers[i];
        CHECK_EQ_U64(said->kv_heads, real->kv_heads);
        CHECK_EQ_U64(said->query_heads, real->query_heads);
        CHECK_EQ_U64(said->key_size, real->key_size);
        CHECK_EQ_U64(said->value_size, real->value_size);
        CHECK_EQ_U64(said->window, real->window);
        CHECK_EQ_U64(said->rotated_pairs, real->rope.pair_count);
        CHECK_EQ_INT(said->has_sinks, real->sinks != NULL);
    }
    const struct pgd_model_info *info = pgd_model_get_info(model);
    CHECK_EQ_U64(shape.weights_bytes, info->weights_bytes);
    CHECK_EQ_U64(shape.trained_tokens, info->trained_tokens);
    CHECK_EQ_U64(shape.vocabulary, info->vocabulary);
    CHECK_EQ_U64(shape.file_bytes, info->file_bytes);
    free(header);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_header_says_what_the_probe_finds)
{
    check_layers(SMOLLM2);
    check_layers(GEMMA3);
}

/* ---- plans against caches that are opened ---- */

static void set_layers(struct pgd_shape *shape, uint32_t count, uint32_t heads, uint32_t kv_heads, uint32_t size,
                       uint32_t window, uint32_t period)
{
    memset(shape, 0, sizeof(*shape));
    shape->layer_count = count;
    shape->embedding = heads * size;
    for (uint32_t i = 0; i < count; i++) {
        const bool full = period == 0 || (i + 1) % period == 0;
        shape->layers[i] = (struct pgd_shape_layer) {
            .kv_heads = kv_heads,
            .query_heads = heads,
            .key_size = size,
            .value_size = size,
            .window = full ? 0 : window,
            .rotated_pairs = size / 2,
            .rotates_apart = !full,
        };
    }
}

static void check_reservation(const struct pgd_shape *shape, struct pgd_plan_codec codec, uint64_t budget_bytes)
{
    const struct pgd_bridge_options asked = {
        .threads = 2, .codec = codec.settled, .codec_tight = codec.tight, .kv_bytes = budget_bytes};
    static struct pagoda_layer layers[PGD_HEADER_LAYERS_MAX];
    double paces[2][512] = {{0}};
    for (uint32_t i = 0; i < 512; i++) {
        paces[1][i] = 2;
    }
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const struct pgd_shape_layer *layer = &shape->layers[i];
        layers[i] = (struct pagoda_layer) {.kv_heads = layer->kv_heads,
                                           .query_heads = layer->query_heads,
                                           .key_size = layer->key_size,
                                           .value_size = layer->value_size,
                                           .window = layer->window,
                                           .scale = 0.1f,
                                           .rope = {layer->rotated_pairs, false, paces[layer->rotates_apart ? 1 : 0]}};
    }
    struct pgd_plan *plan = NULL;
    struct pagoda_reservation planned;
    struct pagoda_reservation again;
    struct pgd_reserved reserved;
    struct pagoda_cache *cache = NULL;
    CHECK_OK(pgd_plan_open(shape, &asked, &plan, &error));
    CHECK_OK(pgd_plan_reserve(plan, codec, budget_bytes, 0, &planned, &error));
    CHECK_OK(pgd_reserve_plan(&asked, layers, shape->layer_count, 0, &reserved, &error));
    CHECK_OK(pagoda_cache_open(&reserved.cache, &cache, &error));
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    CHECK_EQ_U64(planned.tables_bytes, memory.by_category[PAGODA_MEMORY_TABLES]);
    CHECK_EQ_U64(planned.staging_bytes, memory.by_category[PAGODA_MEMORY_STAGING]);
    CHECK_EQ_U64(planned.tokens_capacity, memory.tokens_capacity);
    CHECK_EQ_U64(planned.budget_bytes, memory.budget_bytes);
    CHECK_EQ_U64(pgd_plan_row_bytes(plan, 1), memory.bytes_per_token);
    /* A budget for so many tokens holds them. */
    uint64_t bytes = 0;
    CHECK_OK(pgd_plan_budget(plan, codec, planned.tokens_capacity, &bytes, &error));
    CHECK_OK(pgd_plan_reserve(plan, codec, bytes, 0, &again, &error));
    CHECK(again.tokens_capacity >= planned.tokens_capacity);
    pagoda_cache_close(cache);
    pgd_plan_close(plan);
}

TEST(published_shapes_reserve_what_was_planned)
{
    static const uint32_t shapes[][6] = {
        /* layers, heads, KV heads, head size, window, period */
        {16, 32, 8, 64, 0, 0},   {28, 24, 8, 128, 0, 0},   {28, 16, 8, 128, 0, 0},   {36, 32, 8, 128, 0, 0},
        {26, 4, 1, 256, 512, 6}, {34, 8, 4, 256, 1024, 6}, {30, 9, 3, 64, 0, 0},     {32, 15, 5, 64, 0, 0},
        {24, 32, 32, 64, 0, 0},  {36, 16, 4, 128, 0, 0},   {32, 24, 8, 128, 0, 0},   {32, 32, 8, 128, 0, 0},
        {32, 32, 32, 128, 0, 0}, {24, 14, 2, 64, 0, 0},    {26, 8, 4, 256, 4096, 2}, {24, 64, 8, 64, 128, 2},
    };
    static const struct pgd_plan_codec codecs[] = {{PAGODA_CODEC_F16, PAGODA_CODEC_F16},
                                                   {PAGODA_CODEC_F16, PAGODA_CODEC_K5V4},
                                                   {PAGODA_CODEC_K8V4, PAGODA_CODEC_K8V4}};
    static struct pgd_shape shape;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        set_layers(&shape, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4], shapes[i][5]);
        for (size_t codec = 0; codec < 3; codec++) {
            check_reservation(&shape, codecs[codec], UINT64_C(48) << 20);
            check_reservation(&shape, codecs[codec], 123456789);
            check_reservation(&shape, codecs[codec], UINT64_C(1) << 30);
        }
    }
}

/* Spilling as a wish, for a KV budget of so many MiB: what comes of it. */
static struct pgd_reserved wish(const struct pgd_shape *shape, uint64_t kv_mib)
{
    const struct pgd_bridge_options asked = {
        .threads = 1,
        .codec_tight = PAGODA_CODEC_K8V4,
        .on_full = PAGODA_ON_FULL_SPILL,
        .is_wish = true,
        .otherwise = {PAGODA_ON_FULL_EVICT, PAGODA_CODEC_F16, PAGODA_CODEC_K5V4},
    };
    struct pgd_plan *plan = NULL;
    struct pgd_reserved reserved;
    CHECK_OK(pgd_plan_open(shape, &asked, &plan, &error));
    CHECK_OK(pgd_plan_settle(plan, kv_mib << 20, 8192, &reserved, &error));
    pgd_plan_close(plan);
    return reserved;
}

TEST(spilling_is_granted_where_it_holds_more)
{
    static struct pgd_shape shape;
    set_layers(&shape, 30, 9, 3, 64, 0, 0);
    const struct pgd_reserved granted = wish(&shape, 24);
    CHECK_EQ_INT(granted.cache.on_full, PAGODA_ON_FULL_SPILL);
    CHECK_EQ_INT(granted.cache.codec_tight, PAGODA_CODEC_K8V4);
    CHECK_EQ_INT(granted.fallback.status, PAGODA_OK);
    CHECK_EQ_U64(granted.reservation.tokens_capacity, 8192);
    CHECK(granted.reservation.tokens_in_memory < 3000 && granted.reservation.flash_bytes_per_token > 0);

    const struct pgd_reserved tight = wish(&shape, 7);
    CHECK_EQ_INT(tight.cache.on_full, PAGODA_ON_FULL_SPILL);
    CHECK(tight.reservation.tokens_capacity > 2000 && tight.reservation.tokens_in_memory < 1000);

    const struct pgd_reserved small = wish(&shape, 3);
    CHECK_EQ_INT(small.cache.on_full, PAGODA_ON_FULL_EVICT);
    CHECK_EQ_INT(small.fallback.status, PAGODA_OVER_BUDGET);
    CHECK_EQ_U64(small.reservation.tokens_in_memory, small.reservation.tokens_capacity);
    CHECK_EQ_U64(small.reservation.flash_bytes_per_token, 0);

    set_layers(&shape, 30, 9, 3, 64, 512, 31); /* none is without a window */
    const struct pgd_reserved windows = wish(&shape, 64);
    CHECK_EQ_INT(windows.cache.on_full, PAGODA_ON_FULL_EVICT);
    CHECK_EQ_INT(windows.fallback.status, PAGODA_UNSUPPORTED);
    CHECK(strstr(windows.fallback.message, "sliding window") != NULL);
}

TEST(what_cannot_be_counted_is_capped)
{
    static struct pgd_shape shape;
    set_layers(&shape, PGD_HEADER_LAYERS_MAX, 1024, 1024, 1024, 0, 0);
    const struct pgd_bridge_options asked = {.threads = 1};
    struct pgd_plan *plan = NULL;
    CHECK_OK(pgd_plan_open(&shape, &asked, &plan, &error));
    CHECK_EQ_U64(pgd_plan_row_bytes(plan, UINT64_MAX), UINT64_MAX);
    CHECK_EQ_U64(pgd_plan_row_bytes(plan, 1), UINT64_C(2) << 30);
    pgd_plan_close(plan);
    memset(shape.layers, 0, sizeof(shape.layers));
    CHECK_FAILS(pgd_plan_open(&shape, &asked, &plan, &error), PAGODA_INVALID);
}
