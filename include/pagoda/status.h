/* pagoda/status.h - the one error vocabulary of pagoda.
 *
 * Every function that can fail returns an enum pagoda_status, which must be checked, and takes as
 * last parameter a struct pagoda_error (or NULL) that it fills on failure with a message a user can
 * act on. On success the error is not touched. Results come back through pointers and are only
 * written on success.
 */
#ifndef PAGODA_STATUS_H
#define PAGODA_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PAGODA_MUST_CHECK __attribute__((warn_unused_result))
#define PAGODA_API __attribute__((visibility("default")))
#else
#define PAGODA_MUST_CHECK
#define PAGODA_API
#endif

enum pagoda_status {
    PAGODA_OK = 0,
    PAGODA_INVALID,     /* an argument is wrong; nothing was changed */
    PAGODA_NOMEM,       /* the allocator or the system refused memory */
    PAGODA_IO,          /* the system reported an input/output error */
    PAGODA_NOT_FOUND,   /* no such file or name */
    PAGODA_CORRUPT,     /* bytes from outside are damaged or not of the expected kind */
    PAGODA_VERSION,     /* a known kind of file, but of a version that this build cannot read */
    PAGODA_MISMATCH,    /* two things do not belong together */
    PAGODA_RANGE,       /* a number is outside its range, or a position cannot be reached any more */
    PAGODA_LIMIT,       /* a named limit of pagoda was reached */
    PAGODA_FULL,        /* the budget is full and nothing may leave; the token was not accepted */
    PAGODA_OVER_BUDGET, /* what was asked for can never fit in the budget */
    PAGODA_BUSY,        /* not now: another operation is in progress */
    PAGODA_CANCELLED,   /* the caller asked to stop */
    PAGODA_UNSUPPORTED, /* understood, but this build or this model cannot do it */
    PAGODA_POISONED,    /* an earlier failure left this object unusable; close it */
    PAGODA_STATUS_COUNT
};

/* What went wrong, for people. `message` is one sentence or two, UTF-8, always terminated. */
struct pagoda_error {
    enum pagoda_status status;
    char message[512];
};

/* The name of a status as in this header, without its prefix: "over budget", "not found". Never
 * NULL, also for numbers that are no status. Threads: any. */
PAGODA_API const char *pagoda_status_name(enum pagoda_status status);

#ifdef __cplusplus
}
#endif
#endif
