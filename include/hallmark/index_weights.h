/* SPDX-License-Identifier: Apache-2.0
 * index_weights: the weights of an indexer's heads, times all factors of the logits that do not depend on the key.
 *
 *   weights  in   [..., heads]  f32 f16 bf16; any strides
 *   q_scale  in   [..., heads]  f32 or e8m0: scale of each head's query; absent means 1; any strides
 *   out      out  [..., heads]  f32; may be weights itself (f32, same view); no other overlap with an input.
 *                               Its elements must be distinct and its strides positive.
 * "..." is 0 to 3 leading dimensions; heads is at most 65536.
 *
 * Formula   out = weights * q_scale * head_dim^-1/2 * heads^-1/2
 * Rounding  HM_WEIGHTS_ANY  one rounding to f32; in f32 arithmetic the roots are f32 constants (to nearest), and the
 *                           three products are rounded, in any order
 *           HM_WEIGHTS_L2R  RN(RN(RN(weights * q_scale) * RN(head_dim^-1/2)) * RN(heads^-1/2)), RN to f32: one value
 * head_dim  1 to 65536; 0 means 128
 * Specials  IEEE arithmetic on the formula: NaN and inf * 0 give NaN. Weights may be negative. -0 and +0 are the same.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (head_dim out of range, an
 *           unknown mode), UNSUPPORTED, NO_DEVICE.
 * Source    DeepSeek-V3.2-Exp's indexer (weights * q_scale * softmax_scale, heads^-0.5). */
#ifndef HALLMARK_INDEX_WEIGHTS_H
#define HALLMARK_INDEX_WEIGHTS_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_WEIGHTS_ANY = 0, HM_WEIGHTS_L2R } hm_weights_order;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, weights, q_scale;
    int64_t head_dim; /* 0 means 128 */
    hm_weights_order order;
    void *stream; /* HM_CUDA only */
} hm_index_weights_args;

typedef hm_status hm_index_weights_fn(const hm_index_weights_args *args);
HM_API hm_index_weights_fn hm_index_weights;       /* dispatches on the tensors' place */
HM_API hm_index_weights_fn hm_index_weights_check; /* the contract as code; writes nothing */
HM_API hm_index_weights_fn hm_index_weights_ref;   /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_index_weights_fn hm_index_weights_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
