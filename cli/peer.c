/* cli/peer.c - see peer.h. */
#include "cli/peer.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/child.h"

/* ---- finding ---- */

static bool is_program(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISREG(facts.st_mode) && access(path, X_OK) == 0;
}

static bool is_known(const struct pgd_peers *peers, const char *path)
{
    for (uint32_t i = 0; i < peers->count; i++) {
        if (strcmp(peers->peer[i].path, path) == 0) {
            return true;
        }
    }
    return false;
}

static void add(struct pgd_peers *peers, const char *path)
{
    static const bool ways[] = {true, false};
    char real[PATH_MAX];
    if (!is_program(path) || realpath(path, real) == NULL || is_known(peers, real)) {
        return;
    }
    for (size_t i = 0; i < 2 && peers->count < PGD_PEERS_MAX; i++) {
        struct pgd_peer *peer = &peers->peer[peers->count++];
        *peer = (struct pgd_peer) {.flash = ways[i]};
        snprintf(peer->path, sizeof(peer->path), "%s", real);
    }
}

void pgd_peers_find(struct pgd_peers *peers)
{
    peers->count = 0;
    const char *at = getenv("PATH");
    while (at != NULL) {
        char path[PATH_MAX];
        const size_t length = strcspn(at, ":");
        const int written = snprintf(path, sizeof(path), "%.*s/llama-bench", (int) length, at);
        if (length > 0 && written > 0 && (size_t) written < sizeof(path)) {
            add(peers, path);
        }
        at = at[length] == ':' ? at + length + 1 : NULL;
    }
}

/* ---- asking ---- */

/* The arguments, each as a text, in the order of the program's own documentation. */
struct words {
    char text[16][24];
    char *argv[24];
    size_t texts;
    size_t count;
};

static void add_text(struct words *words, const char *text)
{
    words->argv[words->count++] = (char *) (uintptr_t) text; /* posix_spawn takes it so, and does not write */
    words->argv[words->count] = NULL;
}

static void add_number(struct words *words, const char *flag, uint64_t number)
{
    char *text = words->text[words->texts++];
    snprintf(text, sizeof(words->text[0]), "%" PRIu64, number);
    add_text(words, flag);
    add_text(words, text);
}

static void fill_words(struct words *words, const struct pgd_peer *peer, const struct pgd_peer_request *request)
{
    *words = (struct words) {.count = 0};
    add_text(words, peer->path);
    add_text(words, "-m");
    add_text(words, request->model);
    add_number(words, "-p", request->prefill);
    add_number(words, "-n", request->gen);
    if (request->depth > 0) { /* the flag is younger than the program */
        add_number(words, "-d", request->depth);
    }
    add_number(words, "-t", request->threads);
    add_number(words, "-fa", peer->flash ? 1 : 0);
    add_number(words, "-r", request->repetitions);
    add_text(words, "-o");
    add_text(words, "json");
}

/* ---- understanding ---- */

static uint64_t number_of(const json_t *result, const char *key)
{
    const json_int_t number = json_integer_value(json_object_get(result, key));
    return number > 0 ? (uint64_t) number : 0;
}

/* Letters, digits and a few signs: the text goes into tables. */
static void copy_plain(const char *text, char *plain, size_t bytes)
{
    size_t at = 0;
    for (; text != NULL && *text != '\0' && at + 1 < bytes; text++) {
        const bool allowed = (*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'z') ||
                             (*text >= 'A' && *text <= 'Z') || strchr("._-+", *text) != NULL;
        plain[at] = allowed ? *text : '?';
        at++;
    }
    plain[at] = '\0';
}

static void name_engine(const json_t *result, const struct pgd_peer *peer, struct pgd_bench_row *row)
{
    char commit[24];
    copy_plain(json_string_value(json_object_get(result, "build_commit")), commit, sizeof(commit));
    snprintf(row->engine, sizeof(row->engine), "llama-bench %" PRIu64 " (%s) %s", number_of(result, "build_number"),
             commit[0] != '\0' ? commit : "no commit", peer->flash ? "flash" : "classic");
}

static bool take_sample(struct pgd_bench_row *row, const json_t *value)
{
    const double speed = json_number_value(value);
    if (!json_is_number(value) || !isfinite(speed) || speed <= 0) {
        return false;
    }
    row->samples[row->runs++] = speed;
    return true;
}

/* The speed of each run; programs that do not tell them give their mean. */
static bool take_samples(const json_t *result, struct pgd_bench_row *row)
{
    const json_t *samples = json_object_get(result, "samples_ts");
    const size_t count = json_array_size(samples);
    if (count == 0) {
        return take_sample(row, json_object_get(result, "avg_ts"));
    }
    for (size_t i = 0; i < count && row->runs < PGD_REPETITIONS_MAX; i++) {
        if (!take_sample(row, json_array_get(samples, i))) {
            return false;
        }
    }
    return true;
}

/* One object of its array. False: it is not one of the tests that were asked for. */
static bool read_result(const json_t *result, const struct pgd_peer *peer, const struct pgd_peer_request *request,
                        struct pgd_bench_row *row)
{
    const uint64_t prompt = number_of(result, "n_prompt");
    const uint64_t gen = number_of(result, "n_gen");
    *row = (struct pgd_bench_row) {
        .test = gen > 0 ? PGD_BENCH_DECODE : PGD_BENCH_PREFILL,
        .depth = request->depth,
        .tokens = gen > 0 ? gen : prompt,
    };
    const uint64_t wanted = gen > 0 ? request->gen : request->prefill;
    if ((prompt > 0) == (gen > 0) || row->tokens != wanted || number_of(result, "n_depth") != request->depth) {
        return false;
    }
    name_engine(result, peer, row);
    return take_samples(result, row);
}

static enum pagoda_status read_results(const json_t *results, const struct pgd_peer *peer,
                                       const struct pgd_peer_request *request, struct pgd_bench_row *rows,
                                       size_t *count, struct pagoda_error *error)
{
    const size_t wanted = (request->prefill > 0 ? 1u : 0u) + (request->gen > 0 ? 1u : 0u);
    *count = 0;
    if (json_array_size(results) != wanted) {
        return pgd_fail(error, PAGODA_CORRUPT, "printed %zu results in place of %zu", json_array_size(results), wanted);
    }
    for (size_t i = 0; i < wanted; i++) {
        if (!read_result(json_array_get(results, i), peer, request, &rows[i]) ||
            (i > 0 && rows[i].test == rows[0].test)) {
            return pgd_fail(error, PAGODA_CORRUPT, "did not measure what it was asked for");
        }
    }
    *count = wanted;
    return PAGODA_OK;
}

enum pagoda_status pgd_peer_run(const struct pgd_peer *peer, const struct pgd_peer_request *request,
                                struct pgd_bench_row *rows, size_t *count, struct pagoda_error *error)
{
    struct words words;
    struct pgd_buffer out = {0};
    struct pgd_buffer err = {0};
    fill_words(&words, peer, request);
    enum pagoda_status status = pgd_child_run(words.argv, &out, &err, error);
    if (status == PAGODA_OK) {
        json_error_t reason;
        json_t *results = json_loadb(pgd_buffer_text(&out), out.count, 0, &reason);
        status = results != NULL
                     ? read_results(results, peer, request, rows, count, error)
                     : pgd_fail(error, PAGODA_CORRUPT, "printed something else than JSON (line %d)", reason.line);
        json_decref(results);
    }
    pgd_buffer_free(&out);
    pgd_buffer_free(&err);
    return status;
}
