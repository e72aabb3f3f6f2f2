/* cli/map.c - see map.h.
 *
 * The drawing runs twice through the same code: once without a buffer, to count the lines that a zoom
 * takes, and once to draw. Runs of pages in one state are drawn as cells; a run is never mixed into a
 * neighbour's cell and never vanishes.
 */
#include "cli/map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

enum cell { HELD, SMALL, OPEN, PINNED, SPILLED, COLLAPSED, DROPPED, FREE, RESERVED, CELL_KINDS };

/* Longer runs of dropped pages are written as a number: they are history, not memory. */
#define DROPPED_CELLS_MAX 8u
#define GROUP_ROWS_MIN 4u
#define ZOOM_MAX (UINT64_C(1) << 40)

static const char *const glyphs_unicode[CELL_KINDS] = {
    "\u2588", "\u2584", "\u258C", "\u25A3", "\u2591", "\u00B7", "\u00D7", "\u25A1", "\u2592",
};
static const char *const glyphs_ascii[CELL_KINDS] = {"#", "q", "+", "P", "f", "d", "x", ".", "="};

/* After Okabe and Ito: told apart also by the colour-blind. Columns as enum pgd_palette. */
static const char *const colors[CELL_KINDS][4] = {
    [HELD] = {"", "\033[36m", "\033[38;5;74m", "\033[38;2;86;180;233m"},
    [SMALL] = {"", "\033[34m", "\033[38;5;32m", "\033[38;2;0;114;178m"},
    [OPEN] = {"", "\033[33m", "\033[38;5;214m", "\033[38;2;230;159;0m"},
    [PINNED] = {"", "\033[32m", "\033[38;5;36m", "\033[38;2;0;158;115m"},
    [SPILLED] = {"", "\033[37m", "\033[38;5;227m", "\033[38;2;240;228;66m"},
    [COLLAPSED] = {"", "\033[31m", "\033[38;5;173m", "\033[38;2;190;120;80m"},
    [DROPPED] = {"", "\033[31m", "\033[38;5;166m", "\033[38;2;213;94;0m"},
    [FREE] = {"", "\033[2m", "\033[2m", "\033[2m"},
    [RESERVED] = {"", "\033[35m", "\033[38;5;175m", "\033[38;2;204;121;167m"},
};

/* Writes cells and breaks lines. */
struct pen {
    const struct pgd_map_style *style;
    struct pgd_buffer *text; /* NULL: only count */
    uint32_t indent;         /* where the cells of a row start */
    uint32_t column;
    uint64_t lines;
    uint64_t zoom; /* pages per cell */
    int color;     /* enum cell whose colour is on; -1: none */
};

static const char *glyph_of(const struct pgd_map_style *style, enum cell cell)
{
    return style->unicode ? glyphs_unicode[cell] : glyphs_ascii[cell];
}

static void set_color(struct pen *pen, int cell)
{
    if (pen->text == NULL || pen->color == cell || pen->style->palette == PGD_PALETTE_NONE) {
        return;
    }
    pgd_buffer_print(pen->text, "%s%s", pen->color >= 0 ? "\033[0m" : "",
                     cell >= 0 ? colors[cell][pen->style->palette] : "");
    pen->color = cell;
}

/* Text of `width` columns in the colour of a cell; a new line first when it does not fit any more. */
static void put(struct pen *pen, enum cell cell, const char *text, uint32_t width)
{
    if (pen->column + width > pen->style->columns && pen->column > pen->indent) {
        pen->lines++;
        pen->column = pen->indent;
        if (pen->text != NULL) {
            pgd_buffer_print(pen->text, "\n%*s", (int) pen->indent, "");
        }
    }
    set_color(pen, (int) cell);
    if (pen->text != NULL) {
        pgd_buffer_add(pen->text, text, strlen(text));
    }
    pen->column += width;
}

static void put_run(struct pen *pen, enum cell cell, uint64_t pages)
{
    const uint64_t cells = pgd_div_up_u64(pages, pen->zoom);
    if (cell == DROPPED && cells > DROPPED_CELLS_MAX) {
        char run[64];
        snprintf(run, sizeof(run), "%s{%s}", glyph_of(pen->style, cell), pgd_count_words(pages).text);
        put(pen, cell, run, (uint32_t) strlen(run) - (pen->style->unicode ? 1 : 0)); /* the glyph has two bytes */
        return;
    }
    for (uint64_t i = 0; i < cells; i++) {
        put(pen, cell, glyph_of(pen->style, cell), 1);
    }
}

static void begin_row(struct pen *pen, const char *label, const char *amount, uint32_t label_width)
{
    if (pen->text != NULL) {
        pgd_buffer_print(pen->text, "%-*s %*s ", (int) label_width, label, (int) (pen->indent - label_width - 2),
                         amount);
    }
    pen->column = pen->indent;
}

static void end_row(struct pen *pen)
{
    set_color(pen, -1);
    pen->lines++;
    if (pen->text != NULL) {
        pgd_buffer_add(pen->text, "\n", 1);
    }
}

/* ---- owners ---- */

/* A row: the owners from `start` up to `end`. */
struct group {
    size_t start;
    size_t end;
};

static uint64_t end_of_owner(const struct pgd_map *map, size_t owner)
{
    return owner + 1 < map->owner_count ? map->owners[owner + 1].first : map->account.total;
}

/* Row `row` of `rows`: when owners are too many, the first row is the first owner's, the second that of all
 * old ones, and the newest have a row each. */
static struct group group_of(const struct pgd_map *map, size_t row, size_t rows)
{
    if (rows >= map->owner_count || row == 0) {
        return (struct group) {row, row + 1};
    }
    const size_t first_alone = map->owner_count - (rows - 2);
    return row == 1 ? (struct group) {1, first_alone} : (struct group) {first_alone + row - 2, first_alone + row - 1};
}

static void name_group(const struct pgd_map *map, struct group group, char *label, size_t bytes)
{
    const uint32_t from = map->owners[group.start].number;
    const uint32_t to = map->owners[group.end - 1].number;
    if (from == 0) {
        snprintf(label, bytes, "system");
    } else if (from == to) {
        snprintf(label, bytes, "turn %" PRIu32, from);
    } else {
        snprintf(label, bytes, "turns %" PRIu32 "-%" PRIu32, from, to);
    }
}

static enum cell cell_of(const struct pagoda_span *span)
{
    switch (span->state) {
    case PAGODA_PAGE_ABSENT: return DROPPED;
    case PAGODA_PAGE_OPEN: return span->pinned ? PINNED : OPEN;
    case PAGODA_PAGE_SPILLED: return SPILLED;
    case PAGODA_PAGE_COLLAPSED: return COLLAPSED;
    case PAGODA_PAGE_CLEAN:
    case PAGODA_PAGE_SEALED: return span->pinned ? PINNED : span->codec != PAGODA_CODEC_F16 ? SMALL : HELD;
    }
    return HELD;
}

/* Pages that start in [first, end) of positions: a page belongs to whoever starts it. */
static uint64_t pages_starting(const struct pgd_map *map, uint64_t first, uint64_t end)
{
    return pgd_div_up_u64(end, map->page_tokens) - pgd_div_up_u64(first, map->page_tokens);
}

/* Draws the pages that start in [first, end). False when there is none. */
static bool put_pages(const struct pgd_map *map, struct pen *pen, uint64_t first, uint64_t end)
{
    enum cell cell = HELD;
    uint64_t pages = 0;
    bool any = false;
    for (size_t i = 0; i < map->span_count; i++) {
        const struct pagoda_span *span = &map->spans[i];
        const uint64_t from = pgd_max_u64(first, span->first);
        const uint64_t to = pgd_min_u64(end, span->first + span->count);
        const uint64_t more = from < to ? pages_starting(map, from, to) : 0;
        if (more == 0) {
            continue;
        }
        if (pages > 0 && cell_of(span) != cell) {
            put_run(pen, cell, pages);
            pages = 0;
        }
        cell = cell_of(span);
        pages += more;
        any = true;
    }
    if (pages > 0) {
        put_run(pen, cell, pages);
    }
    return any;
}

static void put_owners(const struct pgd_map *map, struct pen *pen, size_t rows, uint32_t label_width)
{
    for (size_t row = 0; row < rows; row++) {
        const struct group group = group_of(map, row, rows);
        const uint64_t first = map->owners[group.start].first;
        const uint64_t end = end_of_owner(map, group.end - 1);
        char label[48];
        name_group(map, group, label, sizeof(label));
        begin_row(pen, label, pgd_count_words(end - first).text, label_width);
        if (!put_pages(map, pen, first, end) && pen->text != NULL) {
            pgd_buffer_print(pen->text, end > first ? "in the page above" : "empty");
        }
        end_row(pen);
    }
}

/* ---- the rest of the budget ---- */

static uint64_t held_pages(const struct pgd_map *map)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < map->span_count; i++) {
        pages += map->spans[i].state == PAGODA_PAGE_ABSENT ? 0 : 1; /* on flash as well: they have their entry */
    }
    return pages;
}

static uint64_t reserved_bytes(const struct pgd_map *map)
{
    const uint64_t *by = map->memory.by_category;
    return by[PAGODA_MEMORY_DIGESTS] + by[PAGODA_MEMORY_TABLES] + by[PAGODA_MEMORY_STAGING] + by[PAGODA_MEMORY_DRAFT];
}

static uint64_t free_tokens(const struct pgd_map *map)
{
    const uint64_t held = map->account.ram + map->account.quantized;
    return map->memory.tokens_capacity - pgd_min_u64(held, map->memory.tokens_capacity);
}

static void put_rest(const struct pgd_map *map, struct pen *pen, uint32_t label_width)
{
    const uint64_t capacity = map->memory.tokens_capacity / map->page_tokens;
    const uint64_t page_bytes = pgd_max_u64(map->memory.bytes_per_token * map->page_tokens, 1);
    begin_row(pen, "free", pgd_count_words(free_tokens(map)).text, label_width);
    put_run(pen, FREE, capacity - pgd_min_u64(held_pages(map), capacity));
    end_row(pen);
    begin_row(pen, "reserved", "", label_width);
    put_run(pen, RESERVED, pgd_div_up_u64(reserved_bytes(map), page_bytes));
    end_row(pen);
}

/* ---- head and legend ---- */

/* Words that go on one line as long as they fit. */
static void put_words(struct pen *pen, const char *words, uint32_t width)
{
    const uint32_t gap = 3;
    if (pen->column > 0 && pen->column + gap + width > pen->style->columns) {
        pgd_buffer_add(pen->text, "\n", 1);
        pen->column = 0;
    }
    pgd_buffer_print(pen->text, "%*s%s", pen->column > 0 ? (int) gap : 0, "", words);
    pen->column += (pen->column > 0 ? gap : 0) + width;
}

static void put_head(const struct pgd_map *map, struct pen *pen)
{
    char words[128];
    const struct pagoda_memory *memory = &map->memory;
    const uint64_t used = memory->used_bytes;
    const double share = memory->budget_bytes == 0 ? 0 : 100.0 * (double) used / (double) memory->budget_bytes;
    snprintf(words, sizeof(words), "KV budget %s, used %s (%.0f %%)", pgd_size_words(memory->budget_bytes).text,
             pgd_size_words(used).text, share);
    put_words(pen, words, (uint32_t) strlen(words));
    snprintf(words, sizeof(words), "held %s of %s tokens",
             pgd_count_words(map->account.ram + map->account.quantized).text, pgd_count_words(map->account.total).text);
    put_words(pen, words, (uint32_t) strlen(words));
    if (map->account.quantized > 0) {
        snprintf(words, sizeof(words), "re-encoded %s", pgd_count_words(map->account.quantized).text);
        put_words(pen, words, (uint32_t) strlen(words));
    }
    if (map->account.spilled > 0) {
        snprintf(words, sizeof(words), "on flash %s", pgd_count_words(map->account.spilled).text);
        put_words(pen, words, (uint32_t) strlen(words));
    }
    if (map->account.collapsed > 0) {
        snprintf(words, sizeof(words), "only summarised %s", pgd_count_words(map->account.collapsed).text);
        put_words(pen, words, (uint32_t) strlen(words));
    }
    snprintf(words, sizeof(words), "pinned %s", pgd_count_words(map->account.pinned).text);
    put_words(pen, words, (uint32_t) strlen(words));
    snprintf(words, sizeof(words), "dropped %s", pgd_count_words(map->account.dropped).text);
    put_words(pen, words, (uint32_t) strlen(words));
    snprintf(words, sizeof(words), "when full: %s", map->rule);
    put_words(pen, words, (uint32_t) strlen(words));
    pgd_buffer_add(pen->text, "\n\n", 2);
    pen->column = 0;
}

static void put_legend(const struct pgd_map *map, struct pen *pen)
{
    static const char *const names[CELL_KINDS] = {
        "held",
        "held, re-encoded smaller",
        "being written",
        "pinned",
        "on flash, some of it in memory as well",
        "only a summary is left",
        "dropped, gone",
        "free",
        "reserved for tables and scratch",
    };
    char words[192];
    pgd_buffer_add(pen->text, "\n", 1);
    pen->column = 0;
    for (int cell = 0; cell < CELL_KINDS; cell++) {
        const bool colored = pen->style->palette != PGD_PALETTE_NONE;
        snprintf(words, sizeof(words), "%s%s%s %s", colors[cell][pen->style->palette],
                 glyph_of(pen->style, (enum cell) cell), colored ? "\033[0m" : "", names[cell]);
        put_words(pen, words, (uint32_t) strlen(names[cell]) + 2);
    }
    if (pen->zoom == 1) {
        snprintf(words, sizeof(words), "one cell: a page of %" PRIu32 " tokens", map->page_tokens);
    } else {
        snprintf(words, sizeof(words), "one cell: up to %" PRIu64 " pages of %" PRIu32 " tokens", pen->zoom,
                 map->page_tokens);
    }
    put_words(pen, words, (uint32_t) strlen(words));
    pgd_buffer_add(pen->text, "\n", 1);
}

/* ---- all of it ---- */

static uint32_t widest_label(const struct pgd_map *map, size_t rows)
{
    uint32_t width = (uint32_t) strlen("reserved");
    for (size_t row = 0; row < rows; row++) {
        char label[48];
        name_group(map, group_of(map, row, rows), label, sizeof(label));
        width = (uint32_t) pgd_max_u64(width, strlen(label));
    }
    return width;
}

static uint64_t count_lines(const struct pgd_map *map, struct pen pen, size_t rows, uint32_t label_width)
{
    put_owners(map, &pen, rows, label_width);
    put_rest(map, &pen, label_width);
    return pen.lines;
}

void pgd_map_draw(const struct pgd_map *map, const struct pgd_map_style *style, struct pgd_buffer *text)
{
    const size_t rows_most = style->rows > GROUP_ROWS_MIN + 3 ? style->rows - 3 : GROUP_ROWS_MIN;
    const size_t rows = map->owner_count < rows_most ? map->owner_count : rows_most;
    const uint32_t label_width = widest_label(map, rows);
    const uint64_t largest = pgd_max_u64(map->account.total, map->memory.tokens_capacity);
    const uint32_t amount_width = (uint32_t) strlen(pgd_count_words(largest).text);
    const struct pgd_map_style roomy = {
        .columns = (uint32_t) pgd_max_u64(style->columns, label_width + amount_width + 2 + 8),
        .rows = style->rows,
        .unicode = style->unicode,
        .palette = style->palette,
    };
    struct pen pen = {.style = &roomy, .indent = label_width + amount_width + 2, .zoom = 1, .color = -1};
    while (pen.zoom < ZOOM_MAX && count_lines(map, pen, rows, label_width) > pgd_max_u64(style->rows, rows + 2)) {
        pen.zoom *= 2;
    }
    pen.text = text;
    put_head(map, &pen);
    put_owners(map, &pen, rows, label_width);
    put_rest(map, &pen, label_width);
    put_legend(map, &pen);
}
