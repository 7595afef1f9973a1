/* SPDX-License-Identifier: Apache-2.0
 * linear: rows times a weight matrix, with a bias: the matrix product of a language model.
 *
 *   x       in   [..., in]        T: f32, f16 or bf16; rank 1 to 4, any strides
 *   weight  in   [features, in]   T or f32, and bf16 where T is f32; any strides: a transposed view is one, too
 *   bias    in   [features]       T or f32; absent: none
 *   out     out  [..., features]  T or f32; distinct elements, positive strides; no overlap with an input
 * out[..., n] = sum over k of x[..., k] weight[n][k], + bias[n].
 *
 * Rounding  one, to the dtype of out, after the bias. Products and sums before it are in f32 in any order, as a class
 *           says; partial sums are never rounded to 16 bits, f32 operands never to fewer bits.
 * Specials  as IEEE has them for the products and their sum: NaN, an infinity times 0 and infinities of both signs give
 *           NaN. Where |x| |weight| sums beyond the range of f32 so may the result.
 * Empty     no rows or no features: nothing is written. in == 0: the bias, or 0.
 * Ref       f32, the same bits everywhere: products rounded to f32 (exact where both operands have 16 bits); 16 lanes,
 *           lane k mod 16 adding in the order of k within blocks of 512, which are then added in order; then lane l
 *           takes l + 8, l + 4, l + 2, l + 1; the bias comes last. A term passes 37 + in/512 additions: class chain64.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source    torch.nn.functional.linear; cuBLAS with f32 compute type and the bias in the epilogue. */
#ifndef HALLMARK_LINEAR_H
#define HALLMARK_LINEAR_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, x, weight, bias;
    void *stream; /* HM_CUDA only */
} hm_linear_args;

typedef hm_status hm_linear_fn(const hm_linear_args *args);
HM_API hm_linear_fn hm_linear;       /* dispatches on the place */
HM_API hm_linear_fn hm_linear_check; /* the contract as code */
HM_API hm_linear_fn hm_linear_ref;   /* plain C + OpenMP */
HM_API hm_linear_fn hm_linear_cuda;  /* class tc23, chain64 where an operand is f32; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
