/* SPDX-License-Identifier: Apache-2.0
 * layer_norm:  out[t,:] = (x[t,:] - mean(x[t,:])) / sqrt(var(x[t,:]) + eps) * weight[:] + bias[:]
 *
 *   x        in   [..., hidden]  f32 f16 bf16 (called T below); any strides
 *   weight   in   [hidden]       f32 or T; absent means no multiply; any stride
 *   bias     in   [hidden]       f32 or T; absent means no addition; any stride
 *   eps      in   scalar >= 0    narrowed to f32 first; finite after that
 *   out      out  [..., hidden]  dtype and shape of x; may be x itself (same view); no other overlap with an input.
 *                                Its elements must be distinct and its strides positive.
 * "..." is 0 to 3 leading dimensions; t runs over all their indices, and each row is independent of the others.
 *
 * Formula   m = mean of x_i, v = mean of (x_i - m)^2 (the population's variance: divided by hidden), real arithmetic;
 *           out_i = RN_T((x_i - m) / sqrt(v + eps) * weight_i + bias_i)        one rounding to T, nothing else
 * Order     Two passes, Welford's updates, and squares about a value near the mean all conform, and so does
 *           x_i * s + (bias_i - m * s) with s = weight_i / sqrt(v + eps). The f32 mean of squares minus the square of
 *           the mean does not: where the mean is far from 0 it has lost the variance. A chain counts an update of
 *           Welford's, or a merge of two, as 16 additions. A variance is never negative.
 * Specials  A NaN or an infinity makes its whole row NaN. An element with a weight or bias that is NaN is NaN; with an
 *           infinite bias it is that infinity; with an infinite weight it is unspecified. -0 and +0 are the same
 *           result. A row of equal elements is the bias, within what its mean may be off; with eps = 0 it is
 *           unspecified (0/0). hidden == 0 or no row: nothing is written, HM_OK.
 * Returns   BAD_ARG (args, data or a required tensor missing), BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS,
 *           BAD_PARAM (eps negative, NaN or not finite in f32), UNSUPPORTED, NO_DEVICE.
 * Source    Ba, Kiros and Hinton, "Layer Normalization" (2016); the norm of the keys in DeepSeek-V3.2's indexer
 *           (f32 weight and bias, eps 1e-6); torch.nn.functional.layer_norm. */
#ifndef HALLMARK_LAYER_NORM_H
#define HALLMARK_LAYER_NORM_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, x, weight, bias;
    double eps;
    void *stream; /* HM_CUDA only */
} hm_layer_norm_args;

typedef hm_status hm_layer_norm_fn(const hm_layer_norm_args *args);
HM_API hm_layer_norm_fn hm_layer_norm;       /* dispatches on the tensors' place */
HM_API hm_layer_norm_fn hm_layer_norm_check; /* the contract as code; writes nothing */
HM_API hm_layer_norm_fn hm_layer_norm_ref;   /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_layer_norm_fn hm_layer_norm_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
