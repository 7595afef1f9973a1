/* rope_table.h: what the implementations of rope_table share. */
#ifndef HM_OP_ROPE_TABLE_H
#define HM_OP_ROPE_TABLE_H

#include <hallmark/op.h>
#include <hallmark/rope_table.h>

#include "both.h"

/* The caller's struct completed and checked; what every implementation calls first. */
hm_status hm_rope_table_read(const hm_rope_table_args *args, hm_rope_table_args *full);

HM_BOTH_INLINE bool hm_rope_sectioned(const hm_rope_table_args *a) { return a->mrope_t || a->mrope_h || a->mrope_w; }
/* Which of the positions t, h, w (0, 1, 2) column j takes; 0 for plain positions. */
HM_BOTH_INLINE int hm_rope_axis(const hm_rope_table_args *a, int64_t j) {
    if (!hm_rope_sectioned(a) || a->positions.dtype == HM_DTYPE_NONE || a->positions.ndim == 1) return 0;
    if (a->mrope_layout == HM_MROPE_CHUNKED) return j < a->mrope_t ? 0 : j < a->mrope_t + a->mrope_h ? 1 : 2;
    if (j % 3 == 1 && j < 3 * a->mrope_h) return 1;
    return j % 3 == 2 && j < 3 * a->mrope_w ? 2 : 0;
}
/* position(p, j) on axis `axis` of hm_rope_axis. */
HM_BOTH_INLINE int64_t hm_rope_position(const hm_rope_table_args *a, int axis, int64_t p) {
    const hm_tensor *t = &a->positions;
    if (t->dtype == HM_DTYPE_NONE) return p;
    return ((const int64_t *)t->data)[(t->ndim == 2 ? axis * t->stride[0] : 0) + p * t->stride[t->ndim - 1]];
}

#endif
