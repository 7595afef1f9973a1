/* elements.h: the row by row comparison of a call's outputs with golden; judge.c makes a verdict of it. */
#ifndef HM_ELEMENTS_H
#define HM_ELEMENTS_H

#include "judge.h"
#include "rows.h"

/* The classes of an op, tightest first, and the place of the required one among them. */
typedef struct {
    hm_class list[HM_CLASS_COUNT];
    int n, required;
} hm_ladder;

/* false if `required` (HM_CLASS_NONE: the op's default) is not one of op's classes. */
bool hm_ladder_make(const hm_op_info *op, hm_class required, hm_ladder *ladder);

/* Compares every element of every output (of at most most_rows rows of it, if that is not 0: sample.h); fills rows,
 * rows_judged, elements, outside, out_of_class, range_free, point, decided, max_ulp,
 * consistent and the worst element. The result does not depend on the number of threads or on the tier. */
hm_status hm_elements_judge(const hm_golden *golden, const hm_call *call, const hm_ladder *ladder, hm_tier tier,
                            int64_t most_rows, int threads, hm_verdict *verdict);

/* hm_call_vacuous, on an open golden. catches: the case is known to catch a fault; then it may be about an inout
 * argument of which nothing changes (a cache, and padded tokens alone). */
bool hm_elements_trivial(const hm_golden *golden, const hm_call *call, const hm_ladder *ladder, hm_tier tier,
                         bool catches, char *which, size_t size);

#endif
