/* Statuses and messages, checked arithmetic, calls through the host's tables, the version. */
#include <limits.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "base/system.h"
#include "harness/failing_system.h"
#include "harness/test.h"
#include "pagoda/version.h"

/* ---- statuses ---- */

TEST(status_names_are_those_of_the_header)
{
    CHECK_STR(pagoda_status_name(PAGODA_OK), "ok");
    CHECK_STR(pagoda_status_name(PAGODA_NOT_FOUND), "not found");
    CHECK_STR(pagoda_status_name(PAGODA_OVER_BUDGET), "over budget");
    CHECK_STR(pagoda_status_name(PAGODA_POISONED), "poisoned");
    for (int i = 0; i < PAGODA_STATUS_COUNT; i++) {
        const char *const name = pagoda_status_name((enum pagoda_status) i);
        CHECK(name != NULL && name[0] != '\0');
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(name, pagoda_status_name((enum pagoda_status) j)) != 0);
        }
    }
}

TEST(status_name_of_a_number_that_is_no_status)
{
    CHECK_STR(pagoda_status_name(PAGODA_STATUS_COUNT), "unknown status");
    CHECK_STR(pagoda_status_name((enum pagoda_status) 1000000), "unknown status");
    CHECK_STR(pagoda_status_name((enum pagoda_status) UINT_MAX), "unknown status");
}

TEST(fail_fills_the_error_and_returns_the_status)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    CHECK_EQ_INT(pgd_fail(&error, PAGODA_RANGE, "position %d is past %s", 7, "the end"), PAGODA_RANGE);
    CHECK_EQ_INT(error.status, PAGODA_RANGE);
    CHECK_STR(error.message, "position 7 is past the end");
    CHECK_EQ_INT(pgd_fail(NULL, PAGODA_IO, "nobody listens to %d", 1), PAGODA_IO);
}

TEST(fail_can_wrap_its_own_message)
{
    struct pagoda_error error = {PAGODA_OK, ""};
    (void) pgd_fail(&error, PAGODA_IO, "disk full");
    (void) pgd_fail(&error, PAGODA_CORRUPT, "cannot save: %s (again: %s)", error.message, error.message);
    CHECK_STR(error.message, "cannot save: disk full (again: disk full)");
}

/* Length of the valid UTF-8 text, or -1: written without a look at the code under test. */
static int utf8_characters(const char *text)
{
    int characters = 0;
    while (*text != '\0') {
        const unsigned char lead = (unsigned char) *text;
        const int more = lead < 0x80 ? 0 : lead < 0xC0 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (more < 0) {
            return -1;
        }
        for (int i = 1; i <= more; i++) {
            if (((unsigned char) text[i] & 0xC0) != 0x80) {
                return -1;
            }
        }
        text += more + 1;
        characters++;
    }
    return characters;
}

TEST(fail_cuts_long_messages_between_characters)
{
    static const char *const characters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x8F\xAF"};
    for (size_t kind = 0; kind < 4; kind++) {
        const size_t size = strlen(characters[kind]);
        char text[2048] = "";
        for (size_t i = 0; i + 1 < sizeof text / size; i++) {
            memcpy(text + i * size, characters[kind], size + 1);
        }
        for (int lead = 0; lead < 8; lead++) {
            struct pagoda_error error;
            (void) pgd_fail(&error, PAGODA_INVALID, "%.*s%s", lead, "12345678", text);
            const size_t room = sizeof error.message - 1 - (size_t) lead;
            CHECK_EQ_INT(utf8_characters(error.message), (size_t) lead + room / size);
        }
    }
}

TEST(fail_leaves_messages_that_just_fit_alone)
{
    struct pagoda_error error;
    char text[sizeof error.message];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text + sizeof text - 3, "\xC3\xA9", 2); /* ends in a whole character, at the last byte */
    (void) pgd_fail(&error, PAGODA_INVALID, "%s", text);
    CHECK_STR(error.message, text);
}

static void fail_with_ok(void *error)
{
    (void) pgd_fail(error, PAGODA_OK, "that is no failure");
}

TEST(fail_asserts_that_it_is_a_failure)
{
    struct pagoda_error error;
    CHECK_ABORTS(fail_with_ok, &error);
}

/* ---- arithmetic ---- */

__extension__ typedef unsigned __int128 wide;

static void check_pair(uint64_t a, uint64_t b)
{
    const wide sum = (wide) a + b;
    const wide product = (wide) a * b;
    uint64_t result = 77;
    CHECK(pgd_add_u64(a, b, &result) == (sum <= UINT64_MAX));
    CHECK_EQ_U64(result, sum <= UINT64_MAX ? (uint64_t) sum : 77);
    result = 77;
    CHECK(pgd_mul_u64(a, b, &result) == (product <= UINT64_MAX));
    CHECK_EQ_U64(result, product <= UINT64_MAX ? (uint64_t) product : 77);
    CHECK_EQ_U64(pgd_min_u64(a, b), a < b ? a : b);
    CHECK_EQ_U64(pgd_max_u64(a, b), a < b ? b : a);
    if (b > 0) {
        const wide up = ((wide) a + b - 1) / b;
        CHECK_EQ_U64(pgd_div_up_u64(a, b), (uint64_t) up);
        if (up * b <= UINT64_MAX) {
            CHECK_EQ_U64(pgd_round_up_u64(a, b), (uint64_t) (up * b));
        }
    }
}

TEST(arithmetic_at_the_edges)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     3,
                                     63,
                                     64,
                                     65,
                                     UINT32_MAX - 1,
                                     UINT32_MAX,
                                     (uint64_t) UINT32_MAX + 1,
                                     (uint64_t) INT64_MAX,
                                     (uint64_t) INT64_MAX + 1,
                                     UINT64_MAX - 1,
                                     UINT64_MAX};
    const size_t count = sizeof edges / sizeof edges[0];
    for (size_t i = 0; i < count * count; i++) {
        check_pair(edges[i / count], edges[i % count]);
    }
}

TEST(arithmetic_against_wider_numbers)
{
    struct test_rng rng = test_rng(test_seed());
    for (int i = 0; i < 200000; i++) {
        const uint64_t a = test_rng_u64(&rng) >> test_rng_below(&rng, 64);
        const uint64_t b = test_rng_u64(&rng) >> test_rng_below(&rng, 64);
        check_pair(a, b);
    }
}

/* ---- the host's tables ---- */

TEST(allocate_and_release_reach_the_host)
{
    struct failing_system host;
    failing_system_init(&host);
    const struct pgd_system system = {host.allocator, host.memory, host.clock};
    char *const memory = pgd_allocate(&system, 100);
    CHECK(memory != NULL);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ_INT(memory[i], 0);
    }
    CHECK_EQ_U64(host.live_bytes, 100);
    pgd_release(&system, NULL, 100);
    CHECK_EQ_U64(host.live_allocations, 1);
    pgd_release(&system, memory, 100);
    CHECK(failing_system_is_clean(&host));
    failing_system_arm(&host, 1, false);
    CHECK(pgd_allocate(&system, 1) == NULL);
}

/* The helper that other tests trust is tested too. */
TEST(failing_system_fails_and_counts)
{
    struct failing_system host;
    failing_system_init(&host);
    failing_system_arm(&host, 2, false);
    void *const first = host.allocator.allocate(&host, 10);
    CHECK(first != NULL && host.allocator.allocate(&host, 10) == NULL);
    char *const arena = host.memory.reserve(&host, 10000);
    CHECK(arena != NULL && (uintptr_t) arena % 4096 == 0 && arena[0] == 0 && arena[9999] == 0);
    CHECK_EQ_U64(host.refused, 1);
    CHECK_EQ_U64(host.live_bytes, 10010);
    failing_system_arm(&host, 1, true);
    CHECK(host.memory.reserve(&host, 1) == NULL && host.allocator.allocate(&host, 1) == NULL);
    memset(arena, 7, 10000);
    host.memory.discard(&host, arena + 1, 9999); /* one whole page inside: [4096, 8192) */
    CHECK(arena[4095] == 7 && arena[4096] == 0 && arena[8191] == 0 && arena[8192] == 7 && arena[9999] == 7);
    CHECK_EQ_U64(host.misuses, 0);
    host.memory.discard(&host, arena, 10001);
    CHECK_EQ_U64(host.misuses, 1);
    host.allocator.release(&host, first, 11);
    CHECK_EQ_U64(host.misuses, 2);
    host.allocator.release(&host, first, 10);
    CHECK(!failing_system_is_clean(&host));
    arena[10000] = 1; /* one past the end, into the guard */
    host.memory.release(&host, arena, 10000);
    CHECK_EQ_U64(host.misuses, 3);
    CHECK_EQ_U64(host.live_allocations, 0);
    CHECK_EQ_U64(host.peak_bytes, 10010);
}

TEST(version_of_library_and_headers_agree)
{
    CHECK_STR(pagoda_version(), PAGODA_VERSION);
}
