/* engine/chat.c - see chat.h.
 *
 * What is fed in a turn. The whole conversation is formatted, the new message in it, and what is fed is the part
 * behind the text that the cache holds already: behind the previous reply as the model wrote it. So the mark that
 * ends the reply, which the model picked but did not read (or never picked, when the reply was cut off), is fed at
 * the start of the next turn, exactly once, in the way the template writes it.
 *
 * Where a message stands in the formatted text is found by formatting twice, with "a" and with "b" in its place:
 * searching for it would find the wrong place for a message such as "user" or "<|im_end|>".
 *
 * Nobody but the template may write control tokens. A message that holds text which reads as one is split into
 * tokens apart from the text around it, as plain text.
 */
#include "engine/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/utf8.h"
#include "os/os.h"

#define LEAST_ROOM 16u /* tokens that must fit beside a system prompt */

struct turn {
    uint64_t first;
    uint64_t count;
    uint64_t reply_first; /* 0: there is no reply */
    char *user;
    char *reply;
    size_t reply_bytes;
};

struct pgd_chat {
    struct pgd_bridge *bridge;
    char *system; /* NULL: none was given */
    bool pin_system;
    bool system_is_read;
    bool is_cut; /* the last turn ends inside the user's message: reading it was stopped and could not be undone */
    int32_t *system_tokens;
    size_t system_count;
    struct turn *turns;
    uint32_t turn_count;
    uint32_t turn_capacity;
};

static const struct pgd_model *model_of(const struct pgd_chat *chat)
{
    return pgd_bridge_model(chat->bridge);
}

static uint64_t position_of(const struct pgd_chat *chat)
{
    return pagoda_cache_position(pgd_bridge_cache(chat->bridge));
}

static enum pagoda_status fail_memory(struct pagoda_error *error)
{
    return pgd_fail(error, PAGODA_NOMEM, "no memory for the conversation");
}

/* A copy that is valid UTF-8, so that it can be shown and saved anywhere; NULL without memory. */
static char *copy_text(const char *text)
{
    const size_t bytes = strlen(text);
    char *copy = malloc(PGD_UTF8_ROOM(bytes) + 1);
    if (copy != NULL) {
        struct pgd_utf8_stream stream = {.pending_count = 0};
        size_t used = pgd_utf8_push(&stream, text, bytes, copy);
        used += pgd_utf8_flush(&stream, copy + used);
        copy[used] = '\0';
    }
    return copy;
}

/* ---- the conversation as text ---- */

/* Messages of the system prompt and of `turns` turns, the last of which has no reply yet when `open`. */
struct script {
    struct pgd_message *messages;
    size_t count;
    bool open;
};

static enum pagoda_status write_script(const struct pgd_chat *chat, uint32_t turns, bool open, struct script *script,
                                       struct pagoda_error *error)
{
    script->messages = calloc(2 + 2 * (size_t) turns, sizeof(*script->messages));
    script->count = 0;
    script->open = open;
    if (script->messages == NULL) {
        return fail_memory(error);
    }
    if (chat->system != NULL) {
        script->messages[script->count++] = (struct pgd_message) {"system", chat->system};
    }
    for (uint32_t i = 0; i < turns; i++) {
        script->messages[script->count++] = (struct pgd_message) {"user", chat->turns[i].user};
        if (i + 1 < turns || !open) {
            const char *reply = chat->turns[i].reply;
            script->messages[script->count++] = (struct pgd_message) {"assistant", reply != NULL ? reply : ""};
        }
    }
    return PAGODA_OK;
}

static enum pagoda_status format(const struct pgd_chat *chat, const struct script *script, char **text,
                                 struct pagoda_error *error)
{
    return pgd_prompt_format(model_of(chat), script->messages, script->count, script->open, text, error);
}

/* Formats with `text` in place of message `index`. */
static enum pagoda_status format_probe(const struct pgd_chat *chat, const struct script *script, size_t index,
                                       const char *text, char **formatted, struct pagoda_error *error)
{
    const char *kept = script->messages[index].text;
    script->messages[index].text = text;
    enum pagoda_status status = format(chat, script, formatted, error);
    script->messages[index].text = kept;
    return status;
}

/* Where a message stands in the formatted text: bytes in front of it, and behind it. */
struct place {
    size_t before;
    size_t after;
    bool found; /* false: the template does not write this message */
};

static enum pagoda_status find_place(const struct pgd_chat *chat, const struct script *script, size_t index,
                                     struct place *place, struct pagoda_error *error)
{
    char *a = NULL;
    char *b = NULL;
    enum pagoda_status status = format_probe(chat, script, index, "a", &a, error);
    if (status == PAGODA_OK) {
        status = format_probe(chat, script, index, "b", &b, error);
    }
    if (status == PAGODA_OK) {
        size_t same = 0;
        while (a[same] != '\0' && a[same] == b[same]) {
            same++;
        }
        place->found = a[same] != '\0';
        place->before = same;
        place->after = place->found ? strlen(a) - same - 1 : 0;
    }
    free(a);
    free(b);
    return status;
}

/* ---- text to tokens ---- */

struct tokens {
    int32_t *ids;
    size_t count;
};

/* A part of a text that somebody else wrote. */
struct foreign {
    size_t begin;
    size_t end;
};

/* Appends the tokens of text[begin, end). `start` marks the start of the sequence, where BOS belongs. */
static enum pagoda_status append_tokens(const struct pgd_chat *chat, const char *text, struct foreign part, bool start,
                                        bool parse_special, struct tokens *tokens, struct pagoda_error *error)
{
    int32_t *more = NULL;
    size_t count = 0;
    if (part.begin == part.end && !start) {
        return PAGODA_OK;
    }
    enum pagoda_status status = pgd_model_tokenize(model_of(chat), text + part.begin, part.end - part.begin, start,
                                                   parse_special, &more, &count, error);
    if (status != PAGODA_OK) {
        return status;
    }
    int32_t *joined = realloc(tokens->ids, (tokens->count + count + 1) * sizeof(*joined));
    if (joined == NULL) {
        free(more);
        return fail_memory(error);
    }
    memcpy(joined + tokens->count, more, count * sizeof(*joined));
    free(more);
    tokens->ids = joined;
    tokens->count += count;
    return PAGODA_OK;
}

/* Whether a part reads the same with control tokens recognised as without. */
static enum pagoda_status is_harmless(const struct pgd_chat *chat, const char *text, struct foreign part,
                                      bool *harmless, struct pagoda_error *error)
{
    struct tokens plain = {.count = 0};
    struct tokens parsed = {.count = 0};
    enum pagoda_status status = append_tokens(chat, text, part, false, false, &plain, error);
    if (status == PAGODA_OK) {
        status = append_tokens(chat, text, part, false, true, &parsed, error);
    }
    *harmless = status == PAGODA_OK && plain.count == parsed.count &&
                (plain.count == 0 || memcmp(plain.ids, parsed.ids, plain.count * sizeof(*plain.ids)) == 0);
    free(plain.ids);
    free(parsed.ids);
    return status;
}

/* Splits text[begin, end), of which the parts in `foreign`, in order, were not written by the template. Harmless
 * parts are split together with what is around them, as the model has seen it in training. */
static enum pagoda_status split(const struct pgd_chat *chat, const char *text, struct foreign range, bool start,
                                const struct foreign *foreign, size_t foreign_count, struct tokens *tokens,
                                struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    size_t at = range.begin;
    for (size_t i = 0; i < foreign_count && status == PAGODA_OK; i++) {
        bool harmless = true;
        status = is_harmless(chat, text, foreign[i], &harmless, error);
        if (status != PAGODA_OK || harmless) {
            continue;
        }
        status = append_tokens(chat, text, (struct foreign) {at, foreign[i].begin}, start, true, tokens, error);
        if (status == PAGODA_OK) {
            status = append_tokens(chat, text, foreign[i], false, false, tokens, error);
        }
        start = false;
        at = foreign[i].end;
    }
    if (status == PAGODA_OK) {
        status = append_tokens(chat, text, (struct foreign) {at, range.end}, start, true, tokens, error);
    }
    return status;
}

/* ---- the system prompt ---- */

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* How much of a conversation's text comes before its first message, the system message, if there is one, within. For
 * most templates this is the system message by itself; some write it into the user's first message, and then it
 * ends where the user's text begins. `opening` is a script with the system message, if any, and a user's "a". */
static enum pagoda_status find_system_end(const struct pgd_chat *chat, const struct script *opening, const char *text,
                                          size_t *end, struct pagoda_error *error)
{
    const bool given = chat->system != NULL;
    const struct script alone = {.messages = opening->messages, .count = opening->count - 1, .open = false};
    struct place own = {.found = !given};
    struct place user = {.found = false};
    char *prefix = NULL;
    enum pagoda_status status = given ? find_place(chat, &alone, 0, &own, error) : PAGODA_OK;
    if (status == PAGODA_OK) {
        status = format(chat, &alone, &prefix, error);
    }
    if (status == PAGODA_OK) {
        status = find_place(chat, opening, opening->count - 1, &user, error);
    }
    if (status == PAGODA_OK) {
        const bool apart = own.found && starts_with(text, prefix);
        *end = apart ? strlen(prefix) : given ? user.before : 0;
    }
    free(prefix);
    return status;
}

static enum pagoda_status split_opening(struct pgd_chat *chat, const struct script *opening, struct tokens *tokens,
                                        struct pagoda_error *error)
{
    char *text = NULL;
    size_t end = 0;
    struct place own = {.found = true};
    enum pagoda_status status = format(chat, opening, &text, error);
    if (status == PAGODA_OK && chat->system != NULL) {
        status = find_place(chat, opening, 0, &own, error);
    }
    if (status == PAGODA_OK && !own.found) {
        status = pgd_fail(error, PAGODA_UNSUPPORTED,
                          "the model's chat template has no place for a system prompt: leave "
                          "--system away");
    }
    if (status == PAGODA_OK) {
        status = find_system_end(chat, opening, text, &end, error);
    }
    if (status == PAGODA_OK) {
        const struct foreign system = {own.before, chat->system != NULL ? strlen(text) - own.after : 0};
        status =
            split(chat, text, (struct foreign) {0, end}, true, &system, chat->system != NULL ? 1 : 0, tokens, error);
    }
    free(text);
    return status;
}

/* The tokens that every conversation here begins with. */
static enum pagoda_status prepare_system(struct pgd_chat *chat, struct pagoda_error *error)
{
    struct pgd_message messages[2];
    struct script opening = {.messages = messages, .count = 0, .open = true};
    if (chat->system != NULL) {
        messages[opening.count++] = (struct pgd_message) {"system", chat->system};
    }
    messages[opening.count++] = (struct pgd_message) {"user", "a"};
    struct tokens tokens = {.count = 0};
    enum pagoda_status status = split_opening(chat, &opening, &tokens, error);
    if (status != PAGODA_OK) {
        free(tokens.ids);
        return status;
    }
    chat->system_tokens = tokens.ids;
    chat->system_count = tokens.count;
    return PAGODA_OK;
}

static enum pagoda_status fail_system(const struct pgd_chat *chat, struct pagoda_error *error)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(chat->bridge), &memory);
    return pgd_fail(error, PAGODA_OVER_BUDGET,
                    "the system prompt has %zu tokens but %llu fit (--kv %.4g MiB, or -c), and some of them "
                    "must stay free for the conversation: raise the limit, or shorten it",
                    chat->system_count, (unsigned long long) memory.tokens_capacity,
                    (double) memory.budget_bytes / 1048576.0);
}

/* Reads the system prompt into an empty cache. */
static enum pagoda_status read_system(struct pgd_chat *chat, const struct pgd_feed_options *feed,
                                      struct pagoda_error *error)
{
    struct pagoda_cache *cache = pgd_bridge_cache(chat->bridge);
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    if (chat->system_count >= memory.tokens_capacity) {
        return fail_system(chat, error);
    }
    enum pagoda_status status = pagoda_cache_reset(cache, error);
    if (status == PAGODA_OK && chat->system_count > 0) {
        status = pgd_generate_feed(chat->bridge, chat->system_tokens, chat->system_count, feed, error);
    }
    if (status == PAGODA_OK && chat->system_count > 0 && chat->pin_system) {
        status = pagoda_cache_pin(cache, 0, chat->system_count, error);
    }
    /* Pins may also leave too little memory where flash has room for more tokens: not even for one more page. */
    if (status == PAGODA_FULL || (status == PAGODA_OK && pagoda_cache_room(cache, LEAST_ROOM) < LEAST_ROOM)) {
        return fail_system(chat, error);
    }
    chat->system_is_read = status == PAGODA_OK;
    return status;
}

/* ---- opening and closing ---- */

enum pagoda_status pgd_chat_open(struct pgd_bridge *bridge, const struct pgd_chat_options *options,
                                 const struct pgd_feed_options *feed, struct pgd_chat **out, struct pagoda_error *error)
{
    struct pgd_chat *chat = calloc(1, sizeof(*chat));
    if (chat == NULL) {
        return fail_memory(error);
    }
    chat->bridge = bridge;
    chat->pin_system = !options->no_pin;
    enum pagoda_status status = PAGODA_OK;
    if (options->system != NULL && (chat->system = copy_text(options->system)) == NULL) {
        status = fail_memory(error);
    }
    if (status == PAGODA_OK) {
        status = prepare_system(chat, error);
    }
    if (status == PAGODA_OK) {
        status = read_system(chat, feed, error);
    }
    if (status != PAGODA_OK) {
        pgd_chat_close(chat);
        return status;
    }
    *out = chat;
    return PAGODA_OK;
}

static void forget_last_turn(struct pgd_chat *chat)
{
    struct turn *turn = &chat->turns[--chat->turn_count];
    free(turn->user);
    free(turn->reply);
    *turn = (struct turn) {.first = 0};
}

static void forget_turns(struct pgd_chat *chat)
{
    while (chat->turn_count > 0) {
        forget_last_turn(chat);
    }
    chat->is_cut = false;
}

void pgd_chat_close(struct pgd_chat *chat)
{
    if (chat == NULL) {
        return;
    }
    forget_turns(chat);
    free(chat->turns);
    free(chat->system_tokens);
    free(chat->system);
    free(chat);
}

enum pagoda_status pgd_chat_reset(struct pgd_chat *chat, const struct pgd_feed_options *feed,
                                  struct pagoda_error *error)
{
    forget_turns(chat);
    chat->system_is_read = false; /* should reading it fail now, the next turn does it */
    return read_system(chat, feed, error);
}

/* ---- a turn ---- */

static enum pagoda_status add_turn(struct pgd_chat *chat, const char *text, struct pagoda_error *error)
{
    if (chat->turn_count == chat->turn_capacity) {
        const uint32_t capacity = chat->turn_capacity == 0 ? 16 : 2 * chat->turn_capacity;
        struct turn *turns = realloc(chat->turns, capacity * sizeof(*turns));
        if (turns == NULL) {
            return fail_memory(error);
        }
        chat->turns = turns;
        chat->turn_capacity = capacity;
    }
    char *user = copy_text(text);
    if (user == NULL) {
        return fail_memory(error);
    }
    chat->turns[chat->turn_count++] = (struct turn) {.first = position_of(chat), .user = user};
    return PAGODA_OK;
}

/* Where the part of the formatted conversation begins that the cache does not hold yet. */
static enum pagoda_status find_new_part(const struct pgd_chat *chat, const struct script *script, const char *text,
                                        size_t *begin, struct pagoda_error *error)
{
    /* Behind the reply of the turn before: ..., user, reply, user. When that turn was cut off inside the user's
     * message, behind that: what it lacks is made up for. */
    const size_t index = script->count - (chat->is_cut ? 3 : 2);
    struct place place = {.found = false};
    enum pagoda_status status = find_place(chat, script, index, &place, error);
    if (status == PAGODA_OK && !place.found) {
        status = pgd_fail(error, PAGODA_UNSUPPORTED,
                          "the model's chat template does not write earlier replies, so that no second "
                          "turn is possible");
    }
    *begin = strlen(text) - place.after;
    return status;
}

/* The first turn is split together with the system prompt, since some vocabularies treat the start of a text in a way
 * of their own, and what of it has been read is taken off; only if it does not come out the same is it split alone. */
static enum pagoda_status split_first_turn(const struct pgd_chat *chat, const char *text, const struct script *script,
                                           struct foreign user, struct tokens *tokens, struct pagoda_error *error)
{
    struct foreign foreign[2] = {user, user};
    size_t foreign_count = 1;
    size_t end = 0;
    enum pagoda_status status = PAGODA_OK;
    if (chat->system != NULL) {
        struct place own = {.found = false};
        status = find_place(chat, script, 0, &own, error);
        foreign[0] = (struct foreign) {own.before, strlen(text) - own.after};
        foreign_count = 2;
    }
    struct tokens whole = {.count = 0};
    const size_t length = strlen(text);
    if (status == PAGODA_OK) {
        status = split(chat, text, (struct foreign) {0, length}, true, foreign, foreign_count, &whole, error);
    }
    const size_t read = chat->system_count;
    if (status == PAGODA_OK && whole.count > read &&
        (read == 0 || memcmp(whole.ids, chat->system_tokens, read * sizeof(*whole.ids)) == 0)) {
        tokens->count = whole.count - read;
        tokens->ids = whole.ids;
        memmove(tokens->ids, tokens->ids + read, tokens->count * sizeof(*tokens->ids));
        return PAGODA_OK;
    }
    free(whole.ids);
    if (status == PAGODA_OK) {
        status = find_system_end(chat, script, text, &end, error);
    }
    return status != PAGODA_OK ? status
                               : split(chat, text, (struct foreign) {end, length}, false, &user, 1, tokens, error);
}

/* What has to be read for the turn that was just added. */
static enum pagoda_status split_turn(const struct pgd_chat *chat, struct tokens *tokens, struct pagoda_error *error)
{
    struct script script = {.count = 0};
    struct place place = {.found = false};
    char *text = NULL;
    size_t begin = 0;
    enum pagoda_status status = write_script(chat, chat->turn_count, true, &script, error);
    if (status == PAGODA_OK) {
        status = format(chat, &script, &text, error);
    }
    if (status == PAGODA_OK) {
        status = find_place(chat, &script, script.count - 1, &place, error);
    }
    if (status == PAGODA_OK && chat->turn_count > 1) {
        status = find_new_part(chat, &script, text, &begin, error);
    }
    if (status == PAGODA_OK) {
        const struct foreign user = {place.before, strlen(text) - place.after};
        status = chat->turn_count == 1
                     ? split_first_turn(chat, text, &script, user, tokens, error)
                     : split(chat, text, (struct foreign) {begin, strlen(text)}, false, &user, 1, tokens, error);
    }
    free(text);
    free(script.messages);
    return status;
}

/* Takes the last turn back after `status`, and returns it. Where a window layer, or an eviction, has let go of what
 * came before the turn, it cannot be taken back: then what was read of it stays, and is called a turn. */
static enum pagoda_status take_back(struct pgd_chat *chat, bool was_cut, enum pagoda_status status,
                                    const struct pagoda_error *why, struct pagoda_error *error)
{
    struct turn *turn = &chat->turns[chat->turn_count - 1];
    struct pagoda_cache *cache = pgd_bridge_cache(chat->bridge);
    const uint64_t read = position_of(chat) - turn->first;
    if (read == 0 || pagoda_cache_rollback(cache, read, NULL) == PAGODA_OK) {
        forget_last_turn(chat);
        chat->is_cut = was_cut;
        return pgd_fail(error, status, "%s", why->message);
    }
    turn->count = read;
    return pgd_fail(error, status, "%s; %llu tokens of the message had been read and stay in the conversation",
                    why->message, (unsigned long long) read);
}

/* Keeps the reply's text while it goes on to whoever wants it. */
struct listener {
    const struct pgd_reply_options *options;
    struct turn *turn;
    size_t room;
    bool out_of_memory;
};

static bool on_text(void *user, const char *bytes, size_t count)
{
    struct listener *listener = user;
    struct turn *turn = listener->turn;
    if (turn->reply_bytes + count + 1 > listener->room) {
        const size_t room = 2 * (turn->reply_bytes + count + 1);
        char *text = realloc(turn->reply, room);
        if (text == NULL) {
            listener->out_of_memory = true;
            return false;
        }
        turn->reply = text;
        listener->room = room;
    }
    memcpy(turn->reply + turn->reply_bytes, bytes, count);
    turn->reply_bytes += count;
    turn->reply[turn->reply_bytes] = '\0';
    return listener->options->text == NULL || listener->options->text(listener->options->user, bytes, count);
}

static enum pagoda_status generate_reply(struct pgd_chat *chat, struct pgd_sampler *sampler,
                                         const struct pgd_reply_options *options, struct pgd_reply *reply,
                                         struct pagoda_error *error)
{
    struct turn *turn = &chat->turns[chat->turn_count - 1];
    struct listener listener = {.options = options, .turn = turn};
    if (!on_text(&listener, "", 0) && listener.out_of_memory) {
        return fail_memory(error);
    }
    struct pgd_reply_options own = *options;
    own.text = on_text;
    own.user = &listener;
    enum pagoda_status status = pgd_generate_reply(chat->bridge, sampler, &own, reply, error);
    return status == PAGODA_OK && listener.out_of_memory ? fail_memory(error) : status;
}

/* Reads the turn that was just added, and replies. */
static enum pagoda_status run_turn(struct pgd_chat *chat, struct pgd_sampler *sampler,
                                   const struct pgd_feed_options *feed, const struct pgd_reply_options *options,
                                   struct pgd_turn *result, struct pagoda_error *error)
{
    struct tokens tokens = {.count = 0};
    enum pagoda_status status = split_turn(chat, &tokens, error);
    if (status == PAGODA_OK) {
        const double start = pgd_os_seconds();
        status = pgd_generate_feed(chat->bridge, tokens.ids, tokens.count, feed, error);
        result->prompt_tokens = tokens.count;
        result->prompt_seconds = pgd_os_seconds() - start;
    }
    free(tokens.ids);
    if (status != PAGODA_OK) {
        chat->is_cut = true;
        return status;
    }
    chat->is_cut = false;
    chat->turns[chat->turn_count - 1].reply_first = position_of(chat);
    return generate_reply(chat, sampler, options, &result->reply, error);
}

enum pagoda_status pgd_chat_say(struct pgd_chat *chat, const char *text, struct pgd_sampler *sampler,
                                const struct pgd_feed_options *feed, const struct pgd_reply_options *options,
                                struct pgd_turn *turn, struct pagoda_error *error)
{
    enum pagoda_status status = chat->system_is_read ? PAGODA_OK : read_system(chat, feed, error);
    if (status == PAGODA_OK) {
        status = add_turn(chat, text, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_turn result = {.prompt_tokens = 0};
    struct pagoda_error why = {.status = PAGODA_OK};
    const bool was_cut = chat->is_cut;
    status = run_turn(chat, sampler, feed, options, &result, &why);
    if (status != PAGODA_OK) {
        return take_back(chat, was_cut, status, &why, error);
    }
    struct turn *last = &chat->turns[chat->turn_count - 1];
    last->count = position_of(chat) - last->first;
    *turn = result;
    return PAGODA_OK;
}

/* ---- owners ---- */

uint32_t pgd_chat_turns(const struct pgd_chat *chat)
{
    return chat->turn_count;
}

bool pgd_chat_owner_range(const struct pgd_chat *chat, uint32_t owner, uint64_t *first, uint64_t *count)
{
    if (owner > chat->turn_count || (owner == 0 && chat->system_count == 0)) {
        return false;
    }
    *first = owner == 0 ? 0 : chat->turns[owner - 1].first;
    *count = owner == 0 ? chat->system_count : chat->turns[owner - 1].count;
    return true;
}

enum pagoda_status pgd_chat_pin(struct pgd_chat *chat, uint32_t turn, bool pin, struct pagoda_error *error)
{
    struct pagoda_cache *cache = pgd_bridge_cache(chat->bridge);
    uint64_t first = 0;
    uint64_t count = 0;
    if (!pgd_chat_owner_range(chat, turn, &first, &count)) {
        return turn == 0 ? pgd_fail(error, PAGODA_RANGE, "there is no system prompt")
                         : pgd_fail(error, PAGODA_RANGE, "there is no turn %u: the conversation has %u", turn,
                                    chat->turn_count);
    }
    return pin ? pagoda_cache_pin(cache, first, count, error) : pagoda_cache_unpin(cache, first, count, error);
}

bool pgd_chat_reply_first(const struct pgd_chat *chat, uint32_t turn, uint64_t *first)
{
    if (turn == 0 || turn > chat->turn_count || chat->turns[turn - 1].reply_first == 0) {
        return false;
    }
    *first = chat->turns[turn - 1].reply_first;
    return true;
}
