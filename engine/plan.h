/* engine/plan.h - what a model takes in memory, before it is loaded.
 *
 * The bytes of the cache are not estimated: they come from the same two functions that size the cache when it is opened
 * (reserve.h), given the layers that the header speaks of. Compute buffers are estimated from the widths of the layers,
 * and come within 5 % for plain decoders; weights are the sum of the tensors.
 *
 * Ownership: a plan borrows its shape. Threads: one; two plans are independent.
 */
#ifndef PGD_ENGINE_PLAN_H
#define PGD_ENGINE_PLAN_H

#include "engine/reserve.h"
#include "engine/shape.h"

struct pgd_plan;

/* The options that matter are those of the bridge; their kv_bytes and codecs are replaced by what is asked below.
 * Errors: NOMEM, INVALID (no layer keeps anything). */
PAGODA_MUST_CHECK enum pagoda_status pgd_plan_open(const struct pgd_shape *shape,
                                                   const struct pgd_bridge_options *options, struct pgd_plan **plan,
                                                   struct pagoda_error *error);
void pgd_plan_close(struct pgd_plan *plan);

/* What one conversation keeps, apart from pages and tables. */
struct pgd_plan_rows {
    uint64_t growing_bytes; /* f16 rows of each further token, once all windows are full */
    uint64_t token_bytes;   /* of a token while every layer holds it */
    uint64_t window_bytes;  /* of all layers with a window, once it is full: fixed */
    uint64_t state_bytes;   /* of states that do not grow */
    uint32_t attending;     /* layers with keys and values */
    uint32_t windowed;      /* of those, with a window */
    uint32_t recurrent;     /* layers with a state */
    bool is_latent;         /* keys and values are one vector: rows are all that can be told */
};
struct pgd_plan_rows pgd_plan_rows(const struct pgd_plan *plan);

/* Bytes of f16 rows and states of `tokens` tokens, without pages, tables and scratch: the textbook figure. */
uint64_t pgd_plan_row_bytes(const struct pgd_plan *plan, uint64_t tokens);

/* Whether budgets can be told: there are layers with keys and values, and none is latent. */
bool pgd_plan_has_budgets(const struct pgd_plan *plan);

/* What the engine decides for a KV budget of kv_bytes (0: as for --kv auto) and
 * `tokens_max` tokens (0: what the model was trained for). Budgets that are told from then on are those of the rule
 * that was found. Errors: those of pgd_reserve_plan. */
PAGODA_MUST_CHECK enum pagoda_status pgd_plan_settle(struct pgd_plan *plan, uint64_t kv_bytes, uint64_t tokens_max,
                                                     struct pgd_reserved *reserved, struct pagoda_error *error);

/* What pages settle to, and what they become under pressure, as in pagoda/cache.h. */
struct pgd_plan_codec {
    enum pagoda_codec settled;
    enum pagoda_codec tight;
};

/* The KV budget that holds `tokens` tokens, all of them as they settle. Errors: those of pagoda_cache_budget_for. */
PAGODA_MUST_CHECK enum pagoda_status pgd_plan_budget(const struct pgd_plan *plan, struct pgd_plan_codec codec,
                                                     uint64_t tokens, uint64_t *bytes, struct pagoda_error *error);

/* How a KV budget would be divided without a flash tier; 0: as for --kv auto. `tokens_max` is -c; 0: what the model was
 * trained for; UINT64_MAX: as many as there is room for. Errors: those of pagoda_cache_plan. */
PAGODA_MUST_CHECK enum pagoda_status pgd_plan_reserve(const struct pgd_plan *plan, struct pgd_plan_codec codec,
                                                      uint64_t budget_bytes, uint64_t tokens_max,
                                                      struct pagoda_reservation *reservation,
                                                      struct pagoda_error *error);

/* The library's compute and output buffers; 0: not known for this kind of model. */
uint64_t pgd_plan_compute_bytes(const struct pgd_plan *plan);

#endif
