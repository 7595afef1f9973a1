/* batch.h: the memory of a batch, and one step of it. */
#ifndef HM_MODEL_BATCH_H
#define HM_MODEL_BATCH_H

#include "weights.h"

/* What a step works on: `rows` tokens of `requests` requests. In decoding each request has one row. */
typedef struct {
    bool decode;
    int64_t number; /* chunks of prompts, or steps of decoding, before this one in the run */
    int64_t rows, requests;
} hm_model_step;

/* Inputs of a step, one entry a row but where said. hm_model_run fills them. */
typedef struct {
    hm_tensor ids;         /* [rows] i32 */
    hm_tensor positions;   /* [rows] i64: rotary positions */
    hm_tensor slots;       /* [rows] i64: where the row's keys go in the caches */
    hm_tensor request;     /* [rows] i32: row of block_table */
    hm_tensor first, last; /* [rows] i32, prompts: the gathered keys first <= n < last that the row sees */
    hm_tensor length;      /* [rows] i32, decoding: tokens of the request so far, with the row's */
    hm_tensor cumulative;  /* [requests + 1] i32, prompts: where each request's gathered keys begin */
    hm_tensor block_table; /* [requests, blocks of a request] i32 */
} hm_model_inputs;

/* What lies between the ops; [rows, ..] each, contiguous. */
typedef struct {
    hm_tensor x, residual;           /* [hidden] bf16 */
    hm_tensor latent;                /* [q_latent] bf16 */
    hm_tensor q, ql_nope, q_out;     /* [heads, nope + rope]  [heads, kv_latent]  [heads, kv_latent + rope] bf16 */
    hm_tensor kv, kv_c;              /* [kv_latent + rope]  [kv_latent] bf16 */
    hm_tensor index_q, index_k;      /* [index_heads, index_dim]  [1, index_dim] bf16 */
    hm_tensor codes, scale;          /* [index_heads, index_dim] f8e4m3  [index_heads, groups] f32 */
    hm_tensor head_weights, weights; /* [index_heads] bf16  [index_heads] f32 */
    hm_tensor key_codes, key_scale;  /* gathered: [index_dim] f8e4m3  [groups] f32 */
    hm_tensor index_logits;          /* [as many as rows, or as the longest request] f32 */
    hm_tensor indices, selected;     /* [top_k] i32: tokens of the request  slots */
    hm_tensor attended, values;      /* [heads, kv_latent]  [heads, value] bf16 */
    hm_tensor gate_up, gated;        /* [2 mlp]  [mlp] bf16 */
    hm_tensor logits;                /* [vocab] f32 */
} hm_model_scratch;

struct hm_model_batch {
    const hm_model *model;
    hm_model_options options;  /* with the defaults filled in */
    int64_t blocks, stride;    /* blocks of a request; from one of its blocks to its next */
    int64_t rows;              /* the most that a step has */
    char *memory;              /* all that follows lies here */
    hm_tensor rope;            /* [positions, rope] f32 */
    hm_tensor mla, index_keys; /* [layers, blocks, block_size, kv_latent + rope] bf16  [.., index_dim + 4 groups] u8 */
    hm_model_inputs in;
    hm_model_scratch scratch;
    /* of the step that runs */
    hm_model_call call;
    hm_status status; /* of the first op that failed; no op is called after it */
    char *why;
    size_t why_size;
};

/* Slot in the caches of token `at` of the request in place `place` of the batch, and the block it is in. */
int64_t hm_model_block(const hm_model_batch *b, int64_t place, int64_t i);
int64_t hm_model_slot(const hm_model_batch *b, int64_t place, int64_t at);
void hm_model_batch_clear(hm_model_batch *b); /* caches and scratch to zero */

/* Calls an op through the table, between the observers; site and head are as in hm_model_call. Does nothing if an op of
 * the step has failed. */
void hm_model_call_op(hm_model_batch *b, hm_model_op op, const char *site, int64_t head, const void *args);

/* The rope table; at most once. */
void hm_model_make_rope(hm_model_batch *b);
/* The step whose inputs are in b->in: afterwards b->scratch.logits has a row for each of its rows, or b->status says
 * why not. */
void hm_model_forward(hm_model_batch *b, const hm_model_step *step);

#endif
