/* os/ring.h - reads by io_uring: the functions behind the ring members of struct pgd_vfs (os/os.h). */
#ifndef PGD_OS_RING_H
#define PGD_OS_RING_H

#include "os/os.h"

int pgd_ring_open(void *user, struct pgd_file *file, uint32_t depth, struct pgd_ring **ring);
bool pgd_ring_add(void *user, struct pgd_ring *ring, uint32_t tag, uint64_t offset, void *buffer, size_t bytes);
int pgd_ring_submit(void *user, struct pgd_ring *ring, uint32_t *taken);
bool pgd_ring_ready(void *user, const struct pgd_ring *ring);
bool pgd_ring_take(void *user, struct pgd_ring *ring, struct pgd_ring_done *done);
void pgd_ring_wait(void *user, struct pgd_ring *ring, uint64_t timeout_ns);
void pgd_ring_close(void *user, struct pgd_ring *ring);

#endif
