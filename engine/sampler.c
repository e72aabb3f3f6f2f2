/* engine/sampler.c - see sampler.h. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"
#include "llama.h"

struct pgd_sampler {
    struct llama_sampler *chain;
    struct llama_token_data *candidates; /* [vocabulary] */
    uint32_t vocabulary;
};

void pgd_sampler_options_default(struct pgd_sampler_options *options)
{
    *options = (struct pgd_sampler_options) {
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
        .seed = LLAMA_DEFAULT_SEED, /* another one each time */
    };
}

/* ---- options ---- */

static enum pagoda_status check_float(const char *flag, float value, float low, float high, struct pagoda_error *error)
{
    if (isfinite(value) && value >= low && value <= high) {
        return PAGODA_OK;
    }
    return pgd_fail(error, PAGODA_INVALID, "%s %g is out of range: it goes from %g to %g", flag, (double) value,
                    (double) low, (double) high);
}

static enum pagoda_status check_int(const char *flag, int32_t value, int32_t high, struct pagoda_error *error)
{
    if (value >= 0 && value <= high) {
        return PAGODA_OK;
    }
    return pgd_fail(error, PAGODA_INVALID, "%s %d is out of range: it goes from 0 to %d", flag, value, high);
}

static enum pagoda_status check_options(const struct pgd_sampler_options *options, struct pagoda_error *error)
{
    enum pagoda_status status = check_float("--temp", options->temperature, 0.0f, 100.0f, error);
    if (status == PAGODA_OK) {
        status = check_int("--top-k", options->top_k, INT32_MAX, error);
    }
    if (status == PAGODA_OK) {
        status = check_float("--top-p", options->top_p, 0.0f, 1.0f, error);
    }
    if (status == PAGODA_OK) {
        status = check_float("--min-p", options->min_p, 0.0f, 1.0f, error);
    }
    if (status == PAGODA_OK) {
        status = check_float("--repeat-penalty", options->repeat_penalty, 0.01f, 100.0f, error);
    }
    if (status == PAGODA_OK) {
        status = check_int("--repeat-last-n", options->repeat_last_n, 1 << 20, error);
    }
    return status;
}

/* ---- the chain ---- */

static bool add(struct llama_sampler *chain, struct llama_sampler *link)
{
    if (link == NULL) {
        return false;
    }
    llama_sampler_chain_add(chain, link);
    return true;
}

/* llama.cpp's order: what cuts comes before the temperature, so that a high one cannot revive the tail. */
static bool add_links(struct llama_sampler *chain, uint32_t vocabulary, const struct pgd_sampler_options *options)
{
    bool added = add(chain, llama_sampler_init_penalties((int32_t) vocabulary, options->repeat_last_n,
                                                         options->repeat_penalty, 0.0f, 0.0f));
    if (options->temperature <= 0.0f) {
        return added && add(chain, llama_sampler_init_greedy());
    }
    return added && add(chain, llama_sampler_init_top_k(options->top_k)) &&
           add(chain, llama_sampler_init_top_p(options->top_p, 1)) &&
           add(chain, llama_sampler_init_min_p(options->min_p, 1)) &&
           add(chain, llama_sampler_init_temp(options->temperature)) &&
           add(chain, llama_sampler_init_dist(options->seed));
}

enum pagoda_status pgd_sampler_open(const struct pgd_model *model, const struct pgd_sampler_options *options,
                                    struct pgd_sampler **out, struct pagoda_error *error)
{
    enum pagoda_status status = check_options(options, error);
    if (status != PAGODA_OK) {
        return status;
    }
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    struct pgd_sampler *sampler = calloc(1, sizeof(*sampler));
    if (sampler == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a sampler");
    }
    sampler->vocabulary = vocabulary;
    sampler->candidates = calloc(vocabulary, sizeof(*sampler->candidates));
    struct llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    sampler->chain = llama_sampler_chain_init(params);
    if (sampler->candidates == NULL || sampler->chain == NULL || !add_links(sampler->chain, vocabulary, options)) {
        pgd_sampler_close(sampler);
        return pgd_fail(error, PAGODA_NOMEM, "no memory for a sampler over %u tokens", vocabulary);
    }
    *out = sampler;
    return PAGODA_OK;
}

void pgd_sampler_close(struct pgd_sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    if (sampler->chain != NULL) {
        llama_sampler_free(sampler->chain);
    }
    free(sampler->candidates);
    free(sampler);
}

/* Logits that are no numbers would make the chain's sums meaningless; as -infinity they are just never picked. */
static float usable(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

int32_t pgd_sampler_pick(struct pgd_sampler *sampler, const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < sampler->vocabulary; i++) {
        sampler->candidates[i] =
            (struct llama_token_data) {.id = (llama_token) i, .logit = usable(logits[i]), .p = 0.0f};
        best = usable(logits[i]) > usable(logits[best]) ? i : best;
    }
    struct llama_token_data_array array = {
        .data = sampler->candidates,
        .size = sampler->vocabulary,
        .selected = -1,
        .sorted = false,
    };
    llama_sampler_apply(sampler->chain, &array);
    const bool found = array.selected >= 0 && (size_t) array.selected < array.size;
    const int32_t token = found ? array.data[array.selected].id : (int32_t) best;
    llama_sampler_accept(sampler->chain, token);
    return token;
}

void pgd_sampler_reset(struct pgd_sampler *sampler)
{
    llama_sampler_reset(sampler->chain);
}
