/* cli/account.c - see account.h. */
#include "cli/account.h"

#include <inttypes.h>

#include "base/number.h"
#include "cli/size.h"

/* Whole per cent of the tokens that attention saw; 100 only when it saw all. */
static uint64_t percent_seen(const struct pagoda_account *account)
{
    const uint64_t missing = pgd_min_u64(account->dropped + account->collapsed + account->unread, account->total);
    const uint64_t seen = account->total - missing;
    return account->total == 0 ? 100 : (uint64_t) ((double) seen * 100.0 / (double) account->total);
}

/* "688 re-encoded (512 k8v4, 176 k5v4)" */
static void print_codecs(const struct pagoda_account *account, const char *separator, struct pgd_buffer *line)
{
    pgd_buffer_print(line, "%s%s re-encoded (", separator, pgd_count_words(account->quantized).text);
    const char *comma = "";
    for (enum pagoda_codec codec = PAGODA_CODEC_R15; codec < PAGODA_CODEC_COUNT; codec++) {
        if (account->by_codec[codec] > 0) {
            const struct pgd_words count = pgd_count_words(account->by_codec[codec]);
            const bool alone = account->by_codec[codec] == account->quantized;
            pgd_buffer_print(line, "%s%s%s%s", comma, alone ? "" : count.text, alone ? "" : " ",
                             pagoda_codec_name(codec));
            comma = ", ";
        }
    }
    pgd_buffer_print(line, ")");
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
    if (account->spilled > 0) {
        pgd_buffer_print(line, "%s%s on flash", separator, pgd_count_words(account->spilled).text);
        separator = ", ";
        if (account->unread > 0) {
            pgd_buffer_print(line, " (%s not read, %.1f %% of the attention)", pgd_count_words(account->unread).text,
                             account->unread_mass * 100);
        }
    }
    if (account->collapsed > 0) {
        pgd_buffer_print(line, "%s%s only summarised", separator, pgd_count_words(account->collapsed).text);
        separator = ", ";
    }
    if (account->quantized > 0) {
        print_codecs(account, separator, line);
    }
}
