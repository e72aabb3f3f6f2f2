/* bench/kernels.c - how fast the attention kernels are, one thread, each level of this CPU.
 *
 *     build/bench/kernels            all levels but ref
 *     build/bench/kernels NAME...    these levels
 *
 * decode   one token of every layer and KV head of a model at a context, in each codec: milliseconds, and GB/s of
 *          keys and values read. Memory lies
 *          as the cache lays it: a page of 16 tokens of one layer holds a cell for each KV head, and the pages of
 *          the layers alternate. Beside it, the speed of a plain sum over the same bytes: in a row, and in the
 *          order in which decoding reads them.
 * prefill  128 tokens attend to a context in items of 32 tokens: GFLOP/s, counting two for a product and
 *          a sum, over visible keys only. "causal" is the prompt's own part, where half is hidden.
 * Each number is the median of several runs.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "codec/codec.h"
#include "kernels/kernels.h"

#define RUNS 7
#define ROWS_MAX 256u

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

struct bench {
    const struct pgd_kernels *kernels;
    struct model model;
    uint32_t context;
    struct pgd_attend_shape shape;
    const struct pgd_codec *codec;
    unsigned char *memory;
    size_t cell_bytes;
    float *queries;
    struct pgd_packed_rows packed;
    float *scratch;
    struct pgd_partial running;
    struct pgd_partial partial;
    uint32_t first[ROWS_MAX];
    uint32_t end[ROWS_MAX];
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

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

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t) count, sizeof *values, by_value);
    return values[count / 2];
}

static size_t memory_bytes(const struct bench *b)
{
    return b->cell_bytes * b->model.kv_heads * b->model.layers * (b->context / PGD_LANES);
}

static void gather(const struct bench *b, uint32_t layer, uint32_t head, uint32_t chunk, struct pgd_cells *out)
{
    out->count = PGD_CHUNK_BLOCKS;
    for (uint32_t i = 0; i < PGD_CHUNK_BLOCKS; i++) {
        const size_t page = (size_t) chunk * PGD_CHUNK_BLOCKS + i;
        const size_t cell = (page * b->model.layers + layer) * b->model.kv_heads + head;
        out->cell[i] = b->memory + cell * b->cell_bytes;
    }
}

/* All chunks of one KV head of one layer for `count` rows. The first token sees `sees` keys, each next token one
 * more, as far as the context goes. */
static void attend(struct bench *b, uint32_t layer, uint32_t head, uint32_t count, uint32_t sees)
{
    const uint32_t size = b->shape.value_size;
    for (uint32_t r = 0; r < count; r++) {
        b->running.max[r] = -INFINITY;
    }
    for (uint32_t c = 0; c < b->context / PGD_CHUNK_TOKENS; c++) {
        struct pgd_cells cells;
        gather(b, layer, head, c, &cells);
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
            struct pgd_query_rows rows = {.exact = {count, b->queries, b->first, b->end}, .packed = b->packed};
            rows.packed.count = count;
            rows.packed.first = b->first;
            rows.packed.end = b->end;
            b->codec->attend(b->codec, b->kernels, &b->shape, &cells, &rows, b->scratch, &b->partial);
            b->kernels->merge(count, size, &b->running, &b->partial);
        }
    }
}

static double decode_seconds(struct bench *b)
{
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        const double start = now_s();
        for (uint32_t layer = 0; layer < b->model.layers; layer++) {
            for (uint32_t head = 0; head < b->model.kv_heads; head++) {
                attend(b, layer, head, b->model.group, b->context);
            }
        }
        times[run] = now_s() - start;
    }
    return median(times, RUNS);
}

static uint64_t sum_words(const void *memory, size_t bytes)
{
    const uint64_t *words = memory;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *words; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sums[j] += words[i + j];
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

/* A sum over all cells, from the first byte to the last, or cell by cell in the order of decoding. */
static double read_gb_per_s(const struct bench *b, bool in_a_row)
{
    static volatile uint64_t sink;
    double times[RUNS];
    for (int run = 0; run < RUNS; run++) {
        const double start = now_s();
        if (in_a_row) {
            sink += sum_words(b->memory, memory_bytes(b));
        }
        for (uint32_t i = 0; !in_a_row && i < b->model.layers * b->model.kv_heads; i++) {
            for (uint32_t c = 0; c < b->context / PGD_CHUNK_TOKENS; c++) {
                struct pgd_cells cells;
                gather(b, i / b->model.kv_heads, i % b->model.kv_heads, c, &cells);
                for (uint32_t k = 0; k < PGD_CHUNK_BLOCKS; k++) {
                    sink += sum_words(cells.cell[k], b->cell_bytes);
                }
            }
        }
        times[run] = now_s() - start;
    }
    return (double) memory_bytes(b) / median(times, RUNS) * 1e-9;
}

#define ITEM_TOKENS 32u
#define PROMPT_TOKENS 128u

static double prefill_gflop_per_s(struct bench *b, bool causal)
{
    double times[RUNS];
    double flops = 0;
    const uint32_t repeats = 1 + 8192 / b->context;
    for (int run = 0; run < RUNS; run++) {
        const double start = now_s();
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
        times[run] = now_s() - start;
    }
    return flops / median(times, RUNS) * 1e-9;
}

static float random_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float) (int32_t) *state * 0x1p-31f;
}

/* One cell of random rows, copied everywhere: the numbers do not matter, their places do. */
static void fill(struct bench *b)
{
    uint32_t state = 1;
    const uint32_t size = b->model.head_size;
    float *rows = floats((size_t) 2 * PGD_LANES * size);
    for (size_t i = 0; i < (size_t) 2 * PGD_LANES * size; i++) {
        rows[i] = random_number(&state);
    }
    b->codec->encode(b->codec, (struct pgd_cell_shape) {size, size}, rows, rows + (size_t) PGD_LANES * size, b->memory);
    for (size_t at = b->cell_bytes; at < memory_bytes(b); at += b->cell_bytes) {
        memcpy(b->memory + at, b->memory, b->cell_bytes);
    }
    for (uint32_t r = 0; r < ROWS_MAX; r++) {
        for (uint32_t d = 0; d < size; d++) {
            b->queries[(size_t) r * size + d] = random_number(&state);
        }
        pgd_packed_query(size, b->queries + (size_t) r * size, &b->packed, r);
    }
    free(rows);
}

static struct pgd_partial partial_of(uint32_t size)
{
    return (struct pgd_partial) {floats(ROWS_MAX), floats(ROWS_MAX), floats((size_t) ROWS_MAX * size)};
}

static void free_partial(struct pgd_partial *partial)
{
    free(partial->max);
    free(partial->sum);
    free(partial->out);
}

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

static void open_bench(struct bench *b)
{
    const uint32_t size = b->model.head_size;
    const uint32_t words = (size + 3) / 4;
    b->shape = (struct pgd_attend_shape) {size, size, 1.0f / sqrtf((float) size), 0};
    b->cell_bytes = b->codec->cell_bytes(b->codec, (struct pgd_cell_shape) {size, size});
    b->memory = need(mmap(NULL, memory_bytes(b), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    b->queries = floats((size_t) ROWS_MAX * size);
    b->packed = (struct pgd_packed_rows) {
        .tiles = words,
        .high = need(calloc((size_t) ROWS_MAX * words, sizeof(int32_t))),
        .low = need(calloc((size_t) ROWS_MAX * words, sizeof(int32_t))),
        .unit = floats(ROWS_MAX),
        .sum = need(calloc(ROWS_MAX, sizeof(int32_t))),
    };
    b->scratch = floats(pgd_kernels_scratch_floats(&b->shape, ROWS_MAX));
    b->running = partial_of(size);
    b->partial = partial_of(size);
    fill(b);
}

static void close_bench(struct bench *b)
{
    munmap(b->memory, memory_bytes(b));
    free(b->queries);
    free(b->packed.high);
    free(b->packed.low);
    free(b->packed.unit);
    free(b->packed.sum);
    free(b->scratch);
    free_partial(&b->running);
    free_partial(&b->partial);
}

static void run_codec(const struct model *model, uint32_t context, enum pagoda_codec codec, int argc, char **argv)
{
    struct bench b = {.model = *model, .context = context, .codec = pgd_codec_get(codec)};
    open_bench(&b);
    const double gb = (double) memory_bytes(&b) * 1e-9;
    if (codec == PAGODA_CODEC_F16) {
        printf("%-13s %7u  %-5s %-12s %9s %8.1f\n", model->name, context, "", "(in a row)", "",
               read_gb_per_s(&b, true));
        printf("%-13s %7u  %-5s %-12s %9s %8.1f\n", model->name, context, "", "(in order)", "",
               read_gb_per_s(&b, false));
    }
    for (uint32_t i = 0; (b.kernels = pgd_kernels_at(i)) != NULL; i++) {
        if (is_wanted(b.kernels->name, argc, argv)) {
            const double decode = decode_seconds(&b);
            const double prefill = prefill_gflop_per_s(&b, false);
            const double causal = prefill_gflop_per_s(&b, true);
            printf("%-13s %7u  %-5s %-12s %9.3f %8.1f %9.1f %9.1f\n", model->name, context, b.codec->name,
                   b.kernels->name, 1e3 * decode, gb / decode, prefill, causal);
            fflush(stdout);
        }
    }
    close_bench(&b);
}

int main(int argc, char **argv)
{
    static const uint32_t contexts[] = {1024, 8192};
    printf("one thread; medians of %d runs\n", RUNS);
    static const enum pagoda_codec codecs[] = {PAGODA_CODEC_F16, PAGODA_CODEC_Q8, PAGODA_CODEC_K8V4, PAGODA_CODEC_K5V4};
    printf("%-13s %7s  %-5s %-12s %9s %8s %9s %9s\n", "model", "context", "codec", "level", "decode", "decode",
           "prefill", "causal");
    printf("%-13s %7s  %-5s %-12s %9s %8s %9s %9s\n", "", "tokens", "", "", "ms", "GB/s", "GFLOP/s", "GFLOP/s");
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        for (size_t c = 0; c < sizeof contexts / sizeof contexts[0]; c++) {
            for (size_t k = 0; k < sizeof codecs / sizeof codecs[0]; k++) {
                run_codec(&models[m], contexts[c], codecs[k], argc, argv);
            }
        }
    }
    return 0;
}
