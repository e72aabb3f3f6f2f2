/* cli/size.c - see size.h. */
#include "cli/size.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/number.h"
#include "base/status.h"

struct unit {
    const char *name;
    uint64_t bytes;
};

static const struct unit units[] = {
    {"", 1},
    {"B", 1},
    {"K", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"KB", 1000},
    {"M", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"MB", 1000 * 1000},
    {"G", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"GB", 1000 * 1000 * 1000},
    {"T", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
    {"TB", UINT64_C(1000) * 1000 * 1000 * 1000},
};

static const struct unit *find_unit(const char *name)
{
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* Digits up to the first other character; false when they overflow. */
static bool read_digits(const char **text, uint64_t *number)
{
    *number = 0;
    for (; isdigit((unsigned char) **text); (*text)++) {
        if (!pgd_mul_u64(*number, 10, number) || !pgd_add_u64(*number, (uint64_t) (**text - '0'), number)) {
            return false;
        }
    }
    return true;
}

/* The part after the point, in bytes of `unit`; digits past the ninth do not matter. */
static uint64_t read_fraction(const char **text, uint64_t unit_bytes)
{
    double fraction = 0;
    double digit_worth = 0.1;
    for (; isdigit((unsigned char) **text); (*text)++) {
        fraction += (double) (**text - '0') * digit_worth;
        digit_worth /= 10;
    }
    return (uint64_t) (fraction * (double) unit_bytes + 1e-6);
}

static enum pagoda_status fail_malformed(const char *text, struct pagoda_error *error)
{
    return pgd_fail(error, PAGODA_INVALID,
                    "'%.64s' is not a size: write a number with K, M, G or KiB, MiB, GiB (1024) or KB, MB, GB (1000)",
                    text);
}

enum pagoda_status pgd_size_parse(const char *text, uint64_t *bytes, struct pagoda_error *error)
{
    const char *at = text;
    uint64_t whole = 0;
    if (!isdigit((unsigned char) *at)) {
        return fail_malformed(text, error);
    }
    const bool small = read_digits(&at, &whole);
    while (isdigit((unsigned char) *at)) {
        at++;
    }
    const char *fraction = "";
    if (*at == '.') {
        fraction = ++at;
        if (!isdigit((unsigned char) *at)) {
            return fail_malformed(text, error);
        }
        while (isdigit((unsigned char) *at)) {
            at++;
        }
    }
    while (*at == ' ') {
        at++;
    }
    const struct unit *unit = find_unit(at);
    if (unit == NULL) {
        return fail_malformed(text, error);
    }
    uint64_t total = 0;
    if (!small || !pgd_mul_u64(whole, unit->bytes, &total) ||
        !pgd_add_u64(total, read_fraction(&fraction, unit->bytes), &total)) {
        return pgd_fail(error, PAGODA_LIMIT, "'%.64s' is more than this machine can count", text);
    }
    *bytes = total;
    return PAGODA_OK;
}

static enum pagoda_status parse_percent(const char *text, struct pgd_budget *budget, struct pagoda_error *error)
{
    char *end = NULL;
    const double percent = strtod(text, &end);
    if (!isdigit((unsigned char) *text) || strcmp(end, "%") != 0 || !(percent > 0) || percent > 100) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not a share of the available memory: use 1%% to 100%%",
                        text);
    }
    *budget = (struct pgd_budget) {.kind = PGD_BUDGET_PERCENT, .percent = percent};
    return PAGODA_OK;
}

enum pagoda_status pgd_budget_parse(const char *text, struct pgd_budget *budget, struct pagoda_error *error)
{
    if (strcasecmp(text, "auto") == 0) {
        *budget = (struct pgd_budget) {.kind = PGD_BUDGET_AUTO};
        return PAGODA_OK;
    }
    if (strchr(text, '%') != NULL) {
        return parse_percent(text, budget, error);
    }
    uint64_t bytes = 0;
    enum pagoda_status status = pgd_size_parse(text, &bytes, error);
    if (status != PAGODA_OK) {
        return status;
    }
    if (bytes == 0) {
        return pgd_fail(error, PAGODA_INVALID,
                        "a budget of 0 bytes holds nothing: use a size such as 64M, a share such "
                        "as 25%%, or auto");
    }
    *budget = (struct pgd_budget) {.kind = PGD_BUDGET_BYTES, .bytes = bytes};
    return PAGODA_OK;
}

struct pgd_words pgd_size_words(uint64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct pgd_words words;
    double value = (double) bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(names) / sizeof(names[0])) {
        value /= 1024;
        unit++;
    }
    /* 1023.96 KiB would round to a fourth digit: that is the next unit. */
    if (value >= 1023.95 && unit + 1 < sizeof(names) / sizeof(names[0])) {
        value /= 1024;
        unit++;
    }
    const int decimals = unit == 0 ? 0 : value < 9.995 ? 2 : value < 1000 ? 1 : 0;
    snprintf(words.text, sizeof(words.text), "%.*f %s", decimals, value, names[unit]);
    return words;
}

struct pgd_words pgd_count_words(uint64_t count)
{
    char digits[24];
    const size_t length = (size_t) snprintf(digits, sizeof(digits), "%" PRIu64, count);
    struct pgd_words words;
    size_t at = 0;
    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            words.text[at++] = ',';
        }
        words.text[at++] = digits[i];
    }
    words.text[at] = '\0';
    return words;
}
