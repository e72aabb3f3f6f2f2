/* os/cpu.c - see os.h. What the compiler's run-time library cannot tell about the processor. */
#include "os/os.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#define DOTPROD_BIT 20 /* HWCAP_ASIMDDP */

bool pgd_os_cpu_has_dotprod(void)
{
    return (getauxval(AT_HWCAP) >> DOTPROD_BIT & 1u) != 0;
}

#else

bool pgd_os_cpu_has_dotprod(void)
{
    return false;
}

#endif
