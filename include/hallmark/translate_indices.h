/* SPDX-License-Identifier: Apache-2.0
 * translate_indices: from the token numbers of a request, as top_k_per_row gives them, to slots of a paged cache, or to
 * rows of a workspace into which requests were gathered.
 *
 *   indices           in   [tokens, k]             i32; negative: none
 *   req_id            in   [tokens]                i32, the request of each token
 *   block_table       in   [requests, max_blocks]  i32, blocks of each request      } one of the two
 *   workspace_starts  in   [requests]              i32, first row of each request   }
 *   out               out  [tokens, k]             i32; may be indices itself (same view)
 *   valid_count       out  [tokens]                i32, optional: how many of the row are not -1
 * Inputs may have any strides. Outputs: distinct elements, positive strides, no other overlap with anything.
 *
 * For an index t of request r, with P = block_size:
 *   block_table       out = block_table[r][t / P] P + t % P; -1 if t is negative or t / P is not below max_blocks
 *   workspace_starts  out = workspace_starts[r] + t; -1 if t is negative
 * Only the entries of block_table that some index asks for are read.
 * Returns   BAD_ARG (neither form, or both), BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM
 *           (block_size), BAD_VALUE (on the host: a req_id that is no request, an entry that is asked for and negative,
 *           a result of 2^31 or more), UNSUPPORTED, NO_DEVICE.
 * Source    vLLM v1/attention/backends/mla (conversion of request-local to global indices). */
#ifndef HALLMARK_TRANSLATE_INDICES_H
#define HALLMARK_TRANSLATE_INDICES_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, valid_count, indices, req_id, block_table, workspace_starts;
    int64_t block_size; /* tokens of a block; 0 means 64. With workspace_starts it is not looked at */
    void *stream;       /* HM_CUDA only */
} hm_translate_indices_args;

typedef hm_status hm_translate_indices_fn(const hm_translate_indices_args *args);
HM_API hm_translate_indices_fn hm_translate_indices;       /* dispatches on the tensors' place */
HM_API hm_translate_indices_fn hm_translate_indices_check; /* the contract as code; writes nothing */
HM_API hm_translate_indices_fn hm_translate_indices_ref;   /* plain C + OpenMP */
HM_API hm_translate_indices_fn hm_translate_indices_cuda;  /* class wide; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
