/* index_weights.h: what every implementation calls first. */
#ifndef HM_OP_INDEX_WEIGHTS_H
#define HM_OP_INDEX_WEIGHTS_H

#include <hallmark/index_weights.h>
#include <hallmark/op.h>

/* The caller's struct completed and checked. */
hm_status hm_index_weights_read(const hm_index_weights_args *args, hm_index_weights_args *full);
/* RN_f32(n^-1/2), n from 1 to 65536: binary64's quotient is never so near to a boundary of f32 that its own error
 * matters (tests/unit/index_weights.c tries all). */
double hm_inverse_root_f32(int64_t n);

#endif
