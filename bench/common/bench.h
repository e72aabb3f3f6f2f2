/* bench/common/bench.h - what the benchmark programs share: options, texts, time, medians. They may print and exit. */
#ifndef BENCH_COMMON_BENCH_H
#define BENCH_COMMON_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "engine/bridge.h"

/* Ends the program with exit code 1 and "what: message" when status is not OK. */
void bench_check(enum pagoda_status status, const struct pagoda_error *error, const char *what);

/* Value of "--name VALUE" in argv, or `otherwise`. */
const char *bench_option(int argc, char **argv, const char *name, const char *otherwise);
uint64_t bench_number(int argc, char **argv, const char *name, uint64_t otherwise);

/* Opens the model of --model (default: the demo model). */
struct pgd_model *bench_open_model(int argc, char **argv);

/* The first `count` tokens of a text file, with BOS when the model wants it; ends the program if it is shorter.
 * The caller frees. */
int32_t *bench_tokens(const struct pgd_model *model, const char *path, size_t skip_bytes, uint64_t count);

/* All tokens of the first `bytes` bytes of a text file. The caller frees. */
int32_t *bench_all_tokens(const struct pgd_model *model, const char *path, size_t bytes, uint64_t *count);

double bench_seconds(void);

/* Resident bytes of this process now. */
uint64_t bench_resident_bytes(void);

#endif
