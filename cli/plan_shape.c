/* cli/plan_shape.c - a model in words: --shape layers=32,heads=32,head_size=128. */
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/plan.h"
#include "cli/size.h"
#include "cli/suggest.h"

enum word {
    LAYERS,
    HEADS,
    KV_HEADS,
    HEAD_SIZE,
    KEY_SIZE,
    VALUE_SIZE,
    WINDOW,
    FULL_EVERY,
    CONTEXT,
    EMBEDDING,
    FEED_FORWARD,
    VOCABULARY,
    WORDS
};

static const struct {
    const char *name;
    uint64_t least;
    uint64_t most;
} words[WORDS] = {
    [LAYERS] = {"layers", 1, PGD_HEADER_LAYERS_MAX},
    [HEADS] = {"heads", 1, PAGODA_HEADS_MAX},
    [KV_HEADS] = {"kv_heads", 1, PAGODA_HEADS_MAX},
    [HEAD_SIZE] = {"head_size", 1, PAGODA_HEAD_SIZE_MAX},
    [KEY_SIZE] = {"key_size", 1, PAGODA_HEAD_SIZE_MAX},
    [VALUE_SIZE] = {"value_size", 1, PAGODA_HEAD_SIZE_MAX},
    [WINDOW] = {"window", 1, INT32_MAX},
    [FULL_EVERY] = {"full_every", 1, PGD_HEADER_LAYERS_MAX}, /* with a window: every so manieth layer has none */
    [CONTEXT] = {"context", 1, INT32_MAX},
    [EMBEDDING] = {"embedding", 1, 1 << 20},
    [FEED_FORWARD] = {"feed_forward", 1, 1 << 24},
    [VOCABULARY] = {"vocabulary", 1, 1 << 24},
};

static enum pagoda_status find_word(const char *name, enum word *word, struct pagoda_error *error)
{
    struct pgd_suggestion suggestion = pgd_suggest_start(name);
    for (int i = 0; i < WORDS; i++) {
        if (strcmp(words[i].name, name) == 0) {
            *word = (enum word) i;
            return PAGODA_OK;
        }
        pgd_suggest_try(&suggestion, words[i].name);
    }
    if (suggestion.best != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "--shape: '%s' is no part of a shape; did you mean '%s'?", name,
                        suggestion.best);
    }
    return pgd_fail(error, PAGODA_INVALID,
                    "--shape: '%s' is no part of a shape: those are layers, heads, kv_heads, head_size, key_size, "
                    "value_size, window, full_every, context, embedding, feed_forward, vocabulary",
                    name);
}

/* One "name=number". */
static enum pagoda_status take_pair(const char *text, size_t length, uint64_t *values, struct pagoda_error *error)
{
    char pair[64];
    snprintf(pair, sizeof(pair), "%.*s", (int) pgd_min_u64(length, sizeof(pair) - 1), text);
    char *equals = strchr(pair, '=');
    if (equals == NULL) {
        return pgd_fail(error, PAGODA_INVALID, "--shape: '%s' has no number: write layers=32,heads=32,head_size=128",
                        pair);
    }
    *equals = '\0';
    enum word word = LAYERS;
    enum pagoda_status status = find_word(pair, &word, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct pagoda_error ignored;
    uint64_t value = 0;
    if (pgd_size_parse(equals + 1, &value, &ignored) != PAGODA_OK || value < words[word].least ||
        value > words[word].most) {
        return pgd_fail(error, PAGODA_RANGE, "--shape: %s is a number from %llu to %llu, not '%s'", words[word].name,
                        (unsigned long long) words[word].least, (unsigned long long) words[word].most, equals + 1);
    }
    if (values[word] != 0) {
        return pgd_fail(error, PAGODA_INVALID, "--shape: %s is given twice", words[word].name);
    }
    values[word] = value;
    return PAGODA_OK;
}

static enum pagoda_status settle(uint64_t *values, struct pagoda_error *error)
{
    if (values[KV_HEADS] == 0) {
        values[KV_HEADS] = values[HEADS];
    }
    if (values[KEY_SIZE] == 0) {
        values[KEY_SIZE] = values[HEAD_SIZE];
    }
    if (values[VALUE_SIZE] == 0) {
        values[VALUE_SIZE] = values[HEAD_SIZE];
    }
    if (values[LAYERS] == 0 || values[HEADS] == 0 || values[KEY_SIZE] == 0 || values[VALUE_SIZE] == 0) {
        return pgd_fail(error, PAGODA_INVALID, "--shape needs layers, heads and head_size at least");
    }
    if (values[KV_HEADS] > values[HEADS] || values[HEADS] % values[KV_HEADS] != 0) {
        return pgd_fail(error, PAGODA_INVALID, "--shape: heads must be a multiple of kv_heads");
    }
    if (values[FULL_EVERY] != 0 && values[WINDOW] == 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "--shape: full_every says which layers lack the window: give window too");
    }
    if (values[EMBEDDING] == 0) {
        values[EMBEDDING] = values[HEADS] * values[KEY_SIZE];
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_plan_parse_shape(const char *text, struct pgd_shape *shape, struct pagoda_error *error)
{
    uint64_t values[WORDS] = {0};
    enum pagoda_status status = PAGODA_OK;
    for (const char *at = text; at != NULL && status == PAGODA_OK;) {
        const size_t length = strcspn(at, ",");
        status = take_pair(at, length, values, error);
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    if (status == PAGODA_OK) {
        status = settle(values, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    *shape = (struct pgd_shape) {
        .architecture = "shape",
        .layer_count = (uint32_t) values[LAYERS],
        .trained_tokens = (uint32_t) values[CONTEXT],
        .embedding = (uint32_t) values[EMBEDDING],
        .feed_forward = (uint32_t) values[FEED_FORWARD],
        .vocabulary = values[VOCABULARY],
    };
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const bool full = values[FULL_EVERY] != 0 && (i + 1) % values[FULL_EVERY] == 0;
        shape->layers[i] = (struct pgd_shape_layer) {
            .kv_heads = (uint32_t) values[KV_HEADS],
            .query_heads = (uint32_t) values[HEADS],
            .key_size = (uint32_t) values[KEY_SIZE],
            .value_size = (uint32_t) values[VALUE_SIZE],
            .window = full ? 0 : (uint32_t) values[WINDOW],
            .rotated_pairs = (uint32_t) values[KEY_SIZE] / 2,
        };
    }
    return PAGODA_OK;
}
