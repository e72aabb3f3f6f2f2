/* governor/governor.h - how much memory the KV cache may have now: a pure state machine.
 *
 * Numbers in, a decision out. It reads no clock and no file, and does nothing itself: engine/pressure.c does, with
 * pagoda_cache_set_budget.
 *
 *                 available < mark, or a warning            available < mark / 4, or stalls while tight
 * +-------------+ ------------------------------> +-------+ ------------------------------------> +----------+
 * | COMFORTABLE |                                 | TIGHT |                                       | CRITICAL |
 * +-------------+ <------------------------------ +-------+ <------------------------------------ +----------+
 *                 available >= clear for 1 s                available >= mark, no stalls, for 1 s
 *
 *   base   1/32 of the limit, at least 8 MiB and at most 256 MiB, but never more than 1/16 of the limit
 *   mark   base, and what others take in REACT_MS at the speed at which memory was lately seen to vanish; at most
 *          4 bases, and 512 MiB. So a process that nobody presses may come close to its limit, and a hog is met early.
 *   clear  2 marks
 *
 * The budget
 *   down   at once, whenever less than a mark is available: by what lacks to a mark and a quarter, and, from the second
 *          such look in a row on, by as much again as others took since the one before. In TIGHT no text is lost for
 *          it: pages become smaller, or go to flash. Only in CRITICAL may text go, if the user lets any go.
 *   up     in COMFORTABLE only, in steps of half of what lacks, a second apart, after CALM_MS without pressure, and
 *          only to what leaves `clear` available. When all that was given up can be had back and twice `clear` stays
 *          (full relief), RELIEF_MS are enough.
 *
 * Invariants
 *   G1  floor <= budget <= ceiling (the floor wins, if it is above). Outside of CRITICAL the floor is the text's.
 *   G2  A lower headroom or more stalls never give a higher budget than a higher headroom or fewer would have.
 *   G3  Without full relief, the direction changes at most twice in any 60 s.
 *   G4  After a step with less than a mark available, the budget is at the floor, or so far below what is used that a
 *       mark will be available once it is obeyed.
 *   G5  Without a known reading and without a warning nothing changes.
 *   G6  LET_GO is in CRITICAL only.
 * Ownership: plain values. Threads: pure.
 */
#ifndef PGD_GOVERNOR_GOVERNOR_H
#define PGD_GOVERNOR_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "governor/sensor.h"

#define PGD_GOVERNOR_NEAR_MS 100u /* how often to look when pressure is near ... */
#define PGD_GOVERNOR_FAR_MS 250u  /* ... and when it is not: half of what may pass until memory is given back */
#define PGD_GOVERNOR_REACT_MS 400u
#define PGD_GOVERNOR_CALM_MS 10000u
#define PGD_GOVERNOR_RELIEF_MS 3000u
#define PGD_GOVERNOR_STEP_MS 1000u /* between two steps up, and before a state is left for a milder one */
#define PGD_GOVERNOR_TURN_MS 60000u
#define PGD_GOVERNOR_WORDS_BYTES 320u

enum pgd_governor_state { PGD_GOVERNOR_COMFORTABLE = 0, PGD_GOVERNOR_TIGHT, PGD_GOVERNOR_CRITICAL };

/* What to do, in this order; each may be enough. */
enum pgd_governor_action {
    PGD_ACTION_STOP_AHEAD = 0, /* no reading ahead, no speculation */
    PGD_ACTION_REENCODE,       /* pages smaller */
    PGD_ACTION_SPILL,          /* pages to flash */
    PGD_ACTION_LET_GO,         /* pages collapsed or dropped, as the policy says */
    PGD_ACTION_REFUSE,         /* no new work */
    PGD_ACTION_GROW,           /* back, a step */
    PGD_ACTION_COUNT
};

enum pgd_governor_warning { PGD_WARNING_NONE = 0, PGD_WARNING_LOW, PGD_WARNING_CRITICAL };

struct pgd_governor_input {
    uint64_t now_ms;
    struct pgd_reading reading;
    enum pgd_governor_warning warning; /* from a host that knows better, since the last step */
    uint64_t budget_bytes;             /* as it is */
    uint64_t used_bytes;               /* of it */
    uint64_t own_bytes;                /* resident, of this process: what it takes itself is not taken by others */
    uint64_t floor_bytes;              /* what cannot leave */
    uint64_t text_floor_bytes;         /* what cannot leave without text being lost: between the floor and the budget */
    uint64_t ceiling_bytes;            /* what the user allows */
    bool may_spill;
    bool may_let_go;
};

struct pgd_governor_decision {
    enum pgd_governor_state state;
    uint64_t budget_bytes;
    uint64_t mark_bytes; /* as it was taken; 0: nothing is known */
    enum pgd_governor_action actions[PGD_ACTION_COUNT];
    uint32_t action_count;
    uint32_t next_ms;                     /* when to look again */
    char words[PGD_GOVERNOR_WORDS_BYTES]; /* what and why, when state or budget changes; "": nothing changes */
};

struct pgd_governor {
    enum pgd_governor_state state;
    bool started;
    uint64_t pressed_ms; /* when something last pressed */
    uint64_t milder_ms;  /* since when a milder state would do; UINT64_MAX: it does not */
    uint64_t grown_ms;   /* last step up */
    uint64_t turned_ms;  /* last change of direction */
    bool has_turned;
    int direction;       /* -1: the last move was down, 1: up, 0: none yet */
    uint64_t calm_bytes; /* least that was available since the last pressure */
    uint64_t vanishing;  /* bytes a second that others take: quickly believed, slowly forgotten */
    uint64_t last_ms;
    uint64_t last_available_bytes;
    uint64_t last_used_bytes;
    uint64_t last_own_bytes;
    bool last_pressed;
};

void pgd_governor_init(struct pgd_governor *governor);

/* One look. Time must not run backwards. */
void pgd_governor_step(struct pgd_governor *governor, const struct pgd_governor_input *input,
                       struct pgd_governor_decision *decision);

/* The mark for a limit, when others take so many bytes a second. */
uint64_t pgd_governor_mark(uint64_t limit_bytes, uint64_t vanishing);

/* "comfortable", "tight", "critical". */
const char *pgd_governor_state_name(enum pgd_governor_state state);

/* "stop reading ahead", ... */
const char *pgd_governor_action_name(enum pgd_governor_action action);

#endif
