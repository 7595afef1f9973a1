/* SPDX-License-Identifier: Apache-2.0
 * indexer_cache.h: the bytes of the paged cache of indexer keys; what its writer and its readers have to agree on.
 *
 * A cache is a u8 tensor [blocks, block_size, entry], the one that vLLM allocates, with
 *   entry = head_dim + 4 * groups    groups = head_dim / 128: one f32 scale for 128 codes; 132 bytes for head_dim 128
 * Inside a block it is dense (strides entry and 1); the stride between blocks is free. A block is NOT a sequence of
 * entries: all codes come first, then all scales, and the last two dimensions only count its bytes. Row o of a block
 * is what lies at bytes o * entry .. of the block, and no token's entry, unless block_size is 1.
 *
 *   block b starts at byte b * stride[0]; token slot s is offset o = s % block_size of block b = s / block_size
 *   code of element d     NORMAL   o * head_dim + d
 *                         SHUFFLE  (o / 16) * 16 * head_dim + (d / 16) * 256 + (o % 16) * 16 + d % 16
 *   scale of group g      block_size * head_dim + 4 * (o * groups + g): four bytes, little endian, also for ue8m0
 *
 * SHUFFLE is tiles of 16 tokens x 16 codes. block_size has to be a multiple of 16: elsewhere the tiles of a last, partial
 * row of them would lie on the scales and beyond the block. head_dim is a positive multiple of 128 in both layouts.
 * Codes are bytes of f8e4m3 or f8e4m3fnuz: a mode of each op, since the tensor is u8.
 *
 * From torch: t of shape [num_blocks, block_size, 132] is passed as it is; a fused cache [num_blocks, block_size, 1, 132]
 * is passed without its third dimension.
 * Source    vLLM csrc/cache_kernels.cu, vllm/v1/attention/ops/rocm_aiter_mla_sparse.py; aiter (preshuffle). */
#ifndef HALLMARK_INDEXER_CACHE_H
#define HALLMARK_INDEXER_CACHE_H

#include "hallmark.h"

typedef enum { HM_CACHE_NORMAL = 0, HM_CACHE_SHUFFLE } hm_cache_layout;
typedef enum { HM_CODES_E4M3 = 0, HM_CODES_E4M3FNUZ } hm_cache_codes;

#endif
