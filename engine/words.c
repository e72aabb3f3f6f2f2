/* engine/words.c - a list of words of ten kinds: which of a kind comes up most? See tasks.h.
 *
 * Words come in rounds: in each, every kind has its common word COMMON times and its nine others once, shuffled.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/tasks.h"

#define KINDS PGD_RECALL_OPTIONS_MAX
#define WORDS PGD_RECALL_OPTIONS_MAX
#define COMMON 6u
#define ROUND (KINDS * (WORDS - 1 + COMMON))
#define WORD_BYTES 16u
#define LIST_WORDS_MAX (1u << 20)
#define LIST_WORDS_MIN ROUND

static const char intro[] = "Below is a list of words. Some of them come up more often than others.\n\n";

static const struct {
    const char *name;
    const char *words[WORDS];
} kinds[KINDS] = {
    {"animal", {"horse", "tiger", "rabbit", "snake", "goat", "wolf", "monkey", "duck", "bear", "mouse"}},
    {"fruit", {"apple", "banana", "cherry", "lemon", "grape", "mango", "peach", "plum", "melon", "pear"}},
    {"colour", {"red", "blue", "green", "yellow", "purple", "black", "white", "brown", "grey", "pink"}},
    {"country", {"France", "Brazil", "Japan", "Egypt", "Canada", "India", "Kenya", "Peru", "Norway", "Spain"}},
    {"tool", {"hammer", "saw", "drill", "shovel", "axe", "wrench", "knife", "ruler", "brush", "chisel"}},
    {"drink", {"water", "coffee", "milk", "beer", "wine", "juice", "tea", "cocoa", "rum", "cider"}},
    {"garment", {"shirt", "jacket", "skirt", "scarf", "coat", "dress", "hat", "glove", "sock", "belt"}},
    {"instrument", {"piano", "violin", "guitar", "drum", "flute", "harp", "trumpet", "cello", "organ", "banjo"}},
    {"job", {"doctor", "teacher", "baker", "lawyer", "farmer", "nurse", "pilot", "painter", "sailor", "judge"}},
    {"metal", {"iron", "gold", "silver", "copper", "zinc", "lead", "tin", "nickel", "steel", "bronze"}},
};

struct list {
    uint32_t common[KINDS]; /* index of the word that comes up more often */
    uint64_t seed;
};

/* Word `index` of a round that is not shuffled. */
static const char *word_at(const struct list *list, uint32_t index)
{
    const uint32_t kind = index % KINDS;
    const uint32_t place = index / KINDS;
    return kinds[kind].words[place < WORDS ? place : list->common[kind]];
}

static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    const struct list *list = source->user;
    struct pgd_rng rng = {list->seed};
    uint32_t order[ROUND];
    char question[96];
    char *words = malloc(sizeof(intro) + size * (WORD_BYTES + 2));
    if (words == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a list of %zu words", size);
    }
    memcpy(words, intro, sizeof(intro));
    size_t used = sizeof(intro) - 1;
    for (size_t i = 0; i < size; i++) {
        if (i % ROUND == 0) {
            pgd_task_shuffle(&rng, order, ROUND);
        }
        used += (size_t) snprintf(words + used, WORD_BYTES + 2, "%s%s", i == 0 ? "" : ", ",
                                  word_at(list, order[i % ROUND]));
    }
    snprintf(question, sizeof(question), "Which %s comes up most often in the list?", item->subject);
    enum pagoda_status status = pgd_quiz_wrap(source->model, words, question, text, error);
    free(words);
    return status;
}

static void set_items(const struct list *list, struct pgd_quiz *quiz)
{
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        struct pgd_quiz_item *item = &quiz->items[kind];
        char answers[WORDS][PGD_QUIZ_TEXT_BYTES];
        for (uint32_t i = 0; i < WORDS; i++) {
            snprintf(answers[i], sizeof(answers[i]), " %s", kinds[kind].words[i]);
        }
        item->group = "words";
        snprintf(item->subject, sizeof(item->subject), "%s", kinds[kind].name);
        snprintf(item->opening, sizeof(item->opening), "The %s that comes up most often is", kinds[kind].name);
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
    if (status == PAGODA_OK && size < LIST_WORDS_MIN) {
        return pgd_fail(error, PAGODA_INVALID,
                        "a text of %llu tokens holds a list of %zu words, at least %u are needed",
                        (unsigned long long) wanted->tokens, size, LIST_WORDS_MIN);
    }
    return status;
}

const struct pgd_task pgd_task_words = {"words", KINDS, 1, build};
