/* cli/eval_table.c - an evaluation as people read it, and its warnings; see eval.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/eval.h"
#include "cli/safe.h"
#include "cli/size.h"

#define DOCUMENTS_ENOUGH 3u

/* ---- warnings ---- */

static void write_few_documents(const struct pgd_eval *eval, char *text)
{
    snprintf(text, PGD_EVAL_WARNING_BYTES, "%" PRIu32 " document%s: figures from fewer than %u say little",
             eval->document_count, eval->document_count == 1 ? "" : "s", DOCUMENTS_ENOUGH);
}

static void write_never_acted(const struct pgd_eval *eval, char *text)
{
    (void) eval;
    snprintf(text, PGD_EVAL_WARNING_BYTES,
             "the tested setting never acted: nothing was dropped, quantized or spilled, so this is the exact cache "
             "compared with itself; choose a smaller --kv, or longer texts with --tokens or --lengths");
}

static void write_past_training(const struct pgd_eval *eval, char *text)
{
    snprintf(text, PGD_EVAL_WARNING_BYTES,
             "texts are longer than the %" PRIu32 " tokens that the model was trained for: past that, the exact cache "
             "is no measure of quality",
             eval->info->trained_tokens);
}

static bool has_few_documents(const struct pgd_eval *eval)
{
    return eval->document_count > 0 && eval->document_count < DOCUMENTS_ENOUGH;
}

static bool has_never_acted(const struct pgd_eval *eval)
{
    return !pgd_eval_has_acted(eval) &&
           (eval->summary.all.count > 0 || pgd_eval_sum_cells(eval).trials > 0 || eval->row_count > 0);
}

static bool is_past_training(const struct pgd_eval *eval)
{
    bool past = eval->document_count > 0 && eval->document_tokens > eval->info->trained_tokens;
    for (uint32_t i = 0; i < eval->cell_count; i++) {
        past = past || eval->cells[i].length > eval->info->trained_tokens;
    }
    for (uint32_t i = 0; i < eval->row_count; i++) {
        past = past || eval->rows[i].cell.length > eval->info->trained_tokens;
    }
    return past;
}

bool pgd_eval_warning(const struct pgd_eval *eval, uint32_t index, char *text)
{
    static const struct {
        bool (*holds)(const struct pgd_eval *eval);
        void (*write)(const struct pgd_eval *eval, char *text);
    } warnings[] = {
        {has_never_acted, write_never_acted},
        {has_few_documents, write_few_documents},
        {is_past_training, write_past_training},
    };
    for (size_t i = 0; i < sizeof(warnings) / sizeof(warnings[0]); i++) {
        if (warnings[i].holds(eval) && index-- == 0) {
            warnings[i].write(eval, text);
            return true;
        }
    }
    return false;
}

/* ---- the head ---- */

static void write_setting(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    const struct pgd_options *options = eval->options;
    const struct pgd_codec_choice codec = pgd_options_codec(options);
    pgd_buffer_print(text, "tested      KV budget %s, holds %s tokens, when full: %s",
                     pgd_size_words(eval->memory.budget_bytes).text, pgd_count_words(eval->memory.tokens_capacity).text,
                     pgd_on_full_words[pgd_options_on_full(options)]);
    if (pgd_options_on_full(options) == PAGODA_ON_FULL_EVICT) {
        pgd_buffer_print(text, " by policy %s", pgd_policy_words[options->policy]);
        if (options->window > 0) {
            pgd_buffer_print(text, ", window %s", pgd_count_words(options->window).text);
        }
    }
    pgd_buffer_print(text, "\ncodec       %s", pagoda_codec_name(codec.settled));
    if (codec.settled != codec.tight) {
        pgd_buffer_print(text, ", down to %s before anything leaves", pagoda_codec_name(codec.tight));
    }
    pgd_buffer_print(text, "\nexact       f16 pages, everything held, same run\n");
}

static void write_held(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    if (eval->held_count == 0) {
        return;
    }
    const struct pgd_eval_held *held = &eval->held[eval->held_count - 1];
    pgd_buffer_print(text,
                     "held        at the end of a document, of %s tokens: %s exact, %s quantized, %s spilled, "
                     "%s dropped\n",
                     pgd_count_words(held->account.total).text, pgd_count_words(held->account.ram).text,
                     pgd_count_words(held->account.quantized).text, pgd_count_words(held->account.spilled).text,
                     pgd_count_words(held->account.dropped).text);
    pgd_buffer_print(text, "KV bytes    %s, exact %s: %.2f times fewer\n", pgd_size_words(held->tested_bytes).text,
                     pgd_size_words(held->exact_bytes).text,
                     (double) held->exact_bytes / (double) (held->tested_bytes > 0 ? held->tested_bytes : 1));
}

static void write_head(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    pgd_buffer_print(text, "model       ");
    pgd_safe_disarm(text, eval->info->name, strlen(eval->info->name));
    pgd_buffer_print(text, "\n");
    write_setting(eval, text);
    if (eval->document_count > 0) {
        pgd_buffer_print(text, "documents   %" PRIu32 " of %s tokens, %s predictions", pgd_tally_documents(eval->tally),
                         pgd_count_words(eval->document_tokens).text, pgd_count_words(eval->summary.all.count).text);
        if (eval->options->decode > 0) {
            pgd_buffer_print(text, ": the last %s of each, decoded one by one",
                             pgd_count_words(eval->options->decode).text);
        }
        pgd_buffer_print(text, "\n");
    }
    write_held(eval, text);
    pgd_buffer_print(text, "seed        %" PRIu32 "\n", eval->seed);
    if (eval->partial) {
        pgd_buffer_print(text, "PARTIAL     interrupted: these are the figures of what had been measured\n");
    }
    if (has_never_acted(eval)) {
        pgd_buffer_print(text, "NOTHING     was dropped, quantized or spilled: the setting never acted\n");
    }
}

/* ---- documents ---- */

/* "1.0021 .. 1.0055", or "" when too little is known. */
static struct pgd_words interval_words(const struct pgd_interval *interval, int digits, double factor)
{
    struct pgd_words words = {""};
    if (isfinite(interval->low) && isfinite(interval->high)) {
        snprintf(words.text, sizeof(words.text), "%.*f .. %.*f", digits, factor * interval->low, digits,
                 factor * interval->high);
    }
    return words;
}

static void write_figure(struct pgd_buffer *text, const char *name, double value, int digits, const char *unit,
                         const struct pgd_interval *interval, double factor)
{
    pgd_buffer_print(text, "  %-24s %12.*f%s", name, digits, factor * value, unit);
    if (interval != NULL && isfinite(interval->low)) {
        pgd_buffer_print(text, "%*s%s", 4 - (int) strlen(unit), "", interval_words(interval, digits, factor).text);
    }
    pgd_buffer_print(text, "\n");
}

static void write_figures(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    const struct pgd_tally_summary *summary = &eval->summary;
    const struct pgd_tally_sums *all = &summary->all;
    pgd_buffer_print(text, "\n  %-24s %12s    95 %% interval\n", "", "");
    write_figure(text, "perplexity, exact", pgd_tally_perplexity(all, false), 4, "", &summary->reference, 1);
    write_figure(text, "perplexity, tested", pgd_tally_perplexity(all, true), 4, "", &summary->tested, 1);
    write_figure(text, "tested / exact", pgd_tally_ratio(all), 5, "", &summary->ratio, 1);
    write_figure(text, "KLD, mean", pgd_tally_mean_kld(all), 6, "", &summary->kld, 1);
    if (eval->noise_tally != NULL) {
        const struct pgd_tally_summary *noise = &eval->noise_summary;
        write_figure(text, "  noise floor", pgd_tally_mean_kld(&noise->all), 6, "", &noise->kld, 1);
        write_figure(text, "  in noise floors", pgd_eval_floors(eval), 2, "", NULL, 1);
    }
    if (summary->acting.count > 0 && summary->acting.count < all->count) {
        write_figure(text, "  while the setting acted", pgd_tally_mean_kld(&summary->acting), 6, "", NULL, 1);
    }
    write_figure(text, "  median", summary->kld_median, 6, "", NULL, 1);
    write_figure(text, "  99 %", summary->kld_99, 6, "", NULL, 1);
    write_figure(text, "  99.9 %", summary->kld_999, 6, "", NULL, 1);
    write_figure(text, "  largest", summary->kld_max, 6, "", NULL, 1);
    write_figure(text, "same top-1", pgd_tally_agreement(all), 2, " %", &summary->agreement, 100);
    write_figure(text, "delta p, RMS", pgd_tally_rms_delta_p(all), 3, " %", &summary->rms_delta_p, 100);
    write_figure(text, "delta p, mean", all->delta_p / (double) all->count, 3, " %", NULL, 100);
}

static void write_sums_head(struct pgd_buffer *text, const char *name)
{
    pgd_buffer_print(text, "\n  %-32s %9s %10s %10s %10s %9s\n", name, "tokens", "NLL exact", "tested", "KLD",
                     "same top");
}

static void write_sums(struct pgd_buffer *text, const char *name, const struct pgd_tally_sums *sums)
{
    pgd_buffer_print(text, "  %-32.32s %9s %10.4f %10.4f %10.6f %7.2f %%\n", name, pgd_count_words(sums->count).text,
                     sums->nll_reference / (double) sums->count, sums->nll_tested / (double) sums->count,
                     pgd_tally_mean_kld(sums), 100 * pgd_tally_agreement(sums));
}

static void write_buckets(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    write_sums_head(text, "position");
    for (uint32_t i = 0; i < PGD_TALLY_BUCKETS; i++) {
        const struct pgd_tally_sums *sums = pgd_tally_bucket(eval->tally, i);
        if (sums->count > 0) {
            char name[64];
            snprintf(name, sizeof(name), "%s to %s", pgd_count_words(pgd_tally_bucket_first(i)).text,
                     pgd_count_words(pgd_tally_bucket_first(i + 1) - 1).text);
            write_sums(text, name, sums);
        }
    }
}

/* How far into its text a document starts, in per cent. */
static double percent_of(const struct pgd_eval *eval, const struct pgd_eval_document *document)
{
    return 100.0 * (double) document->offset / (double) eval->texts.items[document->text].bytes.count;
}

static void write_documents(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    write_sums_head(text, "document");
    for (uint32_t i = 0; i < pgd_tally_documents(eval->tally); i++) {
        const struct pgd_eval_document *document = &eval->documents[i];
        const struct pgd_tally_sums *sums = pgd_tally_document(eval->tally, i);
        char name[64];
        snprintf(name, sizeof(name), "%.20s at %.0f %%", pgd_eval_text_name(&eval->texts.items[document->text]),
                 percent_of(eval, document));
        if (sums->count > 0) {
            write_sums(text, name, sums);
        }
    }
}

/* ---- pass keys ---- */

static void write_cell(const struct pgd_eval_cell *cell, struct pgd_buffer *text)
{
    const double trials = cell->trials;
    char key[32];
    snprintf(key, sizeof(key), "%.0f %%", 100.0 * (double) cell->key_held / (double) cell->key_tokens);
    pgd_buffer_print(text, "  %8s %5.0f %% %8s %9s %7s %6s", pgd_count_words(cell->length).text, 100 * cell->depth,
                     pgd_count_words((uint64_t) ((double) cell->dropped / trials)).text,
                     pgd_count_words((uint64_t) ((double) cell->quantized / trials)).text,
                     pgd_count_words((uint64_t) ((double) cell->spilled / trials)).text, key);
    pgd_buffer_print(text, "  %3" PRIu32 " %6" PRIu32 "   %3" PRIu32 " %6" PRIu32 "  %6.2f %6.2f  of %" PRIu32 "\n",
                     cell->exact.written, cell->tested.written, cell->exact.chosen, cell->tested.chosen,
                     cell->exact.nll / trials, cell->tested.nll / trials, cell->trials);
}

static void write_share(struct pgd_buffer *text, const char *name, uint32_t exact, uint32_t tested, uint32_t both,
                        uint32_t trials)
{
    const struct pgd_interval exact_interval = pgd_statistics_wilson(exact, trials);
    const struct pgd_interval tested_interval = pgd_statistics_wilson(tested, trials);
    pgd_buffer_print(text, "  %s: exact %" PRIu32 " of %" PRIu32 " (%s %%), tested %" PRIu32 " (%s %%)", name, exact,
                     trials, interval_words(&exact_interval, 0, 100).text, tested,
                     interval_words(&tested_interval, 0, 100).text);
    if (exact > 0) {
        const struct pgd_interval both_interval = pgd_statistics_wilson(both, exact);
        pgd_buffer_print(text, "; %" PRIu32 " of the exact cache's %" PRIu32 " (%s %%)", both, exact,
                         interval_words(&both_interval, 0, 100).text);
    }
    pgd_buffer_print(text, "\n");
}

static void write_passkeys(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    const struct pgd_eval_cell sum = pgd_eval_sum_cells(eval);
    if (sum.trials == 0) {
        return;
    }
    pgd_buffer_print(text,
                     "\n  pass keys: what was not exact when the question had been read, and answers that were right\n"
                     "  %8s %7s %8s %9s %7s %6s  %10s   %10s  %13s\n"
                     "  %8s %7s %8s %9s %7s %6s  %3s %6s   %3s %6s  %6s %6s\n",
                     "tokens", "depth", "dropped", "quantized", "spilled", "key", "written", "of ten", "NLL of key", "",
                     "", "", "", "", "held", "ex.", "tested", "ex.", "tested", "exact", "tested");
    for (uint32_t i = 0; i < eval->cell_count; i++) {
        if (eval->cells[i].trials > 0) {
            write_cell(&eval->cells[i], text);
        }
    }
    pgd_buffer_print(text, "\n");
    write_share(text, "written", sum.exact.written, sum.tested.written, sum.written_both, sum.trials);
    write_share(text, "of ten ", sum.exact.chosen, sum.tested.chosen, sum.chosen_both, sum.trials);
}

/* ---- tasks ---- */

/* "48 of 50, 86 .. 99 %": of those that the exact cache got right. */
static struct pgd_words conditional_words(uint32_t both, uint32_t exact)
{
    struct pgd_words words = {"-"};
    if (exact > 0) {
        const struct pgd_interval interval = pgd_statistics_wilson(both, exact);
        snprintf(words.text, sizeof(words.text), "%" PRIu32 " of %" PRIu32 ", %.0f..%.0f %%", both, exact,
                 100 * interval.low, 100 * interval.high);
    }
    return words;
}

static void write_row(const struct pgd_eval *eval, const struct pgd_eval_row *row, struct pgd_buffer *text)
{
    const struct pgd_eval_cell *cell = &row->cell;
    const double trials = cell->trials;
    const struct pgd_interval interval = pgd_eval_gap_interval(&row->gaps, eval->seed);
    char held[32] = "-";
    if (cell->key_tokens > 0) {
        snprintf(held, sizeof(held), "%.0f %%", 100.0 * (double) cell->key_held / (double) cell->key_tokens);
    }
    pgd_buffer_print(text, "  %-17s %6s %5" PRIu32 " %5s", row->group, pgd_count_words(cell->length).text, cell->trials,
                     held);
    pgd_buffer_print(text, " %4" PRIu32 " %4" PRIu32 "  %-19s", cell->exact.written, cell->tested.written,
                     conditional_words(cell->written_both, cell->exact.written).text);
    pgd_buffer_print(text, " %4" PRIu32 " %4" PRIu32 "  %-19s", cell->exact.chosen, cell->tested.chosen,
                     conditional_words(cell->chosen_both, cell->exact.chosen).text);
    pgd_buffer_print(text, " %5.2f %+6.2f", cell->exact.nll / trials, (cell->tested.nll - cell->exact.nll) / trials);
    if (isfinite(interval.low)) {
        pgd_buffer_print(text, "  %s", interval_words(&interval, 2, 1).text);
    }
    pgd_buffer_print(text, "\n");
}

static void write_rereads(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    uint64_t exact = 0;
    uint64_t tested = 0;
    for (uint32_t i = 0; i < eval->row_count; i++) {
        exact += eval->rows[i].cell.rereads_exact;
        tested += eval->rows[i].cell.rereads_tested;
    }
    if (exact + tested > 0) {
        pgd_buffer_print(text, "  prompts read again, where a cache could not go back: exact %s, tested %s\n",
                         pgd_count_words(exact).text, pgd_count_words(tested).text);
    }
}

static void write_tasks(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    if (eval->row_count == 0) {
        return;
    }
    pgd_buffer_print(
        text,
        "\n  recall: answers that were right by the exact cache, by the tested one, and of the exact one's\n"
        "  %-17s %6s %5s %5s %-30s %-30s %s\n"
        "  %-17s %6s %5s %5s %4s %4s  %-19s %4s %4s  %-19s %5s %6s  %s\n",
        "", "", "", "fact", " written", "  of ten", " NLL of answer", "task", "tokens", "asked", "held", "ex.", "test",
        "of exact's", "ex.", "test", "of exact's", "exact", "change", "95 %");
    for (uint32_t i = 0; i < eval->row_count; i++) {
        if (eval->rows[i].cell.trials > 0) {
            write_row(eval, &eval->rows[i], text);
        }
    }
    write_rereads(eval, text);
}

void pgd_eval_write_table(const struct pgd_eval *eval, struct pgd_buffer *text)
{
    write_head(eval, text);
    if (eval->summary.all.count > 0) {
        write_figures(eval, text);
        write_buckets(eval, text);
        write_documents(eval, text);
    }
    write_passkeys(eval, text);
    write_tasks(eval, text);
}
