/* unit/flash_rig.h - a flash tier on a file system that can fail, and contents that are known by a number. */
#ifndef PAGODA_TESTS_UNIT_FLASH_RIG_H
#define PAGODA_TESTS_UNIT_FLASH_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/failing_vfs.h"
#include "harness/test.h"
#include "tier/flash.h"

#define KIB ((uint64_t) 1 << 10)
#define MIB ((uint64_t) 1 << 20)
#define BLOCK ((uint64_t) PGD_FLASH_ALIGN)
#define READS 8u

/* ---- a flash, and what is thought to be in it ---- */

struct variant {
    const char *name;
    enum pgd_flash_backend backend;
    bool direct;
};

static const struct variant variants[] = {
    {"io_uring, direct", PGD_FLASH_URING, true},
    {"io_uring, buffered", PGD_FLASH_URING, false},
    {"threads, direct", PGD_FLASH_THREADS, true},
    {"threads, buffered", PGD_FLASH_THREADS, false},
};
#define VARIANTS (sizeof variants / sizeof variants[0])

struct rig {
    struct failing_vfs disk;
    struct pgd_system system;
    struct pgd_flash_options options;
    struct pgd_flash *flash;
};

static inline const char *directory(void)
{
    const char *const base = getenv("TMPDIR");
    return base != NULL && base[0] != '\0' ? base : "/tmp";
}

static inline void prepare(struct rig *rig, const struct variant *variant)
{
    memset(rig, 0, sizeof *rig);
    failing_vfs_init(&rig->disk);
    pgd_os_system(NULL, &rig->system);
    rig->disk.direct_answer = variant->direct ? 0 : EINVAL;
    rig->options = (struct pgd_flash_options) {
        .directory = directory(),
        .bytes_max = 64 * MIB,
        .reads_max = READS,
        .backend = variant->backend,
        .system = &rig->system,
        .vfs = &rig->disk.vfs,
    };
}

/* False where there is no io_uring; that is said. */
static inline bool start(struct rig *rig)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pgd_flash_open(&rig->options, &rig->flash, &error);
    if (status == PAGODA_UNSUPPORTED && rig->options.backend == PGD_FLASH_URING) {
        fprintf(stderr, "note: not tested, there is no io_uring here: %s\n", error.message);
        CHECK(failing_vfs_is_clean(&rig->disk));
        return false;
    }
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    return true;
}

static inline void stop(struct rig *rig)
{
    pgd_flash_close(rig->flash);
    CHECK(failing_vfs_is_clean(&rig->disk));
}

static inline struct pgd_flash_stats stats_of(const struct rig *rig)
{
    struct pgd_flash_stats stats;
    pgd_flash_get_stats(rig->flash, &stats);
    return stats;
}

static inline unsigned char *buffer_of(uint64_t bytes)
{
    unsigned char *const buffer = aligned_alloc(PGD_FLASH_ALIGN, (size_t) bytes);
    CHECK(buffer != NULL);
    return buffer;
}

/* Contents that are known by a number. */
static inline void fill(unsigned char *buffer, uint64_t bytes, uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (uint64_t i = 0; i < bytes; i += sizeof state) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(buffer + i, &state, sizeof state);
    }
}

static inline bool holds(const unsigned char *buffer, uint64_t bytes, uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (uint64_t i = 0; i < bytes; i += sizeof state) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (memcmp(buffer + i, &state, sizeof state) != 0) {
            return false;
        }
    }
    return true;
}

static inline enum pagoda_status put(struct rig *rig, uint64_t bytes, uint64_t seed, uint64_t *offset,
                                     struct pagoda_error *error)
{
    unsigned char *const buffer = buffer_of(bytes);
    fill(buffer, bytes, seed);
    const enum pagoda_status status = pgd_flash_write(rig->flash, buffer, bytes, offset, error);
    free(buffer);
    return status;
}

static inline uint64_t must_put(struct rig *rig, uint64_t bytes, uint64_t seed)
{
    uint64_t offset = UINT64_MAX;
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = put(rig, bytes, seed, &offset, &error);
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    CHECK(offset % BLOCK == 0 && offset + bytes <= rig->options.bytes_max);
    return offset;
}

/* Reads with ticket 0 and checks the bytes when it is DONE. */
static inline enum pgd_flash_read_state get(struct rig *rig, uint64_t offset, uint64_t bytes, uint64_t seed)
{
    unsigned char *const buffer = buffer_of(bytes);
    memset(buffer, 0xEE, (size_t) bytes);
    pgd_flash_read(rig->flash, 0, offset, bytes, buffer);
    const enum pgd_flash_read_state state = pgd_flash_wait(rig->flash, 0, 0);
    CHECK(state == PGD_FLASH_DONE || state == PGD_FLASH_FAILED);
    CHECK_EQ_INT(pgd_flash_poll(rig->flash, 0), state);
    CHECK(state != PGD_FLASH_DONE || holds(buffer, bytes, seed));
    if (state == PGD_FLASH_FAILED) {
        struct pagoda_error error = {PAGODA_OK, ""};
        CHECK_EQ_INT(pgd_flash_explain(rig->flash, 0, &error), PAGODA_IO);
        CHECK(strstr(error.message, "Cannot read") != NULL);
    }
    pgd_flash_finish(rig->flash, 0);
    CHECK_EQ_INT(pgd_flash_poll(rig->flash, 0), PGD_FLASH_IDLE);
    free(buffer);
    return state;
}

/* A directory in memory, where many operations take no time; that of other tests where there is none. */
static inline const char *fast_directory(void)
{
    return access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : directory();
}

#endif
