/* The flash tier: what is written comes back, by both backends, directly and through the page cache, to many threads;
 * and what open takes, what the file is, how long a wait lasts. Failures and full disks are in test_flash_faults.c. */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness/failing_system.h"
#include "unit/flash_rig.h"

/* ---- round trips ---- */

static void round_trips(const struct variant *variant)
{
    static const uint64_t sizes[] = {BLOCK,       2 * BLOCK, 3 * BLOCK, 16 * KIB,     64 * KIB,  68 * KIB,       MIB,
                                     MIB + BLOCK, 4 * MIB,   5 * BLOCK, BLOCK * 1023, BLOCK * 7, 2 * MIB - BLOCK};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    struct rig rig;
    prepare(&rig, variant);
    if (!start(&rig)) {
        return;
    }
    uint64_t offsets[SIZES];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < SIZES; i++) {
        offsets[i] = must_put(&rig, sizes[i], i);
        sum += sizes[i];
    }
    for (uint64_t i = SIZES; i-- > 0;) {
        CHECK_EQ_INT(get(&rig, offsets[i], sizes[i], i), PGD_FLASH_DONE);
    }
    /* A part of an extent, too. */
    unsigned char *const buffer = buffer_of(BLOCK);
    unsigned char *const whole = buffer_of(4 * MIB);
    fill(whole, 4 * MIB, 8);
    pgd_flash_read(rig.flash, 3, offsets[8] + 77 * BLOCK, BLOCK, buffer);
    CHECK_EQ_INT(pgd_flash_wait(rig.flash, 3, 0), PGD_FLASH_DONE);
    CHECK_MEM(buffer, whole + 77 * BLOCK, BLOCK);
    pgd_flash_finish(rig.flash, 3);
    free(buffer);
    free(whole);
    const struct pgd_flash_stats stats = stats_of(&rig);
    CHECK_EQ_U64(stats.bytes_used, sum);
    CHECK_EQ_U64(stats.file_bytes, sum);
    CHECK_EQ_U64(stats.bytes_written, sum);
    CHECK_EQ_U64(stats.bytes_read, sum + BLOCK);
    CHECK_EQ_U64(stats.writes, SIZES);
    CHECK_EQ_U64(stats.reads, SIZES + 1);
    CHECK(stats.read_errors == 0 && stats.write_errors == 0 && stats.bytes_lost == 0);
    CHECK(stats.direct == (variant->direct && !stats.in_memory));
    CHECK_STR(stats.backend, variant->backend == PGD_FLASH_URING ? "io_uring" : "threads");
    stop(&rig);
}

TEST(what_is_written_comes_back)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        round_trips(&variants[i]);
    }
}

TEST(buffered_files_leave_the_page_cache)
{
    struct rig rig;
    prepare(&rig, &variants[3]);
    CHECK(start(&rig));
    failing_vfs_arm(&rig.disk, FAILING_READ, 0, false, 0);
    const uint64_t offset = must_put(&rig, MIB, 1);
    CHECK_EQ_U64(rig.disk.calls[FAILING_SETTLE], 1);
    CHECK_EQ_INT(get(&rig, offset, MIB, 1), PGD_FLASH_DONE);
    CHECK_EQ_U64(rig.disk.forgotten, 1);
    stop(&rig);
}

/* ---- random operations against a list ---- */

#define GAME_EXTENTS 200u
#define GAME_OPERATIONS 4000         /* per backend on the disk, 8,000 in all */
#define GAME_OPERATIONS_CACHED 50000 /* per backend in memory if there is a file system for that: 100,000 in all */
#define GAME_BLOCKS_MAX 9u

struct extent {
    uint64_t offset;
    uint64_t bytes;
    uint64_t seed;
    uint32_t readers;
};

struct game {
    struct rig rig;
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
    const uint64_t offset = must_put(&game->rig, bytes, seed);
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
    pgd_flash_free(game->rig.flash, game->extents[which].offset, game->extents[which].bytes);
    game->extents[which] = game->extents[last];
    game->extent_count--;
}

static void game_read(struct game *game, uint32_t ticket)
{
    const uint32_t which = (uint32_t) test_rng_below(&game->rng, game->extent_count);
    const struct extent *const extent = &game->extents[which];
    game->extents[which].readers++;
    game->reading[ticket] = which;
    pgd_flash_read(game->rig.flash, ticket, extent->offset, extent->bytes, game->into[ticket]);
}

static void game_look(struct game *game, uint32_t ticket, bool waits)
{
    enum pgd_flash_read_state state =
        waits ? pgd_flash_wait(game->rig.flash, ticket, 0) : pgd_flash_poll(game->rig.flash, ticket);
    CHECK(state == PGD_FLASH_DONE || (state == PGD_FLASH_PENDING && !waits));
    if (state == PGD_FLASH_DONE) {
        struct extent *const extent = &game->extents[game->reading[ticket]];
        CHECK(holds(game->into[ticket], extent->bytes, extent->seed));
        pgd_flash_finish(game->rig.flash, ticket);
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

static void play(const struct variant *variant, const char *where, int operations, uint64_t seed)
{
    static struct game game;
    memset(&game, 0, sizeof game);
    prepare(&game.rig, variant);
    game.rig.options.bytes_max = 16 * MIB;
    game.rig.options.directory = where;
    game.rng = test_rng(seed);
    if (!start(&game.rig)) {
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
    const struct pgd_flash_stats stats = stats_of(&game.rig);
    CHECK_EQ_U64(stats.bytes_used, used);
    CHECK_EQ_U64(stats.bytes_written, game.written);
    CHECK(stats.read_errors == 0 && stats.write_errors == 0);
    pgd_flash_reset(game.rig.flash);
    CHECK_EQ_U64(stats_of(&game.rig).file_bytes, 0);
    stop(&game.rig);
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
    struct rig rig;
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
            CHECK_EQ_INT(pgd_flash_wait(crowd->rig.flash, ticket, 0), PGD_FLASH_DONE);
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
            pgd_flash_read(crowd->rig.flash, i, crowd->offsets[crowd->seeds[i]], 4 * BLOCK, crowd->into[i]);
        }
        (void) pthread_barrier_wait(&crowd->barrier);
        (void) pthread_barrier_wait(&crowd->barrier);
        for (uint32_t i = 0; i < READS; i++) {
            pgd_flash_finish(crowd->rig.flash, i);
            memset(crowd->into[i], 0, 4 * BLOCK);
        }
    }
}

static void run_crowd(const struct variant *variant)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof crowd);
    prepare(&crowd.rig, variant);
    if (!start(&crowd.rig)) {
        return;
    }
    for (uint32_t i = 0; i < READS; i++) {
        crowd.into[i] = buffer_of(4 * BLOCK);
        crowd.offsets[i] = must_put(&crowd.rig, 4 * BLOCK, i);
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
    stop(&crowd.rig);
}

TEST(many_threads_wait_for_the_same_reads)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        run_crowd(&variants[i]);
    }
}

/* ---- waiting no longer than asked ---- */

static uint64_t now_ns(const struct rig *rig)
{
    return rig->system.clock.now_ns(rig->system.clock.user);
}

static void throttled(const struct variant *variant)
{
    struct rig rig;
    prepare(&rig, variant);
    rig.options.throttle_bytes_per_second = 256 * KIB;
    if (!start(&rig)) {
        return;
    }
    const uint64_t first = must_put(&rig, 32 * KIB, 1);
    const uint64_t second = must_put(&rig, 32 * KIB, 2);
    unsigned char *const into = buffer_of(64 * KIB);
    const uint64_t began_ns = now_ns(&rig);
    pgd_flash_read(rig.flash, 0, first, 32 * KIB, into);
    pgd_flash_read(rig.flash, 1, second, 32 * KIB, into + 32 * KIB);
    CHECK_EQ_INT(pgd_flash_poll(rig.flash, 1), PGD_FLASH_PENDING);
    CHECK_EQ_INT(pgd_flash_wait(rig.flash, 1, began_ns + 3000000), PGD_FLASH_PENDING);
    CHECK(now_ns(&rig) >= began_ns + 3000000);
    CHECK_EQ_INT(pgd_flash_wait(rig.flash, 0, 0), PGD_FLASH_DONE);
    CHECK(now_ns(&rig) >= began_ns + 125000000); /* 32 KiB at 256 KiB a second */
    CHECK_EQ_INT(pgd_flash_wait(rig.flash, 1, 0), PGD_FLASH_DONE);
    CHECK(now_ns(&rig) >= began_ns + 250000000); /* one after the other */
    CHECK(holds(into, 32 * KIB, 1) && holds(into + 32 * KIB, 32 * KIB, 2));
    pgd_flash_finish(rig.flash, 0);
    pgd_flash_finish(rig.flash, 1);
    pgd_flash_read(rig.flash, 0, first, 32 * KIB, into); /* in flight at the end: close waits for the device only */
    stop(&rig);
    free(into);
}

TEST(a_throttle_paces_reads_and_a_deadline_ends_the_wait)
{
    throttled(&variants[0]);
    throttled(&variants[2]);
}

/* Reads take 300 ms. One thread waits until 20 ms, one for as long as it takes. */
struct patience {
    struct rig rig;
    uint64_t deadline_ns;
    enum pgd_flash_read_state seen;
};

static void *wait_a_while(void *argument)
{
    struct patience *const patience = argument;
    patience->seen = pgd_flash_wait(patience->rig.flash, 0, patience->deadline_ns);
    CHECK(now_ns(&patience->rig) >= patience->deadline_ns);
    return NULL;
}

static void slow(const struct variant *variant)
{
    struct patience patience = {.seen = PGD_FLASH_IDLE};
    struct rig *const rig = &patience.rig;
    pthread_t thread;
    prepare(rig, variant);
    if (!start(rig)) {
        return;
    }
    const uint64_t offset = must_put(rig, BLOCK, 1);
    unsigned char *const into = buffer_of(BLOCK);
    rig->disk.read_delay_us = 300000;
    const uint64_t began_ns = now_ns(rig);
    patience.deadline_ns = began_ns + 20000000;
    pgd_flash_read(rig->flash, 0, offset, BLOCK, into);
    CHECK(now_ns(rig) < began_ns + 300000000); /* to begin is not to wait */
    CHECK_EQ_INT(pthread_create(&thread, NULL, wait_a_while, &patience), 0);
    CHECK_EQ_INT(pgd_flash_wait(rig->flash, 0, 0), PGD_FLASH_DONE);
    CHECK(holds(into, BLOCK, 1) && now_ns(rig) >= began_ns + 300000000);
    CHECK_EQ_INT(pthread_join(thread, NULL), 0);
    CHECK_EQ_INT(patience.seen, PGD_FLASH_PENDING);
    pgd_flash_finish(rig->flash, 0);
    const uint64_t again_ns = now_ns(rig);
    pgd_flash_read(rig->flash, 0, offset, BLOCK, into);
    CHECK_EQ_INT(pgd_flash_wait(rig->flash, 0, again_ns), PGD_FLASH_PENDING); /* a deadline that has passed */
    pgd_flash_close(rig->flash);                                              /* waits for what is in flight */
    CHECK(holds(into, BLOCK, 1) && now_ns(rig) >= again_ns + 300000000);
    CHECK(failing_vfs_is_clean(&rig->disk));
    free(into);
}

TEST(a_slow_device_is_waited_for_until_the_deadline)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        slow(&variants[i]);
    }
}

/* ---- one reads while another writes ---- */

struct pair {
    struct rig rig;
    _Atomic bool ended;
};

static void *write_and_free(void *argument)
{
    struct pair *const pair = argument;
    for (uint64_t round = 0; !pair->ended; round++) {
        const uint64_t first = must_put(&pair->rig, 3 * BLOCK, round);
        const uint64_t second = must_put(&pair->rig, 5 * BLOCK, round);
        pgd_flash_free(pair->rig.flash, first, 3 * BLOCK);
        pgd_flash_free(pair->rig.flash, second, 5 * BLOCK);
    }
    return NULL;
}

static void read_beside_writes(const struct variant *variant)
{
    static struct pair pair;
    uint64_t offsets[READS];
    pthread_t writer;
    memset(&pair, 0, sizeof pair);
    prepare(&pair.rig, variant);
    pair.rig.options.directory = variant->direct ? directory() : fast_directory();
    if (!start(&pair.rig)) {
        return;
    }
    for (uint64_t i = 0; i < READS; i++) {
        offsets[i] = must_put(&pair.rig, 2 * BLOCK, i);
    }
    CHECK_EQ_INT(pthread_create(&writer, NULL, write_and_free, &pair), 0);
    for (uint64_t i = 0; i < 500; i++) {
        CHECK_EQ_INT(get(&pair.rig, offsets[i % READS], 2 * BLOCK, i % READS), PGD_FLASH_DONE);
    }
    pair.ended = true;
    CHECK_EQ_INT(pthread_join(writer, NULL), 0);
    CHECK_EQ_U64(stats_of(&pair.rig).bytes_used, READS * 2 * BLOCK);
    stop(&pair.rig);
}

TEST(one_thread_reads_while_the_owner_writes)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        read_beside_writes(&variants[i]);
    }
}

/* ---- open and close ---- */

TEST(all_memory_is_taken_at_open_and_is_as_much_as_was_said)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        struct failing_system host;
        struct rig rig;
        failing_system_init(&host);
        prepare(&rig, &variants[i]);
        rig.system.allocator = host.allocator;
        rig.system.memory = host.memory;
        const uint64_t said_bytes = pgd_flash_table_bytes(&rig.options);
        if (!start(&rig)) {
            continue;
        }
        CHECK(host.live_bytes <= said_bytes && said_bytes - host.live_bytes <= 64 * KIB);
        const uint64_t calls = host.total_calls;
        const uint64_t offset = must_put(&rig, 8 * BLOCK, 1);
        CHECK_EQ_INT(get(&rig, offset, 8 * BLOCK, 1), PGD_FLASH_DONE);
        pgd_flash_free(rig.flash, offset, 8 * BLOCK);
        pgd_flash_reset(rig.flash);
        CHECK_EQ_U64(host.total_calls, calls);
        stop(&rig);
        CHECK(failing_system_is_clean(&host));
        failing_system_arm(&host, 1, false);
        struct pgd_flash *none = NULL;
        CHECK_EQ_INT(pgd_flash_open(&rig.options, &none, NULL), PAGODA_NOMEM);
        CHECK(none == NULL && failing_system_is_clean(&host) && failing_vfs_is_clean(&rig.disk));
    }
}

static void check_refused(const struct rig *rig, enum pagoda_status status, const char *word)
{
    struct pgd_flash *none = NULL;
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(pgd_flash_open(&rig->options, &none, &error), status);
    CHECK(none == NULL && strstr(error.message, word) != NULL);
    CHECK(failing_vfs_is_clean(&rig->disk));
}

TEST(options_that_cannot_be)
{
    struct rig rig;
    prepare(&rig, &variants[2]);
    rig.options.reads_max = 0;
    check_refused(&rig, PAGODA_INVALID, "reads_max");
    rig.options.reads_max = PGD_FLASH_READS_MAX + 1;
    check_refused(&rig, PAGODA_INVALID, "1024");
    rig.options.reads_max = 1;
    rig.options.bytes_max = PGD_FLASH_BYTES_MAX + 1;
    check_refused(&rig, PAGODA_LIMIT, "is the most");
    rig.options.bytes_max = MIB;
    rig.options.directory = "/nowhere/at/all";
    check_refused(&rig, PAGODA_NOT_FOUND, "/nowhere/at/all");
}

TEST(threads_stand_in_where_io_uring_is_refused)
{
    static const int numbers[] = {ENOSYS, EPERM, ENOMEM};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct rig rig;
        prepare(&rig, &variants[0]);
        failing_vfs_arm(&rig.disk, FAILING_RING_OPEN, 1, true, numbers[i]);
        check_refused(&rig, PAGODA_UNSUPPORTED, "io_uring");
        rig.options.backend = PGD_FLASH_AUTO;
        CHECK(start(&rig));
        CHECK_STR(stats_of(&rig).backend, "threads");
        CHECK_EQ_INT(get(&rig, must_put(&rig, BLOCK, 1), BLOCK, 1), PGD_FLASH_DONE);
        stop(&rig);
    }
    struct rig rig;
    prepare(&rig, &variants[0]);
    rig.options.backend = PGD_FLASH_AUTO;
    failing_vfs_arm(&rig.disk, FAILING_RING_SUBMIT, 1, true, EINVAL); /* set up, but its first read goes wrong */
    CHECK(start(&rig));
    CHECK_STR(stats_of(&rig).backend, "threads");
    CHECK(stats_of(&rig).reads == 0 && stats_of(&rig).read_errors == 0);
    stop(&rig);
}

TEST(one_ticket_and_many)
{
    static const uint32_t counts[] = {1, 2, 3, 100, PGD_FLASH_READS_MAX};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < VARIANTS; k += 2) {
            struct rig rig;
            prepare(&rig, &variants[k]);
            rig.options.reads_max = counts[i];
            if (!start(&rig)) {
                continue;
            }
            const uint64_t offset = must_put(&rig, BLOCK, 1);
            unsigned char *const into = buffer_of(counts[i] * BLOCK);
            for (uint32_t t = 0; t < counts[i]; t++) {
                pgd_flash_read(rig.flash, t, offset, BLOCK, into + t * BLOCK);
            }
            for (uint32_t t = counts[i]; t-- > 0;) {
                CHECK_EQ_INT(pgd_flash_wait(rig.flash, t, 0), PGD_FLASH_DONE);
                CHECK(holds(into + t * BLOCK, BLOCK, 1));
                pgd_flash_finish(rig.flash, t);
            }
            free(into);
            stop(&rig);
        }
    }
}

/* ---- batches ---- */

/* Queues a read of one block with every ticket; `into` has room for all of them. */
static void queue_all(struct rig *rig, uint64_t first, unsigned char *into)
{
    memset(into, 0, READS * BLOCK);
    for (uint32_t i = 0; i < READS; i++) {
        pgd_flash_queue(rig->flash, i, first + (READS - 1 - i) * BLOCK, BLOCK, into + i * BLOCK);
    }
}

static void finish_all(struct rig *rig, uint64_t seed, const unsigned char *into)
{
    unsigned char *const expected = buffer_of(READS * BLOCK);
    fill(expected, READS * BLOCK, seed);
    for (uint32_t i = 0; i < READS; i++) {
        CHECK_EQ_INT(pgd_flash_wait(rig->flash, i, 0), PGD_FLASH_DONE);
        CHECK_MEM(into + i * BLOCK, expected + (READS - 1 - i) * BLOCK, BLOCK);
        pgd_flash_finish(rig->flash, i);
    }
    free(expected);
}

static void batch(const struct variant *variant)
{
    struct rig rig;
    prepare(&rig, variant);
    if (!start(&rig)) {
        return;
    }
    const uint64_t offset = must_put(&rig, READS * BLOCK, 1);
    const uint64_t calls = variant->backend == PGD_FLASH_URING ? 1 : 0;
    unsigned char *const into = buffer_of(READS * BLOCK);
    failing_vfs_arm(&rig.disk, FAILING_RING_SUBMIT, 0, false, 0);
    queue_all(&rig, offset, into);
    CHECK_EQ_U64(rig.disk.calls[FAILING_RING_SUBMIT] + rig.disk.calls[FAILING_READ], 0);
    CHECK_EQ_INT(pgd_flash_poll(rig.flash, 0), PGD_FLASH_PENDING);
    pgd_flash_submit(rig.flash);
    pgd_flash_submit(rig.flash); /* nothing is left to be handed out */
    CHECK_EQ_U64(rig.disk.calls[FAILING_RING_SUBMIT], calls);
    finish_all(&rig, 1, into);
    queue_all(&rig, offset, into);
    finish_all(&rig, 1, into); /* to wait is to submit */
    CHECK_EQ_U64(rig.disk.calls[FAILING_RING_SUBMIT], 2 * calls);
    const struct pgd_flash_stats stats = stats_of(&rig);
    CHECK(stats.reads == 2 * READS && stats.bytes_read == 2 * READS * BLOCK);
    CHECK(stats.retries == 0 && stats.read_errors == 0);
    queue_all(&rig, offset, into); /* close does not wait in vain */
    stop(&rig);
    free(into);
}

TEST(a_batch_is_handed_out_by_one_call)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        batch(&variants[i]);
    }
}

/* ---- the file itself ---- */

/* The process's open file without a name; the number of such files. */
static int find_nameless(pid_t process, struct stat *about)
{
    char path[64];
    (void) snprintf(path, sizeof path, "/proc/%ld/fd", (long) process);
    DIR *const descriptors = opendir(path);
    CHECK(descriptors != NULL);
    int count = 0;
    const struct dirent *entry;
    while ((entry = readdir(descriptors)) != NULL) {
        char link[320];
        struct stat one;
        (void) snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
        if (stat(link, &one) == 0 && S_ISREG(one.st_mode) && one.st_nlink == 0) {
            *about = one;
            count++;
        }
    }
    (void) closedir(descriptors);
    return count;
}

static int entries_in(const char *path)
{
    DIR *const listing = opendir(path);
    CHECK(listing != NULL);
    int count = -2; /* . and .. */
    while (readdir(listing) != NULL) {
        count++;
    }
    (void) closedir(listing);
    return count;
}

static void make_private_directory(char *path, size_t bytes)
{
    (void) snprintf(path, bytes, "%s/pagoda-flash-XXXXXX", directory());
    CHECK(mkdtemp(path) != NULL);
}

/* Spills, says so, and waits to be killed. */
static void spill_until_killed(const char *where, int ready)
{
    struct rig rig;
    prepare(&rig, &variants[2]);
    rig.options.directory = where;
    if (start(&rig)) {
        (void) must_put(&rig, MIB, 1);
        (void) !write(ready, "x", 1);
    }
    for (;;) {
        (void) pause();
    }
}

TEST(nothing_is_left_after_a_kill)
{
    char where[4096];
    make_private_directory(where, sizeof where);
    int pipes[2];
    CHECK_EQ_INT(pipe(pipes), 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        spill_until_killed(where, pipes[1]);
    }
    char sign;
    CHECK_EQ_INT(read(pipes[0], &sign, 1), 1);
    struct stat about;
    CHECK_EQ_INT(find_nameless(child, &about), 1);
    CHECK_EQ_INT(about.st_mode & 07777, 0600);
    CHECK(about.st_size == (off_t) MIB);
    CHECK_EQ_INT(entries_in(where), 0);
    CHECK_EQ_INT(kill(child, SIGKILL), 0);
    int status;
    CHECK_EQ_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_EQ_INT(entries_in(where), 0);
    (void) close(pipes[0]);
    (void) close(pipes[1]);
    CHECK_EQ_INT(rmdir(where), 0);
}

TEST(the_cache_directory_is_the_default)
{
    char where[4096];
    char expected[4200];
    make_private_directory(where, sizeof where);
    struct rig rig;
    struct stat about;
    prepare(&rig, &variants[2]);
    rig.options.directory = NULL;
    CHECK_EQ_INT(setenv("XDG_CACHE_HOME", where, 1), 0);
    CHECK(start(&rig));
    stop(&rig);
    (void) snprintf(expected, sizeof expected, "%s/pagoda", where);
    CHECK_EQ_INT(stat(expected, &about), 0);
    CHECK_EQ_INT(about.st_mode & 07777, 0700);
    CHECK_EQ_INT(rmdir(expected), 0);

    CHECK_EQ_INT(setenv("XDG_CACHE_HOME", "relative", 1), 0); /* means nothing, by its own specification */
    CHECK_EQ_INT(setenv("HOME", where, 1), 0);
    char path[4096];
    CHECK(pgd_os_cache_directory(path, sizeof path));
    (void) snprintf(expected, sizeof expected, "%s/.cache/pagoda", where);
    CHECK_STR(path, expected);
    CHECK_EQ_INT(rmdir(expected), 0);
    (void) snprintf(expected, sizeof expected, "%s/.cache", where);
    CHECK_EQ_INT(rmdir(expected), 0);

    CHECK_EQ_INT(setenv("HOME", "/proc/nowhere", 1), 0);
    CHECK_EQ_INT(setenv("TMPDIR", where, 1), 0);
    CHECK(pgd_os_cache_directory(path, sizeof path));
    CHECK_STR(path, where);
    CHECK(!pgd_os_cache_directory(path, 3));
    CHECK_EQ_INT(rmdir(where), 0);
}

/* ---- space that is given back ---- */

static void check_kept(struct rig *rig, const uint64_t *offsets)
{
    for (uint64_t i = 0; i < 32; i += 4) {
        CHECK_EQ_INT(get(rig, offsets[i], MIB, i), PGD_FLASH_DONE);
    }
}

TEST(holes_are_punched_when_most_of_the_file_is_free)
{
    struct rig rig;
    struct stat full;
    struct stat holed;
    uint64_t offsets[32];
    prepare(&rig, &variants[2]);
    rig.options.reserve_bytes = BLOCK;
    CHECK(start(&rig));
    for (uint64_t i = 0; i < 32; i++) {
        offsets[i] = must_put(&rig, MIB, i);
    }
    CHECK_EQ_INT(find_nameless(getpid(), &full), 1);
    for (uint64_t i = 0; i < 32; i++) {
        if (i % 4 != 0) {
            pgd_flash_free(rig.flash, offsets[i], MIB);
        }
    }
    check_kept(&rig, offsets);
    const struct pgd_flash_stats stats = stats_of(&rig);
    CHECK_EQ_U64(stats.bytes_used, 8 * MIB);
    CHECK(stats.bytes_punched >= 8 * MIB || rig.disk.calls[FAILING_PUNCH] == 1); /* once: not this file system */
    CHECK_EQ_INT(find_nameless(getpid(), &holed), 1);
    if (stats.bytes_punched > 0) {
        CHECK(holed.st_blocks < full.st_blocks && (uint64_t) holed.st_blocks * 512 <= 24 * MIB);
        rig.disk.says_free = true; /* what was given back is others' now */
        CHECK_EQ_INT(put(&rig, MIB, 99, &offsets[1], NULL), PAGODA_FULL);
        rig.disk.says_free = false;
    }
    (void) must_put(&rig, 3 * MIB, 99);
    check_kept(&rig, offsets);
    pgd_flash_reset(rig.flash);
    CHECK_EQ_INT(find_nameless(getpid(), &holed), 1);
    CHECK(holed.st_size == 0 && stats_of(&rig).bytes_used == 0);
    CHECK_EQ_U64(must_put(&rig, MIB, 5), 0);
    CHECK_EQ_INT(get(&rig, 0, MIB, 5), PGD_FLASH_DONE);
    stop(&rig);
}

static void use_space_again(int number)
{
    struct rig rig;
    uint64_t offsets[32];
    prepare(&rig, &variants[2]);
    rig.options.bytes_max = 32 * MIB;
    CHECK(start(&rig));
    failing_vfs_arm(&rig.disk, FAILING_PUNCH, 1, true, number);
    for (uint64_t i = 0; i < 32; i++) {
        offsets[i] = must_put(&rig, MIB, i);
    }
    for (uint64_t i = 0; i < 32; i++) {
        if (i % 4 != 0) {
            pgd_flash_free(rig.flash, offsets[i], MIB);
        }
    }
    CHECK(rig.disk.calls[FAILING_PUNCH] == 1 || (rig.disk.calls[FAILING_PUNCH] > 1 && number == EIO));
    CHECK_EQ_U64(stats_of(&rig).bytes_punched, 0);
    for (uint64_t i = 0; i < 8; i++) {
        (void) must_put(&rig, 3 * MIB, 100 + i);
    }
    check_kept(&rig, offsets);
    stop(&rig);
}

TEST(without_holes_space_is_still_used_again)
{
    use_space_again(EOPNOTSUPP);
    use_space_again(EIO);
}

/* ---- misuse ---- */

static void read_twice(void *user)
{
    struct rig *const rig = user;
    unsigned char *const into = buffer_of(2 * BLOCK);
    pgd_flash_read(rig->flash, 0, 0, BLOCK, into);
    pgd_flash_read(rig->flash, 0, 0, BLOCK, into + BLOCK);
}

static void finish_idle(void *user)
{
    const struct rig *const rig = user;
    pgd_flash_finish(rig->flash, 1);
}

static void read_crooked(void *user)
{
    const struct rig *const rig = user;
    unsigned char *const into = buffer_of(2 * BLOCK);
    pgd_flash_read(rig->flash, 0, 0, BLOCK, into + 512);
}

static void free_unknown(void *user)
{
    const struct rig *const rig = user;
    pgd_flash_free(rig->flash, 4 * BLOCK, BLOCK);
}

TEST(misuse_is_asserted)
{
    struct rig rig;
    prepare(&rig, &variants[2]);
    CHECK(start(&rig));
    (void) must_put(&rig, BLOCK, 1);
    CHECK_ABORTS(read_twice, &rig);
    CHECK_ABORTS(finish_idle, &rig);
    CHECK_ABORTS(read_crooked, &rig);
    CHECK_ABORTS(free_unknown, &rig);
    stop(&rig);
    pgd_flash_close(NULL);
}
