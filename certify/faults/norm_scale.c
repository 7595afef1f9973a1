/* rs of a row: the mean of squares, eps and the root. */
#include <math.h>
#include <string.h>

#include "../../op/dtype.h"
#include "norm_parts.h"

static double square(const hm_norm_variation *v, hm_dtype t, double x) {
    if (v->mean == MEAN_OF_MAGNITUDES) return fabs(x);
    if (v->narrow == NARROW_TF32 && isfinite(x) && x != 0) {
        double grid = ldexp(1, ilogb(x) - 10);
        x = rint(x / grid) * grid;
    }
    return v->narrow == NARROW_SQUARE ? hm_round_to(t, x * x) : x * x;
}

static float pairwise(const double *x, int64_t n) {
    if (n < 2) return n ? (float)x[0] * (float)x[0] : 0;
    return pairwise(x, n / 2) + pairwise(x + n / 2, n - n / 2);
}

/* A pairwise sum in f32 of the elements after `split` and of those before it. Legal in itself: a fault only where the
 * split depends on what it must not depend on. */
static double sum_f32(const double *x, int64_t n, int64_t split) {
    split %= n > 0 ? n : 1;
    return (double)(pairwise(x + split, n - split) + pairwise(x, split));
}

static _Thread_local unsigned calls; /* stands for the scheduler of ORDER_BY_RUN: every other call sees another order */

void hm_fault_next_call(void) { calls++; }

static double sum_of(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, const double *x, int64_t n,
                     int64_t terms) {
    if (v->order) {
        const void *p = hm_fault_at_offset(&c->x, hm_fault_row_offset(&c->x, row));
        int64_t split = v->order == ORDER_BY_ROWS      ? hm_fault_rows(&c->x)
                        : v->order == ORDER_BY_ADDRESS ? (int64_t)((uintptr_t)p / hm_dtype_size(c->x.dtype) % 64)
                                                       : calls % 2 * (terms / 3);
        return sum_f32(x, terms, split);
    }
    double mean = 0, sum = 0;
    if (v->mean == MEAN_CENTRED) {
        for (int64_t i = 0; i < terms; i++) mean += x[i];
        mean /= (double)terms;
    }
    hm_dtype narrow = v->narrow == NARROW_SUM ? c->x.dtype : v->narrow == NARROW_SUM_F16 ? HM_F16 : HM_DTYPE_NONE;
    for (int64_t i = v->terms == TERMS_WITHOUT_FIRST; i < terms; i++) {
        double q = square(v, c->x.dtype, x[i] - mean);
        if (v->specials == SPECIALS_NAN_NOT_SUMMED && isnan(q)) continue;
        sum += q;
        if (narrow) sum = hm_round_to(narrow, sum);
    }
    if (v->terms == TERMS_PAST_END) {
        int64_t stride = c->x.stride[c->x.ndim - 1], offset = hm_fault_row_offset(&c->x, row);
        for (int64_t i = n; i < (n + 7) / 8 * 8; i++) {
            double q = hm_fault_load(&c->x, offset + i * stride);
            sum += isfinite(q) ? q * q : 0;
        }
    }
    return sum;
}

static int64_t terms_of(const hm_norm_variation *v, int64_t n, int64_t size) {
    switch (v->terms) {
        case TERMS_HIDDEN:
            return n;
        case TERMS_WITHOUT_TAIL:
            return size - size % 8;
        case TERMS_WITHOUT_LAST:
            return size - 1;
        case TERMS_4096:
            return hm_fault_least(size, 4096);
        case TERMS_8192:
            return hm_fault_least(size, 8192);
        default:
            return size;
    }
}

static double divisor_of(const hm_norm_variation *v, int64_t n, int64_t size) {
    int64_t power = 1;
    switch (v->divide) {
        case DIVIDE_BY_V:
            break;
        case DIVIDE_BY_HIDDEN:
            return (double)n;
        case DIVIDE_BY_ONE:
            return 1;
        case DIVIDE_BY_V_MINUS_1:
            return (double)(size - 1);
        case DIVIDE_BY_V_PLUS_1:
            return (double)(size + 1);
        case DIVIDE_BY_MULTIPLE_OF_8:
            return (double)((size + 7) / 8 * 8);
        case DIVIDE_BY_POWER_OF_2:
            while (power < size) power *= 2;
            return (double)power;
    }
    return (double)size;
}

static double eps_of(const hm_norm_variation *v, const hm_norm_call *c) {
    double eps = hm_round_to(HM_F32, c->eps);
    switch (v->eps) {
        case EPS_1E_5:
            return (double)1e-5f;
        case EPS_1E_6:
            return (double)1e-6f;
        case EPS_1E_12:
            return (double)1e-12f;
        case EPS_OF_T:
            return ldexp(1, 1 - hm_dtype_precision(c->x.dtype));
        case EPS_DROPPED:
            return 0;
        case EPS_IN_T:
            return hm_round_to(c->x.dtype, eps);
        case EPS_SQUARED:
            return eps * eps;
        case EPS_NOT_NARROWED:
            return c->eps;
        case EPS_FROM_VARIANCE_SIZE:
            return (double)c->variance_size;
        default:
            return eps;
    }
}

/* Lomont's bit trick on f32, with Newton steps. */
static double rsqrt_guess(double d, int steps) {
    float f = (float)d;
    uint32_t bits;
    if (!(f > 0) || isinf(f)) return 1 / sqrt(d);
    memcpy(&bits, &f, sizeof bits);
    bits = 0x5f375a86u - (bits >> 1);
    float y;
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < steps; i++) y = y * (1.5f - 0.5f * f * y * y);
    return (double)y;
}

static double rsqrt_of(const hm_norm_variation *v, double d) {
    switch (v->rsqrt) {
        case RSQRT_EXACT:
            break;
        case RSQRT_GUESS:
            return rsqrt_guess(d, 0);
        case RSQRT_ONE_STEP:
            return rsqrt_guess(d, 1);
        case RSQRT_TWO_STEPS:
            return rsqrt_guess(d, 2);
        case RSQRT_12_BITS: {
            double r = 1 / sqrt(d);
            return isfinite(r) && r > 0 ? floor(r / ldexp(1, ilogb(r) - 11)) * ldexp(1, ilogb(r) - 11) : r;
        }
        case RSQRT_RECIPROCAL:
            return 1 / d;
    }
    return 1 / sqrt(d);
}

double hm_fault_scale(const hm_norm_variation *v, const hm_norm_call *c, int64_t row, const double *x, int64_t n) {
    hm_dtype t = c->x.dtype;
    int64_t size = hm_fault_least(c->variance_size ? c->variance_size : n, n);
    double eps = eps_of(v, c), divisor = divisor_of(v, n, size);
    double sum = sum_of(v, c, row, x, n, terms_of(v, n, size));
    if (v->eps == EPS_BEFORE_MEAN) return 1 / sqrt((sum + eps) / divisor);
    double ms = sum / divisor;
    if (v->narrow == NARROW_MEAN) ms = hm_round_to(t, ms);
    double rs = v->eps == EPS_OUTSIDE_ROOT      ? 1 / (sqrt(ms) + eps)
                : v->eps == EPS_AFTER_RSQRT     ? 1 / sqrt(ms) + eps
                : v->eps == EPS_AS_FLOOR        ? 1 / sqrt(fmax(ms, eps))
                : v->mean == MEAN_OF_MAGNITUDES ? 1 / (ms + eps)
                                                : rsqrt_of(v, ms + eps);
    if (v->narrow == NARROW_RS) rs = hm_round_to(t, rs);
    if (v->specials == SPECIALS_ZERO_ROW_ZERO && isinf(rs)) rs = 0;
    if (isinf(ms) && v->specials == SPECIALS_INF_ROW_NAN) rs = NAN;
    return rs;
}
