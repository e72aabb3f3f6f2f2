/* The governor at work on a real cache: the files of a made-up machine change, and the budget follows. */
#define _GNU_SOURCE 1 /* nftw */

#include "engine/pressure.h"

#include "engine/generate.h"
#include "engine/model.h"
#include "harness/failing_system.h"
#include "unit/tree.h"

#define MIB ((uint64_t) 1 << 20)
#define GROUP "sys/fs/cgroup/own/"

enum { HEADS = 8, SIZE = 64, BATCH = 256 };

struct world {
    struct failing_system host;
    struct pagoda_system system; /* its clock only: the memory is real */
    struct pagoda_layer layer;
    struct pagoda_cache *cache;
    struct pgd_pressure *pressure;
};

static void put_number(const char *name, uint64_t number)
{
    char text[32];
    (void) snprintf(text, sizeof text, "%llu\n", (unsigned long long) number);
    put(name, text);
}

static void open_world(struct world *world, enum pagoda_on_full on_full)
{
    struct pagoda_cache_options options;
    memset(world, 0, sizeof *world);
    make_root();
    put("proc/self/cgroup", "0::/own\n");
    put_number(GROUP "memory.max", 1024 * MIB);
    put_number(GROUP "memory.current", 256 * MIB);
    failing_system_init(&world->host);
    world->host.now_ns = 1000000000;
    world->system.clock = &world->host.clock;
    world->layer = (struct pagoda_layer) {
        .kv_heads = HEADS, .query_heads = HEADS, .key_size = SIZE, .value_size = SIZE, .scale = 0.125f};
    pagoda_cache_options_default(&options);
    options.layers = &world->layer;
    options.layer_count = 1;
    options.budget_bytes = 64 * MIB;
    options.codec_tight = PAGODA_CODEC_K5V4;
    options.on_full = on_full;
    options.flash.directory = root;
    options.flash.bytes_max = 2 * MIB;
    CHECK(pagoda_cache_open(&options, &world->cache, NULL) == PAGODA_OK);
    const struct pgd_pressure_options watched = {.root = root, .system = &world->system};
    CHECK(pgd_pressure_open(world->cache, &watched, &world->pressure, NULL) == PAGODA_OK);
}

static void close_world(struct world *world)
{
    pgd_pressure_close(world->pressure);
    pagoda_cache_close(world->cache);
    remove_root();
}

static void fill(struct world *world, uint32_t batches)
{
    static float rows[BATCH][HEADS * SIZE];
    for (uint32_t i = 0; i < batches; i++) {
        CHECK(pagoda_cache_begin(world->cache, BATCH, NULL) == PAGODA_OK);
        CHECK(pagoda_cache_ingest(world->cache, 0, PAGODA_KEYS, rows[0], HEADS * SIZE, 0, 1) == PAGODA_OK);
        CHECK(pagoda_cache_ingest(world->cache, 0, PAGODA_VALUES, rows[0], HEADS * SIZE, 0, 1) == PAGODA_OK);
        CHECK(pagoda_cache_end(world->cache, NULL) == PAGODA_OK);
    }
}

static struct pagoda_memory memory_of(const struct world *world)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(world->cache, &memory);
    return memory;
}

static void wait_ms(struct world *world, uint64_t ms)
{
    world->host.now_ns += ms * 1000000;
    pgd_pressure_poll(world->pressure);
}

static const char *last_words(const struct world *world)
{
    const struct pgd_pressure_view *view = pgd_pressure_look(world->pressure);
    return view->event_count == 0 ? "" : view->events[(view->event_count - 1) % PGD_PRESSURE_EVENTS_MAX].words;
}

TEST(the_budget_follows_the_group)
{
    struct world world;
    struct pagoda_account account;
    open_world(&world, PAGODA_ON_FULL_EVICT);
    fill(&world, 80);
    const uint64_t full = memory_of(&world).used_bytes;
    CHECK(full > 40 * MIB);
    wait_ms(&world, 1000);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, 64 * MIB);
    CHECK_STR(last_words(&world), "");
    put_number(GROUP "memory.current", 900 * MIB);
    wait_ms(&world, 60000);
    put_number(GROUP "memory.current", 1004 * MIB); /* 20 are left, the mark is 32 and some */
    wait_ms(&world, 50);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, 64 * MIB); /* not due yet */
    wait_ms(&world, 60000);
    const uint64_t mark = pgd_pressure_look(world.pressure)->mark_bytes;
    const uint64_t wanted = full - (mark + mark / 4 - 20 * MIB);
    CHECK(mark >= 32 * MIB && mark < 35 * MIB);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, wanted);
    CHECK(memory_of(&world).used_bytes <= wanted);
    CHECK(strstr(last_words(&world), "memory is tight: 20.0 MiB of 1024.0 MiB left by memory.max of /own") != NULL);
    CHECK_EQ_INT(pgd_pressure_look(world.pressure)->state, PGD_GOVERNOR_TIGHT);
    pagoda_cache_account(world.cache, &account);
    CHECK(account.quantized > 0);
    put_number(GROUP "memory.current", 256 * MIB);
    for (int i = 0; i < 150; i++) {
        wait_ms(&world, 100);
    }
    CHECK_EQ_U64(memory_of(&world).budget_bytes, 64 * MIB);
    CHECK_EQ_INT(pgd_pressure_look(world.pressure)->state, PGD_GOVERNOR_COMFORTABLE);
    CHECK_EQ_U64(pgd_pressure_look(world.pressure)->steps_down, 1);
    close_world(&world);
}

TEST(a_warning_is_heard_at_once)
{
    struct world world;
    open_world(&world, PAGODA_ON_FULL_EVICT);
    fill(&world, 40);
    wait_ms(&world, 10);
    const uint64_t full = memory_of(&world).used_bytes;
    pgd_pressure_warn(world.pressure);
    wait_ms(&world, 1);
    CHECK(memory_of(&world).budget_bytes < full);
    CHECK(strstr(last_words(&world), "the host warns of low memory") != NULL);
    close_world(&world);
}

TEST(stop_gives_what_it_can_and_then_refuses)
{
    struct world world;
    struct pagoda_account account;
    open_world(&world, PAGODA_ON_FULL_STOP);
    fill(&world, 40);
    put_number(GROUP "memory.current", 1020 * MIB);
    CHECK(!pgd_pressure_refuses(world.pressure));
    for (int i = 0; i < 10; i++) {
        wait_ms(&world, 100);
    }
    CHECK(pgd_pressure_refuses(world.pressure));
    pagoda_cache_account(world.cache, &account);
    CHECK_EQ_U64(account.dropped, 0);
    CHECK(account.quantized > 9000);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, pagoda_cache_budget_floor(world.cache));
    put_number(GROUP "memory.current", 256 * MIB);
    for (int i = 0; i < 50; i++) {
        wait_ms(&world, 100);
    }
    CHECK(!pgd_pressure_refuses(world.pressure));
    close_world(&world);
}

/* Half of the way to nothing at once: text stays while it is tight, and goes in critical, but not where pages go to
 * flash instead, even when flash is full. */
TEST(text_goes_in_critical_only)
{
    static const enum pagoda_on_full rules[] = {PAGODA_ON_FULL_EVICT, PAGODA_ON_FULL_SPILL};
    for (int i = 0; i < 2; i++) {
        struct world world;
        struct pagoda_account account;
        open_world(&world, rules[i]);
        fill(&world, rules[i] == PAGODA_ON_FULL_SPILL ? 40 : 80);
        wait_ms(&world, 1000);
        put_number(GROUP "memory.current", 960 * MIB);
        wait_ms(&world, 1000); /* it came at once: more than a mark is wanted */
        CHECK_EQ_INT(pgd_pressure_look(world.pressure)->state, PGD_GOVERNOR_TIGHT);
        pagoda_cache_account(world.cache, &account);
        CHECK_EQ_U64(account.dropped, 0);
        CHECK(rules[i] == PAGODA_ON_FULL_SPILL ? account.spilled > 0 : account.quantized > 10000);
        put_number(GROUP "memory.current", 1023 * MIB);
        wait_ms(&world, 1000);
        CHECK_EQ_INT(pgd_pressure_look(world.pressure)->state, PGD_GOVERNOR_CRITICAL);
        pagoda_cache_account(world.cache, &account);
        CHECK(rules[i] == PAGODA_ON_FULL_SPILL ? account.dropped == 0 : account.dropped > 0);
        close_world(&world);
    }
}

/* Inside a batch it only looks, and says so once; the next poll acts on what was seen. */
TEST(a_batch_that_takes_long_is_interrupted_once)
{
    struct world world;
    open_world(&world, PAGODA_ON_FULL_EVICT);
    fill(&world, 80);
    pgd_pressure_note_batch(world.pressure, 256, 1.6);
    CHECK(pgd_pressure_is_long(world.pressure, 256) && pgd_pressure_is_long(world.pressure, 17));
    CHECK(!pgd_pressure_is_long(world.pressure, 16)); /* shorter it cannot be */
    CHECK(pgd_pressure_batch(world.pressure) >= 256);
    wait_ms(&world, 1000);
    world.host.now_ns += 2000 * UINT64_C(1000000);
    CHECK(!pgd_pressure_interrupts(world.pressure)); /* nothing presses */
    put_number(GROUP "memory.current", 1000 * MIB);
    world.host.now_ns += 90 * 1000000;
    CHECK(!pgd_pressure_interrupts(world.pressure)); /* not due */
    world.host.now_ns += 20 * 1000000;
    const uint64_t budget = memory_of(&world).budget_bytes;
    CHECK(pgd_pressure_interrupts(world.pressure));
    CHECK(!pgd_pressure_interrupts(world.pressure));
    CHECK_EQ_U64(memory_of(&world).budget_bytes, budget);
    CHECK_EQ_U64(pgd_pressure_batch(world.pressure), 16);
    wait_ms(&world, 1);
    CHECK(memory_of(&world).budget_bytes < budget);
    CHECK(pgd_pressure_look(world.pressure)->state != PGD_GOVERNOR_COMFORTABLE);
    CHECK_EQ_U64(pgd_pressure_look(world.pressure)->interrupted, 1);
    pgd_pressure_note_batch(world.pressure, 256, 0.256);
    CHECK_EQ_U64(pgd_pressure_batch(world.pressure), 96); /* 100 ms of it, in whole pages */
    close_world(&world);
}

/* A real model and a clock that runs with each node of the graph: in the middle of a batch, somebody takes memory. */
struct ticking {
    struct pagoda_clock clock;
    uint64_t now_ns;
    uint64_t calls;
    uint64_t hog_at; /* call; 0: never */
};

static uint64_t tick(void *user)
{
    struct ticking *ticking = user;
    ticking->now_ns += 1000000;
    if (++ticking->calls == ticking->hog_at) {
        put_number(GROUP "memory.current", 1010 * MIB);
    }
    return ticking->now_ns;
}

static void note_pieces(void *user, uint64_t done, uint64_t count)
{
    uint64_t *pieces = user;
    (void) done;
    (void) count;
    (*pieces)++;
}

TEST(a_prompt_is_read_to_its_end_though_memory_goes_meanwhile)
{
    static int32_t tokens[768];
    struct pagoda_error error = {.status = PAGODA_OK};
    struct world world;
    struct pgd_model *model = NULL;
    struct pgd_bridge *bridge = NULL;
    uint64_t pieces = 0;
    struct ticking ticking = {.now_ns = 1000000000};
    ticking.clock = (struct pagoda_clock) {.now_ns = tick, .user = &ticking};
    const struct pagoda_system system = {.clock = &ticking.clock};
    open_world(&world, PAGODA_ON_FULL_EVICT); /* for its files */
    const struct pgd_bridge_options options = {
        .kv_bytes = 64 * MIB,
        .is_governed = true,
        .system_root = root,
        .system = &system,
        .on_full = PAGODA_ON_FULL_EVICT,
        .codec_tight = PAGODA_CODEC_K8V4,
        .threads = 1,
    };
    CHECK(pgd_model_open(test_model_path("smollm2-135m-instruct-q4_1.gguf"), NULL, &model, &error) == PAGODA_OK);
    CHECK(pgd_bridge_open(model, &options, &bridge, &error) == PAGODA_OK);
    for (int i = 0; i < 768; i++) {
        tokens[i] = 1000 + i * 7;
    }
    const struct pgd_feed_options feed = {.progress = note_pieces, .user = &pieces};
    CHECK(pgd_generate_feed(bridge, tokens, 512, &feed, &error) == PAGODA_OK);
    const struct pgd_pressure_view *view = pgd_pressure_look(pgd_bridge_pressure(bridge));
    CHECK(pieces == 2 && view->interrupted == 0 && view->steps_down == 0);
    ticking.hog_at = ticking.calls + 300;
    CHECK(pgd_generate_feed(bridge, tokens + 512, 256, &feed, &error) == PAGODA_OK);
    CHECK_EQ_U64(view->interrupted, 1);
    CHECK(view->steps_down > 0 && pieces > 2 + 1);
    CHECK_EQ_U64(pagoda_cache_position(pgd_bridge_cache(bridge)), 768);
    CHECK(pgd_bridge_logits(bridge, 0) != NULL);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
    close_world(&world);
}

TEST(a_machine_that_tells_nothing_is_left_alone)
{
    struct world world;
    open_world(&world, PAGODA_ON_FULL_EVICT);
    put("proc/self/cgroup", "nonsense\n");
    fill(&world, 80);
    for (int i = 0; i < 20; i++) {
        wait_ms(&world, 1000);
    }
    CHECK_EQ_U64(memory_of(&world).budget_bytes, 64 * MIB);
    CHECK(!pgd_pressure_look(world.pressure)->reading.known);
    CHECK_EQ_U64(pgd_pressure_look(world.pressure)->readings, 20);
    close_world(&world);
}

TEST(an_absurd_reading_that_stays_is_believed)
{
    struct world world;
    open_world(&world, PAGODA_ON_FULL_EVICT);
    fill(&world, 80);
    wait_ms(&world, 1000);
    put(GROUP "memory.current", "18446744073709551615\n");
    wait_ms(&world, 1000);
    CHECK(memory_of(&world).budget_bytes < 64 * MIB);
    close_world(&world);
}
