/* base/check.c - what happens when a proven thing turns out to be false. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void pgd_assert_failed(const char *condition, const char *file, int line)
{
    (void) fprintf(stderr, "pagoda: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
