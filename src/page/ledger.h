/* page/ledger.h - the account of every byte a cache holds, checked before bytes are taken.
 *
 * Invariants
 *   I1  used == sum over categories, at every step.
 *   I2  used <= budget, always.
 *   I3  peak >= used; peak never shrinks.
 *   I4  budget <= opened, what it was at first; so is peak.
 * Ownership: plain value, embedded in its owner. Threads: the owner's.
 */
#ifndef PGD_PAGE_LEDGER_H
#define PGD_PAGE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "pagoda/stats.h"

struct pgd_ledger {
    uint64_t budget_bytes;
    uint64_t opened_bytes;
    uint64_t used_bytes;
    uint64_t peak_bytes;
    uint64_t by_category[PAGODA_MEMORY_CATEGORIES];
};

void pgd_ledger_init(struct pgd_ledger *ledger, uint64_t budget_bytes);

/* Admits `bytes` more, or returns false and changes nothing when the budget does not hold them. */
PGD_MUST_CHECK bool pgd_ledger_take(struct pgd_ledger *ledger, enum pagoda_memory_category category, uint64_t bytes);

/* Gives bytes back; more than the category holds is a bug of the caller. */
void pgd_ledger_give(struct pgd_ledger *ledger, enum pagoda_memory_category category, uint64_t bytes);

/* Moves the budget: not below what is used, not above what it was at first. */
void pgd_ledger_set_budget(struct pgd_ledger *ledger, uint64_t budget_bytes);

uint64_t pgd_ledger_left(const struct pgd_ledger *ledger);

/* I1-I4, for assertions and tests. */
bool pgd_ledger_is_valid(const struct pgd_ledger *ledger);

#endif
