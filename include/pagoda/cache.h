/* pagoda/cache.h - a KV cache of fixed-size pages under one hard byte budget.
 *
 * What it is
 *   The keys and values of one sequence, for all attention layers of a model. The cache knows
 *   nothing of models: it is told how many layers there are and of what shape, it gets rows, and it
 *   answers attention queries over everything it still holds.
 *
 * One batch, step by step
 *       pagoda_cache_begin(cache, n, &error);              // room is made, or a typed refusal
 *       for each layer:                                    // by 1..threads_max threads, all layers in turn
 *           pagoda_cache_ingest(cache, layer, PAGODA_KEYS, ...);     // barrier
 *           pagoda_cache_ingest(cache, layer, PAGODA_VALUES, ...);   // barrier
 *           pagoda_cache_attend(cache, layer, ...);                  // barrier
 *       pagoda_cache_end(cache, &error);                   // or pagoda_cache_abort(cache)
 *   Token positions are given by the cache: 0, 1, 2, ... in the order of arrival, also past drops.
 *
 * Promises
 *   The bytes held never exceed the budget: pages, tables, staging and scratch are all counted, and
 *   nothing is taken before the ledger admits it. No memory is allocated between open and close.
 *   The result of attend does not depend on page size, budget, thread count or how tokens were
 *   batched, as long as nothing was dropped, re-encoded, or left unread on flash. What was is counted, never hidden.
 *   attend waits for nothing but pages that come from flash (PAGODA_ON_FULL_SPILL).
 *
 * Ownership: the cache copies its options; `system` tables must outlive it. Rows and outputs are the caller's.
 * Threads: one thread owns the cache. Only ingest and attend may be called by several threads at
 *   once: by all members of one team, each with its own `thread` number, on the same layer, with a
 *   barrier of the caller between the calls as drawn above.
 */
#ifndef PAGODA_CACHE_H
#define PAGODA_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pagoda/codec.h"
#include "pagoda/policy.h"
#include "pagoda/status.h"
#include "pagoda/system.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits. */
#define PAGODA_LAYERS_MAX 1024u
#define PAGODA_HEADS_MAX 1024u
#define PAGODA_HEAD_SIZE_MAX 1024u
#define PAGODA_THREADS_MAX 256u
#define PAGODA_BATCH_MAX 4096u
#define PAGODA_PAGE_TOKENS_MAX 256u

/* How a layer turns positions into rotations of its keys (RoPE). Needed only to close position gaps. */
struct pagoda_rope {
    uint32_t pair_count;       /* rotated pairs of coordinates; 0: this layer does not rotate */
    bool split_pairs;          /* false: pairs (2j, 2j+1); true: pairs (j, j + pair_count) */
    const double *frequencies; /* [pair_count] radians per position */
};

/* The shape of one attention layer. */
struct pagoda_layer {
    uint32_t kv_heads;    /* 1 .. PAGODA_HEADS_MAX */
    uint32_t query_heads; /* a multiple of kv_heads; query head h uses KV head h / (query_heads / kv_heads) */
    uint32_t key_size;    /* 1 .. PAGODA_HEAD_SIZE_MAX */
    uint32_t value_size;  /* 1 .. PAGODA_HEAD_SIZE_MAX */
    uint32_t window;      /* a query sees keys less than `window` positions back; 0: all of them */
    float scale;          /* multiplies q.k, mostly 1 / sqrt(key_size) */
    float softcap;        /* s = softcap * tanh(s / softcap); 0: none */
    const float *sinks;   /* [query_heads] learned sink logits that join the softmax, or NULL */
    struct pagoda_rope rope;
};

struct pgd_vfs; /* of no use to a host */

/* What becomes of the oldest pages when flash takes nothing more. */
enum pagoda_on_flash_full {
    PAGODA_ON_FLASH_FULL_COLLAPSE = 0, /* their digests stay and stand in for them; dropped is only what has none left
                                        * to make, the oldest of those digests first */
    PAGODA_ON_FLASH_FULL_DROP          /* the policy drops them */
};

/* Ways to choose the pages that a single token reads, to measure pagoda's own against. Slow; not for users. */
enum pagoda_yardstick {
    PAGODA_YARDSTICK_NONE = 0,
    PAGODA_YARDSTICK_RANDOM, /* as many pages as it would have read, by lot */
    PAGODA_YARDSTICK_ORACLE  /* by the attention they really have: all pages are read to know it */
};

/* Where pages go with PAGODA_ON_FULL_SPILL, and how they come back. Zero-initialise, then set what matters. */
struct pagoda_flash_options {
    const char *directory;       /* of the nameless spill file; NULL: the user's cache directory */
    uint64_t bytes_max;          /* most bytes of the file in use; 0: as many as the file system has to spare */
    uint64_t reserve_bytes;      /* free bytes of the file system that are left to others; 0: 256 MiB */
    uint64_t write_budget_bytes; /* most bytes written while the cache is open; 0: no bound */
    uint64_t bytes_per_second;   /* paces reads, to see what a slower device would do; 0: as fast as it goes */
    bool read_all;               /* attend to every page, whatever is expected of it: exact, and slow */
    double recall;               /* share of the attention that the pages read must be expected to have,
                                  * unless what is left is spread out; 0: 0.95 */
    const struct pgd_vfs *files; /* for tests: calls that may fail; NULL: the system's */
    uint32_t stall_ms;           /* most milliseconds that a single token waits for flash; pages that are later are
                                  * stood in for by their digest. 0: wait as long as it takes */
    enum pagoda_yardstick yardstick;
    enum pagoda_on_flash_full
        on_full; /* bytes_max, the file system or write_budget_bytes is used up, or writing fails */
};

/* Options of a cache; start from pagoda_cache_options_default. */
struct pagoda_cache_options {
    size_t struct_size; /* sizeof(struct pagoda_cache_options), so that it can grow */
    const struct pagoda_layer *layers;
    uint32_t layer_count;
    uint32_t page_tokens;          /* a multiple of 16 up to PAGODA_PAGE_TOKENS_MAX; default 16 */
    uint32_t batch_tokens;         /* most tokens in one batch; default 256. Where memory is tight it may have fewer:
                                    * pagoda_cache_room */
    uint32_t threads_max;          /* most threads in a team; default 1 */
    uint64_t budget_bytes;         /* the hard budget */
    uint64_t tokens_max;           /* most tokens held at once; 0: as many as the budget holds */
    uint64_t reserved_bytes;       /* bytes the caller holds on account of this cache: counted as staging */
    uint64_t close_gaps_at;        /* from this position on, position gaps are closed (the trained length); 0: never */
    enum pagoda_codec codec;       /* what full pages become once they are neither first nor recent; default f16 */
    enum pagoda_codec codec_tight; /* the smallest codec that pages may be re-encoded to before something leaves; not
                                    * larger than `codec`. The default, f16, stands for `codec`: no re-encoding.
                                    * From f16 to less than k8v4, pages go by way of k8v4 */
    uint32_t exact_first;          /* tokens at the start that are never re-encoded; default 16 */
    uint32_t exact_recent;         /* latest tokens that are never re-encoded; default 128. With SPILL, in a budget that
                                    * would not hold tokens_max tokens otherwise, as few as 16 */
    enum pagoda_on_full on_full;
    struct pagoda_policy policy;       /* with PAGODA_ON_FULL_SPILL: who goes first once flash is full too */
    struct pagoda_flash_options flash; /* for PAGODA_ON_FULL_SPILL */
    uint64_t rollback_tokens; /* the last so many tokens can be taken back: window layers keep their pages, and all
                               * layers their exact rows, this much longer; default 0: as far as they happen to */
    bool counts_draws;        /* keep an account of what single tokens draw on: pagoda_cache_draws. Takes some memory
                               * of the budget, and less than 1 % of a token's time */
    const char *cpu;          /* kernel level: NULL or "auto", or a name of pagoda_cpu_levels */
    const struct pagoda_system *system; /* NULL: the defaults */
};

struct pagoda_cache;

PAGODA_API void pagoda_cache_options_default(struct pagoda_cache_options *options);

/* Opens an empty cache. Errors: INVALID (options), OVER_BUDGET (the budget does not hold one page
 * per layer; the message says what is needed), NOMEM, UNSUPPORTED (a CPU level that is not here,
 * or spilling when all layers have windows), and with SPILL NOT_FOUND and IO (the directory of the file). */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status
pagoda_cache_open(const struct pagoda_cache_options *options, struct pagoda_cache **cache, struct pagoda_error *error);

/* How large a budget must be for `tokens` tokens, under these options and whatever their budget_bytes
 * says: *bytes is what a cache would hold at most, to the byte. Errors: those of pagoda_cache_open. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_budget_for(const struct pagoda_cache_options *options,
                                                                        uint64_t tokens, uint64_t *bytes,
                                                                        struct pagoda_error *error);

/* How pagoda_cache_open divides a budget. */
struct pagoda_reservation {
    uint64_t budget_bytes;
    uint64_t tables_bytes;  /* as PAGODA_MEMORY_TABLES of a cache that was just opened ... */
    uint64_t staging_bytes; /* ... and PAGODA_MEMORY_STAGING */
    uint64_t arena_bytes;   /* for pages; taken one by one as tokens come */
    uint64_t tokens_capacity;
    uint64_t tokens_in_memory;      /* of these, how many have come when the first page must go to flash */
    uint64_t flash_bytes_per_token; /* what a token takes there; 0: this cache has no flash tier */
    uint32_t digest_tokens;         /* that share a digest: PAGODA_DIGEST_TOKENS, and more when the budget is tight */
    uint32_t exact_recent;          /* of the options, or what a tight budget leaves of it ... */
    uint32_t batch_tokens;          /* ... and likewise */
    uint64_t bytes_per_token;       /* K and V rows in f16, all layers */
};

/* What pagoda_cache_open would do with these options, to the byte, without doing it: nothing of the budget's size is
 * allocated. Errors: those of pagoda_cache_open. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_plan(const struct pagoda_cache_options *options,
                                                                  struct pagoda_reservation *reservation,
                                                                  struct pagoda_error *error);

/* Frees everything. NULL is allowed. */
PAGODA_API void pagoda_cache_close(struct pagoda_cache *cache);

/* How many tokens, at most `wanted`, one batch may bring now under the rules for a full budget.
 * With PAGODA_ON_FULL_STOP this is the room that is left; with EVICT, what fits once all that may
 * leave has left; with SPILL, what surely fits once pages have gone to flash: for a larger batch old text might have to
 * be dropped. */
PAGODA_API uint32_t pagoda_cache_room(const struct pagoda_cache *cache, uint32_t wanted);

/* Opens a batch of token_count tokens: re-encodes full pages and evicts as the options say, then
 * reserves every page that the batch needs, so that nothing can fail half-way. On failure nothing has been
 * reserved, and nothing evicted unless the message says so; pages may have become smaller. Errors: FULL,
 * OVER_BUDGET (more than can ever fit at once), BUSY (a batch is open), INVALID (0 or more than batch_tokens). */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_begin(struct pagoda_cache *cache, uint32_t token_count,
                                                                   struct pagoda_error *error);

enum pagoda_side { PAGODA_KEYS = 0, PAGODA_VALUES = 1 };

/* Takes the rows of all tokens of the batch for one layer: row t is `rows + t * row_stride` floats,
 * [kv_heads][key_size] (or value_size) packed. Thread `thread` of `threads` does its share.
 * Errors: INVALID (no batch, no such layer, thread numbers). */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_ingest(struct pagoda_cache *cache, uint32_t layer,
                                                                    enum pagoda_side side, const float *rows,
                                                                    size_t row_stride, uint32_t thread,
                                                                    uint32_t threads);

/* Query rows: token t, head h at data + t * token_stride + h * head_stride (in floats). */
struct pagoda_queries {
    const float *data;
    size_t token_stride;
    size_t head_stride;
};

/* Outputs: token t, head h at data + t * token_stride + h * head_stride, value_size floats. */
struct pagoda_outputs {
    float *data;
    size_t token_stride;
    size_t head_stride;
};

/* Attends from every token of the batch to all that came before it and to itself, as far as it is
 * held and inside the layer's window. Thread `thread` of `threads` does its share; outputs are
 * complete once all have returned. Errors: INVALID as above. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_attend(struct pagoda_cache *cache, uint32_t layer,
                                                                    const struct pagoda_queries *queries,
                                                                    const struct pagoda_outputs *outputs,
                                                                    uint32_t thread, uint32_t threads);

/* Closes the batch: its tokens now belong to the sequence. Errors: MISMATCH when a layer was not
 * given both sides (the batch is aborted then), INVALID without a batch. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_end(struct pagoda_cache *cache,
                                                                 struct pagoda_error *error);

/* Forgets the open batch, if there is one. What it evicted stays evicted. */
PAGODA_API void pagoda_cache_abort(struct pagoda_cache *cache);

/* Takes the last token_count tokens back. Errors: RANGE when they are more than the sequence has, or
 * reach before a page that a window layer has freed since (pagoda_cache_rollback_floor), or end inside a page that
 * was dropped or re-encoded; BUSY. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_rollback(struct pagoda_cache *cache, uint64_t token_count,
                                                                      struct pagoda_error *error);

/* The smallest position that a rollback may return to. */
PAGODA_API uint64_t pagoda_cache_rollback_floor(const struct pagoda_cache *cache);

/* Empties the cache; pins are forgotten. Errors: BUSY. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_reset(struct pagoda_cache *cache,
                                                                   struct pagoda_error *error);

/* Pins, or unpins, every page that holds a token of [first, first + count) and is still there.
 * Pages are pinned whole. Errors: RANGE when positions lie past the end; FULL when pinning would
 * leave no room for one page of new tokens per layer; BUSY. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_pin(struct pagoda_cache *cache, uint64_t first,
                                                                 uint64_t count, struct pagoda_error *error);
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_unpin(struct pagoda_cache *cache, uint64_t first,
                                                                   uint64_t count, struct pagoda_error *error);

/* Replaces the rules for a full budget; takes effect with the next batch. Errors: INVALID, UNSUPPORTED
 * (spill, in a cache that was not opened with it), BUSY. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_set_policy(struct pagoda_cache *cache,
                                                                        enum pagoda_on_full on_full,
                                                                        const struct pagoda_policy *policy,
                                                                        struct pagoda_error *error);

/* Moves the budget between batches, when the system wants memory back or has some again: to any size from
 * pagoda_cache_budget_floor up to what the cache was opened with. Smaller: pages are moved together, re-encoded smaller
 * as far as the codecs of the options go, and then leave as the rules for a full budget say, until all that is left
 * fits; what is pinned stays. The memory they had goes back to the system before this returns. Larger: nothing
 * happens at once, there is only more room. The budget holds at every step, and tokens_capacity of the memory
 * report follows it. Errors: BUSY; RANGE (more than it was opened with); OVER_BUDGET (the message names the floor):
 * then the budget is as before, and nothing has left, but pages may have become smaller. */
PAGODA_API PAGODA_MUST_CHECK enum pagoda_status pagoda_cache_set_budget(struct pagoda_cache *cache, uint64_t bytes,
                                                                        struct pagoda_error *error);

/* The smallest budget that can be set now: what is pinned or may not leave, everything else as small as it can be made,
 * and one page of room in each layer. Not more than the budget as it is. */
PAGODA_API uint64_t pagoda_cache_budget_floor(const struct pagoda_cache *cache);

/* Position of the next token: how many tokens the sequence has had. */
PAGODA_API uint64_t pagoda_cache_position(const struct pagoda_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
