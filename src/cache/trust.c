/* cache/trust.c - see spill.h: how far digests have been right.
 *
 * A prompt is read densely, so that what its tokens draw on is known exactly, chunk by chunk. For a few tokens of every
 * batch the digests are asked as well: when a chunk holds much of a head's attention and they expected far less, a
 * token that selects would have missed it. Some heads look for one exact token far back (induction heads, Olsson et al.
 * 2022, arXiv 2209.11895), which no small summary can tell; the layers that have them are found out in this way, and
 * read in full.
 */
#include <math.h>

#include "base/number.h"
#include "cache/spill.h"

#define FAR_LESS 0.25f      /* of what a chunk really had */
#define MEMORY_QUERIES 256u /* about so many count */
#define LEAST_SHARE (-1.4f) /* e to that, a quarter of the attention: chunks with less do little harm */
#define MISSED_MOST 0.005f  /* of the attention, on average: layers that miss less are trusted */
#define DENSE_PART 6u       /* one layer in so many is read in full at most: those that miss most */

/* Items whose last token is looked at: a few, spread over the batch. */
static bool is_looked_at(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t *slot)
{
    const uint32_t step = call->layer->item_tokens;
    const uint32_t items = (uint32_t) pgd_div_up_u64(call->cache->batch.count, step);
    const uint32_t every = (uint32_t) pgd_div_up_u64(items, PGD_TRUST_SLOTS);
    *slot = item->token / step / every;
    return item->token / step % every == 0;
}

static float *masses_of(const struct pgd_attend_call *call, uint32_t slot, uint32_t query_head)
{
    const size_t row = (size_t) slot * call->layer->shape.query_heads + query_head;
    return call->cache->spill->chunk_mass + row * call->cache->plan.chunk_capacity;
}

void pgd_trust_begin(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    uint32_t slot = 0;
    for (uint32_t g = 0; is_looked_at(call, item, &slot) && g < call->group; g++) {
        float *masses = masses_of(call, slot, item->head * call->group + g);
        for (uint32_t c = 0; c < call->cache->plan.chunk_count; c++) {
            masses[c] = -INFINITY;
        }
    }
}

void pgd_trust_note(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t chunk_index,
                    const struct pgd_partial *partial)
{
    const uint32_t first = (item->tokens - 1) * call->group;
    uint32_t slot = 0;
    for (uint32_t g = 0; is_looked_at(call, item, &slot) && g < call->group; g++) {
        masses_of(call, slot, item->head * call->group + g)[chunk_index] =
            partial->max[first + g] + logf(partial->sum[first + g]);
    }
}

/* Digests of a chunk, for one KV head; 0 when it has none, or not for all its cells. */
static uint32_t digests_of(const struct pgd_attend_call *call, const struct pgd_plan_chunk *chunk, uint32_t head,
                           const uint8_t **digests)
{
    const struct pagoda_cache *cache = call->cache;
    for (uint32_t i = 0; i < chunk->cells; i++) {
        const uint32_t index = chunk->block + (chunk->cell + i) / cache->page_cells;
        if (!pgd_spill_has_digests(cache, index)) {
            return 0;
        }
        digests[i] = pgd_spill_digest(cache, index, call->layer_index, head, (chunk->cell + i) % cache->page_cells);
    }
    return chunk->cells;
}

/* The rows of the item's last token. */
static struct pgd_packed_rows last_rows(const struct pgd_attend_call *call, const struct pgd_attend_item *item,
                                        const struct pgd_plan_chunk *chunk)
{
    struct pgd_packed_rows rows = pgd_attend_packed_rows(call, item, chunk, 0);
    const uint32_t first = (item->tokens - 1) * call->group;
    rows.count = call->group;
    rows.high += (size_t) first * rows.tiles;
    rows.low += (size_t) first * rows.tiles;
    rows.unit += first;
    rows.sum += first;
    return rows;
}

/* The share of one query head's attention in chunks that digests took for much less; `expected` is theirs. */
static float missed_in_chunk(const float *masses, uint32_t chunk, float total, float expected)
{
    const float share = pgd_ref_exp(masses[chunk] - total);
    return pgd_ref_exp(fminf(0, expected - total)) < share * FAR_LESS ? share : 0;
}

void pgd_trust_judge(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    const struct pagoda_cache *cache = call->cache;
    const struct pgd_digest_scores scores = pgd_attend_scores(call, call->group);
    uint32_t slot = 0;
    if (!is_looked_at(call, item, &slot)) {
        return;
    }
    float most = 0;
    for (uint32_t g = 0; g < call->group; g++) {
        const float *masses = masses_of(call, slot, item->head * call->group + g);
        const float total = pgd_select_log_of_sum(masses, cache->plan.chunk_count);
        float missed = 0;
        for (uint32_t c = 0; c < cache->plan.chunk_count; c++) {
            const struct pgd_plan_chunk *chunk = &cache->plan.chunks[c];
            const uint8_t *digests[PGD_CHUNK_BLOCKS];
            const uint32_t count = masses[c] > total + LEAST_SHARE ? digests_of(call, chunk, item->head, digests) : 0;
            if (count > 0) {
                const struct pgd_packed_rows rows = last_rows(call, item, chunk);
                cache->kernels->score_digests(&call->shape, PGD_LANES, count, digests, &rows, call->worker->digest,
                                              &scores);
                missed += missed_in_chunk(masses, c, total,
                                          pgd_select_log_of_sum(scores.mass + (size_t) g * scores.stride, count));
            }
        }
        most = fmaxf(most, missed);
    }
    cache->spill->judged[slot * cache->spill->trust_heads + item->head] = most;
}

void pgd_trust_fold(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    const uint32_t heads = call->layer->shape.kv_heads;
    for (uint32_t i = 0; i < PGD_TRUST_SLOTS * spill->trust_heads; i++) {
        if (spill->judged[i] >= 0 && i % spill->trust_heads < heads) {
            struct pgd_trust *trust = &spill->trust[call->layer_index * spill->trust_heads + i % spill->trust_heads];
            trust->count += trust->count < MEMORY_QUERIES ? 1 : 0;
            trust->missed += (spill->judged[i] - trust->missed) / (float) trust->count;
        }
        spill->judged[i] = -1;
    }
}

/* What the worst head of a layer misses. */
static float missed_by(const struct pagoda_cache *cache, uint32_t layer)
{
    const struct pgd_trust *trust = &cache->spill->trust[layer * cache->spill->trust_heads];
    float most = 0;
    for (uint32_t head = 0; head < cache->layers[layer].shape.kv_heads; head++) {
        most = fmaxf(most, trust[head].missed);
    }
    return most;
}

void pgd_trust_decide(struct pagoda_cache *cache)
{
    struct pgd_spill *spill = cache->spill;
    for (uint32_t i = 0; i < cache->layer_count; i++) {
        spill->layers[i].dense = false;
    }
    for (uint32_t left = (spill->growing + DENSE_PART - 1) / DENSE_PART; left > 0; left--) {
        uint32_t worst = cache->layer_count;
        float most = MISSED_MOST;
        for (uint32_t i = 0; i < cache->layer_count; i++) {
            const float missed = spill->layers[i].grows && !spill->layers[i].dense ? missed_by(cache, i) : 0;
            if (missed > most) {
                most = missed;
                worst = i;
            }
        }
        if (worst == cache->layer_count) {
            return;
        }
        spill->layers[worst].dense = true;
    }
}
