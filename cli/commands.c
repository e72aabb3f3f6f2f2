/* cli/commands.c - see commands.h. */
#include "cli/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/machine.h"
#include "cli/map.h"
#include "cli/report.h"
#include "cli/suggest.h"
#include "cli/why.h"

struct command {
    const char *names; /* separated by blanks, the first is shown first */
    const char *arguments;
    const char *help;
    bool (*act)(struct pgd_repl *repl, const char *argument); /* false: the chat is to end */
};

static bool help(struct pgd_repl *repl, const char *argument);
static bool context(struct pgd_repl *repl, const char *argument);
static bool pin(struct pgd_repl *repl, const char *argument);
static bool unpin(struct pgd_repl *repl, const char *argument);
static bool policy(struct pgd_repl *repl, const char *argument);
static bool why(struct pgd_repl *repl, const char *argument);
static bool stats(struct pgd_repl *repl, const char *argument);
static bool reset(struct pgd_repl *repl, const char *argument);
static bool leave(struct pgd_repl *repl, const char *argument);

static const struct command commands[] = {
    {"/help /?", "", "this list", help},
    {"/context /map", "", "the page map: what is held, pinned, dropped, free", context},
    {"/pin", "[last|system|TURN]", "a turn that must not be dropped (the last one, if not said)", pin},
    {"/unpin", "[last|system|TURN]", "lets it go again", unpin},
    {"/policy", "[spill|stop|fifo|window|sink|random [N]]", "what happens when the budget is full; N: tokens that stay",
     policy},
    {"/why", "", "which passages the last reply drew on most", why},
    {"/stats /mem", "", "memory, tokens and speed", stats},
    {"/reset /clear", "", "forgets the conversation; the system prompt stays", reset},
    {"/exit /quit /bye", "", "leaves, as Ctrl-D does", leave},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

const char *const pgd_command_names[] = {
    "/help", "/context", "/map",   "/pin",  "/unpin", "/policy", "/why", "/stats",
    "/mem",  "/reset",   "/clear", "/exit", "/quit",  "/bye",    NULL,
};

/* ---- help ---- */

static bool help(struct pgd_repl *repl, const char *argument)
{
    (void) repl;
    (void) argument;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", commands[i].names, commands[i].arguments);
        printf("  %-35s %s\n", left, commands[i].help);
    }
    puts("\n  A message may have several lines: end a line with \\, or put \"\"\" around them.\n"
         "  Ctrl-C stops a reply, or clears the line; twice on an empty line leaves.");
    return true;
}

/* ---- the page map ---- */

struct span_list {
    struct pagoda_span *spans;
    size_t count;
    size_t capacity;
    bool failed;
};

static bool collect_span(void *user, const struct pagoda_span *span)
{
    struct span_list *list = user;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        struct pagoda_span *spans = realloc(list->spans, capacity * sizeof(*spans));
        if (spans == NULL) {
            list->failed = true;
            return false;
        }
        list->spans = spans;
        list->capacity = capacity;
    }
    list->spans[list->count++] = *span;
    return true;
}

/* Owners that have tokens, in order; NULL without memory. */
static struct pgd_map_owner *collect_owners(const struct pgd_chat *chat, size_t *count)
{
    const uint32_t turns = pgd_chat_turns(chat);
    struct pgd_map_owner *owners = calloc((size_t) turns + 1, sizeof(*owners));
    *count = 0;
    for (uint32_t number = 0; owners != NULL && number <= turns; number++) {
        uint64_t first = 0;
        uint64_t tokens = 0;
        if (pgd_chat_owner_range(chat, number, &first, &tokens) && tokens > 0) {
            owners[(*count)++] = (struct pgd_map_owner) {.number = number, .first = first};
        }
    }
    return owners;
}

static bool context(struct pgd_repl *repl, const char *argument)
{
    (void) argument;
    const struct pagoda_cache *cache = pgd_bridge_cache(repl->loaded.bridge);
    struct span_list list = {.spans = NULL};
    struct pgd_buffer text = {0};
    struct pgd_map map = {.page_tokens = (uint32_t) repl->options->page, .rule = pgd_repl_rule(repl)};
    struct pgd_map_owner *owners = collect_owners(repl->chat, &map.owner_count);
    pagoda_cache_visit(cache, collect_span, &list);
    pagoda_cache_account(cache, &map.account);
    pagoda_cache_memory(cache, &map.memory);
    map.owners = owners;
    map.spans = list.spans;
    map.span_count = list.count;
    const uint32_t rows = pgd_terminal_rows();
    const struct pgd_map_style style = {
        .columns = pgd_terminal_columns(),
        .rows = rows > 16 ? rows - 8 : 8,
        .unicode = repl->terminal->unicode,
        .palette = repl->terminal->out_palette,
    };
    if (owners != NULL && !list.failed) {
        pgd_map_draw(&map, &style, &text);
    }
    if (owners == NULL || list.failed || text.failed) {
        pgd_say_error("no memory for the page map");
    } else {
        fputs(pgd_buffer_text(&text), stdout);
        pgd_watch_print(&repl->watch, &map.memory);
    }
    free(owners);
    free(list.spans);
    pgd_buffer_free(&text);
    return true;
}

/* ---- pins ---- */

/* The turn that an argument names: "", "last", "system", "3", "turn 3". False: it names none; told. */
static bool find_turn(const struct pgd_repl *repl, const char *argument, uint32_t *turn)
{
    const uint32_t turns = pgd_chat_turns(repl->chat);
    if (strncmp(argument, "turn", 4) == 0) {
        argument += 4;
        argument += strspn(argument, " ");
    }
    if (strcmp(argument, "system") == 0) {
        *turn = 0;
        return true;
    }
    if (argument[0] == '\0' || strcmp(argument, "last") == 0) {
        *turn = turns;
    } else {
        char *end = NULL;
        errno = 0;
        const unsigned long number = strtoul(argument, &end, 10);
        if (*end != '\0' || argument[0] < '0' || argument[0] > '9') {
            pgd_say_error("'%.64s' is not a turn: say last, system or a number", argument);
            return false;
        }
        *turn = errno != 0 || number > turns ? turns + 1 : (uint32_t) number;
    }
    if (*turn == 0 || *turn > turns) {
        pgd_say_error("there is no such turn: the conversation has %" PRIu32, turns);
        return false;
    }
    return true;
}

static bool set_pin(struct pgd_repl *repl, const char *argument, bool wanted)
{
    uint32_t turn = 0;
    uint64_t first = 0;
    uint64_t count = 0;
    struct pagoda_error error;
    if (!find_turn(repl, argument, &turn)) {
        return true;
    }
    if (!pgd_chat_owner_range(repl->chat, turn, &first, &count) || count == 0) {
        pgd_say_error("there is nothing to pin: this conversation has no system prompt");
        return true;
    }
    if (pgd_chat_pin(repl->chat, turn, wanted, &error) != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return true;
    }
    struct pagoda_account account;
    pagoda_cache_account(pgd_bridge_cache(repl->loaded.bridge), &account);
    char name[32];
    if (turn == 0) {
        snprintf(name, sizeof(name), "the system prompt");
    } else {
        snprintf(name, sizeof(name), "turn %" PRIu32, turn);
    }
    printf("%s %s (%s tokens, as far as they are held); %s tokens are pinned in all, in whole pages\n",
           wanted ? "pinned" : "unpinned", name, pgd_count_words(count).text, pgd_count_words(account.pinned).text);
    return true;
}

static bool pin(struct pgd_repl *repl, const char *argument)
{
    return set_pin(repl, argument, true);
}

static bool unpin(struct pgd_repl *repl, const char *argument)
{
    return set_pin(repl, argument, false);
}

/* ---- the policy ---- */

static void print_policy(const struct pgd_repl *repl)
{
    if (repl->on_full == PAGODA_ON_FULL_STOP) {
        puts("when the budget is full: stop; nothing is ever dropped");
        return;
    }
    printf("when the budget is full: %s, policy %s",
           repl->on_full == PAGODA_ON_FULL_SPILL ? "spill; when flash is full too" : "evict",
           pgd_policy_words[repl->policy.kind]);
    if (repl->policy.kind == PAGODA_POLICY_SINK || repl->policy.kind == PAGODA_POLICY_RANDOM) {
        printf(", the first %" PRIu64 " tokens stay", repl->policy.sink_tokens == 0 ? 4 : repl->policy.sink_tokens);
    }
    if (repl->policy.window_tokens != 0 && repl->policy.kind != PAGODA_POLICY_FIFO &&
        repl->on_full == PAGODA_ON_FULL_EVICT) {
        printf(", only the latest %s stay", pgd_count_words(repl->policy.window_tokens).text);
    }
    putchar('\n');
}

/* "sink", "window 512", "stop", "evict", "spill". Who says how many tokens stay wants the others to go, and now. */
static enum pagoda_status parse_policy(const char *argument, enum pagoda_on_full *on_full, struct pagoda_policy *wanted,
                                       struct pagoda_error *error)
{
    const size_t length = strcspn(argument, " ");
    const char *rest = argument + length + strspn(argument + length, " ");
    char name[32];
    snprintf(name, sizeof(name), "%.*s", (int) length, argument);
    bool known = false;
    for (int i = 0; pgd_on_full_words[i] != NULL && !known; i++) {
        known = strcmp(pgd_on_full_words[i], name) == 0;
        *on_full = known ? (enum pagoda_on_full) i : *on_full;
    }
    const bool is_rule = known;
    for (int i = 0; pgd_policy_words[i] != NULL; i++) {
        if (strcmp(pgd_policy_words[i], name) == 0) {
            wanted->kind = (enum pagoda_policy_kind) i;
            wanted->window_tokens = 0;
            known = true;
        }
    }
    if (!known) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of fifo, window, sink, random, stop, evict, spill",
                        name);
    }
    if (!is_rule && (*on_full == PAGODA_ON_FULL_STOP || rest[0] != '\0')) {
        *on_full = PAGODA_ON_FULL_EVICT;
    }
    if (rest[0] == '\0') {
        return PAGODA_OK;
    }
    if (*on_full != PAGODA_ON_FULL_EVICT || wanted->kind == PAGODA_POLICY_FIFO ||
        wanted->kind == PAGODA_POLICY_RANDOM) {
        return pgd_fail(error, PAGODA_INVALID, "%s takes no number", name);
    }
    return pgd_size_parse(rest, &wanted->window_tokens, error);
}

static bool policy(struct pgd_repl *repl, const char *argument)
{
    enum pagoda_on_full on_full = repl->on_full;
    struct pagoda_policy wanted = repl->policy;
    struct pagoda_error error;
    enum pagoda_status status = PAGODA_OK;
    if (argument[0] != '\0') {
        status = parse_policy(argument, &on_full, &wanted, &error);
    }
    if (status == PAGODA_OK) {
        status = pagoda_cache_set_policy(pgd_bridge_cache(repl->loaded.bridge), on_full, &wanted, &error);
    }
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return true;
    }
    repl->on_full = on_full;
    repl->policy = wanted;
    print_policy(repl);
    return true;
}

/* ---- what a reply drew on ---- */

/* Who said what, from where on: a system prompt, and two for each turn. NULL without memory. */
static struct pgd_why_speaker *collect_speakers(const struct pgd_chat *chat, size_t *count)
{
    const uint32_t turns = pgd_chat_turns(chat);
    struct pgd_why_speaker *speakers = calloc(1 + 2 * (size_t) turns, sizeof(*speakers));
    *count = 0;
    for (uint32_t turn = 0; speakers != NULL && turn <= turns; turn++) {
        uint64_t first = 0;
        uint64_t tokens = 0;
        if (pgd_chat_owner_range(chat, turn, &first, &tokens)) {
            speakers[(*count)++] = (struct pgd_why_speaker) {first, turn, turn == 0 ? "system" : "user"};
        }
        if (pgd_chat_reply_first(chat, turn, &first)) {
            speakers[(*count)++] = (struct pgd_why_speaker) {first, turn, "reply"};
        }
    }
    return speakers;
}

static bool why(struct pgd_repl *repl, const char *argument)
{
    (void) argument;
    if (!repl->has_last) {
        pgd_say_error("there is no reply yet to ask about");
        return true;
    }
    struct pgd_why found;
    struct pgd_buffer text = {0};
    struct pgd_why_speakers who = {.count = 0};
    struct pgd_why_speaker *speakers = collect_speakers(repl->chat, &who.count);
    who.items = speakers;
    pgd_why_find(repl->loaded.bridge, &found);
    pgd_why_print(&found, &who, pgd_terminal_columns(), &text);
    if (speakers == NULL || text.failed) {
        pgd_say_error("no memory for the passages");
    } else {
        fputs(pgd_buffer_text(&text), stdout);
    }
    free(speakers);
    pgd_buffer_free(&text);
    return true;
}

/* ---- numbers ---- */

static void print_memory(const struct pgd_repl *repl)
{
    struct pagoda_memory memory;
    struct pgd_bridge_memory bridge;
    pagoda_cache_memory(pgd_bridge_cache(repl->loaded.bridge), &memory);
    pgd_bridge_memory(repl->loaded.bridge, &bridge);
    printf("KV budget   %s, used %s, peak %s, utilisation %.1f %%\n", pgd_size_words(memory.budget_bytes).text,
           pgd_size_words(memory.used_bytes).text, pgd_size_words(memory.peak_bytes).text,
           100 * memory.utilisation_at_peak);
    for (int i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        if (memory.by_category[i] > 0) {
            printf("  %-12s  %s\n", pagoda_memory_category_name((enum pagoda_memory_category) i),
                   pgd_size_words(memory.by_category[i]).text);
        }
    }
    printf("weights     %s (%s)\n", pgd_size_words(bridge.weights_bytes).text,
           repl->options->no_mmap ? "copied" : "mapped");
    printf("compute     %s\n", pgd_size_words(bridge.compute_bytes).text);
    printf("process     %s resident at most\n", pgd_size_words(pgd_machine_peak_rss_bytes()).text);
}

static bool stats(struct pgd_repl *repl, const char *argument)
{
    (void) argument;
    struct pagoda_account account;
    struct pagoda_memory memory;
    pagoda_cache_account(pgd_bridge_cache(repl->loaded.bridge), &account);
    pagoda_cache_memory(pgd_bridge_cache(repl->loaded.bridge), &memory);
    print_memory(repl);
    printf("tokens      %s in all: %s held, %s on flash, %s dropped, %s pinned; room for %s\n",
           pgd_count_words(account.total).text, pgd_count_words(account.ram + account.quantized).text,
           pgd_count_words(account.spilled).text, pgd_count_words(account.dropped).text,
           pgd_count_words(account.pinned).text, pgd_count_words(memory.tokens_capacity).text);
    if (account.spilled + account.collapsed > 0) {
        printf("  flash       %s tokens, and %s only summarised\n", pgd_count_words(account.spilled).text,
               pgd_count_words(account.collapsed).text);
    }
    for (enum pagoda_codec codec = 0; codec < PAGODA_CODEC_COUNT; codec++) {
        if (account.by_codec[codec] > 0) {
            printf("  %-4s        %s tokens\n", pagoda_codec_name(codec),
                   pgd_count_words(account.by_codec[codec]).text);
        }
    }
    printf("pages       %s evicted, %s re-encoded, %s freed behind sliding windows\n",
           pgd_count_words(memory.evicted_pages).text, pgd_count_words(memory.reencoded_pages).text,
           pgd_count_words(memory.released_window_pages).text);
    if (repl->on_full == PAGODA_ON_FULL_SPILL) {
        printf("flash       %s in use; %s written, %s read\n", pgd_size_words(memory.flash_bytes).text,
               pgd_size_words(memory.flash_bytes_written).text, pgd_size_words(memory.flash_bytes_read).text);
    }
    if (repl->has_last) {
        const struct pgd_turn *last = &repl->last;
        printf("last turn   prompt %s tokens, %.1f t/s; reply %s tokens, %.1f t/s; first word after %.0f ms\n",
               pgd_count_words(last->prompt_tokens).text, pgd_report_speed(last->prompt_tokens, last->prompt_seconds),
               pgd_count_words(last->reply.tokens).text, pgd_report_speed(last->reply.tokens, last->reply.seconds),
               1000 * (last->prompt_seconds + last->reply.first_token_seconds));
    }
    return true;
}

/* ---- the rest ---- */

static bool reset(struct pgd_repl *repl, const char *argument)
{
    (void) argument;
    struct pagoda_error error;
    if (pgd_repl_reset(repl, &error) != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    } else {
        puts("the conversation is forgotten");
    }
    return true;
}

static bool leave(struct pgd_repl *repl, const char *argument)
{
    (void) repl;
    (void) argument;
    return false;
}

static bool has_name(const struct command *command, const char *name, size_t length)
{
    for (const char *at = command->names; *at != '\0'; at += strspn(at, " ")) {
        const size_t own = strcspn(at, " ");
        if (own == length && memcmp(at, name, length) == 0) {
            return true;
        }
        at += own;
    }
    return false;
}

static void say_unknown(const char *name, size_t length)
{
    char wanted[40];
    snprintf(wanted, sizeof(wanted), "%.*s", (int) length, name);
    struct pgd_suggestion suggestion = pgd_suggest_start(wanted + 1);
    for (int i = 0; pgd_command_names[i] != NULL; i++) {
        pgd_suggest_try(&suggestion, pgd_command_names[i] + 1);
    }
    if (suggestion.best != NULL) {
        pgd_say_error("unknown command '%s'; did you mean '/%s'? To send it as text, put a blank in front", wanted,
                      suggestion.best);
    } else {
        pgd_say_error("unknown command '%s'; /help lists them. To send it as text, put a blank in front", wanted);
    }
}

bool pgd_command_do(struct pgd_repl *repl, const char *line)
{
    const size_t length = strcspn(line, " \t");
    char argument[128];
    snprintf(argument, sizeof(argument), "%s", line + length + strspn(line + length, " \t"));
    size_t end = strlen(argument);
    while (end > 0 && strchr(" \t\r\n", argument[end - 1]) != NULL) {
        argument[--end] = '\0';
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (has_name(&commands[i], line, length)) {
            const bool goes_on = commands[i].act(repl, argument);
            fflush(stdout);
            return goes_on;
        }
    }
    say_unknown(line, length);
    return true;
}
