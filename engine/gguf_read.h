/* engine/gguf_read.h - reads the header of a GGUF file, and nothing behind it.
 *
 *   magic "GGUF" | version u32 | tensors u64 | keys u64      all little-endian
 *   keys         : name, type u32, value                     a text is its length u64 and its bytes;
 *   tensors      : name, dimensions u32, sizes u64 each,     an array is its type u32, count u64 and items
 *                  type u32, offset u64
 *   padding to general.alignment, then the tensors' data     never touched, so the size of a file does not matter
 *
 * Nothing is trusted: every count is compared with what the rest of the file could hold before it is believed, sizes
 * are added with checked arithmetic, and what does not make sense ends the reading with a message. A visitor gets keys
 * and tensors one by one, so nothing is allocated, whatever the file says. Not checked: names that come twice.
 *
 * Ownership: what a visitor is given is valid during the call. Threads: any.
 */
#ifndef PGD_ENGINE_GGUF_READ_H
#define PGD_ENGINE_GGUF_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pagoda/status.h"

/* Where the bytes come from. `read` gives exactly `count` bytes, or fails. */
struct pgd_gguf_source {
    enum pagoda_status (*read)(void *user, uint64_t offset, void *bytes, size_t count, struct pagoda_error *error);
    void *user;
    uint64_t bytes;   /* in all */
    const char *name; /* for messages */
};

#define PGD_GGUF_NAME_BYTES 128u /* of a name that a visitor sees, with its end; longer ones are cut */
#define PGD_GGUF_TEXT_BYTES 256u /* of a text, likewise */
#define PGD_GGUF_ITEMS_MAX 512u  /* numbers of an array that are kept: as many as libllama takes layers */
#define PGD_GGUF_DIMENSIONS_MAX 4u

enum pgd_gguf_kind {
    PGD_GGUF_WHOLE, /* whole numbers and yes or no: 0 and 1 */
    PGD_GGUF_BOOL,
    PGD_GGUF_REAL, /* not kept: nothing that is needed here is one */
    PGD_GGUF_TEXT
};

/* One key and its value. */
struct pgd_gguf_value {
    char key[PGD_GGUF_NAME_BYTES];
    enum pgd_gguf_kind kind; /* of the items, for an array */
    bool is_array;
    uint64_t count;                     /* items of the array; 1 for a single value */
    uint64_t items[PGD_GGUF_ITEMS_MAX]; /* whole numbers, as many as there is room for; negative ones as 2^64 - n */
    char text[PGD_GGUF_TEXT_BYTES];     /* of a single text */
};

struct pgd_gguf_tensor {
    char name[PGD_GGUF_NAME_BYTES];
    uint32_t dimensions;
    uint64_t sizes[PGD_GGUF_DIMENSIONS_MAX]; /* 1 behind the last */
    uint64_t elements;
    uint64_t bytes;
    uint64_t offset; /* in the data */
    uint32_t type;   /* enum ggml_type, one that this build knows */
};

/* What is told about; a status other than OK ends the reading. Either may be NULL. */
struct pgd_gguf_visitor {
    enum pagoda_status (*value)(void *user, const struct pgd_gguf_value *value, struct pagoda_error *error);
    enum pagoda_status (*tensor)(void *user, const struct pgd_gguf_tensor *tensor, struct pagoda_error *error);
    void *user;
};

/* Errors: CORRUPT (not a GGUF file, cut short, damaged), UNSUPPORTED (a version or tensor type that this build does
 * not know), those of the source and of the visitor. */
PAGODA_MUST_CHECK enum pagoda_status pgd_gguf_read(const struct pgd_gguf_source *source,
                                                   const struct pgd_gguf_visitor *visitor, struct pagoda_error *error);

/* The same for the file at `path`, and its size. Errors: also NOT_FOUND, INVALID (a directory, not a file), IO. */
PAGODA_MUST_CHECK enum pagoda_status pgd_gguf_read_file(const char *path, const struct pgd_gguf_visitor *visitor,
                                                        uint64_t *file_bytes, struct pagoda_error *error);

#endif
