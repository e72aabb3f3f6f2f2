/* engine/keys.c - several pass keys with names, each asked for; see tasks.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/filler.h"
#include "engine/tasks.h"

#define KEYS PGD_RECALL_OPTIONS_MAX

static const char intro[] = "Pass keys of several people are hidden in the text below. Remember all of them.\n\n";

struct keys {
    const char *names[KEYS];
    uint32_t numbers[KEYS];
};

static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    const struct keys *keys = source->user;
    struct pgd_filler_insertion insertions[KEYS];
    char question[96];
    const size_t bytes = pgd_filler_cut(source->wanted->filler, source->wanted->filler_bytes, size);
    char *told = malloc(sizeof(intro) + bytes + KEYS * PGD_FILLER_SENTENCE_BYTES);
    if (told == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a prompt of %zu bytes", bytes);
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        insertions[i].depth = ((double) i + 0.5) / KEYS;
        snprintf(insertions[i].sentence, sizeof(insertions[i].sentence), " The pass key of %s is the number %u. ",
                 keys->names[i], keys->numbers[i]);
    }
    pgd_filler_place(source->wanted->filler, bytes, insertions, KEYS);
    memcpy(told, intro, sizeof(intro));
    *pgd_filler_write(told + sizeof(intro) - 1, source->wanted->filler, bytes, insertions, KEYS) = '\0';
    snprintf(question, sizeof(question), "What is the pass key of %s?", item->subject);
    enum pagoda_status status = pgd_quiz_wrap(source, told, question, text, error);
    free(told);
    return status;
}

static void set_items(const struct keys *keys, struct pgd_quiz *quiz)
{
    char answers[KEYS][PGD_QUIZ_TEXT_BYTES];
    for (uint32_t i = 0; i < KEYS; i++) {
        snprintf(answers[i], sizeof(answers[i]), " %u", keys->numbers[i]);
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        struct pgd_quiz_item *item = &quiz->items[i];
        item->group = "keys";
        snprintf(item->subject, sizeof(item->subject), "%s", keys->names[i]);
        snprintf(item->opening, sizeof(item->opening), "The pass key of %s is the number", keys->names[i]);
        snprintf(item->fact, sizeof(item->fact), "The pass key of %s is the number %u.", keys->names[i],
                 keys->numbers[i]);
        pgd_task_set_options(item, answers, i);
    }
}

static enum pagoda_status build(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    struct keys keys;
    uint32_t order[PGD_TASK_NAMES];
    size_t size = 0;
    pgd_task_shuffle(&rng, order, PGD_TASK_NAMES);
    pgd_task_numbers(&rng, 5, keys.numbers);
    for (uint32_t i = 0; i < KEYS; i++) {
        keys.names[i] = pgd_task_names[order[i]];
    }
    const struct pgd_quiz_source source = {model, wanted, &keys, wanted->filler_bytes, write_prompt};
    enum pagoda_status status = pgd_quiz_open(KEYS, quiz, error);
    if (status == PAGODA_OK) {
        set_items(&keys, quiz);
        status = pgd_quiz_build(&source, quiz, &size, error);
    }
    return status;
}

const struct pgd_task pgd_task_keys = {"keys", KEYS, 1, build};
