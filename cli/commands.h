/* cli/commands.h - the slash commands of a chat. What they print never enters the conversation. */
#ifndef PGD_CLI_COMMANDS_H
#define PGD_CLI_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/repl.h"

/* Names with their slash, NULL at the end: for completion. */
extern const char *const pgd_command_names[];

/* Does what `line` says, which starts with a slash. False: the chat is to end. */
PGD_MUST_CHECK bool pgd_command_do(struct pgd_repl *repl, const char *line);

#endif
