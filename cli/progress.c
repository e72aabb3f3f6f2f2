/* cli/progress.c - see progress.h. */
#include "cli/progress.h"

#include <stdio.h>

#include "cli/machine.h"

#define PATIENCE_SECONDS 0.3
#define REDRAW_SECONDS 0.1
#define BAR_CELLS 24

void pgd_progress_start(struct pgd_progress *progress, const struct pgd_terminal *terminal, bool quiet)
{
    *progress = (struct pgd_progress) {
        .terminal = terminal,
        .wanted = !quiet && terminal->err_is_tty && !terminal->dumb,
        .start_seconds = pgd_machine_seconds(),
    };
}

/* Whether it is time to draw again. */
static bool is_due(struct pgd_progress *progress, double now)
{
    if (!progress->wanted || now - progress->start_seconds < PATIENCE_SECONDS ||
        now - progress->drawn_seconds < REDRAW_SECONDS) {
        return false;
    }
    progress->drawn_seconds = now;
    progress->shown = true;
    return true;
}

static void draw(const struct pgd_progress *progress, const char *what, double fraction, const char *rest)
{
    const bool unicode = progress->terminal->unicode;
    const int full = (int) (fraction * BAR_CELLS + 0.5);
    fflush(stdout);
    fprintf(stderr, "\r%s [", what);
    for (int i = 0; i < BAR_CELLS; i++) {
        fputs(i < full ? (unicode ? "\u2588" : "#") : (unicode ? "\u2591" : "."), stderr);
    }
    fprintf(stderr, "] %s\033[K", rest);
    fflush(stderr);
}

void pgd_progress_tokens(void *user, uint64_t done, uint64_t count)
{
    struct pgd_progress *progress = user;
    const double now = pgd_machine_seconds();
    if (count == 0 || done >= count || !is_due(progress, now)) {
        return;
    }
    char rest[128];
    const double speed = (double) done / (now - progress->start_seconds);
    snprintf(rest, sizeof(rest), "%s of %s tokens, %.0f tok/s, %.0f s left", pgd_count_words(done).text,
             pgd_count_words(count).text, speed, speed > 0 ? (double) (count - done) / speed : 0);
    draw(progress, "reading", (double) done / (double) count, rest);
}

bool pgd_progress_loading(void *user, float fraction)
{
    struct pgd_progress *progress = user;
    if (is_due(progress, pgd_machine_seconds())) {
        char rest[32];
        snprintf(rest, sizeof(rest), "%.0f %%", (double) fraction * 100);
        draw(progress, "loading", (double) fraction, rest);
    }
    return true;
}

void pgd_progress_work(struct pgd_progress *progress, const char *what, double fraction, const char *doing)
{
    if (is_due(progress, pgd_machine_seconds())) {
        draw(progress, what, fraction, doing);
    }
}

void pgd_progress_end(struct pgd_progress *progress)
{
    if (progress->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        progress->shown = false;
    }
}
