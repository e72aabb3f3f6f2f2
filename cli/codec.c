/* cli/codec.c - see codec.h. */
#include "cli/codec.h"

#include <stddef.h>
#include <strings.h>

#include "base/status.h"

const char *const pgd_codec_words[] = {"auto", "f16", "q8", "k8v5", "k8v4", "k6v4", "k5v4", "r15", NULL};

static const struct pgd_codec_choice choices[] = {
    {PAGODA_CODEC_F16, PAGODA_CODEC_K5V4},  {PAGODA_CODEC_F16, PAGODA_CODEC_F16},
    {PAGODA_CODEC_Q8, PAGODA_CODEC_Q8},     {PAGODA_CODEC_K8V5, PAGODA_CODEC_K8V5},
    {PAGODA_CODEC_K8V4, PAGODA_CODEC_K8V4}, {PAGODA_CODEC_K6V4, PAGODA_CODEC_K6V4},
    {PAGODA_CODEC_K5V4, PAGODA_CODEC_K5V4}, {PAGODA_CODEC_R15, PAGODA_CODEC_R15},
};

struct pgd_codec_choice pgd_codec_of_word(int index, bool spills)
{
    if (index == 0 && spills) {
        return (struct pgd_codec_choice) {PAGODA_CODEC_F16, PAGODA_CODEC_K8V4};
    }
    return choices[index];
}

/* llama.cpp's types for its cache, by the bits of a number. */
static const struct {
    const char *name;
    uint32_t bits;
} types[] = {
    {"f16", 16}, {"f32", 16}, {"bf16", 16}, {"q8_0", 8},   {"q5_0", 5},
    {"q5_1", 5}, {"q4_0", 4}, {"q4_1", 4},  {"iq4_nl", 4},
};

enum pagoda_status pgd_codec_bits(const char *type, uint32_t *bits, struct pagoda_error *error)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcasecmp(types[i].name, type) == 0) {
            *bits = types[i].bits;
            return PAGODA_OK;
        }
    }
    return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of f16, q8_0, q5_0, q5_1, q4_0, q4_1", type);
}

struct pgd_codec_choice pgd_codec_of_bits(uint32_t key_bits, uint32_t value_bits)
{
    static const struct {
        enum pagoda_codec codec;
        uint32_t key_bits;
        uint32_t value_bits;
    } smallest_first[] = {
        {PAGODA_CODEC_K5V4, 5, 4},
        {PAGODA_CODEC_K8V4, 8, 4},
        {PAGODA_CODEC_K8V5, 8, 5},
        {PAGODA_CODEC_Q8, 8, 8},
    };
    const uint32_t keys = key_bits != 0 ? key_bits : value_bits;
    const uint32_t values = value_bits != 0 ? value_bits : key_bits;
    for (size_t i = 0; i < sizeof(smallest_first) / sizeof(smallest_first[0]); i++) {
        if (smallest_first[i].key_bits >= keys && smallest_first[i].value_bits >= values) {
            return (struct pgd_codec_choice) {smallest_first[i].codec, smallest_first[i].codec};
        }
    }
    return (struct pgd_codec_choice) {PAGODA_CODEC_F16, PAGODA_CODEC_F16};
}
