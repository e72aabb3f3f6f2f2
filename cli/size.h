/* cli/size.h - sizes and counts as people write and read them.
 *
 * Read: a number, also with a fraction, and a unit. K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024;
 * KB, MB, GB, TB are powers of 1000; case does not matter. Written: always binary units, KiB, MiB, GiB.
 *
 * Threads: any.
 */
#ifndef PGD_CLI_SIZE_H
#define PGD_CLI_SIZE_H

#include <stdint.h>

#include "base/check.h"

/* A budget as --kv takes it. */
enum pgd_budget_kind {
    PGD_BUDGET_AUTO = 0,
    PGD_BUDGET_BYTES,
    PGD_BUDGET_PERCENT /* of the memory that is available when the program starts */
};
struct pgd_budget {
    enum pgd_budget_kind kind;
    uint64_t bytes;
    double percent;
};

/* Errors: INVALID (not a size), LIMIT (does not fit in 64 bits). */
PGD_MUST_CHECK enum pagoda_status pgd_size_parse(const char *text, uint64_t *bytes, struct pagoda_error *error);

/* A size, "NN%" with 0 < NN <= 100, or "auto". Errors: as above, and INVALID for a budget of nothing. */
PGD_MUST_CHECK enum pagoda_status pgd_budget_parse(const char *text, struct pgd_budget *budget,
                                                   struct pagoda_error *error);

/* Small texts by value, so that several fit into one printf. */
struct pgd_words {
    char text[32];
};

/* "512 B", "22.5 KiB", "1.00 GiB". */
struct pgd_words pgd_size_words(uint64_t bytes);

/* "1,420". */
struct pgd_words pgd_count_words(uint64_t count);

#endif
