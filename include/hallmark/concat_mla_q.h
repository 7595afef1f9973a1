/* SPDX-License-Identifier: Apache-2.0
 * concat_mla_q:  q_out[t,h,:] = ql_nope[t,h,:] followed by q_pe[t,h,:]: a copy, bit for bit.
 *
 *   ql_nope  in   [..., nope]         f16 bf16; any strides (MLA: [tokens, heads, 512], often a transposed view)
 *   q_pe     in   [..., rope]         dtype of ql_nope; any strides (MLA: [tokens, heads, 64], often a slice)
 *   q_out    out  [..., nope + rope]  dtype of ql_nope; elements distinct, strides positive; no overlap with an input
 * "..." is 0 to 3 leading dimensions, the same for all three. Any extents, 0 among them.
 *
 * Specials  NaN payloads and signs of zeros are preserved. Nothing outside the elements of q_out is written.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE (f32 and every dtype but f16 and bf16 are refused before a byte
 *           is written), BAD_PLACE, BAD_ALIAS, UNSUPPORTED, NO_DEVICE.
 * Source    vLLM csrc/cache_kernels.cu (concat_mla_q). */
#ifndef HALLMARK_CONCAT_MLA_Q_H
#define HALLMARK_CONCAT_MLA_Q_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor q_out, ql_nope, q_pe;
    void *stream; /* HM_CUDA only */
} hm_concat_mla_q_args;

typedef hm_status hm_concat_mla_q_fn(const hm_concat_mla_q_args *args);
HM_API hm_concat_mla_q_fn hm_concat_mla_q;       /* dispatches on the tensors' place */
HM_API hm_concat_mla_q_fn hm_concat_mla_q_check; /* the contract as code; writes nothing */
HM_API hm_concat_mla_q_fn hm_concat_mla_q_ref;   /* plain C + OpenMP */
HM_API hm_concat_mla_q_fn hm_concat_mla_q_cuda;  /* class wide; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
