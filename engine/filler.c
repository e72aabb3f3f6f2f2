/* engine/filler.c - see filler.h. */
#include "engine/filler.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\n';
}

size_t pgd_filler_boundary(const char *text, size_t bytes, size_t offset)
{
    static const size_t far = 600;
    size_t word_end = bytes;
    for (size_t i = offset; i < bytes && i < offset + far; i++) {
        const char before = i == 0 ? '\n' : text[i - 1];
        const bool ends_sentence = before == '.' || before == '!' || before == '?';
        if (i == 0 || (ends_sentence && is_blank(text[i])) || (before == '\n' && text[i] == '\n')) {
            return i;
        }
        word_end = word_end == bytes && is_blank(text[i]) ? i : word_end;
    }
    return word_end;
}

size_t pgd_filler_cut(const char *text, size_t bytes, size_t wanted)
{
    size_t end = wanted < bytes ? wanted : bytes;
    while (end > 0 && end < bytes && !is_blank(text[end])) {
        end--;
    }
    return end;
}

static int compare_insertions(const void *a, const void *b)
{
    const struct pgd_filler_insertion *x = a;
    const struct pgd_filler_insertion *y = b;
    if (x->offset != y->offset) {
        return x->offset > y->offset ? 1 : -1;
    }
    return (x->depth > y->depth) - (x->depth < y->depth);
}

void pgd_filler_place(const char *text, size_t bytes, struct pgd_filler_insertion *insertions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        insertions[i].offset = pgd_filler_boundary(text, bytes, (size_t) (insertions[i].depth * (double) bytes));
    }
    qsort(insertions, count, sizeof(*insertions), compare_insertions);
}

static char *add(char *at, const char *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

char *pgd_filler_write(char *at, const char *text, size_t bytes, const struct pgd_filler_insertion *insertions,
                       size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        at = add(at, text + used, insertions[i].offset - used);
        at = add(at, insertions[i].sentence, strlen(insertions[i].sentence));
        used = insertions[i].offset;
    }
    return add(at, text + used, bytes - used);
}
