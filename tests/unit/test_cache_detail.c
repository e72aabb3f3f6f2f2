/* unit/test_cache_detail.c - KV heads that look for one token far back: they get details of all keys, and others do
 * not; and pages that hold a little each are left unread.
 */
#include "cache/cache.h"
#include "cache/spill.h"

#define TWIN_KV_HEADS 7 /* of two layers that grow: two of them may have details */
#define TWIN_SIZE 64
#include "unit/cache_life.h"

enum { PAGE = 16, GROUP = 2, PROMPT = 1984, CAPACITY = 2176, SLOTS = 2 };

#define SCALE 0.125f
#define NEAR 0.1 /* what stands in for a percent of the attention is off by little */
#define FAR 0.7  /* values are up to 2: another token's than the one that was looked for */

/* What a head's queries look for. All see the first token too, which takes what finds nothing else. */
enum looks {
    ANYTHING = 0,
    ONE_TOKEN, /* a token far back, by its very key: there is nothing in its page that tells */
    ONE_TOPIC, /* a page far back, whose tokens are much alike */
    NOTHING,   /* all keys are zero, but those of one page in one coordinate */
};

/* A life whose heads look for something. */
struct story {
    struct life life;
    enum looks looks[LAYERS][KV_HEADS];
    double page_share; /* NOTHING: of the marked page, ... */
    double even_share; /* ... and of all other tokens but the first */
    uint32_t cells;    /* of a digest, at most */
    bool is_broken;    /* no query is finite */
};

enum { MARKED_PAGE = 20 };

static uint64_t mix(uint64_t a, uint64_t b)
{
    struct test_rng rng = {a * UINT64_C(0x9e3779b97f4a7c15) + b};
    return test_rng_u64(&rng);
}

/* The token far back that a query looks for. */
static uint64_t target_of(const struct fill *fill, uint64_t position, int layer, int query_head)
{
    const uint64_t most = position / 2 > PAGE ? position / 2 : PAGE + 1;
    return PAGE + mix(fill->seed + position, (uint64_t) (layer * QUERY_HEADS + query_head)) % (most - PAGE);
}

static void shape_key(const struct fill *fill, enum looks looks, uint64_t position, uint64_t head, float *key)
{
    for (int d = 0; d < SIZE; d++) {
        if (looks == ONE_TOPIC) {
            key[d] = number_at(fill->seed, position / PAGE, 1000 + head, (uint64_t) d) + 0.05f * key[d];
        }
        key[d] = looks == NOTHING ? 0 : key[d];
    }
    key[0] = position == 0 ? 8 : 0;
    key[1] = looks == NOTHING && position / PAGE == MARKED_PAGE ? 8 : key[1];
}

/* So that the first token and the marked page have their shares of `tokens` tokens. */
static void shape_query_of_nothing(const struct story *story, uint64_t tokens, float *query)
{
    const double each = story->even_share / (double) (tokens > PAGE ? tokens - PAGE : 1);
    memset(query, 0, SIZE * sizeof(*query));
    query[0] = (float) log((1 - story->even_share - story->page_share) / each);
    query[1] = (float) log(story->page_share / (double) PAGE / each);
}

static void shape_query(const struct fill *fill, const struct twin *twin, int layer, int query_head, uint64_t position,
                        float *query)
{
    const struct story *story = fill->user;
    const int head = query_head / GROUP;
    const enum looks looks = story->looks[layer][head];
    if (looks == NOTHING) {
        shape_query_of_nothing(story, position + 1, query);
    } else if (looks != ANYTHING) {
        const uint64_t target = target_of(fill, position, layer, query_head);
        for (int d = 0; d < SIZE; d++) {
            query[d] = 2 * twin->keys[layer][target][head * SIZE + d];
        }
    }
    if (looks != NOTHING) {
        query[0] = 14;
    }
    if (story->is_broken) {
        query[1] = INFINITY;
    }
}

/* Keys first: queries may look for those of the same batch. */
static void tell_story(struct fill *fill, struct twin *twin, uint64_t first, uint32_t count)
{
    const struct story *story = fill->user;
    for (int layer = 0; layer < LAYERS; layer++) {
        for (uint32_t i = 0; i < count * KV_HEADS; i++) {
            const int head = (int) (i % KV_HEADS);
            shape_key(fill, story->looks[layer][head], first + i / KV_HEADS, (uint64_t) (layer * KV_HEADS + head),
                      &twin->keys[layer][first + i / KV_HEADS][head * SIZE]);
        }
        for (uint32_t i = 0; i < count * QUERY_HEADS; i++) {
            const int head = (int) (i % QUERY_HEADS);
            shape_query(fill, twin, layer, head, first + i / QUERY_HEADS,
                        &fill->queries[layer][i / QUERY_HEADS][head * SIZE]);
        }
    }
}

static struct story *begin_story(uint64_t seed)
{
    struct story *story = calloc(1, sizeof(*story));
    begin_life(&story->life, seed);
    story->life.fill->reshape = tell_story;
    story->life.fill->user = story;
    story->cells = 1;
    for (int layer = 0; layer < LAYERS; layer++) {
        story->life.layers[layer].scale = SCALE;
        story->life.layers[layer].softcap = 0;
    }
    return story;
}

/* In the smallest budget that has digests of few cells, and `slots` details, for batches of `batch` tokens at least.
 * What is cheap to read is not read for that. */
static void open_story_for(struct story *story, uint64_t tokens, uint32_t batch, uint32_t slots)
{
    struct life *life = &story->life;
    life->cache = open_smallest_spilling(&life->options, tokens, 0);
    while (life->cache->batch_most < batch || life->cache->spill->detail_count < slots ||
           life->cache->spill->digest_cells > story->cells) {
        pagoda_cache_close(life->cache);
        life->options.budget_bytes += 16u << 10;
        CHECK(pagoda_cache_open(&life->options, &life->cache, NULL) == PAGODA_OK);
    }
    life->cache->spill->cheap_bytes = 0;
    life->twin->middle = life->options.codec;
}

static void open_story(struct story *story)
{
    open_story_for(story, CAPACITY, 64, SLOTS);
    CHECK_EQ_INT(story->life.cache->spill->detail_count, SLOTS);
}

static void end_story(struct story *story)
{
    end_life(&story->life);
    free(story);
}

/* Tokens in batches of up to 64. */
static void read_text(struct story *story, uint64_t tokens)
{
    const uint64_t end = pagoda_cache_position(story->life.cache) + tokens;
    while (pagoda_cache_position(story->life.cache) < end) {
        const uint32_t count = fitting(story->life.cache, 64);
        CHECK(run_batch(story->life.cache, story->life.twin, story->life.fill, count) == PAGODA_OK);
    }
    CHECK(account_adds_up(story->life.cache));
}

/* What one token did. */
struct said {
    double distance; /* the largest from the exact output, of the head in question */
    uint64_t bytes_read;
    uint64_t unread; /* pages */
};

static double distance_of_head(struct story *story, int layer, int head, uint64_t position)
{
    double most = 0;
    pagoda_cache_visit(story->life.cache, mark_codecs, story->life.twin);
    for (int query_head = head * GROUP; query_head < (head + 1) * GROUP; query_head++) {
        double expected[SIZE];
        twin_attend(story->life.twin, &story->life.layers[layer], layer, position, query_head,
                    &story->life.fill->queries[layer][0][query_head * SIZE], false, expected);
        for (int d = 0; d < SIZE; d++) {
            const double distance = fabs(expected[d] - story->life.fill->outputs[layer][0][query_head * SIZE + d]);
            most = distance > most ? distance : most;
        }
    }
    return most;
}

/* One token, and how one head of it did. */
static struct said say(struct story *story, int layer, int head)
{
    struct said said = {.bytes_read = memory_of(&story->life).flash_bytes_read};
    const uint64_t position = pagoda_cache_position(story->life.cache);
    CHECK(run_batch(story->life.cache, story->life.twin, story->life.fill, 1) == PAGODA_OK);
    said.bytes_read = memory_of(&story->life).flash_bytes_read - said.bytes_read;
    said.unread = story->life.cache->spill->unread_pages;
    said.distance = distance_of_head(story, layer, head, position);
    CHECK(account_adds_up(story->life.cache));
    return said;
}

static bool has_slot(const struct story *story, uint32_t layer, uint32_t head)
{
    const struct pgd_spill *spill = story->life.cache->spill;
    const uint32_t name = layer * spill->trust_heads + head + 1;
    bool found = false;
    for (uint32_t slot = 0; slot < spill->detail_count; slot++) {
        found = found || spill->detailed_heads[slot] == name;
    }
    return found;
}

static uint32_t slots_taken(const struct story *story)
{
    uint32_t taken = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        taken += story->life.cache->spill->detailed_heads[slot] != PGD_DETAIL_NONE ? 1 : 0;
    }
    return taken;
}

/* ---- which heads ---- */

TEST(a_head_that_looks_for_one_token_gets_details_and_others_do_not)
{
    struct story *story = begin_story(1);
    story->looks[0][3] = ONE_TOKEN;
    story->looks[0][4] = ONE_TOPIC;
    story->looks[2][5] = ONE_TOPIC;
    open_story(story);
    read_text(story, PROMPT);
    CHECK(has_slot(story, 0, 3));
    CHECK_EQ_INT(slots_taken(story), 1); /* there is another one, which nobody needs */
    end_story(story);
}

TEST(heads_that_digests_tell_enough_about_get_none)
{
    struct story *story = begin_story(2);
    for (int head = 0; head < KV_HEADS; head += 2) {
        story->looks[0][head] = ONE_TOPIC;
        story->looks[2][head] = NOTHING;
    }
    story->even_share = 0.3;
    story->page_share = 0.2;
    open_story(story);
    read_text(story, PROMPT);
    CHECK_EQ_INT(slots_taken(story), 0);
    const struct said said = say(story, 0, 2);
    CHECK(said.distance < NEAR); /* the topic was found all the same */
    end_story(story);
}

TEST(two_heads_have_a_slot_each)
{
    struct story *story = begin_story(3);
    story->looks[0][6] = ONE_TOKEN;
    story->looks[2][0] = ONE_TOKEN;
    open_story(story);
    read_text(story, PROMPT);
    CHECK(has_slot(story, 0, 6) && has_slot(story, 2, 0));
    for (int i = 0; i < 4; i++) {
        CHECK(say(story, 2 * (i % 2), i % 2 == 0 ? 6 : 0).distance < NEAR);
    }
    end_story(story);
}

/* ---- what they do with them ---- */

TEST(with_details_one_token_reads_the_page_with_the_key_and_without_it_misses_it)
{
    static const enum pagoda_codec codecs[] = {PAGODA_CODEC_F16, PAGODA_CODEC_K8V4};
    for (int i = 0; i < 4; i++) {
        const bool was_seen = i % 2 == 0; /* while the prompt was read; else nobody could know what it will look for */
        struct story *story = begin_story(4);
        story->life.options.codec = codecs[i / 2];
        story->life.options.codec_tight = codecs[i / 2];
        story->looks[0][2] = was_seen ? ONE_TOKEN : ANYTHING;
        open_story(story);
        read_text(story, PROMPT);
        CHECK(has_slot(story, 0, 2) == was_seen);
        story->looks[0][2] = ONE_TOKEN;
        const uint64_t page_bytes = pgd_spill_page_bytes(story->life.cache, 0);
        int missed = 0;
        for (int turn = 0; turn < 6; turn++) {
            const struct said said = say(story, 0, 2);
            CHECK(!story->life.cache->spill->layers[0].dense);
            CHECK(said.unread > 150); /* of about 230 in two layers */
            CHECK(said.bytes_read <= (was_seen ? GROUP : 10) * (page_bytes + 2 * PGD_FLASH_ALIGN));
            missed += said.distance > FAR ? 1 : 0;
            CHECK(!was_seen || said.distance < NEAR);
        }
        CHECK(was_seen ? missed == 0 : missed >= 4);
        end_story(story);
    }
}

TEST(a_head_that_changes_gets_details_and_its_layer_is_read_in_full_once)
{
    struct story *story = begin_story(5);
    story->looks[2][1] = ONE_TOKEN;
    open_story(story);
    read_text(story, PROMPT);
    for (int i = 0; i < 20; i++) { /* pages come back to memory, and have no details of the head to be */
        CHECK(say(story, 2, 1).distance < NEAR);
    }
    const struct pgd_spill *spill = story->life.cache->spill;
    CHECK(has_slot(story, 2, 1) && slots_taken(story) == 1);
    story->looks[0][2] = ONE_TOKEN;
    CHECK(say(story, 0, 2).distance > FAR); /* nobody knows */
    read_text(story, 64);
    CHECK(!has_slot(story, 0, 2));
    const uint64_t away = spill->layers[0].away;
    const uint64_t page_bytes = pgd_spill_page_bytes(story->life.cache, 0);
    const struct said first = say(story, 0, 2);
    CHECK(has_slot(story, 0, 2) && has_slot(story, 2, 1));
    CHECK(spill->layers[0].dense && !spill->layers[2].dense);
    CHECK(first.bytes_read >= away * page_bytes && first.distance < NEAR);
    for (int i = 0; i < 60; i++) {
        const struct said said = say(story, 0, 2);
        CHECK(!spill->layers[0].dense && !spill->layers[2].dense);
        CHECK(said.bytes_read <= 2 * GROUP * (page_bytes + 2 * PGD_FLASH_ALIGN) && said.distance < NEAR);
    }
    end_story(story);
}

TEST(queries_that_are_not_finite_are_not_learned_from)
{
    struct story *story = begin_story(6);
    story->looks[0][4] = ONE_TOPIC;
    open_story(story);
    read_text(story, PROMPT / 4);
    story->is_broken = true;
    read_text(story, 64);
    story->is_broken = false;
    read_text(story, PROMPT - PROMPT / 4 - 64);
    for (uint32_t head = 0; head < KV_HEADS; head++) {
        const struct pgd_digest_queries seen = pgd_queries_of(story->life.cache, 0, head);
        for (int d = 0; d < SIZE; d++) {
            CHECK(isfinite(seen.means[d]) && isfinite(seen.variance[d]));
        }
    }
    for (int turn = 0; turn < 6; turn++) {
        CHECK(say(story, 0, 4).distance < NEAR);
    }
    end_story(story);
}

/* ---- details are those of the page ---- */

/* The keys of a page as its codec gives them back, rotated, and their detail beside its digest. */
static void make_detail(const struct story *story, uint32_t layer, uint32_t head, uint64_t first, const uint8_t *digest,
                        uint8_t *detail)
{
    const struct twin *twin = story->life.twin;
    const struct pgd_codec *codec = pgd_codec_get(story->life.options.codec_tight);
    const struct pgd_cell_shape shape = {SIZE, SIZE};
    static _Alignas(64) unsigned char cell[4096];
    float keys[PGD_LANES * SIZE];
    float values[PGD_LANES * SIZE];
    for (uint32_t i = 0; i < PGD_LANES * SIZE; i++) {
        keys[i] = as_f16(twin->keys[layer][first + i / SIZE][head * SIZE + i % SIZE]);
        values[i] = as_f16(twin->values[layer][first + i / SIZE][head * SIZE + i % SIZE]);
    }
    codec->encode(codec, shape, keys, values, cell);
    codec->decode(codec, shape, cell, keys, values);
    for (uint32_t t = 0; t < PGD_LANES; t++) {
        pgd_hadamard(SIZE, keys + (size_t) t * SIZE);
    }
    pgd_detail_make(SIZE, PGD_LANES, keys, digest, detail);
}

/* How many details were looked at. */
struct looked {
    uint64_t good;
    uint64_t stale; /* of a head that had the slot before */
    uint64_t bad;
    uint64_t lacking; /* on flash, of a layer that is read as if it had them */
    uint64_t stray;   /* of a block that has no digests, so from one that had its slot in the table before */
    uint64_t dropped; /* pages, and ... */
    uint64_t collapsed;
    uint64_t shared; /* frames of digests, by blocks */
};

/* The detail that a block has in one slot. */
static void look_at_detail(const struct story *story, uint32_t index, uint32_t slot, struct looked *looked)
{
    const struct pagoda_cache *cache = story->life.cache;
    const struct pgd_spill *spill = cache->spill;
    const uint32_t number = pgd_table_slot(cache->table, index);
    const uint32_t name = spill->detailed_heads[slot];
    const uint32_t layer = (name - 1) / spill->trust_heads;
    const uint32_t head = (name - 1) % spill->trust_heads;
    const uint64_t first = pgd_table_block(cache->table, index)->first;
    if (spill->details[number * spill->detail_count + slot] != name) {
        looked->stale += spill->details[number * spill->detail_count + slot] != PGD_DETAIL_NONE ? 1 : 0;
        looked->lacking += pgd_table_page(cache->table, index, layer)->state == PAGODA_PAGE_SPILLED ? 1 : 0;
        return;
    }
    const uint8_t *frame = pgd_pool_address(cache->pool, spill->blocks[number].digests);
    const uint64_t at = (uint64_t) slot * spill->span * cache->page_cells + pgd_spill_first_cell(cache, index);
    const uint8_t *found = frame + spill->details_at + at * spill->detail_bytes;
    uint8_t wanted[1024];
    bool same = true;
    for (uint32_t cell = 0; cell < cache->page_cells; cell++) {
        make_detail(story, layer, head, first + (uint64_t) cell * PGD_LANES,
                    pgd_spill_digest(cache, index, layer, head, cell), wanted);
        same = same && memcmp(wanted, found + cell * spill->detail_bytes, pgd_detail_bytes(SIZE)) == 0;
    }
    *(same ? &looked->good : &looked->bad) += 1;
}

/* Frames of digests are those of neighbours, and there are no others. */
static void look_at_frames(const struct story *story, struct looked *looked)
{
    const struct pagoda_cache *cache = story->life.cache;
    const struct pgd_spill *spill = cache->spill;
    uint64_t frames = 0;
    for (uint32_t i = 0; i < pgd_table_count(cache->table); i++) {
        const struct pgd_spill_block *block = &spill->blocks[pgd_table_slot(cache->table, i)];
        const struct pgd_spill_block *before = i == 0 ? NULL : &spill->blocks[pgd_table_slot(cache->table, i - 1)];
        const bool shares = before != NULL && before->digests == block->digests;
        if (block->digests != PGD_FRAME_NONE) {
            CHECK(block->place < spill->span && (!shares || block->place > before->place));
            frames += shares ? 0 : 1;
            looked->shared += shares ? 1 : 0;
        }
    }
    CHECK_EQ_U64(cache->ledger.by_category[PAGODA_MEMORY_DIGESTS],
                 frames * pgd_pool_frame_bytes(cache->pool, spill->digest_class));
}

static void look_at_details(const struct story *story, struct looked *looked)
{
    const struct pagoda_cache *cache = story->life.cache;
    const struct pgd_spill *spill = cache->spill;
    const uint32_t slots = spill->detail_count;
    for (uint32_t i = 0; i < pgd_table_count(cache->table) * slots; i++) {
        const uint32_t number = pgd_table_slot(cache->table, i / slots);
        if (spill->blocks[number].digests == PGD_FRAME_NONE) {
            looked->stray += spill->details[number * slots + i % slots] != PGD_DETAIL_NONE ? 1 : 0;
        } else if (spill->detailed_heads[i % slots] != PGD_DETAIL_NONE) {
            look_at_detail(story, i / slots, i % slots, looked);
        }
    }
}

/* Heads begin and cease to look for one token. */
static void turn_heads(struct story *story, struct test_rng *rng)
{
    for (int head = 0; head < KV_HEADS; head++) {
        story->looks[0][head] = test_rng_below(rng, 5) == 0 ? ONE_TOKEN : ANYTHING;
        story->looks[2][head] = test_rng_below(rng, 5) == 0 ? ONE_TOKEN : ANYTHING;
    }
}

/* Something that makes pages leave, or blocks: their slots in the table are used again. */
static void disturb(struct story *story, struct test_rng *rng)
{
    struct pagoda_cache *cache = story->life.cache;
    const uint64_t position = pagoda_cache_position(cache);
    const uint64_t floor = pagoda_cache_rollback_floor(cache);
    const uint64_t most = memory_of(&story->life).opened_bytes;
    switch (test_rng_below(rng, 8)) {
    case 0: /* the tokens that come instead are others */
        if (position > floor && pagoda_cache_rollback(cache, 1 + test_rng_below(rng, position - floor), NULL) == 0) {
            story->life.fill->seed++;
        }
        break;
    case 1:
        if (pagoda_cache_set_budget(cache, most - test_rng_below(rng, most / 8), NULL) != PAGODA_OK) {
            story->life.refused++;
        }
        break;
    case 2: CHECK(pagoda_cache_set_budget(cache, most, NULL) == PAGODA_OK); break;
    case 3:
        if (test_rng_below(rng, 20) == 0) {
            CHECK(pagoda_cache_reset(cache, NULL) == PAGODA_OK);
            story->life.fill->seed++;
        }
        break;
    default: break;
    }
}

/* One life; what happened in it. */
static void live_at_random(uint64_t seed, struct looked *looked)
{
    struct test_rng rng = test_rng(seed);
    struct story *story = begin_story(seed);
    struct pagoda_cache_options *options = &story->life.options;
    options->page_tokens = seed / 4 % 2 == 0 ? PAGE : 3 * PAGE;
    options->codec = options->codec_tight = test_rng_below(&rng, 2) == 0 ? PAGODA_CODEC_F16 : PAGODA_CODEC_K8V4;
    options->flash.bytes_max = (1 + seed % 4) << 18;
    options->flash.on_full = seed % 2 == 0 ? PAGODA_ON_FLASH_FULL_COLLAPSE : PAGODA_ON_FLASH_FULL_DROP;
    story->cells = seed / 2 % 2 == 0 ? 1 : 4; /* some with digests of one cell, some of up to four */
    open_story_for(story, 1200, 1, story->cells == 1 ? SLOTS : 1);
    for (int i = 0; i < 120 && pagoda_cache_position(story->life.cache) < TOKENS_MAX - 64; i++) {
        if (i % 15 == 0) {
            turn_heads(story, &rng);
        }
        const uint32_t wanted = test_rng_below(&rng, 3) == 0 ? 1 : 1 + (uint32_t) test_rng_below(&rng, 64);
        const uint32_t count = fitting(story->life.cache, wanted);
        CHECK(run_batch(story->life.cache, story->life.twin, story->life.fill, count) == PAGODA_OK);
        look_at_details(story, looked);
        look_at_frames(story, looked);
        looked->dropped += memory_of(&story->life).evicted_pages;
        looked->collapsed += memory_of(&story->life).collapsed_pages;
        CHECK(account_adds_up(story->life.cache));
        disturb(story, &rng);
    }
    end_story(story);
}

TEST(details_are_those_of_the_page_whatever_happens_to_it)
{
    const uint64_t seed = test_seed();
    struct looked looked;
    memset(&looked, 0, sizeof(looked));
    for (uint64_t i = 0; i < 12; i++) {
        live_at_random(seed + i, &looked);
        CHECK_EQ_U64(looked.bad, 0);
        CHECK_EQ_U64(looked.lacking + looked.stray, 0);
    }
    CHECK(looked.good > 500 && looked.stale > 0 && looked.dropped > 0 && looked.collapsed > 0);
    CHECK(looked.shared > 100);
}

/* ---- what is spread out ---- */

/* Whether the last token, in the last layer, read the marked page and nothing else; or nothing at all. */
static bool read_marked_page(const struct story *story)
{
    const struct pgd_spill *spill = story->life.cache->spill;
    const uint32_t index = pgd_table_find(story->life.cache->table, MARKED_PAGE * PAGE);
    return spill->selected_count == 1 && spill->selected[0] == index;
}

TEST(what_is_spread_over_many_pages_is_not_read_and_what_is_in_one_is)
{
    static const struct {
        double page_share;
        double even_share;
        bool is_read;
    } cases[] = {
        {1e-9, 0.2, false},   /* more than a twentieth, but a little from each page */
        {0.1, 0.2, true},     /* a tenth in one page ... */
        {0.1, 0.001, true},   /* ... with or without the rest */
        {0.03, 0.2, true},    /* errors of one page do not average out */
        {0.04, 0.001, false}, /* less than a twentieth in all */
        {0.06, 0.001, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct story *story = begin_story(6);
        story->life.options.flash.recall = 0.95;
        story->looks[2][4] = NOTHING;
        story->page_share = cases[i].page_share;
        story->even_share = cases[i].even_share;
        open_story(story);
        read_text(story, PROMPT);
        const uint64_t page_bytes = pgd_spill_page_bytes(story->life.cache, 2);
        const struct said said = say(story, 2, 4);
        CHECK(cases[i].is_read ? read_marked_page(story) : story->life.cache->spill->selected_count == 0);
        CHECK_EQ_U64(said.bytes_read, cases[i].is_read ? page_bytes : 0);
        CHECK(said.distance < NEAR);
        end_story(story);
    }
}

/* Digests may say far too little of a page. With few layers some pages cost next to nothing: the best of them are read
 * however little digests expect there. */
TEST(a_page_is_read_in_any_case_where_that_is_cheap)
{
    struct story *story = begin_story(6);
    story->life.options.flash.recall = 0.95;
    for (int head = 0; head < KV_HEADS; head++) {
        story->looks[2][head] = NOTHING;
    }
    story->page_share = 0.04;
    story->even_share = 0.001;
    open_story(story);
    read_text(story, PROMPT);
    (void) say(story, 2, 4);
    CHECK_EQ_INT(story->life.cache->spill->selected_count, 0);
    story->life.cache->spill->cheap_bytes = 2 * 3 * pgd_spill_page_bytes(story->life.cache, 2); /* 3 pages a layer */
    (void) say(story, 2, 4);
    CHECK(read_marked_page(story));
    end_story(story);
}

/* Where it is found, and only there, in the smallest budgets too. */
TEST(pages_that_share_a_digest_are_told_apart)
{
    for (uint64_t seed = 6; seed < 9; seed++) {
        struct story *story = begin_story(seed);
        story->cells = 4;
        story->life.options.flash.recall = 0.95;
        story->looks[2][4] = NOTHING;
        story->page_share = 0.2;
        story->even_share = 0.01;
        open_story_for(story, CAPACITY, 1, 1);
        CHECK_EQ_INT(story->life.cache->spill->span, 4);
        read_text(story, PROMPT);
        (void) say(story, 2, 4);
        CHECK(read_marked_page(story));
        end_story(story);
    }
}
