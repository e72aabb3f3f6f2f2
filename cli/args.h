/* cli/args.h - flags and their environment: one table drives parsing, help and suggestions.
 *
 * Order of precedence: flag, PAGODA_<NAME>, default. A flag may be written --name value or --name=value;
 * "--" ends the flags. The first word is the model (unless -m gave it); further words are run's prompt.
 */
#ifndef PGD_CLI_ARGS_H
#define PGD_CLI_ARGS_H

#include <stdbool.h>
#include <stdio.h>

#include "cli/options.h"

enum pgd_args_result {
    PGD_ARGS_OK,
    PGD_ARGS_HELP, /* --help was asked for */
    PGD_ARGS_VERSION,
    PGD_ARGS_WRONG /* *error says what */
};

/* Parses what follows the name of the command. Words are moved to the front of argv. */
enum pgd_args_result pgd_args_parse(enum pgd_command command, int argc, char **argv, struct pgd_options *options,
                                    struct pagoda_error *error);

/* The flags of a command, in groups, with their defaults and variables. */
void pgd_args_help(enum pgd_command command, FILE *out);

#endif
