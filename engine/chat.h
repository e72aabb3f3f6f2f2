/* engine/chat.h - a conversation over a bridge: turns, who owns which tokens, pins.
 *
 * Each turn reads only its new tokens; nothing is read twice. The system prompt is pinned unless told
 * otherwise. Owners are runs of positions: owner 0 is the system prompt, owner n is turn n (the
 * user's message and the reply to it).
 */
#ifndef PGD_ENGINE_CHAT_H
#define PGD_ENGINE_CHAT_H

#include "engine/generate.h"
#include "engine/prompt.h"

struct pgd_chat;

struct pgd_chat_options {
    const char *system; /* may be NULL: the template's own default stays */
    bool no_pin;        /* do not pin the system prompt */
};

/* Reads the system prompt into the cache and pins it. Errors: OVER_BUDGET when the system prompt alone does not
 * fit beside one page of room; UNSUPPORTED without a chat template. */
PAGODA_MUST_CHECK enum pagoda_status pgd_chat_open(struct pgd_bridge *bridge, const struct pgd_chat_options *options,
                                                   const struct pgd_feed_options *feed, struct pgd_chat **chat,
                                                   struct pagoda_error *error);
void pgd_chat_close(struct pgd_chat *chat);

struct pgd_turn {
    uint64_t prompt_tokens; /* read for this turn */
    double prompt_seconds;
    struct pgd_reply reply;
};

/* One turn: reads the user's text, generates the reply. When the user's text does not fit (FULL) or reading is
 * cancelled, the turn is taken back whole and the conversation is as before. A cancelled reply stays as far as it
 * came. */
PAGODA_MUST_CHECK enum pagoda_status pgd_chat_say(struct pgd_chat *chat, const char *text, struct pgd_sampler *sampler,
                                                  const struct pgd_feed_options *feed,
                                                  const struct pgd_reply_options *reply, struct pgd_turn *turn,
                                                  struct pagoda_error *error);

/* Pins the tokens of a whole turn (0: the system prompt), or unpins. Errors: RANGE (no such turn), FULL. */
PAGODA_MUST_CHECK enum pagoda_status pgd_chat_pin(struct pgd_chat *chat, uint32_t turn, bool pin,
                                                  struct pagoda_error *error);

/* Back to the system prompt. */
PAGODA_MUST_CHECK enum pagoda_status pgd_chat_reset(struct pgd_chat *chat, const struct pgd_feed_options *feed,
                                                    struct pagoda_error *error);

uint32_t pgd_chat_turns(const struct pgd_chat *chat);

/* First position and token count of an owner (0 the system prompt, n turn n); false when there is no such owner. */
bool pgd_chat_owner_range(const struct pgd_chat *chat, uint32_t owner, uint64_t *first, uint64_t *count);

/* Where the reply of turn n begins; false when there is no such turn, or it has none. */
bool pgd_chat_reply_first(const struct pgd_chat *chat, uint32_t turn, uint64_t *first);

#endif
