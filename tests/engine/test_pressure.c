/* The governor at work on a real cache: the files of a made-up machine change, and the budget follows. */
#define _GNU_SOURCE 1 /* nftw */

#include "engine/pressure.h"

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
    put_number(GROUP "memory.current", 980 * MIB); /* 44 are left, the mark is 64: 36 to a mark and a quarter */
    wait_ms(&world, 500);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, 64 * MIB); /* not due yet */
    wait_ms(&world, 500);
    CHECK_EQ_U64(memory_of(&world).budget_bytes, full - 36 * MIB);
    CHECK(memory_of(&world).used_bytes <= full - 36 * MIB);
    CHECK(strstr(last_words(&world), "memory is tight: 44.0 MiB of 1024.0 MiB left by memory.max of /own") != NULL);
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
