/* cli/plan_json.c - a plan as one JSON object, a contract with scripts: fields are added, never renamed. */
#include <jansson.h>

#include "base/number.h"
#include "cli/plan.h"
#include "cli/report.h"

static json_t *whole(uint64_t value)
{
    return json_integer((json_int_t) pgd_min_u64(value, INT64_MAX));
}

static json_t *kv_object(const struct pgd_planned *planned)
{
    const struct pgd_plan_rows *rows = &planned->rows;
    json_t *object = json_object();
    json_object_set_new(object, "bytes_per_token", whole(rows->token_bytes));
    json_object_set_new(object, "growing_bytes_per_token", whole(rows->growing_bytes));
    json_object_set_new(object, "window_bytes", whole(rows->window_bytes));
    json_object_set_new(object, "state_bytes", whole(rows->state_bytes));
    json_object_set_new(object, "attention_layers", whole(rows->attending));
    json_object_set_new(object, "window_layers", whole(rows->windowed));
    json_object_set_new(object, "state_layers", whole(rows->recurrent));
    json_object_set_new(object, "latent", json_boolean(rows->is_latent));
    json_object_set_new(object, "page_tokens", whole(planned->options->page));
    return object;
}

static json_t *layers_array(const struct pgd_shape *shape)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const struct pgd_shape_layer *layer = &shape->layers[i];
        json_t *object = json_object();
        json_object_set_new(object, "kv_heads", whole(layer->kv_heads));
        json_object_set_new(object, "query_heads", whole(layer->query_heads));
        json_object_set_new(object, "key_size", whole(layer->key_size));
        json_object_set_new(object, "value_size", whole(layer->value_size));
        json_object_set_new(object, "window", whole(layer->window));
        json_object_set_new(object, "state_bytes", whole(layer->state_bytes));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *memory_object(const struct pgd_planned *planned)
{
    const uint64_t kv = planned->has_reservation ? planned->budget_bytes : planned->wanted_bytes;
    json_t *object = json_object();
    json_object_set_new(object, "weights_bytes", whole(planned->shape->weights_bytes));
    json_object_set_new(object, "copied_bytes", whole(pgd_planned_copied_bytes(planned)));
    json_object_set_new(object, "compute_bytes",
                        planned->compute_bytes == 0 ? json_null() : whole(planned->compute_bytes));
    json_object_set_new(object, "program_bytes", whole(planned->shape->program_bytes));
    json_object_set_new(object, "process_bytes", whole(pgd_add_capped_u64(pgd_planned_fixed_bytes(planned), kv)));
    json_object_set_new(object, "available_bytes", whole(planned->available_bytes));
    return object;
}

static json_t *reservation_object(const struct pgd_planned *planned)
{
    const struct pagoda_reservation *reservation = &planned->reservation;
    if (!planned->has_reservation) {
        return json_null();
    }
    json_t *object = json_object();
    json_object_set_new(object, "budget_bytes", whole(planned->budget_bytes));
    json_object_set_new(object, "tables_bytes", whole(reservation->tables_bytes));
    json_object_set_new(object, "staging_bytes", whole(reservation->staging_bytes));
    json_object_set_new(object, "arena_bytes", whole(reservation->arena_bytes));
    json_object_set_new(object, "tokens", whole(reservation->tokens_capacity));
    json_object_set_new(object, "tokens_in_memory", whole(reservation->tokens_in_memory));
    json_object_set_new(object, "flash_bytes_per_token", whole(reservation->flash_bytes_per_token));
    json_object_set_new(object, "digest_tokens", whole(reservation->digest_tokens));
    json_object_set_new(object, "exact_recent", whole(reservation->exact_recent));
    json_object_set_new(object, "batch_tokens", whole(reservation->batch_tokens));
    json_object_set_new(object, "easy_bytes", planned->easy_bytes == 0 ? json_null() : whole(planned->easy_bytes));
    json_object_set_new(object, "on_full", json_string(pgd_on_full_words[planned->on_full]));
    json_object_set_new(object, "on_full_reason",
                        planned->fallback[0] == '\0' ? json_null() : json_string(planned->fallback));
    return object;
}

static json_t *contexts_array(const struct pgd_planned *planned)
{
    json_t *array = json_array();
    for (size_t row = 0; row < planned->context_count; row++) {
        const struct pgd_plan_context *context = &planned->contexts[row];
        json_t *object = json_object();
        json_t *bytes = json_object();
        json_object_set_new(object, "tokens", whole(context->tokens));
        json_object_set_new(object, "row_bytes", whole(context->row_bytes));
        for (size_t i = 0; i < PGD_PLAN_CODECS && pgd_plan_has_budgets(planned->plan); i++) {
            json_object_set_new(bytes, pagoda_codec_name(pgd_plan_codecs[i]), whole(context->bytes[i]));
        }
        json_object_set_new(object, "budget_bytes", bytes);
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *budgets_array(const struct pgd_planned *planned)
{
    json_t *array = json_array();
    for (size_t row = 0; row < planned->line_count; row++) {
        const struct pgd_plan_line *line = &planned->lines[row];
        json_t *object = json_object();
        json_t *tokens = json_object();
        json_object_set_new(object, "budget_bytes", whole(line->budget_bytes));
        json_object_set_new(tokens, "auto", whole(line->tokens[0]));
        for (size_t i = 0; i < PGD_PLAN_CODECS; i++) {
            json_object_set_new(tokens, pagoda_codec_name(pgd_plan_codecs[i]), whole(line->tokens[1 + i]));
        }
        json_object_set_new(object, "tokens", tokens);
        json_array_append_new(array, object);
    }
    return array;
}

void pgd_plan_json(const struct pgd_planned *planned, struct pgd_buffer *line)
{
    const struct pgd_shape *shape = planned->shape;
    json_t *object = json_object();
    json_object_set_new(object, "schema", json_string("pagoda.plan/1"));
    json_object_set_new(object, "model", pgd_report_string(planned->path));
    json_object_set_new(object, "name", pgd_report_string(shape->name));
    json_object_set_new(object, "architecture", pgd_report_string(shape->architecture));
    json_object_set_new(object, "runs", json_boolean(shape->refusal == NULL));
    json_object_set_new(object, "refusal", shape->refusal == NULL ? json_null() : json_string(shape->refusal));
    json_object_set_new(object, "trained_tokens", whole(shape->trained_tokens));
    json_object_set_new(object, "vocabulary", whole(shape->vocabulary));
    json_object_set_new(object, "layers", layers_array(shape));
    json_object_set_new(object, "kv", kv_object(planned));
    json_object_set_new(object, "memory", memory_object(planned));
    json_object_set_new(object, "wanted_tokens", whole(planned->wanted_tokens));
    json_object_set_new(object, "wanted_bytes", whole(planned->wanted_bytes));
    json_object_set_new(object, "reservation", reservation_object(planned));
    json_object_set_new(object, "problem", planned->problem[0] == '\0' ? json_null() : json_string(planned->problem));
    json_object_set_new(object, "contexts", contexts_array(planned));
    json_object_set_new(object, "budgets", budgets_array(planned));
    json_object_set_new(object, "fits", json_boolean(planned->fits));
    pgd_report_write_json(object, line);
}
