/* One row at a time: load, compute in binary64, store. Addresses that a fault gets wrong stay inside the tensor's own
 * memory (an index outside it is taken modulo its extent, a store there is dropped), so that a fault shows as a wrong
 * value or an untouched element and never as a crash of the judge. */
#include "norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../op/dtype.h"

enum { SLACK = 8 }; /* elements past an end that a fault may touch: well inside the guard zone */

typedef struct { int64_t first, last; } span; /* offsets of a tensor's elements, from its data pointer */

static int64_t width(const hm_tensor *t) {
    return t->shape[t->ndim - 1];
}

static int64_t row_count(const hm_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d < t->ndim - 1; d++)
        rows *= t->shape[d];
    return rows;
}

static span extent(const hm_tensor *t) {
    span s = {0, 0};
    for (int d = 0; d < t->ndim; d++)
        *(t->stride[d] < 0 ? &s.first : &s.last) += (t->shape[d] - 1) * t->stride[d];
    return s;
}

static bool inside(const hm_tensor *t, int64_t offset, int64_t slack) {
    span s = extent(t);
    return offset >= s.first - slack && offset <= s.last + slack;
}

static void *at(const hm_tensor *t, int64_t offset) {
    return (char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

/* Offset of row `row` of a tensor with t's shape and strides. */
static int64_t row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset;
}

/* The low 32 bits of an offset, as a kernel that computes it in int sees it. */
static int64_t in_int32(int64_t offset) {
    return (int32_t)(uint32_t)offset;
}

static double load(const hm_tensor *t, int64_t offset) {
    if (!inside(t, offset, SLACK)) {
        span s = extent(t);
        int64_t n = s.last - s.first + 1, k = (offset - s.first) % n;
        offset = s.first + (k < 0 ? k + n : k);
    }
    return hm_load(t->dtype, at(t, offset));
}

static void load_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, double *to) {
    if (n > 0 && inside(t, offset, 0) && inside(t, offset + (n - 1) * stride, 0)) {
        hm_load_row(t->dtype, at(t, offset), stride, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = load(t, offset + i * stride);
}

/* Elements that lie outside the tensor by more than slack are dropped. */
static void store_row(const hm_tensor *t, int64_t offset, int64_t stride, int64_t n, int64_t slack, const double *from) {
    if (n > 0 && inside(t, offset, slack) && inside(t, offset + (n - 1) * stride, slack)) {
        hm_store_row(t->dtype, at(t, offset), stride, n, from);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        if (inside(t, offset + i * stride, slack))
            hm_store(t->dtype, at(t, offset + i * stride), from[i]);
}

/* The 16 or 32 bits at the byte offset `byte` of a tensor's memory, read as dtype; wraps at the tensor's end. */
static double load_bytes_as(const hm_tensor *t, int64_t byte, hm_dtype dtype) {
    span s = extent(t);
    int64_t size = (int64_t)hm_dtype_size(dtype), bytes = (s.last - s.first + 1) * (int64_t)hm_dtype_size(t->dtype);
    if (bytes < size)
        return 0;
    return hm_load(dtype, (char *)at(t, s.first) + byte % (bytes - size + 1) / size * size);
}

/* ---- rounding ------------------------------------------------------------------------------------------------- */

static double toward_zero(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    if (isfinite(v) && isinf(r))
        return copysign(hm_dtype_max(t), v);
    return fabs(r) > fabs(v) ? (r > 0 ? hm_next_down(t, r) : hm_next_up(t, r)) : r;
}

static double ties_away(hm_dtype t, double v) {
    double low = toward_zero(t, v);
    if (!isfinite(v) || low == v)
        return v;
    double high = v > 0 ? hm_next_up(t, low) : hm_next_down(t, low);
    return isfinite(high) && fabs(v - low) == fabs(high - v) ? high : hm_round_to(t, v);
}

static double saturated(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return isinf(r) ? copysign(hm_dtype_max(t), r) : r;
}

static double flushed(hm_dtype t, double v) {
    double r = hm_round_to(t, v);
    return fabs(r) < hm_dtype_min_normal(t) ? 0 : r;
}

static double stored(const hm_norm_variation *v, hm_dtype t, double y) {
    switch (v->store) {
    case STORE_NEAREST: break;
    case STORE_TRUNCATES: return toward_zero(t, y);
    case STORE_TIES_AWAY: return ties_away(t, y);
    case STORE_UPWARD: {
        double r = hm_round_to(t, y);
        return r < y ? hm_next_up(t, r) : r;
    }
    case STORE_VIA_F32: return hm_round_to(HM_F32, y);
    case STORE_VIA_BF16: return hm_round_to(HM_BF16, y);
    case STORE_VIA_F16: return hm_round_to(HM_F16, y);
    case STORE_SATURATES: return saturated(t, y);
    case STORE_FLUSHES: return flushed(t, y);
    case STORE_NAN_BY_INTEGER: return isnan(y) ? -0.0 : y;
    case STORE_NAN_AS_ZERO: return isnan(y) ? 0 : y;
    case STORE_ZEROS: return 0;
    case STORE_NANS: return NAN;
    }
    return y;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static double special(const hm_norm_variation *v, hm_dtype t, double x) {
    if (v->specials == SPECIALS_NAN_IS_ZERO && isnan(x))
        return 0;
    if (v->specials == SPECIALS_INF_IS_MAX && isinf(x))
        return copysign(hm_dtype_max(t), x);
    if (v->specials == SPECIALS_SUBNORMAL_IS_ZERO && fabs(x) < hm_dtype_min_normal(t))
        return 0;
    return x;
}

static void read_x(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *x) {
    const hm_tensor *t = &c->x;
    int64_t offset = row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_X_DENSE)
        offset = row * n;
    if (v->map == MAP_X_UNIT || v->map == MAP_X_DENSE)
        stride = 1;
    if (v->map == MAP_X_TWO_DIMENSIONS && t->ndim > 1)
        offset = row * t->stride[t->ndim - 2];
    if (v->map == MAP_X_LIKE_OUT)
        offset = row_offset(&c->out, row);
    if (v->map == MAP_X_INT32)
        offset = in_int32(offset);
    load_row(t, offset, stride, n, x);
    for (int64_t i = 0; i < n; i++)
        x[i] = special(v, t->dtype, x[i]);
    if (v->narrow == NARROW_X_BF16)
        hm_round_row(HM_BF16, n, x);
}

static void read_residual(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, double *r) {
    const hm_tensor *t = &c->residual;
    int64_t offset = row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_RESIDUAL_DENSE) {
        offset = row * n;
        stride = 1;
    }
    if (v->map == MAP_RESIDUAL_LIKE_X) {
        offset = row_offset(&c->x, row);
        stride = c->x.stride[c->x.ndim - 1];
    }
    load_row(t, offset, stride, n, r);
    for (int64_t i = 0; i < n; i++) {
        r[i] = special(v, t->dtype, r[i]);
        if (v->sum == SUM_BYTES_AS_T && t->dtype != c->x.dtype)
            r[i] = load_bytes_as(t, (row * n + i) * (int64_t)hm_dtype_size(c->x.dtype), c->x.dtype);
        if (v->sum == SUM_RESIDUAL_ROUNDED)
            r[i] = hm_round_to(c->x.dtype, r[i]);
        if (v->sum == SUM_GARBAGE) /* what an allocator leaves: a small pattern that depends on the address alone */
            r[i] = (double)((row * n + i) * 2654435761u % 1024) / 4096;
    }
}

/* The weight's factor for each column, or nothing where there is no weight. */
static void read_weight(const hm_norm_variation *v, const hm_norm_call *c, int64_t n, double *w) {
    const hm_tensor *t = &c->weight;
    hm_dtype x = c->x.dtype;
    int64_t stride = v->weight == WEIGHT_UNIT_STRIDE ? 1 : t->stride[0];
    load_row(t, 0, stride, n, w);
    for (int64_t i = 0; i < n; i++) {
        if (v->weight == WEIGHT_BYTES_AS_T && t->dtype != x)
            w[i] = load_bytes_as(t, i * (int64_t)hm_dtype_size(x), x);
        if (v->weight == WEIGHT_NEXT)
            w[i] = load(t, (i + 1) % n * stride);
        if (v->weight == WEIGHT_4096)
            w[i] = load(t, i % 4096 * stride);
        if (v->weight == WEIGHT_ROUNDED_TO_T)
            w[i] = hm_round_to(x, w[i]);
        bool one_plus = c->weight_form == HM_WEIGHT_ONE_PLUS;
        if (v->weight == WEIGHT_ALWAYS_PLAIN)
            one_plus = false;
        if (v->weight == WEIGHT_ALWAYS_ONE_PLUS)
            one_plus = true;
        if (one_plus)
            w[i] += 1;
        if (one_plus && v->weight == WEIGHT_ONE_PLUS_IN_T)
            w[i] = hm_round_to(x, w[i]);
        if (v->weight == WEIGHT_SQUARED)
            w[i] *= w[i];
    }
}

/* ---- the mean square and its root ------------------------------------------------------------------------------ */

static double square(const hm_norm_variation *v, hm_dtype t, double x) {
    if (v->mean == MEAN_OF_MAGNITUDES)
        return fabs(x);
    if (v->narrow == NARROW_TF32 && isfinite(x) && x != 0) {
        double grid = ldexp(1, ilogb(x) - 10);
        x = rint(x / grid) * grid;
    }
    return v->narrow == NARROW_SQUARE ? hm_round_to(t, x * x) : x * x;
}

static float pairwise(const double *x, int64_t n) {
    if (n < 2)
        return n ? (float)x[0] * (float)x[0] : 0;
    return pairwise(x, n / 2) + pairwise(x + n / 2, n - n / 2);
}

/* A pairwise sum in f32 of the elements after `split` and of those before it. Legal in itself: a fault only where the split
 * depends on what it must not depend on. */
static double sum_f32(const double *x, int64_t n, int64_t split) {
    split %= n > 0 ? n : 1;
    return (double)(pairwise(x + split, n - split) + pairwise(x, split));
}

static _Thread_local unsigned calls; /* stands for the scheduler of ORDER_BY_RUN: every other call sees another order */

static double sum_of(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, const double *x, int64_t n, int64_t terms) {
    if (v->order) {
        const void *p = at(&c->x, row_offset(&c->x, row));
        int64_t split = v->order == ORDER_BY_ROWS      ? row_count(&c->x)
                        : v->order == ORDER_BY_ADDRESS ? (int64_t)((uintptr_t)p / hm_dtype_size(c->x.dtype) % 64)
                                                       : calls % 2 * (terms / 3);
        return sum_f32(x, terms, split);
    }
    double mean = 0, sum = 0;
    if (v->mean == MEAN_CENTRED) {
        for (int64_t i = 0; i < terms; i++)
            mean += x[i];
        mean /= (double)terms;
    }
    hm_dtype narrow = v->narrow == NARROW_SUM ? c->x.dtype : v->narrow == NARROW_SUM_F16 ? HM_F16 : HM_DTYPE_NONE;
    for (int64_t i = v->terms == TERMS_WITHOUT_FIRST; i < terms; i++) {
        double q = square(v, c->x.dtype, x[i] - mean);
        if (v->specials == SPECIALS_NAN_NOT_SUMMED && isnan(q))
            continue;
        sum += q;
        if (narrow)
            sum = hm_round_to(narrow, sum);
    }
    if (v->terms == TERMS_PAST_END) {
        int64_t stride = c->x.stride[c->x.ndim - 1], offset = row_offset(&c->x, row);
        for (int64_t i = n; i < (n + 7) / 8 * 8; i++) {
            double q = load(&c->x, offset + i * stride);
            sum += isfinite(q) ? q * q : 0;
        }
    }
    return sum;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t terms_of(const hm_norm_variation *v, int64_t n, int64_t size) {
    switch (v->terms) {
    case TERMS_HIDDEN: return n;
    case TERMS_WITHOUT_TAIL: return size - size % 8;
    case TERMS_WITHOUT_LAST: return size - 1;
    case TERMS_4096: return least(size, 4096);
    case TERMS_8192: return least(size, 8192);
    default: return size;
    }
}

static double divisor_of(const hm_norm_variation *v, int64_t n, int64_t size) {
    int64_t power = 1;
    switch (v->divide) {
    case DIVIDE_BY_V: break;
    case DIVIDE_BY_HIDDEN: return (double)n;
    case DIVIDE_BY_ONE: return 1;
    case DIVIDE_BY_V_MINUS_1: return (double)(size - 1);
    case DIVIDE_BY_V_PLUS_1: return (double)(size + 1);
    case DIVIDE_BY_MULTIPLE_OF_8: return (double)((size + 7) / 8 * 8);
    case DIVIDE_BY_POWER_OF_2:
        while (power < size)
            power *= 2;
        return (double)power;
    }
    return (double)size;
}

static double eps_of(const hm_norm_variation *v, const hm_norm_call *c) {
    double eps = hm_round_to(HM_F32, c->eps);
    switch (v->eps) {
    case EPS_1E_5: return (double)1e-5f;
    case EPS_1E_6: return (double)1e-6f;
    case EPS_1E_12: return (double)1e-12f;
    case EPS_OF_T: return ldexp(1, 1 - hm_dtype_precision(c->x.dtype));
    case EPS_DROPPED: return 0;
    case EPS_IN_T: return hm_round_to(c->x.dtype, eps);
    case EPS_SQUARED: return eps * eps;
    case EPS_NOT_NARROWED: return c->eps;
    case EPS_FROM_VARIANCE_SIZE: return (double)c->variance_size;
    default: return eps;
    }
}

/* Lomont's bit trick on f32, with Newton steps. */
static double rsqrt_guess(double d, int steps) {
    float f = (float)d;
    uint32_t bits;
    if (!(f > 0) || isinf(f))
        return 1 / sqrt(d);
    memcpy(&bits, &f, sizeof bits);
    bits = 0x5f375a86u - (bits >> 1);
    float y;
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < steps; i++)
        y = y * (1.5f - 0.5f * f * y * y);
    return (double)y;
}

static double rsqrt_of(const hm_norm_variation *v, double d) {
    switch (v->rsqrt) {
    case RSQRT_EXACT: break;
    case RSQRT_GUESS: return rsqrt_guess(d, 0);
    case RSQRT_ONE_STEP: return rsqrt_guess(d, 1);
    case RSQRT_TWO_STEPS: return rsqrt_guess(d, 2);
    case RSQRT_12_BITS: {
        double r = 1 / sqrt(d);
        return isfinite(r) && r > 0 ? floor(r / ldexp(1, ilogb(r) - 11)) * ldexp(1, ilogb(r) - 11) : r;
    }
    case RSQRT_RECIPROCAL: return 1 / d;
    }
    return 1 / sqrt(d);
}

static double scale_of(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, const double *x, int64_t n) {
    hm_dtype t = c->x.dtype;
    int64_t size = least(c->variance_size ? c->variance_size : n, n);
    double eps = eps_of(v, c), divisor = divisor_of(v, n, size);
    double sum = sum_of(v, c, row, x, n, terms_of(v, n, size));
    if (v->eps == EPS_BEFORE_MEAN)
        return 1 / sqrt((sum + eps) / divisor);
    double ms = sum / divisor;
    if (v->narrow == NARROW_MEAN)
        ms = hm_round_to(t, ms);
    double rs = v->eps == EPS_OUTSIDE_ROOT    ? 1 / (sqrt(ms) + eps)
                : v->eps == EPS_AFTER_RSQRT   ? 1 / sqrt(ms) + eps
                : v->eps == EPS_AS_FLOOR      ? 1 / sqrt(fmax(ms, eps))
                : v->mean == MEAN_OF_MAGNITUDES ? 1 / (ms + eps)
                                              : rsqrt_of(v, ms + eps);
    if (v->narrow == NARROW_RS)
        rs = hm_round_to(t, rs);
    if (v->specials == SPECIALS_ZERO_ROW_ZERO && isinf(rs))
        rs = 0;
    if (isinf(ms) && v->specials == SPECIALS_INF_ROW_NAN)
        rs = NAN;
    return rs;
}

/* ---- one row --------------------------------------------------------------------------------------------------- */

typedef struct {
    double *x, *r, *sum, *variance, *norm, *weight, *residual, *y; /* [hidden] each */
    double *scale;                                                  /* [rows]: rs of the rows so far */
    double *block;
} scratch;

static double product(const hm_norm_variation *v, const hm_norm_call *c, double x, double rs, const double *w) {
    hm_dtype t = c->x.dtype;
    bool inside = c->round == HM_ROUND_NORM_FIRST;
    if (v->round == ROUND_NEVER_INSIDE)
        inside = false;
    if (v->round == ROUND_ALWAYS_INSIDE)
        inside = true;
    if (!w)
        return x * rs;
    if (v->round == ROUND_WEIGHT_FIRST)
        return hm_round_to(t, x * *w) * rs;
    if (v->round == ROUND_IN_WEIGHT_DTYPE && c->weight.dtype != t)
        return hm_round_to(c->weight.dtype, hm_round_to(c->weight.dtype, x * rs) * *w);
    if (v->round == ROUND_INSIDE_TRUNCATES && inside)
        return toward_zero(t, x * rs) * *w;
    return inside ? hm_round_to(t, x * rs) * *w : x * rs * *w;
}

/* What the norm reads, and what goes to residual_out, for fused_add. */
static void add(const hm_norm_variation *v, const hm_norm_call *c, int64_t n, const scratch *s) {
    hm_dtype t = c->x.dtype, r = c->residual_out.dtype;
    bool rounded = c->residual_read == HM_READ_ROUNDED || r == HM_F32;
    if (v->read == READ_ALWAYS_ROUNDED)
        rounded = true;
    if (v->read == READ_ALWAYS_UNROUNDED && r != HM_F32)
        rounded = false;
    for (int64_t i = 0; i < n; i++) {
        double a = v->sum == SUM_RESIDUAL_TWICE ? s->x[i] + 2 * s->r[i] : v->sum == SUM_DIFFERENCE ? s->x[i] - s->r[i] : s->x[i] + s->r[i];
        double z = hm_round_to(r, a);
        s->sum[i] = a;
        s->norm[i] = s->variance[i] = rounded ? z : a;
        if (v->read == READ_VARIANCE_ROUNDED_ONLY && !rounded)
            s->variance[i] = z;
        if (v->read == READ_VARIANCE_UNROUNDED_ONLY && r != HM_F32)
            s->variance[i] = a;
        if (v->read == READ_X_ONLY)
            s->norm[i] = s->variance[i] = s->x[i];
        if (v->read == READ_RESIDUAL_ONLY)
            s->norm[i] = s->variance[i] = s->r[i];
        if (v->read == READ_VARIANCE_OF_X)
            s->variance[i] = s->x[i];
        if (v->read == READ_VIA_F16)
            s->norm[i] = s->variance[i] = hm_round_to(t, z);
    }
}

static double residual_value(const hm_norm_variation *v, const hm_norm_call *c, const scratch *s, int64_t i, double y) {
    hm_dtype t = c->x.dtype, r = c->residual_out.dtype;
    switch (v->residual) {
    case RESIDUAL_NORMALISED: return y;
    case RESIDUAL_X: return s->x[i];
    case RESIDUAL_UNCHANGED: return s->r[i];
    case RESIDUAL_TRUNCATES: return toward_zero(r, s->sum[i]);
    case RESIDUAL_TIES_AWAY: return ties_away(r, s->sum[i]);
    case RESIDUAL_ROUNDED_IN_F32: return hm_round_to(t, s->sum[i]);
    case RESIDUAL_SATURATES: return saturated(r, s->sum[i]);
    case RESIDUAL_FLUSHES: return flushed(r, s->sum[i]);
    case RESIDUAL_OTHER_HALF: return hm_round_to(t == HM_F16 ? HM_BF16 : HM_F16, s->sum[i]);
    default: return s->sum[i];
    }
}

static void write_residual(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t n, const scratch *s) {
    const hm_tensor *t = v->residual == RESIDUAL_IN_PLACE ? &c->residual : &c->residual_out;
    int64_t offset = row_offset(t, row), stride = t->stride[t->ndim - 1];
    if (v->map == MAP_RESIDUAL_OUT_DENSE) {
        offset = row * n;
        stride = 1;
    }
    if (v->map == MAP_RESIDUAL_OUT_LIKE_OUT) {
        offset = row_offset(&c->out, row);
        stride = c->out.stride[c->out.ndim - 1];
    }
    int64_t end = v->residual == RESIDUAL_NOT_WRITTEN ? 0 : v->residual == RESIDUAL_4096 ? least(n, 4096) : v->residual == RESIDUAL_WITHOUT_TAIL ? n - n % 8 : n;
    for (int64_t i = 0; i < end; i++)
        s->residual[i] = v->effect == EFFECT_OUTPUTS_SWAPPED ? s->y[i] : residual_value(v, c, s, i, s->y[i]);
    store_row(t, offset, stride, end, 0, s->residual);
    if (v->residual == RESIDUAL_T && t->dtype == HM_F32 && c->x.dtype != HM_F32) { /* half of each row: T's bytes */
        hm_tensor narrow = *t;
        narrow.dtype = c->x.dtype;
        for (int64_t i = 0; i < n && stride == 1; i++)
            hm_store(narrow.dtype, (char *)at(t, offset) + i * (int64_t)hm_dtype_size(narrow.dtype), s->sum[i]);
    }
}

/* y has 8 elements of 0 before it and after it. */
static void write_out(const hm_norm_variation *v, const hm_norm_call *c, const hm_tensor *t, int64_t row, int64_t n, const double *y) {
    int64_t offset = row_offset(t, row), stride = t->stride[t->ndim - 1], start = 0, end = n;
    if (v->map == MAP_OUT_DENSE)
        offset = row * n;
    if (v->map == MAP_OUT_DENSE || v->map == MAP_OUT_UNIT)
        stride = 1;
    if (v->map == MAP_OUT_LIKE_X)
        offset = row_offset(&c->x, row);
    if (v->map == MAP_OUT_INT32)
        offset = in_int32(offset);
    switch (v->columns) {
    case COLUMNS_ALL: break;
    case COLUMNS_NONE: end = 0; break;
    case COLUMNS_4096: end = least(n, 4096); break;
    case COLUMNS_WITHOUT_TAIL: end = n - n % 8; break;
    case COLUMNS_WITHOUT_LAST: end = n - 1; break;
    case COLUMNS_V: end = c->variance_size ? least(c->variance_size, n) : n; break;
    case COLUMNS_ONE_PAST: end = n + 1; break;
    case COLUMNS_ONE_BEFORE: start = -1; break;
    case COLUMNS_MULTIPLE_OF_8: end = (n + 7) / 8 * 8; break;
    }
    store_row(t, offset + start * stride, stride, end - start, SLACK, y + start);
}

static void overwrite(const hm_tensor *t, int64_t row, int64_t n, const double *y) {
    hm_store_row(t->dtype, at(t, row_offset(t, row)), t->stride[t->ndim - 1], n, y);
}

static void one_row(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, int64_t rows, int64_t n, const scratch *s) {
    int64_t from = v->rows == ROWS_SHIFTED ? (row + 1) % rows : v->rows == ROWS_SWAPPED && (row ^ 1) < rows ? row ^ 1 : row;
    hm_dtype t = c->x.dtype;
    read_x(v, c, from, n, s->x);
    if (c->fused) {
        read_residual(v, c, from, n, s->r);
        add(v, c, n, s);
    } else {
        memcpy(s->norm, s->x, (size_t)n * sizeof *s->x);
        memcpy(s->variance, s->x, (size_t)n * sizeof *s->x);
    }
    double rs = s->scale[row] = scale_of(v, c, from, s->variance, n);
    if (v->rs == RS_FIRST_ROW)
        rs = s->scale[0];
    if (v->rs == RS_PREVIOUS_ROW && row > 0)
        rs = s->scale[row - 1];
    if (v->rs == RS_ROW_MINUS_64 && row >= 64)
        rs = s->scale[row - 64];
    bool weighted = c->weight.dtype != HM_DTYPE_NONE && v->weight != WEIGHT_IGNORED;
    bool aliased = c->out.data == c->x.data;
    for (int64_t i = 0; i < n; i++) {
        if (v->rs == RS_HALVES_IN_PLACE && aliased && i == (n + 1) / 2) { /* the second block reads what the first wrote */
            memcpy(s->variance, s->y, (size_t)i * sizeof *s->y);
            hm_round_row(t, i, s->variance);
            rs = scale_of(v, c, from, s->variance, n);
        }
        double y = product(v, c, s->norm[i], rs, weighted ? &s->weight[i] : NULL);
        if (v->specials == SPECIALS_INF_ROW_ZERO && rs == 0 && isnan(y))
            y = 0;
        s->y[i] = stored(v, t, y);
    }
    hm_round_row(t, n, s->y);
    if (c->fused)
        write_residual(v, c, row, n, s);
    if (v->effect == EFFECT_X_OVERWRITTEN || v->effect == EFFECT_OUT_IN_X)
        overwrite(&c->x, row, n, s->y);
    if (v->effect == EFFECT_X_HOLDS_SUM)
        overwrite(&c->x, row, n, s->sum);
    if (v->effect == EFFECT_OUT_OVER_RESIDUAL && c->residual.data != c->residual_out.data)
        overwrite(&c->residual, row, n, s->y);
    if (v->effect != EFFECT_OUT_IN_X)
        write_out(v, c, &c->out, row, n, v->effect == EFFECT_OUTPUTS_SWAPPED ? s->sum : s->y);
}

int hm_norm_arg(const char *op, const char *name) {
    const hm_op_info *info = hm_op_named(op);
    int i = 0;
    while (strcmp(info->args[i].name, name))
        i++;
    return i;
}

/* ---- the call --------------------------------------------------------------------------------------------------- */

/* Whether the missing check of v is the one that refused the call. */
static bool overlooked(const hm_norm_variation *v, const hm_norm_call *c, hm_status status) {
    int64_t n = c->x.ndim > 0 && c->x.ndim <= 4 ? width(&c->x) : 0;
    bool param = status == HM_BAD_PARAM, dtype = status == HM_BAD_DTYPE;
    switch (v->checks) {
    case CHECKS_NOT_MODES: return param && c->round == HM_ROUND_NORM_FIRST && c->weight_form == HM_WEIGHT_ONE_PLUS;
    case CHECKS_NOT_EPS_NAN: return param && isnan(c->eps);
    case CHECKS_NOT_EPS_NEGATIVE: return param && c->eps < 0;
    case CHECKS_NOT_EPS_INFINITE: return param && isinf((float)c->eps);
    case CHECKS_NOT_VARIANCE_SIZE: return param && (c->variance_size < 0 || c->variance_size > n);
    case CHECKS_NOT_WEIGHT_DTYPE: return dtype && c->weight.dtype != HM_DTYPE_NONE && c->weight.dtype != c->x.dtype;
    case CHECKS_NOT_OUT_DTYPE: return dtype && c->out.dtype != c->x.dtype;
    case CHECKS_NOT_SHAPE: return status == HM_BAD_SHAPE;
    case CHECKS_NOT_ALIAS: return status == HM_BAD_ALIAS;
    case CHECKS_NOT_OUT_STRIDE: return status == HM_BAD_STRIDE;
    case CHECKS_NOT_PLACE: return status == HM_BAD_PLACE;
    default: return false;
    }
}

/* A tensor that can be walked without harm, whatever else is wrong with the call: small, and its memory is there. */
static bool walkable(const hm_tensor *t) {
    bool ok = t->data && (t->dtype == HM_F32 || t->dtype == HM_F16 || t->dtype == HM_BF16) && t->ndim >= 1 && t->ndim <= 4;
    int64_t elements = 1, reach = 0;
    for (int d = 0; ok && d < t->ndim; d++) {
        ok = t->shape[d] > 0 && !__builtin_mul_overflow(elements, t->shape[d], &elements) && elements <= 1 << 24 &&
             !__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach) && reach < INT64_C(1) << 40 && reach > -(INT64_C(1) << 40);
    }
    return ok;
}

static bool all_walkable(const hm_norm_call *c) {
    return walkable(&c->out) && walkable(&c->x) && (c->weight.dtype == HM_DTYPE_NONE || walkable(&c->weight)) &&
           (!c->fused || (walkable(&c->residual) && walkable(&c->residual_out)));
}

static int64_t rows_of(const hm_norm_variation *v, int64_t rows) {
    switch (v->rows) {
    case ROWS_WITHOUT_LAST: return rows - 1;
    case ROWS_FIRST: return least(rows, 1);
    case ROWS_MULTIPLE_OF_4: return rows - rows % 4;
    case ROWS_65535: return least(rows, 65535);
    default: return rows;
    }
}

static bool carve(scratch *s, int64_t rows, int64_t n) {
    double **part[] = {&s->x, &s->r, &s->sum, &s->variance, &s->norm, &s->weight, &s->residual, &s->y};
    size_t parts = sizeof part / sizeof *part, each = (size_t)n + 16;
    s->block = calloc(parts * each + (size_t)rows, sizeof *s->block);
    if (!s->block)
        return false;
    for (size_t i = 0; i < parts; i++)
        *part[i] = s->block + i * each + 8;
    s->scale = s->block + parts * each;
    return true;
}

static void leave_dtypes(const hm_norm_variation *v, const hm_norm_call *c, hm_dtype *written) {
    bool half = c->x.dtype != HM_F32;
    if (half && (v->effect == EFFECT_OUT_F32 || (v->effect == EFFECT_OUT_PROMOTED && c->weight.dtype == HM_F32)))
        written[c->out_arg] = HM_F32;
    if (c->fused && v->residual == RESIDUAL_F32 && c->residual_out.dtype != HM_F32)
        written[c->residual_out_arg] = HM_F32;
    if (c->fused && v->residual == RESIDUAL_T && c->residual_out.dtype != c->x.dtype)
        written[c->residual_out_arg] = c->x.dtype;
}

hm_status hm_norm_fault_run(const hm_norm_variation *v, const hm_norm_call *c, hm_status (*check)(const hm_norm_call *),
                            hm_dtype written[HM_MAX_ARGS]) {
    hm_status status = check(c);
    if (status != HM_OK && v->checks == CHECKS_LATE && all_walkable(c))
        hm_store(c->out.dtype, c->out.data, 1);
    if (status != HM_OK && v->checks == CHECKS_SILENT)
        return HM_OK;
    if (status != HM_OK && !(overlooked(v, c, status) && all_walkable(c)))
        return status;

    calls++;
    int64_t n = width(&c->x), rows = row_count(&c->x);
    if (n == 0 || rows == 0) {
        if (v->empty == EMPTY_WRITES && c->out.data)
            hm_store(c->out.dtype, c->out.data, 0);
        return v->empty == EMPTY_REFUSED ? HM_BAD_SHAPE : HM_OK;
    }
    scratch s;
    if (!carve(&s, rows, n))
        return HM_NO_MEMORY;
    bool weighted = c->weight.dtype != HM_DTYPE_NONE;
    if (weighted)
        read_weight(v, c, n, s.weight);
    int64_t end = rows_of(v, rows);
    for (int64_t row = 0; row < end; row++)
        one_row(v, c, row, rows, n, &s);
    if (weighted && v->weight == WEIGHT_INCREMENTED && c->weight_form == HM_WEIGHT_ONE_PLUS)
        hm_store_row(c->weight.dtype, c->weight.data, c->weight.stride[0], n, s.weight);
    leave_dtypes(v, c, written);
    free(s.block);
    return HM_OK;
}
