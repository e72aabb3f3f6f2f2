/* engine/weights.h - which of a model's weights one token reads, and which are kept twice. Threads: any. */
#ifndef PGD_ENGINE_WEIGHTS_H
#define PGD_ENGINE_WEIGHTS_H

#include <stdint.h>

struct pgd_gguf_tensor;

/* Of `weights_bytes` in all, those that computing one token reads: without the tables that only give a row away
 * (input embeddings, when they are not the output matrix as well), and with as many experts as a token uses. What the
 * file at `path` does not tell counts as read. */
uint64_t pgd_weights_read_bytes(const char *path, uint64_t weights_bytes);

/* Bytes of the copy of this matrix that libllama keeps in a layout for this processor, beside the mapped file; 0: it
 * keeps none. */
uint64_t pgd_weights_copied_bytes(const struct pgd_gguf_tensor *matrix);

#endif
