/* cli/wrap.c - see wrap.h. */
#include "cli/wrap.h"

#include <stdbool.h>
#include <string.h>
#include <wchar.h>

/* Bytes and columns of the character at `bytes`; what is none is one byte and one column. */
static size_t measure(const char *bytes, size_t count, uint32_t *columns)
{
    mbstate_t state;
    wchar_t character = 0;
    memset(&state, 0, sizeof(state));
    *columns = 1;
    const size_t length = mbrtowc(&character, bytes, count, &state);
    if (length == 0 || length > count) {
        return 1;
    }
    const int width = wcwidth(character);
    *columns = width < 0 ? 1 : (uint32_t) width;
    return length;
}

static void put_word(struct pgd_wrap *wrap, uint32_t columns, struct pgd_buffer *text)
{
    if (wrap->word.count == 0) {
        return;
    }
    if (wrap->column > 0 && wrap->column + wrap->blanks + wrap->word_columns > columns) {
        pgd_buffer_add(text, "\n", 1);
        wrap->column = 0;
        wrap->blanks = 0;
    }
    pgd_buffer_print(text, "%*s", (int) wrap->blanks, "");
    pgd_buffer_add(text, wrap->word.bytes, wrap->word.count);
    text->failed = text->failed || wrap->word.failed;
    wrap->column += wrap->blanks + wrap->word_columns;
    wrap->blanks = 0;
    wrap->word_columns = 0;
    pgd_buffer_clear(&wrap->word);
}

void pgd_wrap_add(struct pgd_wrap *wrap, const char *bytes, size_t count, uint32_t columns, struct pgd_buffer *text)
{
    while (count > 0) {
        uint32_t width = 0;
        const size_t length = measure(bytes, count, &width);
        if (*bytes == '\n') {
            put_word(wrap, columns, text);
            pgd_buffer_add(text, "\n", 1);
            wrap->column = 0;
            wrap->blanks = 0;
        } else if (*bytes == ' ' || *bytes == '\t') {
            put_word(wrap, columns, text);
            wrap->blanks += *bytes == ' ' ? 1 : 8 - (wrap->column + wrap->blanks) % 8;
        } else {
            if (width > 1) {
                put_word(wrap, columns, text);
            }
            pgd_buffer_add(&wrap->word, bytes, length);
            wrap->word_columns += width;
            if (width > 1) {
                put_word(wrap, columns, text);
            }
        }
        bytes += length;
        count -= length;
    }
}

void pgd_wrap_end(struct pgd_wrap *wrap, uint32_t columns, struct pgd_buffer *text)
{
    put_word(wrap, columns, text);
    pgd_buffer_free(&wrap->word);
    *wrap = (struct pgd_wrap) {.column = 0};
}
