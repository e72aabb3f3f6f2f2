/* engine/recall.h - one question to a cache: does it still know what it has read?
 *
 * A question is a whole prompt, of which three parts are read differently:
 *
 *   shared    what other questions begin with too: read once, by itself, then kept
 *   middle    the question: in chunks, as a user's message is
 *   opening   how the reply begins: token by token, as in real decoding, so that a cache that selects what attention
 *             reads does select before the first token of the answer
 *
 * The answer is scored three ways: by what the model writes greedily (only new text counts), by which of the options
 * it finds likeliest per token, and by how surprised it is by the right one. Options too are read token by token. An
 * option that is less likely than the right one before its end is not read to its end: it cannot win any more.
 *
 * Between options and between questions tokens are taken back. Where a cache cannot do that, since a page has been
 * dropped or re-encoded on the way, the prompt is read again, and the answer says how often.
 *
 * Ownership: a question borrows its tokens and texts. Threads: the thread that owns the bridge.
 */
#ifndef PGD_ENGINE_RECALL_H
#define PGD_ENGINE_RECALL_H

#include <stddef.h>
#include <stdint.h>

#include "engine/generate.h"

#define PGD_RECALL_OPTIONS_MAX 10u
#define PGD_RECALL_REPLY_BYTES 96u
#define PGD_RECALL_ANSWER_TOKENS_MAX 24u
#define PGD_RECALL_REPLY_TOKENS (PGD_RECALL_ANSWER_TOKENS_MAX + 4) /* room that an answer takes after the prompt */

struct pgd_recall_option {
    const int32_t *tokens;
    uint32_t count; /* 1 .. PGD_RECALL_ANSWER_TOKENS_MAX */
};

struct pgd_recall_question {
    const int32_t *tokens; /* the whole prompt */
    size_t count;
    size_t shared;  /* of the first tokens; may be 0 */
    size_t opening; /* of the last tokens; at least 1; shared + opening <= count */
    struct pgd_recall_option options[PGD_RECALL_OPTIONS_MAX]; /* the first is the right one */
    uint32_t option_count;
    const char *answer;  /* the right one, as text */
    uint64_t fact_first; /* position and number of the tokens that tell the answer */
    uint64_t fact_count; /* 0: no sentence tells it */
};

struct pgd_recall_answer {
    bool written;                       /* the greedy reply starts with the answer */
    bool chosen;                        /* no other option is as likely as the right one */
    double nll;                         /* of the right one, in nats */
    char reply[PGD_RECALL_REPLY_BYTES]; /* the start of the greedy reply; valid UTF-8 */
    struct pagoda_account account;      /* when the question had been read */
    uint64_t fact_held;                 /* how many of the fact's tokens were still held then, in whatever form */
    uint32_t rereads;                   /* how often the prompt had to be read again */
};

/* Empties the cache and reads the shared part. Errors: those of pgd_generate_feed. */
PAGODA_MUST_CHECK enum pagoda_status pgd_recall_start(struct pgd_bridge *bridge,
                                                      const struct pgd_recall_question *question,
                                                      const struct pgd_feed_options *feed, struct pagoda_error *error);

/* Asks. The cache has read the shared part; what came after it, of other questions, is taken back first. Errors: those
 * of pgd_generate_feed. */
PAGODA_MUST_CHECK enum pagoda_status pgd_recall_ask(struct pgd_bridge *bridge,
                                                    const struct pgd_recall_question *question,
                                                    const struct pgd_feed_options *feed,
                                                    struct pgd_recall_answer *answer, struct pagoda_error *error);

/* Whether a reply begins with the answer and not with a longer word or number. Pure. */
bool pgd_recall_says(const char *reply, const char *answer);

#endif
