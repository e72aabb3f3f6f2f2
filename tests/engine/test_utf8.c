/* UTF-8 streams: whole characters only, whatever the bytes and however they are cut. */
#include "engine/utf8.h"

#include <string.h>

#include "harness/test.h"

#define BAD "\xEF\xBF\xBD"

/* Pushes `bytes` in pieces of `step` and flushes. */
static size_t run(const char *bytes, size_t count, size_t step, char *out)
{
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = 0;
    for (size_t at = 0; at < count; at += step) {
        const size_t piece = count - at < step ? count - at : step;
        used += pgd_utf8_push(&stream, bytes + at, piece, out + used);
    }
    return used + pgd_utf8_flush(&stream, out + used);
}

static void check(const char *bytes, size_t count, const char *wanted, size_t wanted_count)
{
    for (size_t step = 1; step <= count; step++) {
        char out[512];
        const size_t used = run(bytes, count, step, out);
        CHECK_EQ_U64(used, wanted_count);
        CHECK_MEM(out, wanted, used);
    }
}

#define BECOMES(bytes, wanted) check(bytes, sizeof(bytes) - 1, wanted, sizeof(wanted) - 1)

TEST(valid_text_passes_unchanged)
{
    BECOMES("plain", "plain");
    BECOMES("z\xC3\xBCrich \xE2\x82\xAC \xF0\x9F\x8F\xAF", "z\xC3\xBCrich \xE2\x82\xAC \xF0\x9F\x8F\xAF");
    BECOMES("a\0b", "a\0b");
    BECOMES("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", "\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF");
}

TEST(each_byte_of_no_character_is_replaced)
{
    BECOMES("a\xFFz", "a" BAD "z");
    BECOMES("\x80\xBF", BAD BAD);
    BECOMES("\xC0\xAF", BAD BAD);                    /* overlong */
    BECOMES("\xE0\x80\xAF", BAD BAD BAD);            /* overlong */
    BECOMES("\xED\xA0\x80", BAD BAD BAD);            /* a surrogate */
    BECOMES("\xF4\x90\x80\x80", BAD BAD BAD BAD);    /* past U+10FFFF */
    BECOMES("\xE2\x82z", BAD BAD "z");               /* broken off by another character ... */
    BECOMES("\xE2\x82\xC3\xBC", BAD BAD "\xC3\xBC"); /* ... even by one of several bytes */
    BECOMES("\xF0\x9F\x8F", BAD BAD BAD);            /* broken off by the end */
}

TEST(a_character_is_given_when_its_last_byte_comes)
{
    struct pgd_utf8_stream stream = {.pending_count = 0};
    char out[64];
    CHECK_EQ_U64(pgd_utf8_push(&stream, "\xE2", 1, out), 0);
    CHECK_EQ_U64(pgd_utf8_push(&stream, "\x82", 1, out), 0);
    CHECK_EQ_U64(pgd_utf8_push(&stream, "\xACx", 2, out), 4);
    CHECK_MEM(out, "\xE2\x82\xACx", 4);
    CHECK_EQ_U64(pgd_utf8_flush(&stream, out), 0);
}

TEST(cuts_do_not_change_what_comes_out)
{
    static const char alphabet[] = "ab\x80\xBF\xC3\xE2\x82\xAC\xED\xA0\xF0\x9F\x8F\xF4\xFF";
    struct test_rng rng = test_rng(test_seed());
    for (int round = 0; round < 2000; round++) {
        char bytes[24];
        char whole[PGD_UTF8_ROOM(sizeof(bytes))];
        const size_t count = 1 + test_rng_below(&rng, sizeof(bytes) - 1);
        for (size_t i = 0; i < count; i++) {
            bytes[i] = alphabet[test_rng_below(&rng, sizeof(alphabet) - 1)];
        }
        const size_t used = run(bytes, count, count, whole);
        CHECK(used <= sizeof(whole));
        check(bytes, count, whole, used);
        char again[3 * sizeof(whole)];
        CHECK_EQ_U64(run(whole, used, used, again), used); /* what comes out is valid */
        CHECK_MEM(again, whole, used);
    }
}
