/* Questions about what was read: prompts and scores are what they say, and going back leaves no trace. */
#include "engine/recall.h"

#include <math.h>

#include "engine/score.h"
#include "engine/tasks.h"
#include "engine_test.h"

enum { FILLER_BYTES = 60000, TEXT_BYTES = 131072 };

static struct pagoda_error error;

static struct pgd_bridge *open_cache(const struct pgd_model *model, uint64_t tokens_max, enum pagoda_policy_kind policy)
{
    struct pgd_bridge *bridge = NULL;
    const struct pgd_bridge_options options = {
        .tokens_max = tokens_max,
        .threads = 1,
        .on_full = PAGODA_ON_FULL_EVICT,
        .policy = {.kind = policy},
    };
    CHECK_OK(pgd_bridge_open(model, &options, &bridge, &error));
    return bridge;
}

static const char *read_filler(void)
{
    static char text[FILLER_BYTES + 1];
    FILE *file = fopen(test_text_path("newton-opticks.txt"), "rb");
    CHECK(file != NULL && fseek(file, 200000, SEEK_SET) == 0 && fread(text, 1, FILLER_BYTES, file) == FILLER_BYTES);
    fclose(file);
    return text;
}

static struct pgd_quiz_wanted want(uint64_t tokens, uint64_t seed)
{
    return (struct pgd_quiz_wanted) {
        .filler = read_filler(),
        .filler_bytes = FILLER_BYTES,
        .tokens = tokens,
        .seed = seed,
        .rounds = 1,
        .page_tokens = 16,
    };
}

static struct pgd_quiz make(const struct pgd_task *task, const struct pgd_model *model,
                            const struct pgd_quiz_wanted *wanted)
{
    struct pgd_quiz quiz = {.items = NULL};
    CHECK_OK(task->build(model, wanted, &quiz, &error));
    return quiz;
}

/* ---- prompts ---- */

static void write_tokens(const struct pgd_model *model, const int32_t *tokens, size_t count, char *text)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        used += pgd_model_piece(model, tokens[i], true, text + used);
        CHECK(used < TEXT_BYTES - PGD_PIECE_BYTES_MAX);
    }
    text[used] = '\0';
}

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static uint32_t count_in(const char *text, const char *part)
{
    uint32_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) {
        count++;
    }
    return count;
}

static void check_options(const struct pgd_quiz_item *item)
{
    for (uint32_t i = 0; i < PGD_RECALL_OPTIONS_MAX; i++) {
        CHECK(item->options[i][0] == ' ' && item->option_counts[i] > 0);
        for (uint32_t j = 0; j < i; j++) {
            CHECK(strcmp(item->options[i], item->options[j]) != 0);
        }
    }
}

/* The words that tell the answer stand where the positions say, and nowhere else. */
static void check_fact(const struct pgd_model *model, const struct pgd_quiz_item *item, const char *text)
{
    static char part[TEXT_BYTES];
    if (item->fact[0] == '\0') {
        CHECK_EQ_U64(item->fact_count, 0);
        return;
    }
    CHECK_EQ_U64(count_in(text, item->fact), 1);
    CHECK(strstr(item->fact, item->options[0]) != NULL);
    CHECK(item->fact_count > 0 && item->fact_first + item->fact_count <= item->count);
    write_tokens(model, item->tokens + item->fact_first, (size_t) item->fact_count, part);
    CHECK(strstr(part, item->fact) != NULL && strlen(part) <= strlen(item->fact) + 4);
}

static void check_item(const struct pgd_model *model, const struct pgd_quiz *quiz, const struct pgd_quiz_item *item,
                       const struct pgd_quiz_wanted *wanted)
{
    static char text[TEXT_BYTES];
    static char opening[TEXT_BYTES];
    CHECK(item->count <= wanted->tokens && item->count + 40 > wanted->tokens);
    CHECK(quiz->shared % 16 == 0 && quiz->shared + 100 > item->count);
    CHECK(quiz->shared + item->opening_tokens <= item->count);
    CHECK_MEM(item->tokens, quiz->items[0].tokens, quiz->shared * sizeof(int32_t));
    write_tokens(model, item->tokens, item->count, text);
    CHECK(ends_with(text, item->opening)); /* the answer is not there yet */
    write_tokens(model, item->tokens + item->count - item->opening_tokens, item->opening_tokens, opening);
    CHECK(ends_with(opening, item->opening) && strlen(opening) <= strlen(item->opening) + 4);
    check_options(item);
    check_fact(model, item, text);
}

static void check_quizzes(const char *name)
{
    struct pgd_model *model = open_model(test_model_path(name));
    for (uint32_t i = 0; pgd_task_at(i) != NULL; i++) {
        const struct pgd_quiz_wanted wanted = want(1000 + 150 * i, 5 + i);
        struct pgd_quiz quiz = make(pgd_task_at(i), model, &wanted);
        uint32_t questions = 0;
        for (uint32_t j = 0; j < quiz.item_count; j++) {
            check_item(model, &quiz, &quiz.items[j], &wanted);
            questions += strcmp(quiz.items[j].group, pgd_task_at(i)->name) == 0;
        }
        CHECK_EQ_U64(questions, pgd_task_at(i)->questions);
        pgd_quiz_close(&quiz);
    }
    pgd_model_close(model);
}

TEST(prompts_are_what_they_say_with_a_template)
{
    check_quizzes(SMOLLM2);
}

TEST(prompts_are_what_they_say_without)
{
    check_quizzes(GEMMA3);
}

TEST(seeds_decide_and_wordings_differ)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_quiz_wanted wanted = want(1000, 1);
    struct pgd_quiz first = make(&pgd_task_keys, model, &wanted);
    struct pgd_quiz again = make(&pgd_task_keys, model, &wanted);
    wanted.seed = 2;
    struct pgd_quiz other = make(&pgd_task_keys, model, &wanted);
    CHECK_EQ_U64(first.items[0].count, again.items[0].count);
    CHECK_MEM(first.items[0].tokens, again.items[0].tokens, first.items[0].count * sizeof(int32_t));
    CHECK(strcmp(first.items[0].options[0], other.items[0].options[0]) != 0);
    pgd_quiz_close(&first);
    pgd_quiz_close(&again);
    pgd_quiz_close(&other);

    wanted.rounds = 3;
    struct pgd_quiz facts = make(&pgd_task_facts, model, &wanted);
    const uint32_t round = facts.item_count / 3;
    for (uint32_t i = 0; i < round; i++) {
        for (uint32_t j = 1; j < 3; j++) {
            CHECK(strcmp(facts.items[i].subject, facts.items[i + j * round].subject) != 0);
            CHECK_STR(facts.items[i].opening, facts.items[i + j * round].opening);
            CHECK_STR(facts.items[i].options[0], facts.items[i + j * round].options[0]);
        }
    }
    pgd_quiz_close(&facts);
    pgd_model_close(model);
}

/* In which turn a text is: the number of the user's headers before it. */
static uint32_t turn_of(const char *text, const char *part)
{
    uint32_t turn = 0;
    const char *place = strstr(text, part);
    CHECK(place != NULL);
    for (const char *at = text; (at = strstr(at, "<|im_start|>user")) != NULL && at < place; at++) {
        turn++;
    }
    return turn;
}

TEST(facts_are_told_in_their_turn)
{
    static char text[TEXT_BYTES];
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const struct pgd_quiz_wanted wanted = want(1500, 3);
    struct pgd_quiz quiz = make(&pgd_task_facts, model, &wanted);
    for (uint32_t i = 0; i < quiz.item_count; i++) {
        const struct pgd_quiz_item *item = &quiz.items[i];
        write_tokens(model, item->tokens, item->count, text);
        CHECK_EQ_U64(count_in(text, "<|im_start|>user"), 30);
        CHECK_EQ_U64(turn_of(text, item->subject), 30);
        if (strcmp(item->group, "facts") == 0) {
            CHECK_EQ_U64(turn_of(text, item->fact), 1);
            CHECK_EQ_U64(count_in(text, item->opening), 2);
        } else if (strcmp(item->group, "facts, late") == 0) {
            CHECK_EQ_U64(turn_of(text, item->fact), 29);
            CHECK_EQ_U64(count_in(text, item->opening), 2);
        } else if (strcmp(item->group, "facts, corrected") == 0) {
            CHECK_EQ_U64(turn_of(text, item->opening), 1); /* with another value */
            CHECK_EQ_U64(turn_of(text, item->fact), 29);
            CHECK_EQ_U64(count_in(text, item->opening), 3);
        } else {
            CHECK_STR(item->group, "facts, never told");
            CHECK_EQ_U64(count_in(text, item->opening), 1);
        }
    }
    pgd_quiz_close(&quiz);
    pgd_model_close(model);
}

TEST(common_words_are_the_most_common_of_their_kind)
{
    static char text[TEXT_BYTES];
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const struct pgd_quiz_wanted wanted = want(900, 4);
    struct pgd_quiz quiz = make(&pgd_task_words, model, &wanted);
    for (uint32_t i = 0; i < quiz.item_count; i++) {
        const struct pgd_quiz_item *item = &quiz.items[i];
        char entry[PGD_QUIZ_SENTENCE_BYTES + PGD_QUIZ_TEXT_BYTES];
        write_tokens(model, item->tokens, item->count, text);
        snprintf(entry, sizeof(entry), "%s%s\n", item->opening, item->options[0]);
        const uint32_t right = count_in(text, entry);
        for (uint32_t j = 1; j < PGD_RECALL_OPTIONS_MAX; j++) {
            snprintf(entry, sizeof(entry), "%s%s\n", item->opening, item->options[j]);
            CHECK(right > 2 * count_in(text, entry));
        }
    }
    pgd_quiz_close(&quiz);
    pgd_model_close(model);
}

TEST(lengths_that_cannot_be_are_refused)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    for (uint32_t i = 0; pgd_task_at(i) != NULL; i++) {
        struct pgd_quiz quiz = {.items = NULL};
        struct pgd_quiz_wanted wanted = want(60, 1);
        CHECK_FAILS(pgd_task_at(i)->build(model, &wanted, &quiz, &error), PAGODA_INVALID);
        CHECK_SAYS("60");
        pgd_quiz_close(&quiz);
    }
    struct pgd_quiz quiz = {.items = NULL};
    struct pgd_quiz_wanted wanted = want(2000, 1);
    wanted.filler_bytes = 2000;
    CHECK_FAILS(pgd_task_copy.build(model, &wanted, &quiz, &error), PAGODA_INVALID);
    CHECK_SAYS("too short");
    pgd_quiz_close(&quiz);
    pgd_model_close(model);
}

/* ---- answers ---- */

TEST(a_reply_says_an_answer_whole_or_not_at_all)
{
    CHECK(pgd_recall_says(" 12345.", "12345"));
    CHECK(pgd_recall_says("\"12345\"", " 12345"));
    CHECK(pgd_recall_says("Lisbon", " Lisbon"));
    CHECK(!pgd_recall_says("123456", "12345"));
    CHECK(!pgd_recall_says("1234", "12345"));
    CHECK(!pgd_recall_says("Lisbons", " Lisbon"));
    CHECK(!pgd_recall_says("It is Lisbon", " Lisbon"));
    CHECK(!pgd_recall_says("", " Lisbon"));
}

static void start(struct pgd_bridge *bridge, const struct pgd_recall_question *question)
{
    CHECK_OK(pgd_recall_start(bridge, question, NULL, &error));
    CHECK_EQ_U64(pagoda_cache_position(pgd_bridge_cache(bridge)), question->shared);
}

static struct pgd_recall_answer ask(struct pgd_bridge *bridge, const struct pgd_recall_question *question)
{
    struct pgd_recall_answer answer;
    CHECK_OK(pgd_recall_ask(bridge, question, NULL, &answer, &error));
    return answer;
}

/* Mean NLL of every option, the simple way: the prompt is read, then each option to its end, token by token. */
static void score_all(struct pgd_bridge *bridge, const struct pgd_recall_question *question, double *means)
{
    const uint32_t vocabulary = pgd_model_get_info(pgd_bridge_model(bridge))->vocabulary;
    const size_t before = question->count - question->opening;
    CHECK_OK(pagoda_cache_reset(pgd_bridge_cache(bridge), &error));
    CHECK_OK(pgd_generate_feed(bridge, question->tokens, question->shared, NULL, &error));
    CHECK_OK(pgd_generate_feed(bridge, question->tokens + question->shared, before - question->shared, NULL, &error));
    for (uint32_t option = 0; option < question->option_count; option++) {
        const struct pgd_recall_option *wanted = &question->options[option];
        double nll = 0;
        for (size_t i = before; i < question->count; i++) {
            CHECK_OK(pgd_bridge_decode(bridge, &question->tokens[i], 1, 1, &error));
        }
        for (uint32_t i = 0; i < wanted->count; i++) {
            const struct pgd_score_row row = pgd_score_row(pgd_bridge_logits(bridge, 0), vocabulary);
            nll += pgd_score_nll(&row, wanted->tokens[i]);
            CHECK_OK(pgd_bridge_decode(bridge, &wanted->tokens[i], 1, 1, &error));
        }
        means[option] = nll / wanted->count;
        CHECK_OK(pagoda_cache_rollback(pgd_bridge_cache(bridge), question->opening + wanted->count, &error));
    }
}

TEST(scores_are_what_their_definitions_say)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_cache(model, 0, PAGODA_POLICY_SINK);
    const struct pgd_quiz_wanted wanted = want(360, 1);
    struct pgd_quiz quiz = make(&pgd_task_keys, model, &wanted);
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const struct pgd_recall_question question = pgd_quiz_question(&quiz, 4 + 4 * i);
        double means[PGD_RECALL_OPTIONS_MAX];
        bool is_best = true;
        score_all(bridge, &question, means);
        for (uint32_t j = 1; j < question.option_count; j++) {
            is_best = is_best && means[j] > means[0];
        }
        start(bridge, &question);
        const struct pgd_recall_answer answer = ask(bridge, &question);
        CHECK_NEAR(answer.nll / question.options[0].count, means[0], 1e-9);
        CHECK_EQ_INT(answer.chosen, is_best);
        CHECK_EQ_INT(answer.written, pgd_recall_says(answer.reply, question.answer));
        CHECK_EQ_U64(answer.account.total, question.count);
        CHECK_EQ_U64(answer.fact_held, question.fact_count);
        chosen += answer.chosen;
    }
    CHECK(chosen > 0); /* else there was nothing to tell apart */
    pgd_quiz_close(&quiz);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

static void check_same(const struct pgd_recall_answer *a, const struct pgd_recall_answer *b)
{
    CHECK_NEAR(a->nll, b->nll, 0);
    CHECK_STR(a->reply, b->reply);
    CHECK(a->written == b->written && a->chosen == b->chosen);
}

TEST(a_question_leaves_no_trace_for_the_next)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_cache(model, 0, PAGODA_POLICY_SINK);
    const struct pgd_quiz_wanted wanted = want(420, 2);
    struct pgd_quiz quiz = make(&pgd_task_copy, model, &wanted);
    const struct pgd_recall_question first = pgd_quiz_question(&quiz, 2);
    const struct pgd_recall_question second = pgd_quiz_question(&quiz, 7);
    start(bridge, &second);
    const struct pgd_recall_answer alone = ask(bridge, &second);
    start(bridge, &first);
    const struct pgd_recall_answer other = ask(bridge, &first);
    const struct pgd_recall_answer after = ask(bridge, &second);
    const struct pgd_recall_answer again = ask(bridge, &second);
    check_same(&alone, &after);
    check_same(&alone, &again);
    CHECK(alone.written && alone.chosen && other.written);
    CHECK(strcmp(alone.reply, other.reply) != 0);
    CHECK_EQ_U64(after.rereads + again.rereads, 0);
    pgd_quiz_close(&quiz);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(what_was_dropped_is_not_known_and_what_is_held_is)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_cache(model, 208, PAGODA_POLICY_SINK);
    const struct pgd_quiz_wanted wanted = want(560, 2);
    struct pgd_quiz quiz = make(&pgd_task_copy, model, &wanted);
    const struct pgd_recall_question gone = pgd_quiz_question(&quiz, 1);
    const struct pgd_recall_question held = pgd_quiz_question(&quiz, 9);
    start(bridge, &gone);
    const struct pgd_recall_answer lost = ask(bridge, &gone);
    const struct pgd_recall_answer known = ask(bridge, &held);
    CHECK_EQ_U64(lost.fact_held, 0);
    CHECK(lost.account.dropped > 300 && !lost.written && !lost.chosen && lost.nll > 10);
    CHECK_EQ_U64(known.fact_held, held.fact_count);
    CHECK(known.written && known.chosen && known.nll < 4);
    CHECK_EQ_U64(known.rereads, 0); /* what is shared ends with a page */
    pgd_quiz_close(&quiz);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_cache_that_cannot_go_back_reads_again_and_says_so)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_cache(model, 32, PAGODA_POLICY_WINDOW);
    const struct pgd_quiz_wanted wanted = want(430, 2);
    struct pgd_quiz quiz = make(&pgd_task_keys, model, &wanted);
    struct pgd_recall_question question = pgd_quiz_question(&quiz, 3);
    question.shared -= 41; /* inside a page, which the rest of the question pushes out */
    start(bridge, &question);
    const struct pgd_recall_answer first = ask(bridge, &question);
    const struct pgd_recall_answer second = ask(bridge, &question);
    CHECK(second.rereads > first.rereads);
    CHECK_NEAR(first.nll, second.nll, 0);
    pgd_quiz_close(&quiz);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_cancelled_question_says_so)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_cache(model, 0, PAGODA_POLICY_SINK);
    const struct pgd_quiz_wanted wanted = want(360, 1);
    struct pgd_quiz quiz = make(&pgd_task_keys, model, &wanted);
    const struct pgd_recall_question question = pgd_quiz_question(&quiz, 0);
    volatile sig_atomic_t cancel = 1;
    const struct pgd_feed_options feed = {.cancel = &cancel};
    struct pgd_recall_answer answer;
    CHECK_FAILS(pgd_recall_start(bridge, &question, &feed, &error), PAGODA_CANCELLED);
    start(bridge, &question);
    CHECK_FAILS(pgd_recall_ask(bridge, &question, &feed, &answer, &error), PAGODA_CANCELLED);
    pgd_quiz_close(&quiz);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}
