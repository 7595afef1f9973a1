/* rms_norm.h: one row of the RMSNorm family, for rms_norm.c and fused_add_rms_norm.c. */
#ifndef HM_REF_RMS_NORM_H
#define HM_REF_RMS_NORM_H

#include "../op/rms_norm.h"

enum { HM_CHUNK = 512 }; /* elements that are converted at a time; a multiple of HM_LANES */
enum { HM_LANES = 16 };  /* independent partial sums: element i goes to lane i % 16 */

/* lanes[j] += v[j]^2 + v[j+16]^2 + ..; n elements. The order is fixed, so that bits do not depend on the CPU. */
void hm_add_squares(const double *v, int64_t n, double *lanes);
/* (sum of the lanes, pairwise) / variance_size + eps, to the power -1/2 */
double hm_reciprocal_root(const double *lanes, int64_t variance_size, double eps);
/* v[i] := v[i] * rs * weight, as the modes say, not yet rounded to T. w: the weights of these n elements, or NULL. */
void hm_apply_norm(hm_dtype T, hm_round round, hm_weight_form form, double rs, int64_t n, double *v, const double *w);

#endif
