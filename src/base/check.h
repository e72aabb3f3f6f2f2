/* base/check.h - assertions and must-check.
 *
 * PGD_ASSERT states what is proven; it is cheap and stays in release builds. It never judges input.
 */
#ifndef PGD_BASE_CHECK_H
#define PGD_BASE_CHECK_H

#include "pagoda/status.h"

#define PGD_MUST_CHECK PAGODA_MUST_CHECK

#define PGD_ASSERT(condition) ((condition) ? (void) 0 : pgd_assert_failed(#condition, __FILE__, __LINE__))

/* Writes what failed to standard error and aborts: memory can no longer be trusted. */
_Noreturn void pgd_assert_failed(const char *condition, const char *file, int line);

#endif
