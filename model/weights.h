/* weights.h: what a model file holds, as tensors. */
#ifndef HM_MODEL_WEIGHTS_H
#define HM_MODEL_WEIGHTS_H

#include "../certify/safetensors.h"
#include "model.h"

/* bf16, but the indexer's norm in f32. A matrix is [features, in]; w_uk and w_uv hold one a head. */
typedef struct {
    hm_tensor attn_norm;              /* [hidden] */
    hm_tensor q_a, q_norm, q_b;       /* [q_latent, hidden]  [q_latent]  [heads (nope + rope), q_latent] */
    hm_tensor kv_a, kv_norm;          /* [kv_latent + rope, hidden]  [kv_latent] */
    hm_tensor w_uk, w_uv;             /* [heads, kv_latent, nope]  [heads, value, kv_latent] */
    hm_tensor o;                      /* [hidden, heads value] */
    hm_tensor index_q;                /* [index_heads index_dim, q_latent] */
    hm_tensor index_k;                /* [index_dim, hidden] */
    hm_tensor index_weights;          /* [index_heads, hidden] */
    hm_tensor index_norm, index_bias; /* [index_dim] f32 */
    hm_tensor mlp_norm;               /* [hidden] */
    hm_tensor gate_up, down;          /* [2 mlp, hidden]  [hidden, mlp] */
} hm_model_layer;

struct hm_model {
    hm_safetensors *file; /* the tensors point into it */
    hm_model_sizes sizes;
    hm_tensor embedding, final_norm, head; /* [vocab, hidden]  [hidden]  [vocab, hidden] */
    hm_model_layer *layers;
};

#endif
