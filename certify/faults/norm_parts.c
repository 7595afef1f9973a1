#include "norm_parts.h"

#include <math.h>

#include "../../op/dtype.h"

typedef struct {
    int64_t first, last;
} span; /* offsets of a tensor's elements, from its data pointer */

int64_t hm_fault_width(const hm_tensor *t) { return t->shape[t->ndim - 1]; }

int64_t hm_fault_rows(const hm_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d < t->ndim - 1; d++) rows *= t->shape[d];
    return rows;
}

static span extent(const hm_tensor *t) {
    span s = {0, 0};
    for (int d = 0; d < t->ndim; d++) *(t->stride[d] < 0 ? &s.first : &s.last) += (t->shape[d] - 1) * t->stride[d];
    return s;
}

static bool inside(const hm_tensor *t, int64_t offset, int64_t slack) {
    span s = extent(t);
    return offset >= s.first - slack && offset <= s.last + slack;
}

void *hm_fault_at_offset(const hm_tensor *t, int64_t offset) {
    return (char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

int64_t hm_fault_row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset;
}

int64_t hm_fault_in_int32(int64_t offset) { return (int32_t)(uint32_t)offset; }

double hm_fault_load(const hm_tensor *t, int64_t offset) {
    if (!inside(t, offset, HM_FAULT_SLACK)) {
        span s = extent(t);
        int64_t n = s.last - s.first + 1, k = (offset - s.first) % n;
        offset = s.first + (k < 0 ? k + n : k);
    }
    return hm_load(t->dtype, hm_fault_at_offset(t, offset));
}

void hm_fault_load_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, double *to) {
    if (n > 0 && inside(t, offset, 0) && inside(t, offset + (n - 1) * stride, 0)) {
        hm_load_row(t->dtype, hm_fault_at_offset(t, offset), stride, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++) to[i] = hm_fault_load(t, offset + i * stride);
}

void hm_fault_store_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, int64_t slack,
                        const double *from) {
    if (n > 0 && inside(t, offset, slack) && inside(t, offset + (n - 1) * stride, slack)) {
        hm_store_row(t->dtype, hm_fault_at_offset(t, offset), stride, n, from);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        if (inside(t, offset + i * stride, slack))
            hm_store(t->dtype, hm_fault_at_offset(t, offset + i * stride), from[i]);
}

double hm_fault_load_bytes_as(const hm_tensor *t, int64_t byte, hm_dtype dtype) {
    span s = extent(t);
    int64_t size = (int64_t)hm_dtype_size(dtype), bytes = (s.last - s.first + 1) * (int64_t)hm_dtype_size(t->dtype);
    if (bytes < size) return 0;
    return hm_load(dtype, (char *)hm_fault_at_offset(t, s.first) + byte % (bytes - size + 1) / size * size);
}

/* ---- rounding ---- */

double hm_fault_toward_zero(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    if (isfinite(v) && isinf(r)) return copysign(hm_dtype_max(t), v);
    return fabs(r) > fabs(v) ? (r > 0 ? hm_next_down(t, r) : hm_next_up(t, r)) : r;
}

double hm_fault_ties_away(hm_dtype t, double v) {
    double low = hm_fault_toward_zero(t, v);
    if (!isfinite(v) || low == v) return v;
    double high = v > 0 ? hm_next_up(t, low) : hm_next_down(t, low);
    return isfinite(high) && fabs(v - low) == fabs(high - v) ? high : hm_round_to(t, v);
}

double hm_fault_saturated(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return isinf(r) ? copysign(hm_dtype_max(t), r) : r;
}

double hm_fault_flushed(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return fabs(r) < hm_dtype_min_normal(t) ? 0 : r;
}

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
