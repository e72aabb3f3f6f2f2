/* engine/quiz.h - one text, and the questions about it.
 *
 * What makes a quiz (tasks.h) says what the prompts look like, given how much filler there is; this module finds the
 * amount that makes them as long as wanted, in the model's own tokens, and what they have in common, which is read
 * once for all questions. How a question is asked and scored: recall.h.
 *
 * Ownership: a quiz owns its prompts. Threads: immutable once built.
 */
#ifndef PGD_ENGINE_QUIZ_H
#define PGD_ENGINE_QUIZ_H

#include "engine/recall.h"

#define PGD_QUIZ_TEXT_BYTES 64u
#define PGD_QUIZ_SENTENCE_BYTES 192u

struct pgd_quiz_wanted {
    const char *filler; /* real text, which should start with a sentence */
    size_t filler_bytes;
    uint64_t tokens;      /* length of a whole prompt: the longest becomes this or a little less */
    uint64_t seed;        /* of names, numbers and places */
    uint32_t rounds;      /* a quiz that has several wordings of its questions asks in so many; at least 1 */
    bool raw;             /* without the model's chat template */
    uint32_t page_tokens; /* what is shared ends at a multiple of this, so that any cache can go back to it */
};

struct pgd_quiz_item {
    const char *group;                                         /* what it counts as: a word or two, static */
    char subject[PGD_QUIZ_TEXT_BYTES];                         /* what `write` has to know of it; may be "" */
    char opening[PGD_QUIZ_SENTENCE_BYTES];                     /* how the reply begins */
    char fact[PGD_QUIZ_SENTENCE_BYTES];                        /* the words that tell the answer; "": none do */
    char options[PGD_RECALL_OPTIONS_MAX][PGD_QUIZ_TEXT_BYTES]; /* with the blank before; the first is right */
    int32_t *tokens;                                           /* set by pgd_quiz_build, and what follows */
    size_t count;
    size_t opening_tokens;
    uint64_t fact_first;
    uint64_t fact_count;
    int32_t option_tokens[PGD_RECALL_OPTIONS_MAX][PGD_RECALL_ANSWER_TOKENS_MAX];
    uint32_t option_counts[PGD_RECALL_OPTIONS_MAX];
};

struct pgd_quiz {
    struct pgd_quiz_item *items;
    uint32_t item_count;
    size_t shared; /* tokens that all prompts begin with */
};

/* What the prompts look like. */
struct pgd_quiz_source {
    const struct pgd_model *model;
    const struct pgd_quiz_wanted *wanted;
    const void *user;
    size_t size_max; /* most filler there is, in whatever unit `write` counts; 0 is the least */
    /* The prompt of an item up to where its opening starts; *text is malloc'ed. */
    enum pagoda_status (*write)(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item, size_t size,
                                char **text, struct pagoda_error *error);
};

/* Room for `count` items, all zero. Errors: NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_quiz_open(uint32_t count, struct pgd_quiz *quiz, struct pagoda_error *error);
void pgd_quiz_close(struct pgd_quiz *quiz);

/* Finds the size, and fills in the tokens of all items. Errors: INVALID (not enough filler for the length, or a length
 * too small for the questions), UNSUPPORTED (an answer that a vocabulary splits into too many tokens), NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_quiz_build(const struct pgd_quiz_source *source, struct pgd_quiz *quiz,
                                                    size_t *size, struct pagoda_error *error);

/* Item `index` as a question; it borrows from the quiz. */
struct pgd_recall_question pgd_quiz_question(const struct pgd_quiz *quiz, uint32_t index);

/* Whether prompts are turns of a chat. */
bool pgd_quiz_chats(const struct pgd_quiz_source *source);

/* `text` and a question about it as one turn of the user's, up to where the reply starts, or as a text to be continued.
 * *prompt is malloc'ed. Errors: as of pgd_prompt_format. */
PAGODA_MUST_CHECK enum pagoda_status pgd_quiz_wrap(const struct pgd_quiz_source *source, const char *text,
                                                   const char *question, char **prompt, struct pagoda_error *error);

#endif
