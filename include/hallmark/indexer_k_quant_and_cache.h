/* SPDX-License-Identifier: Apache-2.0
 * indexer_k_quant_and_cache: quantises the indexer's keys to 8 bits and writes them, with their scales, into a paged
 * cache.
 *
 *   k             in     [tokens, head_dim]                  f16 bf16 (called T below); any strides; head_dim = 128
 *   groups
 *   slot_mapping  in     [tokens]                            i64, each less than num_blocks * block_size; any stride.
 *                                                            Negative: the token is skipped, nothing of it is written
 *   kv_cache      inout  [num_blocks, block_size, entry]     u8, entry = head_dim + 4 groups. A block is dense: strides
 *                                                            (any at least block_size * entry, entry, 1)
 * Token t goes to block slot / block_size, offset o = slot % block_size. A block holds first the codes of all its
 * tokens, then their scales; row o of the tensor kv_cache is NOT what token o's entry is, except for block_size 1. Code
 * d of offset o is the byte of the block, counted from its first,
 *           HM_LAYOUT_NORMAL   o head_dim + d
 *           HM_LAYOUT_SHUFFLE  (o / 16) 16 head_dim + (d / 16) 256 + (o % 16) 16 + d % 16: tiles of 16 tokens by 16
 *                              codes; block_size has to be a multiple of 16
 * The scale of group g is an f32, little endian, at byte block_size head_dim + 4 (o groups + g), for both layouts.
 * All other bytes keep what they held. No slot may occur twice (kernels write in any order, so that neither token, nor
 * a mixture of both, could be called right). No overlap of kv_cache with the inputs.
 *
 * Formula   groups of 128 elements as in quant_fp8_group.h: a = the largest |k_i|; S = max(a, floor) / divisor, with
 *           HM_SCALE_UE8M0 rounded up to a power of two; code = RN(k_i / S), a true division, saturating
 *           HM_CODE_E4M3      f8e4m3, divisor 448            (NVIDIA)
 *           HM_CODE_E4M3FNUZ  f8e4m3fnuz, divisor 224        (AMD gfx942)
 * floor     0 means 1e-4; narrowed to f32; 2^-100 to 2^64.
 * Rounding, specials: as in quant_fp8_group.h; of a group with a NaN the scale and the other codes are unspecified.
 * Returns   BAD_ARG, BAD_SHAPE (head_dim no multiple of 128; a shuffled block_size that is no multiple of 16),
 *           BAD_STRIDE, BAD_DTYPE (f32 keys among them), BAD_PLACE, BAD_ALIAS, BAD_PARAM, BAD_VALUE (on the host: a
 *           slot past the cache, a slot that occurs twice), NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source    vLLM csrc/cache_kernels.cu (indexer_k_quant_and_cache); aiter's preshuffled layout for HM_LAYOUT_SHUFFLE.
 *           */
#ifndef HALLMARK_INDEXER_K_QUANT_AND_CACHE_H
#define HALLMARK_INDEXER_K_QUANT_AND_CACHE_H

#include "quant_fp8_group.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HM_LAYOUT_NORMAL = 0, HM_LAYOUT_SHUFFLE } hm_cache_layout;
typedef enum { HM_CODE_E4M3 = 0, HM_CODE_E4M3FNUZ } hm_code_format;

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor kv_cache, k, slot_mapping;
    hm_cache_layout layout;
    hm_code_format code_format;
    hm_scale_format scale_format;
    double floor;
    void *stream; /* HM_CUDA only */
} hm_indexer_k_quant_and_cache_args;

typedef hm_status hm_indexer_k_quant_and_cache_fn(const hm_indexer_k_quant_and_cache_args *args);
HM_API hm_indexer_k_quant_and_cache_fn hm_indexer_k_quant_and_cache;       /* dispatches on the tensors' place */
HM_API hm_indexer_k_quant_and_cache_fn hm_indexer_k_quant_and_cache_check; /* the contract as code; writes nothing */
HM_API hm_indexer_k_quant_and_cache_fn hm_indexer_k_quant_and_cache_ref;   /* plain C + OpenMP */
HM_API hm_indexer_k_quant_and_cache_fn hm_indexer_k_quant_and_cache_cuda;  /* class chain64; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
