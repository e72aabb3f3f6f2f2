/* engine/stock.c - see stock.h. */
#include "engine/stock.h"

#include <stdlib.h>

#include "base/status.h"
#include "engine/log.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "os/os.h"

struct pgd_stock {
    struct llama_context *context;
    struct ggml_threadpool *pool;
    struct llama_batch batch;
    uint64_t position;
    uint32_t batch_tokens;
    uint32_t last_count;
    uint32_t last_outputs;
    const volatile sig_atomic_t *cancel;
    bool has_windows;
    uint64_t marked_position;
    uint8_t *marked_windows; /* what the layers with windows held there */
    size_t marked_bytes;
};

const char *pgd_stock_name(const struct pgd_stock_options *options)
{
    if (options->path == PGD_STOCK_CLASSIC) {
        return "stock classic";
    }
    return options->quantized ? "stock flash q8_0" : "stock flash";
}

static bool should_abort(void *user)
{
    const struct pgd_stock *stock = user;
    return stock->cancel != NULL && *stock->cancel != 0;
}

enum pagoda_status pgd_stock_open(const struct pgd_model *model, const struct pgd_stock_options *options,
                                  struct pgd_stock **out, struct pagoda_error *error)
{
    struct pgd_stock *stock = calloc(1, sizeof(*stock));
    if (stock == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for the stock engine");
    }
    const uint32_t threads = options->threads != 0 ? options->threads : pgd_os_cpu_count();
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = options->context_tokens;
    params.n_batch = options->batch_tokens;
    params.n_ubatch = options->batch_tokens;
    params.n_seq_max = 1;
    params.n_outputs_max = options->outputs_max;
    params.n_threads = (int32_t) threads;
    params.n_threads_batch = (int32_t) threads;
    params.flash_attn_type =
        options->path == PGD_STOCK_FLASH ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = options->quantized ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    params.type_v = options->quantized ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    params.swa_full = false;
    params.op_offload = false;
    params.no_perf = true;
    params.abort_callback = should_abort;
    params.abort_callback_data = stock;
    stock->cancel = options->cancel;
    stock->has_windows = pgd_model_get_info(model)->window != 0;
    pgd_log_reset();
    stock->context = llama_init_from_model(pgd_model_llama(model), params);
    struct ggml_threadpool_params pool = ggml_threadpool_params_default((int) threads);
    stock->pool = ggml_threadpool_new(&pool);
    stock->batch = llama_batch_init((int32_t) options->batch_tokens, 0, 1);
    stock->batch_tokens = options->batch_tokens;
    if (stock->context == NULL || stock->pool == NULL || stock->batch.token == NULL) {
        char reason[160];
        pgd_log_last_error(reason, sizeof(reason));
        pgd_stock_close(stock);
        return pgd_fail(error, PAGODA_NOMEM, "the stock engine could not be set up: %s", reason);
    }
    llama_attach_threadpool(stock->context, stock->pool, stock->pool);
    *out = stock;
    return PAGODA_OK;
}

void pgd_stock_close(struct pgd_stock *stock)
{
    if (stock == NULL) {
        return;
    }
    if (stock->context != NULL) {
        llama_free(stock->context);
    }
    if (stock->batch.token != NULL) {
        llama_batch_free(stock->batch);
    }
    if (stock->pool != NULL) {
        ggml_threadpool_free(stock->pool);
    }
    free(stock->marked_windows);
    free(stock);
}

enum pagoda_status pgd_stock_decode(struct pgd_stock *stock, const int32_t *tokens, uint32_t count, uint32_t outputs,
                                    struct pagoda_error *error)
{
    if (count == 0 || count > stock->batch_tokens || outputs > count) {
        return pgd_fail(error, PAGODA_INVALID, "a decode takes 1 to %u tokens", stock->batch_tokens);
    }
    struct llama_batch *batch = &stock->batch;
    batch->n_tokens = (int32_t) count;
    for (uint32_t i = 0; i < count; i++) {
        batch->token[i] = tokens[i];
        batch->pos[i] = (llama_pos) (stock->position + i);
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i] = i + outputs >= count;
    }
    stock->last_outputs = 0;
    const int result = llama_decode(stock->context, *batch);
    if (result != 0 && should_abort(stock)) {
        return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
    }
    if (result != 0) {
        return pgd_fail(error, result == 1 ? PAGODA_FULL : PAGODA_INVALID, "the stock engine stopped with code %d",
                        result);
    }
    stock->position += count;
    stock->last_count = count;
    stock->last_outputs = outputs;
    return PAGODA_OK;
}

const float *pgd_stock_logits(struct pgd_stock *stock, uint32_t index)
{
    if (index >= stock->last_outputs) {
        return NULL;
    }
    return llama_get_logits_ith(stock->context, (int32_t) (stock->last_count - stock->last_outputs + index));
}

void pgd_stock_rewind(struct pgd_stock *stock, uint64_t position)
{
    llama_memory_seq_rm(llama_get_memory(stock->context), 0, (llama_pos) position, -1);
    stock->position = position;
}

enum pagoda_status pgd_stock_mark(struct pgd_stock *stock, struct pagoda_error *error)
{
    stock->marked_position = stock->position;
    if (!stock->has_windows || stock->position == 0) {
        return PAGODA_OK;
    }
    const size_t bytes = llama_state_seq_get_size_ext(stock->context, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
    uint8_t *windows = realloc(stock->marked_windows, bytes);
    if (windows == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory to keep %zu bytes of the stock engine's windows", bytes);
    }
    stock->marked_windows = windows;
    stock->marked_bytes =
        llama_state_seq_get_data_ext(stock->context, windows, bytes, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
    if (stock->marked_bytes == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the stock engine does not give its windows out");
    }
    return PAGODA_OK;
}

enum pagoda_status pgd_stock_return(struct pgd_stock *stock, struct pagoda_error *error)
{
    pgd_stock_rewind(stock, stock->marked_position);
    if (!stock->has_windows || stock->position == 0) {
        return PAGODA_OK;
    }
    if (llama_state_seq_set_data_ext(stock->context, stock->marked_windows, stock->marked_bytes, 0,
                                     LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == 0) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the stock engine does not take its windows back");
    }
    return PAGODA_OK;
}

void pgd_stock_rest(struct pgd_stock *stock)
{
    ggml_threadpool_pause(stock->pool);
}
