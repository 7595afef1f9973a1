/* SPDX-License-Identifier: Apache-2.0
 * embedding: rows of a table, named by token ids; also of the part of a table that one of several ranks holds.
 *
 *   ids          in   [...]           i32 or i64, rank 1 to 3, any strides. Each is 0 to vocab_size - 1
 *   table        in   [rows, hidden]  T: f32, f16 or bf16; any strides. Only the rows that ids name are read
 *   vocab_start  in   >= 0            the id whose row is the table's first
 *   vocab_size   in   >= 0            ids that there are; 0 means vocab_start + rows
 *   out          out  [..., hidden]   T; distinct elements, positive strides; no overlap with an input
 * out[..., h] = table[ids[...] - vocab_start][h] where 0 <= ids[...] - vocab_start < rows, else +0.
 *
 * Rounding  none: bits are copied, NaN payloads and the sign of zero too.
 * Empty     no ids, no columns: nothing is written. A table without rows is legal. Ids are checked where hidden is 0.
 * Returns   BAD_ARG, BAD_SHAPE, BAD_STRIDE, BAD_DTYPE, BAD_PLACE, BAD_ALIAS, BAD_PARAM (vocab_start or vocab_size is
 *           negative, or vocab_start above 2^53), BAD_VALUE (on the host: an id is negative, or vocab_size or more;
 *           before anything is written), UNSUPPORTED, NO_DEVICE.
 * Source    torch.nn.functional.embedding without its renormalization and its padding index, which matters for
 *           gradients; with vocab_start vLLM's vocab-parallel embedding, before the sum over ranks. */
#ifndef HALLMARK_EMBEDDING_H
#define HALLMARK_EMBEDDING_H

#include "hallmark.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t size; /* filled by HM_ARGS */
    hm_tensor out, ids, table;
    int64_t vocab_start, vocab_size;
    void *stream; /* HM_CUDA only */
} hm_embedding_args;

typedef hm_status hm_embedding_fn(const hm_embedding_args *args);
HM_API hm_embedding_fn hm_embedding;       /* dispatches on the place */
HM_API hm_embedding_fn hm_embedding_check; /* the contract as code */
HM_API hm_embedding_fn hm_embedding_ref;   /* plain C + OpenMP */
HM_API hm_embedding_fn hm_embedding_cuda;  /* class wide; see cuda.h */

#ifdef __cplusplus
}
#endif
#endif
