/* SPDX-License-Identifier: Apache-2.0
 * top_k_per_row: the indices of the k largest logits of each row's window.
 *
 *   logits      in   [rows, columns]  f32; any strides; columns below 2^31
 *   row_starts  in   [rows]           i32, first column of the window           } prefill: both
 *   row_ends    in   [rows]           i32, first column behind it               }
 *   seq_lens    in   [batch]          i32, rows = batch * next_n: row r ends at } decode: instead of the two
 *                                     seq_lens[r / next_n] - next_n + r % next_n + 1, and starts at 0
 *   indices     out  [rows, k]        i32; distinct elements, positive strides, no overlap with anything
 *
 * With n = end - start columns in the window, or 0 if that is negative; indices are relative to the window: column -
 * start.
 *   n <= k  indices are 0, 1, .. n-1 in this order, then -1. Logits are not looked at.
 *   n > k   k distinct indices in 0..n-1, such that no logit that is left out is larger than one that is taken. In any
 *           order; of equal logits at the border any may be taken (-0 equals +0). Logits outside the window have no
 *           influence. A window with a NaN: k distinct indices in 0..n-1, no more.
 * The library's own implementations promise more: the largest logit first, equal ones by ascending index, the lowest
 * indices of those at the border; a NaN counts as larger than all. The same on every machine, in every run.
 *
 * Returns   BAD_ARG (neither form, or both), BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM
 *           (next_n), BAD_VALUE (on the host: a start below 0, an end past the columns), NO_MEMORY, UNSUPPORTED,
 *           NO_DEVICE.
 * Source    vLLM csrc/sampler.cu (top_k_per_row_prefill, top_k_per_row_decode). */
#ifndef HALLMARK_TOP_K_PER_ROW_H
#define HALLMARK_TOP_K_PER_ROW_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor indices, logits, row_starts, row_ends, seq_lens;
    int64_t next_n; /* rows of a request; 0 means 1. Prefill: 0 or 1 */
    void *stream;   /* HM_CUDA only */
} hm_top_k_per_row_args;

typedef hm_status hm_top_k_per_row_fn(const hm_top_k_per_row_args *args);
HM_API hm_top_k_per_row_fn hm_top_k_per_row;       /* dispatches on the tensors' place */
HM_API hm_top_k_per_row_fn hm_top_k_per_row_check; /* the contract as code; writes nothing */
HM_API hm_top_k_per_row_fn hm_top_k_per_row_ref;  /* plain C + OpenMP; the same indices on every CPU and thread count */
HM_API hm_top_k_per_row_fn hm_top_k_per_row_cuda; /* class wide; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
