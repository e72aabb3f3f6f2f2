/* engine/passkey.h - does a cache still know a number that was hidden in a long text?
 *
 * The key stands at a chosen depth of real text; nine other numbers of the same kind stand in other sentences,
 * evenly spread, so that having seen a number is not enough. The question comes at the end, as a turn of the chat
 * when the model has a template, else as a text to be continued; the reply starts with "The pass key is the
 * number", since small models begin with an explanation if they may.
 *
 * How it is asked and scored: recall.h; the options are the ten numbers.
 *
 * Ownership: a prompt owns its tokens and is immutable once built. Threads: the thread that owns the bridge.
 */
#ifndef PGD_ENGINE_PASSKEY_H
#define PGD_ENGINE_PASSKEY_H

#include <stddef.h>
#include <stdint.h>

#include "engine/recall.h"

#define PGD_PASSKEY_CHOICES 10u
#define PGD_PASSKEY_ANSWER_TOKENS_MAX 12u

struct pgd_passkey_wanted {
    const char *filler; /* real text, which should start with a sentence */
    size_t filler_bytes;
    uint64_t tokens; /* length of the whole prompt: it becomes this or a little less */
    double depth;    /* of the key in the text: 0 its start, 1 its end */
    uint64_t seed;   /* of the numbers */
    bool raw;        /* without the model's chat template */
};

struct pgd_passkey {
    int32_t *tokens;
    size_t count;
    uint64_t key_first; /* position and number of the tokens of the sentence with the key */
    uint64_t key_count;
    char key[8];
    int32_t choices[PGD_PASSKEY_CHOICES][PGD_PASSKEY_ANSWER_TOKENS_MAX]; /* the first is the key */
    uint32_t choice_tokens;                                              /* all have as many */
};

/* Errors: INVALID (the filler is too short for the length, or the length for the question), UNSUPPORTED (numbers
 * that a model does not split alike), NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_passkey_build(const struct pgd_model *model,
                                                       const struct pgd_passkey_wanted *wanted,
                                                       struct pgd_passkey *passkey, struct pagoda_error *error);
void pgd_passkey_free(struct pgd_passkey *passkey);

/* Empties the cache, reads the prompt, asks. Errors: those of pgd_generate_feed. */
PAGODA_MUST_CHECK enum pagoda_status pgd_passkey_ask(struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                                     const struct pgd_feed_options *feed,
                                                     struct pgd_recall_answer *answer, struct pagoda_error *error);

#endif
