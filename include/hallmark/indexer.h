/* SPDX-License-Identifier: Apache-2.0
 * indexer: the sparse indexer of one layer as one call (decode): which keys each token attends to. A composite: the
 * chain of ops below, each with its own contract.
 *
 *   q              in     [tokens, heads, 128]           bf16 or f16 (called T below): projected, not rotated yet
 *   k              in     [tokens, 128]                  T: projected, neither normalised nor rotated yet
 *   weights        in     [tokens, heads]                f32 f16 bf16: of each head, not scaled yet
 *   k_weight       in     [128]                          f32 or T, optional: of the norm on k
 *   k_bias         in     [128]                          f32 or T, optional
 *   positions      in     [tokens]                       i64, each in 0..max_position-1
 *   cos_sin_cache  in     [max_position, rotary_dim]     T or f32
 *   slot_mapping   in     [tokens]                       i64: where the key of each token goes; negative: nowhere
 *   context_lens   in     [batch] or [batch, next_n]     i32 } as in fp8_paged_mqa_logits.h; a request's
 *   block_tables   in     [batch, max_blocks]            i32 } tokens follow each other; next_n = tokens / batch
 *   kv_cache       inout  [num_blocks, block_size, 132]  u8; any block stride: indexer_k_quant_and_cache.h
 *   logits         out    [tokens, width]                f32; -inf where a token sees no key
 *   indices        out    [tokens, top_k]                i32; positions in the request, then -1
 * Inputs may have any strides but where said. Outputs: distinct elements, positive strides, no overlap with anything.
 *
 * The chain, with T between its steps:
 *   1  k1 = layer_norm(k, k_weight, k_bias, eps)
 *   2  q2, k2 = rotary_embedding(q, k1, positions), HM_ROTARY_ONCE. The rotation takes effect: what is quantised below
 *      is rotated, whether an implementation rotates in place or returns new tensors. q and k stay as they were.
 *   3  kv_cache <- indexer_k_quant_and_cache(k2, slot_mapping), HM_SCALE_UE8M0, floor 1e-4
 *   4  codes, S = quant_fp8_group(q2), HM_SCALE_UE8M0, in the format of the keys
 *   5  w = index_weights(weights, S) in any order
 *   6  logits = fp8_paged_mqa_logits(codes, kv_cache as step 3 left it, w), HM_LOGITS_CLEAN
 *   7  indices = top_k_per_row(logits), decode
 * Judged     kv_cache for k; logits for q, weights and the cache that was stored; indices for the logits that were
 *            stored. So the first output that is wrong is the one whose step went wrong. To judge every step on its
 *            own, record the chain as seven calls: `hallmark replay` names the first that left its contract.
 * Specials   of a token with a NaN or an infinity in k, the bytes of its key are unspecified, and so are its logits for
 *            one in q or weights.
 * Returns    BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (eps, rope_dim_offset, an
 *            unknown mode), BAD_VALUE (on the host: a position, a slot, a length or a block out of range, a slot that
 *            occurs twice), NO_MEMORY, UNSUPPORTED, NO_DEVICE.
 * Source     DeepSeek-V3.2; vLLM v1/attention/backends/mla/indexer and models/deepseek_v2 (Indexer), vllm#43781. */
#ifndef HALLMARK_INDEXER_H
#define HALLMARK_INDEXER_H

#include "indexer_k_quant_and_cache.h"
#include "rotary_embedding.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor kv_cache, logits, indices, q, k, weights, k_weight, k_bias, positions, cos_sin_cache, slot_mapping,
        context_lens, block_tables;
    double eps; /* of the norm */
    hm_pairing pairing;
    int64_t rope_dim_offset;
    hm_cache_layout layout;
    hm_code_format code_format;
    void *stream; /* HM_CUDA only */
} hm_indexer_args;

typedef hm_status hm_indexer_fn(const hm_indexer_args *args);
HM_API hm_indexer_fn hm_indexer;       /* dispatches on the tensors' place */
HM_API hm_indexer_fn hm_indexer_check; /* the contract as code; writes nothing */
HM_API hm_indexer_fn hm_indexer_ref;   /* plain C + OpenMP */
HM_API hm_indexer_fn hm_indexer_cuda;  /* class tc23; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
