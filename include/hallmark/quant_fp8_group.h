/* SPDX-License-Identifier: Apache-2.0
 * quant_fp8_group: 8-bit codes for each group of consecutive elements of a row, and the group's scale; code * scale is
 * about x.
 *
 *   x      in   [..., hidden]  f32 f16 bf16 (called T below); any strides
 *   codes  out  [..., hidden]  f8e4m3, f8e4m3fnuz or f8e5m2 (called F below)
 *   scale  out  [..., groups]  f32, or with HM_SCALE_UE8M0 also e8m0; groups = hidden / group_size, which divides
 *                              hidden
 * "..." is 0 to 3 leading dimensions. Outputs: distinct elements, positive strides, no overlap with anything.
 *
 * Formula   a = the largest |x_i| of the group, D = RN_f32(divisor), f = RN_f32(floor)
 *           HM_FLOOR_AMAX   r = max(a, f) / D           HM_FLOOR_SCALE  r = max(a / D, f)
 *           HM_SCALE_F32    S = r                       HM_SCALE_UE8M0  S = r rounded up to a power of two
 *           code_i = RN_F(x_i / S) for the S that is stored
 * Rounding  S is stored in f32: within 2^-22 of r (wide: RN_f32(r)). The exponent of a power of two is exact: for T of
 *           16 bits always; for f32 the next one too where r is within 2^-21 of a power of two (not in wide).
 *           HM_QUANT_DIVIDE      x_i / S with one f32 rounding       (vLLM's kernels)
 *           HM_QUANT_RECIPROCAL  x_i * RN_f32(1 / S)                 (aiter)
 *           The two differ where S is no power of two. RN_F rounds to nearest, ties to even, and keeps subnormals.
 *           HM_FP8_SATURATE      beyond F's largest value: that value with its sign     (CUDA's conversions)
 *           HM_FP8_IEEE          what rounds past it: NaN, in f8e5m2 infinity           (torch's .to(), without a
 *           clamp)
 * divisor   what a is divided by; 0: 448 for f8e4m3, 224 for f8e4m3fnuz, 57344 for f8e5m2. From 2 to 2^16;
 *           above F's largest value, the largest magnitudes of a group overflow.
 * floor     keeps S from 0: finite, and the least S that it gives is at least 2^-126. Its default is 1e-10.
 *           vLLM: group quantisation floors a (with UE8M0: r) at 1e-10, the indexer's keys a at 1e-4.
 * Specials  Codes are bits: -0, and negative values that round to 0, have a sign where F has -0. A NaN element has a
 *           NaN code; the scale and the other codes of its group are unspecified. So are all of a group with an
 *           infinity.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (group_size that is not positive
 *           or does not divide hidden, divisor or floor out of range, an unknown mode), UNSUPPORTED, NO_DEVICE.
 * Source    OCP 8-bit floating point (OFP8) 1.0 and Microscaling formats 1.0; vLLM csrc/quantization (per-token group
 *           quantisation), csrc/cache_kernels.cu. */
#ifndef HALLMARK_QUANT_FP8_GROUP_H
#define HALLMARK_QUANT_FP8_GROUP_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_SCALE_F32 = 0, HM_SCALE_UE8M0 } hm_scale_format;
typedef enum { HM_FLOOR_AMAX = 0, HM_FLOOR_SCALE } hm_floor_on;
typedef enum { HM_QUANT_DIVIDE = 0, HM_QUANT_RECIPROCAL } hm_quant_divide;
typedef enum { HM_FP8_SATURATE = 0, HM_FP8_IEEE } hm_fp8_overflow;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor codes, scale, x;
    int64_t group_size; /* elements; 0 means 128 */
    double divisor;     /* 0: as F has it */
    double floor;       /* 0 means 1e-10 */
    hm_scale_format scale_format;
    hm_floor_on floor_on;
    hm_quant_divide divide;
    hm_fp8_overflow overflow;
    void *stream; /* HM_CUDA only */
} hm_quant_fp8_group_args;

typedef hm_status hm_quant_fp8_group_fn(const hm_quant_fp8_group_args *args);
HM_API hm_quant_fp8_group_fn hm_quant_fp8_group;       /* dispatches on the tensors' place */
HM_API hm_quant_fp8_group_fn hm_quant_fp8_group_check; /* the contract as code; writes nothing */
HM_API hm_quant_fp8_group_fn hm_quant_fp8_group_ref; /* plain C + OpenMP; the same bits on every CPU and thread count */
HM_API hm_quant_fp8_group_fn hm_quant_fp8_group_cuda; /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
