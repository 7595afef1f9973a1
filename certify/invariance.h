/* invariance.h: does an implementation give a row the same bits whatever surrounds it? */
#ifndef HM_INVARIANCE_H
#define HM_INVARIANCE_H

#include "impl.h"

/* Runs impl again: on the same bytes, on single rows, on fewer rows (of a case with batches=every, on each smaller
 * number of them), and with other strides, and compares every element's bits with what lies in the call's outputs (NaN
 * equals NaN). text: "same", or "differs: row 3 alone". The call's outputs are those of the second run afterwards. A
 * layout that the contract or the implementation declines is left out. */
bool hm_invariance(hm_impl *impl, hm_call *call, char *text, size_t size);

#endif
