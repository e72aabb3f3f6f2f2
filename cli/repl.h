/* cli/repl.h - the state of a chat at the terminal, shared by its loop and its commands. */
#ifndef PGD_CLI_REPL_H
#define PGD_CLI_REPL_H

#include <stdbool.h>

#include "cli/lines.h"
#include "cli/load.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "cli/trace.h"
#include "cli/watch.h"
#include "engine/chat.h"

struct pgd_repl {
    const struct pgd_options *options;
    const struct pgd_terminal *terminal;
    struct pgd_loaded loaded;
    struct pgd_trace *trace;
    struct pgd_chat *chat;
    struct pgd_sampler *sampler;
    struct pgd_lines *lines;
    struct pgd_progress progress;
    struct pgd_watch watch;
    struct pgd_feed_options feed;

    enum pagoda_on_full on_full; /* as set now: /policy changes them */
    struct pagoda_policy policy;

    struct pgd_turn last; /* the latest turn */
    bool has_last;
    bool eviction_told; /* the first time something leaves is explained at length ... */
    bool spill_told;    /* ... and the first time something goes to flash */
    bool collapse_told;
    bool turn_failed;
};

/* Says what a turn takes, reads the system prompt anew: what /reset does. */
PGD_MUST_CHECK enum pagoda_status pgd_repl_reset(struct pgd_repl *repl, struct pagoda_error *error);

/* "evict, policy sink" or "stop". */
const char *pgd_repl_rule(const struct pgd_repl *repl);

#endif
