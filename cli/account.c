/* cli/account.c - see account.h. */
#include "cli/account.h"

#include <inttypes.h>

#include "base/number.h"
#include "cli/size.h"

/* Whole per cent of the tokens that attention saw; 100 only when it saw all. */
static uint64_t percent_seen(const struct pagoda_account *account)
{
    const uint64_t missing = pgd_min_u64(account->dropped + account->unread, account->total);
    const uint64_t seen = account->total - missing;
    return account->total == 0 ? 100 : (uint64_t) ((double) seen * 100.0 / (double) account->total);
}

void pgd_account_line(const struct pagoda_account *account, const char *policy, struct pgd_buffer *line)
{
    if (account->exact) {
        return;
    }
    const struct pgd_words total = pgd_count_words(account->total);
    pgd_buffer_print(line, "answered from %" PRIu64 " %% of the conversation: ", percent_seen(account));
    const char *separator = "";
    if (account->dropped > 0) {
        pgd_buffer_print(line, "%s of %s tokens dropped by %s", pgd_count_words(account->dropped).text, total.text,
                         policy);
        separator = ", ";
    }
    if (account->unread > 0) {
        pgd_buffer_print(line, "%s%s on flash and not read", separator, pgd_count_words(account->unread).text);
        separator = ", ";
    }
    if (account->quantized > 0) {
        pgd_buffer_print(line, "%s%s in a smaller codec", separator, pgd_count_words(account->quantized).text);
    }
}
