/* The sampler: what it may pick, and that it does so again. */
#include "engine/sampler.h"

#include <math.h>

#include "engine_test.h"

static struct pagoda_error error;

#define PICKS 400

static struct pgd_sampler *open_sampler(const struct pgd_model *model, const struct pgd_sampler_options *options)
{
    struct pgd_sampler *sampler = NULL;
    CHECK_OK(pgd_sampler_open(model, options, &sampler, &error));
    return sampler;
}

/* Logits of which all but the first few are hopeless. */
static float *make_logits(const struct pgd_model *model, const float *first, size_t count)
{
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    float *logits = malloc(vocabulary * sizeof(*logits));
    CHECK(logits != NULL);
    for (uint32_t i = 0; i < vocabulary; i++) {
        logits[i] = i < count ? first[i] : -30.0f;
    }
    return logits;
}

/* How often each of the first 8 tokens is picked in PICKS picks. */
static void count_picks(const struct pgd_model *model, const struct pgd_sampler_options *options, const float *logits,
                        int counts[8])
{
    struct pgd_sampler *sampler = open_sampler(model, options);
    memset(counts, 0, 8 * sizeof(counts[0]));
    for (int i = 0; i < PICKS; i++) {
        const int32_t token = pgd_sampler_pick(sampler, logits);
        CHECK(token >= 0 && token < 8);
        counts[token]++;
    }
    pgd_sampler_close(sampler);
}

TEST(picks_follow_the_options)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    /* probabilities 0.50, 0.25, 0.15, 0.07, 0.03 */
    const float first[] = {-0.693f, -1.386f, -1.897f, -2.659f, -3.507f};
    float *logits = make_logits(model, first, 5);
    struct pgd_sampler_options options;
    pgd_sampler_options_default(&options);
    options.seed = 7;
    int counts[8];
    options.temperature = 0;
    count_picks(model, &options, logits, counts);
    CHECK_EQ_INT(counts[0], PICKS);
    options = (struct pgd_sampler_options) {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};
    count_picks(model, &options, logits, counts);
    CHECK_NEAR(counts[0], 0.5 * PICKS, 0.1 * PICKS);
    CHECK_NEAR(counts[1], 0.25 * PICKS, 0.1 * PICKS);
    CHECK(counts[4] > 0 && counts[4] < counts[2]);
    options.top_k = 2;
    count_picks(model, &options, logits, counts);
    CHECK_EQ_INT(counts[0] + counts[1], PICKS);
    CHECK(counts[1] > 0);
    options.top_k = 0;
    options.top_p = 0.7f; /* 0.50 + 0.25 */
    count_picks(model, &options, logits, counts);
    CHECK_EQ_INT(counts[0] + counts[1], PICKS);
    CHECK(counts[1] > 0);
    options.top_p = 1;
    options.min_p = 0.25f; /* of 0.50: at least 0.125 */
    count_picks(model, &options, logits, counts);
    CHECK_EQ_INT(counts[0] + counts[1] + counts[2], PICKS);
    CHECK(counts[2] > 0);
    options.min_p = 0;
    options.temperature = 0.2f;
    count_picks(model, &options, logits, counts);
    CHECK(counts[0] > PICKS * 9 / 10);
    free(logits);
    pgd_model_close(model);
}

TEST(a_seed_gives_the_same_picks_again)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const float first[] = {0, 0, 0, 0, 0, 0, 0, 0};
    float *logits = make_logits(model, first, 8);
    struct pgd_sampler_options options;
    pgd_sampler_options_default(&options);
    options.seed = 42;
    int32_t picks[3][64];
    struct pgd_sampler *sampler = open_sampler(model, &options);
    for (int run = 0; run < 2; run++) {
        for (int i = 0; i < 64; i++) {
            picks[run][i] = pgd_sampler_pick(sampler, logits);
        }
        pgd_sampler_reset(sampler);
    }
    pgd_sampler_close(sampler);
    options.seed = 43;
    sampler = open_sampler(model, &options);
    for (int i = 0; i < 64; i++) {
        picks[2][i] = pgd_sampler_pick(sampler, logits);
    }
    pgd_sampler_close(sampler);
    CHECK_MEM(picks[0], picks[1], sizeof(picks[0]));
    CHECK(memcmp(picks[0], picks[2], sizeof(picks[0])) != 0);
    free(logits);
    pgd_model_close(model);
}

TEST(what_was_picked_is_held_against_it)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const float first[] = {5, 4, 3};
    float *logits = make_logits(model, first, 3);
    struct pgd_sampler_options options;
    pgd_sampler_options_default(&options);
    options.temperature = 0;
    options.repeat_penalty = 2;
    options.repeat_last_n = 2;
    struct pgd_sampler *sampler = open_sampler(model, &options);
    CHECK_EQ_INT(pgd_sampler_pick(sampler, logits), 0); /* 5 */
    CHECK_EQ_INT(pgd_sampler_pick(sampler, logits), 1); /* 4 against 2.5 */
    CHECK_EQ_INT(pgd_sampler_pick(sampler, logits), 2); /* 3 against 2.5 and 2 */
    CHECK_EQ_INT(pgd_sampler_pick(sampler, logits), 0); /* forgiven */
    pgd_sampler_reset(sampler);
    CHECK_EQ_INT(pgd_sampler_pick(sampler, logits), 0);
    pgd_sampler_close(sampler);
    free(logits);
    pgd_model_close(model);
}

TEST(logits_that_are_no_numbers_are_not_picked)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const float first[] = {NAN, 1, -INFINITY, NAN, 2};
    float *logits = make_logits(model, first, 5);
    struct pgd_sampler_options options;
    pgd_sampler_options_default(&options);
    for (int i = 0; i < 2; i++) {
        struct pgd_sampler *sampler = open_sampler(model, &options);
        const int32_t token = pgd_sampler_pick(sampler, logits);
        CHECK(token == 1 || token == 4);
        pgd_sampler_close(sampler);
        options.temperature = 0;
    }
    free(logits);
    pgd_model_close(model);
}

TEST(options_out_of_range_are_named)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_sampler_options good;
    pgd_sampler_options_default(&good);
    struct pgd_sampler_options bad[8];
    const char *flags[8] = {"--temp",  "--temp",  "--top-k",          "--top-p",
                            "--min-p", "--min-p", "--repeat-penalty", "--repeat-last-n"};
    for (int i = 0; i < 8; i++) {
        bad[i] = good;
    }
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 1.5f;
    bad[4].min_p = -0.1f;
    bad[5].min_p = INFINITY;
    bad[6].repeat_penalty = 0;
    bad[7].repeat_last_n = -1;
    for (int i = 0; i < 8; i++) {
        struct pgd_sampler *sampler = NULL;
        CHECK_FAILS(pgd_sampler_open(model, &bad[i], &sampler, &error), PAGODA_INVALID);
        CHECK_SAYS(flags[i]);
        CHECK(sampler == NULL);
    }
    pgd_sampler_close(NULL);
    pgd_model_close(model);
}
