/* cli/peer.h - llama-bench programs of others, found on the PATH and run as they are.
 *
 * One call measures one depth; the program itself fills up to it and repeats. What it prints is not trusted: rows that
 * are not what was asked for are refused. Threads: the main thread.
 */
#ifndef PGD_CLI_PEER_H
#define PGD_CLI_PEER_H

#include "cli/bench_row.h"

#define PGD_PEERS_MAX 8u

/* One program with flash attention on or off. */
struct pgd_peer {
    char path[4096];
    bool flash;
    bool failed; /* not to be asked again */
};

struct pgd_peers {
    struct pgd_peer peer[PGD_PEERS_MAX];
    uint32_t count;
};

/* Every llama-bench on the PATH, each file once, both ways. */
void pgd_peers_find(struct pgd_peers *peers);

struct pgd_peer_request {
    const char *model;
    uint64_t depth;
    uint64_t prefill;
    uint64_t gen;
    uint64_t repetitions;
    uint32_t threads;
};

/* Runs it; at most PGD_BENCH_TESTS rows are filled with test, engine, depth, tokens and samples. Errors: those of
 * pgd_child_run, and CORRUPT (what it printed is not what was asked for). */
PGD_MUST_CHECK enum pagoda_status pgd_peer_run(const struct pgd_peer *peer, const struct pgd_peer_request *request,
                                               struct pgd_bench_row *rows, size_t *count, struct pagoda_error *error);

#endif
