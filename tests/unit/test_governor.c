/* The governor against a small model of a machine: scripts (a hog, a saw, noise around the mark), and a million random
 * steps; every invariant of governor.h at each of them. */
#include "governor/governor.h"

#include <stdio.h>
#include <string.h>

#include "harness/test.h"

#define MIB ((uint64_t) 1 << 20)
#define TURNS_MAX 4096

/* A machine with one limit, others who take memory, and a cache that fills its budget and obeys it. */
struct plant {
    struct pgd_governor governor;
    uint64_t now_ms;
    uint64_t limit_bytes;
    uint64_t others_bytes;
    uint64_t budget_bytes;
    uint64_t used_bytes;
    uint64_t floor_bytes;
    uint64_t text_floor_bytes; /* never more than the budget */
    uint64_t ceiling_bytes;
    bool keeps_text;
    double stall_share;
    bool unknown;
    enum pgd_governor_warning warning;
    struct pgd_governor_decision decision;
    int direction;
    uint64_t turns_ms[TURNS_MAX]; /* changes of direction */
    uint32_t turns;
    uint64_t steps_down;
    uint64_t steps_up;
};

static void plant_init(struct plant *plant, uint64_t limit_bytes, uint64_t ceiling_bytes)
{
    memset(plant, 0, sizeof *plant);
    pgd_governor_init(&plant->governor);
    plant->now_ms = 5000;
    plant->limit_bytes = limit_bytes;
    plant->budget_bytes = ceiling_bytes;
    plant->used_bytes = ceiling_bytes;
    plant->ceiling_bytes = ceiling_bytes;
    plant->floor_bytes = ceiling_bytes / 16;
}

static uint64_t available(const struct plant *plant)
{
    const uint64_t taken = plant->others_bytes + plant->used_bytes;
    return taken >= plant->limit_bytes ? 0 : plant->limit_bytes - taken;
}

static struct pgd_governor_input input_of(const struct plant *plant)
{
    struct pgd_governor_input input = {
        .now_ms = plant->now_ms,
        .reading = {.known = !plant->unknown,
                    .available_bytes = available(plant),
                    .limit_bytes = plant->limit_bytes,
                    .stall_share = plant->stall_share},
        .warning = plant->warning,
        .budget_bytes = plant->budget_bytes,
        .used_bytes = plant->used_bytes,
        .own_bytes = 100 * MIB + plant->used_bytes,
        .floor_bytes = plant->floor_bytes,
        .text_floor_bytes =
            plant->text_floor_bytes < plant->budget_bytes ? plant->text_floor_bytes : plant->budget_bytes,
        .ceiling_bytes = plant->ceiling_bytes,
        .may_let_go = !plant->keeps_text,
    };
    (void) snprintf(input.reading.source, sizeof input.reading.source, "the test");
    return input;
}

static void note_direction(struct plant *plant, uint64_t before)
{
    const uint64_t after = plant->decision.budget_bytes;
    const int direction = after > before ? 1 : after < before ? -1 : plant->direction;
    plant->steps_down += after < before ? 1 : 0;
    plant->steps_up += after > before ? 1 : 0;
    if (direction != plant->direction && plant->direction != 0) {
        CHECK(plant->turns < TURNS_MAX);
        plant->turns_ms[plant->turns++] = plant->now_ms;
    }
    plant->direction = direction;
}

static uint64_t floor_in(const struct pgd_governor_input *input, enum pgd_governor_state state)
{
    const bool loses_text = state == PGD_GOVERNOR_CRITICAL && input->may_let_go;
    return loses_text || input->text_floor_bytes < input->floor_bytes ? input->floor_bytes : input->text_floor_bytes;
}

static void check_actions(const struct pgd_governor_input *input, const struct pgd_governor_decision *decision)
{
    bool has[PGD_ACTION_COUNT] = {false};
    for (uint32_t i = 0; i < decision->action_count; i++) {
        CHECK(i == 0 || decision->actions[i] > decision->actions[i - 1]); /* in order */
        has[decision->actions[i]] = true;
    }
    CHECK(has[PGD_ACTION_STOP_AHEAD] == (decision->state != PGD_GOVERNOR_COMFORTABLE));
    CHECK(has[PGD_ACTION_REENCODE] == (decision->budget_bytes < input->used_bytes));
    CHECK(!has[PGD_ACTION_SPILL] || input->may_spill);
    CHECK(!has[PGD_ACTION_LET_GO] || input->may_let_go);
    CHECK(has[PGD_ACTION_GROW] == (decision->budget_bytes > input->budget_bytes));
    CHECK(!has[PGD_ACTION_REFUSE] ||
          (decision->state == PGD_GOVERNOR_CRITICAL && decision->budget_bytes <= floor_in(input, decision->state)));
    CHECK(!has[PGD_ACTION_LET_GO] || decision->state == PGD_GOVERNOR_CRITICAL); /* G6 */
}

/* G1, G2, G4 and G5 at one step; G3 is looked at when all is over. */
static void plant_step(struct plant *plant)
{
    struct pgd_governor_input input = input_of(plant);
    const struct pgd_governor before = plant->governor;
    const enum pgd_governor_state state_before = before.state;
    pgd_governor_step(&plant->governor, &input, &plant->decision);
    const struct pgd_governor_decision *decision = &plant->decision;
    const uint64_t floor_bytes = floor_in(&input, decision->state);
    const uint64_t most = input.ceiling_bytes > floor_bytes ? input.ceiling_bytes : floor_bytes;
    CHECK(decision->budget_bytes >= floor_bytes && decision->budget_bytes <= most); /* G1 */
    const uint64_t mark = decision->mark_bytes;
    CHECK(!input.reading.known || mark >= pgd_governor_mark(plant->limit_bytes, 0));
    if (input.reading.known && input.reading.available_bytes < mark) { /* G4 */
        const uint64_t given = input.used_bytes - decision->budget_bytes;
        CHECK(decision->budget_bytes <= floor_bytes ||
              (decision->budget_bytes <= input.used_bytes && input.reading.available_bytes + given >= mark));
        CHECK(decision->state != PGD_GOVERNOR_COMFORTABLE);
        CHECK_EQ_U64(decision->next_ms, PGD_GOVERNOR_NEAR_MS);
    }
    if (!input.reading.known && input.warning == PGD_WARNING_NONE) { /* G5 */
        CHECK(decision->budget_bytes == input.budget_bytes && decision->state == state_before);
    }
    struct pgd_governor other = before; /* G2 */
    struct pgd_governor_decision worse;
    input.reading.available_bytes -= input.reading.available_bytes / 3;
    input.reading.stall_share = input.reading.stall_share / 2 + 0.5;
    pgd_governor_step(&other, &input, &worse);
    CHECK(worse.budget_bytes <= decision->budget_bytes && worse.state >= decision->state);
    input = input_of(plant);
    check_actions(&input, decision);
    const bool moves = decision->budget_bytes != plant->budget_bytes || decision->state != state_before;
    CHECK(moves == (decision->words[0] != '\0'));
    note_direction(plant, plant->budget_bytes);
    plant->budget_bytes = decision->budget_bytes;
    plant->used_bytes = plant->used_bytes < plant->budget_bytes ? plant->used_bytes : plant->budget_bytes;
    plant->warning = PGD_WARNING_NONE;
}

/* The cache fills what it may have, at 16 MiB a second. */
static void plant_wait(struct plant *plant, uint64_t ms)
{
    plant->now_ms += ms;
    plant->used_bytes += ms * 16 * MIB / 1000;
    plant->used_bytes = plant->used_bytes < plant->budget_bytes ? plant->used_bytes : plant->budget_bytes;
}

/* G3 in its strict form: for traces without full relief. */
static uint32_t most_turns_in_a_minute(const struct plant *plant)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < plant->turns; i++) {
        uint32_t count = 0;
        for (uint32_t j = i; j < plant->turns && plant->turns_ms[j] - plant->turns_ms[i] < 60000; j++) {
            count++;
        }
        most = count > most ? count : most;
    }
    return most;
}

/* ---- by hand ---- */

TEST(marks)
{
    CHECK_EQ_U64(pgd_governor_mark(64 * MIB, 0), 4 * MIB);
    CHECK_EQ_U64(pgd_governor_mark(172 * MIB, 0), 8 * MIB);
    CHECK_EQ_U64(pgd_governor_mark(1024 * MIB, 0), 32 * MIB);
    CHECK_EQ_U64(pgd_governor_mark(64 * 1024 * MIB, 0), 256 * MIB);
    CHECK_EQ_U64(pgd_governor_mark(UINT64_MAX, 0), 256 * MIB);
    CHECK_EQ_U64(pgd_governor_mark(1024 * MIB, 50 * MIB), 52 * MIB); /* 400 ms of it */
    CHECK_EQ_U64(pgd_governor_mark(172 * MIB, 100 * MIB), 32 * MIB); /* at most 4 bases */
    CHECK_EQ_U64(pgd_governor_mark(UINT64_MAX, UINT64_MAX), 512 * MIB);
}

/* A limit of 1.15 times what it takes, and nobody else: text stays, whatever the size. */
TEST(a_limit_close_to_the_working_set_is_comfortable)
{
    for (uint64_t working = 100 * MIB; working < 16384 * MIB; working = working * 3 / 2) {
        struct plant plant;
        plant_init(&plant, working * 115 / 100, working / 2);
        plant.others_bytes = working - plant.ceiling_bytes; /* weights, buffers */
        plant.used_bytes = 0;
        plant.budget_bytes /= 2; /* there was a hog once */
        for (int i = 0; i < 1000; i++) {
            plant_step(&plant);
            CHECK_EQ_INT(plant.decision.state, PGD_GOVERNOR_COMFORTABLE);
            plant_wait(&plant, plant.decision.next_ms);
        }
        CHECK_EQ_U64(plant.budget_bytes, plant.ceiling_bytes);
    }
}

/* Others come slowly: all that can be had without losing text is given before any text is; and with a user who keeps
 * all text, none ever is. */
TEST(text_is_lost_in_critical_only)
{
    for (int keeps = 0; keeps < 2; keeps++) {
        struct plant plant;
        bool was_tight_at_the_text = false;
        bool has_lost = false;
        plant_init(&plant, 1024 * MIB, 512 * MIB);
        plant.text_floor_bytes = 200 * MIB;
        plant.keeps_text = keeps == 1;
        for (int i = 0; i < 6000; i++) {
            plant.others_bytes = (uint64_t) i * MIB / 6; /* less than 2 MiB a second */
            plant_step(&plant);
            const bool is_critical = plant.decision.state == PGD_GOVERNOR_CRITICAL;
            CHECK(plant.budget_bytes >= 200 * MIB || has_lost || (is_critical && keeps == 0));
            has_lost = plant.budget_bytes < 200 * MIB;
            was_tight_at_the_text =
                was_tight_at_the_text || (!is_critical && plant.budget_bytes == plant.text_floor_bytes &&
                                          strstr(plant.decision.words, ", the least that keeps all text") != NULL);
            plant.text_floor_bytes = plant.budget_bytes < 200 * MIB ? plant.budget_bytes : 200 * MIB;
            plant_wait(&plant, 100);
        }
        CHECK(was_tight_at_the_text);
        CHECK_EQ_U64(plant.budget_bytes, keeps == 1 ? 200 * MIB : plant.floor_bytes);
        CHECK_EQ_INT(plant.decision.actions[plant.decision.action_count - 1], PGD_ACTION_REFUSE);
    }
}

/* What vanishes quickly is met earlier, and forgotten when it has stopped. */
TEST(the_mark_follows_the_speed)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 256 * MIB);
    for (int i = 0; i < 40; i++) {
        plant.others_bytes += 64 * MIB / 10;
        plant_step(&plant);
        plant_wait(&plant, 100);
    }
    CHECK(plant.decision.mark_bytes > 56 * MIB && plant.decision.mark_bytes < 58 * MIB); /* 32 + 64 x 0.4 */
    for (int i = 0; i < 300; i++) {
        plant_step(&plant);
        plant_wait(&plant, 100);
    }
    CHECK(plant.decision.mark_bytes < 33 * MIB);
    plant.used_bytes = 0; /* what the cache takes itself vanishes, too, but nobody takes it */
    plant_step(&plant);
    for (int i = 0; i < 100; i++) {
        plant_wait(&plant, 100);
        plant_step(&plant);
    }
    CHECK(plant.decision.mark_bytes < 33 * MIB);
}

TEST(with_plenty_nothing_happens)
{
    struct plant plant;
    plant_init(&plant, 4096 * MIB, 512 * MIB);
    for (int i = 0; i < 1000; i++) {
        plant_step(&plant);
        CHECK_EQ_U64(plant.decision.next_ms, PGD_GOVERNOR_FAR_MS);
        CHECK_STR(plant.decision.words, "");
        plant_wait(&plant, plant.decision.next_ms);
    }
    CHECK_EQ_U64(plant.budget_bytes, 512 * MIB);
}

TEST(the_sentence_says_what_and_why)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 512 * MIB);
    plant.others_bytes = 492 * MIB; /* 20 are left, the mark is 32 */
    plant_step(&plant);
    CHECK_STR(plant.decision.words,
              "memory is tight: 20.0 MiB of 1024.0 MiB left by the test; KV budget 512.0 MiB -> 492.0 MiB");
    CHECK_EQ_INT(plant.decision.actions[0], PGD_ACTION_STOP_AHEAD);
    CHECK_STR(pgd_governor_action_name(PGD_ACTION_LET_GO), "let pages go");
    CHECK_STR(pgd_governor_state_name(plant.decision.state), "tight");
}

TEST(a_warning_counts_without_a_reading)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 512 * MIB);
    plant.unknown = true;
    plant.warning = PGD_WARNING_LOW;
    plant_step(&plant);
    CHECK_EQ_U64(plant.budget_bytes, 392 * MIB); /* a quarter of what could leave: 480 of 512 */
    CHECK_EQ_INT(plant.decision.state, PGD_GOVERNOR_TIGHT);
    plant_wait(&plant, 100);
    plant.warning = PGD_WARNING_CRITICAL;
    plant_step(&plant);
    CHECK_EQ_U64(plant.budget_bytes, 212 * MIB);
    CHECK_EQ_INT(plant.decision.state, PGD_GOVERNOR_CRITICAL);
    for (int i = 0; i < 100; i++) {
        plant_wait(&plant, 1000);
        plant_step(&plant);
    }
    CHECK_EQ_U64(plant.budget_bytes, 212 * MIB); /* nobody has said that it is over */
}

TEST(at_the_floor_new_work_is_refused)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 512 * MIB);
    plant.others_bytes = 1020 * MIB;
    for (int i = 0; plant.budget_bytes > plant.floor_bytes; i++) {
        CHECK(i < 8);
        plant_step(&plant);
        plant_wait(&plant, plant.decision.next_ms);
    }
    CHECK_EQ_INT(plant.decision.state, PGD_GOVERNOR_CRITICAL);
    CHECK_EQ_INT(plant.decision.actions[plant.decision.action_count - 1], PGD_ACTION_REFUSE);
    CHECK(strstr(plant.decision.words, ", the least that can be") != NULL);
}

/* ---- scripts ---- */

/* A hog grows by 64 MiB a second to half of the limit, stays, and ends; twenty times. */
TEST(a_hog)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 640 * MIB);
    for (int cycle = 0; cycle < 20; cycle++) {
        uint64_t short_since_ms = 0;
        for (uint64_t at_ms = 0; at_ms < 20000;) {
            plant.others_bytes = at_ms < 12000 ? (at_ms < 8000 ? at_ms * 64 * MIB / 1000 : 512 * MIB) : 0;
            const bool is_short = available(&plant) < pgd_governor_mark(plant.limit_bytes, 0);
            short_since_ms = is_short ? (short_since_ms != 0 ? short_since_ms : plant.now_ms) : 0;
            CHECK(!is_short || plant.now_ms - short_since_ms <= 500);
            CHECK(available(&plant) > 0); /* nobody would have been killed */
            plant_step(&plant);
            plant_wait(&plant, plant.decision.next_ms);
            at_ms += plant.decision.next_ms;
        }
        CHECK_EQ_U64(plant.budget_bytes, 640 * MIB); /* all back 8 s after the hog ended */
    }
    CHECK_EQ_U64(plant.turns, 2 * 20 - 1);
}

/* Others take and give between 300 and 420 MiB, four times a minute: the mark is crossed each time. */
TEST(a_saw)
{
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 640 * MIB);
    for (int i = 0; i < 20000; i++) {
        const uint64_t phase = plant.now_ms % 15000;
        plant.others_bytes = 300 * MIB + (phase < 7500 ? phase : 15000 - phase) * 120 * MIB / 7500;
        plant_step(&plant);
        plant_wait(&plant, plant.decision.next_ms);
    }
    CHECK(plant.steps_down > 0);
    CHECK(most_turns_in_a_minute(&plant) <= 2);
}

TEST(noise_around_the_mark)
{
    struct test_rng rng = test_rng(test_seed());
    struct plant plant;
    plant_init(&plant, 1024 * MIB, 640 * MIB);
    for (int i = 0; i < 100000; i++) {
        plant.others_bytes = 300 * MIB + test_rng_below(&rng, 40 * MIB);
        plant_step(&plant);
        plant_wait(&plant, plant.decision.next_ms);
    }
    CHECK(plant.steps_down > 0);
    CHECK(most_turns_in_a_minute(&plant) <= 2);
    CHECK(plant.budget_bytes > 500 * MIB); /* and it has not crept away */
}

/* ---- anything ---- */

TEST(a_million_random_steps)
{
    static struct plant plant;
    struct test_rng rng = test_rng(test_seed());
    uint64_t steps = 0;
    while (steps < 1000000) {
        const uint64_t limit = (64 + test_rng_below(&rng, 8192)) * MIB;
        plant_init(&plant, limit, 16 * MIB + test_rng_below(&rng, limit));
        uint64_t aim = 0;
        for (int i = 0; i < 5000; i++, steps++) {
            if (test_rng_below(&rng, 50) == 0) {
                aim = test_rng_below(&rng, limit + limit / 8);
            }
            const uint64_t speed = test_rng_below(&rng, limit / 16);
            plant.others_bytes = plant.others_bytes < aim
                                     ? plant.others_bytes + speed
                                     : plant.others_bytes - (speed < plant.others_bytes ? speed : 0);
            plant.unknown = test_rng_below(&rng, 20) == 0;
            plant.stall_share = test_rng_below(&rng, 10) == 0 ? (double) test_rng_float(&rng, 0, 1) : 0;
            if (test_rng_below(&rng, 500) == 0) {
                plant.warning = test_rng_below(&rng, 2) == 0 ? PGD_WARNING_LOW : PGD_WARNING_CRITICAL;
            }
            if (test_rng_below(&rng, 100) == 0) { /* pins come and go */
                plant.floor_bytes = test_rng_below(&rng, plant.budget_bytes + 1);
                plant.text_floor_bytes = test_rng_below(&rng, plant.budget_bytes + 1);
                plant.keeps_text = test_rng_below(&rng, 2) == 0;
            }
            plant_step(&plant);
            plant_wait(&plant, 1 + test_rng_below(&rng, 3000));
        }
    }
}

/* Pressure that never is fully relieved, whatever it does: the budget turns at most twice a minute. */
TEST(random_pressure_without_relief)
{
    static struct plant plant;
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < 40; round++) {
        const uint64_t limit = (256 + test_rng_below(&rng, 4096)) * MIB;
        plant_init(&plant, limit, limit); /* all of it could never be had with room to spare */
        for (int i = 0; i < 5000; i++) {
            plant.others_bytes = test_rng_below(&rng, 3) == 0 ? test_rng_below(&rng, limit) : plant.others_bytes;
            plant_step(&plant);
            plant_wait(&plant, 50 + test_rng_below(&rng, round % 2 == 0 ? 200 : 5000));
        }
        CHECK(most_turns_in_a_minute(&plant) <= 2);
        CHECK(plant.steps_down > 0);
    }
}

static void run_time_backwards(void *user)
{
    struct plant *plant = user;
    plant_step(plant);
    plant->now_ms -= 1;
    plant_step(plant);
}

TEST(time_does_not_run_backwards)
{
    static struct plant plant;
    plant_init(&plant, 1024 * MIB, 512 * MIB);
    CHECK_ABORTS(run_time_backwards, &plant);
}
