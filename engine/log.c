/* engine/log.c - see log.h. */
#include "engine/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#define LOG_BYTES 16384u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char lines[LOG_BYTES]; /* all text since the reset, as far as it fits */
static size_t used;
static char first_error[256];
static char last_error[256];
static char last_warning[256];

/* Errors of several lines come in pieces; only lines with words in them are kept as the reason. */
static void keep_reason(char *reason, size_t bytes, const char *text)
{
    const size_t length = strcspn(text, "\n");
    if (length > 0) {
        snprintf(reason, bytes, "%.*s", (int) (length < bytes ? length : bytes - 1), text);
    }
}

static void on_line(enum ggml_log_level level, const char *text, void *user)
{
    (void) user;
    if (level == GGML_LOG_LEVEL_DEBUG) {
        return; /* far too many, and nobody's reason */
    }
    pthread_mutex_lock(&lock);
    const size_t length = strlen(text);
    if (length < LOG_BYTES - used) {
        memcpy(lines + used, text, length + 1);
        used += length;
    }
    if (level == GGML_LOG_LEVEL_ERROR) {
        if (first_error[0] == '\0') {
            keep_reason(first_error, sizeof(first_error), text);
        }
        keep_reason(last_error, sizeof(last_error), text);
    } else if (level == GGML_LOG_LEVEL_WARN) {
        keep_reason(last_warning, sizeof(last_warning), text);
    }
    pthread_mutex_unlock(&lock);
}

static void install(void)
{
    llama_log_set(on_line, NULL);
}

void pgd_log_install(void)
{
    pthread_once(&once, install);
}

void pgd_log_reset(void)
{
    pthread_mutex_lock(&lock);
    used = 0;
    lines[0] = '\0';
    first_error[0] = '\0';
    last_error[0] = '\0';
    last_warning[0] = '\0';
    pthread_mutex_unlock(&lock);
}

void pgd_log_last_error(char *text, size_t bytes)
{
    pthread_mutex_lock(&lock);
    const char *reason = last_error[0] != '\0'     ? last_error
                         : last_warning[0] != '\0' ? last_warning
                                                   : "no reason given";
    snprintf(text, bytes, "%s", reason);
    pthread_mutex_unlock(&lock);
}

/* Lines begin with "function_name: ", which tells users nothing. */
static const char *skip_function(const char *line)
{
    const size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    const bool is_function = memchr(line, '_', name) != NULL && strncmp(line + name, ": ", 2) == 0;
    return is_function ? line + name + 2 : line;
}

void pgd_log_first_error(char *text, size_t bytes)
{
    pthread_mutex_lock(&lock);
    const bool known = first_error[0] != '\0';
    if (known) {
        snprintf(text, bytes, "%s", skip_function(first_error));
    }
    pthread_mutex_unlock(&lock);
    if (!known) {
        pgd_log_last_error(text, bytes);
    }
}

uint64_t pgd_log_sum_mib(const char *what)
{
    double sum = 0;
    pthread_mutex_lock(&lock);
    const char *at = lines;
    while ((at = strstr(at, what)) != NULL) {
        at += strlen(what);
        const size_t blanks = strspn(at, " ");
        if (at[blanks] == '=') {
            sum += strtod(at + blanks + 1, NULL);
        }
    }
    pthread_mutex_unlock(&lock);
    return (uint64_t) (sum * 1048576.0);
}
