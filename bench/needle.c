/* bench/needle.c - two rules in the system prompt and a fact in the middle of 30 turns: who still knows them?
 *
 *     build/bench/needle [--model FILE] [--share 4] [--threads N]
 *
 * The conversation is made once with the whole cache: real questions, real replies, sampled with a fixed seed and a
 * penalty against repetition. The same tokens then go through each policy with room for 1 / share of them. Three
 * questions follow, each after a fresh run: one about the fact (turn 12), one for each rule. The account tells how much
 * of the rules and of the fact is in memory; the NLL of the right word tells what the model makes of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/bench.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "engine/score.h"

#define TURNS 30
#define FACT_TURN 12
#define REPLY_TOKENS 48
#define MESSAGES (1 + 2 * TURNS)

static const char system_prompt[] = "You are a physicist called Marie. Always answer in French.";

static const char *const questions[TURNS] = {
    "Hello! What will the weather be like in spring?",
    "Tell me something about the history of bread.",
    "Why is the sky blue?",
    "What should I look at in Lisbon?",
    "How do I keep a cactus alive?",
    "What is a good way to learn the guitar?",
    "How long does it take to boil an egg?",
    "Give me an idea for a birthday present for my aunt.",
    "What is the difference between a frog and a toad?",
    "How do tides work?",
    "Suggest a name for a small grey cat.",
    "Please remember this about me: I do not eat coriander. What can I cook tonight?",
    "How is paper made?",
    "What makes a good short story?",
    "Which planet has the most moons?",
    "How can I sleep better?",
    "What is the best time to plant tulips?",
    "Tell me a fact about whales.",
    "How does a bicycle stay upright?",
    "What should I pack for a trip to the mountains?",
    "Who invented the printing press?",
    "How do I clean a wooden table?",
    "What is the capital of Australia?",
    "How do bees find flowers?",
    "Give me a riddle.",
    "What is the oldest city in the world?",
    "How do I make my own soap?",
    "Why do leaves change their colour?",
    "What is a haiku?",
    "How far away is the Moon?",
};

/* A question at the end, the reply's opening, and the word that tells. */
struct probe {
    const char *name;
    const char *question;
    const char *opening;
    const char *word;
};
static const struct probe probes[] = {
    {"fact", "Which herb did I say that I do not eat?", "You said that you do not eat", " coriander"},
    {"profession", "What is your profession?", "I am a", " physicist"},
    {"language", "In which language do you always answer?", "I always answer in", " French"},
};
enum { FACT, PROFESSION, LANGUAGE, PROBES };

struct segment {
    int32_t *tokens;
    uint64_t count;
    uint64_t first; /* position in the stream */
};

struct stream {
    struct pgd_message messages[MESSAGES + 1];
    struct segment segments[MESSAGES];
    char *replies[TURNS];
    uint64_t total;
};

static struct pagoda_error error;

static char *format(const struct pgd_model *model, const struct pgd_message *messages, size_t count, bool open_reply)
{
    char *text = NULL;
    bench_check(pgd_prompt_format(model, messages, count, open_reply, &text, &error), &error, "template");
    return text;
}

/* Tokens of what message `count - 1` adds to the conversation, or of the header of a reply. */
static struct segment segment_of(const struct pgd_model *model, const struct pgd_message *messages, size_t count,
                                 bool header)
{
    char *before =
        count == 0 || (count == 1 && !header) ? NULL : format(model, messages, header ? count : count - 1, false);
    char *after = format(model, messages, count, header);
    const size_t skip = before == NULL ? 0 : strlen(before);
    struct segment segment = {.tokens = NULL};
    size_t tokens = 0;
    bench_check(pgd_model_tokenize(model, after + skip, strlen(after) - skip, count == 1 && !header, true,
                                   &segment.tokens, &tokens, &error),
                &error, "tokenize");
    segment.count = tokens;
    free(before);
    free(after);
    return segment;
}

static void feed(struct pgd_bridge *bridge, const int32_t *tokens, uint64_t count)
{
    for (uint64_t done = 0; done < count;) {
        const uint32_t now = count - done < 16 ? (uint32_t) (count - done) : 16;
        bench_check(pgd_bridge_decode(bridge, tokens + done, now, 1, &error), &error, "decode");
        done += now;
    }
}

/* The model's own reply, as text; the cache is left as before. */
static char *make_reply(struct pgd_bridge *bridge, struct pgd_sampler *sampler, const struct pgd_message *messages,
                        size_t count)
{
    const struct pgd_model *model = pgd_bridge_model(bridge);
    const uint64_t position = pagoda_cache_position(pgd_bridge_cache(bridge));
    struct segment header = segment_of(model, messages, count, true);
    feed(bridge, header.tokens, header.count);
    free(header.tokens);
    char *reply = calloc(REPLY_TOKENS, PGD_PIECE_BYTES_MAX);
    size_t used = 0;
    for (int i = 0; i < REPLY_TOKENS; i++) {
        const int32_t token = pgd_sampler_pick(sampler, pgd_bridge_logits(bridge, 0));
        if (pgd_model_is_end(model, token)) {
            break;
        }
        used += pgd_model_piece(model, token, false, reply + used);
        feed(bridge, &token, 1);
    }
    reply[used] = '\0';
    struct pagoda_cache *cache = pgd_bridge_cache(bridge);
    bench_check(pagoda_cache_rollback(cache, pagoda_cache_position(cache) - position, &error), &error, "rollback");
    return reply;
}

static void add_segment(struct pgd_bridge *bridge, struct stream *stream, size_t message)
{
    struct segment *segment = &stream->segments[message];
    *segment = segment_of(pgd_bridge_model(bridge), stream->messages, message + 1, false);
    segment->first = stream->total;
    stream->total += segment->count;
    feed(bridge, segment->tokens, segment->count);
}

static void make_stream(const struct pgd_model *model, uint32_t threads, struct stream *stream)
{
    const struct pgd_bridge_options options = {.threads = threads, .outputs_max = 1};
    struct pgd_bridge *bridge = NULL;
    bench_check(pgd_bridge_open(model, &options, &bridge, &error), &error, "pagoda");
    struct pgd_sampler_options choice;
    struct pgd_sampler *sampler = NULL;
    pgd_sampler_options_default(&choice);
    choice.repeat_penalty = 1.1f;
    choice.seed = 1;
    bench_check(pgd_sampler_open(model, &choice, &sampler, &error), &error, "sampler");
    stream->messages[0] = (struct pgd_message) {"system", system_prompt};
    add_segment(bridge, stream, 0);
    for (size_t turn = 0; turn < TURNS; turn++) {
        stream->messages[1 + 2 * turn] = (struct pgd_message) {"user", questions[turn]};
        add_segment(bridge, stream, 1 + 2 * turn);
        stream->replies[turn] = make_reply(bridge, sampler, stream->messages, 2 + 2 * turn);
        stream->messages[2 + 2 * turn] = (struct pgd_message) {"assistant", stream->replies[turn]};
        add_segment(bridge, stream, 2 + 2 * turn);
    }
    pgd_sampler_close(sampler);
    pgd_bridge_close(bridge);
}

struct setting {
    const char *name;
    bool whole; /* room for everything */
    enum pagoda_policy_kind policy;
    bool pin_system;
    bool pin_fact;
};

struct overlap {
    const struct segment *segment;
    uint64_t held;
};

static bool count_overlap(void *user, const struct pagoda_span *span)
{
    struct overlap *overlap = user;
    for (uint64_t i = 0; i < overlap->segment->count && span->state != PAGODA_PAGE_ABSENT; i++) {
        const uint64_t position = overlap->segment->first + i;
        overlap->held += position >= span->first && position < span->first + span->count;
    }
    return true;
}

static uint64_t held_tokens(struct pagoda_cache *cache, const struct segment *segment)
{
    struct overlap overlap = {segment, 0};
    pagoda_cache_visit(cache, count_overlap, &overlap);
    return overlap.held;
}

static void pin(struct pagoda_cache *cache, const struct segment *segment)
{
    bench_check(pagoda_cache_pin(cache, segment->first, segment->count, &error), &error, "pin");
}

/* NLL of the telling word after the question. */
static double ask(struct pgd_bridge *bridge, struct stream *stream, const struct probe *probe)
{
    const struct pgd_model *model = pgd_bridge_model(bridge);
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    stream->messages[MESSAGES] = (struct pgd_message) {"user", probe->question};
    struct segment question = segment_of(model, stream->messages, MESSAGES + 1, false);
    struct segment header = segment_of(model, stream->messages, MESSAGES + 1, true);
    feed(bridge, question.tokens, question.count);
    feed(bridge, header.tokens, header.count);
    int32_t *opening = NULL;
    int32_t *word = NULL;
    size_t opening_count = 0;
    size_t word_count = 0;
    bench_check(pgd_model_tokenize(model, probe->opening, strlen(probe->opening), false, false, &opening,
                                   &opening_count, &error),
                &error, "tokenize");
    bench_check(pgd_model_tokenize(model, probe->word, strlen(probe->word), false, false, &word, &word_count, &error),
                &error, "tokenize");
    feed(bridge, opening, opening_count);
    double nll = 0;
    for (size_t i = 0; i < word_count; i++) {
        const struct pgd_score_row row = pgd_score_row(pgd_bridge_logits(bridge, 0), vocabulary);
        nll += pgd_score_nll(&row, word[i]);
        feed(bridge, &word[i], 1);
    }
    free(question.tokens);
    free(header.tokens);
    free(opening);
    free(word);
    return nll;
}

static void run(const struct pgd_model *model, uint32_t threads, struct stream *stream, const struct setting *setting,
                uint64_t hold)
{
    double nll[PROBES];
    uint64_t rules_held = 0;
    uint64_t fact_held = 0;
    struct pagoda_account account = {0};
    const struct segment *rules = &stream->segments[0];
    const struct segment *fact = &stream->segments[1 + 2 * (FACT_TURN - 1)];
    for (int p = 0; p < PROBES; p++) {
        const struct pgd_bridge_options options = {.tokens_max = setting->whole ? 0 : hold,
                                                   .threads = threads,
                                                   .on_full = PAGODA_ON_FULL_EVICT,
                                                   .policy = {.kind = setting->policy}};
        struct pgd_bridge *bridge = NULL;
        bench_check(pgd_bridge_open(model, &options, &bridge, &error), &error, "pagoda");
        struct pagoda_cache *cache = pgd_bridge_cache(bridge);
        for (size_t m = 0; m < MESSAGES; m++) {
            feed(bridge, stream->segments[m].tokens, stream->segments[m].count);
            if ((m == 0 && setting->pin_system) || (&stream->segments[m] == fact && setting->pin_fact)) {
                pin(cache, &stream->segments[m]);
            }
        }
        pagoda_cache_account(cache, &account);
        rules_held = held_tokens(cache, rules);
        fact_held = held_tokens(cache, fact);
        nll[p] = ask(bridge, stream, &probes[p]);
        pgd_bridge_close(bridge);
    }
    printf("| %-33s | %5llu | %5llu | %2llu / %-2llu | %2llu / %-2llu | %5.2f | %5.2f | %5.2f |\n", setting->name,
           (unsigned long long) account.ram, (unsigned long long) account.dropped, (unsigned long long) rules_held,
           (unsigned long long) rules->count, (unsigned long long) fact_held, (unsigned long long) fact->count,
           nll[PROFESSION], nll[LANGUAGE], nll[FACT]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct stream stream;
    struct pgd_model *model = bench_open_model(argc, argv);
    const uint32_t threads = (uint32_t) bench_number(argc, argv, "--threads", 0);
    make_stream(model, threads, &stream);
    const uint64_t hold = stream.total / bench_number(argc, argv, "--share", 4);
    static const struct setting settings[] = {
        {"everything in memory", true, PAGODA_POLICY_SINK, true, false},
        {"fifo, nothing pinned", false, PAGODA_POLICY_FIFO, false, false},
        {"window, nothing pinned", false, PAGODA_POLICY_WINDOW, false, false},
        {"sink, nothing pinned", false, PAGODA_POLICY_SINK, false, false},
        {"fifo, system pinned", false, PAGODA_POLICY_FIFO, true, false},
        {"sink, system pinned (the default)", false, PAGODA_POLICY_SINK, true, false},
        {"sink, system and turn 12 pinned", false, PAGODA_POLICY_SINK, true, true},
    };
    printf("%s: %d turns, %llu tokens, room for %llu\n\n", pgd_model_get_info(model)->name, TURNS,
           (unsigned long long) stream.total, (unsigned long long) hold);
    printf("| policy | held | dropped | rules in memory | fact in memory | NLL \"physicist\" | NLL \"French\" | "
           "NLL \"coriander\" |\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        run(model, threads, &stream, &settings[i], hold);
    }
    for (size_t m = 0; m < MESSAGES; m++) {
        free(stream.segments[m].tokens);
    }
    for (size_t t = 0; t < TURNS; t++) {
        free(stream.replies[t]);
    }
    pgd_model_close(model);
    return 0;
}
