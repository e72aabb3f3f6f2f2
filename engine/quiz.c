/* engine/quiz.c - see quiz.h. */
#include "engine/quiz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/prompt.h"

#define SLACK_TOKENS 64u /* a prompt may be so much shorter than wanted before the filler is said to be too short */

enum pagoda_status pgd_quiz_open(uint32_t count, struct pgd_quiz *quiz, struct pagoda_error *error)
{
    *quiz = (struct pgd_quiz) {.items = calloc(count, sizeof(*quiz->items)), .item_count = count};
    if (quiz->items == NULL) {
        quiz->item_count = 0;
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u questions", count);
    }
    return PAGODA_OK;
}

static void forget_tokens(struct pgd_quiz *quiz)
{
    for (uint32_t i = 0; i < quiz->item_count; i++) {
        free(quiz->items[i].tokens);
        quiz->items[i].tokens = NULL;
    }
}

void pgd_quiz_close(struct pgd_quiz *quiz)
{
    forget_tokens(quiz);
    free(quiz->items);
    *quiz = (struct pgd_quiz) {.items = NULL};
}

/* ---- prompts ---- */

bool pgd_quiz_chats(const struct pgd_quiz_source *source)
{
    return !source->wanted->raw && pgd_prompt_has_template(source->model);
}

enum pagoda_status pgd_quiz_wrap(const struct pgd_quiz_source *source, const char *text, const char *question,
                                 char **prompt, struct pagoda_error *error)
{
    const bool chats = pgd_quiz_chats(source);
    const size_t room = strlen(text) + strlen(question) + 64;
    char *whole = malloc(room);
    if (whole == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a prompt of %zu bytes", room);
    }
    snprintf(whole, room, chats ? "%s\n\n%s" : "%s\n\nQuestion: %s\nAnswer: ", text, question);
    if (!chats) {
        *prompt = whole;
        return PAGODA_OK;
    }
    const struct pgd_message message = {.role = "user", .text = whole};
    enum pagoda_status status = pgd_prompt_format(source->model, &message, 1, true, prompt, error);
    free(whole);
    return status;
}

/* The whole prompt of an item, its opening included; *text is malloc'ed. */
static enum pagoda_status write_prompt(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, char **text, struct pagoda_error *error)
{
    char *prompt = NULL;
    enum pagoda_status status = source->write(source, item, size, &prompt, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const size_t bytes = strlen(prompt);
    *text = realloc(prompt, bytes + sizeof(item->opening));
    if (*text == NULL) {
        free(prompt);
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a prompt of %zu bytes", bytes);
    }
    memcpy(*text + bytes, item->opening, strlen(item->opening) + 1);
    return PAGODA_OK;
}

static enum pagoda_status tokenize(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item, size_t size,
                                   char **text, int32_t **tokens, size_t *count, struct pagoda_error *error)
{
    enum pagoda_status status = write_prompt(source, item, size, text, error);
    if (status == PAGODA_OK) {
        status = pgd_model_tokenize(source->model, *text, strlen(*text), true, true, tokens, count, error);
        if (status != PAGODA_OK) {
            free(*text);
        }
    }
    return status;
}

static enum pagoda_status count_tokens(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                       size_t size, size_t *count, struct pagoda_error *error)
{
    char *text = NULL;
    int32_t *tokens = NULL;
    enum pagoda_status status = tokenize(source, item, size, &text, &tokens, count, error);
    if (status == PAGODA_OK) {
        free(text);
        free(tokens);
    }
    return status;
}

/* ---- the length ---- */

/* The largest size whose prompt has at most `tokens` tokens: more filler, more tokens. */
static enum pagoda_status find_size(const struct pgd_quiz_source *source, const struct pgd_quiz_item *item,
                                    uint64_t tokens, size_t *size, struct pagoda_error *error)
{
    size_t count = 0;
    enum pagoda_status status = count_tokens(source, item, 0, &count, error);
    if (status == PAGODA_OK && count > tokens) {
        return pgd_fail(error, PAGODA_INVALID, "the questions alone need a text of %zu tokens, not of %llu", count,
                        (unsigned long long) tokens);
    }
    size_t fits = 0;
    size_t too_long = 1;
    bool found = false;
    while (status == PAGODA_OK && (!found || too_long - fits > 1)) {
        const size_t next = found ? fits + (too_long - fits) / 2 : too_long;
        if (next > source->size_max) {
            too_long = source->size_max + 1;
            found = true;
            continue;
        }
        status = count_tokens(source, item, next, &count, error);
        if (status == PAGODA_OK && count <= tokens) {
            fits = next;
            too_long = found ? too_long : 2 * next;
        } else {
            too_long = next;
            found = true;
        }
    }
    *size = fits;
    return status;
}

static enum pagoda_status check_filler(const struct pgd_quiz_source *source, const struct pgd_quiz *quiz, size_t size,
                                       struct pagoda_error *error)
{
    if (size == source->size_max && quiz->items[0].count + SLACK_TOKENS < source->wanted->tokens) {
        return pgd_fail(error, PAGODA_INVALID,
                        "the text to fill a prompt with is too short: it makes %zu tokens, %llu are needed",
                        quiz->items[0].count, (unsigned long long) source->wanted->tokens);
    }
    return PAGODA_OK;
}

/* ---- places in the tokens ---- */

static void find_opening(const struct pgd_model *model, struct pgd_quiz_item *item)
{
    const size_t wanted = strlen(item->opening);
    item->opening_tokens = 1;
    while (item->opening_tokens < item->count &&
           pgd_model_text_bytes(model, item->tokens + item->count - item->opening_tokens, item->opening_tokens) <
               wanted) {
        item->opening_tokens++;
    }
}

/* The tokens that hold the words of the fact. What a vocabulary adds to a text, it adds at the start. */
static void find_fact(const struct pgd_model *model, const char *text, struct pgd_quiz_item *item)
{
    const char *at = item->fact[0] == '\0' ? NULL : strstr(text, item->fact);
    item->fact_count = 0;
    if (at == NULL) {
        return;
    }
    const size_t length = strlen(text);
    const size_t added = (size_t) pgd_max_u64(pgd_model_text_bytes(model, item->tokens, item->count), length) - length;
    const size_t first = (size_t) (at - text) + added;
    const size_t end = first + strlen(item->fact);
    size_t bytes = 0;
    for (size_t i = 0; i < item->count && bytes < end; i++) {
        const size_t start = bytes;
        bytes += pgd_model_text_bytes(model, item->tokens + i, 1);
        if (bytes > first && start < end) {
            item->fact_first = item->fact_count == 0 ? i : item->fact_first;
            item->fact_count++;
        }
    }
}

static enum pagoda_status tokenize_options(const struct pgd_model *model, struct pgd_quiz_item *item,
                                           struct pagoda_error *error)
{
    for (uint32_t i = 0; i < PGD_RECALL_OPTIONS_MAX; i++) {
        int32_t *tokens = NULL;
        size_t count = 0;
        enum pagoda_status status =
            pgd_model_tokenize(model, item->options[i], strlen(item->options[i]), false, false, &tokens, &count, error);
        if (status != PAGODA_OK) {
            return status;
        }
        if (count == 0 || count > PGD_RECALL_ANSWER_TOKENS_MAX) {
            free(tokens);
            return pgd_fail(error, PAGODA_UNSUPPORTED,
                            "this model's vocabulary splits '%s' into %zu tokens, at most %u are possible",
                            item->options[i], count, PGD_RECALL_ANSWER_TOKENS_MAX);
        }
        memcpy(item->option_tokens[i], tokens, count * sizeof(*tokens));
        item->option_counts[i] = (uint32_t) count;
        free(tokens);
    }
    return PAGODA_OK;
}

static enum pagoda_status fill_item(const struct pgd_quiz_source *source, size_t size, struct pgd_quiz_item *item,
                                    struct pagoda_error *error)
{
    char *text = NULL;
    enum pagoda_status status = tokenize(source, item, size, &text, &item->tokens, &item->count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    find_opening(source->model, item);
    find_fact(source->model, text, item);
    free(text);
    return tokenize_options(source->model, item, error);
}

/* What all prompts begin with, up to a page's end and before any opening. */
static void find_shared(const struct pgd_quiz_source *source, struct pgd_quiz *quiz)
{
    const struct pgd_quiz_item *first = &quiz->items[0];
    size_t shared = first->count - first->opening_tokens;
    for (uint32_t i = 1; i < quiz->item_count; i++) {
        const struct pgd_quiz_item *item = &quiz->items[i];
        size_t same = 0;
        while (same < shared && same < item->count - item->opening_tokens &&
               item->tokens[same] == first->tokens[same]) {
            same++;
        }
        shared = same;
    }
    quiz->shared = shared - shared % source->wanted->page_tokens;
}

static enum pagoda_status fill_items(const struct pgd_quiz_source *source, size_t size, struct pgd_quiz *quiz,
                                     uint64_t *longest, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    forget_tokens(quiz);
    *longest = 0;
    for (uint32_t i = 0; i < quiz->item_count && status == PAGODA_OK; i++) {
        status = fill_item(source, size, &quiz->items[i], error);
        *longest = pgd_max_u64(*longest, quiz->items[i].count);
    }
    return status;
}

enum pagoda_status pgd_quiz_build(const struct pgd_quiz_source *source, struct pgd_quiz *quiz, size_t *size,
                                  struct pagoda_error *error)
{
    uint64_t target = source->wanted->tokens; /* of the first item; others may be a little longer */
    uint64_t longest = 0;
    enum pagoda_status status = PAGODA_OK;
    do {
        target -= longest == 0 ? 0 : pgd_min_u64(target, longest - source->wanted->tokens);
        status = find_size(source, &quiz->items[0], target, size, error);
        if (status == PAGODA_OK) {
            status = fill_items(source, *size, quiz, &longest, error);
        }
    } while (status == PAGODA_OK && longest > source->wanted->tokens);
    if (status == PAGODA_OK) {
        find_shared(source, quiz);
        status = check_filler(source, quiz, *size, error);
    }
    return status;
}

struct pgd_recall_question pgd_quiz_question(const struct pgd_quiz *quiz, uint32_t index)
{
    const struct pgd_quiz_item *item = &quiz->items[index];
    struct pgd_recall_question question = {
        .tokens = item->tokens,
        .count = item->count,
        .shared = quiz->shared,
        .opening = item->opening_tokens,
        .option_count = PGD_RECALL_OPTIONS_MAX,
        .answer = item->options[0],
        .fact_first = item->fact_first,
        .fact_count = item->fact_count,
    };
    for (uint32_t i = 0; i < PGD_RECALL_OPTIONS_MAX; i++) {
        question.options[i] = (struct pgd_recall_option) {item->option_tokens[i], item->option_counts[i]};
    }
    return question;
}
