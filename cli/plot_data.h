/* cli/plot_data.h - a trace as the page of pagoda plot wants it: columns of numbers, and events.
 *
 * Threads: one. Ownership: the data owns what it holds.
 */
#ifndef PGD_CLI_PLOT_DATA_H
#define PGD_CLI_PLOT_DATA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/check.h"

#define PGD_PLOT_POINTS_MAX 4000u /* more lines are thinned: of neighbours, the one with the most bytes stays */

struct pgd_plot_data {
    json_t *page;    /* the object that the page's script reads */
    uint64_t lines;  /* moments in the trace */
    uint64_t points; /* of these, drawn */
    uint64_t events;
    bool cut_off; /* the last line was not whole and was left out */
    bool has_end; /* the run said that it ended */
};

/* Reads all of `file`. Errors: CORRUPT with the number of the line, IO, NOMEM. */
PGD_MUST_CHECK enum pagoda_status pgd_plot_data_read(FILE *file, struct pgd_plot_data *data,
                                                     struct pagoda_error *error);
void pgd_plot_data_free(struct pgd_plot_data *data);

#endif
