/* kernels/levels.h - the levels that dispatch.c chooses from. Each exists only in builds for its processor.
 *
 * Except for "ref", a level may be called only on a CPU that has its instructions.
 */
#ifndef PGD_KERNELS_LEVELS_H
#define PGD_KERNELS_LEVELS_H

#include "kernels/kernels.h"

extern const struct pgd_kernels pgd_kernels_ref;
extern const struct pgd_kernels pgd_kernels_avx2;
extern const struct pgd_kernels pgd_kernels_avx512;
extern const struct pgd_kernels pgd_kernels_avx512vnni;
extern const struct pgd_kernels pgd_kernels_neon;
extern const struct pgd_kernels pgd_kernels_dotprod;

/* Scratch holds, in this order, a group of blocks converted to f32 (keys first, then values, in the same
 * place) and the scores of every row, PGD_CHUNK_TOKENS each. A group is small enough to stay in the first
 * cache, yet at least two blocks. Value rows are padded to whole vectors. */
uint32_t pgd_kernels_group_blocks(const struct pgd_attend_shape *shape);
size_t pgd_kernels_group_floats(const struct pgd_attend_shape *shape);

#endif
