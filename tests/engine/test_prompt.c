/* Chat templates: what the model reads is what it was trained on. */
#include "engine/prompt.h"

#include "engine_test.h"

static struct pagoda_error error;

static const struct pgd_message conversation[] = {
    {"system", "Be brief."},
    {"user", "Hi!"},
    {"assistant", "Hello."},
    {"user", "Bye."},
};

static void check_format(const struct pgd_model *model, const struct pgd_message *messages, size_t count,
                         bool open_reply, const char *wanted)
{
    char *text = NULL;
    CHECK_OK(pgd_prompt_format(model, messages, count, open_reply, &text, &error));
    CHECK_STR(text, wanted);
    free(text);
}

/* The test model, with another template. */
static struct pgd_model *open_with(const char *template)
{
    return open_model(copy_with_template(test_model_path(SMOLLM2), "model.gguf", template));
}

#define SMOLLM2_SYSTEM \
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"

TEST(a_conversation_is_formatted)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    CHECK(pgd_prompt_has_template(model));
    check_format(model, conversation, 4, true,
                 "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
                 "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye.<|im_end|>\n<|im_start|>assistant\n");
    check_format(model, conversation, 2, false,
                 "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n");
    pgd_model_close(model);
}

TEST(without_a_system_message_the_templates_own_is_used)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const struct pgd_message silent[] = {{"system", ""}, {"user", "Hi!"}};
    check_format(model, conversation + 1, 1, true,
                 SMOLLM2_SYSTEM "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n");
    check_format(model, NULL, 0, false, SMOLLM2_SYSTEM);
    check_format(model, silent, 2, false, "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n");
    pgd_model_close(model);
}

TEST(a_default_is_taken_only_where_it_is_plain_text)
{
    /* What Qwen's templates look like: first a system message that is put together, then a plain one. */
    static const char plain[] =
        "{%- if tools %}{{- '<|im_start|>system\\n' }}{{ messages[0].content + '<|im_end|>' }}"
        "{%- else %}{{- '<|im_start|>system\\nYou are Q.\\nBe kind.<|im_end|>\\n' }}{% endif %}";
    static const char none[] = "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}";
    make_folder();
    struct pgd_model *model = open_with(plain);
    check_format(model, conversation + 1, 1, false,
                 "<|im_start|>system\nYou are Q.\nBe kind.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n");
    pgd_model_close(model);
    model = open_with(none);
    check_format(model, conversation + 1, 1, false, "<|im_start|>user\nHi!<|im_end|>\n");
    pgd_model_close(model);
    remove_folder();
}

TEST(other_templates_are_recognised)
{
    make_folder();
    struct pgd_model *model = open_with("{{ '<start_of_turn>' }}");
    check_format(model, conversation, 4, true,
                 "<start_of_turn>user\nBe brief.\n\nHi!<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
                 "<start_of_turn>user\nBye.<end_of_turn>\n<start_of_turn>model\n");
    pgd_model_close(model);
    remove_folder();
}

TEST(models_without_a_usable_template_are_refused)
{
    char *text = NULL;
    struct pgd_model *model = open_model(test_model_path(GEMMA3));
    CHECK(!pgd_prompt_has_template(model));
    CHECK_FAILS(pgd_prompt_format(model, conversation, 4, true, &text, &error), PAGODA_UNSUPPORTED);
    CHECK_SAYS("no chat template");
    pgd_model_close(model);
    make_folder();
    model = open_with("{{ something_new(messages) }}");
    CHECK(pgd_model_get_info(model)->has_chat_template);
    CHECK(!pgd_prompt_has_template(model));
    CHECK_FAILS(pgd_prompt_format(model, conversation, 4, true, &text, &error), PAGODA_UNSUPPORTED);
    CHECK_SAYS("none of those that the engine knows");
    pgd_model_close(model);
    remove_folder();
    CHECK(text == NULL);
}

TEST(long_messages_fit)
{
    struct pgd_model *model = open_model(test_model_path(SMOLLM2));
    const size_t bytes = 3000000;
    char *long_text = malloc(bytes + 1);
    CHECK(long_text != NULL);
    memset(long_text, 'x', bytes);
    long_text[bytes] = '\0';
    const struct pgd_message messages[] = {{"system", ""}, {"user", long_text}};
    char *text = NULL;
    CHECK_OK(pgd_prompt_format(model, messages, 2, false, &text, &error));
    CHECK_EQ_U64(strlen(text), bytes + strlen("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|im_end|>\n"));
    free(text);
    free(long_text);
    pgd_model_close(model);
}
