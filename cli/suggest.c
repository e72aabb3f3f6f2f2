/* cli/suggest.c - see suggest.h. Edit distance with neighbours swapped as one step (optimal string alignment). */
#include "cli/suggest.h"

#include <stdint.h>
#include <string.h>

#define WORD_MAX 40u

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0];
    size_t *previous = rows[1];
    size_t *current = rows[2];
    for (size_t j = 0; j <= b_length; j++) {
        before[j] = 0;
        previous[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        current[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t change = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            current[j] = least(change, least(previous[j], current[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                current[j] = least(current[j], before[j - 2] + 1);
            }
        }
        size_t *oldest = before;
        before = previous;
        previous = current;
        current = oldest;
    }
    return previous[b_length];
}

struct pgd_suggestion pgd_suggest_start(const char *wanted)
{
    return (struct pgd_suggestion) {.wanted = wanted, .best = NULL, .distance = SIZE_MAX};
}

void pgd_suggest_try(struct pgd_suggestion *suggestion, const char *candidate)
{
    const size_t wanted_length = strlen(suggestion->wanted);
    const size_t length = strlen(candidate);
    if (wanted_length > WORD_MAX || length > WORD_MAX) {
        return;
    }
    size_t distance = edit_distance(suggestion->wanted, wanted_length, candidate, length);
    /* A word cut short, or typed longer than it is, means the same more often than a word of equal distance. */
    const size_t common = least(wanted_length, length);
    if (common >= 3 && strncmp(suggestion->wanted, candidate, common) == 0) {
        distance = least(distance, 1);
    }
    const size_t near_enough = least(wanted_length / 2, 4);
    if (distance <= near_enough && distance < suggestion->distance) {
        suggestion->best = candidate;
        suggestion->distance = distance;
    }
}
