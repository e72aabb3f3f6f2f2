/* engine/statistics.c - see statistics.h. */
#include "engine/statistics.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"
#include "engine/rng.h"

double pgd_statistics_quantile(const double *sorted, size_t count, double share)
{
    if (count == 0) {
        return NAN;
    }
    const double place = share * (double) (count - 1);
    const size_t below = (size_t) place;
    if (below + 1 >= count) {
        return sorted[count - 1];
    }
    const double rest = place - (double) below;
    return (1 - rest) * sorted[below] + rest * sorted[below + 1];
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

void pgd_statistics_sort(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare_doubles);
}

double pgd_statistics_median(double *values, size_t count)
{
    pgd_statistics_sort(values, count);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct pgd_interval pgd_statistics_wilson(uint64_t hits, uint64_t trials)
{
    static const double z = 1.959963984540054; /* 97.5 % of a normal distribution lie below */
    if (trials == 0) {
        return (struct pgd_interval) {NAN, NAN};
    }
    const double n = (double) trials;
    const double share = (double) hits / n;
    const double centre = share + z * z / (2 * n);
    const double reach = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n));
    const double whole = 1 + z * z / n;
    return (struct pgd_interval) {fmax(0, (centre - reach) / whole), fmin(1, (centre + reach) / whole)};
}

/* Fills values[value][draw]. */
static void draw_all(const struct pgd_bootstrap *bootstrap, uint32_t *picks, double *one, double *values)
{
    struct pgd_rng rng = {bootstrap->seed};
    for (uint32_t draw = 0; draw < bootstrap->draws; draw++) {
        for (uint32_t i = 0; i < bootstrap->item_count; i++) {
            picks[i] = (uint32_t) pgd_rng_below(&rng, bootstrap->item_count);
        }
        bootstrap->evaluate(bootstrap->user, picks, bootstrap->item_count, one);
        for (uint32_t value = 0; value < bootstrap->value_count; value++) {
            values[(size_t) value * bootstrap->draws + draw] = one[value];
        }
    }
}

enum pagoda_status pgd_statistics_bootstrap(const struct pgd_bootstrap *bootstrap, struct pgd_interval *intervals,
                                            struct pagoda_error *error)
{
    uint32_t *picks = calloc(bootstrap->item_count, sizeof(*picks));
    double *one = calloc(bootstrap->value_count, sizeof(*one));
    double *values = calloc((size_t) bootstrap->value_count * bootstrap->draws, sizeof(*values));
    enum pagoda_status status = PAGODA_OK;
    if (picks == NULL || one == NULL || values == NULL) {
        status = pgd_fail(error, PAGODA_NOMEM, "no memory for %u draws of a bootstrap", bootstrap->draws);
    } else {
        draw_all(bootstrap, picks, one, values);
        for (uint32_t value = 0; value < bootstrap->value_count; value++) {
            double *own = values + (size_t) value * bootstrap->draws;
            pgd_statistics_sort(own, bootstrap->draws);
            intervals[value].low = pgd_statistics_quantile(own, bootstrap->draws, 0.025);
            intervals[value].high = pgd_statistics_quantile(own, bootstrap->draws, 0.975);
        }
    }
    free(picks);
    free(one);
    free(values);
    return status;
}
