/* engine/utf8.c - see utf8.h. */
#include "engine/utf8.h"

#include <stdbool.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* How many bytes a character with this first byte has; 0 for a byte that begins none. */
static size_t length_of(unsigned char lead)
{
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) { /* C0 and C1 only begin overlong forms */
        return 2;
    }
    if ((lead & 0xF0) == 0xE0) {
        return 3;
    }
    return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

/* Overlong forms, surrogates and too large numbers all show in the second byte. */
static bool is_second_byte(unsigned char lead, unsigned char byte)
{
    switch (lead) {
    case 0xE0: return byte >= 0xA0 && byte <= 0xBF;
    case 0xED: return byte >= 0x80 && byte <= 0x9F;
    case 0xF0: return byte >= 0x90 && byte <= 0xBF;
    case 0xF4: return byte >= 0x80 && byte <= 0x8F;
    default: return is_continuation(byte);
    }
}

/* Length of the character at `at`, of which `left` bytes are there; 0 when there is no valid one. *unfinished
 * tells that what is there may still become one. */
static size_t read_character(const unsigned char *at, size_t left, bool *unfinished)
{
    const size_t length = length_of(at[0]);
    *unfinished = false;
    for (size_t i = 1; i < length; i++) {
        if (i == left) {
            *unfinished = true;
            return 0;
        }
        if (!(i == 1 ? is_second_byte(at[0], at[1]) : is_continuation(at[i]))) {
            return 0;
        }
    }
    return length;
}

static size_t write_replacement(char *out)
{
    memcpy(out, replacement, sizeof(replacement) - 1);
    return sizeof(replacement) - 1;
}

/* Writes the characters of `bytes`; *used says how many bytes were read: all, or all but an unfinished head. */
static size_t write_characters(const unsigned char *bytes, size_t count, char *out, size_t *used)
{
    size_t at = 0;
    size_t written = 0;
    while (at < count) {
        bool unfinished;
        const size_t length = read_character(bytes + at, count - at, &unfinished);
        if (unfinished) {
            break;
        }
        if (length == 0) {
            written += write_replacement(out + written);
            at++;
        } else {
            memcpy(out + written, bytes + at, length);
            written += length;
            at += length;
        }
    }
    *used = at;
    return written;
}

size_t pgd_utf8_push(struct pgd_utf8_stream *stream, const char *bytes, size_t count, char *out)
{
    const unsigned char *from = (const unsigned char *) bytes;
    size_t written = 0;
    size_t used;
    /* A kept head is completed byte by byte: each either finishes the character, or shows that it is none. */
    while (stream->pending_count > 0 && count > 0) {
        unsigned char joined[PGD_UTF8_PENDING_MAX + 1];
        size_t joined_count = stream->pending_count + 1;
        memcpy(joined, stream->pending, stream->pending_count);
        joined[stream->pending_count] = *from;
        written += write_characters(joined, joined_count, out + written, &used);
        stream->pending_count = joined_count - used;
        memcpy(stream->pending, joined + used, stream->pending_count);
        from++;
        count--;
    }
    written += write_characters(from, count, out + written, &used);
    if (used < count) {
        stream->pending_count = count - used;
        memcpy(stream->pending, from + used, stream->pending_count);
    }
    return written;
}

size_t pgd_utf8_flush(struct pgd_utf8_stream *stream, char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < stream->pending_count; i++) {
        written += write_replacement(out + written);
    }
    stream->pending_count = 0;
    return written;
}
