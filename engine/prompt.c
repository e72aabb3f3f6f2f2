/* engine/prompt.c - see prompt.h.
 *
 * libllama does not run the template that a model carries (a Jinja program): it recognises which of some
 * fifty known formats it is, and formats by code of its own. One thing gets lost on the way that matters: the
 * system message that some templates put there when there is none. Where that text can be read off the
 * template it is used as the template would use it (see find_default_system).
 */
#include "engine/prompt.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "llama.h"

#define DEFAULT_SYSTEM_BYTES_MAX 4096u

static const char *template_of(const struct pgd_model *model)
{
    return llama_model_chat_template(pgd_model_llama(model), NULL);
}

/* ---- the default system message ---- */

/* Copies a text as it stands between the quotes of a Jinja string, "\n" as the line break that it means. */
static void copy_literal(char *out, const char *text, size_t bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\\' && i + 1 < bytes && text[i + 1] == 'n') {
            out[used++] = '\n';
            i++;
        } else {
            out[used++] = text[i];
        }
    }
    out[used] = '\0';
}

/* Length of the line break at `text`, written out or as "\n"; 0 when there is none. */
static size_t line_break_at(const char *text)
{
    if (text[0] == '\n') {
        return 1;
    }
    return text[0] == '\\' && text[1] == 'n' ? 2 : 0;
}

/* The system message that a template of the ChatML kind adds by itself: the text between "<|im_start|>system\n" and
 * "<|im_end|>", when it is plain, with no quote or brace that would make it a part of a Jinja expression.
 * NULL when there is none; malloc'ed. */
static char *find_default_system(const char *template)
{
    static const char head[] = "<|im_start|>system";
    static const char tail[] = "<|im_end|>";
    const char *at = template;
    while ((at = strstr(at, head)) != NULL) {
        at += sizeof(head) - 1;
        const size_t line_break = line_break_at(at);
        const char *text = at + line_break;
        const char *end = strstr(text, tail);
        if (line_break == 0 || end == NULL || end == text || (size_t) (end - text) > DEFAULT_SYSTEM_BYTES_MAX) {
            continue;
        }
        const size_t bytes = (size_t) (end - text);
        if (strcspn(text, "'\"{}") < bytes) {
            continue;
        }
        char *copy = malloc(bytes + 1);
        if (copy != NULL) {
            copy_literal(copy, text, bytes);
        }
        return copy;
    }
    return NULL;
}

/* ---- formatting ---- */

static enum pagoda_status apply(const char *template, const struct llama_chat_message *chat, size_t count,
                                bool open_reply, char **out, struct pagoda_error *error)
{
    size_t room = 1024;
    for (size_t i = 0; i < count; i++) {
        room += 2 * strlen(chat[i].content) + 128;
    }
    for (;;) {
        char *text = room <= INT32_MAX ? malloc(room) : NULL;
        if (text == NULL) {
            return pgd_fail(error, PAGODA_NOMEM, "no memory for a conversation of %zu bytes", room);
        }
        const int32_t length = llama_chat_apply_template(template, chat, count, open_reply, text, (int32_t) room);
        if (length >= 0 && (size_t) length < room) {
            text[length] = '\0';
            *out = text;
            return PAGODA_OK;
        }
        free(text);
        if (length < 0) {
            return pgd_fail(error, PAGODA_UNSUPPORTED,
                            "the model's chat template is none of those that the engine knows: feed it "
                            "text as it is (--raw)");
        }
        room = (size_t) length + 1;
    }
}

static enum pagoda_status format_with(const char *template, const char *default_system,
                                      const struct pgd_message *messages, size_t count, bool open_reply, char **text,
                                      struct pagoda_error *error)
{
    struct llama_chat_message *chat = calloc(count + 1, sizeof(*chat));
    if (chat == NULL) {
        return pgd_fail(error, PAGODA_NOMEM, "no memory for %zu messages", count);
    }
    size_t used = 0;
    if (default_system != NULL) {
        chat[used++] = (struct llama_chat_message) {.role = "system", .content = default_system};
    }
    for (size_t i = 0; i < count; i++) {
        chat[used++] = (struct llama_chat_message) {.role = messages[i].role, .content = messages[i].text};
    }
    enum pagoda_status status = apply(template, chat, used, open_reply, text, error);
    free(chat);
    return status;
}

bool pgd_prompt_has_template(const struct pgd_model *model)
{
    static const struct llama_chat_message hello = {.role = "user", .content = "a"};
    const char *template = template_of(model);
    return template != NULL && llama_chat_apply_template(template, &hello, 1, true, NULL, 0) > 0;
}

enum pagoda_status pgd_prompt_format(const struct pgd_model *model, const struct pgd_message *messages, size_t count,
                                     bool open_reply, char **text, struct pagoda_error *error)
{
    const char *template = template_of(model);
    if (template == NULL) {
        return pgd_fail(error, PAGODA_UNSUPPORTED, "the model has no chat template: feed it text as it is (--raw)");
    }
    const bool has_system = count > 0 && strcmp(messages[0].role, "system") == 0;
    char *default_system = has_system ? NULL : find_default_system(template);
    enum pagoda_status status = format_with(template, default_system, messages, count, open_reply, text, error);
    free(default_system);
    return status;
}
