/* harness/test.h - a test program is one file: TEST(name) { ... } as often as wanted, and no main.
 *
 *     #include "harness/test.h"
 *
 *     TEST(pool_refuses_what_the_ledger_refuses)
 *     {
 *         CHECK_EQ_INT(pgd_pool_take(pool, &frame), PAGODA_ERR_BUDGET);
 *     }
 *
 * Each test runs in a child process of its own, so a crash or a hang fails that test alone. The first CHECK that
 * does not hold ends its test; CHECK may be used from any thread. One line is printed for each test:
 *
 *     ok name (12 ms)        FAIL name: file:line: expression        SKIP name: reason
 *
 * and at the end "N passed, N failed[, N skipped]". The exit code is 1 if a test failed or none ran.
 *
 * Arguments: run only the tests whose name contains one of them; -l lists the names.
 * Environment: PAGODA_TEST_TIMEOUT=seconds (300), PAGODA_TEST_SEED=number, and PAGODA_TEST_NOFORK=1 to run
 * everything in one process, for a debugger (there, a failed check may leak and a crash ends the run).
 */
#ifndef PAGODA_TESTS_HARNESS_TEST_H
#define PAGODA_TESTS_HARNESS_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Defines a test; it registers itself before main. Tests run in the order in which they are written. */
#define TEST(name) \
    static void test_body_##name(void); \
    __attribute__((constructor)) static void test_register_##name(void) \
    { \
        static struct test_case self = {#name, test_body_##name, NULL}; \
        test_register(&self); \
    } \
    static void test_body_##name(void)

/* Each argument is evaluated once. */
#define CHECK(condition) ((condition) ? (void) 0 : test_fail(__FILE__, __LINE__, "%s", #condition))

#define CHECK_EQ_INT(a, b) test_check_int(__FILE__, __LINE__, #a " == " #b, (intmax_t) (a), (intmax_t) (b))
#define CHECK_EQ_U64(a, b) test_check_u64(__FILE__, __LINE__, #a " == " #b, (uint64_t) (a), (uint64_t) (b))
#define CHECK_STR(a, b) test_check_str(__FILE__, __LINE__, #a " == " #b, (a), (b))
#define CHECK_MEM(a, b, size) test_check_mem(__FILE__, __LINE__, #a " == " #b, (a), (b), (size))
/* |a - b| <= tolerance; false for a NaN. */
#define CHECK_NEAR(a, b, tolerance) \
    test_check_near(__FILE__, __LINE__, #a " ~ " #b, (double) (a), (double) (b), (double) (tolerance))

/* Holds if fn(arg) dies by abort, as it does where an invariant is broken. */
#define CHECK_ABORTS(fn, arg) \
    (test_aborts((fn), (arg)) ? (void) 0 : test_fail(__FILE__, __LINE__, "%s", #fn "(" #arg ") aborts"))

/* Ends the test without a verdict; say what was missing. */
#define SKIP(reason) test_skip(reason)

/* --- random numbers ------------------------------------------------------------------------------------------ */

/* splitmix64: every seed is good, the state is one word. */
struct test_rng {
    uint64_t state;
};

/* A new seed in every run, printed so that a failure can be repeated with PAGODA_TEST_SEED. */
uint64_t test_seed(void);

struct test_rng test_rng(uint64_t seed);
uint64_t test_rng_u64(struct test_rng *rng);
/* 0 .. limit - 1; limit must not be 0. */
uint64_t test_rng_below(struct test_rng *rng, uint64_t limit);
/* Uniform in [low, high). */
float test_rng_float(struct test_rng *rng, float low, float high);
/* Mean 0, deviation 1: what activations look like. */
float test_rng_normal(struct test_rng *rng);
void test_rng_fill(struct test_rng *rng, void *bytes, size_t size);

/* --- files of the test run ----------------------------------------------------------------------------------- */

/* The path of a fetched model or text, such as build/models/<name>; skips the test if it is not there.
 * The answer is valid until the next call. */
const char *test_model_path(const char *name);
const char *test_text_path(const char *name);

/* --- behind the macros --------------------------------------------------------------------------------------- */

struct test_case {
    const char *name;
    void (*body)(void);
    struct test_case *next;
};

void test_register(struct test_case *self);
_Noreturn void test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *reason);
bool test_aborts(void (*fn)(void *), void *arg);
void test_check_int(const char *file, int line, const char *what, intmax_t a, intmax_t b);
void test_check_u64(const char *file, int line, const char *what, uint64_t a, uint64_t b);
void test_check_str(const char *file, int line, const char *what, const char *a, const char *b);
void test_check_mem(const char *file, int line, const char *what, const void *a, const void *b, size_t size);
void test_check_near(const char *file, int line, const char *what, double a, double b, double tolerance);

#endif
