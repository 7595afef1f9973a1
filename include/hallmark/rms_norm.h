/* SPDX-License-Identifier: Apache-2.0
 * rms_norm:  out[t,:] = x[t,:] / sqrt(mean(x[t,:V]^2) + eps) * weight[:]
 *
 *   x        in   [..., hidden]  f32 f16 bf16 (called T below); any strides
 *   weight   in   [hidden]       f32, or T; for T = f32 also f16 and bf16; absent means no multiply; any stride
 *   eps      in   scalar >= 0    narrowed to f32 first; finite after that
 *   out      out  [..., hidden]  dtype and shape of x; may be x itself (same view); no other overlap with an input.
 *                                Its elements must be distinct and its strides positive.
 * What counts as overlap: byte ranges that cross, unless they are slices of the rows of one buffer. As distinct:
 * strides that each step over all that the smaller ones reach. Some odd interleavings that do no harm are refused.
 * "..." is 0 to 3 leading dimensions; t runs over all their indices, and each row is independent of the others.
 *
 * Formula   rs = (mean of x_i^2 over the first V elements + eps)^-1/2, real arithmetic; V = variance_size (0: hidden)
 * Rounding  HM_ROUND_ONCE        out = RN_T(x * rs * weight)            nothing else is rounded
 *           HM_ROUND_NORM_FIRST  out = RN_T(RN_T(x * rs) * weight)      upstream's older kernels, Hugging Face Llama
 *           Without a weight both are RN_T(x * rs). RN_T is one rounding to nearest, ties to even.
 * Weight    HM_WEIGHT_PLAIN      weight
 *           HM_WEIGHT_ONE_PLUS   1 + weight in place of weight (Gemma); not with NORM_FIRST
 * Specials  IEEE arithmetic on the formula: a NaN among the first V elements makes the row NaN; an infinity there makes
 *           rs = 0; a row of zeros with eps = 0 has rs = inf, so 0 * inf = NaN. -0 and +0 are the same result.
 *           hidden == 0 or no row: nothing is written, HM_OK.
 * Returns   BAD_ARG (args, data or a required tensor missing), BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS,
 *           BAD_PARAM (eps negative, NaN or not finite in f32; variance_size outside 0..hidden; an unknown mode;
 *           NORM_FIRST with ONE_PLUS), UNSUPPORTED, NO_DEVICE.
 * Source    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019); vLLM csrc/layernorm_kernels.cu;
 *           Hugging Face transformers LlamaRMSNorm and Gemma2RMSNorm. */
#ifndef HALLMARK_RMS_NORM_H
#define HALLMARK_RMS_NORM_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_ROUND_ONCE = 0, HM_ROUND_NORM_FIRST } hm_round;
typedef enum { HM_WEIGHT_PLAIN = 0, HM_WEIGHT_ONE_PLUS } hm_weight_form;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, x, weight;
    double eps;
    hm_round round;
    hm_weight_form weight_form;
    int64_t variance_size; /* elements in the mean; 0 means hidden */
    void *stream;          /* HM_CUDA only */
} hm_rms_norm_args;

typedef hm_status hm_rms_norm_fn(const hm_rms_norm_args *args);
HM_API hm_rms_norm_fn hm_rms_norm;       /* dispatches on the tensors' place */
HM_API hm_rms_norm_fn hm_rms_norm_check; /* the contract as code; writes nothing */
HM_API hm_rms_norm_fn hm_rms_norm_ref;   /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_rms_norm_fn hm_rms_norm_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
