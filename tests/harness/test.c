/* harness/test.c - runs the registered tests, one child process each, and counts.
 *
 * The child prints its own FAIL and SKIP lines and tells the parent by its exit code; the parent prints
 * the rest: ok, and the deaths that a child cannot report (a signal, a timeout, a sanitizer's exit).
 * The child ends by exit, not _exit, so that a leak checker runs; each child leads a process group, so that
 * whatever a test started dies with it.
 */
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_DEFAULT_S = 300 };

/* Also the exit codes of a child. None is 0 or 1, so code that calls exit cannot pass for a verdict. */
enum verdict { PASSED = 50, FAILED = 51, SKIPPED = 52 };

static struct test_case *first, **last = &first;
static const struct test_case *current;
static bool no_fork;
static pid_t runner_thread;
static jmp_buf back_to_runner; /* used without fork only */

void test_register(struct test_case *self)
{
    *last = self;
    last = &self->next;
}

static _Noreturn void end_test(enum verdict verdict)
{
    fflush(stdout);
    if (!no_fork)
        _exit((int) verdict);
    if (gettid() != runner_thread) /* nowhere to jump to */
        abort();
    longjmp(back_to_runner, (int) verdict);
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    flockfile(stdout);
    printf("FAIL %s: %s:%d: ", current->name, file, line);
    vprintf(format, arguments);
    printf("\n");
    funlockfile(stdout);
    va_end(arguments);
    end_test(FAILED);
}

_Noreturn void test_skip(const char *reason)
{
    printf("SKIP %s: %s\n", current->name, reason);
    end_test(SKIPPED);
}

/* --- checks ---------------------------------------------------------------------------------- */

void test_check_int(const char *file, int line, const char *what, intmax_t a, intmax_t b)
{
    if (a != b)
        test_fail(file, line, "%s (%jd, %jd)", what, a, b);
}

void test_check_u64(const char *file, int line, const char *what, uint64_t a, uint64_t b)
{
    if (a != b)
        test_fail(file, line, "%s (%" PRIu64 ", %" PRIu64 ")", what, a, b);
}

void test_check_str(const char *file, int line, const char *what, const char *a, const char *b)
{
    if (a == NULL || b == NULL ? a != b : strcmp(a, b) != 0)
        test_fail(file, line, "%s (\"%s\", \"%s\")", what, a ? a : "(null)", b ? b : "(null)");
}

void test_check_mem(const char *file, int line, const char *what, const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            test_fail(file, line, "%s (byte %zu of %zu: %02x, %02x)", what, i, size, x[i], y[i]);
}

void test_check_near(const char *file, int line, const char *what, double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        test_fail(file, line, "%s (%.9g, %.9g, tolerance %.3g)", what, a, b, tolerance);
}

bool test_aborts(void (*fn)(void *), void *arg)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        test_fail(__FILE__, __LINE__, "fork: %s", strerror(errno));
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(null, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        fn(arg);
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* The sanitizers' runtimes ask for these. Code under test must survive a failed allocation, also of an absurd size. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1:halt_on_error=1";
}

/* --- random numbers -------------------------------------------------------------------------- */

uint64_t test_seed(void)
{
    uint64_t seed = 0;
    const char *wanted = getenv("PAGODA_TEST_SEED");
    if (wanted != NULL)
        seed = strtoull(wanted, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t) sizeof seed)
        seed = (uint64_t) time(NULL);
    printf("seed of %s: PAGODA_TEST_SEED=%" PRIu64 "\n", current->name, seed);
    fflush(stdout);
    return seed;
}

struct test_rng test_rng(uint64_t seed)
{
    return (struct test_rng) {seed};
}

uint64_t test_rng_u64(struct test_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t test_rng_below(struct test_rng *rng, uint64_t limit)
{
    return test_rng_u64(rng) % limit; /* the bias is below limit / 2^64 */
}

float test_rng_float(struct test_rng *rng, float low, float high)
{
    float unit = (float) (test_rng_u64(rng) >> 40) * 0x1p-24f;
    return low + (high - low) * unit;
}

float test_rng_normal(struct test_rng *rng)
{
    double radius = sqrt(-2.0 * log(((double) (test_rng_u64(rng) >> 11) + 1.0) * 0x1p-53));
    double angle = 6.283185307179586 * (double) (test_rng_u64(rng) >> 11) * 0x1p-53;
    return (float) (radius * cos(angle));
}

void test_rng_fill(struct test_rng *rng, void *bytes, size_t size)
{
    unsigned char *out = bytes;
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char) (test_rng_u64(rng) >> 56);
}

/* --- files ----------------------------------------------------------------------------------- */

static const char *fetched_path(const char *variable, const char *folder, const char *name, const char *how)
{
    static char path[4096], reason[4200];
    const char *base = getenv(variable);
    snprintf(path, sizeof path, "%s/%s", base != NULL ? base : folder, name);
    if (access(path, R_OK) != 0) {
        snprintf(reason, sizeof reason, "%s is not there (%s)", path, how);
        test_skip(reason);
    }
    return path;
}

const char *test_model_path(const char *name)
{
    return fetched_path("PAGODA_MODELS", "build/models", name, "make models");
}

const char *test_text_path(const char *name)
{
    return fetched_path("PAGODA_TEXTS", "build/texts", name, "make texts");
}

/* --- the runner ------------------------------------------------------------------------------ */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum verdict run_here(const struct test_case *test)
{
    int verdict = setjmp(back_to_runner);
    if (verdict != 0)
        return (enum verdict) verdict;
    test->body();
    return PASSED;
}

static enum verdict run_in_child(const struct test_case *test, unsigned timeout_s)
{
    pid_t child = fork();
    if (child < 0) {
        printf("FAIL %s: fork: %s\n", test->name, strerror(errno));
        return FAILED;
    }
    if (child == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(timeout_s);
        test->body();
        alarm(0);
        fflush(stdout);
        exit(PASSED);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    kill(-child, SIGKILL); /* whatever the test left running */
    if (WIFEXITED(status)) {
        int code = WEXITSTATUS(status);
        if (code != PASSED && code != FAILED && code != SKIPPED) {
            printf("FAIL %s: exit status %d\n", test->name, code);
            return FAILED;
        }
        return (enum verdict) code;
    }
    if (WTERMSIG(status) == SIGALRM)
        printf("FAIL %s: not done after %u s\n", test->name, timeout_s);
    else
        printf("FAIL %s: signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    return FAILED;
}

static bool is_wanted(const struct test_case *test, int count, char **words)
{
    for (int i = 1; i < count; i++)
        if (strstr(test->name, words[i]) != NULL)
            return true;
    return count <= 1;
}

static unsigned timeout_seconds(void)
{
    const char *text = getenv("PAGODA_TEST_TIMEOUT");
    unsigned long seconds = text != NULL ? strtoul(text, NULL, 10) : 0;
    return seconds > 0 && seconds < 1000000 ? (unsigned) seconds : TIMEOUT_DEFAULT_S;
}

int main(int argc, char **argv)
{
    const char *flag = getenv("PAGODA_TEST_NOFORK");
    no_fork = flag != NULL && strcmp(flag, "0") != 0;
    runner_thread = gettid();
    unsigned timeout_s = timeout_seconds();
    unsigned passed = 0, failed = 0, skipped = 0;

    if (argc == 2 && strcmp(argv[1], "-l") == 0) {
        for (const struct test_case *test = first; test != NULL; test = test->next)
            printf("%s\n", test->name);
        return 0;
    }
    for (const struct test_case *test = first; test != NULL; test = test->next) {
        if (!is_wanted(test, argc, argv))
            continue;
        current = test;
        fflush(stdout);
        int64_t start_ms = now_ms();
        enum verdict verdict = no_fork ? run_here(test) : run_in_child(test, timeout_s);
        if (verdict == PASSED) {
            passed++;
            printf("ok %s (%" PRId64 " ms)\n", test->name, now_ms() - start_ms);
        } else if (verdict == SKIPPED) {
            skipped++;
        } else {
            failed++;
        }
    }
    printf("%u passed, %u failed", passed, failed);
    if (skipped > 0)
        printf(", %u skipped", skipped);
    printf("\n");
    return failed > 0 || passed + skipped == 0 ? 1 : 0;
}
