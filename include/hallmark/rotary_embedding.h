/* SPDX-License-Identifier: Apache-2.0
 * rotary_embedding: rotates pairs of elements of each head by the angle of its token's position.
 *
 *   query          in   [..., heads, head_size]     f32 f16 bf16 (called T below); any strides
 *   key            in   [..., kv_heads, head_size]  T; its own strides and head count; absent means no key
 *   positions      in   [...]                       i64, each in 0..max_position-1; any strides
 *   cos_sin_cache  in   [max_position, rotary_dim]  T or f32; cos in columns 0..E-1, sin in columns E..2E-1,
 *                                                   E = rotary_dim/2
 *   query_out      out  shape of query, T; may be query itself (same view)
 *   key_out        out  shape of key, T; may be key itself (same view); absent if and only if key is
 * "..." is one or two dimensions of tokens. No other overlap of an output with anything; elements of an output must be
 * distinct and its strides positive. Of the cache, only rows that some position names are read, and no work or memory
 * grows with max_position.
 *
 * Index map, for pair i in 0..E-1, counted from rope_dim_offset within each head:
 *           HM_PAIR_HALF_SPLIT   x = element i,   y = element E + i    (GPT-NeoX, Llama)
 *           HM_PAIR_INTERLEAVED  x = element 2i,  y = element 2i + 1   (GPT-J, DeepSeek)
 *           c = cos column i, s = sin column i of the row that the token's position names.
 *           The same i for both pairings. The other elements of a head are copied bit for bit.
 * Formula   x' = x c - y s      y' = y c + x s      with s negated if inverse
 * Rounding  HM_ROTARY_ONCE  x' and y' are rounded to T, nothing else is      (vLLM's kernel; enable_fp32_compute)
 *           HM_ROTARY_EACH  c and s are rounded to T first, then every product and the sum to T
 *                           (Hugging Face, eager PyTorch)
 * Specials  IEEE arithmetic; -0 and +0 are the same result. No token, head or pair: nothing is rotated, HM_OK.
 * Returns   BAD_ARG, BAD_SHAPE (rotary_dim odd, rope_dim_offset + rotary_dim > head_size among them), BAD_STRIDE,
 *           BAD_DTYPE (T = f32 needs an f32 cache; 16-bit T a cache of T or f32), BAD_PLACE, BAD_ALIAS, BAD_PARAM (a
 *           negative offset, an unknown mode), BAD_VALUE (a position outside the table, on the host: before anything is
 *           written), UNSUPPORTED, NO_DEVICE.
 * Source    Su et al., "RoFormer" (2021); vLLM csrc/pos_encoding_kernels.cu; Hugging Face apply_rotary_pos_emb. */
#ifndef HALLMARK_ROTARY_EMBEDDING_H
#define HALLMARK_ROTARY_EMBEDDING_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_PAIR_HALF_SPLIT = 0, HM_PAIR_INTERLEAVED } hm_pairing;
typedef enum { HM_ROTARY_ONCE = 0, HM_ROTARY_EACH } hm_rotary_round;
typedef enum { HM_ROTATE_FORWARD = 0, HM_ROTATE_INVERSE } hm_rotate;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor query_out, key_out, query, key, positions, cos_sin_cache;
    hm_pairing pairing;
    hm_rotary_round round;
    hm_rotate inverse;
    int64_t rope_dim_offset; /* first rotated element of a head */
    void *stream;            /* HM_CUDA only */
} hm_rotary_embedding_args;

typedef hm_status hm_rotary_embedding_fn(const hm_rotary_embedding_args *args);
HM_API hm_rotary_embedding_fn hm_rotary_embedding;       /* dispatches on the tensors' place */
HM_API hm_rotary_embedding_fn hm_rotary_embedding_check; /* the contract as code; writes nothing */
HM_API hm_rotary_embedding_fn
    hm_rotary_embedding_ref; /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_rotary_embedding_fn hm_rotary_embedding_cuda; /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
