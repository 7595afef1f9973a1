/* SPDX-License-Identifier: Apache-2.0
 * silu_and_mul: the gate of a SwiGLU layer; gate and up lie side by side, as one matrix product leaves them.
 *
 *   x    in   [..., 2 hidden]  T: f32, f16 or bf16; rank 1 to 4, any strides. The gate, then up
 *   out  out  [..., hidden]    T; distinct elements, positive strides; no overlap with x
 * With g = x[..., d] and u = x[..., hidden + d]: out[..., d] = silu(g) u, and silu(g) = g / (1 + exp(-g)) comes first.
 *
 * Rounding  HM_SILU_ONCE: the product is rounded to T. HM_SILU_EACH: silu(g) is rounded to T, then the product is.
 * Specials  NaN in g or u gives NaN, and so do g = -inf, as -inf / (1 + inf) does, and 0 times an infinity; silu(+inf)
 *           is +inf. With f32 inside, silu(g) may be 0 for g <= -87 (exp(-g) overflows, or its reciprocal is flushed)
 *           and wherever it is below 2^-126.
 * Empty     no rows, or hidden == 0: nothing is written.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (an unknown rounding),
 *           UNSUPPORTED, NO_DEVICE.
 * Source    vLLM csrc/activation_kernels.cu and F.silu(gate) * up in PyTorch: HM_SILU_EACH; fused Triton kernels and
 *           FlashInfer: HM_SILU_ONCE. */
#ifndef HALLMARK_SILU_AND_MUL_H
#define HALLMARK_SILU_AND_MUL_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_SILU_ONCE = 0, HM_SILU_EACH } hm_silu_round;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, x;
    hm_silu_round round;
    void *stream; /* HM_CUDA only */
} hm_silu_and_mul_args;

typedef hm_status hm_silu_and_mul_fn(const hm_silu_and_mul_args *args);
HM_API hm_silu_and_mul_fn hm_silu_and_mul;       /* dispatches on the place */
HM_API hm_silu_and_mul_fn hm_silu_and_mul_check; /* the contract as code */
HM_API hm_silu_and_mul_fn hm_silu_and_mul_ref;   /* plain C + OpenMP */
HM_API hm_silu_and_mul_fn hm_silu_and_mul_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
