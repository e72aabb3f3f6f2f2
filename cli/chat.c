/* cli/chat.c - pagoda chat: a conversation, turn by turn, from a terminal or from any other input. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/repl.h"
#include "cli/reply.h"
#include "cli/verbs.h"

const char *pgd_repl_rule(const struct pgd_repl *repl)
{
    static const char *const evict[] = {"evict, policy fifo", "evict, policy window", "evict, policy sink",
                                        "evict, policy random"};
    static const char *const spill[] = {"spill, then policy fifo", "spill, then policy window",
                                        "spill, then policy sink", "spill, then policy random"};
    switch (repl->on_full) {
    case PAGODA_ON_FULL_STOP: return "stop";
    case PAGODA_ON_FULL_EVICT: return evict[repl->policy.kind];
    case PAGODA_ON_FULL_SPILL: return spill[repl->policy.kind];
    }
    return "";
}

/* ---- opening ---- */

static void start_reading(struct pgd_repl *repl)
{
    pgd_interrupt_catch(repl->loaded.bridge);
    pgd_progress_start(&repl->progress, repl->terminal, repl->options->quiet);
    repl->feed = (struct pgd_feed_options) {
        .progress = pgd_progress_tokens,
        .user = &repl->progress,
        .cancel = pgd_interrupt_flag(),
    };
}

static enum pgd_exit open_sampler(struct pgd_repl *repl)
{
    struct pgd_sampler_options sampler = repl->options->sampler;
    struct pagoda_error error;
    sampler.seed = pgd_reply_seed(repl->options);
    enum pagoda_status status = pgd_sampler_open(repl->loaded.model, &sampler, &repl->sampler, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    return pgd_exit_of(status);
}

/* Reads the system prompt. */
static enum pgd_exit open_chat(struct pgd_repl *repl)
{
    const struct pgd_chat_options options = {.system = repl->options->system, .no_pin = repl->options->no_pin};
    struct pagoda_error error;
    start_reading(repl);
    enum pagoda_status status = pgd_chat_open(repl->loaded.bridge, &options, &repl->feed, &repl->chat, &error);
    pgd_progress_end(&repl->progress);
    pgd_interrupt_release();
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    return pgd_exit_of(status);
}

static enum pgd_exit open_repl(struct pgd_repl *repl)
{
    enum pgd_exit code = pgd_trace_open(repl->options, &repl->trace);
    if (code == PGD_EXIT_OK) {
        code = pgd_load_model(repl->options, repl->terminal, &repl->loaded.model);
    }
    if (code == PGD_EXIT_OK && !pgd_prompt_has_template(repl->loaded.model)) {
        pgd_say_error("this model has no chat template that is known, so it cannot chat; it can go on with a text: "
                      "pagoda run --raw %s \"Once upon a time\"",
                      repl->options->model);
        code = PGD_EXIT_MODEL;
    }
    if (code == PGD_EXIT_OK) {
        code = pgd_load_bridge(repl->options, repl->loaded.model, &repl->loaded.bridge);
    }
    if (code == PGD_EXIT_OK) {
        repl->on_full = pgd_bridge_on_full(repl->loaded.bridge);
        pgd_load_tell(repl->options, repl->terminal, repl->loaded.bridge);
        pgd_trace_start(repl->trace, &repl->loaded);
        pgd_watch_start(&repl->watch, repl->options, repl->terminal, repl->loaded.bridge);
        code = open_sampler(repl);
    }
    if (code == PGD_EXIT_OK) {
        code = open_chat(repl);
    }
    if (code == PGD_EXIT_OK) {
        repl->lines = pgd_lines_open(repl->terminal, pgd_command_names);
        if (repl->lines == NULL) {
            pgd_say_error("no memory for reading lines");
            code = PGD_EXIT_FAILURE;
        }
    }
    if (code == PGD_EXIT_OK) {
        pgd_lines_while_waiting(repl->lines, pgd_watch_idle, &repl->watch);
    }
    return code;
}

static void close_repl(struct pgd_repl *repl)
{
    pgd_watch_stop();
    pgd_lines_close(repl->lines);
    pgd_chat_close(repl->chat);
    pgd_sampler_close(repl->sampler);
    pgd_trace_close(repl->trace);
    pgd_load_close(&repl->loaded);
}

static void say_banner(const struct pgd_repl *repl)
{
    const struct pgd_model_info *info = pgd_model_get_info(repl->loaded.model);
    struct pagoda_memory memory;
    struct pagoda_account account;
    pagoda_cache_memory(pgd_bridge_cache(repl->loaded.bridge), &memory);
    pagoda_cache_account(pgd_bridge_cache(repl->loaded.bridge), &account);
    pgd_say_note(repl->terminal, "pagoda %s: %s, %s", pagoda_version(), info->name, info->description);
    pgd_say_note(repl->terminal, "KV budget %s%s: room for %s tokens; when full: %s%s",
                 pgd_size_words(memory.budget_bytes).text, repl->on_full == PAGODA_ON_FULL_SPILL ? ", and flash" : "",
                 pgd_count_words(memory.tokens_capacity).text, pgd_repl_rule(repl),
                 account.pinned > 0 ? "; the system prompt is pinned" : "");
    pgd_load_tell_tight(repl->options, repl->terminal, repl->loaded.bridge);
    if (pgd_lines_is_interactive(repl->lines)) {
        pgd_say_note(repl->terminal, "/help lists the commands, Ctrl-C stops a reply, Ctrl-D leaves");
    }
}

/* ---- a turn ---- */

/* Why text leaves for good. With a flash tier it need not be the budget: a conversation has a length as well. */
static void print_cause(const struct pgd_repl *repl, const struct pagoda_account *account, struct pgd_buffer *text)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(repl->loaded.bridge), &memory);
    const uint64_t left = account->ram + account->quantized + account->spilled;
    const uint64_t least = pgd_max_u64(memory.tokens_max, 2 * PGD_BRIDGE_BATCH) - 2 * PGD_BRIDGE_BATCH;
    if (memory.tokens_max != 0 && memory.tokens_capacity >= memory.tokens_max && left >= least) {
        pgd_buffer_print(text, "the context of %s tokens is full (-c)", pgd_count_words(memory.tokens_max).text);
    } else if (repl->on_full == PAGODA_ON_FULL_SPILL) {
        pgd_buffer_print(text, "neither memory nor flash takes more (%s)",
                         memory.flash_problem != NULL ? memory.flash_problem : "digests fill the KV budget");
    } else {
        pgd_buffer_print(text, "the KV budget is full");
    }
}

/* The first time that something had to leave, it is said at length. */
static void tell_first_eviction(struct pgd_repl *repl, const struct pagoda_account *account)
{
    if (repl->eviction_told || account->dropped == 0) {
        return;
    }
    struct pgd_buffer cause = {0};
    print_cause(repl, account, &cause);
    repl->eviction_told = true;
    pgd_say_note(repl->terminal,
                 "%s: from here on old text leaves (policy %s). /context shows what is left, /pin keeps a turn, --kv "
                 "gives more room",
                 pgd_buffer_text(&cause), pgd_policy_words[repl->policy.kind]);
    pgd_buffer_free(&cause);
}

/* And the first time that something went to flash. */
static void tell_first_spill(struct pgd_repl *repl, const struct pagoda_account *account)
{
    if (repl->spill_told || account->spilled == 0) {
        return;
    }
    repl->spill_told = true;
    pgd_say_note(repl->terminal,
                 "the KV budget is full: from here on old text goes to flash, and is read again when a reply needs it. "
                 "/context shows what is where, --kv gives more room");
}

/* And the first time that a summary is all that stays. */
static void tell_first_collapse(struct pgd_repl *repl, const struct pagoda_account *account)
{
    struct pagoda_memory memory;
    if (repl->collapse_told || account->collapsed == 0) {
        return;
    }
    pagoda_cache_memory(pgd_bridge_cache(repl->loaded.bridge), &memory);
    repl->collapse_told = true;
    pgd_say_note(
        repl->terminal,
        "flash takes no more (%s): from here on only a summary of the oldest text stays. --flash gives more room, "
        "/context shows what is where",
        memory.flash_problem != NULL ? memory.flash_problem : "it is full");
}

static void tell_turn(struct pgd_repl *repl)
{
    struct pagoda_account account;
    pagoda_cache_account(pgd_bridge_cache(repl->loaded.bridge), &account);
    pgd_reply_tell(repl->options, repl->terminal, &repl->last.reply, &account, pgd_policy_words[repl->policy.kind]);
    tell_first_spill(repl, &account);
    tell_first_collapse(repl, &account);
    tell_first_eviction(repl, &account);
    pgd_watch_tell(&repl->watch);
    if (repl->options->verbose) {
        pgd_reply_tell_speed(repl->terminal, repl->loaded.bridge, repl->last.prompt_tokens, repl->last.prompt_seconds,
                             &repl->last.reply);
    }
}

/* Says it, and once more if a Ctrl-C that came just too late for the reply before has cancelled it. */
static enum pagoda_status say_twice(struct pgd_repl *repl, const char *text, const struct pgd_reply_options *wanted,
                                    struct pagoda_error *error)
{
    const uint64_t before = pagoda_cache_position(pgd_bridge_cache(repl->loaded.bridge));
    enum pagoda_status status = pgd_chat_say(repl->chat, text, repl->sampler, &repl->feed, wanted, &repl->last, error);
    if (status == PAGODA_CANCELLED && !pgd_interrupt_raised() &&
        pagoda_cache_position(pgd_bridge_cache(repl->loaded.bridge)) == before) {
        status = pgd_chat_say(repl->chat, text, repl->sampler, &repl->feed, wanted, &repl->last, error);
    }
    return status;
}

/* What comes after a turn that could not be taken. */
static enum pgd_exit give_up_turn(struct pgd_repl *repl, enum pagoda_status status, const struct pagoda_error *error)
{
    const bool interactive = pgd_lines_is_interactive(repl->lines);
    if (status == PAGODA_CANCELLED) {
        if (interactive) {
            pgd_say_note(repl->terminal, "stopped while reading; the message is taken back");
        }
        return interactive ? PGD_EXIT_OK : PGD_EXIT_INTERRUPTED;
    }
    pgd_say_error("%s", error->message);
    repl->turn_failed = true;
    /* A message that does not fit is the user's to change; anything else will not get better. */
    return status == PAGODA_FULL || status == PAGODA_OVER_BUDGET ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}

static enum pgd_exit take_turn(struct pgd_repl *repl, const char *text)
{
    struct pgd_stream stream = {.terminal = repl->terminal, .progress = &repl->progress};
    const struct pgd_reply_options wanted = pgd_reply_wanted(repl->options, repl->loaded.model, &stream);
    struct pagoda_error error;
    if (pgd_watch_refuses(&repl->watch)) {
        repl->turn_failed = true;
        return PGD_EXIT_OK;
    }
    start_reading(repl);
    enum pagoda_status status = say_twice(repl, text, &wanted, &error);
    pgd_reply_end(&stream);
    pgd_progress_end(&repl->progress);
    pgd_interrupt_release();
    if (status != PAGODA_OK) {
        return give_up_turn(repl, status, &error);
    }
    const bool interactive = pgd_lines_is_interactive(repl->lines);
    const bool cancelled = repl->last.reply.stop == PGD_STOP_CANCELLED;
    repl->has_last = true;
    if (stream.last != '\n') {
        fputc('\n', stdout);
    }
    if (!pgd_terminal_finish_output() || stream.failed) {
        return PGD_EXIT_FAILURE;
    }
    if (cancelled && interactive) {
        pgd_say_note(repl->terminal, "[stopped]");
    }
    tell_turn(repl);
    if (interactive) {
        fputc('\n', stdout);
    }
    return cancelled && !interactive ? PGD_EXIT_INTERRUPTED : PGD_EXIT_OK;
}

enum pagoda_status pgd_repl_reset(struct pgd_repl *repl, struct pagoda_error *error)
{
    start_reading(repl);
    enum pagoda_status status = pgd_chat_reset(repl->chat, &repl->feed, error);
    pgd_progress_end(&repl->progress);
    pgd_interrupt_release();
    pgd_sampler_reset(repl->sampler);
    repl->has_last = false;
    repl->eviction_told = false;
    repl->spill_told = false;
    repl->collapse_told = false;
    return status;
}

/* ---- the loop ---- */

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '\0';
}

/* One message of the user's. Sets *leave when it says so. */
static enum pgd_exit answer(struct pgd_repl *repl, const char *bytes, size_t count, bool *leave)
{
    struct pgd_buffer text = {0};
    struct pagoda_error error;
    enum pgd_exit code = PGD_EXIT_OK;
    if (pgd_input_check("the message", bytes, count, &text, &error) != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        repl->turn_failed = true;
    } else if (is_blank(pgd_buffer_text(&text))) {
        /* Nothing was said. */
    } else if (text.bytes[0] == '/') {
        *leave = !pgd_command_do(repl, text.bytes);
        code = pgd_terminal_finish_output() ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
    } else {
        code = take_turn(repl, text.bytes);
    }
    pgd_buffer_free(&text);
    return code;
}

static enum pgd_lines_result read_message(struct pgd_repl *repl, const char **text, size_t *count)
{
    if (!pgd_lines_is_interactive(repl->lines)) {
        return pgd_lines_read(repl->lines, text, count);
    }
    pgd_interrupt_catch(NULL);
    const enum pgd_lines_result result = pgd_lines_read(repl->lines, text, count);
    pgd_interrupt_release();
    return result;
}

static enum pgd_exit loop(struct pgd_repl *repl)
{
    unsigned interrupts = 0; /* in a row */
    for (;;) {
        const char *text = NULL;
        size_t count = 0;
        const enum pgd_lines_result result = read_message(repl, &text, &count);
        if (result == PGD_LINES_END) {
            break;
        }
        if (result == PGD_LINES_FAILED) {
            return PGD_EXIT_FAILURE;
        }
        if (result == PGD_LINES_INTERRUPTED) {
            if (++interrupts == 2) {
                return PGD_EXIT_INTERRUPTED;
            }
            pgd_say_note(repl->terminal, "Ctrl-C once more leaves, and so does Ctrl-D");
            continue;
        }
        interrupts = 0;
        bool leave = false;
        const enum pgd_exit code = answer(repl, text, count, &leave);
        if (leave) {
            return PGD_EXIT_OK;
        }
        if (code != PGD_EXIT_OK) {
            return code;
        }
    }
    if (pgd_lines_is_interactive(repl->lines)) {
        fputc('\n', stdout); /* Ctrl-D leaves the cursor behind the prompt */
        return PGD_EXIT_OK;
    }
    return repl->turn_failed ? PGD_EXIT_FAILURE : PGD_EXIT_OK;
}

enum pgd_exit pgd_chat_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct pgd_repl repl = {
        .options = options,
        .terminal = terminal,
        .policy = pgd_options_policy(options),
    };
    enum pgd_exit code = open_repl(&repl);
    if (code == PGD_EXIT_OK) {
        if (!options->quiet) {
            say_banner(&repl);
        }
        code = loop(&repl);
    }
    close_repl(&repl);
    return code;
}
