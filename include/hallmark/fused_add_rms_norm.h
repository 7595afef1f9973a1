/* SPDX-License-Identifier: Apache-2.0
 * fused_add_rms_norm:  residual_out[t,:] = x[t,:] + residual[t,:]
 *                      out[t,:]          = rms_norm of that sum (rms_norm.h: same formula, modes and specials)
 *
 *   x             in   [..., hidden]  f32 f16 bf16 (called T below); any strides
 *   residual      in   [..., hidden]  T; with HM_RESIDUAL_F32_FOR_F16 and T = f16 also f32; any strides
 *   weight        in   [hidden]       as in rms_norm.h
 *   eps           in   scalar >= 0    as in rms_norm.h
 *   out           out  [..., hidden]  T, shape of x; may be x itself (same view)
 *   residual_out  out  [..., hidden]  R, shape of x; may be residual itself (same view and dtype)
 * R is T; with HM_RESIDUAL_F32_FOR_F16 and T = f16 it is f32. No other overlap of an output with anything; elements of
 * an output must be distinct and its strides positive. Upstream's in-place form is out = x, residual_out = residual.
 *
 * Rounding  residual_out = RN_R(x + residual), one rounding.
 *           HM_READ_ROUNDED    the norm reads residual_out                     (vLLM's kernel)
 *           HM_READ_UNROUNDED  the norm reads x + residual before RN_R         (FlashInfer; vLLM's native path)
 *           For R = f32 the two are the same mode: the norm reads RN_f32(x + residual).
 *           round and weight_form as in rms_norm.h; out is rounded to T.
 * Specials  IEEE arithmetic: inf - inf is NaN, and a sum beyond R's range is stored as inf. Then as in rms_norm.h.
 * Returns   as rms_norm.
 * Source    vLLM csrc/layernorm_kernels.cu (fused_add_rms_norm) and GemmaRMSNorm; FlashInfer FusedAddRMSNorm. */
#ifndef HALLMARK_FUSED_ADD_RMS_NORM_H
#define HALLMARK_FUSED_ADD_RMS_NORM_H

#include "rms_norm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_READ_ROUNDED = 0, HM_READ_UNROUNDED } hm_residual_read;
typedef enum { HM_RESIDUAL_SAME = 0, HM_RESIDUAL_F32_FOR_F16 } hm_residual_dtype;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, residual_out, x, residual, weight;
    double eps;
    hm_round round;
    hm_weight_form weight_form;
    hm_residual_read residual_read;
    hm_residual_dtype residual_dtype;
    int64_t variance_size; /* elements in the mean; 0 means hidden */
    void *stream;          /* HM_CUDA only */
} hm_fused_add_rms_norm_args;

typedef hm_status hm_fused_add_rms_norm_fn(const hm_fused_add_rms_norm_args *args);
HM_API hm_fused_add_rms_norm_fn hm_fused_add_rms_norm;       /* dispatches on the tensors' place */
HM_API hm_fused_add_rms_norm_fn hm_fused_add_rms_norm_check; /* the contract as code; writes nothing */
HM_API hm_fused_add_rms_norm_fn hm_fused_add_rms_norm_ref;   /* plain C + OpenMP; same bits everywhere */
HM_API hm_fused_add_rms_norm_fn hm_fused_add_rms_norm_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
