/* Quantiles, intervals and sums, against values worked out by hand or known from books. */
#include <math.h>
#include <stdlib.h>

#include "engine/rng.h"
#include "engine/statistics.h"
#include "engine/tally.h"
#include "harness/test.h"

static struct pagoda_error error;

/* ---- random numbers ---- */

TEST(random_numbers_are_those_of_splitmix64)
{
    struct pgd_rng rng = {1234567}; /* the test vector of the reference implementation */
    CHECK_EQ_U64(pgd_rng_next(&rng), UINT64_C(6457827717110365317));
    CHECK_EQ_U64(pgd_rng_next(&rng), UINT64_C(3203168211198807973));
}

TEST(random_numbers_below_a_limit_reach_all_of_it)
{
    struct pgd_rng rng = {7};
    int seen[5] = {0};
    for (int i = 0; i < 5000; i++) {
        const uint64_t number = pgd_rng_below(&rng, 5);
        CHECK(number < 5);
        seen[number]++;
    }
    for (int i = 0; i < 5; i++) {
        CHECK(seen[i] > 850 && seen[i] < 1150);
    }
}

/* ---- quantiles ---- */

TEST(quantiles_lie_between_neighbours)
{
    const double values[] = {1, 2, 4, 8};
    CHECK_NEAR(pgd_statistics_quantile(values, 4, 0), 1, 0);
    CHECK_NEAR(pgd_statistics_quantile(values, 4, 0.5), 3, 1e-12);
    CHECK_NEAR(pgd_statistics_quantile(values, 4, 0.75), 5, 1e-12); /* place 2.25 */
    CHECK_NEAR(pgd_statistics_quantile(values, 4, 1), 8, 0);
    CHECK_NEAR(pgd_statistics_quantile(values, 1, 0.99), 1, 0);
    CHECK(isnan(pgd_statistics_quantile(values, 0, 0.5)));
}

TEST(sorting_ascends)
{
    double values[] = {3, -1, 2, 2, -7};
    const double wanted[] = {-7, -1, 2, 2, 3};
    pgd_statistics_sort(values, 5);
    CHECK_MEM(values, wanted, sizeof(wanted));
}

/* ---- Wilson ---- */

TEST(wilson_gives_the_values_of_the_books)
{
    static const struct {
        uint64_t hits, trials;
        double low, high;
    } known[] = {
        {8, 10, 0.4902, 0.9433}, {50, 100, 0.4038, 0.5962}, {0, 10, 0, 0.2775}, {10, 10, 0.7225, 1}, {1, 1, 0.2065, 1},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const struct pgd_interval interval = pgd_statistics_wilson(known[i].hits, known[i].trials);
        CHECK_NEAR(interval.low, known[i].low, 1e-4);
        CHECK_NEAR(interval.high, known[i].high, 1e-4);
        CHECK(interval.low >= 0 && interval.high <= 1);
    }
    CHECK(isnan(pgd_statistics_wilson(0, 0).low));
}

/* ---- the bootstrap ---- */

#define SAMPLE 60
#define SAMPLES 200

struct sample {
    double values[SAMPLE];
};

/* The mean, and the mean minus itself. */
static void evaluate(const void *user, const uint32_t *picks, size_t count, double *values)
{
    const struct sample *sample = user;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(picks[i] < SAMPLE);
        sum += sample->values[picks[i]];
    }
    values[0] = sum / (double) count;
    values[1] = values[0] - sum / (double) count;
}

static void bootstrap(const struct sample *sample, uint64_t seed, struct pgd_interval *intervals)
{
    const struct pgd_bootstrap wanted = {evaluate, sample, SAMPLE, 2, 500, seed};
    CHECK_EQ_INT(pgd_statistics_bootstrap(&wanted, intervals, &error), PAGODA_OK);
}

static struct sample normal_sample(struct test_rng *rng)
{
    struct sample sample;
    for (int i = 0; i < SAMPLE; i++) {
        sample.values[i] = 5 + 2 * (double) test_rng_normal(rng);
    }
    return sample;
}

TEST(bootstrap_intervals_cover_the_truth_as_often_as_they_say)
{
    struct test_rng rng = test_rng(11);
    int covered = 0;
    double width = 0;
    for (int i = 0; i < SAMPLES; i++) {
        const struct sample sample = normal_sample(&rng);
        struct pgd_interval intervals[2];
        bootstrap(&sample, 1 + (uint64_t) i, intervals);
        covered += intervals[0].low <= 5 && 5 <= intervals[0].high;
        width += (intervals[0].high - intervals[0].low) / SAMPLES;
    }
    CHECK(covered >= SAMPLES * 90 / 100 && covered <= SAMPLES * 98 / 100);
    CHECK_NEAR(width, 2 * 1.96 * 2 / sqrt(SAMPLE), 0.05); /* what the normal distribution says */
}

TEST(bootstrap_is_paired_and_repeatable)
{
    struct test_rng rng = test_rng(12);
    const struct sample sample = normal_sample(&rng);
    struct pgd_interval first[2];
    struct pgd_interval again[2];
    struct pgd_interval other[2];
    bootstrap(&sample, 3, first);
    bootstrap(&sample, 3, again);
    bootstrap(&sample, 4, other);
    CHECK_MEM(first, again, sizeof(first));
    CHECK(first[0].low != other[0].low);
    CHECK_NEAR(first[1].low, 0, 0); /* both values are from the same picks: their difference does not vary */
    CHECK_NEAR(first[1].high, 0, 0);
}

/* ---- the tally ---- */

static struct pgd_tally *open_tally(uint64_t observations, uint32_t documents)
{
    struct pgd_tally *tally = NULL;
    CHECK_EQ_INT(pgd_tally_open(observations, documents, &tally, &error), PAGODA_OK);
    return tally;
}

TEST(tally_adds_up_what_was_worked_out_by_hand)
{
    struct pgd_tally *tally = open_tally(3, 2);
    const struct pgd_observation observations[] = {
        {.position = 1, .nll_reference = log(2), .nll_tested = log(4), .kld = 0.3, .same_top = true},
        {.position = 1023, .nll_reference = log(4), .nll_tested = log(2), .kld = 0.1, .acted = true},
        {.position = 1024, .nll_reference = log(2), .nll_tested = log(8), .kld = 0.2, .same_top = true, .acted = true},
    };
    pgd_tally_start(tally);
    pgd_tally_add(tally, &observations[0]);
    pgd_tally_start(tally);
    pgd_tally_add(tally, &observations[1]);
    pgd_tally_add(tally, &observations[2]);
    pgd_tally_add(tally, &observations[2]); /* beyond the room */
    struct pgd_tally_summary summary;
    CHECK_EQ_INT(pgd_tally_summarize(tally, 1, &summary, &error), PAGODA_OK);
    CHECK_EQ_U64(summary.all.count, 3);
    CHECK_NEAR(pgd_tally_perplexity(&summary.all, false), pow(2 * 4 * 2, 1.0 / 3), 1e-12);
    CHECK_NEAR(pgd_tally_perplexity(&summary.all, true), pow(4 * 2 * 8, 1.0 / 3), 1e-12);
    CHECK_NEAR(pgd_tally_ratio(&summary.all), pow(4, 1.0 / 3), 1e-12);
    CHECK_NEAR(pgd_tally_mean_kld(&summary.all), 0.2, 1e-12);
    CHECK_NEAR(pgd_tally_agreement(&summary.all), 2.0 / 3, 1e-12);
    /* delta p: 1/4 - 1/2, 1/2 - 1/4, 1/8 - 1/2 */
    CHECK_NEAR(summary.all.delta_p, -0.375, 1e-12);
    CHECK_NEAR(pgd_tally_rms_delta_p(&summary.all), sqrt((0.0625 + 0.0625 + 0.140625) / 3), 1e-12);
    CHECK_NEAR(summary.kld_median, 0.2, 1e-12);
    CHECK_NEAR(summary.kld_max, 0.3, 1e-12);
    CHECK_NEAR(summary.kld_99, 0.2 + 0.98 * 0.1, 1e-12);
    CHECK_EQ_U64(summary.acting.count, 2);
    CHECK_NEAR(pgd_tally_mean_kld(&summary.acting), 0.15, 1e-12);
    CHECK(isnan(summary.kld.low)); /* two blocks say nothing about how sure it is */
    CHECK_EQ_U64(pgd_tally_documents(tally), 2);
    CHECK_EQ_U64(pgd_tally_document(tally, 0)->count, 1);
    CHECK_EQ_U64(pgd_tally_document(tally, 1)->count, 2);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 0)->count, 2);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 1)->count, 1);
    pgd_tally_close(tally);
}

TEST(tally_buckets_double)
{
    static const uint64_t firsts[] = {0, 1024, 2048, 4096, 8192};
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQ_U64(pgd_tally_bucket_first(i), firsts[i]);
    }
    struct pgd_tally *tally = open_tally(100, 1);
    pgd_tally_start(tally);
    for (uint32_t i = 1; i < 5; i++) {
        pgd_tally_add(tally, &(struct pgd_observation) {.position = firsts[i] - 1});
        pgd_tally_add(tally, &(struct pgd_observation) {.position = firsts[i]});
    }
    CHECK_EQ_U64(pgd_tally_bucket(tally, 0)->count, 1);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 1)->count, 2);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 2)->count, 2);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 3)->count, 2);
    CHECK_EQ_U64(pgd_tally_bucket(tally, 4)->count, 1);
    pgd_tally_add(tally, &(struct pgd_observation) {.position = UINT64_MAX});
    CHECK_EQ_U64(pgd_tally_bucket(tally, PGD_TALLY_BUCKETS - 1)->count, 1);
    pgd_tally_close(tally);
}

/* KLD is `low` in every other block of 128 tokens and `high` in the rest. */
static struct pgd_tally_summary summary_of_blocks(double low, double high, uint32_t blocks)
{
    struct pgd_tally *tally = open_tally((uint64_t) blocks * PGD_TALLY_BLOCK_TOKENS, 1);
    struct pgd_tally_summary summary;
    pgd_tally_start(tally);
    for (uint32_t i = 0; i < blocks * PGD_TALLY_BLOCK_TOKENS; i++) {
        const double kld = i / PGD_TALLY_BLOCK_TOKENS % 2 == 0 ? low : high;
        pgd_tally_add(tally, &(struct pgd_observation) {.kld = kld, .nll_reference = 1, .nll_tested = 1.5});
    }
    CHECK_EQ_INT(pgd_tally_summarize(tally, 1, &summary, &error), PAGODA_OK);
    pgd_tally_close(tally);
    return summary;
}

TEST(tally_intervals_come_from_whole_blocks)
{
    const struct pgd_tally_summary summary = summary_of_blocks(0, 2, 16);
    /* 16 draws of a block with KLD 0 or 2: the mean is binomial, with deviation 1/4. Single tokens would give 1/45. */
    CHECK(summary.kld.low >= 0.375 && summary.kld.low <= 0.625);
    CHECK(summary.kld.high >= 1.375 && summary.kld.high <= 1.625);
    /* Both perplexities are the same in all blocks, and so is their ratio. */
    CHECK_NEAR(summary.ratio.low, exp(0.5), 1e-9);
    CHECK_NEAR(summary.ratio.high, exp(0.5), 1e-9);
    CHECK(isnan(summary_of_blocks(0, 2, PGD_TALLY_BLOCKS_MIN - 1).kld.low));
    CHECK(!isnan(summary_of_blocks(0, 2, PGD_TALLY_BLOCKS_MIN).kld.low));
}

TEST(tally_of_nothing_knows_nothing)
{
    struct pgd_tally *tally = open_tally(0, 0);
    struct pgd_tally_summary summary;
    pgd_tally_start(tally);
    pgd_tally_add(tally, &(struct pgd_observation) {.kld = 1});
    CHECK_EQ_INT(pgd_tally_summarize(tally, 1, &summary, &error), PAGODA_OK);
    CHECK_EQ_U64(summary.all.count, 0);
    CHECK(isnan(pgd_tally_mean_kld(&summary.all)) && isnan(pgd_tally_perplexity(&summary.all, true)));
    CHECK(isnan(summary.kld_median) && isnan(summary.agreement.low));
    pgd_tally_close(tally);
}

TEST(the_median_is_the_middle_or_the_mean_of_both)
{
    double odd[] = {9, 1, 5};
    double even[] = {8, 2, 4, 6};
    CHECK_NEAR(pgd_statistics_median(odd, 3), 5, 0);
    CHECK_NEAR(pgd_statistics_median(even, 4), 5, 0);
}
