/* SPDX-License-Identifier: Apache-2.0
 * mla_prefill: latent attention of each token over a range of keys that lie side by side: the dense, causal form of
 * sparse_mla_decode.
 *
 *   q          in   [tokens, heads, width]           bf16 or f16 (called T below)
 *   kv         in   [keys, width]                    T
 *   key_start  in   [tokens]                         i32, optional: the first key of a token; absent: 0
 *   key_end    in   [tokens]                         i32, optional: one past its last; absent: keys - tokens + t + 1:
 *                                                    the last token sees all keys, each other one less than the next
 *   attn_sink  in   [heads]                          f32, optional
 *   out        out  [tokens, heads, value_width]     T; value_width <= width
 *   lse        out  [tokens, heads]                  f32, optional
 * A start below 0 is 0, an end past the keys is their number, and an end that is not past its start gives no key.
 * Several requests in one call, or a sliding window, are ranges. Inputs may have any strides. Outputs: distinct
 * elements, positive strides, no overlap with anything.
 *
 * Formula, p, arithmetic, specials   as in sparse_mla_decode.h.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (an unknown mode, a scale that
 *           is not finite), NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source    DeepSeek-V3.2; FlashMLA flash_mla_sparse_fwd with all keys selected; torch scaled_dot_product_attention
 *           with is_causal. */
#ifndef HALLMARK_MLA_PREFILL_H
#define HALLMARK_MLA_PREFILL_H

#include "sparse_mla_decode.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, lse, q, kv, key_start, key_end, attn_sink;
    double scale;
    hm_attention_p p;
    void *stream; /* HM_CUDA only */
} hm_mla_prefill_args;

typedef hm_status hm_mla_prefill_fn(const hm_mla_prefill_args *args);
HM_API hm_mla_prefill_fn hm_mla_prefill;       /* dispatches on the tensors' place */
HM_API hm_mla_prefill_fn hm_mla_prefill_check; /* the contract as code; writes nothing */
HM_API hm_mla_prefill_fn hm_mla_prefill_ref;   /* plain C + OpenMP */
HM_API hm_mla_prefill_fn hm_mla_prefill_cuda;  /* class tc23; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
