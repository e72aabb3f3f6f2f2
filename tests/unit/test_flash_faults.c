/* The flash tier when things go wrong: each call fails in turn, in every way that it can, once and for good; the bounds
 * on what is taken and written; and disks that really are full. What is read is right, or it is said not to be. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "unit/flash_rig.h"

/* ---- each call in turn ---- */

#define EXTENTS 6u

struct story {
    struct rig rig;
    uint64_t offsets[EXTENTS];
    bool is_there[EXTENTS];
    uint64_t refused; /* writes and reads that failed */
};

static const uint64_t story_bytes[EXTENTS] = {BLOCK, 4 * BLOCK, 16 * BLOCK, 2 * BLOCK, 3 * BLOCK, 8 * BLOCK};

/* A failure is typed and told in words. */
static void story_put(struct story *story, uint64_t i)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    const enum pagoda_status status = put(&story->rig, story_bytes[i], i, &story->offsets[i], &error);
    story->is_there[i] = status == PAGODA_OK;
    if (status != PAGODA_OK) {
        const int number = story->rig.disk.number == FAILING_SHORT ? EIO : story->rig.disk.number;
        CHECK_EQ_INT(status, PAGODA_IO);
        CHECK(strstr(error.message, strerror(number)) != NULL);
        story->refused++;
    }
}

static void story_get(struct story *story, uint64_t i)
{
    if (story->is_there[i] && get(&story->rig, story->offsets[i], story_bytes[i], i) != PGD_FLASH_DONE) {
        story->refused++;
    }
}

static void story_check(const struct story *story)
{
    uint64_t used = 0;
    for (uint64_t i = 0; i < EXTENTS; i++) {
        used += story->is_there[i] ? story_bytes[i] : 0;
    }
    const struct pgd_flash_stats stats = stats_of(&story->rig);
    CHECK_EQ_U64(stats.bytes_used, used);
    CHECK(stats.read_errors + stats.write_errors <= story->refused);
}

static void story_tell(struct story *story)
{
    for (uint64_t i = 0; i < EXTENTS; i++) {
        story_put(story, i);
    }
    for (uint64_t i = 0; i < EXTENTS; i += 2) {
        story_get(story, i);
        if (story->is_there[i]) {
            pgd_flash_free(story->rig.flash, story->offsets[i], story_bytes[i]);
            story->is_there[i] = false;
        }
    }
    story_check(story);
    story_put(story, 4);
    story_put(story, 0);
    for (uint64_t i = 0; i < EXTENTS; i++) {
        story_get(story, i);
    }
    story_check(story);
}

/* When the device has recovered, so has the tier. */
static void story_recover(struct story *story)
{
    failing_vfs_arm(&story->rig.disk, FAILING_READ, 0, false, 0);
    for (uint64_t i = 0; i < EXTENTS; i++) {
        if (!story->is_there[i]) {
            story_put(story, i);
        }
        CHECK(story->is_there[i]);
        CHECK_EQ_INT(get(&story->rig, story->offsets[i], story_bytes[i], i), PGD_FLASH_DONE);
    }
    pgd_flash_reset(story->rig.flash);
}

struct fault {
    enum failing_call call;
    int number;
    bool sticky;
};

static bool is_absorbed(const struct fault *fault)
{
    const bool is_transfer = fault->call == FAILING_READ || fault->call == FAILING_WRITE;
    const bool is_harmless = fault->number == EINTR || fault->number == FAILING_SHORT;
    return !fault->sticky &&
           (fault->call == FAILING_READ || fault->call == FAILING_RING_ADD || fault->call == FAILING_RING_SUBMIT ||
            fault->call == FAILING_TRUNCATE || fault->call == FAILING_PUNCH || (is_transfer && is_harmless));
}

/* One telling with failure number `nth`; false when it did not come to that any more. */
static bool tell_with(const struct variant *variant, const struct fault *fault, uint64_t nth)
{
    static struct story story;
    memset(&story, 0, sizeof story);
    prepare(&story.rig, variant);
    story.rig.options.directory = variant->direct ? directory() : fast_directory();
    story.rig.options.reserve_bytes = BLOCK;
    if (!start(&story.rig)) {
        return false;
    }
    failing_vfs_arm(&story.rig.disk, fault->call, nth, fault->sticky, fault->number);
    story_tell(&story);
    const bool came = story.rig.disk.failed > 0;
    CHECK(story.refused == 0 || came);
    CHECK(!is_absorbed(fault) || story.refused == 0);
    story_recover(&story);
    stop(&story.rig);
    return came;
}

static uint64_t sweep(const struct variant *variant, const int *numbers, size_t number_count)
{
    static const enum failing_call calls[] = {FAILING_READ,     FAILING_WRITE,      FAILING_SETTLE,
                                              FAILING_PUNCH,    FAILING_TRUNCATE,   FAILING_FREE_BYTES,
                                              FAILING_RING_ADD, FAILING_RING_SUBMIT};
    uint64_t faults = 0;
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
        for (size_t n = 0; n < number_count; n++) {
            for (int sticky = 0; sticky < 2; sticky++) {
                const struct fault fault = {calls[c], numbers[n], sticky == 1};
                const uint64_t most = variant->direct ? 6 : UINT64_MAX; /* a disk takes its time */
                uint64_t nth = 1;
                while (nth <= most && tell_with(variant, &fault, nth)) {
                    nth++;
                }
                faults += nth - 1;
            }
        }
    }
    return faults;
}

static void sweep_all(size_t first)
{
    static const int all[] = {EIO, FAILING_SHORT, EINTR, ENOSPC, EDQUOT};
    const uint64_t cached = sweep(&variants[first + 1], all, 5);
    const uint64_t direct = sweep(&variants[first], all, 2);
    fprintf(stderr, "note: %llu failures through the page cache, %llu without it\n", (unsigned long long) cached,
            (unsigned long long) direct);
    CHECK(variants[first].backend == PGD_FLASH_URING || (cached > 200 && direct > 50));
}

TEST(each_call_fails_in_turn_by_io_uring)
{
    sweep_all(0);
}

TEST(each_call_fails_in_turn_by_threads)
{
    sweep_all(2);
}

static void check_open_survives(enum failing_call call, int number, bool sticky)
{
    for (size_t v = 0; v < VARIANTS; v++) {
        for (uint64_t nth = 1; nth < (variants[v].direct ? 2 : 4); nth++) {
            struct rig rig;
            struct pagoda_error error = {PAGODA_OK, ""};
            prepare(&rig, &variants[v]);
            rig.options.directory = variants[v].direct ? directory() : fast_directory();
            failing_vfs_arm(&rig.disk, call, nth, sticky, number);
            const enum pagoda_status status = pgd_flash_open(&rig.options, &rig.flash, &error);
            if (status == PAGODA_OK) {
                failing_vfs_arm(&rig.disk, call, 0, false, 0);
                CHECK_EQ_INT(get(&rig, must_put(&rig, BLOCK, 3), BLOCK, 3), PGD_FLASH_DONE);
                pgd_flash_close(rig.flash);
            } else {
                CHECK(status == PAGODA_IO || status == PAGODA_UNSUPPORTED);
                CHECK(rig.flash == NULL && error.message[0] != '\0');
            }
            CHECK(failing_vfs_is_clean(&rig.disk));
        }
    }
}

TEST(each_call_fails_while_opening)
{
    static const int numbers[] = {EIO, ENOSPC, EDQUOT, EINTR, FAILING_SHORT};
    for (int call = 0; call < FAILING_CALLS; call++) {
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
            check_open_survives((enum failing_call) call, numbers[n], false);
            check_open_survives((enum failing_call) call, numbers[n], true);
        }
    }
}

/* A file system that takes the flag and then refuses the transfer. */
TEST(direct_transfers_that_are_refused_go_through_the_page_cache)
{
    static const enum failing_call calls[] = {FAILING_READ, FAILING_WRITE};
    for (size_t v = 0; v < VARIANTS; v += 2) {
        for (size_t c = 0; c < 2; c++) {
            struct rig rig;
            prepare(&rig, &variants[v]);
            if (!start(&rig) || !stats_of(&rig).direct) {
                continue;
            }
            failing_vfs_arm(&rig.disk, calls[c], 1, false, EINVAL);
            CHECK_EQ_INT(get(&rig, must_put(&rig, 3 * BLOCK, 1), 3 * BLOCK, 1), PGD_FLASH_DONE);
            CHECK(!stats_of(&rig).direct && stats_of(&rig).retries == 1);
            CHECK_EQ_INT(get(&rig, must_put(&rig, 3 * BLOCK, 2), 3 * BLOCK, 2), PGD_FLASH_DONE);
            stop(&rig);
        }
    }
}

/* ---- batches that are not taken, or not whole ---- */

struct refusal {
    const char *what;
    enum failing_call call;
    uint64_t nth;
    bool sticky;
    int number;
    uint64_t submits; /* calls that it takes in all */
    uint64_t retries;
    uint32_t failed; /* reads, the last ones */
    int told;        /* errno that they are explained by */
};

static const struct refusal refusals[] = {
    {"half is taken, once", FAILING_RING_SUBMIT, 1, false, FAILING_SHORT, 2, 0, 0, 0},
    {"half is taken, always", FAILING_RING_SUBMIT, 1, true, FAILING_SHORT, 3 + 103, 102, 1, EAGAIN},
    {"interrupted once", FAILING_RING_SUBMIT, 1, false, EINTR, 2, 1, 0, 0},
    {"interrupted always", FAILING_RING_SUBMIT, 1, true, EINTR, 103, 102, READS, EINTR},
    {"no memory for it once", FAILING_RING_SUBMIT, 1, false, EAGAIN, 2, 1, 0, 0},
    {"no memory for it ever", FAILING_RING_SUBMIT, 1, true, EAGAIN, 103, 102, READS, EAGAIN},
    {"busy once", FAILING_RING_SUBMIT, 1, false, EBUSY, 2, 1, 0, 0},
    {"busy always", FAILING_RING_SUBMIT, 1, true, EBUSY, 103, 102, READS, EBUSY},
    {"an error once", FAILING_RING_SUBMIT, 1, false, EBADF, 2, 1, 0, 0},
    {"an error for good", FAILING_RING_SUBMIT, 1, true, EBADF, 3, 2, READS, EBADF},
    {"full from the start, once", FAILING_RING_ADD, 1, false, EIO, 1, 1, 0, 0},
    {"full after three", FAILING_RING_ADD, 4, false, EIO, 2, 0, 0, 0},
    {"full always", FAILING_RING_ADD, 1, true, EIO, 0, 102, READS, EAGAIN},
    {"full for good after three", FAILING_RING_ADD, 4, true, EIO, 1, 102, READS - 3, EAGAIN},
};

static void queue_all(struct rig *rig, uint64_t offset, unsigned char *into)
{
    memset(into, 0, READS * BLOCK);
    for (uint32_t i = 0; i < READS; i++) {
        pgd_flash_queue(rig->flash, i, offset + i * BLOCK, BLOCK, into + i * BLOCK);
    }
}

/* The first reads come, `failed` others do not, and say why. */
static void finish_all(struct rig *rig, const unsigned char *into, const unsigned char *expected, uint32_t failed,
                       int told)
{
    for (uint32_t i = 0; i < READS; i++) {
        const enum pgd_flash_read_state state = pgd_flash_wait(rig->flash, i, 0);
        if (i < READS - failed) {
            CHECK_EQ_INT(state, PGD_FLASH_DONE);
            CHECK_MEM(into + i * BLOCK, expected + i * BLOCK, BLOCK);
        } else {
            struct pagoda_error error = {PAGODA_OK, ""};
            CHECK_EQ_INT(state, PGD_FLASH_FAILED);
            CHECK_EQ_INT(pgd_flash_explain(rig->flash, i, &error), PAGODA_IO);
            CHECK(strstr(error.message, strerror(told)) != NULL);
        }
        pgd_flash_finish(rig->flash, i);
    }
}

static void refuse(struct rig *rig, const struct refusal *refusal, uint64_t offset, const unsigned char *expected)
{
    unsigned char *const into = buffer_of(READS * BLOCK);
    const struct pgd_flash_stats before = stats_of(rig);
    failing_vfs_arm(&rig->disk, refusal->call, refusal->nth, refusal->sticky, refusal->number);
    queue_all(rig, offset, into);
    pgd_flash_submit(rig->flash);
    if (rig->disk.calls[FAILING_RING_SUBMIT] != refusal->submits ||
        stats_of(rig).retries != before.retries + refusal->retries) {
        fprintf(stderr, "%s: %llu calls, %llu retries\n", refusal->what,
                (unsigned long long) rig->disk.calls[FAILING_RING_SUBMIT],
                (unsigned long long) (stats_of(rig).retries - before.retries));
    }
    CHECK_EQ_U64(rig->disk.calls[FAILING_RING_SUBMIT], refusal->submits);
    CHECK_EQ_U64(stats_of(rig).retries, before.retries + refusal->retries);
    finish_all(rig, into, expected, refusal->failed, refusal->told);
    CHECK_EQ_U64(stats_of(rig).read_errors, before.read_errors + refusal->failed);
    CHECK_EQ_U64(stats_of(rig).bytes_read, before.bytes_read + (READS - refusal->failed) * BLOCK);
    failing_vfs_arm(&rig->disk, FAILING_READ, 0, false, 0);
    queue_all(rig, offset, into); /* none of them is left over in the ring */
    finish_all(rig, into, expected, 0, 0);
    CHECK_EQ_U64(rig->disk.calls[FAILING_READ], READS);
    free(into);
}

TEST(a_batch_that_is_refused_or_taken_in_part)
{
    for (size_t v = 0; v < 2; v++) {
        struct rig rig;
        prepare(&rig, &variants[v]);
        if (!start(&rig)) {
            continue;
        }
        unsigned char *const expected = buffer_of(READS * BLOCK);
        fill(expected, READS * BLOCK, 5);
        const uint64_t offset = must_put(&rig, READS * BLOCK, 5);
        for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
            refuse(&rig, &refusals[i], offset, expected);
        }
        free(expected);
        stop(&rig);
    }
}

/* Nobody polls or waits: whoever submits must take the answers. */
TEST(a_kernel_that_wants_its_answers_taken_first)
{
    struct rig rig;
    prepare(&rig, &variants[1]);
    rig.options.directory = fast_directory();
    if (!start(&rig)) {
        return;
    }
    unsigned char *const into = buffer_of(READS * BLOCK);
    unsigned char *const expected = buffer_of(READS * BLOCK);
    fill(expected, READS * BLOCK, 5);
    const uint64_t offset = must_put(&rig, READS * BLOCK, 5);
    failing_vfs_arm(&rig.disk, FAILING_RING_SUBMIT, 2, true, FAILING_CROWDED);
    for (uint32_t i = 0; i < READS; i++) {
        pgd_flash_read(rig.flash, i, offset + i * BLOCK, BLOCK, into + i * BLOCK);
        (void) usleep(2000); /* the answer is there */
    }
    CHECK(rig.disk.calls[FAILING_RING_SUBMIT] > READS);
    finish_all(&rig, into, expected, 0, 0);
    free(into);
    free(expected);
    stop(&rig);
}

/* Telling that is the reader's part, by checksums: the tier passes on what the device says. */
TEST(a_device_that_lies_is_believed)
{
    for (size_t v = 0; v < VARIANTS; v++) {
        struct rig rig;
        prepare(&rig, &variants[v]);
        if (!start(&rig)) {
            continue;
        }
        const uint64_t offset = must_put(&rig, 2 * BLOCK, 1);
        unsigned char *const into = buffer_of(2 * BLOCK);
        failing_vfs_arm(&rig.disk, FAILING_READ, 1, false, FAILING_ROT);
        pgd_flash_read(rig.flash, 2, offset, 2 * BLOCK, into);
        CHECK_EQ_INT(pgd_flash_wait(rig.flash, 2, 0), PGD_FLASH_DONE);
        CHECK(!holds(into, 2 * BLOCK, 1));
        into[BLOCK] ^= 16;
        CHECK(holds(into, 2 * BLOCK, 1));
        pgd_flash_finish(rig.flash, 2);
        CHECK_EQ_INT(get(&rig, offset, 2 * BLOCK, 1), PGD_FLASH_DONE);
        free(into);
        stop(&rig);
    }
}

/* ---- bounds ---- */

TEST(the_file_has_a_bound)
{
    struct rig rig;
    uint64_t offset = 7;
    uint64_t offsets[16];
    struct pagoda_error error = {PAGODA_OK, ""};
    prepare(&rig, &variants[2]);
    rig.options.bytes_max = 16 * BLOCK + 100;
    CHECK(start(&rig));
    for (uint64_t i = 0; i < 16; i++) {
        offsets[i] = must_put(&rig, BLOCK, i);
    }
    failing_vfs_arm(&rig.disk, FAILING_WRITE, 0, false, 0);
    CHECK_EQ_INT(put(&rig, BLOCK, 99, &offset, &error), PAGODA_FULL);
    CHECK(offset == 7 && strstr(error.message, "full") != NULL);
    pgd_flash_free(rig.flash, offsets[3], BLOCK);
    pgd_flash_free(rig.flash, offsets[5], BLOCK);
    CHECK_EQ_INT(put(&rig, 2 * BLOCK, 99, &offset, NULL), PAGODA_FULL); /* not side by side */
    CHECK_EQ_U64(rig.disk.calls[FAILING_WRITE], 0);
    pgd_flash_free(rig.flash, offsets[4], BLOCK);
    CHECK_EQ_U64(must_put(&rig, 3 * BLOCK, 99), offsets[3]);
    CHECK_EQ_INT(put(&rig, 64 * MIB, 99, &offset, NULL), PAGODA_FULL);
    CHECK_EQ_U64(stats_of(&rig).file_bytes, 16 * BLOCK);
    CHECK_EQ_U64(stats_of(&rig).write_errors, 0);
    stop(&rig);
}

TEST(the_write_budget_is_for_life)
{
    struct rig rig;
    uint64_t offset;
    struct pagoda_error error = {PAGODA_OK, ""};
    prepare(&rig, &variants[2]);
    rig.options.write_budget_bytes = 5 * BLOCK;
    CHECK(start(&rig));
    const uint64_t first = must_put(&rig, 3 * BLOCK, 1);
    CHECK_EQ_INT(put(&rig, 3 * BLOCK, 2, &offset, &error), PAGODA_LIMIT);
    CHECK(strstr(error.message, "may write 20480 bytes in all, and has written 12288") != NULL);
    pgd_flash_free(rig.flash, first, 3 * BLOCK);
    CHECK_EQ_INT(put(&rig, 3 * BLOCK, 2, &offset, NULL), PAGODA_LIMIT);
    (void) must_put(&rig, 2 * BLOCK, 3);
    pgd_flash_reset(rig.flash);
    CHECK_EQ_INT(put(&rig, BLOCK, 4, &offset, NULL), PAGODA_LIMIT);
    CHECK_EQ_U64(stats_of(&rig).bytes_written, 5 * BLOCK);
    stop(&rig);
}

TEST(the_reserve_is_left_to_others)
{
    struct rig rig;
    uint64_t offset;
    struct pagoda_error error = {PAGODA_OK, ""};
    prepare(&rig, &variants[2]);
    rig.options.reserve_bytes = 10 * BLOCK;
    rig.disk.says_free = true;
    rig.disk.free_bytes = 14 * BLOCK;
    CHECK(start(&rig));
    const uint64_t first = must_put(&rig, 4 * BLOCK, 1);
    rig.disk.free_bytes = 10 * BLOCK;
    CHECK_EQ_INT(put(&rig, BLOCK, 2, &offset, &error), PAGODA_FULL);
    CHECK(strstr(error.message, "are left to others") != NULL);
    CHECK_EQ_U64(stats_of(&rig).bytes_used, 4 * BLOCK);
    const uint64_t second = first;
    pgd_flash_free(rig.flash, first, 4 * BLOCK); /* the file keeps its blocks: they take nothing from others */
    rig.disk.free_bytes = 0;
    CHECK_EQ_U64(must_put(&rig, 4 * BLOCK, 3), second);
    CHECK_EQ_INT(put(&rig, BLOCK, 4, &offset, NULL), PAGODA_FULL);
    CHECK_EQ_INT(get(&rig, second, 4 * BLOCK, 3), PGD_FLASH_DONE);
    CHECK_EQ_U64(stats_of(&rig).write_errors, 0);
    stop(&rig);
}

/* ---- disks that are full ---- */

static uint64_t free_bytes_of(const char *path)
{
    struct statvfs about;
    CHECK_EQ_INT(statvfs(path, &about), 0);
    return (uint64_t) about.f_bavail * about.f_frsize;
}

/* Writes until it is refused: what was written before is still there, and one extent freed makes room for another. */
static void fill_up(const char *where, const struct variant *variant, uint64_t reserve, enum pagoda_status expected)
{
    enum { MOST = 1000 };
    struct rig rig;
    struct pagoda_error error = {PAGODA_OK, ""};
    uint64_t offsets[MOST];
    uint64_t count = 0;
    prepare(&rig, variant);
    rig.options.directory = where;
    rig.options.reserve_bytes = reserve;
    if (!start(&rig)) {
        return;
    }
    const uint64_t bytes = 5 * BLOCK;
    enum pagoda_status status = PAGODA_OK;
    while (status == PAGODA_OK && count < MOST) {
        status = put(&rig, bytes, count, &offsets[count], &error);
        count += status == PAGODA_OK ? 1 : 0;
    }
    CHECK(count > 10);
    CHECK_EQ_INT(status, expected);
    CHECK(reserve == 0 || free_bytes_of(where) + 16 * BLOCK >= reserve);
    CHECK(strstr(error.message, reserve == 0 ? "No space left" : "left to others") != NULL);
    CHECK_EQ_U64(stats_of(&rig).bytes_used, count * bytes);
    CHECK_EQ_U64(stats_of(&rig).file_bytes, count * bytes); /* what was written in part is given back */
    for (uint64_t i = 0; i < count; i++) {
        CHECK_EQ_INT(get(&rig, offsets[i], bytes, i), PGD_FLASH_DONE);
    }
    pgd_flash_free(rig.flash, offsets[1], bytes);
    offsets[1] = must_put(&rig, bytes, 4711);
    CHECK_EQ_INT(get(&rig, offsets[1], bytes, 4711), PGD_FLASH_DONE);
    pgd_flash_reset(rig.flash);
    CHECK_EQ_INT(get(&rig, must_put(&rig, bytes, 1), bytes, 1), PGD_FLASH_DONE);
    stop(&rig);
}

static void fill_up_by_all(const char *where)
{
    const uint64_t before = free_bytes_of(where);
    for (size_t i = 0; i < VARIANTS; i++) {
        fill_up(where, &variants[i], 0, PAGODA_IO);
        fill_up(where, &variants[i], MIB, PAGODA_FULL);
    }
    CHECK_EQ_U64(free_bytes_of(where), before);
}

/* A place for a mount that nobody else sees and that ends with this process. */
static void make_mount_point(char *path, size_t bytes)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        SKIP("a full disk needs to be mounted, and that needs to be root");
    }
    (void) snprintf(path, bytes, "%s/pagoda-full-XXXXXX", directory());
    CHECK(mkdtemp(path) != NULL);
}

TEST(a_full_file_system_in_memory)
{
    char where[4096];
    make_mount_point(where, sizeof where);
    if (mount("none", where, "tmpfs", 0, "size=3m") != 0) {
        (void) rmdir(where);
        SKIP("tmpfs cannot be mounted");
    }
    fill_up_by_all(where);
    CHECK_EQ_INT(umount(where), 0);
    CHECK_EQ_INT(rmdir(where), 0);
}

TEST(a_full_file_system_on_a_device)
{
    char where[4096];
    char command[5 * 4096];
    make_mount_point(where, sizeof where);
    (void) snprintf(command, sizeof command,
                    "truncate -s 6M '%s.image' && mkfs.ext4 -q -O ^has_journal '%s.image' >/dev/null 2>&1 && "
                    "mount -o loop '%s.image' '%s' 2>/dev/null",
                    where, where, where, where);
    const bool mounted = system(command) == 0;
    if (mounted) {
        fill_up_by_all(where);
        CHECK_EQ_INT(umount(where), 0);
    }
    CHECK_EQ_INT(rmdir(where), 0);
    (void) snprintf(command, sizeof command, "%s.image", where);
    CHECK_EQ_INT(unlink(command), 0);
    if (!mounted) {
        SKIP("an image of ext4 cannot be made or mounted");
    }
}
