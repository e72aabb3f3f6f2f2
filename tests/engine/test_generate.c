/* Reading and replying: nothing is read in vain, nothing depends on the budget, and what was shown was read. */
#include "engine/generate.h"

#include <math.h>

#include "engine_test.h"

static struct pagoda_error error;

/* Some text of `count` tokens; the caller frees it. */
static int32_t *make_prompt(const struct pgd_model *model, size_t count)
{
    static const char sentence[] = "The keeper of the old lighthouse wrote down every ship, its name and its colour. ";
    const size_t bytes = count * (sizeof(sentence) - 1);
    char *text = malloc(bytes);
    CHECK(text != NULL);
    for (size_t i = 0; i < bytes; i++) {
        text[i] = sentence[i % (sizeof(sentence) - 1)];
    }
    int32_t *tokens = NULL;
    size_t got = 0;
    CHECK_OK(pgd_model_tokenize(model, text, bytes, true, false, &tokens, &got, &error));
    CHECK(got >= count);
    free(text);
    return tokens;
}

static uint64_t position_of(struct pgd_bridge *bridge)
{
    return pagoda_cache_position(pgd_bridge_cache(bridge));
}

static struct pagoda_memory memory_of(struct pgd_bridge *bridge)
{
    struct pagoda_memory memory;
    pagoda_cache_memory(pgd_bridge_cache(bridge), &memory);
    return memory;
}

/* ---- reading ---- */

struct chunks {
    uint64_t sizes[256];
    size_t count;
    uint64_t done;
    uint64_t total;
    size_t cancel_after; /* chunks; 0: never */
    volatile sig_atomic_t cancel;
};

static void on_chunk(void *user, uint64_t done, uint64_t count)
{
    struct chunks *chunks = user;
    CHECK(done > chunks->done && done <= count);
    CHECK(chunks->count < 256);
    chunks->sizes[chunks->count++] = done - chunks->done;
    chunks->done = done;
    chunks->total = count;
    if (chunks->count == chunks->cancel_after) {
        chunks->cancel = 1;
    }
}

static enum pagoda_status feed(struct pgd_bridge *bridge, const int32_t *tokens, uint64_t count, struct chunks *chunks)
{
    *chunks = (struct chunks) {.cancel_after = chunks->cancel_after};
    const struct pgd_feed_options options = {.progress = on_chunk, .user = chunks, .cancel = &chunks->cancel};
    return pgd_generate_feed(bridge, tokens, count, &options, &error);
}

TEST(a_prompt_is_read_in_whole_batches)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_bridge(model, 32, PAGODA_ON_FULL_STOP);
    int32_t *prompt = make_prompt(model, 600);
    struct chunks chunks = {.cancel_after = 0};
    CHECK_OK(feed(bridge, prompt, 600, &chunks));
    CHECK_EQ_U64(chunks.count, 3);
    CHECK_EQ_U64(chunks.sizes[0], 256);
    CHECK_EQ_U64(chunks.sizes[1], 256);
    CHECK_EQ_U64(chunks.sizes[2], 88);
    CHECK_EQ_U64(chunks.total, 600);
    CHECK_EQ_U64(position_of(bridge), 600);
    CHECK(pgd_bridge_logits(bridge, 0) != NULL);
    CHECK_OK(pgd_generate_feed(bridge, prompt, 1, NULL, &error));
    CHECK_EQ_U64(position_of(bridge), 601);
    CHECK_FAILS(pgd_generate_feed(bridge, prompt, 0, NULL, &error), PAGODA_INVALID);
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_prompt_that_does_not_fit_is_refused_before_it_is_read)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_bridge(model, 16, PAGODA_ON_FULL_STOP);
    const uint64_t capacity = memory_of(bridge).tokens_capacity;
    int32_t *prompt = make_prompt(model, 2000);
    struct chunks chunks = {.cancel_after = 0};
    char wanted[64];
    CHECK(capacity > 500 && capacity < 1000);
    CHECK_FAILS(feed(bridge, prompt, 2000, &chunks), PAGODA_FULL);
    CHECK_SAYS("2,000 tokens");
    CHECK_SAYS("--kv 16 MiB");
    CHECK_SAYS("--on-full evict");
    snprintf(wanted, sizeof(wanted), "holds %llu:", (unsigned long long) capacity);
    CHECK_SAYS(wanted);
    CHECK_EQ_U64(chunks.count, 0);
    CHECK_EQ_U64(position_of(bridge), 0);
    CHECK_FAILS(feed(bridge, prompt, capacity + 1, &chunks), PAGODA_FULL);
    CHECK_OK(feed(bridge, prompt, capacity - 100, &chunks));
    CHECK_FAILS(feed(bridge, prompt, 101, &chunks), PAGODA_FULL);
    CHECK_SAYS("of which 100 are free");
    CHECK_OK(feed(bridge, prompt, 100, &chunks)); /* to the last place */
    CHECK_EQ_U64(position_of(bridge), capacity);
    CHECK_FAILS(feed(bridge, prompt, 1, &chunks), PAGODA_FULL);
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(a_limit_in_tokens_is_not_blamed_on_the_budget)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const struct pgd_bridge_options options = {.kv_bytes = 32 << 20, .tokens_max = 200, .threads = 2};
    struct pgd_bridge *bridge = NULL;
    CHECK_OK(pgd_bridge_open(model, &options, &bridge, &error));
    int32_t *prompt = make_prompt(model, 201);
    CHECK_FAILS(pgd_generate_feed(bridge, prompt, 201, NULL, &error), PAGODA_FULL);
    CHECK_SAYS("the context (-c) holds 200: raise -c");
    CHECK_OK(pgd_generate_feed(bridge, prompt, 200, NULL, &error));
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(the_budget_does_not_change_a_byte)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const uint32_t vocabulary = pgd_model_get_info(model)->vocabulary;
    float *logits = malloc(vocabulary * sizeof(*logits));
    int32_t *prompt = make_prompt(model, 640);
    struct chunks chunks = {.cancel_after = 0};
    CHECK(logits != NULL);
    static const double budgets[] = {64, 24, 16};
    for (int i = 0; i < 3; i++) {
        for (int on_full = PAGODA_ON_FULL_STOP; on_full <= PAGODA_ON_FULL_EVICT; on_full++) {
            struct pgd_bridge *bridge = open_bridge(model, budgets[i], (enum pagoda_on_full) on_full);
            CHECK(memory_of(bridge).tokens_capacity >= 640);
            CHECK_OK(feed(bridge, prompt, 640, &chunks));
            if (i == 0 && on_full == PAGODA_ON_FULL_STOP) {
                memcpy(logits, pgd_bridge_logits(bridge, 0), vocabulary * sizeof(*logits));
            }
            CHECK_MEM(logits, pgd_bridge_logits(bridge, 0), vocabulary * sizeof(*logits));
            pgd_bridge_close(bridge);
        }
    }
    free(prompt);
    free(logits);
    pgd_model_close(model);
}

TEST(with_eviction_old_text_leaves_little_by_little)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_bridge(model, 12, PAGODA_ON_FULL_EVICT);
    const uint64_t capacity = memory_of(bridge).tokens_capacity;
    int32_t *prompt = make_prompt(model, 2500);
    struct chunks chunks = {.cancel_after = 0};
    CHECK_OK(feed(bridge, prompt, 2500, &chunks));
    CHECK_EQ_U64(position_of(bridge), 2500);
    uint64_t done = 0;
    for (size_t i = 0; i < chunks.count; i++) {
        const bool is_last = i + 1 == chunks.count;
        if (done + 256 <= capacity && !is_last) {
            CHECK_EQ_U64(chunks.sizes[i], 256);
        } else {
            CHECK(chunks.sizes[i] <= capacity / 4);
        }
        done += chunks.sizes[i];
    }
    struct pagoda_account account;
    pagoda_cache_account(pgd_bridge_cache(bridge), &account);
    CHECK(account.dropped > 0 && account.ram <= capacity && account.ram >= capacity / 2);
    CHECK(isfinite(pgd_bridge_logits(bridge, 0)[0]));
    CHECK(memory_of(bridge).peak_bytes <= memory_of(bridge).budget_bytes);
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

TEST(reading_can_be_cancelled_between_chunks)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    struct pgd_bridge *bridge = open_bridge(model, 32, PAGODA_ON_FULL_STOP);
    int32_t *prompt = make_prompt(model, 600);
    struct chunks chunks = {.cancel_after = 2};
    CHECK_FAILS(feed(bridge, prompt, 600, &chunks), PAGODA_CANCELLED);
    CHECK_EQ_U64(position_of(bridge), 512);
    pgd_bridge_cancel(bridge); /* inside a chunk: that chunk is not in */
    CHECK_FAILS(pgd_generate_feed(bridge, prompt, 100, NULL, &error), PAGODA_CANCELLED);
    CHECK_EQ_U64(position_of(bridge), 512);
    CHECK_OK(pgd_generate_feed(bridge, prompt, 100, NULL, &error));
    CHECK_EQ_U64(position_of(bridge), 612);
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}

/* ---- replying ---- */

/* A bridge that has read `text`. */
static void read_text(struct pgd_bridge *bridge, const char *text)
{
    int32_t *tokens = NULL;
    size_t count = 0;
    CHECK_OK(pagoda_cache_reset(pgd_bridge_cache(bridge), &error));
    CHECK_OK(pgd_model_tokenize(pgd_bridge_model(bridge), text, strlen(text), true, true, &tokens, &count, &error));
    CHECK_OK(pgd_generate_feed(bridge, tokens, count, NULL, &error));
    free(tokens);
}

static const char question[] =
    "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nWhat is the capital of Germany?<|im_end|>\n"
    "<|im_start|>assistant\n";

struct reply_case {
    struct pgd_model *model;
    struct pgd_bridge *bridge;
    struct pgd_sampler *sampler;
    struct text text;
    struct pgd_reply reply;
    uint64_t read; /* tokens in the sequence that the reply added */
};

static void open_case(struct reply_case *self, double kv_mib, enum pagoda_on_full on_full)
{
    self->model = open_model(test_model_path(SMOLLM2));
    self->bridge = open_bridge(self->model, kv_mib, on_full);
    self->sampler = open_greedy(self->model);
}

static void close_case(struct reply_case *self)
{
    pgd_sampler_close(self->sampler);
    pgd_bridge_close(self->bridge);
    pgd_model_close(self->model);
}

static void run_case(struct reply_case *self, struct pgd_reply_options options)
{
    const size_t calls_max = self->text.calls_max;
    const uint64_t before = position_of(self->bridge);
    self->text = (struct text) {.calls_max = calls_max};
    if (options.text == NULL) {
        options.text = listen;
        options.user = &self->text;
    }
    pgd_sampler_reset(self->sampler);
    CHECK_OK(pgd_generate_reply(self->bridge, self->sampler, &options, &self->reply, &error));
    self->read = position_of(self->bridge) - before;
    CHECK_EQ_U64(self->read, self->reply.tokens);
    CHECK(self->reply.seconds >= self->reply.first_token_seconds);
}

TEST(a_reply_ends_where_the_model_ends_it)
{
    static struct reply_case self;
    open_case(&self, 16, PAGODA_ON_FULL_STOP);
    read_text(self.bridge, question);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = -1});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_EOS);
    CHECK(strstr(self.text.bytes, "Berlin") != NULL);
    CHECK(strstr(self.text.bytes, "<|im_end|>") == NULL);
    CHECK(self.reply.tokens > 1 && self.reply.first_token_seconds > 0);
    /* The end token was not read, so the model picks it again; unless it may not. */
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 5});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_EOS);
    CHECK_EQ_U64(self.reply.tokens, 0);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 20, .ignore_eos = true});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_LENGTH);
    CHECK_EQ_U64(self.reply.tokens, 20);
    CHECK(self.text.count > 0);
    close_case(&self);
}

TEST(a_reply_ends_at_its_length)
{
    static struct reply_case self;
    open_case(&self, 16, PAGODA_ON_FULL_STOP);
    read_text(self.bridge, question);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 0});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_LENGTH);
    CHECK_EQ_U64(self.text.count, 0);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 3});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_LENGTH);
    CHECK_EQ_U64(self.reply.tokens, 3);
    char start[256];
    snprintf(start, sizeof(start), "%s", self.text.bytes);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = -1}); /* and goes on from there */
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_EOS);
    CHECK(strstr(start, "The capital") == start);
    CHECK(strstr(self.text.bytes, "Berlin") != NULL);
    close_case(&self);
}

TEST(a_reply_ends_when_the_budget_is_full)
{
    static struct reply_case self;
    open_case(&self, 12, PAGODA_ON_FULL_STOP);
    const uint64_t capacity = memory_of(self.bridge).tokens_capacity;
    int32_t *prompt = make_prompt(self.model, capacity);
    CHECK_OK(pgd_generate_feed(self.bridge, prompt, capacity - 10, NULL, &error));
    run_case(&self, (struct pgd_reply_options) {.tokens_max = -1, .ignore_eos = true});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_FULL);
    CHECK_EQ_U64(self.reply.tokens, 10);
    CHECK_EQ_U64(position_of(self.bridge), capacity);
    CHECK_EQ_INT(self.reply.full.status, PAGODA_FULL);
    CHECK(self.reply.full.message[0] != '\0');
    free(prompt);
    close_case(&self);
}

TEST(a_reply_goes_on_for_ever_with_eviction)
{
    static struct reply_case self;
    open_case(&self, 12, PAGODA_ON_FULL_EVICT);
    const uint64_t capacity = memory_of(self.bridge).tokens_capacity;
    int32_t *prompt = make_prompt(self.model, capacity);
    CHECK_OK(pgd_generate_feed(self.bridge, prompt, capacity - 10, NULL, &error));
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 60, .ignore_eos = true});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_LENGTH);
    CHECK_EQ_U64(self.reply.tokens, 60);
    free(prompt);
    close_case(&self);
}

static volatile sig_atomic_t cancel_flag;

/* What a signal handler may do, at the third piece of text. */
static bool cancel_both_ways(void *user, const char *bytes, size_t count)
{
    struct reply_case *self = user;
    if (listen(&self->text, bytes, count) && self->text.calls == 3) {
        cancel_flag = 1;
        pgd_bridge_cancel(self->bridge);
    }
    return true;
}

TEST(what_a_cancelled_reply_has_shown_was_read)
{
    static struct reply_case self;
    open_case(&self, 16, PAGODA_ON_FULL_STOP);
    read_text(self.bridge, question);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 8});
    char whole[256];
    snprintf(whole, sizeof(whole), "%s", self.text.bytes);
    /* Whoever gets the text hangs up. */
    read_text(self.bridge, question);
    self.text.calls_max = 3;
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 8});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_CANCELLED);
    CHECK_EQ_U64(self.reply.tokens, 3);
    CHECK_EQ_U64(self.text.calls, 3);
    CHECK(strncmp(whole, self.text.bytes, self.text.count) == 0);
    /* A signal, inside a step. */
    read_text(self.bridge, question);
    self.text.calls_max = 0;
    cancel_flag = 0;
    run_case(&self, (struct pgd_reply_options) {
                        .tokens_max = 8, .text = cancel_both_ways, .user = &self, .cancel = &cancel_flag});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_CANCELLED);
    CHECK_EQ_U64(self.reply.tokens, 3);
    CHECK(strncmp(whole, self.text.bytes, self.text.count) == 0);
    /* It goes on as if nothing had been. */
    char start[256];
    snprintf(start, sizeof(start), "%s", self.text.bytes);
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 5});
    CHECK(strncmp(whole + strlen(start), self.text.bytes, self.text.count) == 0);
    /* The flag is still set. */
    run_case(&self, (struct pgd_reply_options) {.tokens_max = 8, .cancel = &cancel_flag});
    CHECK_EQ_INT(self.reply.stop, PGD_STOP_CANCELLED);
    CHECK_EQ_U64(self.reply.tokens, 0);
    close_case(&self);
}

TEST(control_tokens_are_shown_on_request)
{
    static struct reply_case self;
    open_case(&self, 16, PAGODA_ON_FULL_STOP);
    for (int special = 0; special < 2; special++) {
        /* "ssistant" follows at once, and after it a line break. */
        read_text(self.bridge, "<|im_start|>user\nHi<|im_end|>\n");
        run_case(&self, (struct pgd_reply_options) {.tokens_max = 2, .special = special == 1, .ignore_eos = true});
        CHECK_EQ_INT(strstr(self.text.bytes, "<|im_start|>") != NULL, special);
    }
    close_case(&self);
}

TEST(without_anything_read_there_is_no_reply)
{
    static struct reply_case self;
    open_case(&self, 16, PAGODA_ON_FULL_STOP);
    const struct pgd_reply_options options = {.tokens_max = 5};
    CHECK_FAILS(pgd_generate_reply(self.bridge, self.sampler, &options, &self.reply, &error), PAGODA_INVALID);
    close_case(&self);
}

TEST(every_stop_has_its_word)
{
    CHECK_STR(pgd_stop_name(PGD_STOP_EOS), "eos");
    CHECK_STR(pgd_stop_name(PGD_STOP_LENGTH), "length");
    CHECK_STR(pgd_stop_name(PGD_STOP_FULL), "full");
    CHECK_STR(pgd_stop_name(PGD_STOP_CANCELLED), "cancelled");
}

TEST(a_model_with_windows_reads_past_them)
{
    struct pgd_model *model = open_model(test_model_path(GEMMA3));
    struct pgd_bridge *bridge = open_bridge(model, 40, PAGODA_ON_FULL_STOP);
    int32_t *prompt = make_prompt(model, 1500);
    struct chunks chunks = {.cancel_after = 0};
    CHECK_OK(feed(bridge, prompt, 1500, &chunks));
    CHECK_EQ_U64(chunks.count, 6);
    CHECK_EQ_U64(position_of(bridge), 1500);
    CHECK(memory_of(bridge).released_window_pages > 0);
    free(prompt);
    pgd_bridge_close(bridge);
    pgd_model_close(model);
}
