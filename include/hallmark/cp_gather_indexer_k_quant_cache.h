/* SPDX-License-Identifier: Apache-2.0
 * cp_gather_indexer_k_quant_cache: collects the indexer's keys of several requests from the paged cache that
 * indexer_k_quant_and_cache writes: codes and scales, byte for byte, request after request.
 *
 *   kv_cache     in     [num_blocks, block_size, entry]  u8, as indexer_k_quant_and_cache.h has it, its strides too
 *   block_table  in     [requests, max_blocks]           i32, the blocks of each request; any strides. Entries that no
 *                                                        request's length asks for may hold anything
 *   cu_seq_lens  in     [requests + 1]                   i32, ascending: request r has rows cu[r] .. cu[r+1]-1, or
 *                                                        none
 *   dst_k        inout  [rows, head_dim]                 u8, f8e4m3 or f8e4m3fnuz; head_dim = 128 groups,
 *                                                        entry = 132 groups
 *   dst_scale    inout  [rows, 4 groups] u8, or [rows, groups] f32
 * For row n of request r: p = n - cu[r], block = block_table[r][p / block_size], o = p % block_size; the codes and
 * scales of offset o of that block, where `layout` puts them. Rows before cu[0] or from cu[requests] on keep what they
 * held. Outputs: distinct elements, positive strides; no overlap with anything.
 *
 * Rounding  none: bits are copied, NaN codes and scales too. What the codes are in (fn or fnuz) makes no difference.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM, BAD_VALUE (on the host:
 *           cu_seq_lens negative, descending or past the rows; a request longer than its row of block_table; a block
 *           that is asked for and is not in the cache), UNSUPPORTED, NO_DEVICE.
 * Source    vLLM csrc/cache_kernels.cu (cp_gather_indexer_k_quant_cache). */
#ifndef HALLMARK_CP_GATHER_INDEXER_K_QUANT_CACHE_H
#define HALLMARK_CP_GATHER_INDEXER_K_QUANT_CACHE_H

#include "indexer_k_quant_and_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor dst_k, dst_scale, kv_cache, block_table, cu_seq_lens;
    hm_cache_layout layout;
    void *stream; /* HM_CUDA only */
} hm_cp_gather_indexer_k_quant_cache_args;

typedef hm_status hm_cp_gather_indexer_k_quant_cache_fn(const hm_cp_gather_indexer_k_quant_cache_args *args);
HM_API hm_cp_gather_indexer_k_quant_cache_fn hm_cp_gather_indexer_k_quant_cache;       /* dispatches on the place */
HM_API hm_cp_gather_indexer_k_quant_cache_fn hm_cp_gather_indexer_k_quant_cache_check; /* the contract as code */
HM_API hm_cp_gather_indexer_k_quant_cache_fn hm_cp_gather_indexer_k_quant_cache_ref;   /* plain C + OpenMP */
HM_API hm_cp_gather_indexer_k_quant_cache_fn hm_cp_gather_indexer_k_quant_cache_cuda;  /* class wide; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
