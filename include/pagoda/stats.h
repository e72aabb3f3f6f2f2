/* pagoda/stats.h - the honest account: where every token is, and what every byte is for.
 *
 * Threads: the thread that owns the cache.
 */
#ifndef PAGODA_STATS_H
#define PAGODA_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "pagoda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where the tokens of the sequence are. total = ram + quantized + spilled + collapsed + dropped;
 * unread tokens are spilled ones that attention did not read; pinned ones are counted in ram as well. A token that a
 * sliding-window layer cannot see any more, by the model's own design, is not called dropped as long
 * as some layer holds it. */
struct pagoda_account {
    uint64_t total;
    uint64_t ram;       /* exact f16 rows in memory */
    uint64_t quantized; /* in memory, in another codec than f16 */
    uint64_t spilled;   /* on flash only; a token some of whose layers are in memory counts by its share of pages */
    uint64_t unread;    /* of these, not read by the last token, by the same measure; their digests stood in */
    uint64_t collapsed; /* nothing is left but their digests, which stand in for them; by the same measure */
    uint64_t dropped;   /* gone */
    uint64_t pinned;
    uint64_t by_codec[PAGODA_CODEC_COUNT]; /* tokens in memory by codec; f16 is `ram`, the others are `quantized` */
    double unread_mass; /* share of the attention that was expected in unread pages, on average since open or reset */
    bool exact;         /* every past token was attended with f16 rows, and nothing is missing */
};
PAGODA_API void pagoda_cache_account(const struct pagoda_cache *cache, struct pagoda_account *account);

/* What the bytes of the budget are for. */
enum pagoda_memory_category {
    PAGODA_MEMORY_KV_EXACT = 0,
    PAGODA_MEMORY_KV_QUANTIZED,
    PAGODA_MEMORY_DIGESTS,
    PAGODA_MEMORY_TABLES,  /* block table, page states, the cache itself */
    PAGODA_MEMORY_STAGING, /* scratch of the kernels, partial results, what the caller reserved */
    PAGODA_MEMORY_DRAFT,
    PAGODA_MEMORY_CATEGORIES
};
PAGODA_API const char *pagoda_memory_category_name(enum pagoda_memory_category category);

/* A digest tells of so many tokens on flash, and of up to eight times as many when a budget is tight for its tokens. */
#define PAGODA_DIGEST_TOKENS 16u

struct pagoda_memory {
    uint64_t budget_bytes; /* as it is now: pagoda_cache_set_budget moves it */
    uint64_t opened_bytes; /* as the cache was opened with */
    uint64_t used_bytes;   /* sum of by_category */
    uint64_t peak_bytes;   /* highest used_bytes since open */
    uint64_t by_category[PAGODA_MEMORY_CATEGORIES];
    uint64_t live_row_bytes;        /* K and V rows of held tokens now */
    uint64_t frame_bytes;           /* frames in use now */
    double utilisation_at_peak;     /* live row bytes / frame bytes when frame bytes were highest */
    uint64_t tokens_capacity;       /* tokens that fit when all layers hold them, in the smallest codec allowed,
                                     * tokens_max considered */
    uint64_t tokens_max;            /* of the options; 0: none */
    uint64_t bytes_per_token;       /* K and V rows of one token in all layers */
    uint64_t evicted_pages;         /* pages dropped by the policy since open or reset */
    uint64_t reencoded_pages;       /* pages made smaller since open or reset, each step counted */
    uint64_t released_window_pages; /* pages freed because a window layer has passed them */
    uint64_t flash_bytes;           /* of the spill file in use */
    uint64_t flash_bytes_written;   /* since open */
    uint64_t flash_bytes_read;
    uint64_t spilled_pages;   /* written to flash since open or reset */
    uint64_t recalled_pages;  /* back in memory for more than one token */
    uint64_t collapsed_pages; /* given up for their digests since open or reset, when flash took nothing more */
    uint64_t late_pages;      /* wanted, but not there in time: their digest stood in */
    uint64_t lost_pages;  /* could not be read any more, or not as they were written: nothing but a digest is left */
    uint64_t stalled_ns;  /* time that tokens waited for flash */
    uint32_t digest_tokens; /* that share a digest; 0: this cache has no flash tier */
    bool flash_is_direct;   /* the page cache is not involved */
    const char *flash_problem; /* why nothing more is written; NULL: all is well. Valid until the next batch */
};
PAGODA_API void pagoda_cache_memory(const struct pagoda_cache *cache, struct pagoda_memory *memory);

/* Bytes of K and V rows that attention reads for the next token, as they are encoded now: what windows hide is not
 * counted. */
PAGODA_API uint64_t pagoda_cache_read_bytes(const struct pagoda_cache *cache);

/* One run of the page map. */
enum pagoda_page_state {
    PAGODA_PAGE_ABSENT = 0, /* dropped */
    PAGODA_PAGE_OPEN,       /* being written */
    PAGODA_PAGE_SEALED,     /* full and immutable */
    PAGODA_PAGE_CLEAN,      /* as sealed, with a copy on flash */
    PAGODA_PAGE_SPILLED,    /* on flash only */
    PAGODA_PAGE_COLLAPSED   /* nothing is left but its digest */
};
struct pagoda_span {
    uint64_t first; /* position of its first token */
    uint64_t count; /* tokens */
    enum pagoda_page_state state;
    enum pagoda_codec codec; /* of its pages; f16 when absent */
    bool pinned;
};

/* Calls `visit` for every page of the sequence in token order, dropped runs merged into one span,
 * until it returns false. Spans cover [0, position) without gap or overlap. */
PAGODA_API void pagoda_cache_visit(const struct pagoda_cache *cache,
                                   bool (*visit)(void *user, const struct pagoda_span *span), void *user);

/* ---- what a reply draws on ---- */

/* A page, and which share of the attention of single tokens went to it, over all heads of the layers that see all text
 * (of all layers, when every one has a window). Pages that were not read count by what their digests expect. */
struct pagoda_draw {
    struct pagoda_span span;
    double share; /* 0 .. 1 */
};

struct pagoda_draws {
    bool counted;   /* false: no single token was attended since draws_begin, or options.counts_draws was not set */
    uint64_t since; /* position of the first token that was counted */
    double gone;    /* share of pages that were dropped or taken back since; with those of all others it makes 1 */
};

/* Forgets what was counted, and counts from the next single token on: call it at the start of a reply. No effect while
 * a batch is open, or without options.counts_draws. */
PAGODA_API void pagoda_cache_draws_begin(struct pagoda_cache *cache);

/* What has been counted so far. `visit` (may be NULL) hears of the pages as from pagoda_cache_visit, and the shares of
 * those that are there; it is not called when nothing was counted. Not while a batch is open. */
PAGODA_API void pagoda_cache_draws(const struct pagoda_cache *cache, struct pagoda_draws *draws,
                                   bool (*visit)(void *user, const struct pagoda_draw *draw), void *user);

#ifdef __cplusplus
}
#endif
#endif
