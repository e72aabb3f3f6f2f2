/* cli/buffer.c - see buffer.h. */
#include "cli/buffer.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `count` more bytes and the terminator. */
static bool reserve(struct pgd_buffer *buffer, size_t count)
{
    if (buffer->failed || count > SIZE_MAX / 4 || buffer->count > SIZE_MAX / 4) {
        buffer->failed = true;
        return false;
    }
    const size_t needed = buffer->count + count + 1;
    if (needed <= buffer->capacity) {
        return true;
    }
    size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
    while (capacity < needed) {
        capacity *= 2;
    }
    char *bytes = realloc(buffer->bytes, capacity);
    if (bytes == NULL) {
        buffer->failed = true;
        return false;
    }
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

void pgd_buffer_add(struct pgd_buffer *buffer, const char *bytes, size_t count)
{
    if (!reserve(buffer, count)) {
        return;
    }
    if (count > 0) {
        memcpy(buffer->bytes + buffer->count, bytes, count);
    }
    buffer->count += count;
    buffer->bytes[buffer->count] = '\0';
}

void pgd_buffer_print(struct pgd_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !reserve(buffer, (size_t) length)) {
        buffer->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf(buffer->bytes + buffer->count, (size_t) length + 1, format, arguments);
    va_end(arguments);
    buffer->count += (size_t) length;
}

void pgd_buffer_clear(struct pgd_buffer *buffer)
{
    buffer->count = 0;
    if (buffer->bytes != NULL) {
        buffer->bytes[0] = '\0';
    }
}

void pgd_buffer_free(struct pgd_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct pgd_buffer) {0};
}

const char *pgd_buffer_text(const struct pgd_buffer *buffer)
{
    return buffer->bytes == NULL ? "" : buffer->bytes;
}
