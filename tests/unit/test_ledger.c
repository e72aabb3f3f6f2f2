/* The ledger: by hand, against a twin that adds everything up afresh, and its assertions. */
#include "harness/test.h"
#include "page/ledger.h"

#define TWIN_OPERATIONS 1000000

TEST(ledger_by_hand)
{
    struct pgd_ledger ledger;
    pgd_ledger_init(&ledger, 100);
    CHECK_EQ_U64(pgd_ledger_left(&ledger), 100);
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_TABLES, 40));
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_KV_EXACT, 60));
    CHECK_EQ_U64(pgd_ledger_left(&ledger), 0);
    CHECK(!pgd_ledger_take(&ledger, PAGODA_MEMORY_KV_EXACT, 1));
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_KV_EXACT, 0));
    pgd_ledger_give(&ledger, PAGODA_MEMORY_KV_EXACT, 50);
    CHECK_EQ_U64(ledger.by_category[PAGODA_MEMORY_KV_EXACT], 10);
    CHECK_EQ_U64(ledger.by_category[PAGODA_MEMORY_TABLES], 40);
    CHECK_EQ_U64(ledger.used_bytes, 50);
    CHECK_EQ_U64(ledger.peak_bytes, 100);
    CHECK(pgd_ledger_is_valid(&ledger));
}

TEST(ledger_refusal_changes_nothing)
{
    struct pgd_ledger ledger;
    pgd_ledger_init(&ledger, UINT64_MAX - 1);
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_DRAFT, 7));
    CHECK(!pgd_ledger_take(&ledger, PAGODA_MEMORY_DRAFT, UINT64_MAX)); /* 7 + that would wrap to 6 */
    CHECK(!pgd_ledger_take(&ledger, PAGODA_MEMORY_DRAFT, UINT64_MAX - 7));
    CHECK_EQ_U64(ledger.used_bytes, 7);
    CHECK_EQ_U64(ledger.by_category[PAGODA_MEMORY_DRAFT], 7);
    CHECK_EQ_U64(ledger.peak_bytes, 7);
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_DRAFT, UINT64_MAX - 8));
    CHECK_EQ_U64(pgd_ledger_left(&ledger), 0);
    CHECK(pgd_ledger_is_valid(&ledger));
}

TEST(ledger_walk_finds_every_broken_invariant)
{
    struct pgd_ledger good;
    pgd_ledger_init(&good, 100);
    CHECK(pgd_ledger_take(&good, PAGODA_MEMORY_DIGESTS, 30));
    CHECK(pgd_ledger_is_valid(&good));
    struct pgd_ledger bad = good;
    bad.used_bytes = 29; /* I1 */
    CHECK(!pgd_ledger_is_valid(&bad));
    bad = good;
    bad.budget_bytes = 29; /* I2 */
    CHECK(!pgd_ledger_is_valid(&bad));
    bad = good;
    bad.peak_bytes = 29; /* I3 */
    CHECK(!pgd_ledger_is_valid(&bad));
    bad = good;
    bad.budget_bytes = 101; /* I4 */
    CHECK(!pgd_ledger_is_valid(&bad));
    bad = good;
    bad.peak_bytes = 101; /* I4 */
    CHECK(!pgd_ledger_is_valid(&bad));
    bad = good;
    bad.by_category[PAGODA_MEMORY_DIGESTS] = UINT64_MAX;
    bad.by_category[PAGODA_MEMORY_DRAFT] = 31; /* their sum wraps to 30 */
    CHECK(!pgd_ledger_is_valid(&bad));
}

/* The twin remembers amounts only, and sums them up whenever it is asked. */
static uint64_t twin_used(const uint64_t amounts[PAGODA_MEMORY_CATEGORIES])
{
    uint64_t sum = 0;
    for (int i = 0; i < PAGODA_MEMORY_CATEGORIES; i++) {
        sum += amounts[i];
    }
    return sum;
}

TEST(ledger_against_its_twin)
{
    struct test_rng rng = test_rng(test_seed());
    const uint64_t opened = 1000000;
    uint64_t budget = opened;
    uint64_t amounts[PAGODA_MEMORY_CATEGORIES] = {0};
    uint64_t peak = 0;
    uint64_t refusals = 0;
    struct pgd_ledger ledger;
    pgd_ledger_init(&ledger, opened);
    for (int i = 0; i < TWIN_OPERATIONS; i++) {
        const uint64_t number = test_rng_below(&rng, PAGODA_MEMORY_CATEGORIES);
        const enum pagoda_memory_category category = (enum pagoda_memory_category) number;
        if (test_rng_below(&rng, 5) < 3) {
            const uint64_t bytes = test_rng_below(&rng, 100000);
            const bool fits = twin_used(amounts) + bytes <= budget;
            CHECK(pgd_ledger_take(&ledger, category, bytes) == fits);
            amounts[category] += fits ? bytes : 0;
            refusals += fits ? 0 : 1;
        } else {
            const uint64_t bytes = test_rng_below(&rng, amounts[category] + 1);
            pgd_ledger_give(&ledger, category, bytes);
            amounts[category] -= bytes;
        }
        const uint64_t used = twin_used(amounts);
        if (test_rng_below(&rng, 20) == 0) {
            budget = used + test_rng_below(&rng, opened - used + 1);
            pgd_ledger_set_budget(&ledger, budget);
        }
        peak = used > peak ? used : peak;
        CHECK_EQ_U64(ledger.by_category[category], amounts[category]);
        CHECK_EQ_U64(ledger.used_bytes, used);
        CHECK_EQ_U64(ledger.peak_bytes, peak);
        CHECK_EQ_U64(pgd_ledger_left(&ledger), budget - used);
        CHECK(pgd_ledger_is_valid(&ledger));
    }
    CHECK(refusals > 1000); /* both outcomes were exercised */
}

static void give_too_much(void *user)
{
    pgd_ledger_give(user, PAGODA_MEMORY_TABLES, 41);
}

static void give_from_another_category(void *user)
{
    pgd_ledger_give(user, PAGODA_MEMORY_STAGING, 1);
}

static void take_of_no_category(void *user)
{
    if (!pgd_ledger_take(user, PAGODA_MEMORY_CATEGORIES, 0)) {
        return;
    }
}

static void set_budget_below_what_is_used(void *user)
{
    pgd_ledger_set_budget(user, 39);
}

static void set_budget_above_the_first(void *user)
{
    pgd_ledger_set_budget(user, 101);
}

TEST(ledger_asserts_what_callers_owe)
{
    struct pgd_ledger ledger;
    pgd_ledger_init(&ledger, 100);
    CHECK(pgd_ledger_take(&ledger, PAGODA_MEMORY_TABLES, 40));
    CHECK_ABORTS(give_too_much, &ledger);
    CHECK_ABORTS(give_from_another_category, &ledger);
    CHECK_ABORTS(take_of_no_category, &ledger);
    CHECK_ABORTS(set_budget_below_what_is_used, &ledger);
    CHECK_ABORTS(set_budget_above_the_first, &ledger);
}
