/* bench/kernels.c - how fast each kernel is, one thread, at each level of this CPU and for each kind of page.
 *
 *     build/bench/kernels            all levels but ref
 *     build/bench/kernels NAME...    these levels
 *
 * decode   one token of every layer and KV head of a model at a context: GB/s of keys and values read, and the
 *          milliseconds that all layers take. Memory lies as the cache lays it: a page of 16 tokens of one layer
 *          holds a cell for each KV head, and the pages of the layers alternate. Beside it, the speed of a plain sum
 *          over the same bytes: in a row, and in the order in which decoding reads them.
 * prefill  128 tokens attend to a context in items of 32 tokens: GFLOP/s, counting two for a product and
 *          a sum, over visible keys only. "causal" is the prompt's own part, where half is hidden.
 * rows     what happens to a row or a block on its way: nanoseconds of one call.
 * digests  one token of decoding when nothing but digests is there: milliseconds to score all pages of all layers and
 *          KV heads, and to blend them all; and microseconds to make one.
 * Each number is the median of several runs.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/common/bench.h"
#include "engine/statistics.h"
#include "kernels/digest.h"
#include "kernels/packed.h"

#define RUNS 5
#define ROWS_MAX 256u
#define ROW_CALLS 2000u
#define SAMPLE_BLOCKS 64u /* different packed blocks; the rest are copies */

struct model {
    const char *name;
    uint32_t layers;
    uint32_t kv_heads;
    uint32_t group; /* query heads of a KV head */
    uint32_t head_size;
};

static const struct model models[] = {
    {"SmolLM2-135M", 30, 3, 3, 64},
    {"Gemma-3-270M", 18, 1, 4, 256},
};

/* What a page holds: f16, or codes of so many bits. */
struct format {
    const char *name;
    uint32_t key_bits; /* 0: f16 */
    uint32_t value_bits;
};

static const struct format formats[] = {
    {"f16", 0, 0}, {"8/8", 8, 8}, {"8/5", 8, 5}, {"8/4", 8, 4}, {"6/4", 6, 4}, {"5/4", 5, 4},
};
#define FORMATS (sizeof formats / sizeof formats[0])

struct bench {
    const struct pgd_kernels *kernels;
    struct model model;
    struct format format;
    uint32_t context;
    struct pgd_attend_shape shape;
    struct pgd_packed_layout layout;
    unsigned char *memory;
    size_t cell_bytes;
    float *queries;
    float *scratch;
    struct pgd_packed_rows packed; /* the same queries */
    struct pgd_partial running;
    struct pgd_partial partial;
    uint32_t first[ROWS_MAX];
    uint32_t end[ROWS_MAX];
};

static void *need(void *memory)
{
    if (memory == NULL || memory == MAP_FAILED) {
        perror("bench");
        exit(1);
    }
    return memory;
}

static float *floats(size_t count)
{
    return need(aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
}

static int32_t *words(size_t count)
{
    return need(calloc(count, sizeof(int32_t)));
}

static size_t cells_of(const struct bench *b)
{
    return (size_t) b->model.kv_heads * b->model.layers * (b->context / PGD_LANES);
}

static size_t memory_bytes(const struct bench *b)
{
    return b->cell_bytes * cells_of(b);
}

static const unsigned char *cell_at(const struct bench *b, uint32_t layer, uint32_t head, uint32_t block)
{
    return b->memory + (((size_t) block * b->model.layers + layer) * b->model.kv_heads + head) * b->cell_bytes;
}

/* ---- attention ---- */

static void attend_f16(struct bench *b, uint32_t layer, uint32_t head, uint32_t chunk, uint32_t count)
{
    struct pgd_chunk_f16 cells = {.block_count = PGD_CHUNK_BLOCKS};
    for (uint32_t i = 0; i < PGD_CHUNK_BLOCKS; i++) {
        const unsigned char *cell = cell_at(b, layer, head, chunk * PGD_CHUNK_BLOCKS + i);
        cells.keys[i] = (const uint16_t *) (const void *) cell;
        cells.values[i] = (const uint16_t *) (const void *) (cell + b->cell_bytes / 2);
    }
    const struct pgd_rows rows = {count, b->queries, b->first, b->end};
    b->kernels->attend_chunk_f16(&b->shape, &cells, &rows, b->scratch, &b->partial);
}

static void attend_packed(struct bench *b, uint32_t layer, uint32_t head, uint32_t chunk, uint32_t count)
{
    struct pgd_packed_chunk cells = {.layout = &b->layout, .block_count = PGD_CHUNK_BLOCKS};
    for (uint32_t i = 0; i < PGD_CHUNK_BLOCKS; i++) {
        cells.blocks[i] = cell_at(b, layer, head, chunk * PGD_CHUNK_BLOCKS + i);
    }
    struct pgd_packed_rows rows = b->packed;
    rows.count = count;
    b->kernels->attend_chunk_packed(&b->shape, &cells, &rows, b->scratch, &b->partial);
}

/* All chunks of one KV head of one layer for `count` rows. The first token sees `sees` keys, each next token one
 * more, as far as the context goes. */
static void attend(struct bench *b, uint32_t layer, uint32_t head, uint32_t count, uint32_t sees)
{
    for (uint32_t r = 0; r < count; r++) {
        b->running.max[r] = -INFINITY;
    }
    for (uint32_t c = 0; c < b->context / PGD_CHUNK_TOKENS; c++) {
        bool any = false;
        for (uint32_t r = 0; r < count; r++) {
            const uint32_t visible = sees + r / b->model.group;
            const uint32_t before = c * PGD_CHUNK_TOKENS;
            b->first[r] = 0;
            b->end[r] = visible <= before                     ? 0
                        : visible - before < PGD_CHUNK_TOKENS ? visible - before
                                                              : PGD_CHUNK_TOKENS;
            any = any || b->end[r] > 0;
        }
        if (any) {
            (b->format.key_bits == 0 ? attend_f16 : attend_packed)(b, layer, head, c, count);
            b->kernels->merge(count, b->shape.value_size, &b->running, &b->partial);
        }
    }
}

static double decode_seconds(struct bench *b)
{
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        const double start = bench_seconds();
        for (uint32_t layer = 0; layer < b->model.layers; layer++) {
            for (uint32_t head = 0; head < b->model.kv_heads; head++) {
                attend(b, layer, head, b->model.group, b->context);
            }
        }
        times[run] = bench_seconds() - start;
    }
    return pgd_statistics_median(times, RUNS);
}

#define ITEM_TOKENS 32u
#define PROMPT_TOKENS 128u

static double prefill_gflop_per_s(struct bench *b, bool causal)
{
    double times[RUNS];
    double flops = 0;
    const uint32_t repeats = 1 + 8192 / b->context;
    for (int run = 0; run < RUNS; run++) {
        const double start = bench_seconds();
        flops = 0;
        for (uint32_t i = 0; i < repeats; i++) {
            const uint32_t tokens = causal ? b->context : PROMPT_TOKENS;
            for (uint32_t t = 0; t < tokens; t += ITEM_TOKENS) {
                const uint32_t sees = causal ? t + 1 : b->context;
                const uint32_t rows = ITEM_TOKENS * b->model.group;
                attend(b, i % b->model.layers, 0, rows, sees);
                for (uint32_t k = 0; k < ITEM_TOKENS; k++) {
                    const uint32_t keys = sees + k < b->context ? sees + k : b->context;
                    flops += 4.0 * b->shape.key_size * b->model.group * keys;
                }
            }
            if (causal && b->context > 2048) {
                break;
            }
        }
        times[run] = bench_seconds() - start;
    }
    return flops / pgd_statistics_median(times, RUNS) * 1e-9;
}

/* ---- plain reading ---- */

static uint64_t sum_words(const unsigned char *memory, size_t bytes)
{
    const uint64_t *from = (const uint64_t *) (const void *) memory;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *from; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sums[j] += from[i + j];
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

/* A sum over all cells, from the first byte to the last, or cell by cell in the order of decoding. */
static double read_seconds(const struct bench *b, bool in_a_row)
{
    static volatile uint64_t sink;
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        const double start = bench_seconds();
        if (in_a_row) {
            sink += sum_words(b->memory, memory_bytes(b));
        }
        for (uint32_t i = 0; !in_a_row && i < b->model.layers * b->model.kv_heads; i++) {
            for (uint32_t block = 0; block < b->context / PGD_LANES; block++) {
                sink += sum_words(cell_at(b, i / b->model.kv_heads, i % b->model.kv_heads, block), b->cell_bytes);
            }
        }
        times[run] = bench_seconds() - start;
    }
    return pgd_statistics_median(times, RUNS);
}

/* ---- rows and blocks ---- */

enum row_kernel { MERGE, STORE_KEY, STORE_VALUE, STORE_KEYS, ENCODE, DECODE, QUERY, HADAMARD, ROW_KERNELS };

static const char *const row_names[ROW_KERNELS] = {
    [MERGE] = "merge",   [STORE_KEY] = "key", [STORE_VALUE] = "value", [STORE_KEYS] = "16 keys",
    [ENCODE] = "encode", [DECODE] = "decode", [QUERY] = "query",       [HADAMARD] = "Hadamard",
};

static void call_row_kernel(struct bench *b, enum row_kernel kernel, uint32_t i)
{
    const uint32_t size = b->model.head_size;
    uint16_t *halves = (uint16_t *) (void *) b->memory;
    float *row = b->queries;
    switch (kernel) {
    case MERGE: b->kernels->merge(1, size, &b->running, &b->partial); break;
    case STORE_KEY: b->kernels->store_key_f16(size, row, i % PGD_LANES, halves); break;
    case STORE_VALUE: b->kernels->store_value_f16(size, row, i % PGD_LANES, halves); break;
    case STORE_KEYS: b->kernels->store_key_block_f16(size, row, size, halves); break;
    case ENCODE: pgd_packed_encode(&b->layout, size, size, row, row, b->memory); break;
    case DECODE: pgd_packed_decode(&b->layout, size, size, b->memory, b->scratch, b->scratch); break;
    case QUERY: pgd_packed_query(size, row, &b->packed, i % ROWS_MAX); break;
    case HADAMARD: pgd_hadamard(size, row); break;
    case ROW_KERNELS: break;
    }
}

static double row_kernel_ns(struct bench *b, enum row_kernel kernel)
{
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        const double start = bench_seconds();
        for (uint32_t i = 0; i < ROW_CALLS; i++) {
            call_row_kernel(b, kernel, i);
        }
        times[run] = (bench_seconds() - start) / ROW_CALLS;
    }
    return pgd_statistics_median(times, RUNS) * 1e9;
}

/* ---- setting up ---- */

static float next_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float) (int32_t) *state * 0x1p-31f;
}

/* Sixteen tokens of a cell. */
static void fill_cell(struct bench *b, uint32_t *state, unsigned char *cell)
{
    const uint32_t size = b->model.head_size;
    float rows[2][PGD_LANES * 256];
    for (size_t i = 0; i < (size_t) PGD_LANES * size; i++) {
        rows[0][i] = next_number(state);
        rows[1][i] = next_number(state);
    }
    if (b->format.key_bits != 0) {
        pgd_packed_encode(&b->layout, size, size, rows[0], rows[1], cell);
        return;
    }
    const struct pgd_kernels *store = pgd_kernels_select(NULL);
    uint16_t *keys = (uint16_t *) (void *) cell;
    store->store_key_block_f16(size, rows[0], size, keys);
    for (uint32_t lane = 0; lane < PGD_LANES; lane++) {
        store->store_value_f16(size, rows[1] + (size_t) lane * size, lane, keys + (size_t) PGD_LANES * size);
    }
}

static void fill(struct bench *b)
{
    uint32_t state = 1;
    const size_t cells = cells_of(b);
    for (size_t i = 0; i < cells; i++) {
        unsigned char *cell = b->memory + i * b->cell_bytes;
        if (i < SAMPLE_BLOCKS) {
            fill_cell(b, &state, cell);
        } else {
            memcpy(cell, b->memory + i % SAMPLE_BLOCKS * b->cell_bytes, b->cell_bytes);
        }
    }
    for (size_t i = 0; i < (size_t) ROWS_MAX * b->model.head_size; i++) {
        b->queries[i] = next_number(&state);
    }
    for (uint32_t r = 0; r < ROWS_MAX; r++) {
        pgd_packed_query(b->model.head_size, b->queries + (size_t) r * b->model.head_size, &b->packed, r);
    }
}

static struct pgd_partial partial_of(uint32_t size)
{
    struct pgd_partial partial = {floats(ROWS_MAX), floats(ROWS_MAX), floats((size_t) ROWS_MAX * size), NULL};
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        partial.max[i] = partial.sum[i] = 1;
    }
    for (size_t i = 0; i < (size_t) ROWS_MAX * size; i++) {
        partial.out[i] = 1;
    }
    return partial;
}

static void free_partial(struct pgd_partial *partial)
{
    free(partial->max);
    free(partial->sum);
    free(partial->out);
}

static void open_bench(struct bench *b, const struct model *model, const struct format *format, uint32_t context)
{
    const uint32_t size = model->head_size;
    *b = (struct bench) {
        .model = *model, .format = *format, .context = context, .shape = {size, size, 1.0f / sqrtf((float) size), 0}};
    b->layout = pgd_packed_layout(size, size, format->key_bits != 0 ? format->key_bits : 8,
                                  format->value_bits != 0 ? format->value_bits : 8);
    b->cell_bytes = format->key_bits != 0 ? b->layout.bytes : (size_t) 2 * size * PGD_LANES * sizeof(uint16_t);
    b->memory = need(mmap(NULL, memory_bytes(b), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    b->queries = floats((size_t) ROWS_MAX * size);
    b->scratch = floats(pgd_kernels_scratch_floats(&b->shape, ROWS_MAX));
    b->packed = (struct pgd_packed_rows) {.count = ROWS_MAX, .tiles = (size + 3) / 4};
    b->packed.high = words((size_t) ROWS_MAX * b->packed.tiles);
    b->packed.low = words((size_t) ROWS_MAX * b->packed.tiles);
    b->packed.sum = words(ROWS_MAX);
    b->packed.unit = floats(ROWS_MAX);
    b->packed.first = b->first;
    b->packed.end = b->end;
    b->running = partial_of(size);
    b->partial = partial_of(size);
    fill(b);
}

static void close_bench(struct bench *b)
{
    munmap(b->memory, memory_bytes(b));
    free(b->queries);
    free(b->scratch);
    free(b->packed.high);
    free(b->packed.low);
    free(b->packed.sum);
    free(b->packed.unit);
    free_partial(&b->running);
    free_partial(&b->partial);
}

/* ---- the tables ---- */

static bool is_wanted(const char *name, int count, char **names)
{
    if (count <= 1) {
        return strcmp(name, "ref") != 0;
    }
    for (int i = 1; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void print_line(const struct bench *b, const char *level, double seconds)
{
    printf("%-13s %7u %-4s %8.1f  %-12s %8.1f %8.2f", b->model.name, b->context, b->format.name,
           (double) memory_bytes(b) / 1048576.0, level, (double) memory_bytes(b) / seconds * 1e-9, seconds * 1e3);
}

static void run_format(const struct model *model, const struct format *format, uint32_t context, int argc, char **argv)
{
    struct bench b;
    open_bench(&b, model, format, context);
    print_line(&b, "(in a row)", read_seconds(&b, true));
    putchar('\n');
    print_line(&b, "(in order)", read_seconds(&b, false));
    putchar('\n');
    for (uint32_t i = 0; (b.kernels = pgd_kernels_at(i)) != NULL; i++) {
        if (is_wanted(b.kernels->name, argc, argv)) {
            print_line(&b, b.kernels->name, decode_seconds(&b));
            printf(" %9.1f", prefill_gflop_per_s(&b, false));
            printf(" %9.1f\n", prefill_gflop_per_s(&b, true));
            fflush(stdout);
        }
    }
    close_bench(&b);
}

static void run_attention(int argc, char **argv)
{
    static const uint32_t contexts[] = {1024, 8192};
    printf("%-13s %7s %-4s %8s  %-12s %8s %8s %9s %9s\n", "model", "context", "page", "KV", "level", "decode", "decode",
           "prefill", "causal");
    printf("%-13s %7s %-4s %8s  %-12s %8s %8s %9s %9s\n", "", "tokens", "bits", "MiB", "", "GB/s", "ms", "GFLOP/s",
           "GFLOP/s");
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        for (size_t c = 0; c < sizeof contexts / sizeof contexts[0]; c++) {
            for (size_t f = 0; f < FORMATS; f++) {
                run_format(&models[m], &formats[f], contexts[c], argc, argv);
            }
        }
    }
}

/* The kernels of the table at each level; what is plain C everywhere only once. */
static void run_rows(int argc, char **argv)
{
    printf("\nnanoseconds of one call; encode and decode: 16 tokens of 8 bits\n%-13s %-12s", "model", "level");
    for (int k = 0; k < ROW_KERNELS; k++) {
        printf(" %9s", row_names[k]);
    }
    putchar('\n');
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        struct bench b;
        open_bench(&b, &models[m], &formats[1], PGD_CHUNK_TOKENS);
        for (uint32_t i = 0; (b.kernels = pgd_kernels_at(i)) != NULL; i++) {
            if (!is_wanted(b.kernels->name, argc, argv)) {
                continue;
            }
            printf("%-13s %-12s", b.model.name, b.kernels->name);
            for (int k = 0; k < ENCODE; k++) {
                printf(" %9.1f", row_kernel_ns(&b, (enum row_kernel) k));
            }
            putchar('\n');
            fflush(stdout);
        }
        printf("%-13s %-12s %9s %9s %9s %9s", b.model.name, "(any)", "", "", "", "");
        for (int k = ENCODE; k < ROW_KERNELS; k++) {
            printf(" %9.1f", row_kernel_ns(&b, (enum row_kernel) k));
        }
        putchar('\n');
        close_bench(&b);
    }
}

/* ---- digests ---- */

struct digest_bench {
    struct bench *bench;
    uint32_t pages; /* of a layer and KV head */
    size_t bytes;
    uint8_t *memory; /* pages of a layer and KV head lie apart, as blocks do */
    const uint8_t **digests;
    const uint8_t **along;
    float *scratch;
    float *weights;
    struct pgd_digest_scores scores;
};

/* Points at the digests of one layer and KV head. */
static void find_digests(struct digest_bench *d, uint32_t which)
{
    const size_t stride = (size_t) d->bench->model.layers * d->bench->model.kv_heads;
    for (uint32_t page = 0; page < d->pages; page++) {
        d->digests[page] = d->memory + (page * stride + which) * d->bytes;
        d->along[page] =
            d->digests[page] + pgd_digest_layout(d->bench->model.head_size, d->bench->model.head_size).along;
    }
}

static double digest_ms(struct digest_bench *d, bool blend)
{
    struct bench *b = d->bench;
    struct pgd_packed_rows rows = b->packed;
    rows.count = b->model.group;
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        double seconds = 0;
        for (uint32_t which = 0; which < b->model.layers * b->model.kv_heads; which++) {
            find_digests(d, which);
            const double start = bench_seconds();
            if (blend) {
                b->kernels->blend_digests(&b->shape, d->pages, d->digests, rows.count, d->weights, &d->scores,
                                          b->partial.out);
            } else {
                const struct pgd_digest_pages pages = {d->pages, PGD_LANES, d->digests, d->along, NULL};
                b->kernels->score_digests(&b->shape, &pages, &rows, d->scratch, &d->scores);
            }
            seconds += bench_seconds() - start;
        }
        times[run] = seconds;
    }
    return pgd_statistics_median(times, RUNS) * 1e3;
}

/* Fills the memory with copies of a few digests; returns the microseconds that one takes. */
static double fill_digests(struct digest_bench *d)
{
    const uint32_t size = d->bench->model.head_size;
    const size_t count = (size_t) d->pages * d->bench->model.layers * d->bench->model.kv_heads;
    float means[4 * 256];
    const struct pgd_digest_queries queries = {d->bench->partial.out, means, d->bench->model.group};
    float *rows = floats((size_t) 2 * PGD_LANES * size);
    float *scratch = floats(pgd_digest_make_floats(size, PGD_LANES));
    uint32_t state = 1;
    double times[SAMPLE_BLOCKS];
    for (uint32_t i = 0; i < SAMPLE_BLOCKS; i++) {
        for (size_t k = 0; k < (size_t) 2 * PGD_LANES * size; k++) {
            rows[k] = next_number(&state);
            means[k % (4 * (size_t) size)] = rows[k];
        }
        const double start = bench_seconds();
        pgd_digest_make(size, size, PGD_LANES, rows, rows + (size_t) PGD_LANES * size, &queries, scratch,
                        d->memory + i * d->bytes);
        times[i] = bench_seconds() - start;
    }
    for (size_t i = SAMPLE_BLOCKS; i < count; i++) {
        memcpy(d->memory + i * d->bytes, d->memory + i % SAMPLE_BLOCKS * d->bytes, d->bytes);
    }
    free(rows);
    free(scratch);
    return pgd_statistics_median(times, SAMPLE_BLOCKS) * 1e6;
}

static void run_digest_model(struct bench *b, int argc, char **argv)
{
    struct digest_bench d = {
        .bench = b,
        .pages = b->context / PGD_LANES,
        .bytes = pgd_digest_bytes(b->model.head_size, b->model.head_size, 1),
    };
    const size_t scores = (size_t) d.pages * b->model.group;
    d.memory = need(malloc(d.bytes * cells_of(b)));
    d.digests = need(malloc(d.pages * sizeof *d.digests));
    d.along = need(malloc(d.pages * sizeof *d.along));
    d.scratch = floats(pgd_digest_scratch_floats(b->model.head_size, b->model.group));
    d.weights = floats(scores);
    d.scores = (struct pgd_digest_scores) {floats(scores), {floats(scores), floats(scores)}, d.pages};
    const double make = fill_digests(&d);
    for (size_t i = 0; i < scores; i++) {
        d.weights[i] = 1;
    }
    for (uint32_t i = 0; (b->kernels = pgd_kernels_at(i)) != NULL; i++) {
        if (is_wanted(b->kernels->name, argc, argv)) {
            const double score = digest_ms(&d, false);
            printf("%-13s %7u %-12s %9.3f %9.3f %9.2f\n", b->model.name, b->context, b->kernels->name, score,
                   digest_ms(&d, true), make);
            fflush(stdout);
        }
    }
    free(d.memory);
    free(d.digests);
    free(d.along);
    free(d.scratch);
    free(d.weights);
    free(d.scores.mass);
    free(d.scores.lean[0]);
    free(d.scores.lean[1]);
}

/* Head and pages as in the models, but for the layers with a window: those keep no digests. */
static void run_digests(int argc, char **argv)
{
    printf("\n%-13s %7s %-12s %9s %9s %9s\n%-13s %7s %-12s %9s %9s %9s\n", "model", "context", "level", "score",
           "blend", "make", "", "tokens", "", "ms", "ms", "us");
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        struct model model = models[m];
        model.layers = model.head_size == 256 ? 3 : model.layers;
        struct bench b;
        open_bench(&b, &model, &formats[1], 8192);
        run_digest_model(&b, argc, argv);
        close_bench(&b);
    }
}

int main(int argc, char **argv)
{
    printf("one thread; medians of %d runs\n", RUNS);
    run_attention(argc, argv);
    run_rows(argc, argv);
    run_digests(argc, argv);
    return 0;
}
