/* engine/stock.h - the same model on libllama's own KV cache and attention: the yardstick.
 *
 * Used by the benchmarks and the evaluation only. Threads: one thread owns a struct pgd_stock.
 *
 * Sliding windows: libllama forgets what a window has passed, so a rewind across more than a window leaves the
 * layers with windows without their past. pgd_stock_mark and pgd_stock_return keep it.
 */
#ifndef PGD_ENGINE_STOCK_H
#define PGD_ENGINE_STOCK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/model.h"

struct pgd_stock;

/* Which of the library's attention paths. */
enum pgd_stock_path {
    PGD_STOCK_FLASH,  /* one fused node per layer */
    PGD_STOCK_CLASSIC /* matrix product, softmax, matrix product */
};

struct pgd_stock_options {
    enum pgd_stock_path path;
    bool quantized; /* q8_0 keys and values (flash only) */
    uint32_t context_tokens;
    uint32_t batch_tokens; /* most tokens of one decode */
    uint32_t outputs_max;
    uint32_t threads;                    /* 0: all CPUs */
    const volatile sig_atomic_t *cancel; /* a decode stops soon after this becomes true; NULL: never */
};

/* "stock flash", "stock classic", "stock flash q8_0". */
const char *pgd_stock_name(const struct pgd_stock_options *options);

PAGODA_MUST_CHECK enum pagoda_status pgd_stock_open(const struct pgd_model *model,
                                                    const struct pgd_stock_options *options, struct pgd_stock **stock,
                                                    struct pagoda_error *error);
void pgd_stock_close(struct pgd_stock *stock);

/* Appends tokens; logits for the last `outputs`. Errors: FULL when the context is full, CANCELLED. */
PAGODA_MUST_CHECK enum pagoda_status pgd_stock_decode(struct pgd_stock *stock, const int32_t *tokens, uint32_t count,
                                                      uint32_t outputs, struct pagoda_error *error);
const float *pgd_stock_logits(struct pgd_stock *stock, uint32_t index);

/* Takes all tokens after `position` back. */
void pgd_stock_rewind(struct pgd_stock *stock, uint64_t position);

/* Remembers the position, and goes back to it as often as wanted. Errors: NOMEM, UNSUPPORTED. */
PAGODA_MUST_CHECK enum pagoda_status pgd_stock_mark(struct pgd_stock *stock, struct pagoda_error *error);
PAGODA_MUST_CHECK enum pagoda_status pgd_stock_return(struct pgd_stock *stock, struct pagoda_error *error);

/* As pgd_bridge_rest. */
void pgd_stock_rest(struct pgd_stock *stock);

#endif
