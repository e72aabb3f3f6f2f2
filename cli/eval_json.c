/* cli/eval_json.c - an evaluation as one line of JSON, a contract with scripts: fields are added, never renamed.
 *
 * A figure that is not known is null: an interval from too few blocks, a mean of nothing.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "cli/eval.h"
#include "cli/report.h"

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t) value);
}

static json_t *mean(double sum, double number)
{
    return real(number > 0 ? sum / number : NAN);
}

static void set_interval(json_t *object, const struct pgd_interval *interval)
{
    json_object_set_new(object, "low", real(interval->low));
    json_object_set_new(object, "high", real(interval->high));
}

static json_t *setting_object(const struct pgd_eval *eval)
{
    const struct pgd_options *options = eval->options;
    const struct pgd_codec_choice codec = pgd_options_codec(options);
    json_t *object = json_object();
    json_object_set_new(object, "budget_bytes", count(eval->memory.budget_bytes));
    json_object_set_new(object, "tokens_capacity", count(eval->memory.tokens_capacity));
    json_object_set_new(object, "codec", json_string(pagoda_codec_name(codec.settled)));
    json_object_set_new(object, "codec_tight", json_string(pagoda_codec_name(codec.tight)));
    json_object_set_new(object, "on_full", json_string(pgd_on_full_words[pgd_options_on_full(options)]));
    json_object_set_new(object, "policy", json_string(pgd_policy_words[options->policy]));
    json_object_set_new(object, "window", count(options->window));
    json_object_set_new(object, "sinks", count(options->sinks));
    json_object_set_new(object, "page", count(options->page));
    json_object_set_new(object, "step", count(options->step));
    json_object_set_new(object, "decode", count(options->decode));
    json_object_set_new(object, "raw", json_boolean(options->raw));
    return object;
}

/* ---- documents ---- */

static json_t *perplexity_object(const struct pgd_tally_summary *summary)
{
    json_t *object = json_object();
    json_object_set_new(object, "exact", real(pgd_tally_perplexity(&summary->all, false)));
    json_object_set_new(object, "exact_low", real(summary->reference.low));
    json_object_set_new(object, "exact_high", real(summary->reference.high));
    json_object_set_new(object, "tested", real(pgd_tally_perplexity(&summary->all, true)));
    json_object_set_new(object, "tested_low", real(summary->tested.low));
    json_object_set_new(object, "tested_high", real(summary->tested.high));
    json_object_set_new(object, "ratio", real(pgd_tally_ratio(&summary->all)));
    json_object_set_new(object, "ratio_low", real(summary->ratio.low));
    json_object_set_new(object, "ratio_high", real(summary->ratio.high));
    return object;
}

static json_t *kld_object(const struct pgd_tally_summary *summary)
{
    json_t *object = json_object();
    json_object_set_new(object, "mean", real(pgd_tally_mean_kld(&summary->all)));
    set_interval(object, &summary->kld);
    json_object_set_new(object, "acting_mean", real(pgd_tally_mean_kld(&summary->acting)));
    json_object_set_new(object, "acting_predictions", count(summary->acting.count));
    json_object_set_new(object, "median", real(summary->kld_median));
    json_object_set_new(object, "p99", real(summary->kld_99));
    json_object_set_new(object, "p999", real(summary->kld_999));
    json_object_set_new(object, "max", real(summary->kld_max));
    return object;
}

/* What rounding to 15 bits does. */
static json_t *noise_object(const struct pgd_eval *eval)
{
    const struct pgd_tally_summary *noise = &eval->noise_summary;
    json_t *object = json_object();
    json_object_set_new(object, "kld", real(pgd_tally_mean_kld(&noise->all)));
    set_interval(object, &noise->kld);
    json_object_set_new(object, "perplexity_ratio", real(pgd_tally_ratio(&noise->all)));
    json_object_set_new(object, "top1", real(pgd_tally_agreement(&noise->all)));
    json_object_set_new(object, "floors", real(pgd_eval_floors(eval)));
    return object;
}

static json_t *top1_object(const struct pgd_tally_summary *summary)
{
    json_t *object = json_object();
    json_object_set_new(object, "agreement", real(pgd_tally_agreement(&summary->all)));
    set_interval(object, &summary->agreement);
    return object;
}

static json_t *delta_p_object(const struct pgd_tally_summary *summary)
{
    json_t *object = json_object();
    json_object_set_new(object, "rms", real(pgd_tally_rms_delta_p(&summary->all)));
    set_interval(object, &summary->rms_delta_p);
    json_object_set_new(object, "mean", mean(summary->all.delta_p, (double) summary->all.count));
    return object;
}

static void set_sums(json_t *object, const struct pgd_tally_sums *sums)
{
    json_object_set_new(object, "predictions", count(sums->count));
    json_object_set_new(object, "nll_exact", mean(sums->nll_reference, (double) sums->count));
    json_object_set_new(object, "nll_tested", mean(sums->nll_tested, (double) sums->count));
    json_object_set_new(object, "kld", real(pgd_tally_mean_kld(sums)));
    json_object_set_new(object, "top1", real(pgd_tally_agreement(sums)));
}

static json_t *positions_array(const struct pgd_eval *eval)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < PGD_TALLY_BUCKETS; i++) {
        const struct pgd_tally_sums *sums = pgd_tally_bucket(eval->tally, i);
        if (sums->count > 0) {
            json_t *object = json_object();
            json_object_set_new(object, "first", count(pgd_tally_bucket_first(i)));
            json_object_set_new(object, "last", count(pgd_tally_bucket_first(i + 1) - 1));
            set_sums(object, sums);
            json_array_append_new(array, object);
        }
    }
    return array;
}

static json_t *account_object(const struct pagoda_account *account)
{
    json_t *object = json_object();
    json_object_set_new(object, "total", count(account->total));
    json_object_set_new(object, "ram", count(account->ram));
    json_object_set_new(object, "quantized", count(account->quantized));
    json_object_set_new(object, "by_codec", pgd_report_codecs(account));
    json_object_set_new(object, "spilled", count(account->spilled));
    json_object_set_new(object, "collapsed", count(account->collapsed));
    json_object_set_new(object, "unread", count(account->unread));
    json_object_set_new(object, "dropped", count(account->dropped));
    return object;
}

static json_t *documents_array(const struct pgd_eval *eval)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < pgd_tally_documents(eval->tally); i++) {
        const struct pgd_eval_document *document = &eval->documents[i];
        json_t *object = json_object();
        json_object_set_new(object, "text", pgd_report_string(eval->texts.items[document->text].path));
        json_object_set_new(object, "offset_bytes", count(document->offset));
        set_sums(object, pgd_tally_document(eval->tally, i));
        if (i < eval->held_count) {
            json_object_set_new(object, "tokens", account_object(&eval->held[i].account));
            json_object_set_new(object, "exact_bytes", count(eval->held[i].exact_bytes));
            json_object_set_new(object, "tested_bytes", count(eval->held[i].tested_bytes));
        }
        json_array_append_new(array, object);
    }
    return array;
}

static void set_documents(json_t *object, const struct pgd_eval *eval)
{
    json_object_set_new(object, "document_tokens", count(eval->document_tokens));
    json_object_set_new(object, "predictions", count(eval->summary.all.count));
    json_object_set_new(object, "perplexity", perplexity_object(&eval->summary));
    json_object_set_new(object, "kld", kld_object(&eval->summary));
    json_object_set_new(object, "top1", top1_object(&eval->summary));
    json_object_set_new(object, "delta_p", delta_p_object(&eval->summary));
    if (eval->noise_tally != NULL) {
        json_object_set_new(object, "noise", noise_object(eval));
    }
    json_object_set_new(object, "positions", positions_array(eval));
    json_object_set_new(object, "documents", documents_array(eval));
}

/* ---- pass keys ---- */

static json_t *answers_object(const struct pgd_eval_answers *answers, uint32_t trials)
{
    const struct pgd_interval written = pgd_statistics_wilson(answers->written, trials);
    const struct pgd_interval chosen = pgd_statistics_wilson(answers->chosen, trials);
    json_t *object = json_object();
    json_object_set_new(object, "written", count(answers->written));
    json_object_set_new(object, "written_low", real(written.low));
    json_object_set_new(object, "written_high", real(written.high));
    json_object_set_new(object, "chosen", count(answers->chosen));
    json_object_set_new(object, "chosen_low", real(chosen.low));
    json_object_set_new(object, "chosen_high", real(chosen.high));
    json_object_set_new(object, "nll", mean(answers->nll, trials));
    return object;
}

/* Of those that the exact cache got right, the share that the tested one did too. */
static void set_conditional(json_t *object, const char *name, uint32_t both, uint32_t exact)
{
    char bound[32];
    const struct pgd_interval interval = pgd_statistics_wilson(both, exact);
    json_object_set_new(object, name, mean(both, exact));
    snprintf(bound, sizeof(bound), "%s_low", name);
    json_object_set_new(object, bound, real(interval.low));
    snprintf(bound, sizeof(bound), "%s_high", name);
    json_object_set_new(object, bound, real(interval.high));
}

/* How much more surprised the tested cache is by the right answers. */
static json_t *gap_object(const struct pgd_eval *eval, const struct pgd_eval_cell *cell,
                          const struct pgd_eval_gaps *gaps)
{
    const struct pgd_interval interval = pgd_eval_gap_interval(gaps, eval->seed);
    json_t *object = json_object();
    json_object_set_new(object, "mean", mean(cell->tested.nll - cell->exact.nll, cell->trials));
    set_interval(object, &interval);
    return object;
}

/* `held` names the share of the tokens with the answer that were still held. */
static json_t *cell_object(const struct pgd_eval_cell *cell, const char *held)
{
    json_t *object = json_object();
    json_object_set_new(object, "trials", count(cell->trials));
    json_object_set_new(object, "prompt_tokens", mean((double) cell->prompt_tokens, cell->trials));
    json_object_set_new(object, "dropped", mean((double) cell->dropped, cell->trials));
    json_object_set_new(object, "quantized", mean((double) cell->quantized, cell->trials));
    json_object_set_new(object, "spilled", mean((double) cell->spilled, cell->trials));
    json_object_set_new(object, "unread", mean((double) cell->unread, cell->trials));
    json_object_set_new(object, held, mean((double) cell->key_held, (double) cell->key_tokens));
    json_object_set_new(object, "exact", answers_object(&cell->exact, cell->trials));
    json_object_set_new(object, "tested", answers_object(&cell->tested, cell->trials));
    set_conditional(object, "written_of_exact", cell->written_both, cell->exact.written);
    set_conditional(object, "chosen_of_exact", cell->chosen_both, cell->exact.chosen);
    return object;
}

static json_t *passkey_object(const struct pgd_eval *eval)
{
    const struct pgd_eval_cell sum = pgd_eval_sum_cells(eval);
    json_t *object = cell_object(&sum, "key_held");
    json_object_set_new(object, "nll_gap", gap_object(eval, &sum, &eval->passkey_gaps));
    json_t *cells = json_array();
    for (uint32_t i = 0; i < eval->cell_count; i++) {
        if (eval->cells[i].trials > 0) {
            json_t *cell = cell_object(&eval->cells[i], "key_held");
            json_object_set_new(cell, "length", count(eval->cells[i].length));
            json_object_set_new(cell, "depth", real(eval->cells[i].depth));
            json_array_append_new(cells, cell);
        }
    }
    json_object_set_new(object, "cells", cells);
    return object;
}

/* ---- tasks ---- */

static json_t *rereads_object(const struct pgd_eval_cell *cell)
{
    json_t *object = json_object();
    json_object_set_new(object, "exact", count(cell->rereads_exact));
    json_object_set_new(object, "tested", count(cell->rereads_tested));
    return object;
}

static json_t *recall_array(const struct pgd_eval *eval)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < eval->row_count; i++) {
        const struct pgd_eval_row *row = &eval->rows[i];
        if (row->cell.trials == 0) {
            continue;
        }
        json_t *object = cell_object(&row->cell, "fact_held");
        json_object_set_new(object, "task", json_string(row->task->name));
        json_object_set_new(object, "group", json_string(row->group));
        json_object_set_new(object, "length", count(row->cell.length));
        json_object_set_new(object, "nll_gap", gap_object(eval, &row->cell, &row->gaps));
        json_object_set_new(object, "rereads", rereads_object(&row->cell));
        json_array_append_new(array, object);
    }
    return array;
}

/* ---- the object ---- */

static json_t *warnings_array(const struct pgd_eval *eval)
{
    char text[PGD_EVAL_WARNING_BYTES];
    json_t *array = json_array();
    for (uint32_t i = 0; pgd_eval_warning(eval, i, text); i++) {
        json_array_append_new(array, json_string(text));
    }
    return array;
}

void pgd_eval_write_json(const struct pgd_eval *eval, struct pgd_buffer *line)
{
    json_t *object = json_object();
    json_object_set_new(object, "model", pgd_report_string(eval->info->name));
    json_object_set_new(object, "setting", setting_object(eval));
    json_object_set_new(object, "seed", count(eval->seed));
    json_object_set_new(object, "partial", json_boolean(eval->partial));
    json_object_set_new(object, "acted", json_boolean(pgd_eval_has_acted(eval)));
    json_object_set_new(object, "warnings", warnings_array(eval));
    if (eval->document_count > 0) {
        set_documents(object, eval);
    }
    if (eval->cell_count > 0) {
        json_object_set_new(object, "passkey", passkey_object(eval));
    }
    if (eval->options->measured >= PGD_MEASURE_TASK) {
        json_object_set_new(object, "recall", recall_array(eval));
    }
    pgd_report_write_json(object, line);
}
