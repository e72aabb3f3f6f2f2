/* cache/queries.c - see spill.h: what the queries of a layer have been like.
 *
 * Digests keep the directions in which keys differ as seen by the queries that are to be expected; those of the
 * latest tokens are the best guess there is (as SnapKV's observation window, Li et al. 2024, arXiv 2404.14469).
 * A few tokens of every batch are looked at: means and variances, in the manner of Welford, the older ones fading.
 */
#include <math.h>

#include "base/number.h"
#include "cache/spill.h"

#define SAMPLES 4u         /* tokens of a batch */
#define MEMORY_TOKENS 512u /* about so many count */

void pgd_queries_lay_out(struct pagoda_cache *cache, struct pgd_carver *carver, struct pgd_queries *queries)
{
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        const struct pgd_spill_layer *layer = &cache->spill->layers[i];
        const struct pagoda_layer *shape = &cache->layers[i].shape;
        if (!layer->grows) {
            continue;
        }
        float *means = pgd_carve(carver, (uint64_t) shape->query_heads * shape->key_size * sizeof(*means));
        float *variance = pgd_carve(carver, (uint64_t) shape->kv_heads * shape->key_size * sizeof(*variance));
        if (carver->base != NULL) {
            queries[layer->ordinal] = (struct pgd_queries) {0, means, variance};
        }
    }
}

/* Whether a query vector can be learned from: a number that is not finite would stay in the means for good. */
static bool is_finite(const float *query, uint32_t size)
{
    bool finite = true;
    for (uint32_t d = 0; d < size; d++) {
        finite = finite && isfinite(query[d]);
    }
    return finite;
}

/* One query vector: moves the mean of its head, and the variance of its group, which has so many heads. */
static void note_vector(const float *query, uint32_t size, float part, float group, float *mean, float *variance)
{
    for (uint32_t d = 0; d < size; d++) {
        const float before = query[d] - mean[d];
        mean[d] += before * part;
        variance[d] += (before * (query[d] - mean[d]) - variance[d]) * part / group;
    }
}

static void note_token(const struct pgd_attend_call *call, struct pgd_queries *queries, uint32_t token)
{
    const struct pagoda_layer *shape = &call->layer->shape;
    queries->count += queries->count < MEMORY_TOKENS ? 1 : 0;
    const float part = 1.0f / (float) queries->count;
    for (uint32_t h = 0; h < shape->query_heads; h++) {
        const float *query = call->queries->data + token * call->queries->token_stride + h * call->queries->head_stride;
        if (is_finite(query, shape->key_size)) {
            note_vector(query, shape->key_size, part, (float) call->group,
                        queries->means + (size_t) h * shape->key_size,
                        queries->variance + (size_t) (h / call->group) * shape->key_size);
        }
    }
}

void pgd_queries_note(const struct pgd_attend_call *call)
{
    const struct pgd_spill *spill = call->cache->spill;
    const struct pgd_spill_layer *layer = &spill->layers[call->layer_index];
    const uint32_t tokens = call->cache->batch.count;
    const uint32_t samples = (uint32_t) pgd_min_u64(SAMPLES, tokens);
    for (uint32_t i = 0; layer->grows && i < samples; i++) {
        note_token(call, &spill->queries[layer->ordinal], tokens - 1 - i * (tokens / samples));
    }
}

struct pgd_digest_queries pgd_queries_of(const struct pagoda_cache *cache, uint32_t layer, uint32_t head)
{
    const struct pagoda_layer *shape = &cache->layers[layer].shape;
    const struct pgd_queries *queries = &cache->spill->queries[cache->spill->layers[layer].ordinal];
    const uint32_t group = shape->query_heads / shape->kv_heads;
    return (struct pgd_digest_queries) {
        .variance = queries->variance + (size_t) head * shape->key_size,
        .means = queries->means + (size_t) head * group * shape->key_size,
        .mean_count = (uint32_t) pgd_min_u64(group, PGD_DIGEST_QUERIES_MAX),
    };
}
