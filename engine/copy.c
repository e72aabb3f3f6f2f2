/* engine/copy.c - random strings in real text: one is begun again, and goes on how? See tasks.h.
 *
 * No question is asked and no template used: a text whose last line begins like an earlier one is continued. Small
 * models are good at this (induction heads), so it is the cleanest probe of what a cache still has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/filler.h"
#include "engine/tasks.h"

#define STRINGS PGD_RECALL_OPTIONS_MAX
#define GROUPS 4u /* in each half of a string */
#define GROUP_LETTERS 3u
#define HALF_BYTES (GROUPS * (GROUP_LETTERS + 1) + 1)

struct strings {
    char heads[STRINGS][HALF_BYTES]; /* each group with a blank before it */
    char tails[STRINGS][HALF_BYTES];
};

static void draw_half(struct pgd_rng *rng, char *half)
{
    for (uint32_t i = 0; i < GROUPS; i++) {
        half[i * (GROUP_LETTERS + 1)] = ' ';
        pgd_task_word(rng, GROUP_LETTERS, half + i * (GROUP_LETTERS + 1) + 1);
    }
}

static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    static const char end[] = "\n\n";
    const struct strings *strings = source->user;
    struct pgd_filler_insertion insertions[STRINGS];
    (void) item;
    const size_t bytes = pgd_filler_cut(source->wanted->filler, source->wanted->filler_bytes, size);
    char *told = malloc(bytes + STRINGS * PGD_FILLER_SENTENCE_BYTES + sizeof(end));
    if (told == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a prompt of %zu bytes", bytes);
    }
    for (uint32_t i = 0; i < STRINGS; i++) {
        insertions[i].depth = ((double) i + 0.5) / STRINGS;
        snprintf(insertions[i].sentence, sizeof(insertions[i].sentence), "\n\nCode:%s%s.\n\n", strings->heads[i],
                 strings->tails[i]);
    }
    pgd_filler_place(source->wanted->filler, bytes, insertions, STRINGS);
    memcpy(pgd_filler_write(told, source->wanted->filler, bytes, insertions, STRINGS), end, sizeof(end));
    *text = told;
    return PAGODA_OK;
}

static void set_items(const struct strings *strings, struct pgd_quiz *quiz)
{
    char answers[STRINGS][PGD_QUIZ_TEXT_BYTES];
    for (uint32_t i = 0; i < STRINGS; i++) {
        snprintf(answers[i], sizeof(answers[i]), "%s", strings->tails[i]);
    }
    for (uint32_t i = 0; i < STRINGS; i++) {
        struct pgd_quiz_item *item = &quiz->items[i];
        item->group = "copy";
        snprintf(item->opening, sizeof(item->opening), "Code:%s", strings->heads[i]);
        snprintf(item->fact, sizeof(item->fact), "Code:%s%s.", strings->heads[i], strings->tails[i]);
        pgd_task_set_options(item, answers, i);
    }
}

static enum pagoda_status build(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    struct strings strings;
    size_t size = 0;
    for (uint32_t i = 0; i < STRINGS; i++) {
        draw_half(&rng, strings.heads[i]);
        draw_half(&rng, strings.tails[i]);
    }
    const struct pgd_quiz_source source = {model, wanted, &strings, wanted->filler_bytes, write_prompt};
    enum pagoda_status status = pgd_quiz_open(STRINGS, quiz, error);
    if (status == PAGODA_OK) {
        set_items(&strings, quiz);
        status = pgd_quiz_build(&source, quiz, &size, error);
    }
    return status;
}

const struct pgd_task pgd_task_copy = {"copy", STRINGS, 1, build};
