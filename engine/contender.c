/* engine/contender.c - see contender.h. */
#include "engine/contender.h"

#include "base/number.h"
#include "os/os.h"

struct pgd_contender pgd_contender_of_bridge(struct pgd_bridge *bridge)
{
    return (struct pgd_contender) {.bridge = bridge};
}

struct pgd_contender pgd_contender_of_stock(struct pgd_stock *stock)
{
    return (struct pgd_contender) {.stock = stock};
}

void pgd_contender_close(struct pgd_contender *contender)
{
    pgd_bridge_close(contender->bridge);
    pgd_stock_close(contender->stock);
    *contender = (struct pgd_contender) {.position = 0};
}

/* ---- feeding ---- */

static enum pagoda_status decode(struct pgd_contender *contender, const int32_t *tokens, uint32_t count,
                                 struct pagoda_error *error)
{
    return contender->stock != NULL ? pgd_stock_decode(contender->stock, tokens, count, 1, error)
                                    : pgd_bridge_decode(contender->bridge, tokens, count, 1, error);
}

/* Of the next `wanted` tokens, as many as go in at once. Where there is no room at all, decoding says why. */
static uint32_t next_piece(const struct pgd_contender *contender, uint64_t wanted, uint32_t most)
{
    const uint32_t piece = (uint32_t) pgd_min_u64(wanted, most);
    const uint32_t room =
        contender->stock != NULL ? piece : pagoda_cache_room(pgd_bridge_cache(contender->bridge), piece);
    return room == 0 ? piece : room;
}

static enum pagoda_status feed(struct pgd_contender *contender, const int32_t *tokens, uint64_t count, uint32_t most,
                               struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    uint32_t piece = 0;
    for (uint64_t at = 0; at < count && status == PAGODA_OK; at += piece) {
        piece = next_piece(contender, count - at, most);
        status = decode(contender, tokens + at, piece, error);
    }
    return status;
}

static uint32_t largest_piece(const struct pgd_contender *contender)
{
    return contender->stock != NULL ? PGD_CONTENDER_BATCH_MAX : PGD_BRIDGE_BATCH;
}

static void rest(struct pgd_contender *contender)
{
    if (contender->stock != NULL) {
        pgd_stock_rest(contender->stock);
    } else {
        pgd_bridge_rest(contender->bridge);
    }
}

enum pagoda_status pgd_contender_fill(struct pgd_contender *contender, const int32_t *tokens, uint64_t depth,
                                      struct pagoda_error *error)
{
    enum pagoda_status status =
        feed(contender, tokens + contender->position, depth - contender->position, largest_piece(contender), error);
    if (status == PAGODA_OK && contender->stock != NULL) {
        status = pgd_stock_mark(contender->stock, error);
    }
    contender->position = depth;
    rest(contender);
    return status;
}

/* ---- running ---- */

static enum pagoda_status go_back(struct pgd_contender *contender, struct pagoda_error *error)
{
    if (contender->stock != NULL) {
        return pgd_stock_return(contender->stock, error);
    }
    struct pagoda_cache *cache = pgd_bridge_cache(contender->bridge);
    return pagoda_cache_rollback(cache, pagoda_cache_position(cache) - contender->position, error);
}

/* What the cache has done for its tokens so far; nothing for stock engines. */
static struct pgd_contender_token sum_of(const struct pgd_contender *contender)
{
    struct pgd_contender_token sum = {.seconds = 0};
    if (contender->bridge != NULL) {
        const struct pagoda_cache *cache = pgd_bridge_cache(contender->bridge);
        struct pagoda_memory memory;
        struct pagoda_account account;
        pagoda_cache_memory(cache, &memory);
        pagoda_cache_account(cache, &account);
        sum.stalled_seconds = (double) memory.stalled_ns * 1e-9;
        sum.flash_bytes = memory.flash_bytes_read;
        sum.unread = account.unread; /* of the last token: no sum */
        sum.late_pages = memory.late_pages;
    }
    return sum;
}

/* One by one; looking at the cache between tokens is not timed. */
static enum pagoda_status feed_singly(struct pgd_contender *contender, const int32_t *tokens, uint64_t count,
                                      struct pgd_contender_token *each, double *seconds, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    struct pgd_contender_token before = sum_of(contender);
    *seconds = 0;
    for (uint64_t i = 0; i < count && status == PAGODA_OK; i++) {
        const double start = pgd_os_seconds();
        status = decode(contender, tokens + i, 1, error);
        const double taken = pgd_os_seconds() - start;
        const struct pgd_contender_token after = sum_of(contender);
        each[i] = (struct pgd_contender_token) {
            .seconds = taken,
            .stalled_seconds = after.stalled_seconds - before.stalled_seconds,
            .flash_bytes = after.flash_bytes - before.flash_bytes,
            .unread = after.unread,
            .late_pages = after.late_pages - before.late_pages,
        };
        *seconds += taken;
        before = after;
    }
    return status;
}

enum pagoda_status pgd_contender_run(struct pgd_contender *contender, const int32_t *tokens, uint64_t count,
                                     struct pgd_contender_token *each, double *seconds, struct pagoda_error *error)
{
    enum pagoda_status status = PAGODA_OK;
    const double start = pgd_os_seconds();
    if (each != NULL) {
        status = feed_singly(contender, tokens + contender->position, count, each, seconds, error);
    } else {
        status = feed(contender, tokens + contender->position, count, largest_piece(contender), error);
        *seconds = pgd_os_seconds() - start;
    }
    if (status == PAGODA_OK && each != NULL && contender->goes_on) {
        contender->position += count;
    } else if (status == PAGODA_OK) {
        status = go_back(contender, error);
    }
    rest(contender);
    return status;
}

enum pagoda_status pgd_contender_begin_anew(struct pgd_contender *contender, struct pagoda_error *error)
{
    contender->position = 0;
    return pagoda_cache_reset(pgd_bridge_cache(contender->bridge), error);
}

/* ---- bytes ---- */

/* Of the last `tokens` tokens, those that each layer's window shows when it is shorter by `less`. */
static uint64_t f16_bytes(const struct pgd_bridge *bridge, uint64_t tokens, uint32_t less)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < pgd_bridge_layer_count(bridge); i++) {
        const struct pagoda_layer *layer = pgd_bridge_layer(bridge, i);
        const uint64_t seen = layer->window == 0 ? tokens : pgd_min_u64(tokens, layer->window - less);
        bytes += seen * layer->kv_heads * (layer->key_size + layer->value_size) * sizeof(uint16_t);
    }
    return bytes;
}

uint64_t pgd_contender_f16_bytes(const struct pgd_bridge *bridge, uint64_t tokens)
{
    return f16_bytes(bridge, tokens, 0);
}

uint64_t pgd_contender_page_bytes(struct pgd_bridge *bridge, uint64_t more)
{
    struct pagoda_cache *cache = pgd_bridge_cache(bridge);
    const uint64_t held = pagoda_cache_position(cache);
    /* What is held now is seen by the next token, which takes a place of the window itself. */
    return pagoda_cache_read_bytes(cache) + f16_bytes(bridge, held + more, 0) - f16_bytes(bridge, held, 1);
}
