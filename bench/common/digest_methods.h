/* bench/common/digest_methods.h - the ways to summarise a page that bench/digests.c compares. */
#ifndef BENCH_COMMON_DIGEST_METHODS_H
#define BENCH_COMMON_DIGEST_METHODS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/digest.h"

#define SIZE_MAX_HERE 256u
#define ROWS_MAX 16u
#define PAGE_MAX 64u
#define DIGEST_FAMILIES 3u /* pagoda's digests: of single pages, of two, of four that share one */

/* One KV head. */
struct head {
    uint32_t size;
    uint32_t group; /* query heads */
    uint32_t page;  /* tokens of a page */
    uint32_t pages;
    struct pgd_attend_shape shape;
    float *keys[2];   /* [token][size], as they are and rotated */
    float *values[2]; /* likewise */
    struct pgd_digest_queries seen;
    float lift[DIGEST_FAMILIES][ROWS_MAX]; /* of each query head: what its digests say too little, as a logarithm */
};

/* What a method says of the pages, for the query heads of one token. */
struct answer {
    float *reach[ROWS_MAX]; /* by page: the logarithm of mass that pages are chosen by */
    float *mass[ROWS_MAX];  /* the mass that the page stands in with, as a logarithm */
    float *value[ROWS_MAX]; /* [page][size], the value that it stands in with */
};

struct query {
    const float *plain[ROWS_MAX];
    float rotated[ROWS_MAX][SIZE_MAX_HERE];
};

/* A method keeps a page as a few vectors of numbers, already as coarse as its bits make them; the first is the value
 * that stands in, but for methods that have none. */
struct method {
    const char *name;
    uint32_t vectors;
    uint32_t bits[3]; /* of a number of each vector */
    float kappa;
    bool rotated; /* digests and queries */
    bool stands_in;
    void (*make)(const struct head *head, const struct method *method, uint32_t page, float *digest);
    /* One page and one query, or everything at once. */
    void (*score)(const struct head *head, const struct method *method, const float *digest, const float *query,
                  float *reach, float *mass);
    void (*score_all)(const struct head *head, const struct method *method, const float *digests,
                      const struct query *query, struct answer *answer);
    uint32_t span; /* pages that share a digest; 0: each has its own */
};

/* Those that pagoda uses; the order of the table. Each family has all three. */
enum { DIGEST_OURS = 16, DIGEST_PLAIN = 0, DIGEST_LIFTED, DIGEST_DETAILED, DIGEST_FORMS };

static inline size_t digest_method_of(uint32_t family, uint32_t form)
{
    return DIGEST_OURS + (size_t) family * DIGEST_FORMS + form;
}

#define DIGEST_METHODS 27u
extern const struct method digest_methods[DIGEST_METHODS];

/* Room for one page, in floats, whatever the method. */
size_t digest_floats(const struct head *head);

/* What a page's digest would take. */
uint32_t digest_bytes(const struct head *head, const struct method *method);

float digest_product(uint32_t size, const float *a, const float *b);

/* The logarithm of the sum of exp(scores[i]). */
float digest_log_sum(uint32_t count, const float *scores);

#endif
