/* before.h: what outputs hold before a call. Outputs that are inputs at the same time are left alone. */
#ifndef HM_EVAL_BEFORE_H
#define HM_EVAL_BEFORE_H

#include "../model/model.h"

/* Zeros in every element of every output. */
void before_clear(const hm_op_info *op, const void *args);
/* What ref made of the call of this op before, as far as it reaches; and keeps what ref makes of this one. Ops that
 * write into an input (caches) are left alone. false: no memory. */
bool before_stale(const hm_model_call *call, const void *args);

#endif
