/* cli/options.h - everything that flags and PAGODA_* variables can say, with defaults filled in.
 *
 * Ownership: texts point into argv and the environment; nothing is copied. Threads: read only once parsed.
 */
#ifndef PGD_CLI_OPTIONS_H
#define PGD_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/codec.h"
#include "cli/size.h"
#include "engine/sampler.h"
#include "pagoda/pagoda.h"

/* Commands that take flags, as bits: a flag names those it belongs to. */
enum pgd_command {
    PGD_COMMAND_CHAT = 1,
    PGD_COMMAND_RUN = 2,
    PGD_COMMAND_SHOW = 4,
    PGD_COMMAND_EVAL = 8,
    PGD_COMMAND_BENCH = 16,
    PGD_COMMAND_PLAN = 32,
    PGD_COMMAND_PLOT = 64
};

enum pgd_color { PGD_COLOR_AUTO = 0, PGD_COLOR_ALWAYS, PGD_COLOR_NEVER };

#define PGD_ON_FULL_DEFAULT (-1) /* chat and run spill, if they can; eval evicts, others stop */

/* A flag that may be given several times, and one with several numbers: ascending, none twice. Count 0: not given. */
#define PGD_LIST_MAX 16u
struct pgd_texts {
    const char *items[PGD_LIST_MAX];
    uint32_t count;
};
struct pgd_counts {
    uint64_t items[PGD_LIST_MAX];
    uint32_t count;
};

/* What `eval` measures, as bits; tasks of engine/tasks.h follow in their order. */
enum pgd_measurement { PGD_MEASURE_DOCUMENTS = 1, PGD_MEASURE_PASSKEY = 2, PGD_MEASURE_TASK = 4 };

/* How a table is written. */
enum pgd_output { PGD_OUTPUT_TEXT = 0, PGD_OUTPUT_MD, PGD_OUTPUT_CSV, PGD_OUTPUT_JSON };

#define PGD_REPETITIONS_MAX 99u

struct pgd_options {
    enum pgd_command command;

    const char *model;
    const char *prompt;
    const char *file;
    const char *system;
    char *const *words; /* run: the prompt as words after the model; plan: more models */
    int word_count;
    bool raw;

    int64_t predict;
    bool ignore_eos;
    bool special;
    struct pgd_sampler_options sampler;
    int64_t seed; /* negative: a random one */

    struct pgd_budget kv;
    struct pgd_budget mem; /* of the whole process; auto: plan: not given */
    const char *shape;     /* plan: a model in words, in place of a file */
    bool fail_if_over;
    bool no_governor;
    uint64_t ctx_size;
    int on_full;    /* enum pagoda_on_full, or PGD_ON_FULL_DEFAULT */
    int policy;     /* enum pagoda_policy_kind */
    int select;     /* 0: auto, 1: all, 2: random, 3: oracle */
    int flash_full; /* enum pagoda_on_flash_full */
    float recall;
    uint64_t flash;
    uint64_t flash_write;
    uint64_t flash_speed;
    uint64_t stall_ms;
    uint64_t window;
    uint64_t sinks;
    uint64_t page;
    int codec;           /* index of pgd_codec_words */
    uint32_t key_bits;   /* -ctk, in bits; 0: not given */
    uint32_t value_bits; /* -ctv */
    bool no_pin;
    bool keep_gaps;
    const char *kv_dir; /* NULL: the cache directory */
    bool device;        /* show: the device of kv_dir, not a model */

    struct pgd_texts texts; /* eval: files to measure on; none: those of `make texts` */
    uint64_t documents;
    uint64_t document_tokens; /* 0: 4,096, or what the model was trained for if that is less */
    uint64_t step;
    bool noise;
    uint64_t decode; /* 0: all tokens of a document count; else the last so many, read one by one */
    bool passkey;
    bool passkey_only;
    uint32_t measured; /* bits of enum pgd_measurement: what --tasks, --passkey and --passkey-only come to */
    uint64_t questions;
    struct pgd_counts lengths; /* of prompts; none: 1,024 2,048 4,096, as far as the model was trained */
    uint64_t depths;
    uint64_t trials;
    uint32_t outputs; /* no flag: rows of logits that the command wants of one decode; 0: 1 */

    uint64_t threads;
    uint64_t threads_batch;
    bool no_mmap;
    const char *cpu; /* NULL: the best */

    struct pgd_counts bench_depths; /* bench, and what follows */
    uint64_t prefill;
    uint64_t gen;
    uint64_t repetitions;
    bool no_stock;
    bool no_peers;
    int output;               /* enum pgd_output */
    uint64_t rollback_tokens; /* not a flag: how many tokens the command will take back */

    const char *trace; /* run and chat: where to write it; plot: which one to draw */
    const char *out;   /* plot: the page; NULL: named after the trace */

    bool why;
    bool json;
    bool quiet;
    bool verbose;
    int color; /* enum pgd_color */
    bool ascii;
};

/* "fifo", "window", "sink", "random" and "stop", "evict", "spill": the words of the flags, NULL at the end. */
extern const char *const pgd_policy_words[];
extern const char *const pgd_on_full_words[];

/* The options of a cache to compare with: this machine and these pages, but room for `tokens` tokens in f16,
 * whatever the flags say about memory. */
struct pgd_options pgd_options_exact(const struct pgd_options *options, uint64_t tokens);

/* The same with pages whose numbers are rounded to 15 bits: the least that any other cache does to a model. */
struct pgd_options pgd_options_noise(const struct pgd_options *options, uint64_t tokens);
/* The codecs that the options ask for: -ctk and -ctv win over --kv-codec. */
struct pgd_codec_choice pgd_options_codec(const struct pgd_options *options);

/* The rules for a full budget that the options ask for; to spill is only a wish when no rule was given. */
enum pagoda_on_full pgd_options_on_full(const struct pgd_options *options);
bool pgd_options_wish_to_spill(const struct pgd_options *options);

/* The same options as they are where that wish is not granted. */
struct pgd_options pgd_options_without_flash(const struct pgd_options *options);
struct pagoda_flash_options pgd_options_flash(const struct pgd_options *options);
struct pagoda_policy pgd_options_policy(const struct pgd_options *options);

#endif
