/* cli/bench.c - pagoda bench: how fast a model is at which depth, beside other engines.
 *
 * All engines of the linked library live in this process and take turns, run by run, at every depth: a slow moment of
 * the machine then meets all of them. Filling up to a depth is done once and not timed; each run goes back to it.
 * A llama-bench of others is a process of its own and does all its runs of a depth in one go, when the rest has had
 * its turns.
 *
 * With --on-full spill there are up to three caches of pagoda's: as asked for, the same reading everything that is on
 * flash, and the same codec with everything in memory. They go on from run to run, since a text that is decoded again
 * would find in memory what it had to fetch the first time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "cli/bench_report.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/machine.h"
#include "cli/peer.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "engine/contender.h"
#include "engine/weights.h"
#include "os/os.h"

#define ENTRIES_MAX 6u
#define ROWS_MAX (PGD_BENCH_TESTS * (ENTRIES_MAX + PGD_PEERS_MAX))

/* An engine of this process. */
struct entry {
    char name[96];
    struct pgd_contender contender;
    struct pgd_stock_options stock;      /* not of pagoda's */
    struct pgd_bench_row kind;           /* what its rows begin with: own, in_memory, spills */
    struct pgd_contender_token *decoded; /* [gen * repetitions] of the depth that is being measured */
    bool failed;
};

struct bench {
    struct pgd_options options; /* the user's, with what follows from the depths */
    const struct pgd_terminal *terminal;
    struct pgd_model *model;
    struct pgd_bridge *bridge; /* of the first entry */
    struct pgd_counts depths;
    uint64_t depth; /* that is being measured */
    bool spills;
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
    const uint64_t prefill = bench->options.prefill;
    const uint64_t gen = bench->options.gen;
    const uint64_t decoded = gen * bench->options.repetitions;
    for (uint32_t i = 0; bench->spills && i + 1 < bench->depths.count; i++) {
        if (bench->depths.items[i] + decoded > bench->depths.items[i + 1]) {
            return pgd_fail(error, PAGODA_RANGE,
                            "--n-depth: with spill the runs go on from a depth, %s tokens in all: "
                            "the next depth must lie behind them",
                            pgd_count_words(decoded).text);
        }
    }
    bench->tokens_needed = deepest + (bench->spills ? decoded + prefill : pgd_max_u64(prefill, gen));
    bench->options.ctx_size = bench->tokens_needed;
    bench->options.rollback_tokens = bench->spills ? prefill : pgd_max_u64(prefill, gen);
    return PAGODA_OK;
}

/* The tokens of a text of the user's. */
static enum pagoda_status read_tokens(struct bench *bench, struct pagoda_error *error)
{
    struct pgd_buffer bytes = {0};
    struct pgd_buffer text = {0};
    size_t count = 0;
    enum pagoda_status status = pgd_input_read_file(bench->options.file, &bytes, error);
    if (status == PAGODA_OK) {
        status = pgd_input_check("--file", pgd_buffer_text(&bytes), bytes.count, &text, error);
    }
    if (status == PAGODA_OK) {
        status = pgd_model_tokenize(bench->model, pgd_buffer_text(&text), text.count, true, false, &bench->tokens,
                                    &count, error);
    }
    pgd_buffer_free(&bytes);
    pgd_buffer_free(&text);
    if (status == PAGODA_OK && count < bench->tokens_needed) {
        status = pgd_fail(error, PAGODA_RANGE, "--file: the text has %s tokens, and the deepest run needs %s",
                          pgd_count_words(count).text, pgd_count_words(bench->tokens_needed).text);
    }
    return status;
}

/* Any tokens will do for speed, as long as all engines get the same and nothing is selected by what they say. */
static enum pagoda_status make_tokens(struct bench *bench, struct pagoda_error *error)
{
    if (bench->options.file != NULL) {
        return read_tokens(bench, error);
    }
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

/* The smallest codec that pages get, as a word of --kv-codec. */
static int word_of_codec(enum pagoda_codec codec)
{
    int word = 1; /* not auto */
    while (pgd_codec_of_word(word, false).settled != codec) {
        word++;
    }
    return word;
}

static bool is_roomy(const struct bench *bench, const struct entry *entry)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(entry->contender.bridge), &memory);
    if (memory.tokens_capacity < bench->tokens_needed) {
        pgd_say_error(
            "the deepest run needs %s tokens, and a KV budget of %s holds %s: raise --kv, or leave depths out",
            pgd_count_words(bench->tokens_needed).text, pgd_size_words(memory.budget_bytes).text,
            pgd_count_words(memory.tokens_capacity).text);
        return false;
    }
    return true;
}

/* A cache of pagoda's; `how` ends its name. */
static enum pgd_exit open_cache(struct bench *bench, const struct pgd_options *options, const char *how)
{
    struct pgd_bridge *bridge = NULL;
    enum pgd_exit code = pgd_load_bridge(options, bench->model, &bridge);
    if (code != PGD_EXIT_OK) {
        return code;
    }
    struct entry *entry = &bench->entries[bench->entry_count++];
    const struct pgd_codec_choice codec = pgd_options_codec(options);
    entry->contender = pgd_contender_of_bridge(bridge);
    entry->contender.goes_on = bench->spills;
    entry->kind.own = true;
    entry->kind.spills = pgd_options_on_full(options) == PAGODA_ON_FULL_SPILL;
    entry->kind.in_memory = bench->spills && !entry->kind.spills;
    const bool is_plain = codec.settled == codec.tight || entry->kind.spills;
    snprintf(entry->name, sizeof(entry->name), "pagoda %s%s",
             is_plain ? pagoda_codec_name(codec.tight) : pgd_codec_words[0], how);
    return is_roomy(bench, entry) ? PGD_EXIT_OK : PGD_EXIT_OVER_BUDGET;
}

static enum pgd_exit open_own(struct bench *bench)
{
    struct pgd_options options = bench->options;
    const bool reads_all = pgd_options_flash(&options).read_all;
    enum pgd_exit code = open_cache(bench, &options, !bench->spills ? "" : reads_all ? " spill, all read" : " spill");
    if (code != PGD_EXIT_OK || !bench->spills) {
        return code;
    }
    if (!reads_all) {
        options.select = 1;
        code = open_cache(bench, &options, " spill, all read");
    }
    if (options.key_bits == 0 && options.value_bits == 0) {
        options.codec = word_of_codec(pgd_options_codec(&bench->options).tight);
    }
    options.on_full = PAGODA_ON_FULL_STOP;
    options.kv = (struct pgd_budget) {.kind = PGD_BUDGET_AUTO};
    return code == PGD_EXIT_OK ? open_cache(bench, &options, " in memory") : code;
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
    if (status == PAGODA_OK || status == PAGODA_CANCELLED || entry->kind.own) {
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
        row->kv_bytes = pgd_contender_page_bytes(entry->contender.bridge, middle);
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
    *row = entry->kind;
    row->test = test;
    row->depth = bench->depth;
    row->tokens = tokens_of(bench, test);
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
    struct pgd_bench_row *row = row_of(bench, entry, test);
    struct pgd_contender_token *each = test == PGD_BENCH_DECODE ? entry->decoded + row->runs * count : NULL;
    pgd_interrupt_aim(entry->contender.bridge);
    enum pagoda_status status = pgd_contender_run(&entry->contender, bench->tokens, count, each, &seconds, error);
    if (status == PAGODA_OK) {
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
        pgd_interrupt_aim(entry->contender.bridge);
        if (!entry->failed) {
            status = forgive(bench, entry, pgd_contender_fill(&entry->contender, bench->tokens, depth, error), error);
        }
    }
    return status == PAGODA_OK && pgd_interrupt_raised() ? pgd_fail(error, PAGODA_CANCELLED, "cancelled") : status;
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

/* What single tokens took, for the row of an engine that decoded some. */
static void count_tokens(struct bench *bench, struct entry *entry)
{
    struct pgd_bench_row *row = row_of(bench, entry, PGD_BENCH_DECODE);
    pgd_bench_row_count_tokens(row, entry->decoded, row->runs * row->tokens);
    if (entry->kind.spills) {
        struct pagoda_account account;
        pagoda_cache_account(pgd_bridge_cache(entry->contender.bridge), &account);
        row->unread_mass = account.unread_mass;
        if (account.dropped > 0) {
            pgd_bench_report_note(
                &bench->report, "%s has dropped %s tokens at depth %llu: --kv is too small, or flash is full",
                entry->name, pgd_count_words(account.dropped).text, (unsigned long long) bench->depth);
        }
    }
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
    bench->depth = depth;
    enum pagoda_status status = fill_all(bench, depth, error);
    for (uint64_t run = 0; run < bench->options.repetitions && status == PAGODA_OK; run++) {
        status = run_turns(bench, depth, error);
    }
    if (status == PAGODA_OK) {
        status = ask_peers(bench, depth, error);
    }
    for (uint32_t i = 0; i < bench->entry_count && status == PAGODA_OK && bench->options.gen > 0; i++) {
        if (!bench->entries[i].failed) {
            count_tokens(bench, &bench->entries[i]);
        }
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
    for (uint32_t i = 0; i < bench->entry_count && status == PAGODA_OK; i++) {
        if (bench->entries[i].contender.goes_on) {
            status = pgd_contender_begin_anew(&bench->entries[i].contender, error);
        }
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

static enum pagoda_status make_places(struct bench *bench, struct pagoda_error *error)
{
    for (uint32_t i = 0; i < bench->entry_count; i++) {
        bench->entries[i].decoded =
            calloc(bench->options.gen * bench->options.repetitions + 1, sizeof(*bench->entries[i].decoded));
        if (bench->entries[i].decoded == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for the times of single tokens");
        }
    }
    return PAGODA_OK;
}

static enum pgd_exit measure_and_report(struct bench *bench)
{
    struct pagoda_error error;
    enum pagoda_status status = make_tokens(bench, &error);
    if (status == PAGODA_OK) {
        status = make_places(bench, &error);
    }
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
    bench->spills = pgd_options_on_full(&bench->options) == PAGODA_ON_FULL_SPILL;
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
    bench->bridge = bench->entries[0].contender.bridge;
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
        free(bench->entries[i].decoded);
    }
    pgd_bench_report_free(&bench->report);
    pgd_model_close(bench->model);
    free(bench->tokens);
    free(bench);
    return code;
}
