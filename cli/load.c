/* cli/load.c - see load.h. */
#include "cli/load.h"

#include <stdlib.h>

#include "base/status.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "cli/wear.h"

enum pgd_exit pgd_load_model(const struct pgd_options *options, const struct pgd_terminal *terminal,
                             struct pgd_model **model)
{
    struct pgd_progress progress;
    pgd_progress_start(&progress, terminal, options->quiet || options->json);
    const struct pgd_model_options wanted = {
        .copy_weights = options->no_mmap,
        .progress = pgd_progress_loading,
        .user = &progress,
    };
    struct pagoda_error error;
    enum pagoda_status status = pgd_model_open(options->model, &wanted, model, &error);
    pgd_progress_end(&progress);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return pgd_exit_of_loading(status);
    }
    return PGD_EXIT_OK;
}

enum pagoda_status pgd_load_budget(const char *flag, const struct pgd_budget *budget, uint64_t *bytes,
                                   struct pagoda_error *error)
{
    *bytes = budget->bytes;
    if (budget->kind != PGD_BUDGET_PERCENT) {
        return PAGODA_OK;
    }
    const uint64_t available = pgd_machine_available_bytes();
    if (available == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED,
                        "%s %g%%: this system does not tell how much memory is available; give a size", flag,
                        budget->percent);
    }
    *bytes = (uint64_t) ((double) available * budget->percent / 100);
    return PAGODA_OK;
}

/* What measures, measures the cache that was asked for, whatever else goes on. A size that was given is the most that
 * is taken, and no promise of others to leave that much. */
static bool is_governed(const struct pgd_options *options)
{
    const bool talks = options->command == PGD_COMMAND_CHAT || options->command == PGD_COMMAND_RUN;
    return talks && !options->no_governor;
}

struct pgd_bridge_options pgd_load_bridge_options(const struct pgd_options *options, uint64_t kv_bytes)
{
    const struct pgd_options without = pgd_options_without_flash(options);
    const struct pgd_codec_choice other_codec = pgd_options_codec(&without);
    return (struct pgd_bridge_options) {
        .kv_bytes = kv_bytes,
        .is_governed = is_governed(options),
        .system_root = getenv("PAGODA_SYSTEM_ROOT"),
        .tokens_max = options->ctx_size,
        .page_tokens = (uint32_t) options->page,
        .threads = (uint32_t) options->threads,
        .threads_batch = (uint32_t) options->threads_batch,
        .outputs_max = options->outputs,
        .codec = pgd_options_codec(options).settled,
        .codec_tight = pgd_options_codec(options).tight,
        .on_full = pgd_options_on_full(options),
        .is_wish = pgd_options_wish_to_spill(options),
        .otherwise = {pgd_options_on_full(&without), other_codec.settled, other_codec.tight},
        .policy = pgd_options_policy(options),
        .flash = pgd_options_flash(options),
        .rollback_tokens = options->rollback_tokens,
        .counts_draws = options->why || options->command == PGD_COMMAND_CHAT,
        .keep_gaps = options->keep_gaps,
        .cpu = options->cpu,
    };
}

enum pagoda_status pgd_load_try_bridge(const struct pgd_options *options, const struct pgd_model *model,
                                       struct pgd_bridge **bridge, struct pagoda_error *error)
{
    uint64_t budget_bytes = 0;
    uint64_t process_bytes = 0;
    enum pagoda_status status = pgd_load_budget("--kv", &options->kv, &budget_bytes, error);
    if (status == PAGODA_OK) {
        status = pgd_load_budget("--mem", &options->mem, &process_bytes, error);
    }
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_bridge_options wanted = pgd_load_bridge_options(options, budget_bytes);
    wanted.process_bytes = process_bytes;
    return pgd_bridge_open(model, &wanted, bridge, error);
}

/* A budget that the machine cannot honour is taken as it is, since it may never be used up, but not in silence. */
static void warn_of_size(const struct pgd_options *options)
{
    const uint64_t total = pgd_machine_total_bytes();
    if (options->kv.kind == PGD_BUDGET_BYTES && total > 0 && options->kv.bytes > total) {
        pgd_say_warning("--kv %s is more than this machine's memory of %s", pgd_size_words(options->kv.bytes).text,
                        pgd_size_words(total).text);
    }
}

enum pgd_exit pgd_load_bridge(const struct pgd_options *options, const struct pgd_model *model,
                              struct pgd_bridge **bridge)
{
    warn_of_size(options);
    struct pagoda_error error;
    enum pagoda_status status = pgd_load_try_bridge(options, model, bridge, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
    }
    return pgd_exit_of(status);
}

void pgd_load_tell(const struct pgd_options *options, const struct pgd_terminal *terminal,
                   const struct pgd_bridge *bridge)
{
    const char *reason = pgd_bridge_fallback(bridge);
    if (reason != NULL && !options->quiet) {
        pgd_say_note(terminal, "not spilling to flash, so --on-full %s: %s",
                     pgd_on_full_words[pgd_bridge_on_full(bridge)], reason);
    }
}

void pgd_load_tell_tight(const struct pgd_options *options, const struct pgd_terminal *terminal,
                         struct pgd_bridge *bridge)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    if (memory.digest_tokens > PAGODA_DIGEST_TOKENS && !options->quiet) {
        pgd_say_note(terminal,
                     "a KV budget of %s is tight for %s tokens: on flash, %u of them share a summary, and less is "
                     "found there; a larger --kv or a smaller -c leaves room for more ('pagoda plan')",
                     pgd_size_words(memory.budget_bytes).text, pgd_count_words(memory.tokens_capacity).text,
                     memory.digest_tokens);
    }
}

enum pgd_exit pgd_load(const struct pgd_options *options, const struct pgd_terminal *terminal,
                       struct pgd_loaded *loaded)
{
    *loaded = (struct pgd_loaded) {0};
    enum pgd_exit code = pgd_load_model(options, terminal, &loaded->model);
    if (code == PGD_EXIT_OK) {
        code = pgd_load_bridge(options, loaded->model, &loaded->bridge);
    }
    if (code == PGD_EXIT_OK) {
        pgd_load_tell(options, terminal, loaded->bridge);
    } else {
        pgd_load_close(loaded);
    }
    return code;
}

/* What was spilled counts against the life of the flash. */
static void count_wear(struct pgd_bridge *bridge)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    pgd_wear_add(memory.flash_bytes_written);
}

void pgd_load_close(struct pgd_loaded *loaded)
{
    if (loaded->bridge != NULL) {
        count_wear(loaded->bridge);
    }
    pgd_bridge_close(loaded->bridge);
    pgd_model_close(loaded->model);
    *loaded = (struct pgd_loaded) {0};
}
