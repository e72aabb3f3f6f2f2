/* engine/reserve.c - see reserve.h. */
#include "engine/reserve.h"

#include "base/number.h"
#include "base/status.h"
#include "os/os.h"

#define PAGE_TOKENS 16u
#define AUTOMATIC_BYTES_MIN (1u << 20)

uint32_t pgd_reserve_threads(const struct pgd_bridge_options *options)
{
    return options->threads != 0 ? options->threads : pgd_os_cpu_count();
}

void pgd_reserve_options(const struct pgd_bridge_options *options, const struct pagoda_layer *layers,
                         uint32_t layer_count, uint64_t trained, struct pagoda_cache_options *cache)
{
    pagoda_cache_options_default(cache);
    cache->layers = layers;
    cache->layer_count = layer_count;
    cache->page_tokens = options->page_tokens != 0 ? options->page_tokens : PAGE_TOKENS;
    cache->batch_tokens = PGD_BRIDGE_BATCH;
    cache->threads_max = (uint32_t) pgd_max_u64(pgd_reserve_threads(options), options->threads_batch);
    cache->budget_bytes = options->kv_bytes;
    cache->tokens_max = options->tokens_max != 0 ? options->tokens_max : trained;
    cache->close_gaps_at = options->keep_gaps ? 0 : trained;
    cache->rollback_tokens = options->rollback_tokens;
    cache->codec = options->codec;
    cache->codec_tight = options->codec_tight;
    cache->on_full = options->on_full;
    cache->policy = options->policy;
    cache->flash = options->flash;
    cache->counts_draws = options->counts_draws;
    cache->cpu = options->cpu;
    cache->system = options->system;
}

enum pagoda_status pgd_reserve_budget(const struct pagoda_cache_options *cache, uint64_t tokens, uint64_t *bytes,
                                      struct pagoda_error *error)
{
    struct pagoda_cache_options settled = *cache;
    if (cache->codec == PAGODA_CODEC_F16) {
        settled.exact_recent = (uint32_t) pgd_min_u64(tokens, UINT32_MAX);
    } else {
        settled.codec_tight = cache->codec;
    }
    return pagoda_cache_budget_for(&settled, tokens, bytes, error);
}

/* --kv auto: room for everything the model was trained to see, if that fits in half of the available memory. */
static enum pagoda_status automatic_budget(const struct pagoda_cache_options *cache, uint64_t trained, uint64_t *bytes,
                                           struct pagoda_error *error)
{
    struct pgd_os_memory memory;
    const uint64_t tokens = cache->tokens_max != 0 ? cache->tokens_max : trained;
    enum pagoda_status status = pgd_reserve_budget(cache, tokens, bytes, error);
    pgd_os_memory_read("", &memory);
    *bytes = pgd_min_u64(*bytes, pgd_max_u64(memory.available_bytes / 2, AUTOMATIC_BYTES_MIN));
    return status;
}

enum pagoda_status pgd_reserve_settle(struct pagoda_cache_options *cache, uint64_t trained,
                                      struct pagoda_reservation *reservation, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    if (cache->budget_bytes == 0) {
        status = automatic_budget(cache, trained, &cache->budget_bytes, error);
    }
    if (status != PAGODA_OK || cache->codec_tight <= cache->codec) {
        return status == PAGODA_OK ? pagoda_cache_plan(cache, reservation, error) : status;
    }
    struct pagoda_cache_options plain_options = *cache;
    struct pagoda_reservation plain;
    struct pagoda_reservation tight;
    plain_options.codec_tight = cache->codec;
    status = pagoda_cache_plan(&plain_options, &plain, error);
    if (status != PAGODA_OK) {
        return status;
    }
    status = pagoda_cache_plan(cache, &tight, error);
    if (status != PAGODA_OK && status != PAGODA_OVER_BUDGET) {
        return status;
    }
    if (status == PAGODA_OK && tight.tokens_capacity >= plain.tokens_capacity) {
        *reservation = tight;
    } else {
        *reservation = plain;
        *cache = plain_options;
    }
    return PAGODA_OK;
}

/* By the rule of the options, whether it is a wish or not. */
static enum pagoda_status plan_rule(const struct pgd_bridge_options *options, const struct pagoda_layer *layers,
                                    uint32_t layer_count, uint64_t trained, struct pgd_reserved *reserved,
                                    struct pagoda_error *error)
{
    struct pagoda_cache_options *cache = &reserved->cache;
    enum pagoda_status status = PAGODA_OK;
    reserved->fallback.status = PAGODA_OK;
    pgd_reserve_options(options, layers, layer_count, trained, cache);
    if (cache->budget_bytes == 0) {
        status = automatic_budget(cache, trained, &cache->budget_bytes, error);
    }
    if (options->kv_bytes_max != 0) {
        cache->budget_bytes = pgd_min_u64(cache->budget_bytes, options->kv_bytes_max);
    }
    return status == PAGODA_OK ? pgd_reserve_settle(cache, trained, &reserved->reservation, error) : status;
}

struct pgd_bridge_options pgd_reserve_otherwise(const struct pgd_bridge_options *options)
{
    struct pgd_bridge_options plain = *options;
    if (options->is_wish) {
        plain.is_wish = false;
        plain.codec = options->otherwise.codec;
        plain.codec_tight = options->otherwise.codec_tight;
        plain.on_full = options->otherwise.on_full;
    }
    return plain;
}

enum pagoda_status pgd_reserve_plan(const struct pgd_bridge_options *options, const struct pagoda_layer *layers,
                                    uint32_t layer_count, uint64_t trained, struct pgd_reserved *reserved,
                                    struct pagoda_error *error)
{
    const struct pgd_bridge_options plain = pgd_reserve_otherwise(options);
    struct pgd_reserved wished;
    struct pagoda_error why;
    enum pagoda_status status = plan_rule(&plain, layers, layer_count, trained, reserved, error);
    if (!options->is_wish || status != PAGODA_OK) {
        return status;
    }
    status = plan_rule(options, layers, layer_count, trained, &wished, &why);
    if (status == PAGODA_OVER_BUDGET ||
        (status == PAGODA_OK && wished.reservation.tokens_capacity < reserved->reservation.tokens_capacity)) {
        (void) pgd_fail(&why, PAGODA_OVER_BUDGET,
                        "a KV budget of %.4g MiB is too small for it: what it takes itself would be more than it gains",
                        (double) wished.cache.budget_bytes / 1048576.0);
        status = PAGODA_OVER_BUDGET;
    }
    if (status == PAGODA_OK) {
        *reserved = wished;
    } else {
        reserved->fallback = why;
    }
    return PAGODA_OK;
}
