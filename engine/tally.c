/* engine/tally.c - see tally.h. */
#include "engine/tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define FIRST_BUCKET_TOKENS UINT64_C(1024)

struct pgd_tally {
    double *klds; /* [count], in order of arrival */
    struct pgd_tally_sums *blocks;
    struct pgd_tally_sums *documents;
    struct pgd_tally_sums buckets[PGD_TALLY_BUCKETS];
    struct pgd_tally_sums all;
    struct pgd_tally_sums acting;
    uint64_t observations_max;
    uint32_t blocks_max;
    uint32_t block_count;
    uint32_t documents_max;
    uint32_t document_count;
    bool starts_block; /* the next observation is the first of its document */
};

enum pagoda_status pgd_tally_open(uint64_t observations_max, uint32_t documents_max, struct pgd_tally **out,
                                  struct pagoda_error *error)
{
    struct pgd_tally *tally = calloc(1, sizeof(*tally));
    if (tally != NULL) {
        tally->observations_max = observations_max;
        tally->documents_max = documents_max;
        tally->blocks_max = (uint32_t) (observations_max / PGD_TALLY_BLOCK_TOKENS) + documents_max;
        tally->klds = calloc((size_t) observations_max + 1, sizeof(*tally->klds));
        tally->blocks = calloc((size_t) tally->blocks_max + 1, sizeof(*tally->blocks));
        tally->documents = calloc((size_t) documents_max + 1, sizeof(*tally->documents));
    }
    if (tally == NULL || tally->klds == NULL || tally->blocks == NULL || tally->documents == NULL) {
        pgd_tally_close(tally);
        return pgd_fail(error, PAGODA_NOMEM, "no memory for what is measured at %llu tokens",
                        (unsigned long long) observations_max);
    }
    *out = tally;
    return PAGODA_OK;
}

void pgd_tally_close(struct pgd_tally *tally)
{
    if (tally != NULL) {
        free(tally->klds);
        free(tally->blocks);
        free(tally->documents);
        free(tally);
    }
}

/* ---- taking observations ---- */

void pgd_tally_start(struct pgd_tally *tally)
{
    if (tally->document_count < tally->documents_max) {
        tally->document_count++;
        tally->starts_block = true;
    }
}

static void add_to(struct pgd_tally_sums *sums, const struct pgd_observation *observation)
{
    const double delta_p = exp(-observation->nll_tested) - exp(-observation->nll_reference);
    sums->count++;
    sums->same_top += observation->same_top ? 1 : 0;
    sums->nll_reference += observation->nll_reference;
    sums->nll_tested += observation->nll_tested;
    sums->kld += observation->kld;
    sums->delta_p += delta_p;
    sums->delta_p_square += delta_p * delta_p;
}

/* The block that the next observation belongs to. */
static struct pgd_tally_sums *next_block(struct pgd_tally *tally)
{
    const bool is_full =
        tally->block_count > 0 && tally->blocks[tally->block_count - 1].count == PGD_TALLY_BLOCK_TOKENS;
    if (tally->starts_block || is_full) {
        tally->block_count++;
        tally->starts_block = false;
    }
    return &tally->blocks[tally->block_count - 1];
}

static uint32_t bucket_of(uint64_t position)
{
    uint32_t bucket = 0;
    while (bucket + 1 < PGD_TALLY_BUCKETS && position >= pgd_tally_bucket_first(bucket + 1)) {
        bucket++;
    }
    return bucket;
}

void pgd_tally_add(struct pgd_tally *tally, const struct pgd_observation *observation)
{
    if (tally->all.count == tally->observations_max || tally->document_count == 0) {
        return;
    }
    tally->klds[tally->all.count] = observation->kld;
    add_to(&tally->all, observation);
    add_to(next_block(tally), observation);
    add_to(&tally->documents[tally->document_count - 1], observation);
    add_to(&tally->buckets[bucket_of(observation->position)], observation);
    if (observation->acted) {
        add_to(&tally->acting, observation);
    }
}

uint32_t pgd_tally_documents(const struct pgd_tally *tally)
{
    return tally->document_count;
}

const struct pgd_tally_sums *pgd_tally_document(const struct pgd_tally *tally, uint32_t index)
{
    return &tally->documents[index];
}

const struct pgd_tally_sums *pgd_tally_bucket(const struct pgd_tally *tally, uint32_t index)
{
    return &tally->buckets[index];
}

uint64_t pgd_tally_bucket_first(uint32_t index)
{
    return index == 0 ? 0 : FIRST_BUCKET_TOKENS << (index - 1);
}

/* ---- what sums say ---- */

static double mean(double sum, const struct pgd_tally_sums *sums)
{
    return sums->count == 0 ? NAN : sum / (double) sums->count;
}

double pgd_tally_mean_kld(const struct pgd_tally_sums *sums)
{
    return mean(sums->kld, sums);
}

double pgd_tally_perplexity(const struct pgd_tally_sums *sums, bool tested)
{
    return exp(mean(tested ? sums->nll_tested : sums->nll_reference, sums));
}

double pgd_tally_ratio(const struct pgd_tally_sums *sums)
{
    return exp(mean(sums->nll_tested - sums->nll_reference, sums));
}

double pgd_tally_rms_delta_p(const struct pgd_tally_sums *sums)
{
    return sqrt(mean(sums->delta_p_square, sums));
}

double pgd_tally_agreement(const struct pgd_tally_sums *sums)
{
    return mean((double) sums->same_top, sums);
}

/* ---- the summary ---- */

enum { REFERENCE, TESTED, RATIO, KLD, RMS_DELTA_P, VALUES };

/* All values from the same blocks: see statistics.h. */
static void evaluate_blocks(const void *user, const uint32_t *picks, size_t count, double *values)
{
    const struct pgd_tally *tally = user;
    struct pgd_tally_sums sums = {0};
    for (size_t i = 0; i < count; i++) {
        const struct pgd_tally_sums *block = &tally->blocks[picks[i]];
        sums.count += block->count;
        sums.nll_reference += block->nll_reference;
        sums.nll_tested += block->nll_tested;
        sums.kld += block->kld;
        sums.delta_p_square += block->delta_p_square;
    }
    values[REFERENCE] = pgd_tally_perplexity(&sums, false);
    values[TESTED] = pgd_tally_perplexity(&sums, true);
    values[RATIO] = pgd_tally_ratio(&sums);
    values[KLD] = pgd_tally_mean_kld(&sums);
    values[RMS_DELTA_P] = pgd_tally_rms_delta_p(&sums);
}

static enum pagoda_status find_intervals(const struct pgd_tally *tally, uint64_t seed,
                                         struct pgd_tally_summary *summary, struct pagoda_error *error)
{
    struct pgd_interval intervals[VALUES];
    enum pagoda_status status = PAGODA_OK;
    for (int i = 0; i < VALUES; i++) {
        intervals[i] = (struct pgd_interval) {NAN, NAN};
    }
    if (tally->block_count >= PGD_TALLY_BLOCKS_MIN) {
        const struct pgd_bootstrap bootstrap = {
            .evaluate = evaluate_blocks,
            .user = tally,
            .item_count = tally->block_count,
            .value_count = VALUES,
            .draws = PGD_TALLY_DRAWS,
            .seed = seed,
        };
        status = pgd_statistics_bootstrap(&bootstrap, intervals, error);
    }
    summary->reference = intervals[REFERENCE];
    summary->tested = intervals[TESTED];
    summary->ratio = intervals[RATIO];
    summary->kld = intervals[KLD];
    summary->rms_delta_p = intervals[RMS_DELTA_P];
    return status;
}

static enum pagoda_status find_quantiles(const struct pgd_tally *tally, struct pgd_tally_summary *summary,
                                         struct pagoda_error *error)
{
    const size_t count = (size_t) tally->all.count;
    double *sorted = malloc((count + 1) * sizeof(*sorted));
    if (sorted == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory to sort what was measured at %zu tokens", count);
    }
    memcpy(sorted, tally->klds, count * sizeof(*sorted));
    pgd_statistics_sort(sorted, count);
    summary->kld_median = pgd_statistics_quantile(sorted, count, 0.5);
    summary->kld_99 = pgd_statistics_quantile(sorted, count, 0.99);
    summary->kld_999 = pgd_statistics_quantile(sorted, count, 0.999);
    summary->kld_max = pgd_statistics_quantile(sorted, count, 1);
    free(sorted);
    return PAGODA_OK;
}

enum pagoda_status pgd_tally_summarize(const struct pgd_tally *tally, uint64_t seed, struct pgd_tally_summary *summary,
                                       struct pagoda_error *error)
{
    struct pgd_tally_summary result = {.all = tally->all, .acting = tally->acting};
    result.agreement = pgd_statistics_wilson(tally->all.same_top, tally->all.count);
    enum pagoda_status status = find_intervals(tally, seed, &result, error);
    if (status == PAGODA_OK) {
        status = find_quantiles(tally, &result, error);
    }
    if (status == PAGODA_OK) {
        *summary = result;
    }
    return status;
}
