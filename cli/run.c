/* cli/run.c - pagoda run: one prompt in, one reply out. */
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/machine.h"
#include "cli/reply.h"
#include "cli/report.h"
#include "cli/trace.h"
#include "cli/verbs.h"
#include "cli/watch.h"
#include "cli/why.h"
#include "engine/chat.h"

struct run {
    const struct pgd_options *options;
    const struct pgd_terminal *terminal;
    struct pgd_loaded loaded;
    struct pgd_trace *trace;
    struct pgd_sampler *sampler;
    struct pgd_progress progress;
    struct pgd_watch watch;
    struct pgd_feed_options feed;
    struct pgd_stream stream;
    struct pgd_buffer text; /* the reply, for --json */
    struct pgd_reply reply;
    uint64_t prompt_tokens;
    uint64_t system_tokens; /* of these */
    double prompt_seconds;
    uint32_t seed;
};

/* The prompt as it is. */
static enum pagoda_status run_raw(struct run *run, const struct pgd_buffer *prompt, struct pagoda_error *error)
{
    struct pgd_bridge *bridge = run->loaded.bridge;
    int32_t *tokens = NULL;
    size_t count = 0;
    enum pagoda_status status = pgd_model_tokenize(run->loaded.model, pgd_buffer_text(prompt), prompt->count, true,
                                                   true, &tokens, &count, error);
    if (status == PAGODA_OK && count == 0) {
        status = pgd_fail(error, PAGODA_INVALID, "the prompt has no tokens");
    }
    if (status == PAGODA_OK) {
        const double start = pgd_machine_seconds();
        status = pgd_generate_feed(bridge, tokens, count, &run->feed, error);
        run->prompt_seconds = pgd_machine_seconds() - start;
        run->prompt_tokens = pagoda_cache_position(pgd_bridge_cache(bridge));
    }
    free(tokens);
    if (status == PAGODA_OK) {
        const struct pgd_reply_options wanted = pgd_reply_wanted(run->options, run->loaded.model, &run->stream);
        status = pgd_generate_reply(bridge, run->sampler, &wanted, &run->reply, error);
    }
    return status;
}

/* The prompt as the user's turn of a conversation. */
static enum pagoda_status run_turn(struct run *run, const struct pgd_buffer *prompt, struct pagoda_error *error)
{
    struct pgd_bridge *bridge = run->loaded.bridge;
    const struct pgd_chat_options options = {.system = run->options->system, .no_pin = run->options->no_pin};
    struct pgd_chat *chat = NULL;
    const double start = pgd_machine_seconds();
    enum pagoda_status status = pgd_chat_open(bridge, &options, &run->feed, &chat, error);
    run->prompt_seconds = pgd_machine_seconds() - start;
    if (status != PAGODA_OK) {
        return status;
    }
    run->prompt_tokens = pagoda_cache_position(pgd_bridge_cache(bridge));
    run->system_tokens = run->prompt_tokens;
    const struct pgd_reply_options wanted = pgd_reply_wanted(run->options, run->loaded.model, &run->stream);
    struct pgd_turn turn = {0};
    status = pgd_chat_say(chat, pgd_buffer_text(prompt), run->sampler, &run->feed, &wanted, &turn, error);
    if (status == PAGODA_OK) {
        run->prompt_tokens += turn.prompt_tokens;
        run->prompt_seconds += turn.prompt_seconds;
        run->reply = turn.reply;
    }
    pgd_chat_close(chat);
    return status;
}

static bool uses_template(const struct run *run)
{
    return !run->options->raw && pgd_prompt_has_template(run->loaded.model);
}

/* What a model without a template means for these options. */
static enum pgd_exit check_template(const struct run *run)
{
    if (run->options->raw || pgd_prompt_has_template(run->loaded.model)) {
        return PGD_EXIT_OK;
    }
    if (run->options->system != NULL) {
        pgd_say_error("--system: this model has no chat template that is known, so there is no place for a system "
                      "prompt; put it into the prompt");
        return PGD_EXIT_USAGE;
    }
    if (!run->options->quiet) {
        pgd_say_note(run->terminal, "this model has no chat template that is known: the prompt is read as it is");
    }
    return PGD_EXIT_OK;
}

/* Who says what: the system prompt if there is one, the prompt, the reply. */
struct cast {
    struct pgd_why_speaker items[3];
    struct pgd_why_speakers all;
};

static void find_cast(const struct run *run, const struct pgd_why *why, struct cast *cast)
{
    size_t count = 0;
    if (run->system_tokens > 0) {
        cast->items[count++] = (struct pgd_why_speaker) {0, 0, "system"};
    }
    cast->items[count++] = (struct pgd_why_speaker) {run->system_tokens, 0, "prompt"};
    cast->items[count++] = (struct pgd_why_speaker) {why->draws.since, 0, "reply"};
    cast->all = (struct pgd_why_speakers) {cast->items, count};
}

static struct json_t *why_object(struct run *run)
{
    struct pgd_why why;
    struct cast cast;
    pgd_why_find(run->loaded.bridge, &why);
    find_cast(run, &why, &cast);
    return pgd_why_json(&why, &cast.all);
}

static void tell_why(struct run *run)
{
    struct pgd_why why;
    struct cast cast;
    struct pgd_buffer text = {0};
    pgd_why_find(run->loaded.bridge, &why);
    find_cast(run, &why, &cast);
    pgd_why_print(&why, &cast.all, pgd_terminal_columns(), &text);
    if (text.failed) {
        pgd_say_error("no memory for the passages");
    } else {
        fputs(pgd_buffer_text(&text), stderr);
    }
    pgd_buffer_free(&text);
}

/* The object on the last line, with what there is. */
static bool print_report(struct run *run)
{
    struct pgd_report report = {
        .options = run->options,
        .text = pgd_buffer_text(&run->text),
        .text_bytes = run->text.count,
        .stop = run->reply.stop,
        .prompt_tokens = run->prompt_tokens,
        .generated_tokens = run->reply.tokens,
        .prompt_seconds = run->prompt_seconds,
        .reply_seconds = run->reply.seconds,
        .first_token_seconds = run->prompt_seconds + run->reply.first_token_seconds,
        .seed = run->seed,
        .why = run->options->why ? why_object(run) : NULL,
    };
    pgd_report_measure(&report, run->loaded.bridge);
    struct pgd_buffer line = {0};
    pgd_report_write(&report, &line);
    const bool printed = !line.failed && fwrite(pgd_buffer_text(&line), 1, line.count, stdout) == line.count;
    pgd_buffer_free(&line);
    return pgd_terminal_finish_output() && printed;
}

static enum pgd_exit finish(struct run *run)
{
    struct pgd_bridge *bridge = run->loaded.bridge;
    struct pagoda_account account;
    if (run->text.failed) {
        pgd_say_error("no memory for the reply");
        return PGD_EXIT_FAILURE;
    }
    if (run->options->json) {
        if (!print_report(run)) {
            return PGD_EXIT_FAILURE;
        }
    } else {
        if (run->stream.last != '\n' && run->stream.last != '\0') {
            fputc('\n', stdout);
        }
        if (!pgd_terminal_finish_output() || run->stream.failed) {
            return PGD_EXIT_FAILURE;
        }
    }
    pgd_watch_tell(&run->watch);
    pagoda_cache_account(pgd_bridge_cache(bridge), &account);
    pgd_reply_tell(run->options, run->terminal, &run->reply, &account, pgd_policy_words[run->options->policy]);
    if (account.spilled > 0) {
        pgd_load_tell_tight(run->options, run->terminal, bridge);
    }
    if (run->options->verbose) {
        pgd_reply_tell_speed(run->terminal, bridge, run->prompt_tokens, run->prompt_seconds, &run->reply);
    }
    if (run->options->why && !run->options->json) {
        tell_why(run);
    }
    return run->reply.stop == PGD_STOP_CANCELLED ? PGD_EXIT_INTERRUPTED : PGD_EXIT_OK;
}

/* Reads, replies, tells. */
static enum pgd_exit answer(struct run *run, const struct pgd_buffer *prompt)
{
    struct pagoda_error error;
    pgd_interrupt_catch(run->loaded.bridge);
    pgd_watch_start(&run->watch, run->options, run->terminal, run->loaded.bridge);
    pgd_progress_start(&run->progress, run->terminal, run->options->quiet);
    run->feed = (struct pgd_feed_options) {
        .progress = pgd_progress_tokens,
        .user = &run->progress,
        .cancel = pgd_interrupt_flag(),
    };
    run->stream = (struct pgd_stream) {
        .terminal = run->terminal,
        .progress = &run->progress,
        .keep = run->options->json ? &run->text : NULL,
    };
    enum pagoda_status status = uses_template(run) ? run_turn(run, prompt, &error) : run_raw(run, prompt, &error);
    pgd_reply_end(&run->stream);
    pgd_progress_end(&run->progress);
    pgd_watch_stop();
    if (status == PAGODA_CANCELLED) { /* while reading: a reply without text */
        run->reply.stop = PGD_STOP_CANCELLED;
        status = PAGODA_OK;
    }
    if (status != PAGODA_OK) {
        pgd_watch_tell(&run->watch);
        pgd_say_error("%s", error.message);
        return pgd_exit_of(status);
    }
    return finish(run);
}

static enum pgd_exit open_sampler(struct run *run)
{
    struct pgd_sampler_options sampler = run->options->sampler;
    struct pagoda_error error;
    run->seed = pgd_reply_seed(run->options);
    sampler.seed = run->seed;
    enum pagoda_status status = pgd_sampler_open(run->loaded.model, &sampler, &run->sampler, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    return pgd_exit_of(status);
}

static enum pgd_exit run_with_prompt(struct run *run, const struct pgd_buffer *prompt)
{
    enum pgd_exit code = pgd_trace_open(run->options, &run->trace);
    if (code == PGD_EXIT_OK) {
        code = pgd_load(run->options, run->terminal, &run->loaded);
    }
    if (code == PGD_EXIT_OK) {
        pgd_trace_start(run->trace, &run->loaded);
        code = check_template(run);
    }
    if (code == PGD_EXIT_OK) {
        code = open_sampler(run);
    }
    if (code == PGD_EXIT_OK) {
        code = answer(run, prompt);
    }
    pgd_interrupt_release();
    pgd_sampler_close(run->sampler);
    pgd_trace_close(run->trace);
    pgd_load_close(&run->loaded);
    pgd_buffer_free(&run->text);
    return code;
}

enum pgd_exit pgd_run_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct run run = {.options = options, .terminal = terminal};
    struct pgd_buffer prompt = {0};
    struct pagoda_error error;
    enum pagoda_status status = pgd_input_read(options, terminal, &prompt, &error);
    enum pgd_exit code = PGD_EXIT_OK;
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        code = status == PAGODA_IO || status == PAGODA_NOMEM ? PGD_EXIT_FAILURE : PGD_EXIT_USAGE;
    } else {
        code = run_with_prompt(&run, &prompt);
    }
    pgd_buffer_free(&prompt);
    return code;
}
