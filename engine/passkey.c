/* engine/passkey.c - see passkey.h. */
#include "engine/passkey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/filler.h"
#include "engine/prompt.h"
#include "engine/rng.h"

#define NUMBER_BYTES 8u
#define DRAWS_MAX 1000
#define FILLER_BYTES_PER_TOKEN 16u /* no real text has so many */

static const char intro[] = "A pass key is hidden in the text below. Find it and remember it.\n\n";
static const char question[] = "\n\nWhat is the pass key?";
static const char opening[] = "The pass key is the number";
static const char raw_question[] = "\n\nQuestion: What is the pass key?\nAnswer: ";

/* ---- the numbers ---- */

/* Draws ten different numbers that `model` splits into equally many tokens and that `filler` does not have. */
static enum pagoda_status draw_numbers(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                       struct pgd_passkey *passkey, char (*numbers)[NUMBER_BYTES],
                                       struct pagoda_error *error)
{
    struct pgd_rng rng = {wanted->seed};
    uint32_t found = 0;
    for (int draw = 0; draw < DRAWS_MAX && found < PGD_PASSKEY_CHOICES; draw++) {
        char answer[NUMBER_BYTES + 1];
        snprintf(numbers[found], NUMBER_BYTES, "%u", (unsigned) (10000 + pgd_rng_below(&rng, 90000)));
        snprintf(answer, sizeof(answer), " %s", numbers[found]);
        bool is_new = true;
        for (uint32_t i = 0; i < found; i++) {
            is_new = is_new && strcmp(numbers[i], numbers[found]) != 0;
        }
        int32_t *tokens = NULL;
        size_t count = 0;
        enum pagoda_status status =
            pgd_model_tokenize(model, answer, strlen(answer), false, false, &tokens, &count, error);
        if (status != PAGODA_OK) {
            return status;
        }
        if (is_new && count > 0 && count <= PGD_PASSKEY_ANSWER_TOKENS_MAX &&
            (found == 0 || count == passkey->choice_tokens)) {
            memcpy(passkey->choices[found], tokens, count * sizeof(*tokens));
            passkey->choice_tokens = (uint32_t) count;
            found++;
        }
        free(tokens);
    }
    if (found < PGD_PASSKEY_CHOICES) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "this model's vocabulary splits numbers too unevenly to compare");
    }
    snprintf(passkey->key, sizeof(passkey->key), "%s", numbers[0]);
    return PAGODA_OK;
}

/* ---- the text ---- */

/* The key at its depth, the other numbers evenly spread; in order. */
static void place(const struct pgd_passkey_wanted *wanted, size_t filler_bytes, char (*numbers)[NUMBER_BYTES],
                  struct pgd_filler_insertion *insertions)
{
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        insertions[i].depth = i == 0 ? wanted->depth : ((double) i - 0.5) / (PGD_PASSKEY_CHOICES - 1);
        snprintf(insertions[i].sentence, sizeof(insertions[i].sentence),
                 i == 0 ? " The pass key is the number %s. Remember it: %s is the pass key. "
                        : " Invoice number %s was paid. ",
                 numbers[i], numbers[i]);
    }
    pgd_filler_place(wanted->filler, filler_bytes, insertions, PGD_PASSKEY_CHOICES);
}

static char *add(char *at, const char *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

/* Intro, filler with its insertions, and `end`; malloc'ed, NULL without memory. */
static char *write_text(const char *filler, size_t filler_bytes, const struct pgd_filler_insertion *insertions,
                        const char *end)
{
    char *text =
        malloc(sizeof(intro) + filler_bytes + PGD_PASSKEY_CHOICES * PGD_FILLER_SENTENCE_BYTES + strlen(end) + 1);
    if (text == NULL) {
        return NULL;
    }
    char *at = add(text, intro, sizeof(intro) - 1);
    at = pgd_filler_write(at, filler, filler_bytes, insertions, PGD_PASSKEY_CHOICES);
    add(at, end, strlen(end) + 1);
    return text;
}

/* The whole prompt, up to where the answer starts; *out is malloc'ed. */
static enum pagoda_status write_prompt(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                       size_t filler_bytes, char (*numbers)[NUMBER_BYTES], char **out,
                                       struct pagoda_error *error)
{
    struct pgd_filler_insertion insertions[PGD_PASSKEY_CHOICES];
    const bool chats = !wanted->raw && pgd_prompt_has_template(model);
    place(wanted, filler_bytes, numbers, insertions);
    char *text = write_text(wanted->filler, filler_bytes, insertions, chats ? question : raw_question);
    char *formatted = text;
    enum pagoda_status status = PAGODA_OK;
    if (text != NULL && chats) {
        const struct pgd_message message = {.role = "user", .text = text};
        status = pgd_prompt_format(model, &message, 1, true, &formatted, error);
        free(text);
        if (status != PAGODA_OK) {
            return status;
        }
    }
    char *prompt = formatted == NULL ? NULL : realloc(formatted, strlen(formatted) + sizeof(opening));
    if (prompt == NULL) {
        free(formatted);
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a prompt of %zu bytes", filler_bytes);
    }
    add(prompt + strlen(prompt), opening, sizeof(opening));
    *out = prompt;
    return PAGODA_OK;
}

/* ---- its length ---- */

static enum pagoda_status tokenize_prompt(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                          size_t filler_bytes, char (*numbers)[NUMBER_BYTES], char **prompt,
                                          int32_t **tokens, size_t *count, struct pagoda_error *error)
{
    enum pagoda_status status = write_prompt(model, wanted, filler_bytes, numbers, prompt, error);
    if (status == PAGODA_OK) {
        status = pgd_model_tokenize(model, *prompt, strlen(*prompt), true, true, tokens, count, error);
        if (status != PAGODA_OK) {
            free(*prompt);
        }
    }
    return status;
}

/* How many bytes of the filler make `count` tokens, up to the end of a word. Errors: INVALID when it has fewer. */
static enum pagoda_status measure_filler(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                         size_t count, size_t *bytes, struct pagoda_error *error)
{
    const size_t most = (size_t) pgd_min_u64(wanted->filler_bytes, (uint64_t) count * FILLER_BYTES_PER_TOKEN);
    int32_t *tokens = NULL;
    size_t found = 0;
    enum pagoda_status status = pgd_model_tokenize(model, wanted->filler, most, false, false, &tokens, &found, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (found < count) {
        free(tokens);
        return pgd_fail(error, PAGODA_INVALID, "the text to hide a pass key in has %zu tokens, %zu are needed", found,
                        count);
    }
    const size_t end = (size_t) pgd_min_u64(pgd_model_text_bytes(model, tokens, count), most);
    free(tokens);
    *bytes = pgd_filler_cut(wanted->filler, wanted->filler_bytes, end);
    return PAGODA_OK;
}

/* Where in the tokens the sentence with the key is. What a vocabulary adds, it adds at the start. */
static void find_key(const struct pgd_model *model, const char *prompt, struct pgd_passkey *passkey)
{
    char sentence[48];
    char piece[PGD_PIECE_BYTES_MAX];
    snprintf(sentence, sizeof(sentence), "%s %s.", opening, passkey->key);
    const size_t length = strlen(prompt);
    const size_t added =
        (size_t) pgd_max_u64(pgd_model_text_bytes(model, passkey->tokens, passkey->count), length) - length;
    const char *at = strstr(prompt, sentence);
    const size_t first = (at == NULL ? 0 : (size_t) (at - prompt)) + added;
    const size_t end = first + strlen(sentence);
    size_t bytes = 0;
    passkey->key_count = 0;
    for (size_t i = 0; i < passkey->count && bytes < end; i++) {
        const size_t start = bytes;
        bytes += pgd_model_piece(model, passkey->tokens[i], true, piece);
        if (bytes > first && start < end) {
            passkey->key_first = passkey->key_count == 0 ? i : passkey->key_first;
            passkey->key_count++;
        }
    }
}

/* Tries lengths of filler until the prompt is not longer than wanted. */
static enum pagoda_status fit(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                              char (*numbers)[NUMBER_BYTES], struct pgd_passkey *passkey, struct pagoda_error *error)
{
    size_t filler_bytes = 0;
    size_t filler_tokens = 0;
    for (bool measured = false;; measured = true) {
        char *prompt = NULL;
        enum pagoda_status status =
            tokenize_prompt(model, wanted, filler_bytes, numbers, &prompt, &passkey->tokens, &passkey->count, error);
        if (status != PAGODA_OK) {
            return status;
        }
        if (measured && passkey->count <= wanted->tokens) {
            find_key(model, prompt, passkey);
            free(prompt);
            return PAGODA_OK;
        }
        free(prompt);
        free(passkey->tokens);
        passkey->tokens = NULL;
        const size_t without = measured ? passkey->count - filler_tokens : passkey->count;
        if (without + PGD_PASSKEY_CHOICES > wanted->tokens || (measured && filler_tokens == 0)) {
            return pgd_fail(error, PAGODA_INVALID, "a pass key needs a text of more than %zu tokens, not of %llu",
                            without + PGD_PASSKEY_CHOICES, (unsigned long long) wanted->tokens);
        }
        const size_t room = (size_t) wanted->tokens - without;
        filler_tokens = measured && room >= filler_tokens ? filler_tokens - 1 : room;
        status = measure_filler(model, wanted, filler_tokens, &filler_bytes, error);
        if (status != PAGODA_OK) {
            return status;
        }
    }
}

enum pagoda_status pgd_passkey_build(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                     struct pgd_passkey *passkey, struct pagoda_error *error)
{
    struct pgd_passkey built = {.tokens = NULL};
    char numbers[PGD_PASSKEY_CHOICES][NUMBER_BYTES];
    enum pagoda_status status = draw_numbers(model, wanted, &built, numbers, error);
    if (status == PAGODA_OK) {
        status = fit(model, wanted, numbers, &built, error);
    }
    if (status == PAGODA_OK) {
        *passkey = built;
    }
    return status;
}

void pgd_passkey_free(struct pgd_passkey *passkey)
{
    free(passkey->tokens);
    passkey->tokens = NULL;
}

/* ---- asking ---- */

/* How many of the last tokens the opening is. */
static size_t opening_tokens(const struct pgd_model *model, const struct pgd_passkey *passkey)
{
    char piece[PGD_PIECE_BYTES_MAX];
    size_t bytes = 0;
    size_t count = 0;
    while (bytes < sizeof(opening) - 1 && count + 1 < passkey->count) {
        count++;
        bytes += pgd_model_piece(model, passkey->tokens[passkey->count - count], true, piece);
    }
    return count;
}

enum pagoda_status pgd_passkey_ask(struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                   const struct pgd_feed_options *feed, struct pgd_recall_answer *answer,
                                   struct pagoda_error *error)
{
    struct pgd_recall_question asked = {
        .tokens = passkey->tokens,
        .count = passkey->count,
        .opening = opening_tokens(pgd_bridge_model(bridge), passkey),
        .option_count = PGD_PASSKEY_CHOICES,
        .answer = passkey->key,
        .fact_first = passkey->key_first,
        .fact_count = passkey->key_count,
    };
    asked.shared = asked.count - asked.opening;
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        asked.options[i] = (struct pgd_recall_option) {passkey->choices[i], passkey->choice_tokens};
    }
    enum pagoda_status status = pgd_recall_start(bridge, &asked, feed, error);
    return status == PAGODA_OK ? pgd_recall_ask(bridge, &asked, feed, answer, error) : status;
}
