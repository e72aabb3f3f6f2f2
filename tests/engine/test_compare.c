/* Caches compared on real text: what is the same is exactly the same, what was dropped shows; and pass keys. */
#include "engine/compare.h"

#include <math.h>

#include "engine/passkey.h"
#include "engine_test.h"

enum { TOKENS = 400, STEP = 32 };

static struct pagoda_error error;

/* ---- caches and texts ---- */

static struct pgd_bridge *open_cache(const struct pgd_model *model, uint64_t tokens_max)
{
    struct pgd_bridge *bridge = NULL;
    const struct pgd_bridge_options options = {
        .tokens_max = tokens_max,
        .threads = 1,
        .outputs_max = STEP,
        .on_full = PAGODA_ON_FULL_EVICT,
        .policy = {.kind = PAGODA_POLICY_SINK},
    };
    CHECK_OK(pgd_bridge_open(model, &options, &bridge, &error));
    return bridge;
}

/* The middle of a real text; the caller frees. */
static char *read_text(size_t bytes)
{
    FILE *file = fopen(test_text_path("newton-opticks.txt"), "rb");
    char *text = malloc(bytes + 1);
    CHECK(file != NULL && text != NULL);
    CHECK(fseek(file, 200000, SEEK_SET) == 0 && fread(text, 1, bytes, file) == bytes);
    fclose(file);
    text[bytes] = '\0';
    return text;
}

static int32_t *read_tokens(const struct pgd_model *model)
{
    char *text = read_text(4096);
    int32_t *tokens = NULL;
    size_t count = 0;
    CHECK_OK(pgd_model_tokenize(model, text, strlen(text), true, false, &tokens, &count, &error));
    CHECK(count >= TOKENS);
    free(text);
    return tokens;
}

static struct pgd_tally *open_tally(uint32_t documents)
{
    struct pgd_tally *tally = NULL;
    CHECK_OK(pgd_tally_open(TOKENS * documents, documents, &tally, &error));
    return tally;
}

static struct pgd_tally_summary summarize(const struct pgd_tally *tally)
{
    struct pgd_tally_summary summary;
    CHECK_OK(pgd_tally_summarize(tally, 1, &summary, &error));
    return summary;
}

/* ---- comparing ---- */

struct progress {
    uint64_t done;
    uint64_t calls;
    volatile sig_atomic_t cancel;
    uint64_t cancel_after;
};

static void hear(void *user, uint64_t done, uint64_t count)
{
    struct progress *progress = user;
    CHECK(done > progress->done && done <= count);
    progress->done = done;
    progress->calls++;
    progress->cancel = progress->cancel_after != 0 && progress->calls == progress->cancel_after;
}

TEST(an_exact_cache_differs_by_nothing_and_a_small_one_by_what_it_dropped)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = read_tokens(model);
    struct pgd_bridge *reference = open_cache(model, TOKENS);
    const struct pgd_contender contenders[] = {
        {open_cache(model, TOKENS), open_tally(2)},
        {open_cache(model, 128), open_tally(2)},
    };
    struct progress progress = {.done = 0};
    const struct pgd_compare_options options = {.step = STEP, .progress = hear, .user = &progress};
    CHECK_OK(pgd_compare_document(reference, contenders, 2, tokens, TOKENS, &options, &error));
    CHECK_EQ_U64(progress.done, TOKENS);
    CHECK(!pgd_compare_has_acted(contenders[0].bridge) && pgd_compare_has_acted(contenders[1].bridge));
    progress.done = 0; /* the second document starts anew */
    CHECK_OK(pgd_compare_document(reference, contenders, 2, tokens, 64, &options, &error));
    CHECK(!pgd_compare_has_acted(contenders[1].bridge));

    const struct pgd_tally_summary same = summarize(contenders[0].tally);
    const struct pgd_tally_summary small = summarize(contenders[1].tally);
    CHECK_EQ_U64(same.all.count, TOKENS - 1 + 63);
    CHECK_EQ_U64(small.all.count, TOKENS - 1 + 63);
    CHECK_EQ_U64(same.all.same_top, same.all.count);
    CHECK_NEAR(same.kld_max, 0, 0);
    CHECK_NEAR(pgd_tally_rms_delta_p(&same.all), 0, 0);
    CHECK_NEAR(small.all.nll_reference, same.all.nll_reference, 0);
    CHECK(pgd_tally_mean_kld(&small.all) > 0.001);
    CHECK(small.all.same_top < small.all.count);
    /* It acted only once it was full, and not in the short document, which agrees to the last bit. */
    CHECK(small.acting.count > TOKENS / 2 && small.acting.count < TOKENS - 100);
    CHECK_NEAR(small.acting.kld, small.all.kld, 1e-9);
    CHECK_NEAR(pgd_tally_document(contenders[1].tally, 1)->kld, 0, 0);
    for (int i = 0; i < 2; i++) {
        pgd_bridge_close(contenders[i].bridge);
        pgd_tally_close(contenders[i].tally);
    }
    pgd_bridge_close(reference);
    free(tokens);
    pgd_model_close(model);
}

/* A naive twin: the sentences of tally.h, computed from the rows that each step leaves behind. */
struct twin {
    struct pgd_bridge *bridges[2]; /* reference, tested */
    const int32_t *tokens;
    uint32_t vocabulary;
    uint64_t done;
    double kld;
    double nll[2];
    double delta_p;
    uint64_t same_top;
};

static double log_probability(const float *row, uint32_t count, uint32_t token)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += exp((double) row[i] - row[token]);
    }
    return -log(sum);
}

static void count_row(struct twin *twin, const float *p, const float *q, int32_t next)
{
    const double p_first = log_probability(p, twin->vocabulary, 0);
    const double q_first = log_probability(q, twin->vocabulary, 0);
    uint32_t top[2] = {0, 0};
    for (uint32_t i = 0; i < twin->vocabulary; i++) {
        const double log_p = p_first + p[i] - p[0];
        const double log_q = q_first + q[i] - q[0];
        twin->kld += exp(log_p) * (log_p - log_q); /* KL(reference || tested) */
        top[0] = p[i] > p[top[0]] ? i : top[0];
        top[1] = q[i] > q[top[1]] ? i : top[1];
    }
    const double log_p = log_probability(p, twin->vocabulary, (uint32_t) next);
    const double log_q = log_probability(q, twin->vocabulary, (uint32_t) next);
    twin->nll[0] -= log_p;
    twin->nll[1] -= log_q;
    twin->delta_p += exp(log_q) - exp(log_p);
    twin->same_top += top[0] == top[1];
}

static void hear_twin(void *user, uint64_t done, uint64_t count)
{
    struct twin *twin = user;
    for (uint32_t i = 0; twin->done < done; i++, twin->done++) {
        if (twin->done + 1 < count) {
            count_row(twin, pgd_bridge_logits(twin->bridges[0], i), pgd_bridge_logits(twin->bridges[1], i),
                      twin->tokens[twin->done + 1]);
        }
    }
}

TEST(figures_are_what_their_definitions_say)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = read_tokens(model);
    struct pgd_bridge *reference = open_cache(model, TOKENS);
    const struct pgd_contender contender = {open_cache(model, 64), open_tally(1)};
    struct twin twin = {
        .bridges = {reference, contender.bridge},
        .tokens = tokens,
        .vocabulary = pgd_model_get_info(model)->vocabulary,
    };
    const struct pgd_compare_options options = {.step = STEP, .progress = hear_twin, .user = &twin};
    CHECK_OK(pgd_compare_document(reference, &contender, 1, tokens, 150, &options, &error));
    const struct pgd_tally_sums all = summarize(contender.tally).all;
    CHECK_EQ_U64(all.count, 149);
    CHECK_EQ_U64(all.same_top, twin.same_top);
    CHECK_NEAR(all.kld, twin.kld, 1e-6);
    CHECK_NEAR(all.nll_reference, twin.nll[0], 1e-6);
    CHECK_NEAR(all.nll_tested, twin.nll[1], 1e-6);
    CHECK_NEAR(all.delta_p, twin.delta_p, 1e-9);
    CHECK(all.kld > 0.5 && all.same_top < 149); /* there was something to measure */
    pgd_bridge_close(contender.bridge);
    pgd_tally_close(contender.tally);
    pgd_bridge_close(reference);
    free(tokens);
    pgd_model_close(model);
}

/* How far a comparison was after each step, and the surprise about what followed single tokens. */
struct steps {
    struct pgd_bridge *tested;
    const int32_t *tokens;
    uint64_t done[64];
    uint32_t count;
    double nll;
};

static void hear_steps(void *user, uint64_t done, uint64_t count)
{
    struct steps *steps = user;
    const bool single = done - (steps->count == 0 ? 0 : steps->done[steps->count - 1]) == 1;
    CHECK(steps->count < 64);
    steps->done[steps->count++] = done;
    if (single && done < count) {
        const uint32_t vocabulary = pgd_model_get_info(pgd_bridge_model(steps->tested))->vocabulary;
        const float *row = pgd_bridge_logits(steps->tested, 0);
        CHECK(row != NULL);
        steps->nll -= log_probability(row, vocabulary, (uint32_t) steps->tokens[done]);
    }
}

TEST(what_is_decoded_is_read_one_by_one_and_alone_counts)
{
    enum { DECODED = 6, COUNT = 300 };
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = read_tokens(model);
    struct pgd_bridge *reference = open_cache(model, TOKENS);
    const struct pgd_contender contenders[] = {
        {open_cache(model, 192), open_tally(1)},
        {open_cache(model, TOKENS), open_tally(1)},
    };
    struct steps steps = {.tested = contenders[0].bridge, .tokens = tokens};
    struct pgd_compare_options options = {.step = STEP, .decode = DECODED, .progress = hear_steps, .user = &steps};
    CHECK_OK(pgd_compare_document(reference, contenders, 2, tokens, COUNT, &options, &error));
    const struct pgd_tally_sums small = summarize(contenders[0].tally).all;
    const struct pgd_tally_sums whole = summarize(contenders[1].tally).all;
    CHECK_EQ_U64(small.count, DECODED);
    CHECK_EQ_U64(whole.count, DECODED);
    CHECK_NEAR(whole.kld, 0, 0);
    CHECK(small.kld > 0);
    CHECK_NEAR(small.nll_tested, steps.nll, 1e-6);
    CHECK(steps.done[0] > STEP); /* what does not count goes in faster than `step` */
    for (uint32_t i = 0; i < DECODED; i++) {
        CHECK_EQ_U64(steps.done[steps.count - 1 - i], COUNT - i);
    }
    options.decode = COUNT;
    CHECK_FAILS(pgd_compare_document(reference, contenders, 2, tokens, COUNT, &options, &error), PAGODA_INVALID);
    for (int i = 0; i < 2; i++) {
        pgd_bridge_close(contenders[i].bridge);
        pgd_tally_close(contenders[i].tally);
    }
    pgd_bridge_close(reference);
    free(tokens);
    pgd_model_close(model);
}

TEST(a_cancelled_comparison_keeps_what_it_has)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = read_tokens(model);
    struct pgd_bridge *reference = open_cache(model, TOKENS);
    const struct pgd_contender contender = {open_cache(model, TOKENS), open_tally(1)};
    struct progress progress = {.cancel_after = 3};
    const struct pgd_compare_options options = {
        .step = STEP,
        .progress = hear,
        .user = &progress,
        .cancel = &progress.cancel,
    };
    CHECK_FAILS(pgd_compare_document(reference, &contender, 1, tokens, TOKENS, &options, &error), PAGODA_CANCELLED);
    CHECK_EQ_U64(summarize(contender.tally).all.count, 3 * STEP);
    pgd_bridge_close(contender.bridge);
    pgd_tally_close(contender.tally);
    pgd_bridge_close(reference);
    free(tokens);
    pgd_model_close(model);
}

TEST(a_reference_that_drops_is_refused)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    int32_t *tokens = read_tokens(model);
    struct pgd_bridge *reference = open_cache(model, 128);
    const struct pgd_contender contender = {open_cache(model, TOKENS), open_tally(1)};
    const struct pgd_compare_options options = {.step = 16};
    CHECK_FAILS(pgd_compare_document(reference, &contender, 1, tokens, 200, &options, &error), PAGODA_MISMATCH);
    pgd_bridge_close(contender.bridge);
    pgd_tally_close(contender.tally);
    pgd_bridge_close(reference);
    free(tokens);
    pgd_model_close(model);
}

/* ---- pass keys ---- */

static size_t write_tokens(const struct pgd_model *model, const int32_t *tokens, size_t count, char *text)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        used += pgd_model_piece(model, tokens[i], true, text + used);
    }
    text[used] = '\0';
    return used;
}

static void check_prompt(const struct pgd_model *model, const struct pgd_passkey_wanted *wanted)
{
    static char text[65536];
    struct pgd_passkey passkey;
    char line[64];
    CHECK_OK(pgd_passkey_build(model, wanted, &passkey, &error));
    CHECK(passkey.count <= wanted->tokens && passkey.count + 48 > wanted->tokens);
    write_tokens(model, passkey.tokens, passkey.count, text);
    snprintf(line, sizeof(line), "The pass key is the number %s.", passkey.key);
    const char *at = strstr(text, line);
    CHECK(at != NULL && strstr(at + 1, line) == NULL);
    const double depth = (double) (at - text) / (double) strlen(text);
    CHECK_NEAR(depth, wanted->depth, 0.25); /* what is around the filler counts too */
    const char *end = text + strlen(text) - strlen("The pass key is the number");
    CHECK_STR(end, "The pass key is the number"); /* and the answer is not there yet */

    /* The sentence is where the positions say. */
    char found[256];
    write_tokens(model, passkey.tokens + passkey.key_first, (size_t) passkey.key_count, found);
    CHECK(strstr(found, line) != NULL && strlen(found) <= strlen(line) + 2);

    /* All ten numbers differ, and each stands in the text. */
    for (uint32_t i = 0; i < PGD_PASSKEY_CHOICES; i++) {
        char number[64];
        write_tokens(model, passkey.choices[i], passkey.choice_tokens, number);
        CHECK_EQ_INT(strlen(number), 6);
        CHECK(strstr(text, number) != NULL);
        CHECK((strcmp(number + 1, passkey.key) == 0) == (i == 0));
    }
    pgd_passkey_free(&passkey);
}

static void check_prompts(const char *name)
{
    struct pgd_model *model = open_model(test_model_path(name));
    char *text = read_text(40000);
    for (int i = 0; i < 9; i++) {
        const struct pgd_passkey_wanted wanted = {
            .filler = text,
            .filler_bytes = 40000,
            .tokens = (uint64_t) (500 + 1000 * (i / 3)),
            .depth = i % 3 * 0.5,
            .seed = (uint64_t) i,
        };
        check_prompt(model, &wanted);
    }
    free(text);
    pgd_model_close(model);
}

TEST(prompts_hide_one_key_where_they_say_with_a_template)
{
    check_prompts(SMOLLM2);
}

TEST(prompts_hide_one_key_where_they_say_without)
{
    check_prompts(GEMMA3);
}

TEST(seeds_decide_the_numbers)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    char *text = read_text(8000);
    struct pgd_passkey passkeys[3];
    for (int i = 0; i < 3; i++) {
        const struct pgd_passkey_wanted wanted = {text, 8000, 400, 0.5, i == 2 ? 6 : 5, false};
        CHECK_OK(pgd_passkey_build(model, &wanted, &passkeys[i], &error));
    }
    CHECK_EQ_INT(passkeys[0].count, passkeys[1].count);
    CHECK_MEM(passkeys[0].tokens, passkeys[1].tokens, passkeys[0].count * sizeof(int32_t));
    CHECK(strcmp(passkeys[0].key, passkeys[2].key) != 0);
    for (int i = 0; i < 3; i++) {
        pgd_passkey_free(&passkeys[i]);
    }
    free(text);
    pgd_model_close(model);
}

TEST(lengths_that_cannot_be_are_refused)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    char *text = read_text(2000);
    struct pgd_passkey passkey;
    const struct pgd_passkey_wanted too_long = {text, 2000, 4000, 0.5, 1, false};
    CHECK_FAILS(pgd_passkey_build(model, &too_long, &passkey, &error), PAGODA_INVALID);
    CHECK_SAYS("are needed");
    const struct pgd_passkey_wanted too_short = {text, 2000, 100, 0.5, 1, false};
    CHECK_FAILS(pgd_passkey_build(model, &too_short, &passkey, &error), PAGODA_INVALID);
    CHECK_SAYS("more than");
    free(text);
    pgd_model_close(model);
}

/* Answers of a cache that holds everything, and of one that has dropped the key. */
static void check_answers(const char *name)
{
    struct pgd_model *model = open_model(test_model_path(name));
    char *text = read_text(12000);
    struct pgd_passkey passkey;
    struct pgd_recall_answer whole;
    struct pgd_recall_answer small;
    const struct pgd_feed_options feed = {.progress = NULL};
    const struct pgd_passkey_wanted wanted = {text, 12000, 480, 0.25, 3, false};
    CHECK_OK(pgd_passkey_build(model, &wanted, &passkey, &error));
    struct pgd_bridge *bridge = open_cache(model, 0);
    CHECK_OK(pgd_passkey_ask(bridge, &passkey, &feed, &whole, &error));
    struct pgd_recall_answer again;
    CHECK_OK(pgd_passkey_ask(bridge, &passkey, &feed, &again, &error));
    pgd_bridge_close(bridge);
    CHECK(whole.written && whole.chosen && whole.nll < 3);
    CHECK_NEAR(again.nll, whole.nll, 0);
    CHECK_STR(again.reply, whole.reply);
    CHECK_EQ_U64(whole.account.dropped, 0);
    CHECK_EQ_U64(whole.account.total, passkey.count);
    CHECK_EQ_U64(whole.fact_held, passkey.key_count);

    bridge = open_cache(model, 192);
    CHECK_OK(pgd_passkey_ask(bridge, &passkey, &feed, &small, &error));
    pgd_bridge_close(bridge);
    CHECK(!small.written && !small.chosen && small.nll > 6);
    CHECK(strstr(small.reply, passkey.key) == NULL);
    CHECK(small.account.dropped >= 480 - 192 - 64);
    CHECK_EQ_U64(small.fact_held, 0);
    pgd_passkey_free(&passkey);
    free(text);
    pgd_model_close(model);
}

TEST(a_key_that_was_dropped_is_not_known_with_a_template)
{
    check_answers(SMOLLM2);
}

TEST(a_key_that_was_dropped_is_not_known_with_sliding_windows)
{
    check_answers(GEMMA3);
}
