/* cli/bench_report.c - see bench_report.h. */
#include "cli/bench_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/machine.h"
#include "cli/report.h"
#include "cli/safe.h"

/* ---- the header ---- */

static void find_date(char *date, size_t bytes)
{
    const time_t now = time(NULL);
    struct tm parts;
    if (gmtime_r(&now, &parts) == NULL || strftime(date, bytes, "%Y-%m-%d", &parts) == 0) {
        snprintf(date, bytes, "unknown");
    }
}

/* The model's name as the file has it may hold anything. */
static void print_model(const struct pgd_bench_report *report)
{
    struct pgd_buffer safe = {0};
    pgd_safe_disarm(&safe, report->model->name, strlen(report->model->name));
    pgd_safe_disarm(&safe, "; ", 2);
    pgd_safe_disarm(&safe, report->model->description, strlen(report->model->description));
    printf("model: %s, weights %s, trained to %s tokens\n", pgd_buffer_text(&safe),
           pgd_size_words(report->model->weights_bytes).text, pgd_count_words(report->model->trained_tokens).text);
    pgd_buffer_free(&safe);
}

static void print_memory(const struct pgd_bench_report *report)
{
    if (report->dram.gb_per_s > 0) {
        printf("memory reads: %.1f GB/s (a sum over %s by the same threads; largest cache %s)\n", report->dram.gb_per_s,
               pgd_size_words(report->dram.buffer_bytes).text,
               report->dram.cache_bytes > 0 ? pgd_size_words(report->dram.cache_bytes).text : "unknown");
    } else {
        puts("memory reads: not measured");
    }
}

/* A blank line ends each in Markdown, so that lines stay lines. */
static void print_header(const struct pgd_bench_report *report)
{
    const char *end = report->format == PGD_OUTPUT_MD ? "\n" : "";
    printf("machine: %s, threads %" PRIu32 ", %s\n%s", report->cpu, report->threads, report->date, end);
    printf("versions: pagoda %s, kernels %s, llama.cpp %s\n%s", pagoda_version(), report->level,
           pgd_model_library_version(), end);
    print_model(report);
    fputs(end, stdout);
    print_memory(report);
    printf("%sruns: %" PRIu64 " of each, in turn; medians; ratio: to the best peer of the same test and depth\n\n", end,
           report->options->repetitions);
}

/* ---- text and Markdown ---- */

enum column { TEST, DEPTH, ENGINE, SPEED, LEAST, MOST, KV, RATE, SHARE, RATIO, COLUMNS };

struct cell {
    char text[96];
};

static const struct {
    const char *title;
    int width; /* negative: to the left */
} columns[COLUMNS] = {
    [TEST] = {"test", -7},    [DEPTH] = {"depth", 6}, [ENGINE] = {"engine", -32}, [SPEED] = {"tok/s", 8},
    [LEAST] = {"min", 8},     [MOST] = {"max", 8},    [KV] = {"KV/token", 9},     [RATE] = {"GB/s", 6},
    [SHARE] = {"of DRAM", 7}, [RATIO] = {"ratio", 6},
};

/* The second table. */
enum flash_column {
    FLASH_DEPTH,
    FLASH_ENGINE,
    FLASH_SPEED,
    FLASH_OF_MEMORY,
    FLASH_P50,
    FLASH_P99,
    FLASH_MOST,
    FLASH_STALL,
    FLASH_STALL_MOST,
    FLASH_READ,
    FLASH_UNREAD,
    FLASH_MASS,
    FLASH_LATE,
    FLASH_COLUMNS
};

static const struct {
    const char *title;
    int width;
} flash_columns[FLASH_COLUMNS] = {
    [FLASH_DEPTH] = {"depth", 6},         [FLASH_ENGINE] = {"decode", -32}, [FLASH_SPEED] = {"tok/s", 8},
    [FLASH_OF_MEMORY] = {"of memory", 9}, [FLASH_P50] = {"p50 ms", 8},      [FLASH_P99] = {"p99 ms", 8},
    [FLASH_MOST] = {"max ms", 8},         [FLASH_STALL] = {"stall ms", 8},  [FLASH_STALL_MOST] = {"max stall", 9},
    [FLASH_READ] = {"read/token", 10},    [FLASH_UNREAD] = {"unread", 7},   [FLASH_MASS] = {"mass", 7},
    [FLASH_LATE] = {"late", 5},
};

static void add_flash_cells(struct pgd_bench_report *report, const struct cell cells[FLASH_COLUMNS])
{
    const bool md = report->format == PGD_OUTPUT_MD;
    pgd_buffer_print(&report->flash, "%s", md ? "|" : "");
    for (int i = 0; i < FLASH_COLUMNS; i++) {
        pgd_buffer_print(&report->flash, md ? " %*s |" : "%*s ", flash_columns[i].width, cells[i].text);
    }
    pgd_buffer_print(&report->flash, "\n");
}

static void add_flash_titles(struct pgd_bench_report *report)
{
    struct cell cells[FLASH_COLUMNS];
    for (int i = 0; i < FLASH_COLUMNS; i++) {
        snprintf(cells[i].text, sizeof(cells[i].text), "%s", flash_columns[i].title);
    }
    add_flash_cells(report, cells);
    for (int i = 0; i < FLASH_COLUMNS && report->format == PGD_OUTPUT_MD; i++) {
        pgd_buffer_print(&report->flash, "%s%s",
                         flash_columns[i].width < 0 ? "|---" : "|--:", i + 1 < FLASH_COLUMNS ? "" : "|\n");
    }
}

static void print_cells(const struct pgd_bench_report *report, const struct cell cells[COLUMNS])
{
    const bool md = report->format == PGD_OUTPUT_MD;
    fputs(md ? "|" : "", stdout);
    for (int i = 0; i < COLUMNS; i++) {
        printf(md ? " %*s |" : "%*s ", columns[i].width, cells[i].text);
    }
    putchar('\n');
}

static void print_titles(const struct pgd_bench_report *report)
{
    struct cell cells[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        snprintf(cells[i].text, sizeof(cells[i].text), "%s", columns[i].title);
    }
    print_cells(report, cells);
    if (report->format == PGD_OUTPUT_MD) {
        for (int i = 0; i < COLUMNS; i++) {
            fputs(columns[i].width < 0 ? "|---" : "|--:", stdout);
        }
        puts("|");
    }
}

/* A number, or a dash for what is not known. */
static struct cell number_cell(double value, int decimals, const char *unit)
{
    struct cell cell = {"-"};
    if (value > 0) {
        snprintf(cell.text, sizeof(cell.text), "%.*f%s", decimals, value, unit);
    }
    return cell;
}

static void print_row(const struct pgd_bench_report *report, const struct pgd_bench_row *row)
{
    struct cell cells[COLUMNS];
    snprintf(cells[TEST].text, sizeof(cells[TEST].text), "%s", pgd_bench_test_name(row->test));
    snprintf(cells[DEPTH].text, sizeof(cells[DEPTH].text), "%" PRIu64, row->depth);
    snprintf(cells[ENGINE].text, sizeof(cells[ENGINE].text), "%s", row->engine);
    cells[SPEED] = number_cell(row->median, 1, "");
    cells[LEAST] = number_cell(row->least, 1, "");
    cells[MOST] = number_cell(row->most, 1, "");
    cells[KV] = number_cell((double) row->kv_bytes / 1048576.0, 2, "M");
    cells[RATE] = number_cell(row->gb_per_s, 1, "");
    cells[SHARE] = number_cell(100 * row->dram_share, 0, " %");
    cells[RATIO] = number_cell(row->ratio, 2, "");
    print_cells(report, cells);
}

/* Here a nought is a finding. */
static struct cell found_cell(double value, int decimals, const char *unit)
{
    struct cell cell;
    snprintf(cell.text, sizeof(cell.text), "%.*f%s", decimals, value, unit);
    return cell;
}

/* Decoding with pages on flash, or beside that: how long single tokens took, and why. */
static void add_flash_row(struct pgd_bench_report *report, const struct pgd_bench_row *row)
{
    struct cell cells[FLASH_COLUMNS];
    for (int i = 0; i < FLASH_COLUMNS; i++) {
        snprintf(cells[i].text, sizeof(cells[i].text), "-");
    }
    if (report->flash.count == 0) {
        add_flash_titles(report);
    }
    cells[FLASH_DEPTH] = found_cell((double) row->depth, 0, "");
    snprintf(cells[FLASH_ENGINE].text, sizeof(cells[FLASH_ENGINE].text), "%s", row->engine);
    cells[FLASH_SPEED] = number_cell(row->median, 1, "");
    cells[FLASH_OF_MEMORY] = number_cell(row->memory_ratio, 2, "");
    cells[FLASH_P50] = number_cell(row->p50_ms, 2, "");
    cells[FLASH_P99] = number_cell(row->p99_ms, 2, "");
    cells[FLASH_MOST] = number_cell(row->most_ms, 2, "");
    if (row->spills) {
        cells[FLASH_STALL] = found_cell(row->stall_ms, 2, "");
        cells[FLASH_STALL_MOST] = found_cell(row->stall_most_ms, 2, "");
        cells[FLASH_READ] = found_cell(row->flash_bytes / 1048576.0, 2, "M");
        cells[FLASH_UNREAD] = found_cell(row->unread_tokens, 0, "");
        cells[FLASH_MASS] = found_cell(100 * row->unread_mass, 2, " %");
        cells[FLASH_LATE] = found_cell((double) row->late_pages, 0, "");
    }
    add_flash_cells(report, cells);
}

/* ---- csv ---- */

static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        fputs(*text == '"' ? "\"\"" : (const char[]) {*text, '\0'}, stdout);
    }
    fputs("\",", stdout);
}

static void print_csv_titles(void)
{
    puts("test,depth,tokens,engine,runs,tokens_per_second,min,max,weights_bytes,kv_bytes,gb_per_s,dram_share,ratio,"
         "model,cpu,date,threads,dram_gb_per_s,pagoda,kernels,llama_cpp,memory_ratio,p50_ms,p99_ms,max_ms,stall_ms,"
         "max_stall_ms,flash_bytes,unread_tokens,unread_mass,late_pages");
}

/* Nothing between the commas for what is not known. */
static void print_known(double value)
{
    if (value > 0) {
        printf("%.10g", value);
    }
    putchar(',');
}

static void print_csv_row(const struct pgd_bench_report *report, const struct pgd_bench_row *row)
{
    struct pgd_buffer name = {0};
    pgd_safe_disarm(&name, report->model->name, strlen(report->model->name));
    printf("%s,%" PRIu64 ",%" PRIu64 ",", pgd_bench_test_name(row->test), row->depth, row->tokens);
    print_quoted(row->engine);
    printf("%" PRIu32 ",%.6g,%.6g,%.6g,", row->runs, row->median, row->least, row->most);
    print_known((double) row->weights_bytes);
    print_known((double) row->kv_bytes);
    print_known(row->gb_per_s);
    print_known(row->dram_share);
    print_known(row->ratio);
    print_quoted(pgd_buffer_text(&name));
    print_quoted(report->cpu);
    print_quoted(report->date);
    printf("%" PRIu32 ",", report->threads);
    print_known(report->dram.gb_per_s);
    printf("%s,%s,%s,", pagoda_version(), report->level, pgd_model_library_version());
    print_known(row->memory_ratio);
    print_known(row->p50_ms);
    print_known(row->p99_ms);
    print_known(row->most_ms);
    if (row->spills) {
        printf("%.10g,%.10g,%.10g,%.10g,%.10g,%" PRIu64 "\n", row->stall_ms, row->stall_most_ms, row->flash_bytes,
               row->unread_tokens, row->unread_mass, row->late_pages);
    } else {
        puts(",,,,,");
    }
    pgd_buffer_free(&name);
}

/* ---- json ---- */

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t) value);
}

/* Null for what is not known. */
static json_t *known_integer(uint64_t value)
{
    return value > 0 ? integer(value) : json_null();
}

static json_t *known_real(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static json_t *flash_object(const struct pgd_bench_row *row)
{
    json_t *object = json_object();
    json_object_set_new(object, "stall_ms", json_real(row->stall_ms));
    json_object_set_new(object, "max_stall_ms", json_real(row->stall_most_ms));
    json_object_set_new(object, "bytes_read", json_real(row->flash_bytes));
    json_object_set_new(object, "unread_tokens", json_real(row->unread_tokens));
    json_object_set_new(object, "unread_mass", json_real(row->unread_mass));
    json_object_set_new(object, "late_pages", integer(row->late_pages));
    return object;
}

static json_t *row_object(const struct pgd_bench_row *row)
{
    json_t *samples = json_array();
    for (uint32_t i = 0; i < row->runs; i++) {
        json_array_append_new(samples, json_real(row->samples[i]));
    }
    json_t *object = json_object();
    json_object_set_new(object, "test", json_string(pgd_bench_test_name(row->test)));
    json_object_set_new(object, "depth", integer(row->depth));
    json_object_set_new(object, "tokens", integer(row->tokens));
    json_object_set_new(object, "engine", json_string(row->engine));
    json_object_set_new(object, "peer", json_boolean(!row->own));
    json_object_set_new(object, "tokens_per_second", json_real(row->median));
    json_object_set_new(object, "min", json_real(row->least));
    json_object_set_new(object, "max", json_real(row->most));
    json_object_set_new(object, "samples", samples);
    json_object_set_new(object, "weights_bytes", known_integer(row->weights_bytes));
    json_object_set_new(object, "kv_bytes", known_integer(row->kv_bytes));
    json_object_set_new(object, "gb_per_s", known_real(row->gb_per_s));
    json_object_set_new(object, "dram_share", known_real(row->dram_share));
    json_object_set_new(object, "ratio", known_real(row->ratio));
    json_object_set_new(object, "memory_ratio", known_real(row->memory_ratio));
    json_object_set_new(object, "p50_ms", known_real(row->p50_ms));
    json_object_set_new(object, "p99_ms", known_real(row->p99_ms));
    json_object_set_new(object, "max_ms", known_real(row->most_ms));
    json_object_set_new(object, "flash", row->spills && row->p50_ms > 0 ? flash_object(row) : json_null());
    return object;
}

static json_t *notes_array(const struct pgd_bench_report *report)
{
    json_t *array = json_array();
    const char *at = pgd_buffer_text(&report->notes);
    while (*at != '\0') {
        const size_t length = strcspn(at, "\n");
        json_array_append_new(array, json_stringn(at, length));
        at += length + (at[length] == '\n' ? 1 : 0);
    }
    return array;
}

static json_t *whole_object(const struct pgd_bench_report *report)
{
    json_t *model = json_object();
    json_object_set_new(model, "name", pgd_report_string(report->model->name));
    json_object_set_new(model, "description", pgd_report_string(report->model->description));
    json_object_set_new(model, "weights_bytes", integer(report->model->weights_bytes));
    json_object_set_new(model, "trained_tokens", integer(report->model->trained_tokens));
    json_t *dram = json_object();
    json_object_set_new(dram, "gb_per_s", known_real(report->dram.gb_per_s));
    json_object_set_new(dram, "buffer_bytes", integer(report->dram.buffer_bytes));
    json_object_set_new(dram, "cache_bytes", known_integer(report->dram.cache_bytes));
    json_t *object = json_object();
    json_object_set_new(object, "pagoda", json_string(pagoda_version()));
    json_object_set_new(object, "llama_cpp", json_string(pgd_model_library_version()));
    json_object_set_new(object, "cpu", pgd_report_string(report->cpu));
    json_object_set_new(object, "threads", integer(report->threads));
    json_object_set_new(object, "kernels", json_string(report->level));
    json_object_set_new(object, "date", json_string(report->date));
    json_object_set_new(object, "model", model);
    json_object_set_new(object, "dram", dram);
    json_object_set_new(object, "rows", json_incref(report->rows));
    json_object_set_new(object, "notes", notes_array(report));
    return object;
}

/* ---- the life of a report ---- */

void pgd_bench_report_start(struct pgd_bench_report *report)
{
    pgd_machine_cpu_name(report->cpu, sizeof(report->cpu));
    find_date(report->date, sizeof(report->date));
    report->rows = json_array();
    if (report->format == PGD_OUTPUT_CSV) {
        print_csv_titles();
    } else if (report->format != PGD_OUTPUT_JSON) {
        print_header(report);
        print_titles(report);
    }
    fflush(stdout);
}

void pgd_bench_report_add(struct pgd_bench_report *report, const struct pgd_bench_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        switch (report->format) {
        case PGD_OUTPUT_JSON: json_array_append_new(report->rows, row_object(&rows[i])); break;
        case PGD_OUTPUT_CSV: print_csv_row(report, &rows[i]); break;
        case PGD_OUTPUT_TEXT:
        case PGD_OUTPUT_MD:
            print_row(report, &rows[i]);
            if (rows[i].test == PGD_BENCH_DECODE && rows[i].memory_ratio > 0) {
                add_flash_row(report, &rows[i]);
            }
            break;
        }
    }
    fflush(stdout);
}

void pgd_bench_report_note(struct pgd_bench_report *report, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (report->format == PGD_OUTPUT_CSV) {
        pgd_say_note(report->terminal, "%s", text);
    } else {
        pgd_buffer_print(&report->notes, "%s\n", text);
    }
}

bool pgd_bench_report_finish(struct pgd_bench_report *report)
{
    bool complete = !report->notes.failed;
    if (report->format == PGD_OUTPUT_JSON) {
        struct pgd_buffer line = {0};
        pgd_report_write_json(whole_object(report), &line);
        fputs(pgd_buffer_text(&line), stdout);
        complete = complete && !line.failed;
        pgd_buffer_free(&line);
        return complete;
    }
    if (report->flash.count > 0) {
        printf("\n%s", pgd_buffer_text(&report->flash));
    }
    if (report->notes.count > 0) {
        printf("\n%s", pgd_buffer_text(&report->notes));
    }
    return complete && !report->flash.failed;
}

void pgd_bench_report_free(struct pgd_bench_report *report)
{
    json_decref(report->rows);
    pgd_buffer_free(&report->notes);
    pgd_buffer_free(&report->flash);
}
