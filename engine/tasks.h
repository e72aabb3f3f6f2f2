/* engine/tasks.h - what a cache can be asked to recall: each task makes quizzes (quiz.h) of its own kind.
 *
 *   keys     ten pass keys with names in real text, each asked for
 *   lookup   a JSON object of made-up names and numbers, ten of them asked for
 *   copy     ten random strings in real text; the start of one is given, the rest is asked for (induction)
 *   words    a long list of words of ten kinds; of each kind, one comes up more often than the others: which? No single
 *            place tells, so a cache that reads only the best-matching pages is at its weakest here
 *   facts    a chat of 30 turns; what was said in turn 1 is asked for in turn 30, with controls
 *
 * In all of them the nine wrong answers are of the same kind as the right one, and all but some of those of `facts`
 * stand in the same text, so having seen a word is not enough.
 *
 * The same seed, filler and model give the same quiz. Threads: any.
 */
#ifndef PGD_ENGINE_TASKS_H
#define PGD_ENGINE_TASKS_H

#include "engine/quiz.h"
#include "engine/rng.h"

struct pgd_task {
    const char *name;
    uint32_t questions;  /* of one quiz and round, controls not counted */
    uint32_t rounds_max; /* wordings that a quiz can ask the same in */
    /* Errors: as of pgd_quiz_build. The caller closes the quiz whatever comes of it. */
    enum pagoda_status (*build)(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error);
};

extern const struct pgd_task pgd_task_keys;
extern const struct pgd_task pgd_task_lookup;
extern const struct pgd_task pgd_task_copy;
extern const struct pgd_task pgd_task_words;
extern const struct pgd_task pgd_task_facts;

/* All of them in the order above; NULL past the end. */
const struct pgd_task *pgd_task_at(uint32_t index);

/* ---- what the tasks are made of ---- */

#define PGD_TASK_NAMES 24u
extern const char *const pgd_task_names[PGD_TASK_NAMES]; /* first names */

/* Common words, none of them in two kinds. */
#define PGD_TASK_KINDS 10u
#define PGD_TASK_WORDS PGD_RECALL_OPTIONS_MAX
struct pgd_task_kind {
    const char *name;
    const char *words[PGD_TASK_WORDS];
};
extern const struct pgd_task_kind pgd_task_kinds[PGD_TASK_KINDS];

/* 0 .. count - 1 in random order. */
void pgd_task_shuffle(struct pgd_rng *rng, uint32_t *order, uint32_t count);

/* Ten different numbers of `digits` digits, the first of them not 0. */
void pgd_task_numbers(struct pgd_rng *rng, uint32_t digits, uint32_t *numbers);

/* A made-up word of `letters` letters, consonants and vowels in turn. `word` has room for one byte more. */
void pgd_task_word(struct pgd_rng *rng, uint32_t letters, char *word);

/* Option i of an item becomes answer (right + i) modulo 10 of the ten `answers`, so that the right one comes first. */
void pgd_task_set_options(struct pgd_quiz_item *item, const char (*answers)[PGD_QUIZ_TEXT_BYTES], uint32_t right);

#endif
