/* cli/show.c - pagoda show: what a model is, and how much text a budget holds.
 *
 * The numbers are those of a cache that was opened for this model, not estimates: a formula would have to
 * know about windows, uneven layers and the cache's own tables.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/device.h"
#include "cli/load.h"
#include "cli/report.h"
#include "cli/safe.h"
#include "cli/verbs.h"
#include "engine/prompt.h"

#define ROWS_MAX 3u
#define SMALLEST_ROW_BYTES (UINT64_C(1) << 20)

struct row {
    uint64_t budget_bytes;
    uint64_t tokens; /* 0: the budget does not hold one page per layer */
};

struct show {
    const struct pgd_options *options;
    const struct pgd_model_info *info;
    bool has_template;
    struct pagoda_memory memory; /* under the budget that was asked for, or auto */
    struct row rows[ROWS_MAX];   /* what smaller ones hold */
    size_t row_count;
};

/* ---- measuring ---- */

static enum pgd_exit measure(struct show *show, const struct pgd_model *model)
{
    struct pgd_bridge *bridge = NULL;
    const enum pgd_exit code = pgd_load_bridge(show->options, model, &bridge);
    if (code == PGD_EXIT_OK) {
        pagoda_cache_memory(pgd_bridge_cache(bridge), &show->memory);
        pgd_bridge_close(bridge);
    }
    return code;
}

static uint64_t tokens_in(const struct show *show, const struct pgd_model *model, uint64_t budget_bytes)
{
    struct pgd_options options = *show->options;
    struct pgd_bridge *bridge = NULL;
    struct pagoda_error error;
    struct pagoda_memory memory = {.tokens_capacity = 0};
    options.kv = (struct pgd_budget) {.kind = PGD_BUDGET_BYTES, .bytes = budget_bytes};
    if (pgd_load_try_bridge(&options, model, &bridge, &error) == PAGODA_OK) {
        pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
        pgd_bridge_close(bridge);
    }
    return memory.tokens_capacity;
}

/* Round budgets below the one of the first line, each a quarter of the one before. */
static void measure_rows(struct show *show, const struct pgd_model *model)
{
    uint64_t budget = SMALLEST_ROW_BYTES;
    while (budget < show->memory.budget_bytes / 2) {
        budget *= 2;
    }
    while (show->row_count < ROWS_MAX && budget >= SMALLEST_ROW_BYTES) {
        if (budget < show->memory.budget_bytes) {
            show->rows[show->row_count++] = (struct row) {budget, tokens_in(show, model, budget)};
        }
        budget /= 4;
    }
}

/* ---- telling ---- */

static void print_window(const struct pgd_model_info *info)
{
    if (info->window == 0) {
        puts("sliding window   none");
    } else {
        printf("sliding window   %s tokens in some layers\n", pgd_count_words(info->window).text);
    }
}

/* A text of the file's, which may hold anything. */
static void print_safe(const char *label, const char *text)
{
    struct pgd_buffer safe = {0};
    pgd_safe_disarm(&safe, text, strlen(text));
    printf("%-16s %s\n", label, pgd_buffer_text(&safe));
    pgd_buffer_free(&safe);
}

static const char *template_words(const struct show *show)
{
    if (show->has_template) {
        return "yes";
    }
    return show->info->has_chat_template ? "one that is not known: use run --raw" : "none: use run --raw";
}

static void print_model(const struct show *show)
{
    const struct pgd_model_info *info = show->info;
    print_safe("name", info->name);
    print_safe("architecture", info->architecture);
    print_safe("kind", info->description);
    printf("parameters       %.1f million\n", (double) info->parameters / 1e6);
    printf("file             %s, weights %s\n", pgd_size_words(info->file_bytes).text,
           pgd_size_words(info->weights_bytes).text);
    printf("layers           %" PRIu32 "\n", info->layers);
    printf("trained context  %s tokens\n", pgd_count_words(info->trained_tokens).text);
    print_window(info);
    printf("vocabulary       %s tokens\n", pgd_count_words(info->vocabulary).text);
    printf("chat template    %s\n", template_words(show));
}

static void print_budgets(const struct show *show)
{
    const bool automatic = show->options->kv.kind == PGD_BUDGET_AUTO;
    printf("KV per token     %s in f16, when all layers hold it\n\n",
           pgd_size_words(show->memory.bytes_per_token).text);
    printf("%-16s %s\n", "KV budget", "holds");
    const bool whole = show->memory.tokens_capacity >= show->info->trained_tokens;
    printf("%-16s %s tokens%s\n", pgd_size_words(show->memory.budget_bytes).text,
           pgd_count_words(show->memory.tokens_capacity).text,
           !automatic ? ""
           : whole    ? "   (--kv auto: the trained context)"
                      : "   (--kv auto: half of the available memory)");
    for (size_t i = 0; i < show->row_count; i++) {
        const struct row *row = &show->rows[i];
        if (row->tokens > 0) {
            printf("%-16s %s tokens\n", pgd_size_words(row->budget_bytes).text, pgd_count_words(row->tokens).text);
        } else {
            printf("%-16s not one page in each layer\n", pgd_size_words(row->budget_bytes).text);
        }
    }
}

static void print_levels(void)
{
    printf("\nkernels          ");
    for (uint32_t i = 0; pagoda_cpu_level(i) != NULL; i++) {
        printf("%s%s", i == 0 ? "" : ", ", pagoda_cpu_level(i));
    }
    puts(" (the last is used)");
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t) value);
}

static json_t *budgets_array(const struct show *show)
{
    json_t *array = json_array();
    for (size_t i = 0; i < show->row_count; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "budget_bytes", number(show->rows[i].budget_bytes));
        json_object_set_new(row, "tokens", number(show->rows[i].tokens));
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *levels_array(void)
{
    json_t *array = json_array();
    for (uint32_t i = 0; pagoda_cpu_level(i) != NULL; i++) {
        json_array_append_new(array, json_string(pagoda_cpu_level(i)));
    }
    return array;
}

static bool print_json(const struct show *show)
{
    const struct pgd_model_info *info = show->info;
    json_t *object = json_object();
    json_object_set_new(object, "name", pgd_report_string(info->name));
    json_object_set_new(object, "architecture", pgd_report_string(info->architecture));
    json_object_set_new(object, "description", pgd_report_string(info->description));
    json_object_set_new(object, "parameters", number(info->parameters));
    json_object_set_new(object, "file_bytes", number(info->file_bytes));
    json_object_set_new(object, "weights_bytes", number(info->weights_bytes));
    json_object_set_new(object, "layers", number(info->layers));
    json_object_set_new(object, "trained_tokens", number(info->trained_tokens));
    json_object_set_new(object, "window_tokens", number(info->window));
    json_object_set_new(object, "vocabulary", number(info->vocabulary));
    json_object_set_new(object, "chat_template", json_boolean(show->has_template));
    json_t *kv = json_object();
    json_object_set_new(kv, "codec", json_string(pgd_codec_words[show->options->codec]));
    json_object_set_new(kv, "bytes_per_token", number(show->memory.bytes_per_token));
    json_object_set_new(kv, "budget_bytes", number(show->memory.budget_bytes));
    json_object_set_new(kv, "tokens", number(show->memory.tokens_capacity));
    json_object_set_new(kv, "smaller", budgets_array(show));
    json_object_set_new(object, "kv", kv);
    json_object_set_new(object, "cpu_levels", levels_array());
    return pgd_report_print_json(object);
}

static bool print_text(const struct show *show)
{
    print_model(show);
    print_budgets(show);
    print_levels();
    return true;
}

static enum pgd_exit show_model(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct pgd_model *model = NULL;
    struct show show = {.options = options};
    enum pgd_exit code = pgd_load_model(options, terminal, &model);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    show.info = pgd_model_get_info(model);
    show.has_template = pgd_prompt_has_template(model);
    code = measure(&show, model);
    if (code == PGD_EXIT_OK) {
        measure_rows(&show, model);
        const bool printed = options->json ? print_json(&show) : print_text(&show);
        code = pgd_terminal_finish_output() && printed ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
    }
    pgd_model_close(model);
    return code;
}

enum pgd_exit pgd_show_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    return options->device ? pgd_device_show(options) : show_model(options, terminal);
}
