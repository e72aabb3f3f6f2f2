/* cli/why.h - which passages a reply drew on most, with their text, for people and as JSON.
 *
 * A passage is a page. The first page of the text and the latest tokens draw much attention whatever is asked, so they
 * are told as sums and not named. Threads: the main thread, between decodes.
 */
#ifndef PGD_CLI_WHY_H
#define PGD_CLI_WHY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/buffer.h"
#include "engine/bridge.h"

#define PGD_WHY_PASSAGES 5u
#define PGD_WHY_LATEST 32u /* tokens before the reply that count as latest, beside the reply itself */

struct pgd_why {
    struct pgd_bridge *bridge;
    struct pagoda_draws draws; /* not counted: everything else is empty */
    struct pagoda_draw passages[PGD_WHY_PASSAGES];
    uint32_t count;
    double first_page; /* shares of the attention */
    double latest;
    double others; /* of pages that are neither of these, nor among the passages */
};

/* Somebody who says the tokens from `first` on, up to the next speaker's. */
struct pgd_why_speaker {
    uint64_t first;
    uint32_t turn; /* 0: none */
    const char *role;
};
struct pgd_why_speakers {
    const struct pgd_why_speaker *items; /* by position */
    size_t count;
};

/* Of the last reply of a bridge that counts draws. */
void pgd_why_find(struct pgd_bridge *bridge, struct pgd_why *why);

/* Lines of at most about `columns`. */
void pgd_why_print(const struct pgd_why *why, const struct pgd_why_speakers *speakers, uint32_t columns,
                   struct pgd_buffer *text);

/* An object with "why", the array of passages, and "why_rest", the shares that are not in it. */
struct json_t *pgd_why_json(const struct pgd_why *why, const struct pgd_why_speakers *speakers);

#endif
