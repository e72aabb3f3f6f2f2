/* engine/architecture.c - see architecture.h. */
#include "engine/architecture.h"

#include <stddef.h>
#include <string.h>

const char pgd_reason_embedding[] = "it makes embeddings, not text";
const char pgd_reason_latent[] = "its keys and values are one shared latent vector (MLA)";
static const char reason_encoder[] = "it has an encoder, and only models that just continue text can be run";
static const char reason_recurrent[] = "it keeps a recurrent state and no KV cache";
static const char reason_hybrid[] = "part of its layers keep a recurrent state in place of a KV cache";
static const char reason_diffusion[] = "it writes by diffusion, not token by token";
static const char reason_sparse[] = "it chooses the keys it attends to with an index of its own";
static const char reason_chunked[] = "it attends in fixed chunks of text";
static const char reason_softcap[] = "it bends attention scores in a way of its own";
static const char reason_alibi[] = "it biases attention by distance (ALiBi)";
static const char reason_part[] = "it is a part of another model, or works on sound or images";

/* Every layer sees everything and rotates its keys, and the header tells the sizes. */
#define PLAIN(architecture) {.name = (architecture), .planned = true}
#define UNROTATED(architecture) {.name = (architecture), .planned = true, .rotation = PGD_ROTATION_NONE}
#define ALIBI(architecture) \
    {.name = (architecture), .planned = true, .rotation = PGD_ROTATION_NONE, .reason = reason_alibi}
#define WINDOWS(architecture, kind, every, tokens, turns) \
    {.name = (architecture), \
     .planned = true, \
     .windows = (kind), \
     .period = (every), \
     .window = (tokens), \
     .rotation = (turns)}
#define HYBRID(architecture, kind) {.name = (architecture), .planned = true, .reason = reason_hybrid, .state = (kind)}
#define RECURRENT(architecture) \
    {.name = (architecture), .planned = true, .reason = reason_recurrent, .state = PGD_STATE_ALL}
#define REFUSED(architecture, why) {.name = (architecture), .reason = (why)}

static const struct pgd_architecture architectures[] = {
    PLAIN("llama"),
    PLAIN("deci"),
    PLAIN("falcon"),
    PLAIN("gptneox"),
    PLAIN("stablelm"),
    PLAIN("qwen"),
    PLAIN("qwen2"),
    PLAIN("qwen2moe"),
    PLAIN("qwen2vl"),
    PLAIN("qwen3"),
    PLAIN("qwen3moe"),
    PLAIN("qwen3vl"),
    PLAIN("qwen3vlmoe"),
    PLAIN("phi2"),
    PLAIN("phi3"), /* libllama does not use the window that its header may name */
    PLAIN("phimoe"),
    PLAIN("plamo"),
    PLAIN("codeshell"),
    PLAIN("orion"),
    PLAIN("internlm2"),
    PLAIN("minicpm"),
    PLAIN("minicpm3"),
    PLAIN("gemma"),
    PLAIN("starcoder2"),
    PLAIN("xverse"),
    PLAIN("command-r"),
    PLAIN("dbrx"),
    PLAIN("olmo"),
    PLAIN("olmoe"),
    PLAIN("openelm"),
    PLAIN("arctic"),
    PLAIN("deepseek"),
    PLAIN("deepseek2"), /* latent or not: the header tells */
    PLAIN("deepseek2-ocr"),
    PLAIN("chatglm"),
    PLAIN("glm4"),
    PLAIN("glm4moe"),
    PLAIN("bitnet"),
    PLAIN("jais2"),
    PLAIN("nemotron"),
    PLAIN("exaone"),
    PLAIN("granite"),
    PLAIN("granitemoe"),
    PLAIN("chameleon"),
    PLAIN("plm"),
    PLAIN("bailingmoe"),
    PLAIN("bailingmoe2"),
    PLAIN("dots1"),
    PLAIN("arcee"),
    PLAIN("ernie4_5"),
    PLAIN("ernie4_5-moe"),
    PLAIN("hunyuan-moe"),
    PLAIN("hunyuan-dense"),
    PLAIN("hunyuan_vl"),
    PLAIN("hy_v3"),
    PLAIN("seed_oss"),
    PLAIN("grovemoe"),
    PLAIN("apertus"),
    PLAIN("minimax-m2"),
    PLAIN("pangu-embedded"),
    PLAIN("mistral3"),
    PLAIN("mistral4"),
    PLAIN("maincoder"),
    UNROTATED("gpt2"),
    UNROTATED("starcoder"),
    ALIBI("bloom"),
    ALIBI("mpt"),
    ALIBI("refact"),
    ALIBI("jais"),
    {.name = "smollm3", .planned = true, .rotation = PGD_ROTATION_FOURTH},

    WINDOWS("gemma2", PGD_WINDOWS_LAST_FULL, 2, 4096, PGD_ROTATION_ALL),
    WINDOWS("gemma3", PGD_WINDOWS_LAST_FULL, 6, 0, PGD_ROTATION_TWO),
    {.name = "gemma3n",
     .planned = true,
     .windows = PGD_WINDOWS_LAST_FULL,
     .period = 5,
     .rotation = PGD_ROTATION_TWO,
     .kv_layers = 20},
    WINDOWS("gemma4", PGD_WINDOWS_LISTED, 0, 0, PGD_ROTATION_TWO),
    {.name = "gpt-oss", .planned = true, .windows = PGD_WINDOWS_LAST_FULL, .period = 2, .has_sinks = true},
    WINDOWS("cohere2", PGD_WINDOWS_LAST_FULL, 4, 0, PGD_ROTATION_WINDOWED),
    {.name = "exaone4",
     .planned = true,
     .windows = PGD_WINDOWS_LAST_FULL,
     .period = 4,
     .window = 4096,
     .only_deep = 64,
     .rotation = PGD_ROTATION_WINDOWED},
    WINDOWS("exaone-moe", PGD_WINDOWS_LAST_FULL, 4, 128, PGD_ROTATION_WINDOWED),
    WINDOWS("olmo2", PGD_WINDOWS_LAST_FULL, 4, 0, PGD_ROTATION_TWO),
    WINDOWS("plamo3", PGD_WINDOWS_LAST_FULL, 8, 0, PGD_ROTATION_TWO),
    WINDOWS("afmoe", PGD_WINDOWS_LAST_FULL, 4, 0, PGD_ROTATION_WINDOWED),
    WINDOWS("mellum", PGD_WINDOWS_LAST_FULL, 4, 0, PGD_ROTATION_TWO),
    WINDOWS("smallthinker", PGD_WINDOWS_FIRST_FULL, 4, 0, PGD_ROTATION_WINDOWED),
    {.name = "mimo2", .planned = true, .windows = PGD_WINDOWS_LISTED, .rotation = PGD_ROTATION_TWO, .has_sinks = true},
    {.name = "llama4",
     .planned = true,
     .reason = reason_chunked,
     .windows = PGD_WINDOWS_LAST_FULL,
     .period = 4,
     .window = 8192,
     .rotation = PGD_ROTATION_WINDOWED},

    RECURRENT("mamba"),
    RECURRENT("mamba2"),
    RECURRENT("rwkv6"),
    RECURRENT("rwkv6qwen2"),
    RECURRENT("rwkv7"),
    RECURRENT("arwkv7"),
    HYBRID("jamba", PGD_STATE_HEADLESS),
    HYBRID("falcon-h1", PGD_STATE_BESIDE),
    HYBRID("plamo2", PGD_STATE_HEADLESS),
    HYBRID("granitehybrid", PGD_STATE_HEADLESS),
    {.name = "lfm2", .planned = true, .reason = reason_hybrid, .windows = PGD_WINDOWS_ALL, .state = PGD_STATE_HEADLESS},
    HYBRID("lfm2moe", PGD_STATE_HEADLESS),
    HYBRID("nemotron_h", PGD_STATE_IDLE),
    HYBRID("nemotron_h_moe", PGD_STATE_IDLE),
    HYBRID("qwen3next", PGD_STATE_INTERVAL),
    HYBRID("qwen35", PGD_STATE_INTERVAL),
    HYBRID("qwen35moe", PGD_STATE_INTERVAL),
    HYBRID("kimi-linear", PGD_STATE_HEADLESS),

    REFUSED("qwen4exp", reason_hybrid),
    REFUSED("kimi-k3", reason_hybrid),
    REFUSED("bailingmoe3", reason_hybrid),
    REFUSED("glm5-next", reason_hybrid),
    REFUSED("minimax-01", reason_hybrid),
    REFUSED("deepseek32", reason_sparse),
    REFUSED("deepseek4", reason_sparse),
    REFUSED("glm-dsa", reason_sparse),
    REFUSED("minimax-m3", reason_sparse),
    REFUSED("grok", reason_softcap),
    REFUSED("bert", pgd_reason_embedding),
    REFUSED("modern-bert", pgd_reason_embedding),
    REFUSED("nomic-bert", pgd_reason_embedding),
    REFUSED("nomic-bert-moe", pgd_reason_embedding),
    REFUSED("neo-bert", pgd_reason_embedding),
    REFUSED("jina-bert-v2", pgd_reason_embedding),
    REFUSED("jina-bert-v3", pgd_reason_embedding),
    REFUSED("eurobert", pgd_reason_embedding),
    REFUSED("gemma-embedding", pgd_reason_embedding),
    REFUSED("llama-embed", pgd_reason_embedding),
    REFUSED("t5", reason_encoder),
    REFUSED("t5encoder", reason_encoder),
    REFUSED("dream", reason_diffusion),
    REFUSED("llada", reason_diffusion),
    REFUSED("llada-moe", reason_diffusion),
    REFUSED("rnd1", reason_diffusion),
    REFUSED("clip", reason_part),
    REFUSED("wavtokenizer-dec", reason_part),
    REFUSED("qwen3tts", reason_part),
    REFUSED("pockettts", reason_part),
    REFUSED("eagle3", reason_part),
    REFUSED("dflash", reason_part),
    REFUSED("gemma4-assistant", reason_part),
};

const struct pgd_architecture *pgd_architecture_find(const char *name)
{
    for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++) {
        if (strcmp(architectures[i].name, name) == 0) {
            return &architectures[i];
        }
    }
    return NULL;
}
