/* cli/exit.h - exit codes, a contract with scripts. */
#ifndef PGD_CLI_EXIT_H
#define PGD_CLI_EXIT_H

#include "pagoda/status.h"

enum pgd_exit {
    PGD_EXIT_OK = 0,
    PGD_EXIT_FAILURE = 1,
    PGD_EXIT_USAGE = 2,
    PGD_EXIT_OVER_BUDGET = 3, /* nothing was run */
    PGD_EXIT_MODEL = 4,       /* the model cannot be loaded */
    PGD_EXIT_INTERRUPTED = 130
};

/* The code for a failure once the model is loaded. */
enum pgd_exit pgd_exit_of(enum pagoda_status status);

/* The code for a failure while the model is being loaded: whatever it was, it is the model that is not there. */
enum pgd_exit pgd_exit_of_loading(enum pagoda_status status);

#endif
