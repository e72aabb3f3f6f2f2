/* engine/statistics.h - quantiles and confidence intervals of 95 %. Pure but for scratch memory.
 *
 * The bootstrap (Efron 1979) draws as many items as there are, with replacement, many times over, and asks
 * between which values the middle 95 % of the results lie (the percentile interval). All values of one draw are
 * computed from the same items, so the difference or ratio of two measurements on the same text is a paired one.
 * The same seed gives the same interval.
 */
#ifndef PGD_ENGINE_STATISTICS_H
#define PGD_ENGINE_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

#include "pagoda/status.h"

/* Both NaN when too little is known to say. */
struct pgd_interval {
    double low;
    double high;
};

/* The value below which `share` (0 .. 1) of the values lie, between two neighbours linearly interpolated, as
 * llama-perplexity does (type 7 of Hyndman and Fan 1996). `sorted` ascends; NaN without values. */
double pgd_statistics_quantile(const double *sorted, size_t count, double share);

/* Sorts ascending. */
void pgd_statistics_sort(double *values, size_t count);

/* The middle value, or the mean of the two in the middle; sorts `values`. */
double pgd_statistics_median(double *values, size_t count);

/* Share of `hits` among `trials`: Wilson's score interval (1927), which stays inside 0 .. 1 and does not shrink
 * to a point at the ends. */
struct pgd_interval pgd_statistics_wilson(uint64_t hits, uint64_t trials);

/* Intervals of `value_count` values, which `evaluate` computes from the items whose indices are `picks`.
 * Errors: NOMEM. */
struct pgd_bootstrap {
    void (*evaluate)(const void *user, const uint32_t *picks, size_t count, double *values);
    const void *user;
    uint32_t item_count; /* at least 1 */
    uint32_t value_count;
    uint32_t draws;
    uint64_t seed;
};
PAGODA_MUST_CHECK enum pagoda_status pgd_statistics_bootstrap(const struct pgd_bootstrap *bootstrap,
                                                              struct pgd_interval *intervals,
                                                              struct pagoda_error *error);

#endif
