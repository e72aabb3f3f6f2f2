/* cli/codec.h - from the words of --kv-codec, -ctk and -ctv to the codecs of a cache. Threads: pure. */
#ifndef PGD_CLI_CODEC_H
#define PGD_CLI_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "pagoda/pagoda.h"

/* What pages become when they have settled, and what under pressure (pagoda/cache.h). */
struct pgd_codec_choice {
    enum pagoda_codec settled;
    enum pagoda_codec tight;
};

/* The words of --kv-codec, NULL at the end; "auto" is the first. */
extern const char *const pgd_codec_words[];

/* The choice that word `index` stands for. auto: exact while there is room, then smaller: down to k5v4, or, when text
 * can go to flash after that, to k8v4. */
struct pgd_codec_choice pgd_codec_of_word(int index, bool spills);

/* Bits of a number in a cache type of llama.cpp ("q8_0"): 16, 8, 5, 4. Errors: INVALID. */
PAGODA_MUST_CHECK enum pagoda_status pgd_codec_bits(const char *type, uint32_t *bits, struct pagoda_error *error);

/* The smallest codec that is at least as fine for keys and for values; 0: as the other side. */
struct pgd_codec_choice pgd_codec_of_bits(uint32_t key_bits, uint32_t value_bits);

#endif
