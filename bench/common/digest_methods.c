/* bench/common/digest_methods.c - see digest_methods.h. */
#include "bench/common/digest_methods.h"

#include <math.h>
#include <string.h>

#include "kernels/packed.h"

float digest_product(uint32_t size, const float *a, const float *b)
{
    float sum = 0;
    for (uint32_t d = 0; d < size; d++) {
        sum += a[d] * b[d];
    }
    return sum;
}

float digest_log_sum(uint32_t count, const float *scores)
{
    float max = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        max = scores[i] > max ? scores[i] : max;
    }
    for (uint32_t i = 0; i < count; i++) {
        sum += exp((double) scores[i] - max);
    }
    return max + (float) log(sum);
}

size_t digest_floats(const struct head *head)
{
    return (size_t) (1 + head->page) * head->size;
}

/* Numbers in so many bits, symmetric about zero, or from 0 on; after rotation when `rotate`. */
static void coarsen(uint32_t size, float *row, uint32_t bits, bool from_zero, bool rotate)
{
    if (rotate) {
        pgd_hadamard(size, row);
    }
    float most = 0;
    for (uint32_t d = 0; d < size; d++) {
        most = fmaxf(most, fabsf(row[d]));
    }
    const float levels = (float) ((1u << bits) - 1);
    const float scale = most / levels;
    for (uint32_t d = 0; d < size && scale > 0; d++) {
        row[d] = from_zero ? nearbyintf(row[d] / scale) * scale
                           : (2 * fminf(fmaxf(nearbyintf((row[d] / scale + levels) / 2), 0), levels) - levels) * scale;
    }
    if (rotate) {
        pgd_hadamard(size, row);
    }
}

static const float *page_rows(const struct head *head, float *const rows[2], bool rotated, uint32_t page)
{
    return rows[rotated] + (size_t) page * head->page * head->size;
}

static void mean_of(uint32_t size, uint32_t count, const float *rows, float *mean)
{
    memset(mean, 0, size * sizeof *mean);
    for (uint32_t t = 0; t < count; t++) {
        for (uint32_t d = 0; d < size; d++) {
            mean[d] += rows[(size_t) t * size + d] / (float) count;
        }
    }
}

/* Vectors: value mean, centre of the keys' box, its radius. */
static void make_box(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const uint32_t size = head->size;
    const float *keys = page_rows(head, head->keys, method->rotated, page);
    mean_of(size, head->page, page_rows(head, head->values, false, page), digest);
    for (uint32_t d = 0; d < size; d++) {
        float low = INFINITY;
        float high = -INFINITY;
        for (uint32_t t = 0; t < head->page; t++) {
            low = fminf(low, keys[(size_t) t * size + d]);
            high = fmaxf(high, keys[(size_t) t * size + d]);
        }
        digest[size + d] = (low + high) / 2;
        digest[2 * size + d] = (high - low) / 2;
    }
    coarsen(size, digest, method->bits[0], false, true);
    coarsen(size, digest + size, method->bits[1], false, !method->rotated);
    coarsen(size, digest + (size_t) 2 * size, method->bits[2], true, false);
}

static void score_box(const struct head *head, const struct method *method, const float *digest, const float *query,
                      float *reach, float *mass)
{
    float spread = 0;
    for (uint32_t d = 0; d < head->size; d++) {
        spread += fabsf(query[d]) * digest[2 * head->size + d];
    }
    const float middle = digest_product(head->size, query, digest + head->size);
    const float tokens = logf((float) head->page);
    *reach = head->shape.scale * (middle + method->kappa * spread) + tokens;
    *mass = head->shape.scale * middle + tokens;
}

/* Vectors: value mean, key mean, and when there are three, the deviation of keys in each coordinate. */
static void make_mean(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const uint32_t size = head->size;
    const float *keys = page_rows(head, head->keys, method->rotated, page);
    mean_of(size, head->page, page_rows(head, head->values, false, page), digest);
    mean_of(size, head->page, keys, digest + size);
    for (uint32_t d = 0; d < size && method->vectors > 2; d++) {
        float sum = 0;
        for (uint32_t t = 0; t < head->page; t++) {
            const float x = keys[(size_t) t * size + d] - digest[size + d];
            sum += x * x;
        }
        digest[2 * size + d] = sqrtf(sum / (float) head->page);
    }
    coarsen(size, digest, method->bits[0], false, true);
    coarsen(size, digest + size, method->bits[1], false, !method->rotated);
    if (method->vectors > 2) {
        coarsen(size, digest + (size_t) 2 * size, method->bits[2], true, false);
    }
}

static void score_mean(const struct head *head, const struct method *method, const float *digest, const float *query,
                       float *reach, float *mass)
{
    (void) method;
    *reach = *mass =
        head->shape.scale * digest_product(head->size, query, digest + head->size) + logf((float) head->page);
}

static float score_variance(const struct head *head, const float *digest, const float *query)
{
    float sum = 0;
    for (uint32_t d = 0; d < head->size; d++) {
        const float x = query[d] * digest[2 * head->size + d];
        sum += x * x;
    }
    return head->shape.scale * head->shape.scale * sum;
}

static void score_deviation(const struct head *head, const struct method *method, const float *digest,
                            const float *query, float *reach, float *mass)
{
    score_mean(head, method, digest, query, reach, mass);
    *reach += method->kappa * sqrtf(score_variance(head, digest, query));
}

/* The logarithm of the mean of exp(x) for a normal x: mean plus half the variance. */
static void score_normal(const struct head *head, const struct method *method, const float *digest, const float *query,
                         float *reach, float *mass)
{
    score_mean(head, method, digest, query, reach, mass);
    *reach += 0.5f * score_variance(head, digest, query);
    *mass = *reach;
}

static void score_absolute(const struct head *head, const struct method *method, const float *digest,
                           const float *query, float *reach, float *mass)
{
    score_mean(head, method, digest, query, reach, mass);
    for (uint32_t d = 0; d < head->size; d++) {
        *reach += method->kappa * head->shape.scale * fabsf(query[d]) * digest[2 * head->size + d];
    }
}

/* Vectors: value mean, key means of the two halves. */
static void make_halves(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const uint32_t size = head->size;
    const uint32_t half = head->page / 2;
    const float *keys = page_rows(head, head->keys, false, page);
    mean_of(size, head->page, page_rows(head, head->values, false, page), digest);
    mean_of(size, half, keys, digest + size);
    mean_of(size, half, keys + (size_t) half * size, digest + (size_t) 2 * size);
    for (uint32_t v = 0; v < 3; v++) {
        coarsen(size, digest + (size_t) v * size, method->bits[v], false, true);
    }
}

static void score_halves(const struct head *head, const struct method *method, const float *digest, const float *query,
                         float *reach, float *mass)
{
    (void) method;
    float scores[2];
    for (uint32_t half = 0; half < 2; half++) {
        scores[half] = head->shape.scale * digest_product(head->size, query, digest + (size_t) (1 + half) * head->size);
    }
    *reach = *mass = digest_log_sum(2, scores) + logf((float) head->page / 2);
}

/* The sign of each rotated number about the page's mean, which has 4 bits, and a length for each token in 8 bits. That
 * is a little more than 4 %, without a value. Vectors: the mean, then a row for each token. */
static void make_signs(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    (void) method;
    const uint32_t size = head->size;
    const float *keys = page_rows(head, head->keys, true, page);
    float lengths[PAGE_MAX] = {0};
    mean_of(size, head->page, keys, digest);
    coarsen(size, digest, 4, false, false);
    for (uint32_t t = 0; t < head->page; t++) {
        for (uint32_t d = 0; d < size; d++) {
            lengths[t] += fabsf(keys[(size_t) t * size + d] - digest[d]) / (float) size;
        }
    }
    coarsen(head->page, lengths, 8, true, false);
    for (uint32_t t = 0; t < head->page; t++) {
        for (uint32_t d = 0; d < size; d++) {
            const bool above = keys[(size_t) t * size + d] > digest[d];
            digest[(size_t) (1 + t) * size + d] = above ? lengths[t] : -lengths[t];
        }
    }
}

static void score_signs(const struct head *head, const struct method *method, const float *digest, const float *query,
                        float *reach, float *mass)
{
    (void) method;
    float scores[PAGE_MAX];
    const float middle = digest_product(head->size, query, digest);
    for (uint32_t t = 0; t < head->page; t++) {
        scores[t] =
            head->shape.scale * (middle + digest_product(head->size, query, digest + (size_t) (1 + t) * head->size));
    }
    *reach = digest_log_sum(head->page, scores);
    *mass = *reach;
}

/* Of some blocks from number `first` on. */
static void make_digest(const struct head *head, const struct method *method, uint32_t first, uint32_t blocks,
                        uint8_t *digest)
{
    static float keys[PGD_DIGEST_BLOCKS_MAX * PGD_LANES * SIZE_MAX_HERE];
    static float values[PGD_DIGEST_BLOCKS_MAX * PGD_LANES * SIZE_MAX_HERE];
    static float scratch[PGD_DIGEST_BLOCKS_MAX * PGD_LANES * (SIZE_MAX_HERE + PGD_DIGEST_QUERIES_MAX)];
    const size_t at = (size_t) first * PGD_LANES * head->size;
    const size_t bytes = (size_t) blocks * PGD_LANES * head->size * sizeof(float);
    memcpy(keys, head->keys[true] + at, bytes);
    memcpy(values, head->values[true] + at, bytes);
    pgd_digest_make(head->size, head->size, blocks * PGD_LANES, keys, values, method->kappa == 0 ? NULL : &head->seen,
                    scratch, digest);
}

static void make_ours(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const size_t bytes = pgd_digest_bytes(head->size, head->size, 1);
    const uint32_t blocks = head->page / PGD_LANES;
    for (uint32_t block = 0; block < blocks; block++) {
        make_digest(head, method, page * blocks + block, 1, (uint8_t *) digest + block * bytes);
    }
}

/* Pages of one block: those that share a digest keep a copy of it each. */
static void make_spanned(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const uint32_t place = page % method->span;
    const uint32_t left = head->pages - page;
    if (place == 0) {
        make_digest(head, method, page, left < method->span ? left : method->span, (uint8_t *) digest);
    } else {
        memcpy(digest, digest - digest_floats(head), pgd_digest_bytes(head->size, head->size, method->span));
    }
}

/* Where the details of a page begin, behind its digests. */
static size_t details_at(const struct head *head, const struct method *method)
{
    return method->span > 1 ? pgd_digest_bytes(head->size, head->size, method->span)
                            : pgd_digest_bytes(head->size, head->size, 1) * head->page / PGD_LANES;
}

/* Digests of a page's own or shared ones, and behind them the details of all blocks. */
static void make_detailed(const struct head *head, const struct method *method, uint32_t page, float *digest)
{
    const uint32_t blocks = head->page / PGD_LANES;
    const size_t bytes = pgd_digest_bytes(head->size, head->size, 1);
    const uint8_t *digests = (const uint8_t *) digest;
    uint8_t *details = (uint8_t *) digest + details_at(head, method);
    (method->span > 1 ? make_spanned : make_ours)(head, method, page, digest);
    for (uint32_t block = 0; block < blocks; block++) {
        pgd_detail_make(head->size, PGD_LANES,
                        page_rows(head, head->keys, true, page) + (size_t) block * PGD_LANES * head->size,
                        digests + block * bytes, details + (size_t) block * pgd_detail_bytes(head->size));
    }
}

/* A page longer than a digest has one for each of its blocks. */
static void score_block(const struct head *head, const uint8_t *digest, const struct pgd_digest_scores *scores,
                        uint32_t row, float *value)
{
    const float one = 1.0f;
    const struct pgd_digest_scores of_row = {scores->mass + row, {scores->lean[0] + row, scores->lean[1] + row}, 1};
    memset(value, 0, head->size * sizeof *value);
    pgd_kernels_select(NULL)->blend_digests(&head->shape, 1, &digest, 1, &one, &of_row, value);
}

/* `detail` may be NULL; `place` is which of the pages that share its digest a page is. */
static void score_ours_page(const struct head *head, const uint8_t *digest, const uint8_t *detail, uint32_t place,
                            const struct pgd_packed_rows *rows, uint32_t page, struct answer *answer)
{
    const uint32_t along_at = pgd_digest_layout(head->size, head->size).along + place * PGD_LANES;
    _Alignas(64) float scratch[ROWS_MAX * SIZE_MAX_HERE];
    const struct pgd_kernels *kernels = pgd_kernels_select(NULL);
    float mass[PAGE_MAX / PGD_LANES][ROWS_MAX];
    float values[PAGE_MAX / PGD_LANES][ROWS_MAX][SIZE_MAX_HERE];
    float lean[2][ROWS_MAX];
    const uint32_t blocks = head->page / PGD_LANES;
    for (uint32_t block = 0; block < blocks; block++) {
        const struct pgd_digest_scores scores = {mass[block], {lean[0], lean[1]}, 1};
        const uint8_t *along = digest + along_at;
        const struct pgd_digest_pages one = {1, PGD_LANES, &digest, &along, detail == NULL ? NULL : &detail};
        kernels->score_digests(&head->shape, &one, rows, scratch, &scores);
        detail = detail == NULL ? NULL : detail + pgd_detail_bytes(head->size);
        for (uint32_t row = 0; row < rows->count; row++) {
            score_block(head, digest, &scores, row, values[block][row]);
        }
        digest += pgd_digest_bytes(head->size, head->size, 1);
    }
    for (uint32_t row = 0; row < rows->count; row++) {
        float all[PAGE_MAX / PGD_LANES];
        for (uint32_t block = 0; block < blocks; block++) {
            all[block] = mass[block][row];
        }
        answer->reach[row][page] = answer->mass[row][page] = digest_log_sum(blocks, all);
        float *value = answer->value[row] + (size_t) page * head->size;
        memset(value, 0, head->size * sizeof *value);
        for (uint32_t block = 0; block < blocks; block++) {
            const float share = expf(all[block] - answer->mass[row][page]);
            for (uint32_t d = 0; d < head->size; d++) {
                value[d] += share * values[block][row][d];
            }
        }
        pgd_hadamard(head->size, value);
    }
}

static void score_ours(const struct head *head, const struct method *method, const float *digests,
                       const struct query *query, struct answer *answer)
{
    const bool detailed = method->make == make_detailed;
    const uint32_t span = method->span == 0 ? 1 : method->span;
    int32_t high[ROWS_MAX * SIZE_MAX_HERE / 4];
    int32_t low[ROWS_MAX * SIZE_MAX_HERE / 4];
    float unit[ROWS_MAX];
    int32_t sum[ROWS_MAX];
    const struct pgd_packed_rows rows = {
        .count = head->group, .tiles = (head->size + 3) / 4, .high = high, .low = low, .unit = unit, .sum = sum};
    for (uint32_t row = 0; row < head->group; row++) {
        pgd_packed_query(head->size, query->rotated[row], &rows, row);
    }
    for (uint32_t page = 0; page < head->pages; page++) {
        const uint8_t *digest = (const uint8_t *) (const void *) (digests + page * digest_floats(head));
        score_ours_page(head, digest, detailed ? digest + details_at(head, method) : NULL, page % span, &rows, page,
                        answer);
    }
}

static void score_lifted(const struct head *head, const struct method *method, const float *digests,
                         const struct query *query, struct answer *answer)
{
    const size_t family = ((size_t) (method - digest_methods) - DIGEST_OURS) / DIGEST_FORMS;
    score_ours(head, method, digests, query, answer);
    for (uint32_t row = 0; row < head->group; row++) {
        for (uint32_t page = 0; page < head->pages; page++) {
            answer->reach[row][page] += head->lift[family][row];
            answer->mass[row][page] += head->lift[family][row];
        }
    }
}

/* Nothing is resident, and pages are drawn by lot. */
static void score_lot(const struct head *head, const struct method *method, const float *digests,
                      const struct query *query, struct answer *answer)
{
    (void) method;
    static uint32_t state = 1;
    (void) digests;
    (void) query;
    for (uint32_t page = 0; page < head->pages; page++) {
        state = state * 1664525u + 1013904223u;
        for (uint32_t row = 0; row < head->group; row++) {
            answer->reach[row][page] = (float) state * 0x1p-32f;
        }
    }
}

/* The page's true mass and value mean: what no digest can know. */
static void score_oracle(const struct head *head, const struct method *method, const float *digests,
                         const struct query *query, struct answer *answer)
{
    (void) method;
    float scores[PAGE_MAX];
    (void) digests;
    for (uint32_t row = 0; row < head->group; row++) {
        for (uint32_t page = 0; page < head->pages; page++) {
            const float *keys = page_rows(head, head->keys, false, page);
            for (uint32_t t = 0; t < head->page; t++) {
                scores[t] =
                    head->shape.scale * digest_product(head->size, query->plain[row], keys + (size_t) t * head->size);
            }
            answer->reach[row][page] = answer->mass[row][page] = digest_log_sum(head->page, scores);
            mean_of(head->size, head->page, page_rows(head, head->values, false, page),
                    answer->value[row] + (size_t) page * head->size);
        }
    }
}

const struct method digest_methods[DIGEST_METHODS] = {
    {.name = "pages by lot", .score_all = score_lot},
    {"box, kappa 1 (Quest)", 3, {4, 8, 4}, 1.0f, false, true, make_box, score_box, NULL, 0},
    {"box, kappa 0.5", 3, {4, 8, 4}, 0.5f, false, true, make_box, score_box, NULL, 0},
    {"box, kappa 0.3", 3, {4, 8, 4}, 0.3f, false, true, make_box, score_box, NULL, 0},
    {"box, kappa 0", 3, {4, 8, 4}, 0.0f, false, true, make_box, score_box, NULL, 0},
    {"box, kappa 0.3, rotated", 3, {4, 8, 4}, 0.3f, true, true, make_box, score_box, NULL, 0},
    {"mean", 2, {8, 8}, 0, false, true, make_mean, score_mean, NULL, 0},
    {"mean + half variance", 3, {4, 8, 4}, 0, false, true, make_mean, score_normal, NULL, 0},
    {"mean + half variance, rotated", 3, {4, 8, 4}, 0, true, true, make_mean, score_normal, NULL, 0},
    {"mean + 1.5 deviations", 3, {4, 8, 4}, 1.5f, false, true, make_mean, score_deviation, NULL, 0},
    {"mean + 3 deviations", 3, {4, 8, 4}, 3.0f, false, true, make_mean, score_deviation, NULL, 0},
    {"mean + 3 deviations, rotated", 3, {4, 8, 4}, 3.0f, true, true, make_mean, score_deviation, NULL, 0},
    {"mean + sum of 0.3 |q| deviation", 3, {4, 8, 4}, 0.3f, false, true, make_mean, score_absolute, NULL, 0},
    {"means of two halves", 3, {3, 6, 6}, 0, false, true, make_halves, score_halves, NULL, 0},
    {"signs of each token", 0, {0}, 0, true, false, make_signs, score_signs, NULL, 0},
    {"two lines, queries not known", 0, {0}, 0, true, true, make_ours, NULL, score_ours, 0},
    [DIGEST_OURS] = {"two lines", 0, {0}, 1, true, true, make_ours, NULL, score_ours, 0},
    {"two lines, lifted", 0, {0}, 1, true, true, make_ours, NULL, score_lifted, 0},
    {"two lines and details", 0, {0}, 1, true, true, make_detailed, NULL, score_ours, 0},
    {"two lines for 2 pages", 0, {0}, 1, true, true, make_spanned, NULL, score_ours, 2},
    {"two lines for 2 pages, lifted", 0, {0}, 1, true, true, make_spanned, NULL, score_lifted, 2},
    {"two lines for 2 pages and details", 0, {0}, 1, true, true, make_detailed, NULL, score_ours, 2},
    {"two lines for 4 pages", 0, {0}, 1, true, true, make_spanned, NULL, score_ours, 4},
    {"two lines for 4 pages, lifted", 0, {0}, 1, true, true, make_spanned, NULL, score_lifted, 4},
    {"two lines for 4 pages and details", 0, {0}, 1, true, true, make_detailed, NULL, score_ours, 4},
    {"two lines for 8 pages", 0, {0}, 1, true, true, make_spanned, NULL, score_ours, 8},
    {.name = "oracle: true mass, value mean", .stands_in = true, .score_all = score_oracle},
};

uint32_t digest_bytes(const struct head *head, const struct method *method)
{
    uint32_t bits = 0;
    for (uint32_t v = 0; v < method->vectors; v++) {
        bits += head->size * method->bits[v] + 16; /* a scale in f16 */
    }
    if (method->make == make_signs) {
        bits = head->size * 4 + 16 + head->page * (head->size + 8) + 16;
    }
    if (method->score_all == score_ours || method->score_all == score_lifted) {
        bits = 8 * (uint32_t) details_at(head, method) / (method->span > 1 ? method->span : 1);
    }
    if (method->make == make_detailed) {
        bits += 8 * pgd_detail_bytes(head->size) * head->page / PGD_LANES;
    }
    return (bits + 7) / 8;
}
