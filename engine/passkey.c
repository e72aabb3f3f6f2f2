/* engine/passkey.c - see passkey.h. */
#include "engine/passkey.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/prompt.h"
#include "engine/rng.h"
#include "engine/score.h"
#include "engine/utf8.h"

#define NUMBER_BYTES 8u
#define SENTENCE_BYTES 96u
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

struct insertion {
    size_t offset; /* in the filler */
    char sentence[SENTENCE_BYTES];
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\n';
}

/* The end of the sentence or paragraph at `offset`, or of the word when that is far; at most the end of the text. */
static size_t next_boundary(const char *text, size_t bytes, size_t offset)
{
    static const size_t far = 600;
    size_t word_end = bytes;
    for (size_t i = offset; i < bytes && i < offset + far; i++) {
        const char before = i == 0 ? '\n' : text[i - 1];
        const bool ends_sentence = before == '.' || before == '!' || before == '?';
        if (i == 0 || (ends_sentence && is_blank(text[i])) || (before == '\n' && text[i] == '\n')) {
            return i;
        }
        word_end = word_end == bytes && is_blank(text[i]) ? i : word_end;
    }
    return word_end;
}

static int compare_insertions(const void *a, const void *b)
{
    const struct insertion *x = a;
    const struct insertion *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The key at its depth, the other numbers evenly spread; in order. */
static void place(const struct pgd_passkey_wanted *wanted, size_t filler_bytes, char (*numbers)[NUMBER_BYTES],
                  struct insertion *insertions)
{
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        const double depth = i == 0 ? wanted->depth : ((double) i - 0.5) / (PGD_PASSKEY_CHOICES - 1);
        insertions[i].offset = next_boundary(wanted->filler, filler_bytes, (size_t) (depth * (double) filler_bytes));
        snprintf(insertions[i].sentence, SENTENCE_BYTES,
                 i == 0 ? " The pass key is the number %s. Remember it: %s is the pass key. "
                        : " Invoice number %s was paid. ",
                 numbers[i], numbers[i]);
    }
    qsort(insertions, PGD_PASSKEY_CHOICES, sizeof(*insertions), compare_insertions);
}

static char *add(char *at, const char *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

/* Intro, filler with its insertions, and `end`; malloc'ed, NULL without memory. */
static char *write_text(const char *filler, size_t filler_bytes, const struct insertion *insertions, const char *end)
{
    char *text = malloc(sizeof(intro) + filler_bytes + PGD_PASSKEY_CHOICES * SENTENCE_BYTES + strlen(end) + 1);
    if (text == NULL) {
        return NULL;
    }
    char *at = add(text, intro, sizeof(intro) - 1);
    size_t used = 0;
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        at = add(at, filler + used, insertions[i].offset - used);
        at = add(at, insertions[i].sentence, strlen(insertions[i].sentence));
        used = insertions[i].offset;
    }
    at = add(at, filler + used, filler_bytes - used);
    at = add(at, end, strlen(end) + 1);
    return text;
}

/* The whole prompt, up to where the answer starts; *out is malloc'ed. */
static enum pagoda_status write_prompt(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted,
                                       size_t filler_bytes, char (*numbers)[NUMBER_BYTES], char **out,
                                       struct pagoda_error *error)
{
    struct insertion insertions[PGD_PASSKEY_CHOICES];
    const bool chats = pgd_prompt_has_template(model);
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

static size_t bytes_of(const struct pgd_model *model, const int32_t *tokens, size_t count)
{
    char piece[PGD_PIECE_BYTES_MAX];
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += pgd_model_piece(model, tokens[i], true, piece);
    }
    return bytes;
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
    size_t end = (size_t) pgd_min_u64(bytes_of(model, tokens, count), most);
    free(tokens);
    while (end > 0 && end < wanted->filler_bytes && !is_blank(wanted->filler[end])) {
        end--;
    }
    *bytes = end;
    return PAGODA_OK;
}

/* Where in the tokens the sentence with the key is. What a vocabulary adds, it adds at the start. */
static void find_key(const struct pgd_model *model, const char *prompt, struct pgd_passkey *passkey)
{
    char sentence[48];
    char piece[PGD_PIECE_BYTES_MAX];
    snprintf(sentence, sizeof(sentence), "%s %s.", opening, passkey->key);
    const size_t length = strlen(prompt);
    const size_t added = (size_t) pgd_max_u64(bytes_of(model, passkey->tokens, passkey->count), length) - length;
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

struct held {
    const struct pgd_passkey *passkey;
    uint64_t count;
};

static bool count_held(void *user, const struct pagoda_span *span)
{
    struct held *held = user;
    const uint64_t first = pgd_max_u64(span->first, held->passkey->key_first);
    const uint64_t end = pgd_min_u64(span->first + span->count, held->passkey->key_first + held->passkey->key_count);
    if (span->state != PAGODA_PAGE_ABSENT && end > first) {
        held->count += end - first;
    }
    return true;
}

/* NLL of one of the numbers after the prompt, whose last row of logits is `row`. The sequence is as before. */
static enum pagoda_status score_choice(struct pgd_bridge *bridge, const struct pgd_score_row *row,
                                       const int32_t *tokens, uint32_t count, double *nll, struct pagoda_error *error)
{
    *nll = pgd_score_nll(row, tokens[0]);
    if (count == 1) {
        return PAGODA_OK;
    }
    enum pagoda_status status = pgd_bridge_decode(bridge, tokens, count - 1, count - 1, error);
    if (status != PAGODA_OK) {
        return status;
    }
    for (uint32_t i = 0; i + 1 < count; i++) {
        const struct pgd_score_row next = pgd_score_row(pgd_bridge_logits(bridge, i), row->count);
        *nll += pgd_score_nll(&next, tokens[i + 1]);
    }
    return pagoda_cache_rollback(pgd_bridge_cache(bridge), count - 1, error);
}

static enum pagoda_status choose(struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                 const struct pgd_score_row *row, struct pgd_passkey_answer *answer,
                                 struct pagoda_error *error)
{
    answer->chosen = true;
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        double nll = 0;
        enum pagoda_status status = score_choice(bridge, row, passkey->choices[i], passkey->choice_tokens, &nll, error);
        if (status != PAGODA_OK) {
            return status;
        }
        if (i == 0) {
            answer->nll = nll;
        } else {
            answer->chosen = answer->chosen && nll > answer->nll;
        }
    }
    return PAGODA_OK;
}

/* Whether a reply says the key and no longer number. */
static bool says_key(const char *reply, const char *key)
{
    const char *at = reply + strspn(reply, " \n\"'*:");
    const size_t length = strlen(key);
    return strncmp(at, key, length) == 0 && !isdigit((unsigned char) at[length]);
}

/* What the model writes by itself. Last of all, since it stays in the sequence. */
static enum pagoda_status write_reply(struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                      const struct pgd_score_row *row, struct pgd_passkey_answer *answer,
                                      struct pagoda_error *error)
{
    const struct pgd_model *model = pgd_bridge_model(bridge);
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = 0;
    int32_t token = pgd_score_top(row->logits, row->count);
    for (uint32_t i = 0; i < passkey->choice_tokens + 2 && !pgd_model_is_end(model, token); i++) {
        char piece[PGD_PIECE_BYTES_MAX];
        char valid[PGD_UTF8_ROOM(PGD_PIECE_BYTES_MAX)];
        const size_t bytes = pgd_model_piece(model, token, false, piece);
        const size_t valid_bytes = pgd_utf8_push(&stream, piece, bytes, valid);
        if (used + valid_bytes >= sizeof(answer->reply)) {
            break;
        }
        memcpy(answer->reply + used, valid, valid_bytes);
        used += valid_bytes;
        enum pagoda_status status = pgd_bridge_decode(bridge, &token, 1, 1, error);
        if (status != PAGODA_OK) {
            return status;
        }
        token = pgd_score_top(pgd_bridge_logits(bridge, 0), row->count);
    }
    answer->reply[used] = '\0';
    answer->written = says_key(answer->reply, passkey->key);
    return PAGODA_OK;
}

/* The prompt has been read; `logits` are a copy of its last row. */
static enum pagoda_status answer_from(struct pgd_bridge *bridge, const struct pgd_passkey *passkey, const float *logits,
                                      struct pgd_passkey_answer *answer, struct pagoda_error *error)
{
    const struct pgd_score_row row = pgd_score_row(logits, pgd_model_get_info(pgd_bridge_model(bridge))->vocabulary);
    struct held held = {passkey, 0};
    pagoda_cache_account(pgd_bridge_cache(bridge), &answer->account);
    pagoda_cache_visit(pgd_bridge_cache(bridge), count_held, &held);
    answer->key_held = held.count;
    enum pagoda_status status = choose(bridge, passkey, &row, answer, error);
    if (status == PAGODA_OK) {
        status = write_reply(bridge, passkey, &row, answer, error);
    }
    return status;
}

enum pagoda_status pgd_passkey_ask(struct pgd_bridge *bridge, const struct pgd_passkey *passkey,
                                   const struct pgd_feed_options *feed, struct pgd_passkey_answer *answer,
                                   struct pagoda_error *error)
{
    const size_t row_bytes = sizeof(float) * pgd_model_get_info(pgd_bridge_model(bridge))->vocabulary;
    struct pgd_passkey_answer given = {.written = false};
    enum pagoda_status status = pagoda_cache_reset(pgd_bridge_cache(bridge), error);
    if (status == PAGODA_OK) {
        status = pgd_generate_feed(bridge, passkey->tokens, passkey->count, feed, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    float *logits = malloc(row_bytes);
    if (logits == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a row of %zu bytes of logits", row_bytes);
    }
    memcpy(logits, pgd_bridge_logits(bridge, 0), row_bytes);
    status = answer_from(bridge, passkey, logits, &given, error);
    free(logits);
    if (status == PAGODA_OK) {
        *answer = given;
    }
    return status;
}
