/* unit/test_cache_spill.c - pages on flash: the same bytes when all are read, close to them when some are stood in for,
 * and never a wrong one. */
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "cache/cache.h"
#include "harness/failing_vfs.h"
#include "unit/cache_twin.h"

enum { LONG = 3000 };

/* It may have LONG + 64 tokens. */
static struct pagoda_cache *open_spilling(struct pagoda_cache_options *options, uint64_t more)
{
    return open_smallest_spilling(options, LONG + 64, more);
}

static uint64_t spilled_tokens(const struct pagoda_cache *cache)
{
    struct pagoda_account account;
    pagoda_cache_account(cache, &account);
    return account.spilled;
}

/* Runs the same batches through both, and compares every output byte. */
static bool same_bytes(struct pagoda_cache *spilling, struct pagoda_cache *plain, uint32_t threads)
{
    static const uint32_t sizes[] = {64, 1, 1, 1, 33, 64, 64, 1, 17, 1};
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(7);
    struct fill *other = new_fill(7);
    bool good = true;
    for (uint32_t i = 0; good && pagoda_cache_position(plain) < LONG; i++) {
        const uint32_t count = fitting(spilling, sizes[i % (sizeof(sizes) / sizeof(sizes[0]))]);
        good = run_batch_in_team(spilling, twin, fill, count, threads) &&
               run_batch(plain, twin, other, count) == PAGODA_OK;
        for (int layer = 0; layer < LAYERS && good; layer++) {
            const size_t bytes = count * sizeof(fill->outputs[0][0]);
            good = memcmp(fill->outputs[layer], other->outputs[layer], bytes) == 0;
            if (!good) {
                fprintf(stderr, "layer %d differs at position %llu, batch of %u\n", layer,
                        (unsigned long long) pagoda_cache_position(plain), count);
            }
        }
        good = good && account_adds_up(spilling);
    }
    free(twin);
    free(fill);
    free(other);
    return good;
}

TEST(reading_all_gives_the_same_bytes_as_never_having_spilled)
{
    static const enum pagoda_codec codecs[] = {PAGODA_CODEC_F16, PAGODA_CODEC_K8V4};
    static const uint32_t pages[] = {16, 48};
    for (int c = 0; c < 2; c++) {
        for (int p = 0; p < 2; p++) {
            for (uint32_t threads = 1; threads <= 3; threads++) {
                struct pagoda_layer layers[LAYERS];
                struct pagoda_cache_options options;
                fill_layers(layers);
                fill_options(&options, layers);
                options.page_tokens = pages[p];
                options.threads_max = threads;
                options.codec = codecs[c];
                options.codec_tight = codecs[c];
                options.flash.read_all = true;
                struct pagoda_cache *spilling = open_spilling(&options, 0);
                options.on_full = PAGODA_ON_FULL_STOP;
                options.budget_bytes = 64u << 20;
                options.exact_recent = spilling->exact_recent;
                struct pagoda_cache *plain = NULL;
                CHECK(pagoda_cache_open(&options, &plain, NULL) == PAGODA_OK);
                CHECK(same_bytes(spilling, plain, threads));
                CHECK(spilled_tokens(spilling) > LONG / 4);
                pagoda_cache_close(spilling);
                pagoda_cache_close(plain);
            }
        }
    }
}

/* ---- tight budgets ---- */

static struct pagoda_cache *open_model(const struct pagoda_layer *layers, uint32_t count, uint64_t budget_bytes,
                                       uint64_t tokens)
{
    struct pagoda_cache_options options;
    struct pagoda_cache *cache = NULL;
    pagoda_cache_options_default(&options);
    options.layers = layers;
    options.layer_count = count;
    options.threads_max = 2;
    options.budget_bytes = budget_bytes;
    options.tokens_max = tokens;
    options.codec = PAGODA_CODEC_K8V4;
    options.codec_tight = PAGODA_CODEC_K8V4;
    options.on_full = PAGODA_ON_FULL_SPILL;
    options.flash.directory = "/tmp";
    CHECK(pagoda_cache_open(&options, &cache, NULL) == PAGODA_OK);
    return cache;
}

/* The shape of a small model: 23,040 bytes of f16 a token. */
static struct pagoda_cache *open_small_model(uint64_t budget_bytes, uint64_t tokens)
{
    enum { SMALL_LAYERS = 30 };
    struct pagoda_layer layers[SMALL_LAYERS];
    for (int i = 0; i < SMALL_LAYERS; i++) {
        layers[i] =
            (struct pagoda_layer) {.kv_heads = 3, .query_heads = 9, .key_size = 64, .value_size = 64, .scale = 1};
    }
    return open_model(layers, SMALL_LAYERS, budget_bytes, tokens);
}

TEST(a_tight_budget_sets_less_aside_and_still_holds_the_text)
{
    static const struct {
        uint64_t budget_bytes;
        uint64_t tokens;
        bool is_generous; /* nothing is set aside less for it */
        uint32_t exact_recent;
    } cases[] = {
        {22u << 20, 8000, true, 128},          /* 1/8 of the f16 bytes */
        {5000u * 23040 / 8, 5200, false, 128}, /* 1/8 of those of fewer tokens: the fixed part weighs more */
        {8000u * 23040 / 10, 8000, false, 128}, {8000u * 23040 / 13, 8000, false, 16},
        {8000u * 23040 / 16, 8000, false, 16},  {8000u * 23040 / 24, 8000, false, 16},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pagoda_memory memory;
        struct pagoda_cache *cache = open_small_model(cases[i].budget_bytes, cases[i].tokens);
        pagoda_cache_memory(cache, &memory);
        CHECK_EQ_U64(memory.tokens_capacity, cases[i].tokens);
        CHECK(memory.used_bytes <= cases[i].budget_bytes);
        CHECK(cache->exact_recent >= cases[i].exact_recent && cache->exact_recent <= 128);
        CHECK(!cases[i].is_generous || pagoda_cache_room(cache, 256) == 256);
        CHECK(pagoda_cache_room(cache, 256) >= 16);
        pagoda_cache_close(cache);
    }
}

TEST(what_can_never_be_held_is_no_reason_to_keep_less_exact)
{
    struct pagoda_cache *cache = open_small_model(UINT64_C(1) << 30, UINT64_C(10000000));
    CHECK_EQ_INT(cache->exact_recent, 128);
    CHECK_EQ_INT(pagoda_cache_room(cache, 256), 256);
    pagoda_cache_close(cache);
}

TEST(a_batch_that_is_too_large_for_a_tight_budget_is_told)
{
    struct pagoda_error why;
    struct pagoda_cache *cache = open_small_model(8000u * 23040 / 13, 8000);
    const uint32_t room = pagoda_cache_room(cache, 256);
    CHECK(room < 256);
    CHECK_EQ_INT(pagoda_cache_begin(cache, 256, &why), PAGODA_OVER_BUDGET);
    CHECK(strstr(why.message, "256 tokens do not fit at once") != NULL);
    CHECK_EQ_INT(pagoda_cache_begin(cache, room, &why), PAGODA_OK);
    pagoda_cache_abort(cache);
    pagoda_cache_close(cache);
}

/* A batch of rows that are all zero; their attention is of no interest. */
static void bring(struct pagoda_cache *cache, uint32_t layers, uint32_t count)
{
    static const float zeros[256];
    CHECK(pagoda_cache_begin(cache, count, NULL) == PAGODA_OK);
    for (uint32_t layer = 0; layer < layers; layer++) {
        CHECK(pagoda_cache_ingest(cache, layer, PAGODA_KEYS, zeros, 0, 0, 1) == PAGODA_OK);
        CHECK(pagoda_cache_ingest(cache, layer, PAGODA_VALUES, zeros, 0, 0, 1) == PAGODA_OK);
    }
    CHECK(pagoda_cache_end(cache, NULL) == PAGODA_OK);
}

/* The shape of a model with windows, whose batches are a good part of its memory. */
TEST(batches_as_large_as_advised_drop_nothing)
{
    enum { WINDOWED = 18, TOKENS = 8000 };
    struct pagoda_layer layers[WINDOWED];
    for (int i = 0; i < WINDOWED; i++) {
        layers[i] = (struct pagoda_layer) {.kv_heads = 1,
                                           .query_heads = 4,
                                           .key_size = 256,
                                           .value_size = 256,
                                           .window = i % 6 == 5 ? 0 : 512,
                                           .scale = 1};
    }
    for (uint64_t mebibytes = 13; mebibytes <= 17; mebibytes += 2) {
        struct pagoda_cache *cache = open_model(layers, WINDOWED, mebibytes << 20, TOKENS);
        struct pagoda_account account;
        int batches = 0;
        while (pagoda_cache_position(cache) < TOKENS) {
            const uint64_t left = TOKENS - pagoda_cache_position(cache);
            bring(cache, WINDOWED, fitting(cache, left < 256 ? (uint32_t) left : 256));
            batches++;
        }
        pagoda_cache_account(cache, &account);
        CHECK_EQ_U64(account.dropped, 0);
        CHECK(batches < 50); /* each reads what is on flash: 90 of them, if they had what surely fits */
        CHECK(account.spilled > 100);
        pagoda_cache_close(cache);
    }
}

/* ---- selected pages ---- */

struct distance {
    double most;
    double sum;
};

/* Fills a cache, then attends token by token; the distance to a twin that reads everything that there was (of_all), or
 * everything that is left. */
static struct distance distance_of(struct pagoda_cache_options *options, uint32_t threads, bool of_all,
                                   struct pagoda_account *account)
{
    struct twin *twin = new_twin();
    struct fill *fill = new_fill(11);
    struct pagoda_cache *cache = open_spilling(options, 0);
    struct distance found = {0, 0};
    while (pagoda_cache_position(cache) < LONG - 64) {
        CHECK(run_batch_in_team(cache, twin, fill, fitting(cache, 64), threads));
    }
    memset(twin->held, of_all, LONG);
    for (int i = 0; i < 40; i++) {
        const uint64_t first = pagoda_cache_position(cache);
        CHECK(run_batch_in_team(cache, twin, fill, 1, threads));
        if (!of_all) {
            pagoda_cache_visit(cache, mark_span, twin);
        }
        for (int layer = 0; layer < LAYERS; layer++) {
            for (int head = 0; head < QUERY_HEADS; head++) {
                double expected[SIZE];
                twin_attend(twin, &options->layers[layer], layer, first, head, &fill->queries[layer][0][head * SIZE],
                            false, expected);
                for (int d = 0; d < SIZE; d++) {
                    const double distance = fabs(expected[d] - fill->outputs[layer][0][head * SIZE + d]);
                    found.sum += distance;
                    found.most = distance > found.most ? distance : found.most; /* fmax: an internal error of gcc 12 */
                }
            }
        }
        CHECK(account_adds_up(cache));
    }
    pagoda_cache_account(cache, account);
    pagoda_cache_close(cache);
    free(twin);
    free(fill);
    return found;
}

TEST(the_more_attention_is_to_be_read_the_closer_the_result)
{
    double last = INFINITY;
    static const double recalls[] = {0.2, 0.9, 1};
    for (int i = 0; i < 3; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_account account;
        fill_layers(layers);
        fill_options(&options, layers);
        options.threads_max = 2;
        options.flash.recall = recalls[i];
        const double distance = distance_of(&options, 2, false, &account).most;
        CHECK(distance < last);
        CHECK(recalls[i] == 1 || account.unread > 0);
        last = distance;
    }
    CHECK(last < 1e-3);
}

TEST(the_choice_of_pages_lies_between_chance_and_an_oracle)
{
    static const enum pagoda_yardstick yardsticks[] = {PAGODA_YARDSTICK_ORACLE, PAGODA_YARDSTICK_NONE,
                                                       PAGODA_YARDSTICK_RANDOM};
    static const uint32_t pages[] = {16, 48};
    for (int p = 0; p < 2; p++) {
        double last = 0;
        for (int i = 0; i < 3; i++) {
            struct pagoda_layer layers[LAYERS];
            struct pagoda_cache_options options;
            struct pagoda_account account;
            fill_layers(layers);
            fill_options(&options, layers);
            options.page_tokens = pages[p];
            options.threads_max = 2;
            options.flash.recall = 0.9;
            options.flash.yardstick = yardsticks[i];
            const double distance = distance_of(&options, 2, false, &account).sum;
            CHECK(distance > last);
            CHECK(account.unread > 0);
            last = distance;
        }
    }
}

/* The same life in two caches, by teams of one and of `threads`: fills, then token by token. */
static bool teams_agree(struct pagoda_cache_options *options, uint32_t threads)
{
    struct twin *twin = new_twin();
    struct fill *one = new_fill(5);
    struct fill *many = new_fill(5);
    struct pagoda_cache *alone = open_spilling(options, 0);
    struct pagoda_cache *team = open_spilling(options, 0);
    bool good = true;
    while (good && pagoda_cache_position(alone) < LONG) {
        const uint32_t count = pagoda_cache_position(alone) < LONG - 200 ? fitting(alone, 64) : 1;
        good = run_batch(alone, twin, one, count) == PAGODA_OK && run_batch_in_team(team, twin, many, count, threads);
        for (int layer = 0; layer < LAYERS && good; layer++) {
            good = memcmp(one->outputs[layer], many->outputs[layer], count * sizeof(one->outputs[0][0])) == 0;
            if (!good) {
                fprintf(stderr, "layer %d differs at position %llu, batch of %u\n", layer,
                        (unsigned long long) pagoda_cache_position(alone), count);
            }
        }
    }
    pagoda_cache_close(alone);
    pagoda_cache_close(team);
    free(twin);
    free(one);
    free(many);
    return good;
}

TEST(what_a_token_reads_does_not_depend_on_threads)
{
    static const double recalls[] = {0.5, 0.99};
    for (int i = 0; i < 4; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        fill_layers(layers);
        fill_options(&options, layers);
        options.threads_max = 3;
        options.flash.recall = recalls[i % 2];
        options.codec = i < 2 ? PAGODA_CODEC_F16 : PAGODA_CODEC_K8V4;
        options.codec_tight = options.codec;
        CHECK(teams_agree(&options, 2));
        CHECK(teams_agree(&options, 3));
    }
}

/* ---- flash that fails ---- */

/* Feeds `tokens` tokens; the status of the batch that was refused, or OK. All outputs must be sane. */
static enum pagoda_status live(struct pagoda_cache *cache, struct fill *fill, uint64_t tokens, bool *sane)
{
    struct twin *twin = new_twin();
    enum pagoda_status status = PAGODA_OK;
    for (int i = 0; status == PAGODA_OK && pagoda_cache_position(cache) < tokens; i++) {
        const uint32_t count = i % 3 == 2 ? 1 : fitting(cache, 64);
        status = run_batch(cache, twin, fill, count);
        for (uint32_t at = 0; status == PAGODA_OK && at < LAYERS * count; at++) {
            for (int d = 0; d < QUERY_HEADS * SIZE; d++) { /* a mean of values within -2 and 2 */
                *sane = *sane && fabsf(fill->outputs[at / count][at % count][d]) <= 2.01f;
            }
        }
        *sane = *sane && account_adds_up(cache);
    }
    free(twin);
    return status;
}

/* Opens a cache on a disk of the test's, small enough to spill. */
static struct pagoda_cache *open_on(struct failing_vfs *disk, struct pagoda_layer *layers, bool read_all,
                                    enum pagoda_on_flash_full on_full)
{
    struct pagoda_cache_options options;
    fill_layers(layers);
    fill_options(&options, layers);
    failing_vfs_init(disk);
    options.flash.read_all = read_all;
    options.flash.on_full = on_full;
    options.flash.files = &disk->vfs;
    return open_spilling(&options, 0);
}

static void expect_calm_life(struct pagoda_cache *cache, struct failing_vfs *disk, struct pagoda_memory *memory)
{
    struct fill *fill = new_fill(3);
    bool sane = true;
    CHECK_EQ_INT(live(cache, fill, LONG, &sane), PAGODA_OK);
    CHECK(sane);
    CHECK(disk->failed > 0);
    pagoda_cache_memory(cache, memory);
    pagoda_cache_close(cache);
    CHECK(failing_vfs_is_clean(disk));
    free(fill);
}

TEST(a_failure_that_passes_changes_nothing)
{
    static const struct {
        enum failing_call call;
        int number;
    } ways[] = {{FAILING_READ, EIO},        {FAILING_READ, FAILING_SHORT},  {FAILING_READ, FAILING_ROT},
                {FAILING_WRITE, EIO},       {FAILING_WRITE, FAILING_SHORT}, {FAILING_WRITE, EINTR},
                {FAILING_RING_SUBMIT, EIO}, {FAILING_WRITE, ENOSPC}};
    for (size_t way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
        for (uint64_t nth = 1; nth < 200; nth = nth * 3 + 1) {
            struct pagoda_layer layers[LAYERS];
            struct failing_vfs disk;
            struct pagoda_memory memory;
            struct pagoda_account account;
            struct pagoda_cache *cache = open_on(&disk, layers, true, PAGODA_ON_FLASH_FULL_COLLAPSE);
            failing_vfs_arm(&disk, ways[way].call, nth, false, ways[way].number);
            struct fill *fill = new_fill(3);
            bool sane = true;
            CHECK_EQ_INT(live(cache, fill, LONG - 600, &sane), PAGODA_OK);
            pagoda_cache_memory(cache, &memory);
            pagoda_cache_account(cache, &account);
            CHECK(sane && memory.lost_pages == 0 && account.dropped == 0 && account.exact);
            pagoda_cache_close(cache);
            CHECK(failing_vfs_is_clean(&disk));
            free(fill);
        }
    }
}

TEST(bytes_that_stay_wrong_never_reach_attention)
{
    static const int numbers[] = {EIO, FAILING_ROT};
    for (int i = 0; i < 4; i++) {
        struct pagoda_layer layers[LAYERS];
        struct failing_vfs disk;
        struct pagoda_memory memory;
        struct pagoda_cache *cache = open_on(&disk, layers, i < 2, PAGODA_ON_FLASH_FULL_COLLAPSE);
        failing_vfs_arm(&disk, FAILING_READ, 5, true, numbers[i % 2]);
        expect_calm_life(cache, &disk, &memory);
        CHECK(memory.lost_pages > 0);
    }
}

TEST(a_full_disk_is_told_and_the_policy_takes_over_if_it_shall)
{
    struct pagoda_layer layers[LAYERS];
    struct failing_vfs disk;
    struct pagoda_memory memory;
    struct pagoda_cache *cache = open_on(&disk, layers, false, PAGODA_ON_FLASH_FULL_DROP);
    failing_vfs_arm(&disk, FAILING_WRITE, 3, true, ENOSPC);
    expect_calm_life(cache, &disk, &memory);
    CHECK(memory.evicted_pages > 0 && memory.collapsed_pages == 0);
    CHECK(memory.flash_problem != NULL);
}

/* ---- flash that is full ---- */

TEST(a_full_disk_lets_pages_collapse_and_keeps_what_was_written)
{
    for (int i = 0; i < 2; i++) {
        struct pagoda_layer layers[LAYERS];
        struct failing_vfs disk;
        struct pagoda_memory memory;
        struct pagoda_cache *cache = open_on(&disk, layers, i == 1, PAGODA_ON_FLASH_FULL_COLLAPSE);
        failing_vfs_arm(&disk, FAILING_WRITE, 3, true, ENOSPC);
        expect_calm_life(cache, &disk, &memory);
        CHECK(memory.evicted_pages == 0 && memory.collapsed_pages > 0);
        CHECK(memory.spilled_pages > 0 && memory.flash_bytes > 0);
        CHECK(memory.flash_problem != NULL);
    }
}

/* Options with a bound on flash that is soon reached. */
static void fill_bounded(struct pagoda_cache_options *options, struct pagoda_layer *layers, uint64_t bytes)
{
    fill_layers(layers);
    fill_options(options, layers);
    options->flash.bytes_max = bytes;
}

TEST(a_bound_on_flash_is_kept)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_memory memory;
    fill_bounded(&options, layers, 128u << 10);
    options.flash.on_full = PAGODA_ON_FLASH_FULL_DROP;
    struct pagoda_cache *cache = open_spilling(&options, 0);
    struct fill *fill = new_fill(3);
    bool sane = true;
    CHECK_EQ_INT(live(cache, fill, LONG, &sane), PAGODA_OK);
    pagoda_cache_memory(cache, &memory);
    CHECK(sane && memory.flash_bytes <= 128u << 10 && memory.flash_bytes > 0 && memory.evicted_pages > 0);
    pagoda_cache_close(cache);
    free(fill);
}

static int plenty_is_free(void *user, struct pgd_file *file, uint64_t *bytes)
{
    (void) user;
    (void) file;
    *bytes = UINT64_MAX;
    return 0;
}

/* Not a device of the test's that says it is full, but one that is: the space that is left is not asked for. */
TEST(a_small_real_disk_fills_up_and_no_byte_is_wrong)
{
    char directory[] = "/tmp/pagoda-full-XXXXXX";
    CHECK(mkdtemp(directory) != NULL);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", directory, "tmpfs", 0, "size=256k") != 0) {
        CHECK(rmdir(directory) == 0);
        SKIP("needs root, to mount a file system of its own");
    }
    struct pagoda_layer layers[LAYERS];
    struct failing_vfs disk;
    failing_vfs_init(&disk);
    disk.vfs.free_bytes = plenty_is_free;
    for (int all = 0; all < 2; all++) {
        struct pagoda_cache_options options;
        struct pagoda_account account;
        fill_layers(layers);
        fill_options(&options, layers);
        options.threads_max = 2;
        options.flash = (struct pagoda_flash_options) {.directory = directory,
                                                       .read_all = all != 0,
                                                       .recall = 1,
                                                       .files = &disk.vfs,
                                                       .on_full = PAGODA_ON_FLASH_FULL_DROP};
        CHECK(distance_of(&options, 2, false, &account).most < 1e-3);
        CHECK(account.spilled > 100 && account.dropped > 100);
    }
    CHECK(failing_vfs_is_clean(&disk));
    CHECK(umount(directory) == 0 && rmdir(directory) == 0);
}

/* Tokens in pages of each state, and whether older pages are never in a later state of their way out. */
struct ages {
    uint64_t tokens[PAGODA_PAGE_COLLAPSED + 1];
    bool pinned_is_whole;
    bool in_order;
    enum pagoda_page_state last;
    enum pagoda_page_state first;
};

static bool note_age(void *user, const struct pagoda_span *span)
{
    struct ages *ages = user;
    ages->tokens[span->state] += span->count;
    ages->pinned_is_whole = ages->pinned_is_whole && !(span->pinned && span->state >= PAGODA_PAGE_COLLAPSED);
    ages->in_order = ages->in_order && !(span->state == PAGODA_PAGE_COLLAPSED && ages->last == PAGODA_PAGE_SPILLED);
    ages->last = span->state;
    ages->first = span->first == 0 ? span->state : ages->first;
    return true;
}

TEST(when_flash_is_full_the_oldest_pages_collapse_and_younger_ones_take_their_place)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_memory memory;
    struct pagoda_account account;
    struct ages ages = {.in_order = true, .pinned_is_whole = true};
    fill_bounded(&options, layers, 128u << 10);
    struct pagoda_cache *cache = open_spilling(&options, 0);
    struct fill *fill = new_fill(3);
    bool sane = true;
    CHECK_EQ_INT(live(cache, fill, 200, &sane), PAGODA_OK);
    CHECK(pagoda_cache_pin(cache, 64, 20, NULL) == PAGODA_OK);
    CHECK_EQ_INT(live(cache, fill, LONG, &sane), PAGODA_OK);
    pagoda_cache_memory(cache, &memory);
    pagoda_cache_account(cache, &account);
    pagoda_cache_visit(cache, note_age, &ages);
    CHECK(sane && ages.in_order && ages.pinned_is_whole);
    CHECK(memory.flash_bytes <= 128u << 10 && memory.flash_bytes > 64u << 10);
    CHECK(memory.evicted_pages == 0 && account.dropped == 0 && !account.exact);
    CHECK(ages.tokens[PAGODA_PAGE_COLLAPSED] > 1000 && ages.tokens[PAGODA_PAGE_SPILLED] > 100);
    CHECK(memory.collapsed_pages == (LAYERS - 1) * ages.tokens[PAGODA_PAGE_COLLAPSED] / options.page_tokens);
    CHECK_EQ_INT(account.collapsed, ages.tokens[PAGODA_PAGE_COLLAPSED]);
    CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_OK);
    pagoda_cache_account(cache, &account);
    CHECK(account.collapsed == 0 && account.exact && account_adds_up(cache));
    pagoda_cache_close(cache);
    free(fill);
}

TEST(what_has_collapsed_is_dropped_before_anything_else)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_account account;
    struct ages ages = {.in_order = true, .pinned_is_whole = true};
    fill_bounded(&options, layers, 128u << 10);
    struct pagoda_cache *cache = open_spilling(&options, 0);
    struct fill *fill = new_fill(3);
    bool sane = true;
    CHECK_EQ_INT(live(cache, fill, LONG + 600, &sane), PAGODA_OK);
    pagoda_cache_account(cache, &account);
    pagoda_cache_visit(cache, note_age, &ages);
    CHECK(sane && account.dropped >= 500 && account.dropped < 700);
    /* The policy, fifo, would have dropped the first page first; it was never summarised, so it stays. */
    CHECK(ages.first == PAGODA_PAGE_SEALED && account.collapsed > 1000);
    CHECK(ages.tokens[PAGODA_PAGE_SPILLED] > 100);
    pagoda_cache_close(cache);
    free(fill);
}

TEST(a_summary_is_closer_to_the_truth_than_nothing)
{
    double distances[2];
    for (int i = 0; i < 2; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_account account;
        fill_layers(layers);
        fill_options(&options, layers);
        options.flash.bytes_max = 32u << 10;
        options.flash.recall = 1;
        options.flash.on_full = i == 0 ? PAGODA_ON_FLASH_FULL_COLLAPSE : PAGODA_ON_FLASH_FULL_DROP;
        distances[i] = distance_of(&options, 1, true, &account).sum;
        CHECK((account.collapsed > 0) == (i == 0) && (account.dropped > 0) == (i == 1));
    }
    CHECK(distances[0] < 0.6 * distances[1]);
}

TEST(a_smaller_budget_lets_pages_collapse_too)
{
    struct pagoda_layer layers[LAYERS];
    struct pagoda_cache_options options;
    struct pagoda_memory memory;
    fill_bounded(&options, layers, 64u << 10);
    struct pagoda_cache *cache = open_spilling(&options, 256u << 10);
    struct fill *fill = new_fill(3);
    bool sane = true;
    CHECK_EQ_INT(live(cache, fill, LONG, &sane), PAGODA_OK);
    pagoda_cache_memory(cache, &memory);
    const uint64_t before = memory.collapsed_pages;
    CHECK(pagoda_cache_set_budget(cache, options.budget_bytes - (96u << 10), NULL) == PAGODA_OK);
    pagoda_cache_memory(cache, &memory);
    CHECK(memory.collapsed_pages > before && memory.evicted_pages == 0 && account_adds_up(cache));
    pagoda_cache_close(cache);
    free(fill);
}

/* The governor's way down: pages go to flash as far as there is room, and the rest stays. */
TEST(a_lowered_budget_spills_and_drops_nothing)
{
    static const uint64_t bounds[] = {0, 128u << 10};
    for (int i = 0; i < 2; i++) {
        struct pagoda_layer layers[LAYERS];
        struct pagoda_cache_options options;
        struct pagoda_memory before;
        struct pagoda_memory after;
        struct pagoda_account account;
        fill_layers(layers);
        fill_options(&options, layers);
        options.flash.bytes_max = bounds[i];
        struct pagoda_cache *cache = open_spilling(&options, 8u << 20);
        struct fill *fill = new_fill(3);
        bool sane = true;
        CHECK_EQ_INT(live(cache, fill, 1500, &sane), PAGODA_OK);
        CHECK_EQ_U64(spilled_tokens(cache), 0);
        pagoda_cache_memory(cache, &before);
        CHECK(pgd_cache_lower_budget(cache, 0, NULL) == PAGODA_OK);
        pagoda_cache_memory(cache, &after);
        pagoda_cache_account(cache, &account);
        CHECK(account_adds_up(cache) && account.dropped == 0 && account.spilled > 0);
        CHECK(after.budget_bytes < before.used_bytes && after.used_bytes <= after.budget_bytes);
        CHECK(bounds[i] == 0 ? account.spilled > 1000 : after.flash_bytes <= bounds[i] && account.spilled < 1000);
        CHECK_EQ_INT(live(cache, fill, 1520, &sane), PAGODA_OK); /* and it goes on */
        CHECK(sane);
        pagoda_cache_close(cache);
        free(fill);
    }
}
