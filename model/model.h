/* model.h: a small language model on Hallmark's ops: DeepSeek-V3.2 in miniature, in plain C on the CPU. The worked
 * example of inference with the library, and what `hallmark eval` runs.
 *
 *     hm_model *model = hm_model_open("data/gsm8k/model.safetensors", why, sizeof why);
 *     hm_model_options options = {.requests = 64, .length = 192};
 *     hm_model_batch *batch = hm_model_batch_new(model, &options, why, sizeof why);
 *     hm_model_request request = {.prompt = ids, .prompt_length = 33, .most = 100, .out = new_ids};
 *     hm_status status = hm_model_run(batch, 1, &request, NULL, why, sizeof why);       new_ids[0 .. request.count - 1]
 *
 * load.c     weights, each checked
 * batch.c    memory of a batch: caches, block tables, scratch; the table of functions and the observer
 * forward.c  the layers, op by op: for prompts (prefill) and for one token of each request (decode)
 * generate.c greedy decoding and given tokens
 * problems.c words, and the word problems of problems.jsonl
 * record.c   recorded calls as a trace
 *
 * A model is read only and may serve many batches, each on a thread of its own, which is also the fastest way to run
 * many requests: inside a thread of the caller's the ops use no further threads. What a batch computes is a pure
 * function of the weights, the requests and the functions in the table; with functions whose rows do not depend on each
 * other (all of ref's) the bits are the same for any thread count, batch, chunk and block size. Nothing here prints or
 * exits. */
#ifndef HM_MODEL_H
#define HM_MODEL_H

#include <hallmark/op.h>

/* ---- the model --------------------------------------------------------------------------------------------------- */

enum { HM_MODEL_PAD = 0, HM_MODEL_BOS, HM_MODEL_SEP, HM_MODEL_EOS }; /* ids of the marks */

typedef struct {
    int64_t vocab, hidden, layers, heads;
    int64_t q_latent, kv_latent, rope, nope, value;
    int64_t index_heads, index_dim, mlp;
    int64_t rope_base, max_position;
    int64_t top_k; /* keys that a token attends to */
    double eps;
} hm_model_sizes;

typedef struct hm_model hm_model;

/* Reads the weights; the sizes are in the file's metadata, and every tensor has to have the shape and the dtype that
 * follow from them. NULL with one sentence in why. */
hm_model *hm_model_open(const char *path, char *why, size_t size);
void hm_model_close(hm_model *model); /* NULL is fine */
const hm_model_sizes *hm_model_sizes_of(const hm_model *model);

/* The words of vocab.json, a list of strings. NULL with one sentence in why. */
typedef struct hm_vocab hm_vocab;
hm_vocab *hm_vocab_open(const char *path, char *why, size_t size);
void hm_vocab_close(hm_vocab *vocab);
int64_t hm_vocab_count(const hm_vocab *vocab);
const char *hm_vocab_word(const hm_vocab *vocab, int64_t id); /* NULL if there is none */

/* ---- whose functions, and who looks on --------------------------------------------------------------------------- */

/* The ops that the model is made of. */
/* clang-format off */
#define HM_MODEL_OP_LIST(X) \
    X(rope_table) X(embedding) X(rms_norm) X(fused_add_rms_norm) \
    X(linear) X(rotary_embedding) X(concat_mla_q) X(concat_and_cache_mla) \
    X(layer_norm) X(quant_fp8_group) X(index_weights) X(indexer_k_quant_and_cache) \
    X(cp_gather_indexer_k_quant_cache) X(fp8_mqa_logits) X(fp8_paged_mqa_logits) X(top_k_per_row) \
    X(translate_indices) X(sparse_mla_decode) X(silu_and_mul)
/* clang-format on */

typedef enum {
#define HM_MODEL_OP_ENUM(op) HM_MODEL_##op,
    HM_MODEL_OP_LIST(HM_MODEL_OP_ENUM)
#undef HM_MODEL_OP_ENUM
        HM_MODEL_OPS
} hm_model_op;

const hm_op_info *hm_model_op_info(hm_model_op op);
int hm_model_op_named(const char *name); /* -1 if the model has no such op */

/* One call of an op. Names are unique within a run: "p0.l2.index_rope" is in the first chunk of prompts, "d17.l2.o" in
 * the 18th step of decoding, "head" and "embed" are outside the layers: "d17.head". */
typedef struct {
    const hm_op_info *op;
    hm_model_op index;
    const char *site; /* which of the model's calls: "attn_norm", "index_rope", ..; forward.c lists them in order */
    bool decode;      /* a step of decoding, else a chunk of prompts */
    int64_t step;     /* chunks, or steps of decoding, before this one in this run */
    int64_t layer;    /* -1 outside the layers */
    int64_t head;     /* of w_uk and w_uv, which are one call a head; else -1 */
} hm_model_call;

void hm_model_call_name(const hm_model_call *call, char *name, size_t size); /* at most 64 bytes with the 0 */

/* A function that stands for an op. args is const hm_<op>_args *, complete and legal. It returns a status, and where
 * that is not HM_OK a sentence in why ("" if it has none): the run ends there. Behind each buffer lie as many bytes
 * again that belong to nobody, so that a faulty function that stores elements twice as wide as the contract says does
 * no harm. */
typedef struct {
    hm_status (*run)(void *with, const hm_model_call *call, const void *args, char *why, size_t size);
    void *with;
} hm_model_function;

typedef struct {
    hm_model_function of[HM_MODEL_OPS]; /* run NULL: the library's own function, hm_<op> */
} hm_model_table;

/* before and after each call; either may be NULL. What args points to is valid during the call only. */
typedef struct {
    void (*before)(void *with, const hm_model_call *call, const void *args);
    void (*after)(void *with, const hm_model_call *call, const void *args, hm_status status);
    void *with;
} hm_model_observer;

/* ---- running it -------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t requests;   /* that are decoded together; 0 means 64 */
    int64_t length;     /* tokens of the longest request, prompt and answer; 0 means 192 */
    int64_t block_size; /* tokens of a block of the paged caches; 0 means 64 */
    int64_t chunk;      /* tokens of prompts that are read together, at least one prompt; 0 means 512 */
    int64_t top_k;      /* 0 means the model's */
    int64_t positions;  /* rows of the rope table; 0 means as many as the model has */
    hm_model_table table;
    hm_model_observer observer;
} hm_model_options;

/* Everything that a run needs is allocated here. NULL with one sentence in why. The rope table is made here too,
 * through the table of functions: an observer sees it as "rope_table". The options are copied; the model has to outlive
 * it. */
typedef struct hm_model_batch hm_model_batch;
hm_model_batch *hm_model_batch_new(const hm_model *model, const hm_model_options *options, char *why, size_t size);
void hm_model_batch_free(hm_model_batch *batch); /* NULL is fine */

/* One request. In: the prompt, and the tokens that follow it if they are given (teacher forcing); else each is the one
 * with the largest logit (the lowest of equal ones; a NaN is less than all), until <eos>. */
typedef struct {
    const int32_t *prompt; /* [prompt_length], at least 1, each 0 to vocab - 1 */
    int64_t prompt_length;
    int64_t position;     /* rotary position of the first token */
    const int32_t *given; /* [most], or NULL */
    int64_t most;         /* tokens to predict, at least 1; prompt_length + most is at most options.length + 1 */
    int32_t *out;         /* [most]: the tokens with the largest logits, of given tokens too; may be NULL */
    int64_t count;        /* out: how many tokens were predicted, <eos> included; `most` for given tokens */
    int32_t next;         /* the run's own: the token that follows */
} hm_model_request;

/* Sees the logits of every token that was fed to the model, prompts included: logits[0 .. vocab - 1] predict token
 * `at` + 1 of the request, counted from the first of its prompt. Of one request `at` ascends. NULL: nobody looks. */
typedef struct {
    void (*see)(void *with, int64_t request, int64_t at, const float *logits);
    void *with;
} hm_model_logits;

/* Runs n requests, options.requests at a time: their prompts in chunks (prefill: gathered keys), then one token a step
 * for all that are not done (decode: paged keys). The blocks of requests lie in the caches in a fixed scattered order.
 * Caches and scratch are zero when a group of requests starts. Any status but HM_OK comes with one sentence, which
 * names layer and op where an op failed: "layer 2, top_k_per_row (d17.l2.top_k): bad_value: ...". */
hm_status hm_model_run(hm_model_batch *batch, int64_t n, hm_model_request *requests, const hm_model_logits *logits,
                       char *why, size_t size);

/* ---- problems ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t id, difficulty, position; /* position: rotary position of <bos> ("offset" in the file) */
    const char *family, *question, *solution, *answer;
    const int32_t *prompt, *given; /* token ids: the prompt to <sep>, the solution to <eos> */
    int64_t prompt_length, given_length;
} hm_problem;

typedef struct hm_problems hm_problems;
hm_problems *hm_problems_open(const char *path, int64_t vocab, char *why, size_t size); /* problems.jsonl */
void hm_problems_close(hm_problems *problems);
int64_t hm_problems_count(const hm_problems *problems);
const hm_problem *hm_problems_at(const hm_problems *problems, int64_t i);

/* The digits behind the last "####" of an answer, as text; false if it has none. */
bool hm_model_answer(const hm_vocab *vocab, const int32_t *tokens, int64_t count, char *answer, size_t size);

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* An observer that keeps the calls whose `want` is true (NULL: all) as a trace: bytes that were recorded before are
 * shared through views. */
typedef struct hm_model_recorder hm_model_recorder;
hm_model_recorder *hm_model_recorder_new(bool (*want)(void *with, const hm_model_call *call), void *with);
hm_model_observer hm_model_recorder_observer(hm_model_recorder *recorder);
/* Writes the file whole or not at all, and frees the recorder; NULL path: only frees. */
hm_status hm_model_recorder_save(hm_model_recorder *recorder, const char *path, char *why, size_t size);

#endif
