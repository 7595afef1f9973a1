#include "norm_parts.h"

#include <math.h>

#include "../../op/dtype.h"

double hm_fault_stored(const hm_norm_variation *v, hm_dtype t, double y) {
    switch (v->store) {
        case STORE_NEAREST:
            break;
        case STORE_TRUNCATES:
            return hm_fault_toward_zero(t, y);
        case STORE_TIES_AWAY:
            return hm_fault_ties_away(t, y);
        case STORE_UPWARD: {
            double r = hm_round_to(t, y);
            return r < y ? hm_next_up(t, r) : r;
        }
        case STORE_VIA_F32:
            return hm_round_to(HM_F32, y);
        case STORE_VIA_BF16:
            return hm_round_to(HM_BF16, y);
        case STORE_VIA_F16:
            return hm_round_to(HM_F16, y);
        case STORE_SATURATES:
            return hm_fault_saturated(t, y);
        case STORE_FLUSHES:
            return hm_fault_flushed(t, y);
        case STORE_NAN_BY_INTEGER:
            return isnan(y) ? -0.0 : y;
        case STORE_NAN_AS_ZERO:
            return isnan(y) ? 0 : y;
        case STORE_ZEROS:
            return 0;
        case STORE_NANS:
            return NAN;
    }
    return y;
}

/* ---- reading ---- */

static double special(const hm_norm_variation *v, hm_dtype t, double x) {
    if (v->specials == SPECIALS_NAN_IS_ZERO && isnan(x)) return 0;
    if (v->specials == SPECIALS_INF_IS_MAX && isinf(x)) return copysign(hm_dtype_max(t), x);
    if (v->specials == SPECIALS_SUBNORMAL_IS_ZERO && fabs(x) < hm_dtype_min_normal(t)) return 0;
    return x;
}

void hm_fault_read_x(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *x) {
    const hm_tensor *t = &c->x;
    int64_t offset = hm_fault_row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_X_DENSE) offset = row * n;
    if (v->map == MAP_X_UNIT || v->map == MAP_X_DENSE) stride = 1;
    if (v->map == MAP_X_TWO_DIMENSIONS && t->ndim > 1) offset = row * t->stride[t->ndim - 2];
    if (v->map == MAP_X_LIKE_OUT) offset = hm_fault_row_offset(&c->out, row);
    if (v->map == MAP_X_INT32) offset = hm_fault_in_int32(offset);
    hm_fault_load_row(t, offset, stride, n, x);
    for (int64_t i = 0; i < n; i++) x[i] = special(v, t->dtype, x[i]);
    if (v->narrow == NARROW_X_BF16) hm_round_row(HM_BF16, n, x);
}

void hm_fault_read_residual(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *r) {
    const hm_tensor *t = &c->residual;
    int64_t offset = hm_fault_row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_RESIDUAL_DENSE) {
        offset = row * n;
        stride = 1;
    }
    if (v->map == MAP_RESIDUAL_LIKE_X) {
        offset = hm_fault_row_offset(&c->x, row);
        stride = c->x.stride[c->x.ndim - 1];
    }
    hm_fault_load_row(t, offset, stride, n, r);
    for (int64_t i = 0; i < n; i++) {
        r[i] = special(v, t->dtype, r[i]);
        if (v->sum == SUM_BYTES_AS_T && t->dtype != c->x.dtype)
            r[i] = hm_fault_load_bytes_as(t, (row * n + i) * (int64_t)hm_dtype_size(c->x.dtype), c->x.dtype);
        if (v->sum == SUM_RESIDUAL_ROUNDED) r[i] = hm_round_to(c->x.dtype, r[i]);
        if (v->sum == SUM_GARBAGE) /* what an allocator leaves: a small pattern that depends on the address alone */
            r[i] = (double)((row * n + i) * 2654435761u % 1024) / 4096;
    }
}

/* The weight's factor for each column, or nothing where there is no weight. */
void hm_fault_read_weight(const hm_norm_variation *v, const hm_norm_call *c, int64_t n, double *w) {
    const hm_tensor *t = &c->weight;
    hm_dtype x = c->x.dtype;
    int64_t stride = v->weight == WEIGHT_UNIT_STRIDE ? 1 : t->stride[0];
    hm_fault_load_row(t, 0, stride, n, w);
    for (int64_t i = 0; i < n; i++) {
        if (v->weight == WEIGHT_BYTES_AS_T && t->dtype != x)
            w[i] = hm_fault_load_bytes_as(t, i * (int64_t)hm_dtype_size(x), x);
        if (v->weight == WEIGHT_NEXT) w[i] = hm_fault_load(t, (i + 1) % n * stride);
        if (v->weight == WEIGHT_4096) w[i] = hm_fault_load(t, i % 4096 * stride);
        if (v->weight == WEIGHT_ROUNDED_TO_T) w[i] = hm_round_to(x, w[i]);
        bool one_plus = c->weight_form == HM_WEIGHT_ONE_PLUS;
        if (v->weight == WEIGHT_ALWAYS_PLAIN) one_plus = false;
        if (v->weight == WEIGHT_ALWAYS_ONE_PLUS) one_plus = true;
        if (one_plus) w[i] += 1;
        if (one_plus && v->weight == WEIGHT_ONE_PLUS_IN_T) w[i] = hm_round_to(x, w[i]);
        if (v->weight == WEIGHT_SQUARED) w[i] *= w[i];
    }
}
