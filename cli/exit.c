/* cli/exit.c - see exit.h. */
#include "cli/exit.h"

enum pgd_exit pgd_exit_of(enum pagoda_status status)
{
    switch (status) {
    case PAGODA_OK: return PGD_EXIT_OK;
    case PAGODA_FULL:
    case PAGODA_OVER_BUDGET: return PGD_EXIT_OVER_BUDGET;
    case PAGODA_CANCELLED: return PGD_EXIT_INTERRUPTED;
    case PAGODA_INVALID:
    case PAGODA_RANGE: return PGD_EXIT_USAGE;
    case PAGODA_UNSUPPORTED: return PGD_EXIT_MODEL;
    case PAGODA_NOMEM:
    case PAGODA_IO:
    case PAGODA_NOT_FOUND:
    case PAGODA_CORRUPT:
    case PAGODA_VERSION:
    case PAGODA_MISMATCH:
    case PAGODA_LIMIT:
    case PAGODA_BUSY:
    case PAGODA_POISONED:
    case PAGODA_STATUS_COUNT: break;
    }
    return PGD_EXIT_FAILURE;
}

enum pgd_exit pgd_exit_of_loading(enum pagoda_status status)
{
    return status == PAGODA_CANCELLED ? PGD_EXIT_INTERRUPTED : PGD_EXIT_MODEL;
}
