/* engine/facts.c - a chat of 30 turns: what was said in turn 1 is asked for in turn 30; see tasks.h.
 *
 *   turn 1         ten facts, two of each of five kinds; and what will be corrected later
 *   turns 2 to 28  filler: a sentence of real text is the user's, what follows in the text is the reply
 *   turn 29        two late facts of other kinds, and two corrections
 *   turn 30        the question, in one of three wordings
 *
 * The reply begins as the fact does, up to its last words, which are the answer. Controls: late facts (has the model
 * understood the question?), corrected ones (the latest counts), and one of which nothing was said (does it guess?).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "engine/filler.h"
#include "engine/prompt.h"
#include "engine/tasks.h"

#define KINDS 10u
#define VALUES PGD_RECALL_OPTIONS_MAX
#define WORDINGS 3u
#define EARLY 10u /* facts of turn 1 that stay true */
#define EARLY_KINDS 5u
#define LATE 2u
#define CORRECTED 2u
#define FACTS (EARLY + LATE + CORRECTED + 1) /* and one that is never told */
#define FILLER_TURNS 27u
#define MESSAGES (2 * (FILLER_TURNS + 2) + 1)
#define MESSAGE_BYTES 1536u /* of a message that is not filler */

/* %s is the name. */
static const struct {
    const char *statement;
    const char *questions[WORDINGS];
    const char *values[VALUES];
} kinds[KINDS] = {
    {"The home town of %s is the town",
     {"Where does %s live?", "In which town does %s live?", "Which town is the home of %s?"},
     {"Lisbon", "Oslo", "Vienna", "Prague", "Dublin", "Athens", "Madrid", "Warsaw", "Geneva", "Venice"}},
    {"The dog of %s is called",
     {"What is the name of the dog that %s has?", "How does %s call the dog?", "%s has a dog. What is it called?"},
     {"Rocky", "Bella", "Max", "Lucky", "Daisy", "Buddy", "Molly", "Shadow", "Ginger", "Coco"}},
    {"The job of %s is the job of a",
     {"What does %s do for a living?", "What is the job of %s?", "As what does %s work?"},
     {"baker", "teacher", "nurse", "lawyer", "pilot", "farmer", "painter", "doctor", "waiter", "driver"}},
    {"The favourite food of %s is",
     {"What does %s like to eat most?", "Which food does %s like best?", "What is the favourite food of %s?"},
     {"pizza", "rice", "soup", "pasta", "bread", "cheese", "fish", "salad", "cake", "chicken"}},
    {"The favourite colour of %s is",
     {"Which colour does %s like best?", "What is the favourite colour of %s?", "What colour does %s prefer?"},
     {"red", "blue", "green", "yellow", "purple", "black", "white", "brown", "orange", "pink"}},
    {"The instrument of %s is the",
     {"Which instrument does %s play?", "What does %s play in the band?", "What instrument has %s learned?"},
     {"piano", "violin", "guitar", "flute", "drums", "trumpet", "harp", "cello", "organ", "clarinet"}},
    {"The hobby of %s is",
     {"What is the hobby of %s?", "What does %s do in the evening?", "Which hobby does %s have?"},
     {"reading", "chess", "fishing", "sailing", "dancing", "cooking", "hiking", "singing", "knitting", "skiing"}},
    {"The birthday of %s is in",
     {"When is the birthday of %s?", "In which month is the birthday of %s?", "In what month was %s born?"},
     {"January", "February", "March", "April", "June", "July", "August", "September", "October", "December"}},
    {"The language that %s is learning is",
     {"Which language is %s learning?", "What language does %s study?", "%s takes lessons. In which language?"},
     {"French", "Spanish", "German", "Italian", "Russian", "Chinese", "Japanese", "Arabic", "Greek", "Dutch"}},
    {"The greatest fear of %s is the fear of",
     {"What is %s afraid of?", "Of what is %s scared?", "What frightens %s?"},
     {"spiders", "snakes", "dogs", "heights", "storms", "ghosts", "horses", "bees", "water", "fire"}},
};

enum when { IN_TURN_1, IN_TURN_29, IN_BOTH, NEVER };

static const char *const groups[] = {"facts", "facts, late", "facts, corrected", "facts, never told"};

struct fact {
    uint32_t kind;
    const char *name;
    uint32_t value;
    uint32_t old_value; /* of one that is corrected */
    enum when when;
};

struct told {
    struct fact facts[FACTS];
};

/* ---- the facts ---- */

static enum when told_when(uint32_t index)
{
    if (index < EARLY) {
        return IN_TURN_1;
    }
    if (index < EARLY + LATE) {
        return IN_TURN_29;
    }
    return index < EARLY + LATE + CORRECTED ? IN_BOTH : NEVER;
}

static void draw_facts(struct pgd_rng *rng, struct told *told)
{
    uint32_t names[PGD_TASK_NAMES];
    uint32_t order[KINDS];
    uint32_t values[KINDS][VALUES];
    pgd_task_shuffle(rng, names, PGD_TASK_NAMES);
    pgd_task_shuffle(rng, order, KINDS);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        pgd_task_shuffle(rng, values[kind], VALUES);
    }
    for (uint32_t i = 0; i < FACTS; i++) {
        struct fact *fact = &told->facts[i];
        fact->kind = i < EARLY ? order[i % EARLY_KINDS] : order[EARLY_KINDS + (i - EARLY)];
        fact->name = pgd_task_names[names[i]];
        fact->value = values[fact->kind][i < EARLY ? i / EARLY_KINDS : 0];
        fact->old_value = values[fact->kind][VALUES - 1];
        fact->when = told_when(i);
    }
}

/* "Anna lives in Lisbon." */
static int write_fact(char *at, size_t room, const struct fact *fact, uint32_t value)
{
    char start[PGD_QUIZ_SENTENCE_BYTES];
    snprintf(start, sizeof(start), kinds[fact->kind].statement, fact->name);
    return snprintf(at, room, "%s %s.", start, kinds[fact->kind].values[value]);
}

/* All facts of turn 1, or of turn 29, after `start`. */
static void write_facts(const struct told *told, bool first, const char *start, char *text)
{
    size_t used = (size_t) snprintf(text, MESSAGE_BYTES, "%s", start);
    for (uint32_t i = 0; i < FACTS; i++) {
        const struct fact *fact = &told->facts[i];
        if (fact->when == IN_BOTH || fact->when == (first ? IN_TURN_1 : IN_TURN_29)) {
            used += (size_t) snprintf(text + used, MESSAGE_BYTES - used, "%s",
                                      fact->when == IN_BOTH && !first ? " This has changed: " : " ");
            used += (size_t) write_fact(text + used, MESSAGE_BYTES - used, fact,
                                        fact->when == IN_BOTH && first ? fact->old_value : fact->value);
        }
    }
}

/* ---- the chat ---- */

/* Texts of messages, one after the other. */
struct pad {
    char *at;
    struct pgd_message messages[MESSAGES];
    size_t count;
};

static void add_message(struct pad *pad, const char *text, size_t bytes)
{
    memcpy(pad->at, text, bytes);
    pad->at[bytes] = '\0';
    pad->messages[pad->count] = (struct pgd_message) {pad->count % 2 == 0 ? "user" : "assistant", pad->at};
    pad->at += bytes + 1;
    pad->count++;
}

/* Part of the filler as a message, without the blanks around it; `otherwise` when nothing is left. */
static void add_filler(struct pad *pad, const char *text, size_t bytes, const char *otherwise)
{
    while (bytes > 0 && strchr(" \n", text[0]) != NULL) {
        text++;
        bytes--;
    }
    while (bytes > 0 && strchr(" \n", text[bytes - 1]) != NULL) {
        bytes--;
    }
    add_message(pad, bytes > 0 ? text : otherwise, bytes > 0 ? bytes : strlen(otherwise));
}

static void add_filler_turns(struct pad *pad, const char *filler, size_t bytes)
{
    size_t start = 0;
    for (size_t turn = 0; turn < FILLER_TURNS; turn++) {
        size_t end = pgd_filler_boundary(filler, bytes, bytes * (turn + 1) / FILLER_TURNS);
        end = end < start ? start : end;
        const size_t reply = start + pgd_filler_boundary(filler + start, end - start, (end - start) / 4);
        add_filler(pad, filler + start, reply - start, "Please go on.");
        add_filler(pad, filler + reply, end - reply, "There is nothing more to say.");
        start = end;
    }
}

/* The chat in plain lines, for models without a template. */
static enum pagoda_status write_lines(const struct pad *pad, size_t room, char **text, struct pagoda_error *error)
{
    static const size_t label_bytes = 16;
    const size_t most = room + (pad->count + 1) * label_bytes;
    char *lines = malloc(most);
    if (lines == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a chat of %zu bytes", most);
    }
    size_t used = 0;
    for (size_t i = 0; i < pad->count; i++) {
        used += (size_t) snprintf(lines + used, most - used, "%s: %s\n", i % 2 == 0 ? "User" : "Assistant",
                                  pad->messages[i].text);
    }
    snprintf(lines + used, most - used, "Assistant: ");
    *text = lines;
    return PAGODA_OK;
}

static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    const struct told *told = source->user;
    const size_t bytes = pgd_filler_cut(source->wanted->filler, source->wanted->filler_bytes, size);
    const size_t room = bytes + 3 * MESSAGE_BYTES + MESSAGES * 64;
    char message[MESSAGE_BYTES];
    char *memory = malloc(room);
    if (memory == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a chat of %zu bytes", room);
    }
    struct pad pad = {.at = memory};
    write_facts(told, true, "Before we begin, please remember this about my friends.", message);
    add_message(&pad, message, strlen(message));
    add_filler(&pad, "", 0, "I will remember all of that.");
    add_filler_turns(&pad, source->wanted->filler, bytes);
    write_facts(told, false, "Please remember some more about my friends.", message);
    add_message(&pad, message, strlen(message));
    add_filler(&pad, "", 0, "I will remember that too.");
    add_message(&pad, item->subject, strlen(item->subject));
    enum pagoda_status status = pgd_quiz_chats(source)
                                    ? pgd_prompt_format(source->model, pad.messages, pad.count, true, text, error)
                                    : write_lines(&pad, room, text, error);
    free(memory);
    return status;
}

/* ---- the questions ---- */

static void set_item(const struct fact *fact, uint32_t wording, struct pgd_quiz_item *item)
{
    char answers[VALUES][PGD_QUIZ_TEXT_BYTES];
    for (uint32_t i = 0; i < VALUES; i++) {
        snprintf(answers[i], sizeof(answers[i]), " %s", kinds[fact->kind].values[i]);
    }
    pgd_task_set_options(item, answers, fact->value);
    item->group = groups[fact->when];
    snprintf(item->subject, sizeof(item->subject), kinds[fact->kind].questions[wording], fact->name);
    snprintf(item->opening, sizeof(item->opening), kinds[fact->kind].statement, fact->name);
    if (fact->when != NEVER) {
        write_fact(item->fact, sizeof(item->fact), fact, fact->value);
    }
}

static enum pagoda_status build(const struct pgd_model *model, const struct pgd_quiz_wanted *wanted,
                                struct pgd_quiz *quiz, struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    struct told told;
    size_t size = 0;
    draw_facts(&rng, &told);
    const struct pgd_quiz_source source = {model, wanted, &told, wanted->filler_bytes, write_prompt};
    enum pagoda_status status = pgd_quiz_open(FACTS * wanted->rounds, quiz, error);
    if (status == PAGODA_OK) {
        for (uint32_t i = 0; i < quiz->item_count; i++) {
            set_item(&told.facts[i % FACTS], (i + i / FACTS) % WORDINGS, &quiz->items[i]);
        }
        status = pgd_quiz_build(&source, quiz, &size, error);
    }
    return status;
}

const struct pgd_task pgd_task_facts = {"facts", EARLY, WORDINGS, build};
