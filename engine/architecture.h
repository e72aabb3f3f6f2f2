/* engine/architecture.h - what a kind of model means for memory, beyond the numbers in its header.
 *
 * A header tells sizes, but not everything that follows from them: which layers have the sliding window, which rotate
 * their keys, and which keep a state in place of keys and values is fixed in the code of each architecture. This table
 * says it for the architectures that libllama knows, as libllama treats them. What is not in it is not guessed.
 *
 * Pure data. Threads: any.
 */
#ifndef PGD_ENGINE_ARCHITECTURE_H
#define PGD_ENGINE_ARCHITECTURE_H

#include <stdbool.h>
#include <stdint.h>

/* Which layers have the sliding window. */
enum pgd_windows {
    PGD_WINDOWS_NONE = 0,   /* none, whatever the header says */
    PGD_WINDOWS_LAST_FULL,  /* of each `period` layers the last sees everything, unless the header has a list */
    PGD_WINDOWS_FIRST_FULL, /* of each `period` layers the first does */
    PGD_WINDOWS_LISTED,     /* the header must have a list */
    PGD_WINDOWS_ALL         /* every layer with keys has it */
};

/* Which layers rotate their keys. */
enum pgd_rotation {
    PGD_ROTATION_ALL = 0,
    PGD_ROTATION_NONE,     /* positions are learned, or a bias */
    PGD_ROTATION_TWO,      /* window layers rotate at another pace than the others */
    PGD_ROTATION_WINDOWED, /* only window layers do */
    PGD_ROTATION_FOURTH    /* every fourth layer does not */
};

/* What a layer keeps in place of keys and values, or beside them. */
enum pgd_state {
    PGD_STATE_NONE = 0,
    PGD_STATE_ALL,      /* every layer has a state and no keys */
    PGD_STATE_BESIDE,   /* every layer has both */
    PGD_STATE_HEADLESS, /* layers with 0 KV heads have a state */
    PGD_STATE_IDLE,     /* of layers with 0 KV heads, those without a feed-forward part have a state */
    PGD_STATE_INTERVAL  /* all but every full_attention_interval-th (4) */
};

struct pgd_architecture {
    const char *name;
    const char *reason; /* why the engine cannot run it; NULL: it can, as far as is known from the name */
    bool planned;       /* whether what follows is known */
    enum pgd_windows windows;
    uint32_t period;
    uint32_t window; /* tokens, when the header does not say */
    enum pgd_rotation rotation;
    enum pgd_state state;
    bool has_sinks;     /* a learned sink for each query head */
    uint32_t only_deep; /* windows only in the model with so many layers; 0: in all */
    uint32_t kv_layers; /* only the first so many keep keys and values, the others look into those; 0: all */
};

/* NULL when the name is not known. */
const struct pgd_architecture *pgd_architecture_find(const char *name);

/* The reason for models that make embeddings, or keep latent vectors: a header tells those, not only a name. */
extern const char pgd_reason_embedding[];
extern const char pgd_reason_latent[];

#endif
