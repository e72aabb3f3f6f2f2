/* Reading everything back from flash: the same logits, byte by byte, as a cache that never spilled.
 *
 * PAGODA_SPILL_TOKENS=8000 makes the runs longer than in the ordinary tests, and PAGODA_SPILL_DECODE says how many of
 * these tokens come one by one, at the end (bench/run.sh exact).
 */
#include <stdlib.h>

#include "engine_test.h"

enum { TEXT_BYTES = 131072 };

static struct pagoda_error error;

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

/* At least `count` tokens of a real text; the caller frees them. */
static int32_t *read_tokens(const struct pgd_model *model, uint64_t count)
{
    static char text[TEXT_BYTES];
    int32_t *tokens = NULL;
    size_t found = 0;
    FILE *file = fopen(test_text_path("newton-opticks.txt"), "rb");
    CHECK(file != NULL && fseek(file, 50000, SEEK_SET) == 0 && fread(text, 1, TEXT_BYTES, file) == TEXT_BYTES);
    fclose(file);
    CHECK_OK(pgd_model_tokenize(model, text, TEXT_BYTES, true, false, &tokens, &found, &error));
    CHECK(found >= count);
    return tokens;
}

/* `kv_bytes` 0: all of `tokens` tokens in memory; else what does not fit goes to flash, and all of it is read back. */
static struct pgd_bridge *open_cache(const struct pgd_model *model, uint64_t tokens, uint64_t kv_bytes)
{
    struct pgd_bridge *bridge = NULL;
    const struct pgd_bridge_options options = {
        .kv_bytes = kv_bytes,
        .tokens_max = tokens,
        .threads = (uint32_t) number_of("PAGODA_THREADS", 1),
        .codec = PAGODA_CODEC_K8V4,
        .codec_tight = PAGODA_CODEC_K8V4,
        .on_full = kv_bytes == 0 ? PAGODA_ON_FULL_STOP : PAGODA_ON_FULL_SPILL,
        .flash = {.directory = folder, .read_all = true},
    };
    CHECK_OK(pgd_bridge_open(model, &options, &bridge, &error));
    return bridge;
}

/* The same tokens for both; their logits must be the same after every step. */
static void step(struct pgd_bridge *bridges[2], const int32_t *tokens, uint64_t at, uint32_t count, uint64_t vocabulary)
{
    for (int i = 0; i < 2; i++) {
        CHECK_OK(pgd_bridge_decode(bridges[i], tokens + at, count, 1, &error));
    }
    if (memcmp(pgd_bridge_logits(bridges[0], 0), pgd_bridge_logits(bridges[1], 0), vocabulary * sizeof(float)) != 0) {
        struct pagoda_account account;
        pagoda_cache_account(pgd_bridge_cache(bridges[1]), &account);
        test_fail(__FILE__, __LINE__,
                  "after token %llu the logits differ (exact %llu, re-encoded %llu, on flash %llu, dropped %llu)",
                  (unsigned long long) (at + count - 1), (unsigned long long) account.ram,
                  (unsigned long long) account.quantized, (unsigned long long) account.spilled,
                  (unsigned long long) account.dropped);
    }
}

/* What must stay in memory, and a part of the rest: both in bytes, the second of a token. */
struct budget {
    uint64_t base_bytes;
    uint64_t token_bytes;
};

static void same_bytes(const char *name, uint64_t usual_tokens, struct budget budget)
{
    const uint64_t tokens = number_of("PAGODA_SPILL_TOKENS", usual_tokens);
    const uint64_t prompt = tokens - number_of("PAGODA_SPILL_DECODE", 10);
    struct pgd_model *model = open_model(test_model_path(name));
    const uint64_t vocabulary = pgd_model_get_info(model)->vocabulary;
    int32_t *text = read_tokens(model, tokens);
    make_folder();
    struct pgd_bridge *bridges[2] = {open_cache(model, tokens, 0),
                                     open_cache(model, tokens, budget.base_bytes + tokens * budget.token_bytes)};
    for (uint64_t at = 0; at < tokens;) {
        const uint64_t left = prompt > at ? prompt - at : 1;
        const uint32_t wanted = left < PGD_BRIDGE_BATCH ? (uint32_t) left : PGD_BRIDGE_BATCH;
        const uint32_t count = pagoda_cache_room(pgd_bridge_cache(bridges[1]), wanted);
        CHECK(count > 0);
        step(bridges, text, at, count, vocabulary);
        at += count;
    }
    struct pagoda_account account[2];
    for (int i = 0; i < 2; i++) {
        pagoda_cache_account(pgd_bridge_cache(bridges[i]), &account[i]);
        CHECK_EQ_U64(account[i].dropped + account[i].unread, 0);
        pgd_bridge_close(bridges[i]);
    }
    printf("%s: the same bytes at each of %llu tokens, %llu of them on flash at the end\n", name,
           (unsigned long long) tokens, (unsigned long long) account[1].spilled);
    CHECK_EQ_U64(account[0].spilled, 0);
    CHECK(account[1].spilled > 100);
    free(text);
    pgd_model_close(model);
    remove_folder();
}

TEST(smollm2_reads_back_the_bytes_it_spilled)
{
    same_bytes(SMOLLM2, 1500, (struct budget) {UINT64_C(12) << 20, 1440}); /* a sixteenth of f16 */
}

/* Its window layers keep their pages in memory. */
TEST(gemma3_reads_back_the_bytes_it_spilled)
{
    same_bytes(GEMMA3, 3000, (struct budget) {UINT64_C(8) << 20, 600});
}
