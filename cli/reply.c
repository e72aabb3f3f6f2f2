/* cli/reply.c - see reply.h. */
#include "cli/reply.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/account.h"
#include "cli/interrupt.h"
#include "cli/machine.h"
#include "cli/report.h"

/* Wrapped text, once it is. */
static bool show(struct pgd_stream *stream, struct pgd_buffer *text)
{
    const bool shown = !text->failed && pgd_terminal_write(stream->terminal, pgd_buffer_text(text), text->count);
    pgd_buffer_free(text);
    return shown;
}

static bool print(struct pgd_stream *stream, const char *bytes, size_t count)
{
    if (!pgd_terminal_wraps(stream->terminal)) {
        return pgd_terminal_write(stream->terminal, bytes, count);
    }
    struct pgd_buffer text = {0};
    pgd_wrap_add(&stream->wrap, bytes, count, pgd_terminal_columns(), &text);
    return show(stream, &text);
}

static bool take_text(void *user, const char *bytes, size_t count)
{
    struct pgd_stream *stream = user;
    if (count == 0) {
        return true;
    }
    pgd_progress_end(stream->progress);
    stream->last = bytes[count - 1];
    if (stream->keep != NULL) {
        pgd_buffer_add(stream->keep, bytes, count);
        stream->failed = stream->keep->failed;
    } else if (!print(stream, bytes, count)) {
        stream->failed = true;
    }
    return !stream->failed;
}

void pgd_reply_end(struct pgd_stream *stream)
{
    struct pgd_buffer text = {0};
    pgd_wrap_end(&stream->wrap, pgd_terminal_columns(), &text);
    if (text.count > 0 && !stream->failed) {
        stream->failed = !show(stream, &text);
    }
    pgd_buffer_free(&text);
}

/* A model that never ends must not talk for ever unless asked to: where text goes to flash, or for good, no budget
 * stops it. */
static int64_t most_tokens(const struct pgd_options *options, const struct pgd_model *model)
{
    return options->predict == -1 ? (int64_t) pgd_model_get_info(model)->trained_tokens : options->predict;
}

struct pgd_reply_options pgd_reply_wanted(const struct pgd_options *options, const struct pgd_model *model,
                                          struct pgd_stream *stream)
{
    const struct pgd_reply_options wanted = {
        .tokens_max = most_tokens(options, model),
        .ignore_eos = options->ignore_eos,
        .special = options->special,
        .text = take_text,
        .user = stream,
        .cancel = pgd_interrupt_flag(),
    };
    return wanted;
}

uint32_t pgd_reply_seed(const struct pgd_options *options)
{
    return options->seed < 0 ? pgd_machine_random() : (uint32_t) options->seed;
}

void pgd_reply_tell(const struct pgd_options *options, const struct pgd_terminal *terminal,
                    const struct pgd_reply *reply, const struct pagoda_account *account, const char *rule)
{
    if (reply->stop == PGD_STOP_FULL) {
        pgd_say_note(terminal, "the reply stops here, after %s tokens: %s", pgd_count_words(reply->tokens).text,
                     reply->full.message);
    }
    if (reply->stop == PGD_STOP_LENGTH && options->predict < 0) {
        pgd_say_note(terminal,
                     "the reply stops here, after %s tokens: so many the model was trained for (-n -2: no limit)",
                     pgd_count_words(reply->tokens).text);
    }
    struct pgd_buffer line = {0};
    pgd_account_line(account, rule, &line);
    if (line.count > 0) {
        pgd_say_note(terminal, "%s", pgd_buffer_text(&line));
    }
    pgd_buffer_free(&line);
}

void pgd_reply_tell_speed(const struct pgd_terminal *terminal, struct pgd_bridge *bridge, uint64_t prompt_tokens,
                          double prompt_seconds, const struct pgd_reply *reply)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    pgd_say_note(terminal,
                 "[ prompt: %s tokens, %.1f t/s | reply: %s tokens, %.1f t/s | KV: %s of %s, peak %s | RSS peak: %s ]",
                 pgd_count_words(prompt_tokens).text, pgd_report_speed(prompt_tokens, prompt_seconds),
                 pgd_count_words(reply->tokens).text, pgd_report_speed(reply->tokens, reply->seconds),
                 pgd_size_words(memory.used_bytes).text, pgd_size_words(memory.budget_bytes).text,
                 pgd_size_words(memory.peak_bytes).text, pgd_size_words(pgd_machine_peak_rss_bytes()).text);
}
