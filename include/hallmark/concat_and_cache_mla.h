/* SPDX-License-Identifier: Apache-2.0
 * concat_and_cache_mla: writes the latent vector of each token, and its rotated key behind it, into the paged cache of
 * multi-head latent attention.
 *
 *   kv_c          in     [tokens, latent]                 f32 f16 bf16 (called T below); any strides
 *   k_pe          in     [tokens, rope]                   T; any strides
 *   slot_mapping  in     [tokens]                         i64, each less than num_blocks * block_size; any stride.
 *                                                         Negative: the token is skipped, nothing of it is written
 *   kv_cache      inout  [num_blocks, block_size, entry]  elements distinct, strides positive
 * Token t goes to row slot % block_size of block slot / block_size: the entry of the token, and of no other.
 *
 *   HM_MLA_BF16    kv_cache has dtype T, entry = latent + rope, any extents: kv_c[t], then k_pe[t], bit for bit.
 *   HM_MLA_FP8_DS  kv_cache is u8, its last stride is 1, entry = 656, latent = 512, rope = 64, T has 16 bits. Bytes:
 *                    0 .. 511    codes of kv_c[t], f8e4m3
 *                  512 .. 527    4 scales, f32, little endian: scale i is that of tile i, codes 128 i .. 128 i + 127
 *                  528 .. 655    k_pe[t], 64 elements of T, bit for bit
 * All other bytes keep what they held. No slot may occur twice (kernels write in any order, so that neither token, nor
 * a mixture of both, could be called right). No overlap of kv_cache with the inputs.
 *
 * Formula   of a tile: a = the largest |v_i|; the floor is under the scale, not under a:
 *           HM_MLA_SCALE_F32   S = max(a / 448, 2^-126)
 *           HM_MLA_SCALE_POW2  S = max(a / 448, 1e-4) rounded up to a power of two: a = 336 gives 1, a = 0 gives 2^-13
 *           code_i = RN(v_i / S), a true division, saturating. `scale` says nothing with HM_MLA_BF16.
 * Rounding, specials: as in quant_fp8_group.h; of a tile with a NaN the scale and the other codes are unspecified.
 * Readers   take code * S in one of three ways, the same where S is a power of two, so with HM_MLA_SCALE_POW2:
 *           HM_MLA_DEQUANT_F32    RN_bf16(code S)
 *           HM_MLA_DEQUANT_SM90   RN_bf16(code RN_bf16(S))   up to 2^-8 off
 *           HM_MLA_DEQUANT_SM100  code 2^floor(log2 S)       up to half of it gone
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE (f32 with HM_MLA_FP8_DS among them), BAD_PLACE, BAD_ALIAS,
 *           BAD_PARAM (an unknown mode), BAD_VALUE (on the host: a slot past the cache, a slot that occurs twice),
 *           NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source    vLLM csrc/cache_kernels.cu (concat_and_cache_mla; kv_cache_dtype "auto" and "fp8_ds_mla"); DeepSeek's
 *           FlashMLA for the readers. */
#ifndef HALLMARK_CONCAT_AND_CACHE_MLA_H
#define HALLMARK_CONCAT_AND_CACHE_MLA_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_MLA_BF16 = 0, HM_MLA_FP8_DS } hm_mla_format;
typedef enum { HM_MLA_SCALE_F32 = 0, HM_MLA_SCALE_POW2 } hm_mla_scale;
typedef enum { HM_MLA_DEQUANT_F32 = 0, HM_MLA_DEQUANT_SM90, HM_MLA_DEQUANT_SM100 } hm_mla_dequant;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor kv_cache, kv_c, k_pe, slot_mapping;
    hm_mla_format format;
    hm_mla_scale scale;
    void *stream; /* HM_CUDA only */
} hm_concat_and_cache_mla_args;

typedef hm_status hm_concat_and_cache_mla_fn(const hm_concat_and_cache_mla_args *args);
HM_API hm_concat_and_cache_mla_fn hm_concat_and_cache_mla;       /* dispatches on the tensors' place */
HM_API hm_concat_and_cache_mla_fn hm_concat_and_cache_mla_check; /* the contract as code; writes nothing */
HM_API hm_concat_and_cache_mla_fn hm_concat_and_cache_mla_ref;   /* plain C + OpenMP */
HM_API hm_concat_and_cache_mla_fn hm_concat_and_cache_mla_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
