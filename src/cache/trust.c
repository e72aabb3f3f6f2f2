/* cache/trust.c - see spill.h: how far digests have been right.
 *
 * A prompt is read densely, so that what its tokens draw on is known exactly, chunk by chunk. For a few tokens of every
 * batch the digests are asked as well: when a chunk holds much of a head's attention and they expected far less, a
 * token that selects would have missed it; that is how detail.c finds the heads whose digests are too coarse. And
 * digests say too little, as a page that is sketched is flatter than the page: by how much, on average, in chunks
 * without such a peak, is learned for every query head and added to what its digests say.
 */
#include <math.h>

#include "base/number.h"
#include "cache/spill.h"

#define FAR_LESS 0.25f      /* of what a chunk really had */
#define MEMORY_QUERIES 256u /* about so many count */
#define LEAST_SHARE (-1.4f) /* e to that, a quarter of the attention: chunks with less do little harm */
#define LIFT_EVERY 4u       /* of the tokens looked at: one in so many is compared chunk by chunk */
#define LIFT_LEAST (-12.0f) /* e to that: chunks with less do not count */
#define LIFT_FADES 0.995f   /* with each batch */
#define LIFT_MOST 1.5f      /* either way: more would not be a matter of how flat digests are */

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

/* What one query head's attention and its digests say of the chunks of a token, in shares of its attention. */
struct comparison {
    float missed;   /* in chunks that hold much, and that digests took for far less */
    float drawn;    /* from the other chunks */
    float expected; /* the same by digests */
};

/* Of one query head. */
struct judged_row {
    const float *masses; /* of its chunks, as logarithms */
    float total;         /* of all of them */
    float least;         /* chunks with less are passed over */
    struct comparison comparison;
};

static void compare_row(struct judged_row *row, uint32_t chunk_index, float expected_mass)
{
    struct comparison *comparison = &row->comparison;
    const float mass = row->masses[chunk_index];
    const float share = pgd_ref_exp(mass - row->total);
    const float expected = pgd_ref_exp(fminf(0, expected_mass - row->total));
    if (mass <= row->total + LEAST_SHARE) {
        comparison->drawn += share;
        comparison->expected += expected;
    } else if (expected < share * FAR_LESS) {
        comparison->missed += share;
    }
}

/* Asks the digests of a chunk, if it counts for some row and all its cells have them. */
static void compare_chunk(const struct pgd_attend_call *call, const struct pgd_attend_item *item, uint32_t chunk_index,
                          struct judged_row *judged)
{
    const struct pgd_plan_chunk *chunk = &call->cache->plan.chunks[chunk_index];
    const struct pgd_digest_scores scores = pgd_attend_scores(call, call->group);
    struct pgd_spill_cells cells;
    bool counts = false;
    for (uint32_t g = 0; g < call->group; g++) {
        counts = counts || judged[g].masses[chunk_index] > judged[g].least;
    }
    if (!counts) {
        return;
    }
    pgd_spill_find_cells(call->cache, call->layer_index, chunk, item->head, &cells);
    if (cells.count < chunk->cells) {
        return;
    }
    const struct pgd_packed_rows rows = last_rows(call, item, chunk);
    const struct pgd_digest_pages pages = pgd_spill_pages(&cells, 0, cells.count);
    call->cache->kernels->score_digests(&call->shape, &pages, &rows, call->worker->digest, &scores);
    for (uint32_t g = 0; g < call->group; g++) {
        if (judged[g].masses[chunk_index] > judged[g].least) {
            const float *expected = scores.mass + (size_t) g * scores.stride;
            compare_row(&judged[g], chunk_index, pgd_select_log_of_sum(expected, cells.count));
        }
    }
}

void pgd_trust_judge(const struct pgd_attend_call *call, const struct pgd_attend_item *item)
{
    struct pgd_spill *spill = call->cache->spill;
    const uint32_t chunks = call->cache->plan.chunk_count;
    struct judged_row judged[PAGODA_HEADS_MAX];
    uint32_t slot = 0;
    if (!is_looked_at(call, item, &slot)) {
        return;
    }
    const bool lifts = slot % LIFT_EVERY == 0;
    for (uint32_t g = 0; g < call->group; g++) {
        const float *masses = masses_of(call, slot, item->head * call->group + g);
        const float total = pgd_select_log_of_sum(masses, chunks);
        judged[g] = (struct judged_row) {masses, total, total + (lifts ? LIFT_LEAST : LEAST_SHARE), {0, 0, 0}};
    }
    for (uint32_t c = 0; c < chunks; c++) {
        compare_chunk(call, item, c, judged);
    }
    float most = 0;
    for (uint32_t g = 0; g < call->group; g++) {
        const struct comparison *comparison = &judged[g].comparison;
        const bool counts = lifts && comparison->drawn > 0 && comparison->expected > 0;
        most = fmaxf(most, comparison->missed);
        spill->judged_lifts[slot * spill->lift_heads + item->head * call->group + g] = (struct pgd_lift) {
            counts ? comparison->drawn : 0, counts ? logf(comparison->drawn / comparison->expected) : 0};
    }
    spill->judged[slot * spill->trust_heads + item->head] = most;
}

static void fold_lifts(const struct pgd_attend_call *call)
{
    struct pgd_spill *spill = call->cache->spill;
    for (uint32_t row = 0; row < call->layer->shape.query_heads; row++) {
        struct pgd_lift *lift = &spill->lifts[call->layer_index * spill->lift_heads + row];
        lift->weight *= LIFT_FADES;
        for (uint32_t slot = 0; slot < PGD_TRUST_SLOTS; slot++) {
            struct pgd_lift *judged = &spill->judged_lifts[slot * spill->lift_heads + row];
            if (judged->weight > 0) {
                lift->weight += judged->weight;
                lift->log += (judged->log - lift->log) * judged->weight / lift->weight;
            }
            judged->weight = 0;
        }
    }
}

float pgd_trust_lift(const struct pagoda_cache *cache, uint32_t layer, uint32_t query_head)
{
    const float log = cache->spill->lifts[layer * cache->spill->lift_heads + query_head].log;
    return fmaxf(-LIFT_MOST, fminf(LIFT_MOST, log));
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
    fold_lifts(call);
}
