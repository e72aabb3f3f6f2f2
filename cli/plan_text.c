/* cli/plan_text.c - a plan as a page for people, and as one line. */
#include <inttypes.h>
#include <string.h>

#include "base/number.h"
#include "cli/plan.h"
#include "cli/safe.h"
#include "cli/size.h"

#define KINDS_MAX 6u /* kinds of layers that are told apart */

static void add_safe(struct pgd_buffer *text, const char *label, const char *value)
{
    pgd_buffer_print(text, "%-16s ", label);
    pgd_safe_disarm(text, value, strlen(value));
    pgd_buffer_add(text, "\n", 1);
}

/* ---- what was believed ---- */

static bool same_kind(const struct pgd_shape_layer *a, const struct pgd_shape_layer *b)
{
    return a->kv_heads == b->kv_heads && a->query_heads == b->query_heads && a->key_size == b->key_size &&
           a->value_size == b->value_size && a->window == b->window && a->state_bytes == b->state_bytes;
}

static void add_heads(struct pgd_buffer *text, const struct pgd_shape_layer *layer)
{
    const char *plural = layer->kv_heads == 1 ? "" : "s";
    if (layer->value_size == 0) {
        pgd_buffer_print(text, "one latent vector of %" PRIu32 " for keys and values", layer->key_size);
    } else if (layer->key_size == layer->value_size) {
        pgd_buffer_print(text, "%" PRIu32 " KV head%s of %" PRIu32, layer->kv_heads, plural, layer->key_size);
    } else {
        pgd_buffer_print(text, "%" PRIu32 " KV head%s, keys of %" PRIu32 " and values of %" PRIu32, layer->kv_heads,
                         plural, layer->key_size, layer->value_size);
    }
    pgd_buffer_print(text, " (%" PRIu32 " query heads)", layer->query_heads);
    if (layer->window != 0) {
        pgd_buffer_print(text, ", a window of %s tokens", pgd_count_words(layer->window).text);
    }
}

static void add_kind(struct pgd_buffer *text, uint32_t count, const struct pgd_shape_layer *layer)
{
    pgd_buffer_print(text, "%16s %3" PRIu32 " x ", "", count);
    if (layer->kv_heads != 0) {
        add_heads(text, layer);
    }
    if (layer->state_bytes != 0) {
        pgd_buffer_print(text, "%sa state of %s that does not grow", layer->kv_heads != 0 ? ", and " : "",
                         pgd_size_words(layer->state_bytes).text);
    }
    if (layer->kv_heads == 0 && layer->state_bytes == 0) {
        pgd_buffer_print(text, "nothing of its own");
    }
    pgd_buffer_add(text, "\n", 1);
}

static void add_layers(struct pgd_buffer *text, const struct pgd_shape *shape)
{
    const struct pgd_shape_layer *kinds[KINDS_MAX];
    uint32_t counts[KINDS_MAX] = {0};
    uint32_t known = 0;
    uint32_t others = 0;
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        uint32_t kind = 0;
        while (kind < known && !same_kind(kinds[kind], &shape->layers[i])) {
            kind++;
        }
        if (kind == KINDS_MAX) {
            others++;
            continue;
        }
        if (kind == known) {
            kinds[known++] = &shape->layers[i];
        }
        counts[kind]++;
    }
    pgd_buffer_print(text, "%-16s %" PRIu32 "\n", "layers", shape->layer_count);
    for (uint32_t kind = 0; kind < known; kind++) {
        add_kind(text, counts[kind], kinds[kind]);
    }
    if (others != 0) {
        pgd_buffer_print(text, "%16s %3" PRIu32 " x others\n", "", others);
    }
}

static void add_beliefs(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    const struct pgd_shape *shape = planned->shape;
    const struct pgd_plan_rows *rows = &planned->rows;
    add_safe(text, shape->file_bytes != 0 ? "file" : "shape", planned->path);
    if (shape->file_bytes != 0) {
        add_safe(text, "name", shape->name);
        add_safe(text, "architecture", shape->architecture);
    }
    add_layers(text, shape);
    if (shape->trained_tokens != 0) {
        pgd_buffer_print(text, "%-16s %s tokens\n", "trained context", pgd_count_words(shape->trained_tokens).text);
    }
    pgd_buffer_print(text, "%-16s %s per token in f16", "KV that grows", pgd_size_words(rows->growing_bytes).text);
    if (rows->windowed != 0) {
        pgd_buffer_print(text, " (%s while the windows fill)", pgd_size_words(rows->token_bytes).text);
    }
    pgd_buffer_print(text, "\n%-16s ", "KV that is fixed");
    if (rows->window_bytes + rows->state_bytes == 0) {
        pgd_buffer_print(text, "nothing\n");
    } else {
        pgd_buffer_print(text, "%s in windows once they are full, %s in states\n",
                         pgd_size_words(rows->window_bytes).text, pgd_size_words(rows->state_bytes).text);
    }
    if (shape->refusal != NULL) {
        pgd_buffer_print(text, "%-16s pagoda cannot run this kind yet: %s;\n%16s these are the figures of its memory\n",
                         "note", shape->refusal, "");
    }
}

/* ---- tables ---- */

static const char *bytes_cell(uint64_t bytes, struct pgd_words *words)
{
    *words = pgd_size_words(bytes);
    return bytes == 0 || bytes == UINT64_MAX ? "-" : words->text;
}

static void add_contexts(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    const bool budgets = pgd_plan_has_budgets(planned->plan);
    struct pgd_words words;
    pgd_buffer_print(text, "\n%s\n%10s %10s",
                     budgets ? "KV budget that holds a context, by codec: pages, tables and scratch counted. The rows "
                               "alone, in f16, come first."
                             : "Memory of a context, in f16",
                     "tokens", "rows");
    for (size_t i = 0; i < PGD_PLAN_CODECS && budgets; i++) {
        pgd_buffer_print(text, " %9s", pagoda_codec_name(pgd_plan_codecs[i]));
    }
    for (size_t row = 0; row < planned->context_count; row++) {
        const struct pgd_plan_context *context = &planned->contexts[row];
        pgd_buffer_print(text, "\n%10s %10s", pgd_count_words(context->tokens).text,
                         bytes_cell(context->row_bytes, &words));
        for (size_t i = 0; i < PGD_PLAN_CODECS && budgets; i++) {
            pgd_buffer_print(text, " %9s", bytes_cell(context->bytes[i], &words));
        }
    }
    pgd_buffer_add(text, "\n", 1);
}

static void add_lines(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    if (planned->line_count == 0) {
        return;
    }
    pgd_buffer_print(
        text,
        "\nTokens that a KV budget holds in memory, by codec. auto: f16 while there is room, then smaller.\n%10s %10s",
        "budget", "auto");
    for (size_t i = 0; i < PGD_PLAN_CODECS; i++) {
        pgd_buffer_print(text, " %9s", pagoda_codec_name(pgd_plan_codecs[i]));
    }
    for (size_t row = 0; row < planned->line_count; row++) {
        const struct pgd_plan_line *line = &planned->lines[row];
        pgd_buffer_print(text, "\n%10s", pgd_size_words(line->budget_bytes).text);
        for (size_t i = 0; i < 1 + PGD_PLAN_CODECS; i++) {
            const struct pgd_words count = pgd_count_words(line->tokens[i]);
            pgd_buffer_print(text, i == 0 ? " %10s" : " %9s", line->tokens[i] == 0 ? "-" : count.text);
        }
    }
    pgd_buffer_add(text, "\n", 1);
}

/* ---- what it means ---- */

static void add_process(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    const struct pgd_shape *shape = planned->shape;
    const uint64_t kv = planned->has_reservation ? planned->budget_bytes : planned->wanted_bytes;
    pgd_buffer_add(text, "\n", 1);
    if (planned->has_reservation) {
        const struct pagoda_reservation *reservation = &planned->reservation;
        pgd_buffer_print(text, "%-16s %s: tables %s, scratch %s, pages %s; holds %s tokens\n", "KV budget",
                         pgd_size_words(planned->budget_bytes).text, pgd_size_words(reservation->tables_bytes).text,
                         pgd_size_words(reservation->staging_bytes).text, pgd_size_words(reservation->arena_bytes).text,
                         pgd_count_words(reservation->tokens_capacity).text);
    }
    if (shape->weights_bytes == 0) {
        return;
    }
    pgd_buffer_print(text, "%-16s %s = weights %s (%s)", "process",
                     pgd_size_words(pgd_add_capped_u64(pgd_planned_fixed_bytes(planned), kv)).text,
                     pgd_size_words(shape->weights_bytes).text, planned->options->no_mmap ? "copied" : "mapped");
    if (pgd_planned_copied_bytes(planned) != 0) {
        pgd_buffer_print(text, " + copies for this processor %s",
                         pgd_size_words(pgd_planned_copied_bytes(planned)).text);
    }
    if (planned->compute_bytes != 0) {
        pgd_buffer_print(text, " + compute %s", pgd_size_words(planned->compute_bytes).text);
    }
    pgd_buffer_print(text, "\n%16s + program and tokenizer %s", "", pgd_size_words(shape->program_bytes).text);
    pgd_buffer_print(text, " + KV %s%s\n", pgd_size_words(kv).text, planned->rows.state_bytes != 0 ? " + states" : "");
    if (planned->available_bytes != 0) {
        pgd_buffer_print(text, "%-16s %s\n", "available now", pgd_size_words(planned->available_bytes).text);
    }
}

/* How a budget below the one of exact pages holds all of a context. */
static const char *way_of(const struct pgd_planned *planned)
{
    return planned->reservation.tokens_in_memory >= planned->wanted_tokens
               ? ",\n                 or this one, when older pages are made smaller"
               : ",\n                 or this one, when older pages are made smaller and the oldest go to flash";
}

/* What happens once memory is full. */
static void add_future(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    const struct pagoda_reservation *reservation = &planned->reservation;
    if (planned->on_full != PAGODA_ON_FULL_SPILL) {
        pgd_buffer_print(text,
                         "%-16s pages get smaller first, if the codec is auto; then run ends its reply (--on-full "
                         "stop),\n%16s chat lets the oldest text go and says so (--on-full evict): the first tokens, "
                         "what is\n%16s pinned and the latest stay, about %s tokens at a time\n",
                         "past that", "", "", pgd_count_words(reservation->tokens_capacity).text);
        if (planned->fallback[0] != '\0') {
            pgd_buffer_print(text, "%-16s not used: %s\n", "flash", planned->fallback);
        }
        return;
    }
    const uint64_t away = reservation->tokens_capacity - reservation->tokens_in_memory;
    const uint64_t each = reservation->flash_bytes_per_token;
    pgd_buffer_print(text, "%-16s the first %s tokens are all in memory, older ones made smaller if the codec is auto",
                     "past that", pgd_count_words(reservation->tokens_in_memory).text);
    if (away == 0) {
        pgd_buffer_print(text, ",\n%16s so nothing goes to flash (--on-full spill)\n", "");
    } else {
        pgd_buffer_print(text,
                         ".\n%16s As more come, the oldest go to flash and are read again when a reply needs them "
                         "(--on-full\n%16s spill): %s for 1,000 tokens",
                         "", "", pgd_size_words(each * 1000).text);
        pgd_buffer_print(text, ", %s for the other %s\n", pgd_size_words(each * away).text, pgd_count_words(away).text);
        if (planned->easy_bytes != 0) {
            pgd_buffer_print(text,
                             "%16s That is tight: %u tokens share a summary there, and less is found; from --kv "
                             "%" PRIu64 "K on,\n%16s or with a smaller -c, each %u have their own\n",
                             "", reservation->digest_tokens, pgd_div_up_u64(planned->easy_bytes, 1024), "",
                             PAGODA_DIGEST_TOKENS);
        }
    }
    pgd_buffer_print(text, "%16s Beyond %s tokens the oldest are let go, and that is told\n", "",
                     pgd_count_words(reservation->tokens_capacity).text);
}

static void add_advice(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    const bool runs = planned->shape->refusal == NULL && planned->shape->file_bytes != 0;
    const char *wanted_is = planned->options->ctx_size != 0       ? "the context that was asked for"
                            : planned->shape->trained_tokens != 0 ? "the trained context"
                                                                  : "a context of this length";
    const struct pgd_words wanted = pgd_count_words(planned->wanted_tokens);
    if (planned->problem[0] != '\0') {
        pgd_buffer_print(text, "%-16s no: %s\n", "fits", planned->problem);
    } else {
        const bool smaller = planned->fits && planned->has_reservation && planned->wanted_bytes > planned->budget_bytes;
        pgd_buffer_print(text, "%-16s %s: %s, %s tokens, takes a KV budget of %s%s\n", "fits",
                         planned->fits ? "yes" : "no", wanted_is, wanted.text,
                         pgd_size_words(planned->wanted_bytes).text, smaller ? way_of(planned) : "");
    }
    const bool all = planned->most_tokens >= planned->wanted_tokens; /* in memory */
    const bool helps = all || planned->on_full != PAGODA_ON_FULL_SPILL;
    if (planned->has_reservation && planned->reservation.tokens_capacity < planned->wanted_tokens && helps) {
        pgd_buffer_print(text, "%-16s --kv-codec %s holds %s%s tokens in this budget%s\n", "or",
                         pagoda_codec_name(planned->most_codec), all ? "all " : "at most ",
                         pgd_count_words(planned->most_tokens).text, all ? "" : "; the rest is let go as it gets old");
    }
    if (planned->has_reservation) {
        add_future(text, planned);
    }
    if (runs && planned->has_reservation) {
        pgd_buffer_print(text, "%-16s pagoda chat ", "try");
        pgd_safe_disarm(text, planned->path, strlen(planned->path));
        pgd_buffer_print(text, " --kv %" PRIu64 "K",
                         planned->mem_bytes != 0 ? planned->budget_bytes / 1024
                                                 : pgd_div_up_u64(planned->budget_bytes, 1024));
        if (planned->options->ctx_size != 0) {
            pgd_buffer_print(text, " -c %" PRIu64, planned->options->ctx_size);
        }
        pgd_buffer_add(text, "\n", 1);
    }
}

static void add_error(struct pgd_buffer *text, const struct pgd_planned *planned)
{
    pgd_buffer_print(text, "%-16s KV: %s", "error bar",
                     pgd_plan_has_budgets(planned->plan) ? "none, the engine reserves by the same code"
                                                         : "the rows and states alone, as others keep them");
    if (planned->compute_bytes != 0) {
        pgd_buffer_print(text, "; compute: %s; process: 5 %%", planned->shape->experts_used != 0 ? "15 %" : "5 %");
    }
    pgd_buffer_print(text, "\n%-16s other conversations, sessions, other programs\n", "not counted");
}

void pgd_plan_text(const struct pgd_planned *planned, struct pgd_buffer *text)
{
    add_beliefs(text, planned);
    add_contexts(text, planned);
    add_lines(text, planned);
    add_process(text, planned);
    add_advice(text, planned);
    add_error(text, planned);
}

void pgd_plan_summary(const struct pgd_planned *planned, struct pgd_buffer *text)
{
    pgd_safe_disarm(text, planned->path, strlen(planned->path));
    pgd_buffer_print(text, ": %s, weights %s, KV %s per token", planned->shape->architecture,
                     pgd_size_words(planned->shape->weights_bytes).text,
                     pgd_size_words(planned->rows.growing_bytes).text);
    const uint64_t fixed = planned->rows.window_bytes + planned->rows.state_bytes;
    if (fixed != 0) {
        pgd_buffer_print(text, " and %s fixed", pgd_size_words(fixed).text);
    }
    if (planned->has_reservation) {
        pgd_buffer_print(text, "; %s hold %s of %s tokens", pgd_size_words(planned->budget_bytes).text,
                         pgd_count_words(planned->reservation.tokens_capacity).text,
                         pgd_count_words(planned->wanted_tokens).text);
    } else {
        pgd_buffer_print(text, "; %s tokens take %s", pgd_count_words(planned->wanted_tokens).text,
                         pgd_size_words(planned->wanted_bytes).text);
    }
    pgd_buffer_print(text, "%s%s\n", planned->fits ? "" : "; does not fit",
                     planned->shape->refusal != NULL ? "; cannot be run yet" : "");
}
