/* engine/probe.h - finding out, before any real token, how a model attends; and the proof that we do the same.
 *
 * All of it runs the model on a few tokens through the bridge's own context. Nothing is
 * believed from file metadata that the graph itself can tell.
 *
 * Threads: the caller's.
 */
#ifndef PGD_ENGINE_PROBE_H
#define PGD_ENGINE_PROBE_H

#include "engine/hook.h"
#include "engine/model.h"

struct llama_context;

/* Runs one batch of `count` tokens at `position` in a context, logits for the last. */
PAGODA_MUST_CHECK enum pagoda_status pgd_probe_decode(struct llama_context *context, const int32_t *tokens,
                                                      uint32_t count, int32_t position, struct pagoda_error *error);

/* Reads every attention layer (OBSERVE) and finds which of them have the sliding window: by moving one
 * token exactly to the edge of the window and looking at the masks. Errors: UNSUPPORTED (the message says what). */
PAGODA_MUST_CHECK enum pagoda_status pgd_probe_layers(struct llama_context *context, const struct pgd_model *model,
                                                      struct pgd_hook *hook, struct pagoda_error *error);

/* The canary. SHADOW: every layer's attention on the same inputs, ours against stock, within
 * PGD_CANARY_LAYER_ERROR. SERVE: the same tokens through the rewritten graph, every operation run once by each of
 * `threads_batch` (`threads` for the last, single token) threads, and the distribution of the next token within
 * PGD_CANARY_KLD of the stock one. Leaves the hook in SERVE and the cache empty. */
#define PGD_CANARY_LAYER_ERROR 0.02f
#define PGD_CANARY_KLD 0.05
PAGODA_MUST_CHECK enum pagoda_status pgd_probe_canary(struct llama_context *context, const struct pgd_model *model,
                                                      struct pgd_hook *hook, struct pagoda_cache *cache,
                                                      uint32_t threads, uint32_t threads_batch,
                                                      struct pagoda_error *error);

#endif
