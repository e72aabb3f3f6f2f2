/* cache/cpu.c - the kernel levels, as the public interface names them. */
#include "kernels/kernels.h"
#include "pagoda/version.h"

const char *pagoda_cpu_level(uint32_t index)
{
    const struct pgd_kernels *kernels = pgd_kernels_at(index);
    return kernels == NULL ? NULL : kernels->name;
}
