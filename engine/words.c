/* engine/words.c - a list of words of ten kinds: which of a kind comes up most? See tasks.h.
 *
 * Words come in rounds: in each, every kind has its common word COMMON times and its nine others once, shuffled.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/tasks.h"

#define KINDS PGD_TASK_KINDS
#define WORDS PGD_TASK_WORDS
#define COMMON 9u
#define ROUND (KINDS * (WORDS - 1 + COMMON))
#define LINE_BYTES 32u
#define LIST_WORDS_MAX (1u << 20)

static const char intro[] = "Below is a list of words. Some of them come up more often than others.\n\n";

struct list {
    uint32_t common[KINDS]; /* index of the word that comes up more often */
    uint64_t seed;
};

/* The word of entry `index` of a round that is not shuffled: first all words of all kinds, then more of the common
 * ones. */
static const char *word_at(const struct list *list, uint32_t index)
{
    const uint32_t kind = index % KINDS;
    const uint32_t place = index / KINDS;
    return pgd_task_kinds[kind].words[place < WORDS ? place : list->common[kind]];
}

/* A list being written, or counted. */
struct walk {
    struct pgd_rng rng;
    uint32_t order[ROUND];
    size_t done;
};

/* Where the next entry stands in a round that is not shuffled: see word_at. */
static uint32_t next_entry(struct walk *walk)
{
    if (walk->done % ROUND == 0) {
        pgd_task_shuffle(&walk->rng, walk->order, ROUND);
    }
    return walk->order[walk->done++ % ROUND];
}

/* Whether the common word of each kind comes up more than twice as often as any other among `size` entries. */
static bool common_words_lead(const struct list *list, size_t size)
{
    struct walk walk = {.rng = {list->seed}};
    size_t counts[KINDS][WORDS] = {{0}};
    while (walk.done < size) {
        const uint32_t entry = next_entry(&walk);
        const uint32_t place = entry / KINDS;
        counts[entry % KINDS][place < WORDS ? place : list->common[entry % KINDS]]++;
    }
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        for (uint32_t word = 0; word < WORDS; word++) {
            if (word != list->common[kind] && counts[kind][list->common[kind]] <= 2 * counts[kind][word]) {
                return false;
            }
        }
    }
    return true;
}

static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    const struct list *list = source->user;
    struct walk walk = {.rng = {list->seed}};
    char question[96];
    char *words = malloc(sizeof(intro) + size * LINE_BYTES);
    if (words == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a list of %zu words", size);
    }
    memcpy(words, intro, sizeof(intro));
    size_t used = sizeof(intro) - 1;
    while (walk.done < size) {
        const uint32_t entry = next_entry(&walk);
        used += (size_t) snprintf(words + used, LINE_BYTES, "%s: %s\n", pgd_task_kinds[entry % KINDS].name,
                                  word_at(list, entry));
    }
    snprintf(question, sizeof(question), "Which %s comes up most often in the list?", item->subject);
    enum pagoda_status status = pgd_quiz_wrap(source, words, question, text, error);
    free(words);
    return status;
}

static void set_items(const struct list *list, struct pgd_quiz *quiz)
{
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        struct pgd_quiz_item *item = &quiz->items[kind];
        char answers[WORDS][PGD_QUIZ_TEXT_BYTES];
        for (uint32_t i = 0; i < WORDS; i++) {
            snprintf(answers[i], sizeof(answers[i]), " %s", pgd_task_kinds[kind].words[i]);
        }
        item->group = "words";
        snprintf(item->subject, sizeof(item->subject), "%s", pgd_task_kinds[kind].name);
        snprintf(item->opening, sizeof(item->opening), "%s:", pgd_task_kinds[kind].name);
        pgd_task_set_options(item, answers, list->common[kind]);
    }
}

static enum pagoda_status build(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    struct list list;
    size_t size = 0;
    for (uint32_t i = 0; i < KINDS; i++) {
        list.common[i] = (uint32_t) pgd_rng_below(&rng, WORDS);
    }
    list.seed = pgd_rng_next(&rng);
    const struct pgd_quiz_source source = {model, wanted, &list, LIST_WORDS_MAX, write_prompt};
    enum pagoda_status status = pgd_quiz_open(KINDS, quiz, error);
    if (status == PAGODA_OK) {
        set_items(&list, quiz);
        status = pgd_quiz_build(&source, quiz, &size, error);
    }
    if (status == PAGODA_OK && !common_words_lead(&list, size)) {
        return pgd_fail(error, PAGODA_INVALID, "a text of %llu tokens holds a list of %zu words, too few to count",
                        (unsigned long long) wanted->tokens, size);
    }
    return status;
}

const struct pgd_task pgd_task_words = {"words", KINDS, 1, build};
