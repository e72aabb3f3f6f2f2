/* kernels/dispatch.c - which levels this build has, which of them this CPU can run, and their scratch. */
#include <stdbool.h>
#include <string.h>

#include "kernels/levels.h"
#include "os/os.h"

#define GROUP_BYTES 16384u /* half of a usual first-level data cache */
#define GROUP_BLOCKS_MIN 2u

struct level {
    const struct pgd_kernels *kernels;
    bool (*runs_here)(void);
};

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)

/* The compiler's run-time library asks the CPU, and whether the operating system saves the registers. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static const struct level levels[] = {
    {&pgd_kernels_ref, always},
    {&pgd_kernels_avx2, has_avx2},
    {&pgd_kernels_avx512, has_avx512},
    {&pgd_kernels_avx512vnni, has_avx512vnni},
};

#elif defined(__aarch64__)

static const struct level levels[] = {
    {&pgd_kernels_ref, always},
    {&pgd_kernels_neon, always}, /* part of the architecture */
    {&pgd_kernels_dotprod, pgd_os_cpu_has_dotprod},
};

#else

static const struct level levels[] = {{&pgd_kernels_ref, always}};

#endif

#define LEVEL_COUNT (sizeof levels / sizeof levels[0])

const struct pgd_kernels *pgd_kernels_at(uint32_t index)
{
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (levels[i].runs_here() && index-- == 0) {
            return levels[i].kernels;
        }
    }
    return NULL;
}

const struct pgd_kernels *pgd_kernels_select(const char *name)
{
    const bool any = name == NULL || strcmp(name, "auto") == 0;
    const struct pgd_kernels *chosen = NULL;
    const struct pgd_kernels *kernels;
    for (uint32_t i = 0; (kernels = pgd_kernels_at(i)) != NULL; i++) {
        if (any || strcmp(name, kernels->name) == 0) {
            chosen = kernels;
        }
    }
    return chosen;
}

static uint32_t whole_vectors(uint32_t size)
{
    return (size + PGD_LANES - 1) / PGD_LANES * PGD_LANES;
}

/* Floats of one converted block: of its keys, or of its values when they are more. */
static uint32_t block_floats(const struct pgd_attend_shape *shape)
{
    const uint32_t values = whole_vectors(shape->value_size);
    return PGD_LANES * (shape->key_size > values ? shape->key_size : values);
}

uint32_t pgd_kernels_group_blocks(const struct pgd_attend_shape *shape)
{
    const uint32_t blocks = GROUP_BYTES / (block_floats(shape) * (uint32_t) sizeof(float));
    if (blocks < GROUP_BLOCKS_MIN) {
        return GROUP_BLOCKS_MIN;
    }
    return blocks < PGD_CHUNK_BLOCKS ? blocks : PGD_CHUNK_BLOCKS;
}

size_t pgd_kernels_group_floats(const struct pgd_attend_shape *shape)
{
    return (size_t) pgd_kernels_group_blocks(shape) * block_floats(shape);
}

size_t pgd_kernels_scratch_floats(const struct pgd_attend_shape *shape, uint32_t rows)
{
    return pgd_kernels_group_floats(shape) + (size_t) rows * PGD_CHUNK_TOKENS;
}
