/* SPDX-License-Identifier: Apache-2.0
 * fp8_mqa_logits: the sparse indexer's score of every key for every query token (prefill).
 *
 *   q        in   [tokens, heads, head_dim]  f8e4m3 or f8e4m3fnuz; its scale is folded into the weights;
 *                                          head_dim at most 2^17
 *   k        in   [keys, head_dim]           dtype of q; one key head for all query heads
 *   k_scale  in   [keys]                     f32
 *   weights  in   [tokens, heads]            f32, of any sign
 *   ks, ke   in   [tokens]                   i32: token m scores keys ks[m] <= n < min(ke[m], keys); may be none
 *   logits   out  [tokens, width]            f32
 * Inputs may have any strides. Output: distinct elements, positive strides, no overlap with anything.
 *
 * Formula   score[h] = sum over d of q[m,h,d] k[n,d]
 *           logit(m,n) = k_scale[n] * sum over h of weights[m,h] max(score[h], 0)
 *           HM_COLUMNS_ABSOLUTE    logits[m,n] = logit(m,n); width = keys
 *           HM_COLUMNS_COMPRESSED  logits[m,j] = logit(m, ks[m] + j); no window is longer than width; needs
 *                                  HM_LOGITS_LEAVE
 *           Elements outside the window: HM_LOGITS_CLEAN -inf; HM_LOGITS_LEAVE unspecified, and not compared.
 * Rounding  one, to f32. Class tc23: the dot product on tensor cores with at least 23 fraction bits, in blocks of 8
 *           elements or more, everything else in f32 in any order, with the scale before or after the head sum. Class
 *           tc13: 13 fraction bits, blocks of 32 or more (Hopper's f8 units). A score rounded to bf16 is in neither.
 * Specials  Elements that a NaN code, or a weight or scale that is not finite, takes part in are unspecified. -0 equals
 *           +0.
 * Returns   BAD_ARG, BAD_SHAPE (a head_dim above 2^17, too), BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM
 *           (compressed columns with HM_LOGITS_CLEAN, an unknown mode), BAD_VALUE (on the host: a negative ks, a window
 *           longer than width), NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source    DeepSeek-V3.2; DeepGEMM fp8_mqa_logits; vLLM v1/attention/backends/mla/indexer. */
#ifndef HALLMARK_FP8_MQA_LOGITS_H
#define HALLMARK_FP8_MQA_LOGITS_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_LOGITS_CLEAN = 0, HM_LOGITS_LEAVE } hm_logits_outside;
typedef enum { HM_COLUMNS_ABSOLUTE = 0, HM_COLUMNS_COMPRESSED } hm_logits_columns;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor logits, q, k, k_scale, weights, ks, ke;
    hm_logits_outside outside;
    hm_logits_columns columns;
    void *stream; /* HM_CUDA only */
} hm_fp8_mqa_logits_args;

typedef hm_status hm_fp8_mqa_logits_fn(const hm_fp8_mqa_logits_args *args);
HM_API hm_fp8_mqa_logits_fn hm_fp8_mqa_logits;       /* dispatches on the tensors' place */
HM_API hm_fp8_mqa_logits_fn hm_fp8_mqa_logits_check; /* the contract as code; writes nothing */
HM_API hm_fp8_mqa_logits_fn hm_fp8_mqa_logits_ref;   /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_fp8_mqa_logits_fn hm_fp8_mqa_logits_cuda;  /* class tc23; see cuda.h */
HM_API hm_fp8_mqa_logits_fn hm_fp8_mqa_logits_cuda_fp8; /* class tc13, where the device has f8 units; else as cuda */

#ifdef __cplusplus
}
#endif
#endif
