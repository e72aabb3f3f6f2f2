/* kernels/guarded.h - buffers that end at an unreadable page, with a canary where they cannot end exactly there. */
#ifndef PAGODA_TESTS_KERNELS_GUARDED_H
#define PAGODA_TESTS_KERNELS_GUARDED_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness/test.h"

#define CANARY 0xa5

struct guarded {
    unsigned char *map;
    size_t map_bytes; /* readable part */
    unsigned char *data;
    size_t bytes;
};

/* `bytes` bytes at a multiple of `align`, as close to the unreadable page as that allows. All bytes are CANARY. */
static inline struct guarded guarded_open(size_t bytes, size_t align)
{
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    struct guarded buffer = {.map_bytes = (bytes + align + page - 1) / page * page, .bytes = bytes};
    void *map = mmap(NULL, buffer.map_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    buffer.map = map;
    CHECK(mprotect(buffer.map + buffer.map_bytes, page, PROT_NONE) == 0);
    memset(buffer.map, CANARY, buffer.map_bytes);
    buffer.data = buffer.map + (buffer.map_bytes - bytes) / align * align;
    return buffer;
}

/* Fails the test if something was written beside the data. */
static inline void guarded_close(struct guarded *buffer)
{
    const size_t before = (size_t) (buffer->data - buffer->map);
    for (size_t i = 0; i < buffer->map_bytes; i++) {
        const bool inside = i >= before && i < before + buffer->bytes;
        CHECK(inside || buffer->map[i] == CANARY);
    }
    CHECK(munmap(buffer->map, buffer->map_bytes + (size_t) sysconf(_SC_PAGESIZE)) == 0);
}

#endif
