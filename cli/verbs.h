/* cli/verbs.h - the commands of the program. Each is given parsed options and returns the exit code. */
#ifndef PGD_CLI_VERBS_H
#define PGD_CLI_VERBS_H

#include "cli/exit.h"
#include "cli/options.h"
#include "cli/terminal.h"

enum pgd_exit pgd_chat_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_run_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_show_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_plan_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_eval_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_bench_command(const struct pgd_options *options, const struct pgd_terminal *terminal);
enum pgd_exit pgd_plot_command(const struct pgd_options *options, const struct pgd_terminal *terminal);

#endif
