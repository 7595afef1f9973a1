/* norm_parts.h: what the evaluator of norm.c is made of. */
#ifndef HM_FAULTS_NORM_PARTS_H
#define HM_FAULTS_NORM_PARTS_H

#include "common.h"
#include "norm.h"

double hm_fault_stored(const hm_norm_variation *v, hm_dtype t, double y); /* up to a last rounding to nearest */

/* Rows of n elements as the fault reads them; w: the factor of each column. */
void hm_fault_read_x(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *x);
void hm_fault_read_residual(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *r);
void hm_fault_read_weight(const hm_norm_variation *v, const hm_norm_call *c, int64_t n, double *w);

/* norm_scale.c: rs of a row of n elements. */
double hm_fault_scale(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, const double *x, int64_t n);
void hm_fault_next_call(void); /* for ORDER_BY_RUN */

#endif
