/* SPDX-License-Identifier: Apache-2.0
 * fp8_paged_mqa_logits: the sparse indexer's score of every key of a request for its last tokens (decode), read from
 * the paged cache that indexer_k_quant_and_cache writes.
 *
 *   q             in   [batch, next_n, heads, head_dim]  f8e4m3 or f8e4m3fnuz, as the cache's codes are; head_dim =
 *                                                        128
 *   kv_cache      in   [num_blocks, block_size, 132]     u8; any block stride: indexer_k_quant_and_cache.h
 *   weights       in   [batch * next_n, heads]           f32
 *   context_lens  in   [batch] or [batch, next_n]        i32: keys of the request with the next_n tokens themselves:
 *                                                        token j sees context_lens[b] - next_n + j + 1 of them; or,
 *                                                        with two dimensions, how many token j sees. Negative: none
 *   block_tables  in   [batch, max_blocks]               i32; entries that no length asks for may hold anything
 *   logits        out  [batch * next_n, width]           f32; row b next_n + j, column p is position p of the request
 * Inputs may have any strides but where said. Output: distinct elements, positive strides, no overlap with anything.
 *
 * Formula, rounding, specials and what lies outside a row's keys: as in fp8_mqa_logits.h.
 * Returns   as fp8_mqa_logits, and BAD_VALUE for a length past width or past its row of block_tables, and for a block
 *           that is asked for and is not in the cache.
 * Source    DeepSeek-V3.2; DeepGEMM fp8_paged_mqa_logits; vLLM v1/attention/backends/mla/indexer. */
#ifndef HALLMARK_FP8_PAGED_MQA_LOGITS_H
#define HALLMARK_FP8_PAGED_MQA_LOGITS_H

#include "fp8_mqa_logits.h"
#include "indexer_k_quant_and_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor logits, q, kv_cache, weights, context_lens, block_tables;
    hm_cache_layout layout;
    hm_logits_outside outside;
    void *stream; /* HM_CUDA only */
} hm_fp8_paged_mqa_logits_args;

typedef hm_status hm_fp8_paged_mqa_logits_fn(const hm_fp8_paged_mqa_logits_args *args);
HM_API hm_fp8_paged_mqa_logits_fn hm_fp8_paged_mqa_logits;       /* dispatches on the tensors' place */
HM_API hm_fp8_paged_mqa_logits_fn hm_fp8_paged_mqa_logits_check; /* the contract as code; writes nothing */
HM_API hm_fp8_paged_mqa_logits_fn hm_fp8_paged_mqa_logits_ref;   /* plain C + OpenMP */
HM_API hm_fp8_paged_mqa_logits_fn hm_fp8_paged_mqa_logits_cuda;  /* class tc23; see cuda.h */
HM_API hm_fp8_paged_mqa_logits_fn
    hm_fp8_paged_mqa_logits_cuda_fp8; /* class tc13, where the device has f8 units; else as cuda */

#ifdef __cplusplus
}
#endif
#endif
