/* engine/weights.h - how many bytes of a model's weights one token reads. Threads: any. */
#ifndef PGD_ENGINE_WEIGHTS_H
#define PGD_ENGINE_WEIGHTS_H

#include <stdint.h>

/* Of `weights_bytes` in all, those that computing one token reads: without the tables that only give a row away
 * (input embeddings, when they are not the output matrix as well), and with as many experts as a token uses. What the
 * file at `path` does not tell counts as read. */
uint64_t pgd_weights_read_bytes(const char *path, uint64_t weights_bytes);

#endif
