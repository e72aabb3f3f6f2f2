/* cli/suggest.h - the word somebody may have meant. Pure; any thread. */
#ifndef PGD_CLI_SUGGEST_H
#define PGD_CLI_SUGGEST_H

#include <stddef.h>

/* Feed it candidates one by one; `best` is the nearest so far, NULL when none is near enough. */
struct pgd_suggestion {
    const char *wanted;
    const char *best;
    size_t distance;
};

struct pgd_suggestion pgd_suggest_start(const char *wanted);
void pgd_suggest_try(struct pgd_suggestion *suggestion, const char *candidate);

#endif
