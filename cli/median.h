/* cli/median.h - the middle of several numbers. Pure; any thread. */
#ifndef PGD_CLI_MEDIAN_H
#define PGD_CLI_MEDIAN_H

#include <stddef.h>

/* Sorts `values`; of an even number of them it is the mean of the two in the middle. `count` is at least 1. */
double pgd_median(double *values, size_t count);

#endif
