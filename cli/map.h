/* cli/map.h - the page map: who owns which pages, and what became of them, as text.
 *
 * One row per owner (the system prompt, turn n), one cell per page in token order; then free room and what
 * the cache needs for itself. When there are more pages than fit, a cell stands for several and shows the
 * state that most of them have; when there are more turns than rows, old turns share a row. State is told by
 * glyph, colour only repeats it.
 *
 * Pure: numbers and a style in, text out. Threads: any.
 */
#ifndef PGD_CLI_MAP_H
#define PGD_CLI_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/buffer.h"
#include "cli/terminal.h"
#include "pagoda/pagoda.h"

/* Owner `index` has the tokens from `first` up to where the next owner starts. */
struct pgd_map_owner {
    uint32_t number; /* 0: the system prompt; n: turn n */
    uint64_t first;
};

struct pgd_map {
    const struct pgd_map_owner *owners; /* by position; the first starts at 0 */
    size_t owner_count;
    const struct pagoda_span *spans; /* of pagoda_cache_visit */
    size_t span_count;
    uint32_t page_tokens;
    const char *rule; /* "policy sink", "stop" */
    struct pagoda_account account;
    struct pagoda_memory memory;
};

struct pgd_map_style {
    uint32_t columns;
    uint32_t rows; /* for owners and free room, at most about so many */
    bool unicode;
    enum pgd_palette palette;
};

void pgd_map_draw(const struct pgd_map *map, const struct pgd_map_style *style, struct pgd_buffer *text);

#endif
