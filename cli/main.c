/* cli/main.c - the program: which command, and how it ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/suggest.h"
#include "cli/verbs.h"
#include "cli/watch.h"

struct command {
    const char *names; /* separated by blanks; the first is the name */
    const char *summary;
    const char *example;
    const char *usage;
    enum pgd_command id;
    enum pgd_exit (*run)(const struct pgd_options *options, const struct pgd_terminal *terminal);
};

static const struct command commands[] = {
    {"chat", "talk with a model; a full budget lets old text go, and says so", "pagoda chat model.gguf --kv 64M",
     "pagoda chat MODEL [FLAGS]", PGD_COMMAND_CHAT, pgd_chat_command},
    {"run generate", "read one prompt, write the reply", "pagoda run model.gguf --kv 64M \"Why is the sky blue?\"",
     "pagoda run MODEL [FLAGS] [PROMPT...]", PGD_COMMAND_RUN, pgd_run_command},
    {"show info", "what a model is, and how much text a budget holds", "pagoda show model.gguf",
     "pagoda show MODEL [FLAGS] | --device", PGD_COMMAND_SHOW, pgd_show_command},
    {"plan", "what a model takes in memory, by its header alone: before it is loaded, or fetched",
     "pagoda plan model.gguf --mem 2G", "pagoda plan MODEL... [FLAGS]", PGD_COMMAND_PLAN, pgd_plan_command},
    {"eval", "what a budget, a policy or a codec costs in quality, against the exact cache",
     "pagoda eval model.gguf --kv 16M", "pagoda eval MODEL [FLAGS]", PGD_COMMAND_EVAL, pgd_eval_command},
    {"bench", "how fast a model runs as a chat grows, beside other engines", "pagoda bench model.gguf -d 0,4096",
     "pagoda bench MODEL [FLAGS]", PGD_COMMAND_BENCH, pgd_bench_command},
    {"plot", "draws what --trace wrote, as one HTML page", "pagoda plot trace.jsonl -o trace.html",
     "pagoda plot FILE [FLAGS]", PGD_COMMAND_PLOT, pgd_plot_command},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

/* ---- help and version ---- */

static const char overview[] = "Runs a GGUF model under a hard limit for its memory of the conversation.\n"
                               "\n"
                               "  pagoda chat model.gguf --kv 64M\n"
                               "\n"
                               "Commands\n";

static void print_overview(FILE *out)
{
    fputs(overview, out);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  %-8.*s %s\n", (int) strcspn(commands[i].names, " "), commands[i].names, commands[i].summary);
    }
    fputs("  help     this text; 'pagoda help COMMAND' lists the flags of a command\n"
          "  version  the version, and the kernels that this CPU can run\n"
          "\n"
          "Exit codes: 0 fine, 1 failure, 2 usage, 3 does not fit the budget (nothing was run),\n"
          "4 the model cannot be loaded, 130 interrupted.\n",
          out);
}

static void print_help(const struct command *command)
{
    printf("  %s\n\n%s: %s.\n", command->example, command->usage, command->summary);
    pgd_args_help(command->id, stdout);
}

static enum pgd_exit print_version(void)
{
    printf("pagoda %s\nkernels:", pagoda_version());
    for (uint32_t i = 0; pagoda_cpu_level(i) != NULL; i++) {
        printf(" %s", pagoda_cpu_level(i));
    }
    putchar('\n');
    return pgd_terminal_finish_output() ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}

/* ---- dispatch ---- */

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        for (const char *at = commands[i].names; *at != '\0'; at += strspn(at, " ")) {
            const size_t length = strcspn(at, " ");
            if (strlen(name) == length && memcmp(at, name, length) == 0) {
                return &commands[i];
            }
            at += length;
        }
    }
    return NULL;
}

static enum pgd_exit fail_unknown(const char *name)
{
    struct pgd_suggestion suggestion = pgd_suggest_start(name);
    const size_t length = strlen(name);
    static const char *const names[] = {"chat", "run", "show", "plan", "eval", "bench", "plot", "help", "version"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        pgd_suggest_try(&suggestion, names[i]);
    }
    if (length > 5 && strcmp(name + length - 5, ".gguf") == 0) {
        pgd_say_error("what is to be done with it? pagoda chat %s", name);
    } else if (suggestion.best != NULL) {
        pgd_say_error("unknown command '%s'; did you mean '%s'?", name, suggestion.best);
    } else {
        pgd_say_error("unknown command '%s'; 'pagoda help' lists them", name);
    }
    return PGD_EXIT_USAGE;
}

static enum pgd_exit help(const char *name)
{
    if (name == NULL) {
        print_overview(stdout);
    } else {
        const struct command *command = find_command(name);
        if (command == NULL) {
            return fail_unknown(name);
        }
        print_help(command);
    }
    return pgd_terminal_finish_output() ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}

static enum pgd_exit run_command(const struct command *command, int argc, char **argv)
{
    struct pgd_options options;
    struct pgd_terminal terminal;
    struct pagoda_error error;
    switch (pgd_args_parse(command->id, argc, argv, &options, &error)) {
    case PGD_ARGS_HELP: print_help(command); return pgd_terminal_finish_output() ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
    case PGD_ARGS_VERSION: return print_version();
    case PGD_ARGS_WRONG: pgd_say_error("%s", error.message); return PGD_EXIT_USAGE;
    case PGD_ARGS_OK: break;
    }
    pgd_terminal_open(&options, &terminal);
    return command->run(&options, &terminal);
}

static enum pgd_exit dispatch(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        print_overview(stderr);
        return PGD_EXIT_USAGE;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
        return help(argc > 2 ? argv[2] : NULL);
    }
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        return print_version();
    }
    const struct command *command = find_command(name);
    if (command == NULL) {
        return fail_unknown(name);
    }
    return run_command(command, argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    pgd_terminal_guard_streams();
    pgd_interrupt_install();
    pgd_watch_install();
    return (int) dispatch(argc, argv);
}
