/* rope_table.h: what the implementations of rope_table share. */
#ifndef HM_OP_ROPE_TABLE_H
#define HM_OP_ROPE_TABLE_H

#include <hallmark/op.h>
#include <hallmark/rope_table.h>

/* The caller's struct completed and checked; what every implementation calls first. */
hm_status hm_rope_table_read(const hm_rope_table_args *args, hm_rope_table_args *full);

/* Which of the positions t, h, w (0, 1, 2) column j takes; 0 for plain positions. */
int hm_rope_axis(const hm_rope_table_args *a, int64_t j);
/* position(p, j) on axis `axis` of hm_rope_axis. */
int64_t hm_rope_position(const hm_rope_table_args *a, int axis, int64_t p);

#endif
