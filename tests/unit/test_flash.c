/* The flash tier: what is written comes back, by both backends, directly and through the page cache, from many threads,
 * under every failure that a device or a file system can have, and within its bounds. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/failing_system.h"
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

struct bench {
    struct failing_vfs disk;
    struct pgd_system system;
    struct pgd_flash_options options;
    struct pgd_flash *flash;
};

static const char *directory(void)
{
    const char *const base = getenv("TMPDIR");
    return base != NULL && base[0] != '\0' ? base : "/tmp";
}

static void prepare(struct bench *bench, const struct variant *variant)
{
    memset(bench, 0, sizeof *bench);
    failing_vfs_init(&bench->disk);
    pgd_os_system(NULL, &bench->system);
    bench->disk.direct_answer = variant->direct ? 0 : EINVAL;
    bench->options = (struct pgd_flash_options) {
        .directory = directory(),
        .bytes_max = 64 * MIB,
        .reads_max = READS,
        .backend = variant->backend,
        .system = &bench->system,
        .vfs = &bench->disk.vfs,
    };
}

/* False where there is no io_uring; that is said. */
static bool start(struct bench *bench)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = pgd_flash_open(&bench->options, &bench->flash, &error);
    if (status == PAGODA_UNSUPPORTED && bench->options.backend == PGD_FLASH_URING) {
        fprintf(stderr, "note: not tested, there is no io_uring here: %s\n", error.message);
        CHECK(failing_vfs_is_clean(&bench->disk));
        return false;
    }
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    return true;
}

static void stop(struct bench *bench)
{
    pgd_flash_close(bench->flash);
    CHECK(failing_vfs_is_clean(&bench->disk));
}

static struct pgd_flash_stats stats_of(const struct bench *bench)
{
    struct pgd_flash_stats stats;
    pgd_flash_get_stats(bench->flash, &stats);
    return stats;
}

static unsigned char *buffer_of(uint64_t bytes)
{
    unsigned char *const buffer = aligned_alloc(PGD_FLASH_ALIGN, (size_t) bytes);
    CHECK(buffer != NULL);
    return buffer;
}

/* Contents that are known by a number. */
static void fill(unsigned char *buffer, uint64_t bytes, uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (uint64_t i = 0; i < bytes; i += sizeof state) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(buffer + i, &state, sizeof state);
    }
}

static bool holds(const unsigned char *buffer, uint64_t bytes, uint64_t seed)
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

static enum pagoda_status put(struct bench *bench, uint64_t bytes, uint64_t seed, uint64_t *offset,
                              struct pagoda_error *error)
{
    unsigned char *const buffer = buffer_of(bytes);
    fill(buffer, bytes, seed);
    const enum pagoda_status status = pgd_flash_write(bench->flash, buffer, bytes, offset, error);
    free(buffer);
    return status;
}

static uint64_t must_put(struct bench *bench, uint64_t bytes, uint64_t seed)
{
    uint64_t offset = UINT64_MAX;
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = put(bench, bytes, seed, &offset, &error);
    CHECK_STR(error.message, "");
    CHECK_EQ_INT(status, PAGODA_OK);
    CHECK(offset % BLOCK == 0 && offset + bytes <= bench->options.bytes_max);
    return offset;
}

/* Reads with ticket 0 and checks the bytes when it is DONE. */
static enum pgd_flash_read_state get(struct bench *bench, uint64_t offset, uint64_t bytes, uint64_t seed)
{
    unsigned char *const buffer = buffer_of(bytes);
    memset(buffer, 0xEE, (size_t) bytes);
    pgd_flash_read(bench->flash, 0, offset, bytes, buffer);
    const enum pgd_flash_read_state state = pgd_flash_wait(bench->flash, 0, 0);
    CHECK(state == PGD_FLASH_DONE || state == PGD_FLASH_FAILED);
    CHECK_EQ_INT(pgd_flash_poll(bench->flash, 0), state);
    CHECK(state != PGD_FLASH_DONE || holds(buffer, bytes, seed));
    if (state == PGD_FLASH_FAILED) {
        struct pagoda_error error = {PAGODA_OK, ""};
        CHECK_EQ_INT(pgd_flash_explain(bench->flash, 0, &error), PAGODA_IO);
        CHECK(strstr(error.message, "Cannot read") != NULL);
    }
    pgd_flash_finish(bench->flash, 0);
    CHECK_EQ_INT(pgd_flash_poll(bench->flash, 0), PGD_FLASH_IDLE);
    free(buffer);
    return state;
}

/* ---- round trips ---- */

static void round_trips(const struct variant *variant)
{
    static const uint64_t sizes[] = {BLOCK,       2 * BLOCK, 3 * BLOCK, 16 * KIB,     64 * KIB,  68 * KIB,       MIB,
                                     MIB + BLOCK, 4 * MIB,   5 * BLOCK, BLOCK * 1023, BLOCK * 7, 2 * MIB - BLOCK};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    struct bench bench;
    prepare(&bench, variant);
    if (!start(&bench)) {
        return;
    }
    uint64_t offsets[SIZES];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < SIZES; i++) {
        offsets[i] = must_put(&bench, sizes[i], i);
        sum += sizes[i];
    }
    for (uint64_t i = SIZES; i-- > 0;) {
        CHECK_EQ_INT(get(&bench, offsets[i], sizes[i], i), PGD_FLASH_DONE);
    }
    /* A part of an extent, too. */
    unsigned char *const buffer = buffer_of(BLOCK);
    unsigned char *const whole = buffer_of(4 * MIB);
    fill(whole, 4 * MIB, 8);
    pgd_flash_read(bench.flash, 3, offsets[8] + 77 * BLOCK, BLOCK, buffer);
    CHECK_EQ_INT(pgd_flash_wait(bench.flash, 3, 0), PGD_FLASH_DONE);
    CHECK_MEM(buffer, whole + 77 * BLOCK, BLOCK);
    pgd_flash_finish(bench.flash, 3);
    free(buffer);
    free(whole);
    const struct pgd_flash_stats stats = stats_of(&bench);
    CHECK_EQ_U64(stats.bytes_used, sum);
    CHECK_EQ_U64(stats.file_bytes, sum);
    CHECK_EQ_U64(stats.bytes_written, sum);
    CHECK_EQ_U64(stats.bytes_read, sum + BLOCK);
    CHECK_EQ_U64(stats.writes, SIZES);
    CHECK_EQ_U64(stats.reads, SIZES + 1);
    CHECK(stats.read_errors == 0 && stats.write_errors == 0 && stats.bytes_lost == 0);
    CHECK(stats.direct == (variant->direct && !stats.in_memory));
    CHECK_STR(stats.backend, variant->backend == PGD_FLASH_URING ? "io_uring" : "threads");
    stop(&bench);
}

TEST(what_is_written_comes_back)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        round_trips(&variants[i]);
    }
}

TEST(buffered_files_leave_the_page_cache)
{
    struct bench bench;
    prepare(&bench, &variants[3]);
    CHECK(start(&bench));
    failing_vfs_arm(&bench.disk, FAILING_READ, 0, false, 0);
    const uint64_t offset = must_put(&bench, MIB, 1);
    CHECK_EQ_U64(bench.disk.calls[FAILING_SETTLE], 1);
    CHECK_EQ_INT(get(&bench, offset, MIB, 1), PGD_FLASH_DONE);
    CHECK_EQ_U64(bench.disk.forgotten, 1);
    stop(&bench);
}

/* ---- random operations against a list ---- */

#define GAME_EXTENTS 200u
#define GAME_OPERATIONS 8000         /* per backend on the disk, 16,000 in all */
#define GAME_OPERATIONS_CACHED 50000 /* per backend in memory if there is a file system for that: 100,000 in all */
#define GAME_BLOCKS_MAX 9u

struct extent {
    uint64_t offset;
    uint64_t bytes;
    uint64_t seed;
    uint32_t readers;
};

struct game {
    struct bench bench;
    struct test_rng rng;
    struct extent extents[GAME_EXTENTS];
    uint32_t extent_count;
    unsigned char *into[READS];
    int64_t reading[READS]; /* index of an extent; -1: idle */
    uint64_t next_seed;
    uint64_t written;
};

static void game_put(struct game *game)
{
    const uint64_t bytes = (1 + test_rng_below(&game->rng, GAME_BLOCKS_MAX)) * BLOCK;
    const uint64_t seed = game->next_seed++;
    const uint64_t offset = must_put(&game->bench, bytes, seed);
    for (uint32_t i = 0; i < game->extent_count; i++) {
        const struct extent *const other = &game->extents[i];
        CHECK(offset + bytes <= other->offset || other->offset + other->bytes <= offset);
    }
    game->extents[game->extent_count++] = (struct extent) {offset, bytes, seed, 0};
    game->written += bytes;
}

static void game_free(struct game *game)
{
    const uint32_t last = game->extent_count - 1;
    const uint32_t which = (uint32_t) test_rng_below(&game->rng, game->extent_count);
    if (game->extents[which].readers > 0 || game->extents[last].readers > 0) {
        return;
    }
    pgd_flash_free(game->bench.flash, game->extents[which].offset, game->extents[which].bytes);
    game->extents[which] = game->extents[last];
    game->extent_count--;
}

static void game_read(struct game *game, uint32_t ticket)
{
    const uint32_t which = (uint32_t) test_rng_below(&game->rng, game->extent_count);
    const struct extent *const extent = &game->extents[which];
    game->extents[which].readers++;
    game->reading[ticket] = which;
    pgd_flash_read(game->bench.flash, ticket, extent->offset, extent->bytes, game->into[ticket]);
}

static void game_look(struct game *game, uint32_t ticket, bool waits)
{
    enum pgd_flash_read_state state =
        waits ? pgd_flash_wait(game->bench.flash, ticket, 0) : pgd_flash_poll(game->bench.flash, ticket);
    CHECK(state == PGD_FLASH_DONE || (state == PGD_FLASH_PENDING && !waits));
    if (state == PGD_FLASH_DONE) {
        struct extent *const extent = &game->extents[game->reading[ticket]];
        CHECK(holds(game->into[ticket], extent->bytes, extent->seed));
        pgd_flash_finish(game->bench.flash, ticket);
        extent->readers--;
        game->reading[ticket] = -1;
    }
}

static void game_step(struct game *game)
{
    const uint64_t die = test_rng_below(&game->rng, 100);
    const uint32_t ticket = (uint32_t) test_rng_below(&game->rng, READS);
    if (game->extent_count == 0 || (die < 15 && game->extent_count < GAME_EXTENTS)) {
        game_put(game);
    } else if (die < 29) {
        game_free(game);
    } else if (game->reading[ticket] < 0) {
        game_read(game, ticket);
    } else {
        game_look(game, ticket, die < 60);
    }
}

/* A directory in memory, where many operations take no time. */
static const char *fast_directory(void)
{
    return access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : directory();
}

static void play(const struct variant *variant, const char *where, int operations, uint64_t seed)
{
    static struct game game;
    memset(&game, 0, sizeof game);
    prepare(&game.bench, variant);
    game.bench.options.bytes_max = 16 * MIB;
    game.bench.options.directory = where;
    game.rng = test_rng(seed);
    if (!start(&game.bench)) {
        return;
    }
    for (uint32_t i = 0; i < READS; i++) {
        game.into[i] = buffer_of(GAME_BLOCKS_MAX * BLOCK);
        game.reading[i] = -1;
    }
    for (int i = 0; i < operations; i++) {
        game_step(&game);
    }
    for (uint32_t i = 0; i < READS; i++) {
        if (game.reading[i] >= 0) {
            game_look(&game, i, true);
        }
        free(game.into[i]);
    }
    uint64_t used = 0;
    for (uint32_t i = 0; i < game.extent_count; i++) {
        used += game.extents[i].bytes;
    }
    const struct pgd_flash_stats stats = stats_of(&game.bench);
    CHECK_EQ_U64(stats.bytes_used, used);
    CHECK_EQ_U64(stats.bytes_written, game.written);
    CHECK(stats.read_errors == 0 && stats.write_errors == 0);
    pgd_flash_reset(game.bench.flash);
    CHECK_EQ_U64(stats_of(&game.bench).file_bytes, 0);
    stop(&game.bench);
}

TEST(random_operations_by_io_uring)
{
    play(&variants[0], directory(), GAME_OPERATIONS, test_seed());
}

TEST(random_operations_by_threads)
{
    play(&variants[2], directory(), GAME_OPERATIONS, test_seed());
}

TEST(random_operations_by_io_uring_through_the_page_cache)
{
    play(&variants[1], fast_directory(), GAME_OPERATIONS_CACHED, test_seed());
}

TEST(random_operations_by_threads_through_the_page_cache)
{
    play(&variants[3], fast_directory(), GAME_OPERATIONS_CACHED, test_seed());
}

/* ---- many that wait ---- */

#define CROWD 3u
#define CROWD_ROUNDS 300u

struct crowd {
    struct bench bench;
    pthread_barrier_t barrier;
    unsigned char *into[READS];
    uint64_t offsets[READS];
    uint64_t seeds[READS];
};

/* All threads wait for all tickets, each in its own order; then one of them reads on. */
static void *wait_in_crowd(void *argument)
{
    struct crowd *const crowd = argument;
    for (uint32_t round = 0; round < CROWD_ROUNDS; round++) {
        (void) pthread_barrier_wait(&crowd->barrier);
        for (uint32_t i = 0; i < READS; i++) {
            const uint32_t ticket = (i * 3 + round) % READS;
            CHECK_EQ_INT(pgd_flash_wait(crowd->bench.flash, ticket, 0), PGD_FLASH_DONE);
            CHECK(holds(crowd->into[ticket], 4 * BLOCK, crowd->seeds[ticket]));
        }
        (void) pthread_barrier_wait(&crowd->barrier);
    }
    return NULL;
}

static void conduct(struct crowd *crowd)
{
    for (uint32_t round = 0; round < CROWD_ROUNDS; round++) {
        for (uint32_t i = 0; i < READS; i++) {
            crowd->seeds[i] = (i + round) % READS;
            pgd_flash_read(crowd->bench.flash, i, crowd->offsets[crowd->seeds[i]], 4 * BLOCK, crowd->into[i]);
        }
        (void) pthread_barrier_wait(&crowd->barrier);
        (void) pthread_barrier_wait(&crowd->barrier);
        for (uint32_t i = 0; i < READS; i++) {
            pgd_flash_finish(crowd->bench.flash, i);
            memset(crowd->into[i], 0, 4 * BLOCK);
        }
    }
}

static void run_crowd(const struct variant *variant)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof crowd);
    prepare(&crowd.bench, variant);
    if (!start(&crowd.bench)) {
        return;
    }
    for (uint32_t i = 0; i < READS; i++) {
        crowd.into[i] = buffer_of(4 * BLOCK);
        crowd.offsets[i] = must_put(&crowd.bench, 4 * BLOCK, i);
    }
    pthread_t threads[CROWD];
    CHECK_EQ_INT(pthread_barrier_init(&crowd.barrier, NULL, CROWD + 1), 0);
    for (uint32_t i = 0; i < CROWD; i++) {
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, wait_in_crowd, &crowd), 0);
    }
    conduct(&crowd);
    for (uint32_t i = 0; i < CROWD; i++) {
        CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    }
    for (uint32_t i = 0; i < READS; i++) {
        free(crowd.into[i]);
    }
    (void) pthread_barrier_destroy(&crowd.barrier);
    stop(&crowd.bench);
}

TEST(many_threads_wait_for_the_same_reads)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        run_crowd(&variants[i]);
    }
}
