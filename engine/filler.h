/* engine/filler.h - real text with sentences put into it, for tests of what a cache still knows.
 *
 * Sentences go where the text itself has the end of one. Ownership: none; the caller has the memory. Threads: any.
 */
#ifndef PGD_ENGINE_FILLER_H
#define PGD_ENGINE_FILLER_H

#include <stddef.h>

#define PGD_FILLER_SENTENCE_BYTES 128u

struct pgd_filler_insertion {
    double depth;  /* in the text: 0 its start, 1 its end */
    size_t offset; /* set by pgd_filler_place */
    char sentence[PGD_FILLER_SENTENCE_BYTES];
};

/* The end of the sentence or paragraph at `offset`, or of the word when that is far; at most the end of the text. */
size_t pgd_filler_boundary(const char *text, size_t bytes, size_t offset);

/* At most `wanted` bytes of a text of `bytes`, up to the end of a word. */
size_t pgd_filler_cut(const char *text, size_t bytes, size_t wanted);

/* Finds where the sentences go, and sorts them by that. */
void pgd_filler_place(const char *text, size_t bytes, struct pgd_filler_insertion *insertions, size_t count);

/* Writes the text with its sentences, which have been placed, and returns the end; no NUL is written. The room is at
 * least `bytes` + `count` * PGD_FILLER_SENTENCE_BYTES. */
char *pgd_filler_write(char *at, const char *text, size_t bytes, const struct pgd_filler_insertion *insertions,
                       size_t count);

#endif
