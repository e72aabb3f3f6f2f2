/* engine/tally.h - how far one cache's predictions are from another's: sums over tokens, and what they say.
 *
 * One observation per predicted token: how surprised the reference and the tested cache are by the true token, and
 * how far apart their whole distributions are. The words are llama-perplexity's: perplexity is exp(mean NLL); KLD is
 * KL(reference || tested); delta p is the tested minus the reference probability of the true token.
 *
 * Intervals come from a paired bootstrap over blocks of PGD_TALLY_BLOCK_TOKENS consecutive tokens of a document
 * (neighbouring tokens resemble each other; blocks hardly do). They say how sure a figure is for text like this
 * text. Top-1 agreement has Wilson's interval.
 *
 * Ownership: the tally owns its numbers; all memory is taken at open. Threads: one.
 */
#ifndef PGD_ENGINE_TALLY_H
#define PGD_ENGINE_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/statistics.h"

#define PGD_TALLY_BLOCK_TOKENS 128u
#define PGD_TALLY_BLOCKS_MIN 8u /* fewer say nothing about how sure a figure is: then intervals are NaN */
#define PGD_TALLY_DRAWS 2000u
#define PGD_TALLY_BUCKETS 24u

struct pgd_observation {
    uint64_t position; /* of the predicted token, in its document */
    double nll_reference;
    double nll_tested;
    double kld;
    bool same_top; /* both think the same token likeliest */
    bool acted;    /* the tested cache had dropped, quantized or spilled something by then */
};

struct pgd_tally_sums {
    uint64_t count;
    uint64_t same_top;
    double nll_reference;
    double nll_tested;
    double kld;
    double delta_p;
    double delta_p_square;
};

struct pgd_tally;

/* Room for so many observations and documents. Errors: NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_tally_open(uint64_t observations_max, uint32_t documents_max,
                                                    struct pgd_tally **tally, struct pagoda_error *error);
void pgd_tally_close(struct pgd_tally *tally);

/* What follows belongs to the next document. Call before its first observation. */
void pgd_tally_start(struct pgd_tally *tally);

/* Observations beyond the room are not taken. */
void pgd_tally_add(struct pgd_tally *tally, const struct pgd_observation *observation);

uint32_t pgd_tally_documents(const struct pgd_tally *tally);
const struct pgd_tally_sums *pgd_tally_document(const struct pgd_tally *tally, uint32_t index);

/* Bucket 0 holds positions 0 .. 1,023, bucket n those from 1,024 * 2^(n-1) up to twice that. */
const struct pgd_tally_sums *pgd_tally_bucket(const struct pgd_tally *tally, uint32_t index);
uint64_t pgd_tally_bucket_first(uint32_t index);

/* Means of sums; NaN without observations. */
double pgd_tally_mean_kld(const struct pgd_tally_sums *sums);
double pgd_tally_perplexity(const struct pgd_tally_sums *sums, bool tested);
double pgd_tally_ratio(const struct pgd_tally_sums *sums); /* perplexity, tested / reference */
double pgd_tally_rms_delta_p(const struct pgd_tally_sums *sums);
double pgd_tally_agreement(const struct pgd_tally_sums *sums);

struct pgd_tally_summary {
    struct pgd_tally_sums all;
    struct pgd_tally_sums acting; /* only tokens that were predicted while the tested cache acted */
    struct pgd_interval reference;
    struct pgd_interval tested;
    struct pgd_interval ratio;
    struct pgd_interval kld;
    struct pgd_interval rms_delta_p;
    struct pgd_interval agreement;
    double kld_median;
    double kld_99;
    double kld_999;
    double kld_max;
};

/* Errors: NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_tally_summarize(const struct pgd_tally *tally, uint64_t seed,
                                                         struct pgd_tally_summary *summary, struct pagoda_error *error);

#endif
