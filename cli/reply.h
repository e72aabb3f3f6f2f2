/* cli/reply.h - streaming a reply to standard output, and what is said about it afterwards. */
#ifndef PGD_CLI_REPLY_H
#define PGD_CLI_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/buffer.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "cli/wrap.h"
#include "engine/generate.h"

/* Where the text of a reply goes. */
struct pgd_stream {
    const struct pgd_terminal *terminal;
    struct pgd_progress *progress; /* its line is erased before the first text */
    struct pgd_buffer *keep;       /* NULL: print it at once; else it is collected here */
    struct pgd_wrap wrap;          /* on a terminal: the word that is not complete */
    bool failed;                   /* standard output, or memory, did not take it */
    char last;                     /* last byte */
};

/* The engine's options for a reply as the user wants it; text goes to `stream`, Ctrl-C ends it. */
struct pgd_reply_options pgd_reply_wanted(const struct pgd_options *options, const struct pgd_model *model,
                                          struct pgd_stream *stream);

/* Nothing more comes: what a terminal was not shown yet goes out. Call it also after a failure. */
void pgd_reply_end(struct pgd_stream *stream);

/* Seed of this run: the one given, or a new one. */
uint32_t pgd_reply_seed(const struct pgd_options *options);

/* Says why a reply ended before its end, and what it was not made from. `rule` is what drops tokens. */
void pgd_reply_tell(const struct pgd_options *options, const struct pgd_terminal *terminal,
                    const struct pgd_reply *reply, const struct pagoda_account *account, const char *rule);

/* Speed and memory in one line, for --verbose. */
void pgd_reply_tell_speed(const struct pgd_terminal *terminal, struct pgd_bridge *bridge, uint64_t prompt_tokens,
                          double prompt_seconds, const struct pgd_reply *reply);

#endif
