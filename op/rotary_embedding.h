/* rotary_embedding.h: the call completed and checked. */
#ifndef HM_OP_ROTARY_EMBEDDING_H
#define HM_OP_ROTARY_EMBEDDING_H

#include <hallmark/rotary_embedding.h>

hm_status hm_rotary_embedding_read(const hm_rotary_embedding_args *args, hm_rotary_embedding_args *full);

/* Element offset of token `token` (leading dimensions, outermost first) in a tensor whose first `leading` dimensions
 * are tokens. */
static inline int64_t hm_token_offset(const hm_tensor *t, int leading, int64_t token) {
    int64_t offset = 0;
    for (int d = leading - 1; d >= 0; d--) {
        offset += token % t->shape[d] * t->stride[d];
        token /= t->shape[d];
    }
    return offset;
}

#endif
