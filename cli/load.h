/* cli/load.h - from options to a model and a bridge that are ready, or a message and an exit code. */
#ifndef PGD_CLI_LOAD_H
#define PGD_CLI_LOAD_H

#include "cli/exit.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/bridge.h"

struct pgd_loaded {
    struct pgd_model *model;
    struct pgd_bridge *bridge;
};

/* Opens the model, then the bridge. On failure the reason has been told and nothing is open. */
PGD_MUST_CHECK enum pgd_exit pgd_load(const struct pgd_options *options, const struct pgd_terminal *terminal,
                                      struct pgd_loaded *loaded);

/* The two halves. */
PGD_MUST_CHECK enum pgd_exit pgd_load_model(const struct pgd_options *options, const struct pgd_terminal *terminal,
                                            struct pgd_model **model);
PGD_MUST_CHECK enum pgd_exit pgd_load_bridge(const struct pgd_options *options, const struct pgd_model *model,
                                             struct pgd_bridge **bridge);

/* Says which rule holds when the one that is the default cannot. */
void pgd_load_tell(const struct pgd_options *options, const struct pgd_terminal *terminal,
                   const struct pgd_bridge *bridge);

/* Says so when the budget is so tight that less is found on flash. */
void pgd_load_tell_tight(const struct pgd_options *options, const struct pgd_terminal *terminal,
                         struct pgd_bridge *bridge);

/* The second half without a word to the user. */
PGD_MUST_CHECK enum pagoda_status pgd_load_try_bridge(const struct pgd_options *options, const struct pgd_model *model,
                                                      struct pgd_bridge **bridge, struct pagoda_error *error);

/* Bytes of a budget that `flag` gave; 0 for auto. Errors: UNSUPPORTED (a share of an unknown whole). */
PGD_MUST_CHECK enum pagoda_status pgd_load_budget(const char *flag, const struct pgd_budget *budget, uint64_t *bytes,
                                                  struct pagoda_error *error);

/* What the flags mean to a bridge. */
struct pgd_bridge_options pgd_load_bridge_options(const struct pgd_options *options, uint64_t kv_bytes);

void pgd_load_close(struct pgd_loaded *loaded);

#endif
