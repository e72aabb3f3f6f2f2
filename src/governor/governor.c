/* governor/governor.c - see governor.h for the drawing and G1-G6. */
#include "governor/governor.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"

#define MIB ((uint64_t) 1 << 20)
#define BASE_PART 32u
#define BASE_PART_MOST 16u
#define BASE_MIN (8 * MIB)
#define BASE_MAX (256 * MIB)
#define MARK_BASES 4u
#define MARK_MAX (512 * MIB)
#define BELIEVE_MS 200u  /* until what is seen to vanish counts for half */
#define FORGET_MS 3000u  /* until half of it is forgotten */
#define STALL_SHARE 0.25 /* while memory is tight: a quarter of the time */
#define STALL_NEAR 0.02  /* worth looking more often */

uint64_t pgd_governor_mark(uint64_t limit_bytes, uint64_t vanishing)
{
    const uint64_t part = pgd_min_u64(pgd_max_u64(limit_bytes / BASE_PART, BASE_MIN), BASE_MAX);
    const uint64_t base = pgd_min_u64(part, limit_bytes / BASE_PART_MOST);
    const uint64_t most = pgd_min_u64(MARK_BASES * base, MARK_MAX);
    const uint64_t taken =
        pgd_min_u64(vanishing, MARK_MAX * 1000 / PGD_GOVERNOR_REACT_MS) * PGD_GOVERNOR_REACT_MS / 1000;
    return pgd_min_u64(base + taken, most);
}

const char *pgd_governor_state_name(enum pgd_governor_state state)
{
    switch (state) {
    case PGD_GOVERNOR_COMFORTABLE: return "comfortable";
    case PGD_GOVERNOR_TIGHT: return "tight";
    case PGD_GOVERNOR_CRITICAL: return "critical";
    }
    return "unknown";
}

const char *pgd_governor_action_name(enum pgd_governor_action action)
{
    static const char *const names[PGD_ACTION_COUNT] = {
        [PGD_ACTION_STOP_AHEAD] = "stop reading ahead", [PGD_ACTION_REENCODE] = "make pages smaller",
        [PGD_ACTION_SPILL] = "move pages to flash",     [PGD_ACTION_LET_GO] = "let pages go",
        [PGD_ACTION_REFUSE] = "refuse new work",        [PGD_ACTION_GROW] = "grow back",
    };
    return (unsigned) action < PGD_ACTION_COUNT ? names[action] : "unknown";
}

void pgd_governor_init(struct pgd_governor *governor)
{
    memset(governor, 0, sizeof *governor);
    governor->milder_ms = UINT64_MAX;
}

static uint64_t subtract(uint64_t a, uint64_t b)
{
    return a - pgd_min_u64(a, b);
}

/* How fast others take memory: what this process took itself is not counted. */
static void note_vanishing(struct pgd_governor *governor, const struct pgd_governor_input *input)
{
    if (!governor->started || !input->reading.known) {
        return;
    }
    const uint64_t span_ms = pgd_max_u64(1, input->now_ms - governor->last_ms);
    const uint64_t fallen = subtract(governor->last_available_bytes, input->reading.available_bytes);
    const uint64_t by_others = subtract(fallen, subtract(input->own_bytes, governor->last_own_bytes));
    const uint64_t now = by_others > UINT64_MAX / 1000 ? UINT64_MAX / 1000 : by_others * 1000 / span_ms;
    const uint64_t half_ms = now > governor->vanishing ? BELIEVE_MS : FORGET_MS;
    const double weight = (double) span_ms / (double) (span_ms + half_ms);
    const double mixed = (double) governor->vanishing + ((double) now - (double) governor->vanishing) * weight;
    governor->vanishing = mixed > 0 ? (uint64_t) mixed : 0;
}

/* One look, with what follows from its numbers at once. */
struct look {
    const struct pgd_governor_input *input;
    uint64_t mark;
    uint64_t clear;
    bool presses; /* less than a mark, or a warning */
    bool is_clear;
    bool stalls;
};

static struct look look_at(const struct pgd_governor *governor, const struct pgd_governor_input *input)
{
    const struct pgd_reading *reading = &input->reading;
    struct look look = {.input = input};
    look.presses = input->warning != PGD_WARNING_NONE;
    look.is_clear = !look.presses;
    if (reading->known) {
        look.mark = pgd_governor_mark(reading->limit_bytes, governor->vanishing);
        look.clear = 2 * look.mark;
        look.presses = look.presses || reading->available_bytes < look.mark;
        look.is_clear = look.is_clear && reading->available_bytes >= look.clear;
        look.stalls = reading->stall_share >= STALL_SHARE && reading->available_bytes < look.clear;
    }
    return look;
}

/* ---- the state ---- */

/* The state that this look alone would ask for. */
static enum pgd_governor_state state_for(const struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const bool known = input->reading.known;
    if (input->warning == PGD_WARNING_CRITICAL || look->stalls ||
        (known && input->reading.available_bytes < look->mark / 4)) {
        return PGD_GOVERNOR_CRITICAL;
    }
    if (look->presses) {
        return governor->state == PGD_GOVERNOR_CRITICAL && known && input->reading.available_bytes < look->mark
                   ? PGD_GOVERNOR_CRITICAL
                   : PGD_GOVERNOR_TIGHT;
    }
    if (look->is_clear || governor->state == PGD_GOVERNOR_COMFORTABLE) {
        return PGD_GOVERNOR_COMFORTABLE;
    }
    return PGD_GOVERNOR_TIGHT;
}

/* Worse at once; milder, and one state at a time, after a second in which nothing worse was asked for. */
static void move_state(struct pgd_governor *governor, const struct look *look)
{
    const enum pgd_governor_state wanted = state_for(governor, look);
    const uint64_t now_ms = look->input->now_ms;
    if (wanted >= governor->state) {
        governor->milder_ms = UINT64_MAX;
        governor->state = wanted;
        return;
    }
    governor->milder_ms = pgd_min_u64(governor->milder_ms, now_ms);
    if (now_ms - governor->milder_ms >= PGD_GOVERNOR_STEP_MS) {
        governor->state--;
        governor->milder_ms = UINT64_MAX;
    }
}

/* Since when it is calm, and how little there was in that time. */
static void note_calm(struct pgd_governor *governor, const struct look *look)
{
    const uint64_t available = look->input->reading.available_bytes;
    if (!look->is_clear || look->stalls || !look->input->reading.known) {
        governor->pressed_ms = look->input->now_ms;
        governor->calm_bytes = UINT64_MAX;
    } else {
        governor->calm_bytes = pgd_min_u64(governor->calm_bytes, available);
    }
}

/* ---- the budget ---- */

/* What others took since the last look, if that one pressed too: they will take as much again before the next. */
static uint64_t taken_by_others(const struct pgd_governor *governor, const struct pgd_governor_input *input)
{
    if (!governor->started || !governor->last_pressed) {
        return 0;
    }
    const uint64_t given_back = subtract(governor->last_used_bytes, input->used_bytes);
    return subtract(pgd_add_capped_u64(governor->last_available_bytes, given_back), input->reading.available_bytes);
}

/* What the budget may not go below in this state: the text is only given up in CRITICAL. */
static uint64_t floor_now(const struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const bool loses_text = governor->state == PGD_GOVERNOR_CRITICAL && input->may_let_go;
    return loses_text ? input->floor_bytes : pgd_max_u64(input->floor_bytes, input->text_floor_bytes);
}

/* G4. What a look that presses leaves of the budget. */
static uint64_t budget_down(const struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const uint64_t held = pgd_min_u64(input->used_bytes, input->budget_bytes);
    uint64_t budget = input->budget_bytes;
    if (input->reading.known && input->reading.available_bytes < look->mark) {
        const uint64_t lacking = look->mark + look->mark / 4 - input->reading.available_bytes;
        budget = subtract(held, pgd_add_capped_u64(lacking, taken_by_others(governor, input)));
    }
    if (input->warning != PGD_WARNING_NONE) { /* a part of what could leave */
        const uint64_t part = input->warning == PGD_WARNING_LOW ? 4 : 2;
        budget = pgd_min_u64(budget, held - subtract(held, floor_now(governor, look)) / part);
    }
    return budget;
}

/* Whether all that was given up can be had back, with twice `clear` to spare. */
static bool has_full_relief(const struct pgd_governor *governor, const struct look *look)
{
    const uint64_t missing = subtract(look->input->ceiling_bytes, look->input->used_bytes);
    const uint64_t wanted = pgd_add_capped_u64(missing, 2 * look->clear);
    return governor->calm_bytes != UINT64_MAX && governor->calm_bytes >= wanted;
}

static bool may_grow(const struct pgd_governor *governor, const struct look *look)
{
    const uint64_t now_ms = look->input->now_ms;
    const bool relieved = has_full_relief(governor, look);
    const uint64_t calm_ms = now_ms - governor->pressed_ms;
    const bool turns = governor->direction < 0;
    const bool turned_lately = governor->has_turned && now_ms - governor->turned_ms < PGD_GOVERNOR_TURN_MS;
    return governor->state == PGD_GOVERNOR_COMFORTABLE && look->is_clear && !look->stalls &&
           look->input->reading.known && calm_ms >= (relieved ? PGD_GOVERNOR_RELIEF_MS : PGD_GOVERNOR_CALM_MS) &&
           (governor->grown_ms == 0 || now_ms - governor->grown_ms >= PGD_GOVERNOR_STEP_MS) &&
           (relieved || !turns || !turned_lately);
}

/* One step up: half of what lacks, and not so far that less than `clear` would be left. */
static uint64_t budget_up(const struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const uint64_t lacking = input->ceiling_bytes - input->budget_bytes;
    const uint64_t step = pgd_max_u64(pgd_div_up_u64(lacking, 2), pgd_div_up_u64(input->ceiling_bytes, 16));
    const uint64_t most = pgd_add_capped_u64(input->used_bytes, subtract(governor->calm_bytes, look->clear));
    const uint64_t budget = input->budget_bytes + pgd_min_u64(step, lacking);
    return pgd_max_u64(input->budget_bytes, pgd_min_u64(budget, most));
}

static void turn(struct pgd_governor *governor, int direction, uint64_t now_ms)
{
    if (governor->direction != 0 && governor->direction != direction) {
        governor->has_turned = true;
        governor->turned_ms = now_ms;
    }
    governor->direction = direction;
}

static uint64_t move_budget(struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const uint64_t floor_bytes = floor_now(governor, look);
    const uint64_t most = pgd_max_u64(input->ceiling_bytes, floor_bytes);
    uint64_t budget = pgd_min_u64(input->budget_bytes, most);
    if (look->presses) {
        budget = budget_down(governor, look);
    } else if (budget < input->ceiling_bytes && may_grow(governor, look)) {
        budget = budget_up(governor, look);
    }
    budget = pgd_min_u64(pgd_max_u64(budget, floor_bytes), most); /* G1 */
    if (look->presses && input->budget_bytes >= floor_bytes) {
        budget = pgd_min_u64(budget, input->budget_bytes);
    }
    if (budget != input->budget_bytes) {
        turn(governor, budget < input->budget_bytes ? -1 : 1, input->now_ms);
        governor->grown_ms = budget > input->budget_bytes ? input->now_ms : governor->grown_ms;
    }
    return budget;
}

/* ---- the decision ---- */

static void add_action(struct pgd_governor_decision *decision, enum pgd_governor_action action, bool wanted)
{
    if (wanted) {
        PGD_ASSERT(decision->action_count < PGD_ACTION_COUNT);
        decision->actions[decision->action_count++] = action;
    }
}

static void list_actions(const struct pgd_governor *governor, const struct look *look,
                         struct pgd_governor_decision *decision)
{
    const struct pgd_governor_input *input = look->input;
    const bool is_tight = decision->state != PGD_GOVERNOR_COMFORTABLE;
    const bool must_free = decision->budget_bytes < input->used_bytes;
    const bool is_critical = decision->state == PGD_GOVERNOR_CRITICAL;
    const bool at_floor = decision->budget_bytes <= floor_now(governor, look);
    add_action(decision, PGD_ACTION_STOP_AHEAD, is_tight);
    add_action(decision, PGD_ACTION_REENCODE, must_free);
    add_action(decision, PGD_ACTION_SPILL, must_free && input->may_spill);
    add_action(decision, PGD_ACTION_LET_GO, must_free && is_critical && input->may_let_go); /* G6 */
    add_action(decision, PGD_ACTION_REFUSE, is_critical && at_floor);
    add_action(decision, PGD_ACTION_GROW, decision->budget_bytes > input->budget_bytes);
}

/* Pressure is near: less than four times `clear`, or vanishing so fast that it is there within a second. */
static bool is_near(const struct pgd_governor *governor, const struct look *look)
{
    const struct pgd_governor_input *input = look->input;
    const struct pgd_reading *reading = &input->reading;
    if (governor->state != PGD_GOVERNOR_COMFORTABLE || reading->alarm || reading->stall_share >= STALL_NEAR ||
        input->warning != PGD_WARNING_NONE) {
        return true;
    }
    if (!reading->known) {
        return false;
    }
    const uint64_t above = subtract(reading->available_bytes, look->clear);
    return reading->available_bytes < 4 * look->clear || governor->vanishing > above;
}

#define SIZE_WORDS 24

static const char *size_words(char *text, uint64_t bytes)
{
    (void) snprintf(text, SIZE_WORDS, "%.1f MiB", (double) bytes / (double) MIB);
    return text;
}

/* Why: what was seen. */
static void say_why(const struct look *look, char *words, size_t capacity)
{
    const struct pgd_reading *reading = &look->input->reading;
    char available[SIZE_WORDS];
    char limit[SIZE_WORDS];
    size_t used = 0;
    words[0] = '\0';
    if (look->input->warning != PGD_WARNING_NONE) {
        used = (size_t) snprintf(words, capacity, "the host warns of low memory%s", reading->known ? "; " : "");
    }
    if (reading->known && used < capacity) {
        (void) snprintf(words + used, capacity - used, "%s of %s left by %s%s",
                        size_words(available, reading->available_bytes), size_words(limit, reading->limit_bytes),
                        reading->source, look->stalls ? ", and programs wait for memory" : "");
    }
}

/* Why it is the least. */
static const char *least_words(const struct pgd_governor *governor, const struct look *look)
{
    return floor_now(governor, look) > look->input->floor_bytes ? ", the least that keeps all text"
                                                                : ", the least that can be";
}

static void say(const struct pgd_governor *governor, const struct look *look, enum pgd_governor_state before,
                struct pgd_governor_decision *decision)
{
    const struct pgd_governor_input *input = look->input;
    const bool state_moves = decision->state != before;
    const bool budget_moves = decision->budget_bytes != input->budget_bytes;
    char why[200];
    char from[SIZE_WORDS];
    char to[SIZE_WORDS];
    if (!state_moves && !budget_moves) {
        return;
    }
    say_why(look, why, sizeof why);
    size_t used = (size_t) snprintf(decision->words, sizeof decision->words, "memory is %s: %s",
                                    pgd_governor_state_name(decision->state), why);
    if (budget_moves && used < sizeof decision->words) {
        (void) snprintf(decision->words + used, sizeof decision->words - used, "; KV budget %s -> %s%s",
                        size_words(from, input->budget_bytes), size_words(to, decision->budget_bytes),
                        decision->budget_bytes == floor_now(governor, look) ? least_words(governor, look)
                        : decision->budget_bytes == input->ceiling_bytes    ? ", all of it"
                                                                            : "");
    }
}

void pgd_governor_step(struct pgd_governor *governor, const struct pgd_governor_input *input,
                       struct pgd_governor_decision *decision)
{
    PGD_ASSERT(!governor->started || input->now_ms >= governor->last_ms);
    note_vanishing(governor, input);
    const struct look look = look_at(governor, input);
    const enum pgd_governor_state before = governor->state;
    if (!governor->started) {
        governor->pressed_ms = input->now_ms;
        governor->calm_bytes = UINT64_MAX;
    }
    if (input->reading.known || input->warning != PGD_WARNING_NONE) { /* G5 */
        move_state(governor, &look);
    }
    note_calm(governor, &look);
    *decision = (struct pgd_governor_decision) {.state = governor->state, .mark_bytes = look.mark};
    decision->budget_bytes = move_budget(governor, &look);
    decision->next_ms = is_near(governor, &look) ? PGD_GOVERNOR_NEAR_MS : PGD_GOVERNOR_FAR_MS;
    list_actions(governor, &look, decision);
    say(governor, &look, before, decision);
    governor->started = true;
    governor->last_ms = input->now_ms;
    governor->last_available_bytes = input->reading.available_bytes;
    governor->last_used_bytes = input->used_bytes;
    governor->last_own_bytes = input->own_bytes;
    governor->last_pressed = look.presses && input->reading.known;
}
