/* engine/generate.c - see generate.h.
 *
 * Reading. A text goes in in chunks of a whole batch. As long as nothing has to be dropped, the size of a chunk
 * never depends on the budget: what the model computes depends, in the last bits, on how tokens were batched, and
 * two budgets that both hold everything must give the same bytes. Only where something has to go does a chunk
 * become small, so that old text leaves little by little and the latest stays. While memory is short, chunks are as
 * small as they must be for it to be given back in between: multiples of 16 tokens, which the model computes to the
 * same bytes (tests/engine/test_bridge.c).
 *
 * Replying. A token is shown before the model has read it, so that the first word is there a step earlier; in
 * return, a step that is cancelled is taken once more, and so what was shown is what the sequence holds.
 */
#include "engine/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "base/system.h"
#include "cache/cache.h"
#include "engine/utf8.h"
#include "os/os.h"

#define CHUNK_TOKENS_MIN 16u /* one page */

const char *pgd_stop_name(enum pgd_stop stop)
{
    switch (stop) {
    case PGD_STOP_EOS: return "eos";
    case PGD_STOP_LENGTH: return "length";
    case PGD_STOP_FULL: return "full";
    case PGD_STOP_CANCELLED: return "cancelled";
    }
    return "unknown";
}

static bool is_set(const volatile sig_atomic_t *flag)
{
    return flag != NULL && *flag != 0;
}

/* ---- reading ---- */

struct space {
    uint64_t held;     /* tokens in memory */
    uint64_t capacity; /* tokens that fit */
    uint64_t left;
};

static struct space find_space(const struct pagoda_cache *cache)
{
    struct pagoda_account account;
    struct pagoda_memory memory;
    pagoda_cache_account(cache, &account);
    pagoda_cache_memory(cache, &memory);
    struct space space = {.held = account.ram + account.quantized, .capacity = memory.tokens_capacity};
    space.left = space.capacity - pgd_min_u64(space.held, space.capacity);
    return space;
}

/* Whether the limit is a number of tokens, and not the bytes of the budget. */
static bool is_limited_by_length(const struct pagoda_cache *cache)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    return memory.tokens_max != 0 && memory.tokens_capacity >= memory.tokens_max;
}

#define NUMBER_BYTES 32u

/* 3,812 */
static const char *write_count(char *text, uint64_t value)
{
    char digits[NUMBER_BYTES];
    const int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long) value);
    size_t used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            text[used++] = ',';
        }
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

static enum pagoda_status refuse_whole(const struct pagoda_cache *cache, uint64_t count, const struct space *space,
                                       struct pagoda_error *error)
{
    char wanted[NUMBER_BYTES];
    char capacity[NUMBER_BYTES];
    char left[NUMBER_BYTES];
    char budget[NUMBER_BYTES + 8];
    char free_part[NUMBER_BYTES + 32] = "";
    struct pagoda_memory memory;
    pagoda_cache_memory(cache, &memory);
    const bool by_length = is_limited_by_length(cache);
    snprintf(budget, sizeof(budget), "--kv %.4g MiB", (double) memory.budget_bytes / 1048576.0);
    if (space->held > 0) {
        snprintf(free_part, sizeof(free_part), ", of which %s are free", write_count(left, space->left));
    }
    return pgd_fail(error, PAGODA_FULL,
                    "the prompt has %s tokens but %s holds %s%s: raise %s, or let old text go with "
                    "--on-full evict",
                    write_count(wanted, count), by_length ? "the context (-c)" : budget,
                    write_count(capacity, space->capacity), free_part,
                    by_length ? "-c" : "--kv, keep old text on flash with --on-full spill");
}

/* With a policy that stops, nothing that went in comes out again: a prompt either fits as a whole, or reading its start
 * would be time and room wasted. */
static enum pagoda_status check_whole(const struct pagoda_cache *cache, uint64_t count, struct pagoda_error *error)
{
    if (cache->on_full != PAGODA_ON_FULL_STOP) {
        return PAGODA_OK;
    }
    const struct space space = find_space(cache);
    return count <= space.left ? PAGODA_OK : refuse_whole(cache, count, &space, error);
}

uint32_t pgd_generate_chunk(const struct pagoda_cache *cache, uint64_t wanted)
{
    uint32_t chunk = (uint32_t) pgd_min_u64(wanted, PGD_BRIDGE_BATCH);
    const struct space space = find_space(cache);
    if (chunk > space.left) {
        const uint64_t quarter = space.capacity / 4 - space.capacity / 4 % CHUNK_TOKENS_MIN;
        chunk = (uint32_t) pgd_min_u64(chunk, pgd_max_u64(quarter, CHUNK_TOKENS_MIN));
    }
    const uint32_t room = pagoda_cache_room(cache, chunk);
    return room == 0 ? chunk : room; /* without room the cache itself says why */
}

/* Reads a chunk, or so much of it as goes in when the budget has just become smaller; adds that to *done. */
static enum pagoda_status read_chunk(struct pgd_bridge *bridge, const int32_t *tokens, uint32_t chunk, bool is_last,
                                     uint64_t *done, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_bridge_decode(bridge, tokens, chunk, is_last ? 1 : 0, error);
    while ((status == PAGODA_FULL || status == PAGODA_OVER_BUDGET) && chunk > 1 &&
           pgd_bridge_pressure(bridge) != NULL) {
        chunk /= 2;
        status = pgd_bridge_decode(bridge, tokens, chunk, 0, error);
    }
    *done += status == PAGODA_OK ? chunk : 0;
    return status == PAGODA_BUSY ? PAGODA_OK
                                 : status; /* given up for memory: the next chunk is as small as it must be */
}

enum pagoda_status pgd_generate_feed(struct pgd_bridge *bridge, const int32_t *tokens, uint64_t count,
                                     const struct pgd_feed_options *options, struct pagoda_error *error)
{
    static const struct pgd_feed_options defaults = {.progress = NULL};
    const struct pagoda_cache *cache = pgd_bridge_cache(bridge);
    options = options != NULL ? options : &defaults;
    if (count == 0) {
        return pgd_fail(error, PAGODA_INVALID, "there is nothing to read: the prompt is empty");
    }
    enum pagoda_status status = check_whole(cache, count, error);
    uint64_t done = 0;
    while (status == PAGODA_OK && done < count) {
        if (is_set(options->cancel)) {
            return pgd_fail(error, PAGODA_CANCELLED, "cancelled");
        }
        const uint32_t chunk =
            (uint32_t) pgd_min_u64(pgd_generate_chunk(cache, count - done), pgd_bridge_batch_now(bridge));
        const uint64_t before = done;
        status = read_chunk(bridge, tokens + done, chunk, done + chunk == count, &done, error);
        if (status == PAGODA_OK && done > before && options->progress != NULL) {
            options->progress(options->user, done, count);
        }
    }
    return status;
}

/* ---- replying ---- */

/* The state of one reply. */
struct speaker {
    struct pgd_bridge *bridge;
    const struct pgd_model *model;
    struct pgd_sampler *sampler;
    const struct pgd_reply_options *options;
    struct pgd_reply *reply;
    struct pgd_utf8_stream stream;
    struct pgd_system system; /* for its clock */
    uint64_t called_ns;
    bool hung_up;  /* whoever gets the text wants no more */
    float *masked; /* with ignore_eos: the logits, with end tokens made impossible */
    int32_t *ends; /* ... and which those are */
    uint32_t end_count;
};

static double seconds_since(const struct speaker *speaker, uint64_t start_ns)
{
    const struct pagoda_clock *clock = &speaker->system.clock;
    return (double) (clock->now_ns(clock->user) - start_ns) * 1e-9;
}

/* Finds the end tokens, so that they can be made impossible. Only then does the model go on with its text; skipping an
 * end token that was picked would make it start another one. */
static enum pagoda_status find_ends(struct speaker *speaker, struct pagoda_error *error)
{
    const uint32_t vocabulary = pgd_model_get_info(speaker->model)->vocabulary;
    speaker->masked = malloc(vocabulary * sizeof(*speaker->masked));
    speaker->ends = malloc(vocabulary * sizeof(*speaker->ends));
    if (speaker->masked == NULL || speaker->ends == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u logits", vocabulary);
    }
    for (uint32_t i = 0; i < vocabulary; i++) {
        if (pgd_model_is_end(speaker->model, (int32_t) i)) {
            speaker->ends[speaker->end_count++] = (int32_t) i;
        }
    }
    return PAGODA_OK;
}

static int32_t pick(struct speaker *speaker)
{
    const float *logits = pgd_bridge_logits(speaker->bridge, 0);
    if (speaker->options->ignore_eos) {
        memcpy(speaker->masked, logits, pgd_model_get_info(speaker->model)->vocabulary * sizeof(*logits));
        for (uint32_t i = 0; i < speaker->end_count; i++) {
            speaker->masked[speaker->ends[i]] = -INFINITY;
        }
        logits = speaker->masked;
    }
    return pgd_sampler_pick(speaker->sampler, logits);
}

static void give(struct speaker *speaker, const char *bytes, size_t count)
{
    const struct pgd_reply_options *options = speaker->options;
    if (count > 0 && options->text != NULL && !speaker->hung_up && !options->text(options->user, bytes, count)) {
        speaker->hung_up = true;
    }
}

static void show(struct speaker *speaker, int32_t token)
{
    char piece[PGD_PIECE_BYTES_MAX];
    char text[PGD_UTF8_ROOM(PGD_PIECE_BYTES_MAX)];
    const size_t length = pgd_model_piece(speaker->model, token, speaker->options->special, piece);
    give(speaker, text, pgd_utf8_push(&speaker->stream, piece, length, text));
    if (speaker->reply->tokens == 0) {
        speaker->reply->first_token_seconds = seconds_since(speaker, speaker->called_ns);
    }
}

/* Reads a token that was shown. When that is cancelled it is done once more, see the top of the file. */
static enum pagoda_status read_shown(struct speaker *speaker, int32_t token, struct pagoda_error *error)
{
    enum pagoda_status status = pgd_bridge_decode(speaker->bridge, &token, 1, 1, error);
    if (status != PAGODA_CANCELLED) {
        speaker->reply->tokens += status == PAGODA_OK ? 1 : 0;
        return status;
    }
    if (pgd_bridge_decode(speaker->bridge, &token, 1, 1, NULL) == PAGODA_OK) {
        speaker->reply->tokens++;
    }
    return PAGODA_CANCELLED;
}

/* One token. *stop is set when the reply ends with it. */
static enum pagoda_status step(struct speaker *speaker, bool *stopped, struct pagoda_error *error)
{
    struct pgd_reply *reply = speaker->reply;
    const int64_t tokens_max = speaker->options->tokens_max;
    *stopped = true;
    if (speaker->hung_up || is_set(speaker->options->cancel)) {
        reply->stop = PGD_STOP_CANCELLED;
        return PAGODA_OK;
    }
    if (tokens_max >= 0 && reply->tokens >= (uint64_t) tokens_max) {
        reply->stop = PGD_STOP_LENGTH;
        return PAGODA_OK;
    }
    const int32_t token = pick(speaker);
    if (pgd_model_is_end(speaker->model, token) && !speaker->options->ignore_eos) {
        reply->stop = PGD_STOP_EOS;
        return PAGODA_OK;
    }
    if (pagoda_cache_room(pgd_bridge_cache(speaker->bridge), 1) > 0) {
        show(speaker, token);
    } /* else reading it fails, and says why */
    struct pagoda_error why = {.status = PAGODA_OK};
    enum pagoda_status status = read_shown(speaker, token, &why);
    if (status == PAGODA_OK) {
        *stopped = false;
    } else if (status == PAGODA_CANCELLED) {
        reply->stop = PGD_STOP_CANCELLED;
    } else if (status == PAGODA_FULL) {
        reply->stop = PGD_STOP_FULL;
        reply->full = why;
    } else {
        return pgd_fail(error, status, "%s", why.message);
    }
    return PAGODA_OK;
}

static enum pagoda_status speak(struct speaker *speaker, struct pagoda_error *error)
{
    const uint64_t start_ns = speaker->called_ns;
    bool stopped = false;
    enum pagoda_status status = PAGODA_OK;
    while (status == PAGODA_OK && !stopped) {
        status = step(speaker, &stopped, error);
    }
    char rest[PGD_UTF8_ROOM(0)];
    give(speaker, rest, pgd_utf8_flush(&speaker->stream, rest));
    speaker->reply->seconds = seconds_since(speaker, start_ns);
    return status;
}

enum pagoda_status pgd_generate_reply(struct pgd_bridge *bridge, struct pgd_sampler *sampler,
                                      const struct pgd_reply_options *options, struct pgd_reply *reply,
                                      struct pagoda_error *error)
{
    if (pgd_bridge_logits(bridge, 0) == NULL) {
        return pgd_fail(error, PAGODA_INVALID, "there is nothing to reply to: no text was read before");
    }
    struct pgd_reply result = {.stop = PGD_STOP_EOS};
    pagoda_cache_draws_begin(pgd_bridge_cache(bridge));
    struct speaker speaker = {
        .bridge = bridge,
        .model = pgd_bridge_model(bridge),
        .sampler = sampler,
        .options = options,
        .reply = &result,
    };
    pgd_os_system(NULL, &speaker.system);
    speaker.called_ns = speaker.system.clock.now_ns(speaker.system.clock.user);
    enum pagoda_status status = options->ignore_eos ? find_ends(&speaker, error) : PAGODA_OK;
    if (status == PAGODA_OK) {
        status = speak(&speaker, error);
    }
    free(speaker.masked);
    free(speaker.ends);
    if (status == PAGODA_OK) {
        *reply = result;
    }
    return status;
}
