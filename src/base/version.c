/* base/version.c - the version that is linked, as opposed to the one that was compiled against. */
#include "pagoda/version.h"

const char *pagoda_version(void)
{
    return PAGODA_VERSION;
}
