/* SPDX-License-Identifier: Apache-2.0
 * sparse_mla_decode: latent attention of each token over the keys that an index selected, from the paged cache that
 * concat_and_cache_mla writes. All heads share one key; a value is the first part of its key.
 *
 *   q            in   [tokens, heads, width]            bf16 or f16 (called T below)
 *   kv_cache     in   [num_blocks, block_size, entry]   T with entry = width; or u8, entry = 656, in the format
 *                                                       fp8_ds_mla of concat_and_cache_mla.h: then T is bf16 and
 *                                                       width = 576
 *   indices      in   [tokens, top_k]                   i32: slots; slot s is row s % block_size of block
 *                                                       s / block_size. Negative: no key. One that occurs twice counts
 *                                                       twice
 *   topk_length  in   [tokens]                          i32, optional: only the first so many indices of a token count
 *                                                       (the others are not looked at); negative: none
 *   attn_sink    in   [heads]                           f32, optional: the logit of one more key, whose value is 0
 *   out          out  [tokens, heads, value_width]      T; value_width <= width
 *   lse          out  [tokens, heads]                   f32, optional
 * Inputs may have any strides (u8: a last stride of 1). Outputs: distinct elements, positive strides, no overlap with
 * anything. Rows of the cache that no index names are not read.
 *
 * Formula   over the keys k of a token, v the first value_width elements of k, and m any number (the largest s, say):
 *             s_j = scale <q, k_j>     l = sum exp(s_j - m)
 *             out = sum exp(s_j - m) v_j / (l + exp(attn_sink - m))     lse = m + ln l (natural; without the sink)
 *           scale is rounded to f32; 0 means RN_f32(width^-1/2).
 *           No key: out = 0 and lse = +inf, with a sink as well.
 * dequant   what the elements of a fp8_ds_mla key are: the code times its tile's scale as one of the three readers in
 *           concat_and_cache_mla.h sees it, rounded to bf16; the rope part is stored in bf16. It says nothing for other
 *           caches.
 * p         HM_P_F32    only out (to T) and lse (to f32) are rounded.
 *           HM_P_BF16   exp(s_j - m) is rounded to bf16 where it weighs a value, but not in l. It is rounded against
 *                       whatever maximum a kernel had at that time, so that the results of all of them are admissible:
 *                       each weight within 2^-8.
 * Arithmetic  any of the class between those roundings: blocks with a running maximum, keys split among blocks and
 *             merged (by
 *             two levels at most) from f32 partial results, exp2 with log2(e) folded into the scale. An exponential
 *             within 2^-22; not one whose error grows with its argument.
 * Specials  where q, a selected key or attn_sink is NaN or infinite, out and lse of that head are unspecified;
 *           attn_sink = -inf is no sink.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (an unknown mode, a scale that
 *           is not finite), BAD_VALUE (on the host: an index past the cache, a topk_length past top_k), NO_MEMORY,
 *           UNSUPPORTED, NO_DEVICE.
 * Source    DeepSeek-V3.2; FlashMLA flash_mla_with_kvcache(indices) and its tests/ref.py; vLLM FLASHMLA_SPARSE. */
#ifndef HALLMARK_SPARSE_MLA_DECODE_H
#define HALLMARK_SPARSE_MLA_DECODE_H

#include "concat_and_cache_mla.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_P_F32 = 0, HM_P_BF16 } hm_attention_p;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, lse, q, kv_cache, indices, topk_length, attn_sink;
    double scale;
    hm_attention_p p;
    hm_mla_dequant dequant;
    void *stream; /* HM_CUDA only */
} hm_sparse_mla_decode_args;

typedef hm_status hm_sparse_mla_decode_fn(const hm_sparse_mla_decode_args *args);
HM_API hm_sparse_mla_decode_fn hm_sparse_mla_decode;       /* dispatches on the tensors' place */
HM_API hm_sparse_mla_decode_fn hm_sparse_mla_decode_check; /* the contract as code; writes nothing */
HM_API hm_sparse_mla_decode_fn hm_sparse_mla_decode_ref;   /* plain C + OpenMP */
HM_API hm_sparse_mla_decode_fn hm_sparse_mla_decode_cuda;  /* class tc23; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
