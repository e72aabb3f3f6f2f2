/* base/status.c - names of the statuses, and messages that always fit and are always UTF-8. */
#include "base/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[] = {
    [PAGODA_OK] = "ok",
    [PAGODA_INVALID] = "invalid",
    [PAGODA_NOMEM] = "nomem",
    [PAGODA_IO] = "io",
    [PAGODA_NOT_FOUND] = "not found",
    [PAGODA_CORRUPT] = "corrupt",
    [PAGODA_VERSION] = "version",
    [PAGODA_MISMATCH] = "mismatch",
    [PAGODA_RANGE] = "range",
    [PAGODA_LIMIT] = "limit",
    [PAGODA_FULL] = "full",
    [PAGODA_OVER_BUDGET] = "over budget",
    [PAGODA_BUSY] = "busy",
    [PAGODA_CANCELLED] = "cancelled",
    [PAGODA_UNSUPPORTED] = "unsupported",
    [PAGODA_POISONED] = "poisoned",
};
_Static_assert(sizeof status_names / sizeof status_names[0] == PAGODA_STATUS_COUNT, "every status has a name");

const char *pagoda_status_name(enum pagoda_status status)
{
    /* Through int: a number from another version of the library may be outside the enumeration. */
    const int number = (int) status;
    if (number < 0 || number >= (int) PAGODA_STATUS_COUNT) {
        return "unknown status";
    }
    return status_names[number];
}

/* How many bytes the UTF-8 sequence that `lead` begins has; 1 for anything that begins none. */
static size_t utf8_length(unsigned char lead)
{
    if (lead >= 0xF0) {
        return 4;
    }
    if (lead >= 0xE0) {
        return 3;
    }
    return lead >= 0xC0 ? 2 : 1;
}

/* A message that was cut may end in the middle of a character: takes that stump away. */
static void trim_cut_character(char *text)
{
    const size_t length = strlen(text);
    size_t start = length;
    while (start > 0 && length - start < 4) {
        start--;
        const unsigned char byte = (unsigned char) text[start];
        if ((byte & 0xC0) == 0x80) {
            continue; /* in the middle of a character: its first byte is further left */
        }
        if (start + utf8_length(byte) > length) {
            text[start] = '\0';
        }
        return;
    }
}

enum pagoda_status pgd_fail(struct pagoda_error *error, enum pagoda_status status, const char *format, ...)
{
    PGD_ASSERT(status != PAGODA_OK);
    if (error == NULL) {
        return status;
    }
    /* Not straight into error->message: it may be one of the arguments, when a message is wrapped. */
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0) {
        message[0] = '\0';
    } else if ((size_t) length >= sizeof message) {
        trim_cut_character(message);
    }
    error->status = status;
    memcpy(error->message, message, strlen(message) + 1);
    return status;
}
