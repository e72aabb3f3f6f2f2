/* cli/bench.c - pagoda bench: how fast a model is at which depth, beside other engines.
 *
 * All engines of the linked library live in this process and take turns, run by run, at every depth: a slow moment of
 * the machine then meets all of them. Filling up to a depth is done once and not timed; each run goes back to it.
 * A llama-bench of others is a process of its own and does all its runs of a depth in one go, when the rest has had
 * its turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/bench_report.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/machine.h"
#include "cli/peer.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "engine/contender.h"
#include "engine/weights.h"
#include "os/os.h"

#define ENTRIES_MAX 4u
#define ROWS_MAX (PGD_BENCH_TESTS * (ENTRIES_MAX + PGD_PEERS_MAX))
#define OWN 0u /* pagoda's entry is the first */

/* An engine of this process. */
struct entry {
    char name[96];
    struct pgd_contender contender;
    struct pgd_stock_options stock; /* not of pagoda's */
    bool failed;
};

struct bench {
    struct pgd_options options; /* the user's, with what follows from the depths */
    const struct pgd_terminal *terminal;
    struct pgd_model *model;
    struct pgd_bridge *bridge; /* of the first entry */
    struct pgd_counts depths;
    uint64_t tokens_needed;
    uint64_t weights_bytes; /* that a token reads */
    uint32_t threads;
    int32_t *tokens;
    struct entry entries[ENTRIES_MAX];
    uint32_t entry_count;
    struct pgd_peers peers;
    struct pgd_bench_report report;
    struct pgd_progress progress;
    uint64_t steps_done;
    uint64_t steps;
    struct pgd_bench_row rows[ROWS_MAX]; /* of the depth that is being measured */
    size_t row_count;
    struct pgd_bench_row sorted[ROWS_MAX];
};

/* ---- what is to be measured ---- */

/* The user's depths, which must lie within what the model was trained for, or as many of ours as do. */
static enum pagoda_status settle_depths(struct bench *bench, struct pagoda_error *error)
{
    static const uint64_t usual[] = {0, 2048, 4096, 8000};
    const uint64_t trained = pgd_model_get_info(bench->model)->trained_tokens;
    bench->depths = bench->options.bench_depths;
    if (bench->depths.count == 0) {
        for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]) && usual[i] <= trained; i++) {
            bench->depths.items[bench->depths.count++] = usual[i];
        }
    }
    const uint64_t deepest = bench->depths.items[bench->depths.count - 1];
    if (deepest > trained) {
        return pgd_fail(error, PAGODA_RANGE,
                        "--n-depth: %s tokens are more than the %s that this model was trained for",
                        pgd_count_words(deepest).text, pgd_count_words(trained).text);
    }
    bench->tokens_needed = deepest + pgd_max_u64(bench->options.prefill, bench->options.gen);
    bench->options.ctx_size = bench->tokens_needed;
    bench->options.rollback_tokens = pgd_max_u64(bench->options.prefill, bench->options.gen);
    return PAGODA_OK;
}

/* Any tokens will do for speed, as long as all engines get the same. */
static enum pagoda_status make_tokens(struct bench *bench, struct pagoda_error *error)
{
    const uint32_t vocabulary = pgd_model_get_info(bench->model)->vocabulary;
    bench->tokens = malloc(bench->tokens_needed * sizeof(*bench->tokens));
    if (bench->tokens == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %llu tokens", (unsigned long long) bench->tokens_needed);
    }
    uint32_t state = 1;
    for (uint64_t i = 0; i < bench->tokens_needed; i++) {
        state = state * 1664525u + 1013904223u;
        bench->tokens[i] = (int32_t) ((uint64_t) state * vocabulary >> 32);
    }
    return PAGODA_OK;
}

/* ---- engines ---- */

static enum pgd_exit open_own(struct bench *bench)
{
    enum pgd_exit code = pgd_load_bridge(&bench->options, bench->model, &bench->bridge);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    struct entry *own = &bench->entries[bench->entry_count++];
    own->contender = pgd_contender_of_bridge(bench->bridge);
    const struct pgd_codec_choice codec = pgd_options_codec(&bench->options);
    snprintf(own->name, sizeof(own->name), "pagoda %s",
             codec.settled == codec.tight ? pagoda_codec_name(codec.settled) : pgd_codec_words[0]);
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bench->bridge), &memory);
    if (memory.tokens_capacity < bench->tokens_needed) {
        pgd_say_error(
            "the deepest run needs %s tokens, and a KV budget of %s holds %s: raise --kv, or leave depths out",
            pgd_count_words(bench->tokens_needed).text, pgd_size_words(memory.budget_bytes).text,
            pgd_count_words(memory.tokens_capacity).text);
        return PGD_EXIT_OVER_BUDGET;
    }
    return PGD_EXIT_OK;
}

/* One that cannot be set up, or stops, is left out; why is told. */
static void leave_out(struct bench *bench, struct entry *entry, const struct pagoda_error *error)
{
    entry->failed = true;
    pgd_contender_close(&entry->contender);
    for (size_t i = 0; i < bench->row_count; i++) {
        if (strcmp(bench->rows[i].engine, entry->name) == 0) {
            bench->rows[i].runs = 0; /* half of a row is none */
        }
    }
    pgd_bench_report_note(&bench->report, "%s is missing: %s", entry->name, error->message);
}

static void open_stock(struct bench *bench)
{
    static const struct pgd_stock_options paths[] = {
        {.path = PGD_STOCK_FLASH}, {.path = PGD_STOCK_CLASSIC}, {.path = PGD_STOCK_FLASH, .quantized = true}};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && !pgd_interrupt_raised(); i++) {
        struct entry *entry = &bench->entries[bench->entry_count++];
        struct pgd_stock *stock = NULL;
        struct pagoda_error error;
        entry->stock = paths[i];
        entry->stock.context_tokens = (uint32_t) pgd_round_up_u64(bench->tokens_needed, 256);
        entry->stock.batch_tokens = PGD_CONTENDER_BATCH_MAX;
        entry->stock.outputs_max = 1;
        entry->stock.threads = bench->threads;
        entry->stock.cancel = pgd_interrupt_flag();
        snprintf(entry->name, sizeof(entry->name), "%s%s", pgd_stock_name(&entry->stock),
                 entry->stock.quantized ? "" : " f16");
        if (pgd_stock_open(bench->model, &entry->stock, &stock, &error) == PAGODA_OK) {
            entry->contender = pgd_contender_of_stock(stock);
        } else {
            leave_out(bench, entry, &error);
        }
    }
}

/* ---- measuring ---- */

static void show_progress(struct bench *bench, uint64_t depth, const char *engine)
{
    char doing[160];
    snprintf(doing, sizeof(doing), "depth %s, %s", pgd_count_words(depth).text, engine);
    pgd_progress_work(&bench->progress, "measuring", (double) bench->steps_done / (double) bench->steps, doing);
    bench->steps_done++;
}

/* A peer's failure is noted; pagoda's own, and Ctrl-C, end the benchmark. */
static enum pagoda_status forgive(struct bench *bench, struct entry *entry, enum pagoda_status status,
                                  const struct pagoda_error *error)
{
    if (status == PAGODA_OK || status == PAGODA_CANCELLED || entry == &bench->entries[OWN]) {
        return status;
    }
    leave_out(bench, entry, error);
    return PAGODA_OK;
}

static uint64_t tokens_of(const struct bench *bench, enum pgd_bench_test test)
{
    return test == PGD_BENCH_DECODE ? bench->options.gen : bench->options.prefill;
}

/* What a decoded token reads: the weights, and the keys and values that are there half-way through the run. A block of
 * 32 numbers takes 34 bytes in q8_0. `entry` is NULL for other programs. */
static void count_bytes(struct bench *bench, const struct entry *entry, struct pgd_bench_row *row)
{
    const uint64_t middle = (row->tokens + 1) / 2;
    const uint64_t f16_bytes = pgd_contender_f16_bytes(bench->bridge, row->depth + middle);
    if (row->test != PGD_BENCH_DECODE) {
        return;
    }
    row->weights_bytes = bench->weights_bytes;
    if (row->own) {
        row->kv_bytes = pgd_contender_page_bytes(bench->bridge, middle);
    } else {
        row->kv_bytes = entry != NULL && entry->stock.quantized ? f16_bytes / 64 * 34 : f16_bytes;
    }
}

static struct pgd_bench_row *row_of(struct bench *bench, const struct entry *entry, enum pgd_bench_test test)
{
    for (size_t i = 0; i < bench->row_count; i++) {
        if (bench->rows[i].test == test && strcmp(bench->rows[i].engine, entry->name) == 0) {
            return &bench->rows[i];
        }
    }
    struct pgd_bench_row *row = &bench->rows[bench->row_count++];
    *row = (struct pgd_bench_row) {
        .test = test,
        .own = entry == &bench->entries[OWN],
        .depth = entry->contender.position,
        .tokens = tokens_of(bench, test),
    };
    snprintf(row->engine, sizeof(row->engine), "%s", entry->name);
    count_bytes(bench, entry, row);
    return row;
}

/* One run of one test. */
static enum pagoda_status run_test(struct bench *bench, struct entry *entry, enum pgd_bench_test test,
                                   struct pagoda_error *error)
{
    const uint64_t count = tokens_of(bench, test);
    double seconds = 0;
    if (count == 0) {
        return PAGODA_OK;
    }
    enum pagoda_status status =
        pgd_contender_run(&entry->contender, bench->tokens, count, test == PGD_BENCH_DECODE, &seconds, error);
    if (status == PAGODA_OK) {
        struct pgd_bench_row *row = row_of(bench, entry, test);
        row->samples[row->runs++] = (double) count / seconds;
    }
    return status;
}

/* One turn of everybody. */
static enum pagoda_status run_turns(struct bench *bench, uint64_t depth, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; i < bench->entry_count && status == PAGODA_OK; i++) {
        struct entry *entry = &bench->entries[i];
        show_progress(bench, depth, entry->name);
        for (int test = 0; test < PGD_BENCH_TESTS && !entry->failed && status == PAGODA_OK; test++) {
            status = forgive(bench, entry, run_test(bench, entry, (enum pgd_bench_test) test, error), error);
        }
    }
    return status == PAGODA_OK && pgd_interrupt_raised() ? pgd_fail(error, PAGODA_CANCELLED, "cancelled") : status;
}

static enum pagoda_status fill_all(struct bench *bench, uint64_t depth, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 0; i < bench->entry_count && status == PAGODA_OK; i++) {
        struct entry *entry = &bench->entries[i];
        show_progress(bench, depth, entry->name);
        if (!entry->failed) {
            status = forgive(bench, entry, pgd_contender_fill(&entry->contender, bench->tokens, depth, error), error);
        }
    }
    return status;
}

static enum pagoda_status ask_peers(struct bench *bench, uint64_t depth, struct pagoda_error *error)
{
    const struct pgd_peer_request request = {
        .model = bench->options.model,
        .depth = depth,
        .prefill = bench->options.prefill,
        .gen = bench->options.gen,
        .repetitions = bench->options.repetitions,
        .threads = bench->threads,
    };
    for (uint32_t i = 0; i < bench->peers.count; i++) {
        struct pgd_peer *peer = &bench->peers.peer[i];
        size_t count = 0;
        show_progress(bench, depth, peer->path);
        if (peer->failed) {
            continue;
        }
        enum pagoda_status status = pgd_peer_run(peer, &request, &bench->rows[bench->row_count], &count, error);
        if (status == PAGODA_CANCELLED) {
            return status;
        }
        if (status != PAGODA_OK) {
            peer->failed = true;
            pgd_bench_report_note(&bench->report, "%s -fa %d is missing from depth %llu on: it %s", peer->path,
                                  peer->flash ? 1 : 0, (unsigned long long) depth, error->message);
        }
        for (size_t row = 0; row < count; row++) {
            count_bytes(bench, NULL, &bench->rows[bench->row_count++]);
        }
    }
    return PAGODA_OK;
}

/* Hands the rows of a depth on, test by test. */
static void report_rows(struct bench *bench)
{
    struct pgd_bench_row *sorted = bench->sorted;
    size_t count = 0;
    for (int test = 0; test < PGD_BENCH_TESTS; test++) {
        for (size_t i = 0; i < bench->row_count; i++) {
            if ((int) bench->rows[i].test == test && bench->rows[i].runs > 0) {
                sorted[count++] = bench->rows[i];
            }
        }
    }
    pgd_bench_rows_settle(sorted, count, bench->report.dram.gb_per_s);
    pgd_progress_end(&bench->progress);
    pgd_bench_report_add(&bench->report, sorted, count);
    bench->row_count = 0;
}

static enum pagoda_status measure_depth(struct bench *bench, uint64_t depth, struct pagoda_error *error)
{
    enum pagoda_status status = fill_all(bench, depth, error);
    for (uint64_t run = 0; run < bench->options.repetitions && status == PAGODA_OK; run++) {
        status = run_turns(bench, depth, error);
    }
    if (status == PAGODA_OK) {
        status = ask_peers(bench, depth, error);
    }
    if (status == PAGODA_OK) {
        report_rows(bench);
    }
    return status;
}

/* The first run of an engine sets things up: not to be counted. */
static enum pagoda_status warm_up(struct bench *bench, struct pagoda_error *error)
{
    enum pagoda_status status = fill_all(bench, 0, error);
    if (status == PAGODA_OK) {
        status = run_turns(bench, 0, error);
    }
    bench->row_count = 0;
    return status;
}

static enum pagoda_status measure(struct bench *bench, struct pagoda_error *error)
{
    pgd_progress_start(&bench->progress, bench->terminal, bench->options.quiet);
    bench->steps = 2 * bench->entry_count +
                   bench->depths.count * ((bench->options.repetitions + 1) * bench->entry_count + bench->peers.count);
    enum pagoda_status status = warm_up(bench, error);
    for (uint32_t i = 0; i < bench->depths.count && status == PAGODA_OK; i++) {
        status = measure_depth(bench, bench->depths.items[i], error);
    }
    pgd_progress_end(&bench->progress);
    return status;
}

/* ---- the command ---- */

static void start_report(struct bench *bench)
{
    struct pgd_bench_report *report = &bench->report;
    report->format = (enum pgd_output) bench->options.output;
    report->terminal = bench->terminal;
    report->options = &bench->options;
    report->model = pgd_model_get_info(bench->model);
    report->threads = bench->threads;
    report->level = bench->options.cpu;
    for (uint32_t i = 0; bench->options.cpu == NULL && pagoda_cpu_level(i) != NULL; i++) {
        report->level = pagoda_cpu_level(i); /* the last is the best */
    }
}

static void measure_memory(struct bench *bench)
{
    struct pagoda_error error;
    if (pgd_bandwidth_measure(bench->threads, &bench->report.dram, &error) != PAGODA_OK) {
        pgd_bench_report_note(&bench->report, "how fast memory is read could not be measured: %s", error.message);
    }
}

static void find_peers(struct bench *bench)
{
    if (!bench->options.no_peers) {
        pgd_peers_find(&bench->peers);
        if (bench->peers.count == 0) {
            pgd_bench_report_note(&bench->report, "llama-bench is missing: there is none on the PATH");
        }
    }
}

static enum pgd_exit measure_and_report(struct bench *bench)
{
    struct pagoda_error error;
    enum pagoda_status status = make_tokens(bench, &error);
    if (status == PAGODA_OK) {
        pgd_bench_report_start(&bench->report);
        status = measure(bench, &error);
    }
    if (status == PAGODA_CANCELLED) {
        return PGD_EXIT_INTERRUPTED;
    }
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return pgd_exit_of(status);
    }
    const bool complete = pgd_bench_report_finish(&bench->report);
    return pgd_terminal_finish_output() && complete ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}

/* With the model open. */
static enum pgd_exit run_bench(struct bench *bench)
{
    struct pagoda_error error;
    if (settle_depths(bench, &error) != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return PGD_EXIT_USAGE;
    }
    bench->threads = bench->options.threads != 0 ? (uint32_t) bench->options.threads : pgd_os_cpu_count();
    bench->weights_bytes =
        pgd_weights_read_bytes(bench->options.model, pgd_model_get_info(bench->model)->weights_bytes);
    start_report(bench);
    enum pgd_exit code = open_own(bench);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    measure_memory(bench);
    pgd_interrupt_catch(bench->bridge);
    if (!bench->options.no_stock) {
        open_stock(bench);
    }
    find_peers(bench);
    return measure_and_report(bench);
}

enum pgd_exit pgd_bench_command(const struct pgd_options *options, const struct pgd_terminal *terminal)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    if (bench == NULL) {
        pgd_say_error("no memory for a benchmark");
        return PGD_EXIT_FAILURE;
    }
    bench->options = *options;
    bench->terminal = terminal;
    enum pgd_exit code = pgd_load_model(options, terminal, &bench->model);
    if (code == PGD_EXIT_OK) {
        code = run_bench(bench);
    }
    pgd_interrupt_release();
    for (uint32_t i = 0; i < bench->entry_count; i++) {
        pgd_contender_close(&bench->entries[i].contender);
    }
    pgd_bench_report_free(&bench->report);
    pgd_model_close(bench->model);
    free(bench->tokens);
    free(bench);
    return code;
}
