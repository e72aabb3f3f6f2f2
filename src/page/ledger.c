/* page/ledger.c - see ledger.h for I1-I4. */
#include "page/ledger.h"

#include <string.h>

#include "base/number.h"

void pgd_ledger_init(struct pgd_ledger *ledger, uint64_t budget_bytes)
{
    memset(ledger, 0, sizeof *ledger);
    ledger->budget_bytes = budget_bytes;
    ledger->opened_bytes = budget_bytes;
}

bool pgd_ledger_take(struct pgd_ledger *ledger, enum pagoda_memory_category category, uint64_t bytes)
{
    PGD_ASSERT((unsigned) category < PAGODA_MEMORY_CATEGORIES);
    /* Compared with what is left, so that no sum can overflow (I2). */
    if (bytes > pgd_ledger_left(ledger)) {
        return false;
    }
    ledger->by_category[category] += bytes;
    ledger->used_bytes += bytes;
    ledger->peak_bytes = pgd_max_u64(ledger->peak_bytes, ledger->used_bytes);
    return true;
}

void pgd_ledger_give(struct pgd_ledger *ledger, enum pagoda_memory_category category, uint64_t bytes)
{
    PGD_ASSERT((unsigned) category < PAGODA_MEMORY_CATEGORIES);
    PGD_ASSERT(bytes <= ledger->by_category[category]);
    PGD_ASSERT(bytes <= ledger->used_bytes);
    ledger->by_category[category] -= bytes;
    ledger->used_bytes -= bytes;
}

void pgd_ledger_set_budget(struct pgd_ledger *ledger, uint64_t budget_bytes)
{
    PGD_ASSERT(ledger->used_bytes <= budget_bytes);
    PGD_ASSERT(budget_bytes <= ledger->opened_bytes);
    ledger->budget_bytes = budget_bytes;
}

uint64_t pgd_ledger_left(const struct pgd_ledger *ledger)
{
    PGD_ASSERT(ledger->used_bytes <= ledger->budget_bytes);
    return ledger->budget_bytes - ledger->used_bytes;
}

bool pgd_ledger_is_valid(const struct pgd_ledger *ledger)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        if (!pgd_add_u64(sum, ledger->by_category[i], &sum)) {
            return false;
        }
    }
    return sum == ledger->used_bytes && ledger->used_bytes <= ledger->budget_bytes &&
           ledger->used_bytes <= ledger->peak_bytes && ledger->peak_bytes <= ledger->opened_bytes &&
           ledger->budget_bytes <= ledger->opened_bytes;
}
