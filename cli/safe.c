/* cli/safe.c - see safe.h. */
#include "cli/safe.h"

#include "engine/utf8.h"

size_t pgd_safe_repair(struct pgd_buffer *buffer, const char *bytes, size_t count)
{
    enum { PIECE = 1024 };
    char out[PGD_UTF8_ROOM(PIECE)];
    struct pgd_utf8_stream stream = {.pending_count = 0};
    const size_t before = buffer->count;
    for (size_t at = 0; at < count; at += PIECE) {
        const size_t piece = count - at < PIECE ? count - at : PIECE;
        pgd_buffer_add(buffer, out, pgd_utf8_push(&stream, bytes + at, piece, out));
    }
    pgd_buffer_add(buffer, out, pgd_utf8_flush(&stream, out));
    if (buffer->failed) {
        return 0;
    }
    return (buffer->count - before - count) / 2; /* one byte became three */
}

/* C0 but newline and tab, DEL, and C1 (U+0080 to U+009F). */
static size_t control_length(const char *bytes, size_t count)
{
    const unsigned char first = (unsigned char) bytes[0];
    if ((first < 0x20 && first != '\n' && first != '\t') || first == 0x7F) {
        return 1;
    }
    return first == 0xC2 && count > 1 && (unsigned char) bytes[1] < 0xA0 ? 2 : 0;
}

void pgd_safe_disarm(struct pgd_buffer *buffer, const char *bytes, size_t count)
{
    struct pgd_buffer whole = {0};
    pgd_safe_repair(&whole, bytes, count);
    size_t harmless = 0; /* start of the run that is not yet added */
    size_t at = 0;
    while (at < whole.count) {
        const size_t length = control_length(whole.bytes + at, whole.count - at);
        if (length == 0) {
            at++;
            continue;
        }
        pgd_buffer_add(buffer, whole.bytes + harmless, at - harmless);
        pgd_buffer_add(buffer, "?", 1);
        at += length;
        harmless = at;
    }
    if (whole.count > harmless) {
        pgd_buffer_add(buffer, whole.bytes + harmless, whole.count - harmless);
    }
    buffer->failed = buffer->failed || whole.failed;
    pgd_buffer_free(&whole);
}
