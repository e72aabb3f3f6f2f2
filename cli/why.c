/* cli/why.c - see why.h. */
#include "cli/why.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "cli/safe.h"

#define CHARACTERS_MIN 20u
#define CHARACTERS_MAX 120u
#define LEAD_COLUMNS 12u /* what stands in front of the text of a passage, and the dots behind it */

/* ---- finding ---- */

/* Keeps a passage when it is among those with the largest share. */
static void take(struct pgd_why *why, const struct pagoda_draw *draw)
{
    uint32_t at = why->count;
    while (at > 0 && why->passages[at - 1].share < draw->share) {
        at--;
    }
    if (at == PGD_WHY_PASSAGES) {
        why->others += draw->share;
        return;
    }
    if (why->count == PGD_WHY_PASSAGES) {
        why->others += why->passages[--why->count].share;
    }
    memmove(&why->passages[at + 1], &why->passages[at], (why->count - at) * sizeof(*draw));
    why->passages[at] = *draw;
    why->count++;
}

static bool sort_draw(void *user, const struct pagoda_draw *draw)
{
    struct pgd_why *why = user;
    const struct pagoda_span *span = &draw->span;
    if (span->state == PAGODA_PAGE_ABSENT || draw->share <= 0) {
        return true;
    }
    if (span->first == 0) {
        why->first_page += draw->share;
    } else if (span->first + span->count + PGD_WHY_LATEST > why->draws.since) {
        why->latest += draw->share;
    } else {
        take(why, draw);
    }
    return true;
}

void pgd_why_find(struct pgd_bridge *bridge, struct pgd_why *why)
{
    *why = (struct pgd_why) {.bridge = bridge};
    pagoda_cache_draws(pgd_bridge_cache(bridge), &why->draws, NULL, NULL);
    pagoda_cache_draws(pgd_bridge_cache(bridge), &why->draws, sort_draw, why);
}

/* ---- the text of a passage ---- */

static void add_pieces(const struct pgd_why *why, const struct pagoda_span *span, struct pgd_buffer *raw)
{
    const int32_t *tokens = pgd_bridge_tokens(why->bridge);
    char piece[PGD_PIECE_BYTES_MAX];
    for (uint64_t i = 0; i < span->count; i++) {
        pgd_buffer_add(raw, piece,
                       pgd_model_piece(pgd_bridge_model(why->bridge), tokens[span->first + i], false, piece));
    }
}

static bool is_white(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t';
}

/* Bytes of the mark for what is not UTF-8 at the start of a text; 0 when it begins otherwise. */
static size_t mark_length(const char *text)
{
    return strncmp(text, "\xEF\xBF\xBD", 3) == 0 ? 3 : 0;
}

/* A passage begins and ends between tokens, which may be inside of a character: what is left of it goes. */
static const char *without_marks(const char *text, size_t *count)
{
    for (size_t mark; (mark = mark_length(text)) > 0; text += mark) {
        *count -= mark;
    }
    while (*count >= 3 && mark_length(text + *count - 3) > 0) {
        *count -= 3;
    }
    return text;
}

/* At most `most` characters of a valid text, each run of white space as one blank. */
static void add_line(const char *text, size_t count, size_t most, struct pgd_buffer *line)
{
    size_t characters = 0;
    size_t at = 0;
    while (at < count && characters < most) {
        size_t next = at + 1;
        if (is_white(text[at])) {
            while (next < count && is_white(text[next])) {
                next++;
            }
            if (characters > 0 && next < count) {
                pgd_buffer_add(line, " ", 1);
                characters++;
            }
        } else {
            while (next < count && ((unsigned char) text[next] & 0xC0) == 0x80) {
                next++;
            }
            pgd_buffer_add(line, text + at, next - at);
            characters++;
        }
        at = next;
    }
    if (at < count) {
        pgd_buffer_add(line, "...", 3);
    }
}

/* The text of a passage in one line: nothing in it steers a terminal. */
static void add_text(const struct pgd_why *why, const struct pagoda_span *span, size_t most, struct pgd_buffer *line)
{
    struct pgd_buffer raw = {0};
    struct pgd_buffer safe = {0};
    add_pieces(why, span, &raw);
    pgd_safe_disarm(&safe, pgd_buffer_text(&raw), raw.count);
    size_t count = safe.count;
    const char *text = without_marks(pgd_buffer_text(&safe), &count);
    add_line(text, count, most, line);
    line->failed = line->failed || raw.failed || safe.failed;
    pgd_buffer_free(&raw);
    pgd_buffer_free(&safe);
}

/* ---- for people ---- */

static const struct pgd_why_speaker *speaker_of(const struct pgd_why_speakers *speakers, uint64_t position)
{
    static const struct pgd_why_speaker nobody = {0, 0, "text"};
    const struct pgd_why_speaker *found = &nobody;
    for (size_t i = 0; i < speakers->count && speakers->items[i].first <= position; i++) {
        found = &speakers->items[i];
    }
    return found;
}

static bool is_on_flash(const struct pagoda_span *span)
{
    return span->state == PAGODA_PAGE_SPILLED;
}

static bool is_summary(const struct pagoda_span *span)
{
    return span->state == PAGODA_PAGE_COLLAPSED;
}

static void print_passage(const struct pgd_why *why, const struct pagoda_draw *draw,
                          const struct pgd_why_speakers *speakers, uint32_t columns, struct pgd_buffer *text)
{
    const struct pgd_why_speaker *speaker = speaker_of(speakers, draw->span.first);
    const char *place = is_on_flash(&draw->span) ? "on flash" : is_summary(&draw->span) ? "summarised" : "in memory";
    const uint64_t room = pgd_max_u64(columns, LEAD_COLUMNS) - LEAD_COLUMNS;
    char who[32];
    if (speaker->turn == 0) {
        snprintf(who, sizeof(who), "%s", speaker->role);
    } else {
        snprintf(who, sizeof(who), "turn %" PRIu32 ", %s", speaker->turn, speaker->role);
    }
    pgd_buffer_print(text, "%5.1f %%  %s, %s\n         ", draw->share * 100, who, place);
    add_text(why, &draw->span, pgd_min_u64(pgd_max_u64(room, CHARACTERS_MIN), CHARACTERS_MAX), text);
    pgd_buffer_print(text, "\n");
}

void pgd_why_print(const struct pgd_why *why, const struct pgd_why_speakers *speakers, uint32_t columns,
                   struct pgd_buffer *text)
{
    if (!why->draws.counted) {
        pgd_buffer_print(text, "the reply had no token whose attention could be counted\n");
        return;
    }
    if (why->count == 0) {
        pgd_buffer_print(text, "the reply drew on nothing but the first page and the latest tokens\n");
    } else {
        pgd_buffer_print(text, "the reply drew most on (share of its attention in layers that see all text)\n");
    }
    for (uint32_t i = 0; i < why->count; i++) {
        print_passage(why, &why->passages[i], speakers, columns, text);
    }
    pgd_buffer_print(text, "the first page had %.1f %%, the reply and %u tokens before it %.1f %%, all others %.1f %%",
                     why->first_page * 100, PGD_WHY_LATEST, why->latest * 100, why->others * 100);
    if (why->draws.gone > 0) {
        pgd_buffer_print(text, ", dropped meanwhile %.1f %%", why->draws.gone * 100);
    }
    pgd_buffer_print(text, "\n");
}

/* ---- for scripts ---- */

static json_t *passage_object(const struct pgd_why *why, const struct pagoda_draw *draw,
                              const struct pgd_why_speakers *speakers)
{
    const struct pgd_why_speaker *speaker = speaker_of(speakers, draw->span.first);
    struct pgd_buffer text = {0};
    json_t *object = json_object();
    add_text(why, &draw->span, SIZE_MAX, &text);
    json_object_set_new(object, "share", json_real(draw->share));
    json_object_set_new(object, "first", json_integer((json_int_t) draw->span.first));
    json_object_set_new(object, "tokens", json_integer((json_int_t) draw->span.count));
    json_object_set_new(object, "turn", json_integer((json_int_t) speaker->turn));
    json_object_set_new(object, "role", json_string(speaker->role));
    json_object_set_new(object, "where",
                        json_string(is_on_flash(&draw->span)  ? "flash"
                                    : is_summary(&draw->span) ? "summary"
                                                              : "memory"));
    json_object_set_new(object, "text", json_string(pgd_buffer_text(&text)));
    pgd_buffer_free(&text);
    return object;
}

json_t *pgd_why_json(const struct pgd_why *why, const struct pgd_why_speakers *speakers)
{
    json_t *passages = json_array();
    for (uint32_t i = 0; i < why->count; i++) {
        json_array_append_new(passages, passage_object(why, &why->passages[i], speakers));
    }
    json_t *rest = json_object();
    json_object_set_new(rest, "first_page", json_real(why->first_page));
    json_object_set_new(rest, "latest", json_real(why->latest));
    json_object_set_new(rest, "others", json_real(why->others));
    json_object_set_new(rest, "dropped", json_real(why->draws.gone));
    json_t *object = json_object();
    json_object_set_new(object, "why", passages);
    json_object_set_new(object, "why_rest", rest);
    return object;
}
