/* engine/lookup.c - a JSON object of made-up names and numbers, ten of which are asked for; see tasks.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/tasks.h"

#define ASKED PGD_RECALL_OPTIONS_MAX
#define NAME_BYTES 32u /* of a name */
#define NUMBER_DIGITS 3u
#define LINE_BYTES (NAME_BYTES + 16)
#define PAIRS_MAX (1u << 20)

static const char intro[] = "Below is a JSON object. Remember the value of every key.\n\n{\n";

struct lookup {
    char names[ASKED][NAME_BYTES];
    uint32_t numbers[ASKED];
    uint64_t others_seed;
};

/* Two words that do not belong together: a name that no model has seen, of tokens that all know. */
static void draw_name(struct pgd_rng *rng, char *name)
{
    const char *words[2];
    for (int i = 0; i < 2; i++) {
        words[i] = pgd_task_kinds[pgd_rng_below(rng, PGD_TASK_KINDS)].words[pgd_rng_below(rng, PGD_TASK_WORDS)];
    }
    snprintf(name, NAME_BYTES, "%s %s", words[0], words[1]);
}

static size_t write_pair(char *at, const char *name, uint32_t number)
{
    return (size_t) snprintf(at, LINE_BYTES, "\"%s\": %u,\n", name, number);
}

/* The next pair that nobody asks for: neither its name nor its number is one that somebody does ask for. */
static size_t write_other(const struct lookup *lookup, struct pgd_rng *rng, char *at)
{
    char name[NAME_BYTES];
    uint32_t number = 0;
    bool is_asked = true;
    while (is_asked) {
        draw_name(rng, name);
        number = 100 + (uint32_t) pgd_rng_below(rng, 900);
        is_asked = false;
        for (uint32_t i = 0; i < ASKED; i++) {
            is_asked = is_asked || strcmp(name, lookup->names[i]) == 0 || number == lookup->numbers[i];
        }
    }
    return write_pair(at, name, number);
}

/* `size` pairs that nobody asks for, with those that somebody does evenly among them. */
static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    const struct lookup *lookup = source->user;
    struct pgd_rng rng = {lookup->others_seed};
    char question[96];
    char *object = malloc(sizeof(intro) + (size + ASKED) * LINE_BYTES + 8);
    if (object == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for an object of %zu values", size);
    }
    memcpy(object, intro, sizeof(intro));
    size_t used = sizeof(intro) - 1;
    uint32_t asked = 0;
    for (size_t i = 0; i <= size; i++) {
        while (asked < ASKED && (2 * asked + 1) * size / (2 * ASKED) <= i) {
            used += write_pair(object + used, lookup->names[asked], lookup->numbers[asked]);
            asked++;
        }
        used += i < size ? write_other(lookup, &rng, object + used) : 0;
    }
    memcpy(object + used - 2, "\n}", 3); /* no comma after the last */
    snprintf(question, sizeof(question), "What is the value of \"%s\"?", item->subject);
    enum pagoda_status status = pgd_quiz_wrap(source, object, question, text, error);
    free(object);
    return status;
}

static void set_items(const struct lookup *lookup, struct pgd_quiz *quiz)
{
    char answers[ASKED][PGD_QUIZ_TEXT_BYTES];
    for (uint32_t i = 0; i < ASKED; i++) {
        snprintf(answers[i], sizeof(answers[i]), " %u", lookup->numbers[i]);
    }
    for (uint32_t i = 0; i < ASKED; i++) {
        struct pgd_quiz_item *item = &quiz->items[i];
        item->group = "lookup";
        snprintf(item->subject, sizeof(item->subject), "%s", lookup->names[i]);
        snprintf(item->opening, sizeof(item->opening), "\"%s\":", lookup->names[i]);
        snprintf(item->fact, sizeof(item->fact), "\"%s\": %u", lookup->names[i], lookup->numbers[i]);
        pgd_task_set_options(item, answers, i);
    }
}

static void draw_names(struct pgd_rng *rng, struct lookup *lookup)
{
    for (uint32_t i = 0; i < ASKED; i++) {
        bool is_new = false;
        while (!is_new) {
            draw_name(rng, lookup->names[i]);
            is_new = true;
            for (uint32_t j = 0; j < i; j++) {
                is_new = is_new && strcmp(lookup->names[i], lookup->names[j]) != 0;
            }
        }
    }
}

static enum pagoda_status build(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    struct lookup lookup;
    size_t size = 0;
    draw_names(&rng, &lookup);
    pgd_task_numbers(&rng, NUMBER_DIGITS, lookup.numbers);
    lookup.others_seed = pgd_rng_next(&rng);
    const struct pgd_quiz_source source = {model, wanted, &lookup, PAIRS_MAX, write_prompt};
    enum pagoda_status status = pgd_quiz_open(ASKED, quiz, error);
    if (status == PAGODA_OK) {
        set_items(&lookup, quiz);
        status = pgd_quiz_build(&source, quiz, &size, error);
    }
    return status;
}

const struct pgd_task pgd_task_lookup = {"lookup", ASKED, 1, build};
