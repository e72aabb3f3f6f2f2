/* engine/reserve.h - the cache that the engine opens for a model, decided in one place.
 *
 * The bridge opens what is decided here, and the planner (plan.h) tells it without opening anything: so what was
 * planned is what is reserved, to the byte.
 *
 * Pure but for two questions to the machine: how many CPUs, and how much memory is available (only for a budget of 0).
 * Threads: any.
 */
#ifndef PGD_ENGINE_RESERVE_H
#define PGD_ENGINE_RESERVE_H

#include "engine/bridge.h"

/* Threads that decode: those that were asked for, or all CPUs. */
uint32_t pgd_reserve_threads(const struct pgd_bridge_options *options);

/* The options of a cache with these layers, for a model that was trained on `trained` tokens: what was asked for, with
 * defaults filled in. Its budget is the one asked for, 0 included. *cache borrows `layers`. */
void pgd_reserve_options(const struct pgd_bridge_options *options, const struct pagoda_layer *layers,
                         uint32_t layer_count, uint64_t trained, struct pagoda_cache_options *cache);

/* The budget that holds `tokens` tokens as they settle: in f16 as if nothing ever had to become smaller, or in the
 * codec that was asked for. Errors: those of pagoda_cache_budget_for. */
PAGODA_MUST_CHECK enum pagoda_status pgd_reserve_budget(const struct pagoda_cache_options *cache, uint64_t tokens,
                                                        uint64_t *bytes, struct pagoda_error *error);

/* Options that only lack a budget when theirs is 0 get one; and when re-encoding under pressure would hold fewer tokens
 * than doing without, as it does in a very small budget, they do without. Errors: those of pagoda_cache_plan. */
PAGODA_MUST_CHECK enum pagoda_status pgd_reserve_settle(struct pagoda_cache_options *cache, uint64_t trained,
                                                        struct pagoda_reservation *reservation,
                                                        struct pagoda_error *error);

/* What was decided. */
struct pgd_reserved {
    struct pagoda_cache_options cache; /* to open a cache with */
    struct pagoda_reservation reservation;
    struct pagoda_error fallback; /* its status is OK, or it says why the rule that was wished for does not hold */
};

/* All of it. A wish is granted when it can be had and holds at least as many tokens as what holds otherwise. */
PAGODA_MUST_CHECK enum pagoda_status pgd_reserve_plan(const struct pgd_bridge_options *options,
                                                      const struct pagoda_layer *layers, uint32_t layer_count,
                                                      uint64_t trained, struct pgd_reserved *reserved,
                                                      struct pagoda_error *error);

/* The options without the wish. */
struct pgd_bridge_options pgd_reserve_otherwise(const struct pgd_bridge_options *options);

#endif
