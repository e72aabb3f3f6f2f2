/* cli/report.c - see report.h. */
#include "cli/report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/machine.h"
#include "cli/safe.h"

/* A number that JSON can hold. */
static json_t *real(double value)
{
    return json_real(isfinite(value) ? value : 0);
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t) (value > INT64_MAX ? INT64_MAX : value));
}

double pgd_report_speed(uint64_t tokens, double seconds)
{
    return seconds > 0 ? (double) tokens / seconds : 0;
}

void pgd_report_measure(struct pgd_report *report, struct pgd_bridge *bridge)
{
    const struct pagoda_cache *cache = pgd_bridge_cache(bridge);
    pagoda_cache_account(cache, &report->account);
    pagoda_cache_memory(cache, &report->memory);
    pgd_bridge_memory(bridge, &report->bridge);
    report->on_full = pgd_bridge_on_full(bridge);
    report->fallback = pgd_bridge_fallback(bridge);
    report->peak_rss_bytes = pgd_machine_peak_rss_bytes();
    report->mapped_bytes = pgd_model_get_info(pgd_bridge_model(bridge))->mapped_bytes;
    report->pressure = pgd_bridge_pressure(bridge) != NULL ? pgd_pressure_look(pgd_bridge_pressure(bridge)) : NULL;
}

static json_t *tokens_object(const struct pgd_report *report)
{
    const struct pagoda_account *account = &report->account;
    json_t *object = json_object();
    json_object_set_new(object, "prompt", count(report->prompt_tokens));
    json_object_set_new(object, "generated", count(report->generated_tokens));
    json_object_set_new(object, "ram", count(account->ram));
    json_object_set_new(object, "quantized", count(account->quantized));
    json_object_set_new(object, "spilled", count(account->spilled));
    json_object_set_new(object, "unread", count(account->unread));
    json_object_set_new(object, "collapsed", count(account->collapsed));
    json_object_set_new(object, "dropped", count(account->dropped));
    json_object_set_new(object, "pinned", count(account->pinned));
    return object;
}

/* The smallest codec that a token is held in. */
static enum pagoda_codec smallest_codec(const struct pagoda_account *account)
{
    enum pagoda_codec codec = PAGODA_CODEC_COUNT - 1;
    while (codec > PAGODA_CODEC_F16 && account->by_codec[codec] == 0) {
        codec--;
    }
    return codec;
}

json_t *pgd_report_codecs(const struct pagoda_account *account)
{
    json_t *object = json_object();
    for (enum pagoda_codec codec = 0; codec < PAGODA_CODEC_COUNT; codec++) {
        if (account->by_codec[codec] > 0) {
            json_object_set_new(object, pagoda_codec_name(codec), count(account->by_codec[codec]));
        }
    }
    return object;
}

static json_t *kv_object(const struct pgd_report *report)
{
    json_t *object = json_object();
    json_object_set_new(object, "budget_bytes", count(report->memory.opened_bytes)); /* the peak was held by this one */
    json_object_set_new(object, "budget_now_bytes", count(report->memory.budget_bytes));
    json_object_set_new(object, "peak_bytes", count(report->memory.peak_bytes));
    json_object_set_new(object, "tables_bytes", count(report->memory.by_category[PAGODA_MEMORY_TABLES]));
    json_object_set_new(object, "staging_bytes", count(report->memory.by_category[PAGODA_MEMORY_STAGING]));
    json_object_set_new(object, "capacity_tokens", count(report->memory.tokens_capacity));
    json_object_set_new(object, "bytes_per_token", count(report->memory.bytes_per_token));
    json_object_set_new(object, "codec", json_string(pagoda_codec_name(smallest_codec(&report->account))));
    json_object_set_new(object, "tokens_by_codec", pgd_report_codecs(&report->account));
    json_object_set_new(object, "utilisation", real(report->memory.utilisation_at_peak));
    json_object_set_new(object, "flash_bytes", count(report->memory.flash_bytes));
    json_object_set_new(object, "flash_bytes_written", count(report->memory.flash_bytes_written));
    json_object_set_new(object, "flash_bytes_read", count(report->memory.flash_bytes_read));
    json_object_set_new(object, "flash_direct", json_boolean(report->memory.flash_is_direct));
    json_object_set_new(object, "pages_spilled", count(report->memory.spilled_pages));
    json_object_set_new(object, "pages_recalled", count(report->memory.recalled_pages));
    json_object_set_new(object, "pages_collapsed", count(report->memory.collapsed_pages));
    json_object_set_new(object, "pages_late", count(report->memory.late_pages));
    json_object_set_new(object, "pages_lost", count(report->memory.lost_pages));
    json_object_set_new(object, "unread_mass", real(report->account.unread_mass));
    json_object_set_new(object, "stalled_ms", real((double) report->memory.stalled_ns / 1e6));
    return object;
}

static json_t *memory_object(const struct pgd_report *report)
{
    json_t *object = json_object();
    json_object_set_new(object, "peak_rss_bytes", count(report->peak_rss_bytes));
    json_object_set_new(object, "weights_bytes", count(report->bridge.weights_bytes));
    json_object_set_new(object, "mapped_bytes", count(report->mapped_bytes));
    json_object_set_new(object, "compute_bytes", count(report->bridge.compute_bytes));
    json_object_set_new(object, "process_bytes", count(report->bridge.process_bytes));
    return object;
}

/* What the governor did; an empty object when there is none. */
static json_t *pressure_object(const struct pgd_report *report)
{
    json_t *object = json_object();
    const struct pgd_pressure_view *view = report->pressure;
    if (view == NULL) {
        return object;
    }
    json_object_set_new(object, "state", json_string(pgd_governor_state_name(view->state)));
    json_object_set_new(object, "available_bytes", count(view->reading.known ? view->reading.available_bytes : 0));
    json_object_set_new(object, "source", json_string(view->reading.source));
    json_object_set_new(object, "readings", count(view->readings));
    json_object_set_new(object, "steps_down", count(view->steps_down));
    json_object_set_new(object, "steps_up", count(view->steps_up));
    json_object_set_new(object, "least_budget_bytes", count(view->least_budget_bytes));
    json_object_set_new(object, "slowest_ms", real((double) view->slowest_us / 1000));
    return object;
}

static json_t *speed_object(const struct pgd_report *report)
{
    json_t *object = json_object();
    json_object_set_new(object, "prompt_tokens_per_second",
                        real(pgd_report_speed(report->prompt_tokens, report->prompt_seconds)));
    json_object_set_new(object, "tokens_per_second",
                        real(pgd_report_speed(report->generated_tokens, report->reply_seconds)));
    json_object_set_new(object, "first_token_ms", real(report->first_token_seconds * 1000));
    return object;
}

void pgd_report_write(const struct pgd_report *report, struct pgd_buffer *line)
{
    const struct pgd_options *options = report->options;
    json_t *object = json_object();
    json_object_set_new(object, "text", json_stringn(report->text, report->text_bytes));
    json_object_set_new(object, "stop", json_string(pgd_stop_name(report->stop)));
    json_object_set_new(object, "tokens", tokens_object(report));
    json_object_set_new(object, "kv", kv_object(report));
    json_object_set_new(object, "memory", memory_object(report));
    json_object_set_new(object, "pressure", pressure_object(report));
    json_object_set_new(object, "speed", speed_object(report));
    json_object_set_new(object, "policy", json_string(pgd_policy_words[options->policy]));
    json_object_set_new(object, "on_full", json_string(pgd_on_full_words[report->on_full]));
    json_object_set_new(object, "on_full_reason",
                        report->fallback == NULL ? json_null() : pgd_report_string(report->fallback));
    json_object_set_new(object, "seed", count(report->seed));
    json_object_set_new(object, "exact", json_boolean(report->account.exact));
    if (report->why != NULL) {
        json_object_update_new(object, report->why);
    }
    pgd_report_write_json(object, line);
}

void pgd_report_write_json(json_t *value, struct pgd_buffer *line)
{
    char *text = json_dumps(value, JSON_REAL_PRECISION(6));
    if (text == NULL) {
        line->failed = true;
    } else {
        pgd_buffer_print(line, "%s\n", text);
        free(text);
    }
    json_decref(value);
}

bool pgd_report_print_json(json_t *value)
{
    struct pgd_buffer line = {0};
    pgd_report_write_json(value, &line);
    fputs(pgd_buffer_text(&line), stdout);
    const bool written = !line.failed;
    pgd_buffer_free(&line);
    return written;
}

json_t *pgd_report_string(const char *text)
{
    struct pgd_buffer whole = {0};
    pgd_safe_repair(&whole, text, strlen(text));
    json_t *value = json_string(pgd_buffer_text(&whole));
    pgd_buffer_free(&whole);
    return value;
}
