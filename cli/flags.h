/* cli/flags.h - the table of flags: what the help says, what the command line and the environment may set.
 *
 * Used by args.c, which reads it, and flags.c, which is it. Threads: constants.
 */
#ifndef PGD_CLI_FLAGS_H
#define PGD_CLI_FLAGS_H

#include <stddef.h>

#include "cli/options.h"

enum pgd_flag_kind {
    SWITCH,  /* bool: true */
    NEVER,   /* --no-color: sets an int to PGD_COLOR_NEVER */
    TEXT,    /* const char * */
    COUNT,   /* uint64_t, may carry K, M, G */
    SIGNED,  /* int64_t */
    REAL,    /* float */
    INTEGER, /* int32_t */
    BUDGET,  /* struct pgd_budget */
    CHOICE,  /* int: index into words */
    TEXTS,   /* struct pgd_texts: each flag adds one */
    COUNTS,  /* struct pgd_counts: numbers separated by commas */
    TASKS,   /* uint32_t: bits of enum pgd_measurement, named by words separated by commas */
    BITS,    /* uint32_t: bits of a cache type of llama.cpp */
    CPU      /* const char *: a kernel level that is here */
};

struct pgd_flag {
    const char *group;    /* heading in the help; NULL: as the row before */
    const char *name;     /* without its dashes; the variable is PAGODA_ and this in capitals */
    const char *spelling; /* other ways to write it, separated by blanks; the first is shown */
    const char *value;    /* what the help calls its value; NULL: a switch */
    const char *help;
    unsigned commands;
    enum pgd_flag_kind kind;
    size_t offset;
    double least;
    double most;
    const char *const *words;
};

#define PGD_FLAGS_MAX 128u
#define PGD_FLAG_MANY 1e15 /* no bound that a user would meet */
extern const struct pgd_flag pgd_flags[];
extern const size_t pgd_flag_count; /* at most PGD_FLAGS_MAX */

#endif
