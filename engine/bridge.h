/* engine/bridge.h - stock libllama with pagoda's attention inside.
 *
 * A bridge joins one model, one llama_context as long as one batch, and one pagoda cache. In the
 * scheduler's ask pass the cache-writing and attention nodes of the graph are rewritten into custom
 * operations that call pagoda_cache_ingest and pagoda_cache_attend inside ggml's own thread team.
 * Positions are true positions; llama's own KV buffer is only touched while the bridge proves itself.
 *
 * The canary: at open a few tokens run once through the stock path and once through pagoda's; the
 * outputs must agree within f16 noise, and every attention layer must have been reached once.
 *
 * Threads: one thread owns a bridge.
 */
#ifndef PGD_ENGINE_BRIDGE_H
#define PGD_ENGINE_BRIDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/model.h"
#include "pagoda/pagoda.h"

#define PGD_BRIDGE_BATCH 256u /* most tokens of one decode, and the length of llama's own context */

/* What happens when the budget is full; as in struct pagoda_cache_options. */
struct pgd_bridge_rule {
    enum pagoda_on_full on_full;
    enum pagoda_codec codec;
    enum pagoda_codec codec_tight;
};

struct pgd_bridge_options {
    uint64_t kv_bytes;     /* the hard budget of all KV state; 0: automatic (design.md section 7) */
    uint64_t kv_bytes_max; /* ... and not more than this; 0: no such bound */
    uint64_t
        process_bytes; /* --mem: the hard budget of the whole process, which may leave less for KV state; 0: none */
    bool is_governed;  /* the KV budget follows what the system has: engine/pressure.h */
    const char *system_root; /* where the files of the system are for that; NULL: the real ones */
    uint64_t tokens_max;     /* -c: most tokens held at once; 0: as many as the budget holds */
    uint32_t page_tokens;    /* 0: 16 */
    uint32_t threads;        /* decode; 0: all CPUs */
    uint32_t threads_batch;  /* prefill; 0: as threads */
    uint32_t outputs_max;    /* most logit rows of one decode; 0: 1 */
    enum pagoda_codec codec; /* as in struct pagoda_cache_options */
    enum pagoda_codec codec_tight;
    enum pagoda_on_full on_full;
    bool is_wish; /* codecs and on_full are one: where they cannot be had, or hold less text, `otherwise` is taken */
    struct pgd_bridge_rule otherwise;
    struct pagoda_policy policy;
    struct pagoda_flash_options flash; /* for PAGODA_ON_FULL_SPILL */
    uint64_t rollback_tokens;          /* how many tokens can be taken back at any time, also in window layers */
    bool counts_draws;                 /* keep an account of what replies draw on, and the tokens of the sequence */
    bool keep_gaps;                    /* do not close position gaps past the trained length */
    const char *cpu;                   /* kernel level; NULL: best */
    const struct pagoda_system *system;
};

struct pgd_bridge;

/* Errors: OVER_BUDGET, UNSUPPORTED (the canary or the structure check failed; the message says which),
 * NOMEM, INVALID. */
PAGODA_MUST_CHECK enum pagoda_status pgd_bridge_open(const struct pgd_model *model,
                                                     const struct pgd_bridge_options *options,
                                                     struct pgd_bridge **bridge, struct pagoda_error *error);
void pgd_bridge_close(struct pgd_bridge *bridge);

/* The cache, for account, pins, policy, map. Do not open batches on it. */
struct pagoda_cache *pgd_bridge_cache(struct pgd_bridge *bridge);
const struct pgd_model *pgd_bridge_model(const struct pgd_bridge *bridge);

/* The rule for a full budget that the cache follows now. */
enum pagoda_on_full pgd_bridge_on_full(const struct pgd_bridge *bridge);

/* Why that was not, at open, the rule that was wished for, in a few words; NULL: it was. */
const char *pgd_bridge_fallback(const struct pgd_bridge *bridge);

/* Appends `count` tokens (1 .. PGD_BRIDGE_BATCH) at the end of the sequence and computes logits for the
 * last `outputs` of them (0 .. outputs_max). On failure the sequence is as before. Errors: FULL,
 * OVER_BUDGET, CANCELLED (pgd_bridge_cancel), INVALID, NOMEM, POISONED; BUSY when a long batch was given up because
 * memory is needed elsewhere: the next decode gives it back, and should have pgd_bridge_batch_now tokens at most. */
PAGODA_MUST_CHECK enum pagoda_status pgd_bridge_decode(struct pgd_bridge *bridge, const int32_t *tokens, uint32_t count,
                                                       uint32_t outputs, struct pagoda_error *error);

/* How many tokens a decode should have at most: PGD_BRIDGE_BATCH, or fewer while memory is short and the machine slow,
 * so that memory can be given back in between. */
uint32_t pgd_bridge_batch_now(const struct pgd_bridge *bridge);

/* Logits of output `index` (0 .. outputs-1) of the last decode: [vocabulary], valid until the next one. */
const float *pgd_bridge_logits(struct pgd_bridge *bridge, uint32_t index);

/* The tokens of the sequence, as many as its position says; NULL without counts_draws. Valid until the next decode. */
const int32_t *pgd_bridge_tokens(const struct pgd_bridge *bridge);

/* Makes the decode that is running, or the next one, end with CANCELLED as soon as it can. Async-signal-safe. */
void pgd_bridge_cancel(struct pgd_bridge *bridge);

/* Who hears of every decode once it is over, however it went; `decoded` may look at the cache. NULL: nobody. */
struct pgd_bridge_watcher {
    void (*decoded)(void *user, uint32_t count, double seconds, enum pagoda_status status);
    void *user;
};
void pgd_bridge_watch(struct pgd_bridge *bridge, const struct pgd_bridge_watcher *watcher);

/* Lets the threads sleep until the next decode. They would otherwise spin for a moment, in case more comes, and be
 * in the way of others. */
void pgd_bridge_rest(struct pgd_bridge *bridge);

/* Who watches the memory, and moves the budget before a decode; NULL when it is not governed. */
struct pgd_pressure;
struct pgd_pressure *pgd_bridge_pressure(struct pgd_bridge *bridge);

/* The attention layers, as the probe found them; valid as long as the bridge. */
uint32_t pgd_bridge_layer_count(const struct pgd_bridge *bridge);
const struct pagoda_layer *pgd_bridge_layer(const struct pgd_bridge *bridge, uint32_t index);

/* Memory that the bridge itself accounts for, beside the cache. */
struct pgd_bridge_memory {
    uint64_t weights_bytes; /* tensors of the model */
    uint64_t compute_bytes; /* llama's compute and output buffers */
    uint64_t process_bytes; /* everything but KV state, as measured at the start and at most: weights, mapped ones
                             * included, compute buffers, libraries, tables of the vocabulary */
};
void pgd_bridge_memory(const struct pgd_bridge *bridge, struct pgd_bridge_memory *memory);

#endif
