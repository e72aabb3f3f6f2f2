/* engine/recall.c - see recall.h. */
#include "engine/recall.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "engine/score.h"
#include "engine/utf8.h"

/* One question being asked. */
struct asker {
    struct pgd_bridge *bridge;
    struct pagoda_cache *cache;
    const struct pgd_recall_question *question;
    struct pgd_feed_options feed; /* for what is read after the shared part: nobody is told of that */
    struct pgd_recall_answer answer;
};

/* ---- reading ---- */

static enum pagoda_status read_one(struct asker *asker, int32_t token, struct pagoda_error *error)
{
    return pgd_bridge_decode(asker->bridge, &token, 1, 1, error);
}

/* Reads on from where the cache is, up to `end` of the prompt. Where a part ends, a batch ends, whoever reads: so what
 * the model computes does not depend on what was taken back before. */
static enum pagoda_status read_to(struct asker *asker, uint64_t end, struct pagoda_error *error)
{
    const struct pgd_recall_question *question = asker->question;
    const uint64_t ends[] = {question->shared, question->count - question->opening};
    enum pagoda_status status = PAGODA_OK;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && status == PAGODA_OK; i++) {
        const uint64_t at = pagoda_cache_position(asker->cache);
        const uint64_t stop = pgd_min_u64(ends[i], end);
        if (at < stop) {
            status = pgd_generate_feed(asker->bridge, question->tokens + at, stop - at, &asker->feed, error);
        }
    }
    while (status == PAGODA_OK && pagoda_cache_position(asker->cache) < end) {
        status = read_one(asker, question->tokens[pagoda_cache_position(asker->cache)], error);
    }
    return status;
}

/* Goes back to `position` in the prompt, by reading it again where there is no other way. */
static enum pagoda_status go_back(struct asker *asker, uint64_t position, struct pagoda_error *error)
{
    struct pagoda_error reason;
    const uint64_t at = pagoda_cache_position(asker->cache);
    enum pagoda_status status =
        at < position ? PAGODA_RANGE : pagoda_cache_rollback(asker->cache, at - position, &reason);
    if (status != PAGODA_RANGE) {
        return status == PAGODA_OK ? status : pgd_fail(error, status, "%s", reason.message);
    }
    asker->answer.rereads++;
    status = pagoda_cache_reset(asker->cache, error);
    return status == PAGODA_OK ? read_to(asker, position, error) : status;
}

/* ---- what is held ---- */

struct held {
    const struct pgd_recall_question *question;
    uint64_t count;
};

static bool count_held(void *user, const struct pagoda_span *span)
{
    struct held *held = user;
    const uint64_t first = pgd_max_u64(span->first, held->question->fact_first);
    const uint64_t end =
        pgd_min_u64(span->first + span->count, held->question->fact_first + held->question->fact_count);
    if (span->state != PAGODA_PAGE_ABSENT && end > first) {
        held->count += end - first;
    }
    return true;
}

static void look_at_cache(struct asker *asker)
{
    struct held held = {asker->question, 0};
    pagoda_cache_account(asker->cache, &asker->answer.account);
    pagoda_cache_visit(asker->cache, count_held, &held);
    asker->answer.fact_held = held.count;
}

/* ---- choosing ---- */

/* NLL of an option after the prompt, whose last row of logits is `row`; it ends early, with what it has by then, when
 * that is more than `enough`. The sequence is as before. */
static enum pagoda_status score_option(struct asker *asker, const struct pgd_score_row *row,
                                       const struct pgd_recall_option *option, double enough, double *nll,
                                       struct pagoda_error *error)
{
    *nll = pgd_score_nll(row, option->tokens[0]);
    enum pagoda_status status = PAGODA_OK;
    for (uint32_t i = 1; i < option->count && *nll <= enough && status == PAGODA_OK; i++) {
        status = read_one(asker, option->tokens[i - 1], error);
        if (status == PAGODA_OK) {
            const struct pgd_score_row next = pgd_score_row(pgd_bridge_logits(asker->bridge, 0), row->count);
            *nll += pgd_score_nll(&next, option->tokens[i]);
        }
    }
    return status == PAGODA_OK ? go_back(asker, asker->question->count, error) : status;
}

static enum pagoda_status choose(struct asker *asker, const struct pgd_score_row *row, struct pagoda_error *error)
{
    const struct pgd_recall_question *question = asker->question;
    const struct pgd_recall_option *right = &question->options[0];
    struct pgd_recall_answer *answer = &asker->answer;
    enum pagoda_status status = score_option(asker, row, right, INFINITY, &answer->nll, error);
    answer->chosen = true;
    for (uint32_t i = 1; i < question->option_count && answer->chosen && status == PAGODA_OK; i++) {
        const struct pgd_recall_option *other = &question->options[i];
        const double enough = answer->nll / right->count * other->count; /* as likely, token for token */
        double nll = 0;
        status = score_option(asker, row, other, enough, &nll, error);
        answer->chosen = nll > enough;
    }
    return status;
}

/* ---- writing ---- */

static const char *skip_decoration(const char *text)
{
    return text + strspn(text, " \n\"'*:");
}

bool pgd_recall_says(const char *reply, const char *answer)
{
    const char *at = skip_decoration(reply);
    const char *wanted = skip_decoration(answer);
    const size_t length = strlen(wanted);
    return strncmp(at, wanted, length) == 0 && !isalnum((unsigned char) at[length]);
}

/* Whether more of the reply would not change what is thought of it. */
static bool is_decided(const char *reply, const char *answer)
{
    const char *at = skip_decoration(reply);
    const char *wanted = skip_decoration(answer);
    const size_t length = strlen(wanted);
    const size_t have = strlen(at);
    return have > length || strncmp(at, wanted, have) != 0;
}

/* What the model writes by itself. Last of all, since it stays in the sequence. */
static enum pagoda_status write_reply(struct asker *asker, const struct pgd_score_row *row, struct pagoda_error *error)
{
    const struct pgd_model *model = pgd_bridge_model(asker->bridge);
    const struct pgd_recall_question *question = asker->question;
    struct pgd_recall_answer *answer = &asker->answer;
    struct pgd_utf8_stream stream = {.pending_count = 0};
    size_t used = 0;
    int32_t token = pgd_score_top(row->logits, row->count);
    for (uint32_t i = 0; i < question->options[0].count + 2 && !pgd_model_is_end(model, token); i++) {
        char piece[PGD_PIECE_BYTES_MAX];
        char valid[PGD_UTF8_ROOM(PGD_PIECE_BYTES_MAX)];
        const size_t bytes = pgd_model_piece(model, token, false, piece);
        const size_t valid_bytes = pgd_utf8_push(&stream, piece, bytes, valid);
        if (used + valid_bytes >= sizeof(answer->reply)) {
            break;
        }
        memcpy(answer->reply + used, valid, valid_bytes);
        used += valid_bytes;
        answer->reply[used] = '\0';
        if (is_decided(answer->reply, question->answer)) {
            break;
        }
        enum pagoda_status status = read_one(asker, token, error);
        if (status != PAGODA_OK) {
            return status;
        }
        token = pgd_score_top(pgd_bridge_logits(asker->bridge, 0), row->count);
    }
    answer->written = pgd_recall_says(answer->reply, question->answer);
    return PAGODA_OK;
}

/* ---- asking ---- */

static struct asker new_asker(struct pgd_bridge *bridge, const struct pgd_recall_question *question,
                              const struct pgd_feed_options *feed)
{
    struct asker asker = {.bridge = bridge, .cache = pgd_bridge_cache(bridge), .question = question};
    asker.feed.cancel = feed == NULL ? NULL : feed->cancel;
    return asker;
}

enum pagoda_status pgd_recall_start(struct pgd_bridge *bridge, const struct pgd_recall_question *question,
                                    const struct pgd_feed_options *feed, struct pagoda_error *error)
{
    struct asker asker = new_asker(bridge, question, feed);
    enum pagoda_status status = pagoda_cache_reset(asker.cache, error);
    if (status == PAGODA_OK && feed != NULL) {
        asker.feed = *feed;
    }
    return status == PAGODA_OK ? read_to(&asker, question->shared, error) : status;
}

/* The prompt has been read; `logits` are a copy of its last row. */
static enum pagoda_status answer_from(struct asker *asker, const float *logits, uint32_t vocabulary,
                                      struct pagoda_error *error)
{
    const struct pgd_score_row row = pgd_score_row(logits, vocabulary);
    look_at_cache(asker);
    enum pagoda_status status = choose(asker, &row, error);
    return status == PAGODA_OK ? write_reply(asker, &row, error) : status;
}

enum pagoda_status pgd_recall_ask(struct pgd_bridge *bridge, const struct pgd_recall_question *question,
                                  const struct pgd_feed_options *feed, struct pgd_recall_answer *answer,
                                  struct pagoda_error *error)
{
    const uint32_t vocabulary = pgd_model_get_info(pgd_bridge_model(bridge))->vocabulary;
    struct asker asker = new_asker(bridge, question, feed);
    float *logits = malloc(vocabulary * sizeof(*logits));
    if (logits == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %u logits", vocabulary);
    }
    enum pagoda_status status = go_back(&asker, question->shared, error);
    if (status == PAGODA_OK) {
        status = read_to(&asker, question->count, error);
    }
    if (status == PAGODA_OK) {
        memcpy(logits, pgd_bridge_logits(bridge, 0), vocabulary * sizeof(*logits));
        status = answer_from(&asker, logits, vocabulary, error);
    }
    free(logits);
    if (status == PAGODA_OK) {
        *answer = asker.answer;
    }
    return status;
}
