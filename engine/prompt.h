/* engine/prompt.h - the model's chat template. Pure text work over libllama's built-in templates. */
#ifndef PGD_ENGINE_PROMPT_H
#define PGD_ENGINE_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/model.h"

struct pgd_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text; /* UTF-8, terminated */
};

/* Whether messages can be formatted for this model. */
bool pgd_prompt_has_template(const struct pgd_model *model);

/* The conversation as the model was trained to read it; `open_reply` ends it with the header of the
 * assistant's reply. *text is malloc'ed. Errors: UNSUPPORTED (no template, or one that is not known), NOMEM. */
PAGODA_MUST_CHECK enum pagoda_status pgd_prompt_format(const struct pgd_model *model,
                                                       const struct pgd_message *messages, size_t count,
                                                       bool open_reply, char **text, struct pagoda_error *error);

#endif
