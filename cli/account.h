/* cli/account.h - the honest line: what a reply was made from, when it was not everything. Pure. */
#ifndef PGD_CLI_ACCOUNT_H
#define PGD_CLI_ACCOUNT_H

#include "cli/buffer.h"
#include "pagoda/pagoda.h"

/* Adds "answered from 71 % of the conversation: 412 of 1,420 tokens dropped by fifo" to `line`, or nothing
 * when every token was attended exactly. `policy` is the name of the rule that dropped them. */
void pgd_account_line(const struct pagoda_account *account, const char *policy, struct pgd_buffer *line);

#endif
