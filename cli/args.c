/* cli/args.c - see args.h. */
#include "cli/args.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "cli/flags.h"
#include "cli/suggest.h"
#include "engine/tasks.h"

/* ---- values ---- */

static void *field_of(struct pgd_options *options, const struct pgd_flag *arg)
{
    return (char *) options + arg->offset;
}

static enum pagoda_status fail_range(const struct pgd_flag *arg, const char *text, struct pagoda_error *error)
{
    if (arg->most >= PGD_FLAG_MANY) {
        return pgd_fail(error, PAGODA_RANGE, "'%.64s' is out of range: at least %g", text, arg->least);
    }
    return pgd_fail(error, PAGODA_RANGE, "'%.64s' is out of range: %.10g to %.10g", text, arg->least, arg->most);
}

static enum pagoda_status set_signed(const struct pgd_flag *arg, const char *text, int64_t *value,
                                     struct pagoda_error *error)
{
    char *end = NULL;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || strchr(" \t\n", text[0]) != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not a whole number", text);
    }
    if (errno == ERANGE || (double) number < arg->least || (double) number > arg->most) {
        return fail_range(arg, text, error);
    }
    *value = number;
    return PAGODA_OK;
}

static enum pagoda_status set_integer(const struct pgd_flag *arg, const char *text, int32_t *value,
                                      struct pagoda_error *error)
{
    int64_t wide = 0;
    enum pagoda_status status = set_signed(arg, text, &wide, error);
    if (status == PAGODA_OK) {
        *value = (int32_t) wide;
    }
    return status;
}

static enum pagoda_status set_count(const struct pgd_flag *arg, const char *text, uint64_t *value,
                                    struct pagoda_error *error)
{
    struct pagoda_error ignored;
    uint64_t number = 0;
    if (pgd_size_parse(text, &number, &ignored) != PAGODA_OK) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not a number of 0 or more", text);
    }
    if ((double) number < arg->least || (double) number > arg->most) {
        return fail_range(arg, text, error);
    }
    *value = number;
    return PAGODA_OK;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *) a;
    const uint64_t y = *(const uint64_t *) b;
    return (x > y) - (x < y);
}

/* "0,2048,4096", in any order. */
static enum pagoda_status set_counts(const struct pgd_flag *arg, const char *text, struct pgd_counts *counts,
                                     struct pagoda_error *error)
{
    uint64_t values[PGD_LIST_MAX];
    uint32_t count = 0;
    for (const char *at = text; at != NULL; count++) {
        char item[64];
        const size_t length = strcspn(at, ",");
        if (count == PGD_LIST_MAX) {
            return pgd_fail(error, PAGODA_LIMIT, "at most %u numbers are possible", PGD_LIST_MAX);
        }
        snprintf(item, sizeof(item), "%.*s", (int) (length < sizeof(item) ? length : sizeof(item) - 1), at);
        enum pagoda_status status = set_count(arg, item, &values[count], error);
        if (status != PAGODA_OK) {
            return status;
        }
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    qsort(values, count, sizeof(values[0]), by_size);
    counts->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || values[i] != values[i - 1]) {
            counts->items[counts->count++] = values[i];
        }
    }
    return PAGODA_OK;
}

static enum pagoda_status set_real(const struct pgd_flag *arg, const char *text, float *value,
                                   struct pagoda_error *error)
{
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end != '\0' || strchr(" \t\n", text[0]) != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not a number", text);
    }
    if (!(number >= arg->least && number <= arg->most)) {
        return fail_range(arg, text, error);
    }
    *value = (float) number;
    return PAGODA_OK;
}

static enum pagoda_status set_choice(const struct pgd_flag *arg, const char *text, int *value,
                                     struct pagoda_error *error)
{
    char list[96] = "";
    struct pgd_suggestion suggestion = pgd_suggest_start(text);
    for (int i = 0; arg->words[i] != NULL; i++) {
        if (strcmp(arg->words[i], text) == 0) {
            *value = i;
            return PAGODA_OK;
        }
        pgd_suggest_try(&suggestion, arg->words[i]);
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i == 0 ? "" : ", ", arg->words[i]);
    }
    if (suggestion.best != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of %s; did you mean '%s'?", text, list,
                        suggestion.best);
    }
    return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of %s", text, list);
}

static enum pagoda_status add_text(const char *text, struct pgd_texts *texts, struct pagoda_error *error)
{
    if (texts->count == PGD_LIST_MAX) {
        return pgd_fail(error, PAGODA_INVALID, "at most %u can be given", PGD_LIST_MAX);
    }
    texts->items[texts->count++] = text;
    return PAGODA_OK;
}

/* The bit of what a word of --tasks names; 0: nothing. */
static uint32_t find_measurement(const char *word)
{
    uint32_t all = PGD_MEASURE_PASSKEY;
    for (uint32_t i = 0; pgd_task_at(i) != NULL; i++) {
        all |= (uint32_t) PGD_MEASURE_TASK << i;
        if (strcmp(word, pgd_task_at(i)->name) == 0) {
            return (uint32_t) PGD_MEASURE_TASK << i;
        }
    }
    if (strcmp(word, "documents") == 0) {
        return PGD_MEASURE_DOCUMENTS;
    }
    if (strcmp(word, "passkey") == 0) {
        return PGD_MEASURE_PASSKEY;
    }
    return strcmp(word, "all") == 0 ? all : 0;
}

static enum pagoda_status fail_measurement(const char *word, struct pagoda_error *error)
{
    char list[128] = "all, documents, passkey";
    struct pgd_suggestion suggestion = pgd_suggest_start(word);
    pgd_suggest_try(&suggestion, "documents");
    pgd_suggest_try(&suggestion, "passkey");
    for (uint32_t i = 0; pgd_task_at(i) != NULL; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, ", %s", pgd_task_at(i)->name);
        pgd_suggest_try(&suggestion, pgd_task_at(i)->name);
    }
    if (suggestion.best != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of %s; did you mean '%s'?", word, list,
                        suggestion.best);
    }
    return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not one of %s", word, list);
}

/* "keys,facts" */
static enum pagoda_status set_tasks(const char *text, uint32_t *measured, struct pagoda_error *error)
{
    uint32_t bits = 0;
    for (const char *at = text; at != NULL;) {
        char word[64];
        const size_t length = strcspn(at, ",");
        snprintf(word, sizeof(word), "%.*s", (int) (length < sizeof(word) ? length : sizeof(word) - 1), at);
        const uint32_t bit = find_measurement(word);
        if (bit == 0) {
            return fail_measurement(word, error);
        }
        bits |= bit;
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    *measured = bits;
    return PAGODA_OK;
}

static enum pagoda_status set_cpu(const char *text, const char **value, struct pagoda_error *error)
{
    char list[96] = "auto";
    if (strcmp(text, "auto") == 0) {
        *value = NULL;
        return PAGODA_OK;
    }
    for (uint32_t i = 0; pagoda_cpu_level(i) != NULL; i++) {
        if (strcmp(pagoda_cpu_level(i), text) == 0) {
            *value = pagoda_cpu_level(i);
            return PAGODA_OK;
        }
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, ", %s", pagoda_cpu_level(i));
    }
    return pgd_fail(error, PAGODA_INVALID, "'%.64s' is not a kernel level of this machine: %s", text, list);
}

/* Sets the field of `arg` from `text`; a switch has no text. */
static enum pagoda_status set_value(struct pgd_options *options, const struct pgd_flag *arg, const char *text,
                                    struct pagoda_error *error)
{
    void *field = field_of(options, arg);
    switch (arg->kind) {
    case SWITCH: *(bool *) field = true; return PAGODA_OK;
    case NEVER: *(int *) field = PGD_COLOR_NEVER; return PAGODA_OK;
    case TEXT: *(const char **) field = text; return PAGODA_OK;
    case COUNT: return set_count(arg, text, field, error);
    case SIGNED: return set_signed(arg, text, field, error);
    case REAL: return set_real(arg, text, field, error);
    case INTEGER: return set_integer(arg, text, field, error);
    case BUDGET: return pgd_budget_parse(text, field, error);
    case CHOICE: return set_choice(arg, text, field, error);
    case TEXTS: return add_text(text, field, error);
    case COUNTS: return set_counts(arg, text, field, error);
    case TASKS: return set_tasks(text, field, error);
    case BITS: return pgd_codec_bits(text, field, error);
    case CPU: return set_cpu(text, field, error);
    }
    return PAGODA_OK;
}

/* ---- names ---- */

/* Whether `word` (length bytes, with its dashes) is one of the spellings of `arg`. */
static bool is_spelling(const struct pgd_flag *arg, const char *word, size_t length)
{
    if (length > 2 && word[0] == '-' && word[1] == '-' && strlen(arg->name) == length - 2 &&
        memcmp(arg->name, word + 2, length - 2) == 0) {
        return true;
    }
    for (const char *at = arg->spelling; *at != '\0'; at += strspn(at, " ")) {
        const size_t spelling_length = strcspn(at, " ");
        if (spelling_length == length && memcmp(at, word, length) == 0) {
            return true;
        }
        at += spelling_length;
    }
    return false;
}

/* The flag that `word` is to `command`, or else to another one: -p and -n mean something of their own to bench. */
static const struct pgd_flag *find_arg(enum pgd_command command, const char *word, size_t length)
{
    const struct pgd_flag *found = NULL;
    for (size_t i = 0; i < pgd_flag_count; i++) {
        if (is_spelling(&pgd_flags[i], word, length) && (found == NULL || (pgd_flags[i].commands & command) != 0)) {
            found = &pgd_flags[i];
        }
    }
    return found;
}

static enum pagoda_status fail_unknown(enum pgd_command command, const char *word, size_t length,
                                       struct pagoda_error *error)
{
    char wanted[64];
    const size_t dashes = strspn(word, "-");
    snprintf(wanted, sizeof(wanted), "%.*s", (int) (length - dashes), word + dashes);
    struct pgd_suggestion suggestion = pgd_suggest_start(wanted);
    for (size_t i = 0; i < pgd_flag_count; i++) {
        if ((pgd_flags[i].commands & command) != 0) {
            pgd_suggest_try(&suggestion, pgd_flags[i].name);
        }
    }
    pgd_suggest_try(&suggestion, "help");
    pgd_suggest_try(&suggestion, "version");
    if (suggestion.best != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "unknown flag '%.*s'; did you mean '--%s'?", (int) length, word,
                        suggestion.best);
    }
    return pgd_fail(error, PAGODA_INVALID, "unknown flag '%.*s'", (int) length, word);
}

static const char *command_name(unsigned command)
{
    static const struct {
        enum pgd_command command;
        const char *name;
    } names[] = {{PGD_COMMAND_RUN, "run"},   {PGD_COMMAND_CHAT, "chat"}, {PGD_COMMAND_SHOW, "show"},
                 {PGD_COMMAND_EVAL, "eval"}, {PGD_COMMAND_PLOT, "plot"}, {PGD_COMMAND_PLAN, "plan"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((command & names[i].command) != 0) {
            return names[i].name;
        }
    }
    return "bench";
}

/* ---- the environment ---- */

static void variable_of(const struct pgd_flag *arg, char *name, size_t bytes)
{
    snprintf(name, bytes, "PAGODA_%s", arg->name);
    for (char *at = name; *at != '\0'; at++) {
        *at = (char) (*at == '-' ? '_' : *at >= 'a' && *at <= 'z' ? *at - 'a' + 'A' : *at);
    }
}

static bool is_yes(const char *text)
{
    return strcmp(text, "1") == 0 || strcasecmp(text, "true") == 0 || strcasecmp(text, "yes") == 0 ||
           strcasecmp(text, "on") == 0;
}

static bool is_no(const char *text)
{
    return strcmp(text, "0") == 0 || strcasecmp(text, "false") == 0 || strcasecmp(text, "no") == 0 ||
           strcasecmp(text, "off") == 0;
}

static enum pagoda_status read_variable(struct pgd_options *options, const struct pgd_flag *arg,
                                        struct pagoda_error *error)
{
    char name[64];
    variable_of(arg, name, sizeof(name));
    const char *text = getenv(name);
    if (text == NULL || text[0] == '\0') {
        return PAGODA_OK;
    }
    if (arg->value == NULL) {
        if (is_no(text)) {
            return PAGODA_OK;
        }
        if (!is_yes(text)) {
            return pgd_fail(error, PAGODA_INVALID, "%s: '%.64s' is neither yes nor no", name, text);
        }
    }
    struct pagoda_error reason;
    enum pagoda_status status = set_value(options, arg, text, &reason);
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "%s: %.400s", name, reason.message);
    }
    return PAGODA_OK;
}

static enum pagoda_status read_environment(enum pgd_command command, struct pgd_options *options,
                                           struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    for (size_t i = 0; i < pgd_flag_count && status == PAGODA_OK; i++) {
        if ((pgd_flags[i].commands & command) != 0) {
            status = read_variable(options, &pgd_flags[i], error);
        }
    }
    return status;
}

/* ---- parsing ---- */

static void fill_defaults(enum pgd_command command, struct pgd_options *options)
{
    *options = (struct pgd_options) {
        .command = command,
        .predict = -1,
        .seed = command == PGD_COMMAND_EVAL ? 1 : -1, /* a measurement is repeated, a reply is not */
        .kv = {.kind = PGD_BUDGET_AUTO},
        .mem = {.kind = PGD_BUDGET_AUTO},
        .on_full = PGD_ON_FULL_DEFAULT,
        .policy = PAGODA_POLICY_SINK,
        .page = 16,
        .recall = 0.95f,
        .stall_ms = command == PGD_COMMAND_CHAT ? 250 : 0,
        .documents = 3,
        .step = 32,
        .depths = 5,
        .trials = 1,
        .questions = 20,
        .prefill = 512,
        .gen = 32,
        .repetitions = 5,
    };
    pgd_sampler_options_default(&options->sampler);
}

/* Which flags were given on the command line: contradictions among those are errors, not preferences. */
struct given {
    bool by_flag[PGD_FLAGS_MAX];
};

static bool was_given(const struct given *given, const char *name)
{
    for (size_t i = 0; i < pgd_flag_count; i++) {
        if (strcmp(pgd_flags[i].name, name) == 0) {
            return given->by_flag[i];
        }
    }
    return false;
}

/* One flag; *next is the word after it, which it may use up. */
static enum pagoda_status take_flag(enum pgd_command command, struct pgd_options *options, struct given *given,
                                    const char *word, char **next, bool *used_next, struct pagoda_error *error)
{
    const size_t length = strcspn(word, "=");
    const char *text = word[length] == '=' && word[1] == '-' ? word + length + 1 : NULL;
    const struct pgd_flag *arg = find_arg(command, word, text != NULL ? length : strlen(word));
    if (arg == NULL) {
        return fail_unknown(command, word, length, error);
    }
    if ((arg->commands & command) == 0) {
        return pgd_fail(error, PAGODA_INVALID, "'--%s' is not a flag of 'pagoda %s', but of 'pagoda %s'", arg->name,
                        command_name(command), command_name(arg->commands));
    }
    if (arg->value == NULL && text != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "'--%s' takes no value", arg->name);
    }
    if (arg->value != NULL && text == NULL) {
        if (*next == NULL) {
            return pgd_fail(error, PAGODA_INVALID, "'%.64s' needs a value: %s", word, arg->value);
        }
        text = *next;
        *used_next = true;
    }
    if (arg->kind == TEXTS && !given->by_flag[arg - pgd_flags]) {
        ((struct pgd_texts *) field_of(options, arg))->count = 0; /* a flag beats its variable */
    }
    given->by_flag[arg - pgd_flags] = true;
    struct pagoda_error reason;
    enum pagoda_status status = set_value(options, arg, text, &reason);
    if (status != PAGODA_OK) {
        return pgd_fail(error, status, "--%s: %.400s", arg->name, reason.message);
    }
    return PAGODA_OK;
}

/* What is about flash says nothing to a rule that does without; --device measures flash whatever the rule. */
static enum pagoda_status check_flash_flags(const struct pgd_options *options, const struct given *given,
                                            struct pagoda_error *error)
{
    static const char *const names[] = {"select",      "recall",      "flash",       "kv-dir",
                                        "flash-write", "flash-speed", "max-stall-ms"};
    const bool refuses = options->on_full == PAGODA_ON_FULL_STOP || options->on_full == PAGODA_ON_FULL_EVICT;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && refuses && !options->device; i++) {
        if (was_given(given, names[i])) {
            return pgd_fail(error, PAGODA_INVALID, "--%s says nothing to --on-full %s: use spill", names[i],
                            pgd_on_full_words[options->on_full]);
        }
    }
    return PAGODA_OK;
}

static bool has_window(int policy)
{
    return policy == PAGODA_POLICY_WINDOW || policy == PAGODA_POLICY_SINK;
}

static bool has_sinks(int policy)
{
    return policy == PAGODA_POLICY_SINK || policy == PAGODA_POLICY_RANDOM;
}

static enum pagoda_status check_memory_flags(const struct pgd_options *options, const struct given *given,
                                             struct pagoda_error *error)
{
    if (options->command == PGD_COMMAND_BENCH && options->prefill == 0 && options->gen == 0) {
        return pgd_fail(error, PAGODA_INVALID, "--prefill 0 and -n 0 leave nothing to measure");
    }
    if (options->page % 16 != 0) {
        return pgd_fail(error, PAGODA_INVALID, "--page: %" PRIu64 " is not a multiple of 16", options->page);
    }
    if (options->ctx_size != 0 && options->ctx_size < options->page) {
        return pgd_fail(error, PAGODA_INVALID, "--ctx-size: %" PRIu64 " is less than one page of %" PRIu64 " tokens",
                        options->ctx_size, options->page);
    }
    if (was_given(given, "window") && !has_window(options->policy)) {
        return pgd_fail(error, PAGODA_INVALID, "--window says nothing to the policy %s: use window or sink",
                        pgd_policy_words[options->policy]);
    }
    if (was_given(given, "sinks") && !has_sinks(options->policy)) {
        return pgd_fail(error, PAGODA_INVALID, "--sinks says nothing to the policy %s: use sink",
                        pgd_policy_words[options->policy]);
    }
    return check_flash_flags(options, given, error);
}

/* Whether the first word is the model. With PAGODA_MODEL set, run's first word may be the prompt already. */
static bool names_model(const struct pgd_options *options, const char *word)
{
    const size_t length = strlen(word);
    return options->command != PGD_COMMAND_RUN || options->model == NULL ||
           (length > 5 && strcasecmp(word + length - 5, ".gguf") == 0);
}

/* --passkey adds to what --tasks says, --passkey-only takes documents away. */
static void settle_measured(struct pgd_options *options)
{
    if (options->measured == 0) {
        options->measured = PGD_MEASURE_DOCUMENTS;
    }
    if (options->passkey || options->passkey_only) {
        options->measured |= PGD_MEASURE_PASSKEY;
    }
    if (options->passkey_only) {
        options->measured &= ~(uint32_t) PGD_MEASURE_DOCUMENTS;
    }
}

/* The one word of pagoda plot. */
static enum pagoda_status settle_plot(struct pgd_options *options, char **words, int count, struct pagoda_error *error)
{
    if (count != 1) {
        return pgd_fail(error, PAGODA_INVALID, "%s: pagoda plot FILE [-o PAGE.html]",
                        count == 0 ? "no trace" : "more than one trace");
    }
    options->trace = words[0];
    return PAGODA_OK;
}

/* Assigns the words, and refuses what contradicts itself. */
static enum pagoda_status settle(struct pgd_options *options, const struct given *given, char **words, int count,
                                 struct pagoda_error *error)
{
    if (options->command == PGD_COMMAND_PLOT) {
        return settle_plot(options, words, count, error);
    }
    if (count > 0 && !options->device && !was_given(given, "model") && names_model(options, words[0])) {
        options->model = words[0];
        words++;
        count--;
    }
    if (options->device && (count > 0 || was_given(given, "model"))) {
        return pgd_fail(error, PAGODA_INVALID, "--device measures a device: it takes no model");
    }
    const bool planned = options->command == PGD_COMMAND_PLAN;
    if (planned && options->shape != NULL && was_given(given, "shape") && options->model != NULL) {
        return pgd_fail(error, PAGODA_INVALID, "--shape is in place of a model: give one of them");
    }
    if (!options->device && (options->model == NULL || options->model[0] == '\0') &&
        (!planned || options->shape == NULL)) {
        return pgd_fail(error, PAGODA_INVALID, "no model: pagoda %s MODEL.gguf", command_name(options->command));
    }
    if (count > 0 && options->command != PGD_COMMAND_RUN && !planned) {
        return pgd_fail(error, PAGODA_INVALID, "unexpected '%.64s': 'pagoda %s' takes one model and flags", words[0],
                        command_name(options->command));
    }
    options->words = words;
    options->word_count = count;
    if (planned) {
        return check_memory_flags(options, given, error);
    }
    const int sources = (was_given(given, "prompt") ? 1 : 0) + (was_given(given, "file") ? 1 : 0) + (count > 0 ? 1 : 0);
    if (sources > 1) {
        return pgd_fail(error, PAGODA_INVALID, "more than one prompt: use one of -p, -f and words after the model");
    }
    if (was_given(given, "file") || count > 0) {
        options->prompt = NULL; /* a flag beats PAGODA_PROMPT */
    }
    if (was_given(given, "prompt") || count > 0) {
        options->file = NULL;
    }
    if (options->raw && options->system != NULL && was_given(given, "system")) {
        return pgd_fail(error, PAGODA_INVALID, "--system needs the chat template that --raw turns off");
    }
    if (!was_given(given, "docs")) {
        options->documents = options->texts.count > options->documents ? options->texts.count : options->documents;
    }
    settle_measured(options);
    return check_memory_flags(options, given, error);
}

enum pgd_args_result pgd_args_parse(enum pgd_command command, int argc, char **argv, struct pgd_options *options,
                                    struct pagoda_error *error)
{
    struct given given = {.by_flag = {false}};
    int words = 0;
    bool flags_ended = false;
    fill_defaults(command, options);
    enum pagoda_status status = read_environment(command, options, error);
    for (int i = 0; i < argc && status == PAGODA_OK; i++) {
        char *word = argv[i];
        if (flags_ended || word[0] != '-' || word[1] == '\0') {
            argv[words++] = word;
        } else if (strcmp(word, "--") == 0) {
            flags_ended = true;
        } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            return PGD_ARGS_HELP;
        } else if (strcmp(word, "--version") == 0) {
            return PGD_ARGS_VERSION;
        } else {
            char *next = i + 1 < argc ? argv[i + 1] : NULL;
            bool used_next = false;
            status = take_flag(command, options, &given, word, &next, &used_next, error);
            i += used_next ? 1 : 0;
        }
    }
    if (status == PAGODA_OK) {
        status = settle(options, &given, argv, words, error);
    }
    return status == PAGODA_OK ? PGD_ARGS_OK : PGD_ARGS_WRONG;
}

struct pgd_codec_choice pgd_options_codec(const struct pgd_options *options)
{
    return options->key_bits != 0 || options->value_bits != 0
               ? pgd_codec_of_bits(options->key_bits, options->value_bits)
               : pgd_codec_of_word(options->codec, pgd_options_on_full(options) == PAGODA_ON_FULL_SPILL);
}

struct pagoda_flash_options pgd_options_flash(const struct pgd_options *options)
{
    static const enum pagoda_yardstick yardsticks[] = {PAGODA_YARDSTICK_NONE, PAGODA_YARDSTICK_NONE,
                                                       PAGODA_YARDSTICK_RANDOM, PAGODA_YARDSTICK_ORACLE};
    return (struct pagoda_flash_options) {
        .directory = options->kv_dir,
        .bytes_max = options->flash,
        .write_budget_bytes = options->flash_write,
        .bytes_per_second = options->flash_speed,
        .read_all = options->select == 1,
        .recall = (double) options->recall,
        .stall_ms = (uint32_t) options->stall_ms,
        .yardstick = yardsticks[options->select],
        .on_full = (enum pagoda_on_flash_full) options->flash_full,
    };
}

/* Where no rule was given, and there is no flash. Who gives a window wants old text to go. */
static enum pagoda_on_full rule_without_flash(const struct pgd_options *options)
{
    const bool evicts = options->command == PGD_COMMAND_CHAT || options->command == PGD_COMMAND_EVAL ||
                        (options->command == PGD_COMMAND_RUN && options->window != 0);
    return evicts ? PAGODA_ON_FULL_EVICT : PAGODA_ON_FULL_STOP;
}

bool pgd_options_wish_to_spill(const struct pgd_options *options)
{
    const unsigned commands = PGD_COMMAND_CHAT | PGD_COMMAND_RUN | PGD_COMMAND_PLAN;
    return options->on_full == PGD_ON_FULL_DEFAULT && options->window == 0 && (options->command & commands) != 0;
}

enum pagoda_on_full pgd_options_on_full(const struct pgd_options *options)
{
    if (options->on_full != PGD_ON_FULL_DEFAULT) {
        return (enum pagoda_on_full) options->on_full;
    }
    return pgd_options_wish_to_spill(options) ? PAGODA_ON_FULL_SPILL : rule_without_flash(options);
}

struct pgd_options pgd_options_without_flash(const struct pgd_options *options)
{
    struct pgd_options without = *options;
    if (pgd_options_wish_to_spill(options)) {
        without.on_full = (int) rule_without_flash(options);
    }
    return without;
}

struct pagoda_policy pgd_options_policy(const struct pgd_options *options)
{
    const struct pagoda_policy policy = {
        .kind = (enum pagoda_policy_kind) options->policy,
        .window_tokens = options->window,
        .sink_tokens = options->sinks,
    };
    return policy;
}

struct pgd_options pgd_options_exact(const struct pgd_options *options, uint64_t tokens)
{
    struct pgd_options exact;
    fill_defaults(options->command, &exact);
    exact.on_full = PAGODA_ON_FULL_STOP;
    exact.key_bits = 16;
    exact.value_bits = 16;
    exact.ctx_size = tokens;
    exact.page = options->page;
    exact.threads = options->threads;
    exact.threads_batch = options->threads_batch;
    exact.cpu = options->cpu;
    exact.outputs = options->outputs;
    exact.rollback_tokens = options->rollback_tokens;
    return exact;
}

struct pgd_options pgd_options_noise(const struct pgd_options *options, uint64_t tokens)
{
    struct pgd_options noise = pgd_options_exact(options, tokens);
    noise.key_bits = 0;
    noise.value_bits = 0;
    while (pgd_codec_of_word(noise.codec, false).settled != PAGODA_CODEC_R15) {
        noise.codec++;
    }
    return noise;
}

/* ---- help ---- */

/* The default as the table's field holds it, or "" when the help line says it or there is none. */
static void print_default(const struct pgd_options *defaults, const struct pgd_flag *arg, char *text, size_t bytes)
{
    const void *field = (const char *) defaults + arg->offset;
    text[0] = '\0';
    switch (arg->kind) {
    case COUNT: snprintf(text, bytes, " [%" PRIu64 "]", *(const uint64_t *) field); break;
    case SIGNED: snprintf(text, bytes, " [%" PRId64 "]", *(const int64_t *) field); break;
    case REAL: snprintf(text, bytes, " [%g]", (double) *(const float *) field); break;
    case INTEGER: snprintf(text, bytes, " [%" PRId32 "]", *(const int32_t *) field); break;
    case BUDGET: snprintf(text, bytes, " [auto]"); break;
    case CHOICE:
        if (*(const int *) field >= 0) {
            snprintf(text, bytes, " [%s]", arg->words[*(const int *) field]);
        }
        break;
    case SWITCH:
    case NEVER:
    case TEXT:
    case TEXTS:
    case COUNTS:
    case TASKS:
    case BITS:
    case CPU: break;
    }
}

static void print_arg(const struct pgd_options *defaults, const struct pgd_flag *arg, FILE *out)
{
    char left[64];
    char standard[48];
    const size_t first = strcspn(arg->spelling, " ");
    const bool short_form = first > 0 && arg->spelling[1] != '-';
    snprintf(left, sizeof(left), "%.*s%s--%s%s%s", short_form ? (int) first : 0, arg->spelling, short_form ? ", " : "",
             arg->name, arg->value == NULL ? "" : " ", arg->value == NULL ? "" : arg->value);
    print_default(defaults, arg, standard, sizeof(standard));
    fprintf(out, "  %-26s %s%s\n", left, arg->help, standard);
}

void pgd_args_help(enum pgd_command command, FILE *out)
{
    struct pgd_options defaults;
    fill_defaults(command, &defaults);
    const char *group = NULL;
    const char *printed = NULL;
    for (size_t i = 0; i < pgd_flag_count; i++) {
        group = pgd_flags[i].group != NULL ? pgd_flags[i].group : group;
        if ((pgd_flags[i].commands & command) == 0) {
            continue;
        }
        if (group != printed) {
            fprintf(out, "\n%s\n", group);
            printed = group;
        }
        print_arg(&defaults, &pgd_flags[i], out);
    }
    fputs("  -h, --help                 this text\n"
          "\nEvery flag has a variable, PAGODA_KV for --kv, PAGODA_ON_FULL for --on-full; the flag wins.\n"
          "Sizes: K M G T and KiB MiB GiB TiB are powers of 1024, KB MB GB TB of 1000.\n",
          out);
}
