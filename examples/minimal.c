/* minimal.c - the whole life of a cache, without any model.
 *
 *     cc minimal.c $(pkg-config --cflags --libs pagoda) -o minimal && ./minimal
 *
 * One layer with two KV heads of 64, four query heads, and a budget of half a MiB. 5,000 tokens pass through; the
 * first 16 are pinned; what no longer fits is dropped, oldest first, and counted.
 */
#include <pagoda/pagoda.h>
#include <stdio.h>

enum { KV_HEADS = 2, QUERY_HEADS = 4, SIZE = 64, TOKENS = 5000 };

static int fail(const struct pagoda_error *error)
{
    fprintf(stderr, "%s: %s\n", pagoda_status_name(error->status), error->message);
    return 1;
}

/* Stand-ins for what a model would compute for token t. */
static void fill(float *row, int count, int t)
{
    for (int i = 0; i < count; i++) {
        row[i] = (float) ((t * 31 + i * 17) % 64) / 64.0f - 0.5f;
    }
}

int main(void)
{
    const struct pagoda_layer layer = {
        .kv_heads = KV_HEADS, .query_heads = QUERY_HEADS, .key_size = SIZE, .value_size = SIZE, .scale = 0.125f};
    struct pagoda_cache_options options;
    pagoda_cache_options_default(&options);
    options.layers = &layer;
    options.layer_count = 1;
    options.budget_bytes = 512 * 1024;
    options.on_full = PAGODA_ON_FULL_EVICT;
    options.policy.kind = PAGODA_POLICY_FIFO;

    struct pagoda_cache *cache;
    struct pagoda_error error;
    if (pagoda_cache_open(&options, &cache, &error) != PAGODA_OK) {
        return fail(&error);
    }
    float keys[KV_HEADS * SIZE], values[KV_HEADS * SIZE], query[QUERY_HEADS * SIZE], out[QUERY_HEADS * SIZE] = {0};
    for (int t = 0; t < TOKENS; t++) {
        fill(keys, KV_HEADS * SIZE, t);
        fill(values, KV_HEADS * SIZE, t + 1);
        fill(query, QUERY_HEADS * SIZE, t + 2);
        if (pagoda_cache_begin(cache, 1, &error) != PAGODA_OK ||
            pagoda_cache_ingest(cache, 0, PAGODA_KEYS, keys, KV_HEADS * SIZE, 0, 1) != PAGODA_OK ||
            pagoda_cache_ingest(cache, 0, PAGODA_VALUES, values, KV_HEADS * SIZE, 0, 1) != PAGODA_OK ||
            pagoda_cache_attend(cache, 0, &(struct pagoda_queries) {query, QUERY_HEADS * SIZE, SIZE},
                                &(struct pagoda_outputs) {out, QUERY_HEADS * SIZE, SIZE}, 0, 1) != PAGODA_OK ||
            pagoda_cache_end(cache, &error) != PAGODA_OK ||
            (t == 15 && pagoda_cache_pin(cache, 0, 16, &error) != PAGODA_OK)) {
            return fail(&error);
        }
    }
    struct pagoda_account account;
    struct pagoda_memory memory;
    pagoda_cache_account(cache, &account);
    pagoda_cache_memory(cache, &memory);
    printf("%d tokens: %llu in memory (%llu pinned), %llu dropped; at most %llu of %llu bytes; out[0] = %f\n", TOKENS,
           (unsigned long long) account.ram, (unsigned long long) account.pinned, (unsigned long long) account.dropped,
           (unsigned long long) memory.peak_bytes, (unsigned long long) memory.budget_bytes, (double) out[0]);
    pagoda_cache_close(cache);
    return 0;
}
