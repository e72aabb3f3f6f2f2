/* base/status.h - filling struct pagoda_error. */
#ifndef PGD_BASE_STATUS_H
#define PGD_BASE_STATUS_H

#include "base/check.h"
#include "pagoda/status.h"

/* Fills `error` (if not NULL) with `status` and the formatted message, cut to fit, and returns `status`:
 *     return pgd_fail(error, PAGODA_INVALID, "page_tokens is %u: ...", n); */
enum pagoda_status pgd_fail(struct pagoda_error *error, enum pagoda_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
