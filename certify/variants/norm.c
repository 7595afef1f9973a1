/* Compiled with -ffp-contract=off: what is fused is written fmaf. */
#include "norm.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "../../op/dtype.h"

typedef struct {
    double *wide; /* [hidden]: what is loaded or stored */
    float *x, *r, *norm, *weight, *y, *part;
    double *block;
} scratch;

static float f(const hm_norm_variant *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? 0 : a; }

static float add_square(const hm_norm_variant *v, float sum, float x) {
    return v->fma ? f(v, fmaf(x, x, sum)) : f(v, sum + f(v, x * x));
}

/* Each term passes through ceil(log2 n) rounded additions. Overwrites part. */
static float tree(const hm_norm_variant *v, float *part, int64_t n) {
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t i = 0; i + step < n; i += 2 * step) part[i] = f(v, part[i] + part[i + step]);
    return n > 0 ? part[0] : 0;
}

static float in_sequence(const hm_norm_variant *v, const float *x, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum = add_square(v, sum, x[i]);
    return sum;
}

static float in_lanes(const hm_norm_variant *v, const float *x, int64_t n) {
    float lane[1024] = {0};
    for (int64_t i = 0; i < n; i++) lane[i % v->width] = add_square(v, lane[i % v->width], x[i]);
    return tree(v, lane, v->width);
}

static float sum_of_squares(const hm_norm_variant *v, const float *x, int64_t n, float *part) {
    float sum = 0, carry = 0;
    double wide = 0;
    int64_t parts = 0;
    switch (v->sum) {
        case SUM_PAIRWISE:
            for (int64_t i = 0; i < n; i += 2, parts++)
                part[parts] = i + 1 < n ? add_square(v, f(v, x[i] * x[i]), x[i + 1]) : f(v, x[i] * x[i]);
            return tree(v, part, parts);
        case SUM_SEQUENTIAL:
            return in_sequence(v, x, n);
        case SUM_REVERSED:
            for (int64_t i = n - 1; i >= 0; i--) sum = add_square(v, sum, x[i]);
            return sum;
        case SUM_BLOCKS:
            for (int64_t i = 0; i < n; i += v->width, parts++)
                part[parts] = in_sequence(v, x + i, n - i < v->width ? n - i : v->width);
            return tree(v, part, parts);
        case SUM_LANES:
            for (int64_t i = 0, chunk = v->chunk ? v->chunk : n; i < n; i += chunk)
                sum = f(v, sum + in_lanes(v, x + i, n - i < chunk ? n - i : chunk));
            return sum;
        case SUM_COMPENSATED:
            for (int64_t i = 0; i < n; i++) {
                float term = x[i] * x[i] - carry, next = sum + term;
                carry =
                    isfinite(next) ? (next - sum) - term : 0; /* past the range there is nothing left to compensate */
                sum = next;
            }
            return sum;
        case SUM_F64:
            for (int64_t i = 0; i < n; i++) wide += (double)x[i] * (double)x[i];
            return (float)wide;
    }
    return sum;
}

static float reciprocal_root(const hm_norm_variant *v, float m) {
    double r = 1 / sqrt((double)m);
    if (v->root == ROOT_RECIPROCAL || !isfinite(r) || r == 0) return f(v, 1 / sqrtf(m));
    if (v->root == ROOT_ROUNDED) return (float)r;
    /* 2^-50 is more than what r itself may be off */
    double end = v->root == ROOT_HIGH ? r * (1 + 0x1p-22 - 0x1p-50) : r * (1 - 0x1p-22 + 0x1p-50);
    float y = (float)end;
    if (v->root == ROOT_HIGH) return (double)y > end ? nextafterf(y, 0) : y;
    return (double)y < end ? nextafterf(y, INFINITY) : y;
}

static float one_plus(const hm_norm_variant_call *c, float w) {
    return c->weight_form == HM_WEIGHT_ONE_PLUS ? 1 + w : w;
}

static float element(const hm_norm_variant *v, const hm_norm_variant_call *c, float x, float m, float rs,
                     const float *weight) {
    float scaled = v->product == PRODUCT_DIVIDES ? f(v, x / f(v, sqrtf(m))) : f(v, x * rs);
    if (!weight) return scaled;
    float w = f(v, one_plus(c, *weight));
    if (c->round == HM_ROUND_NORM_FIRST) return f(v, (float)hm_round_to(c->x.dtype, (double)scaled) * w);
    if (v->product == PRODUCT_WEIGHT_TIMES_SCALE) return f(v, x * f(v, rs * w));
    if (v->product == PRODUCT_WEIGHT_FIRST) return f(v, f(v, x * w) * rs);
    /* not fmaf(scaled, weight, scaled) for 1 + weight: inf * w + inf is NaN where inf * (1 + w) is not */
    return f(v, scaled * w);
}

static int64_t row_offset(const hm_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        offset += row % t->shape[d] * t->stride[d];
        row /= t->shape[d];
    }
    return offset * (int64_t)hm_dtype_size(t->dtype);
}

static void load_wide(const hm_tensor *t, int64_t row, int64_t n, double *to) {
    hm_load_row(t->dtype, (char *)t->data + row_offset(t, row), t->stride[t->ndim - 1], n, to);
}

static void store_wide(const hm_tensor *t, int64_t row, int64_t n, const double *from) {
    hm_store_row(t->dtype, (char *)t->data + row_offset(t, row), t->stride[t->ndim - 1], n, from);
}

static void load(const hm_norm_variant *v, const hm_tensor *t, int64_t row, int64_t n, scratch *s, float *to) {
    load_wide(t, row, n, s->wide);
    for (int64_t i = 0; i < n; i++) to[i] = f(v, (float)s->wide[i]);
}

static void store(const hm_tensor *t, int64_t row, int64_t n, scratch *s, const float *from) {
    for (int64_t i = 0; i < n; i++) s->wide[i] = (double)from[i];
    store_wide(t, row, n, s->wide);
}

static bool reads_rounded(const hm_norm_variant_call *c) {
    return c->residual_read == HM_READ_ROUNDED || c->residual_out.dtype == HM_F32;
}

static void one_row(const hm_norm_variant *v, const hm_norm_variant_call *c, int64_t row, int64_t n, scratch *s) {
    float *norm = s->x;
    load(v, &c->x, row, n, s, s->x);
    if (c->residual.dtype) {
        load(v, &c->residual, row, n, s, s->r);
        for (int64_t i = 0; i < n; i++) s->norm[i] = f(v, s->x[i] + s->r[i]);
        store(&c->residual_out, row, n, s, s->norm);
        norm = s->norm;
        for (int64_t i = 0; i < n && reads_rounded(c); i++)
            norm[i] = (float)hm_round_to(c->residual_out.dtype, (double)norm[i]);
    }
    int64_t size = c->variance_size ? c->variance_size : n;
    float sum = sum_of_squares(v, norm, size, s->part), eps = f(v, (float)c->eps), inverse = 1 / (float)size;
    float mean = v->mean_multiplies ? sum * inverse : sum / (float)size;
    float m = v->fma && v->mean_multiplies ? f(v, fmaf(sum, inverse, eps)) : f(v, f(v, mean) + eps);
    float rs = reciprocal_root(v, m);
    for (int64_t i = 0; i < n; i++) s->y[i] = element(v, c, norm[i], m, rs, c->weight.dtype ? &s->weight[i] : NULL);
    store(&c->out, row, n, s, s->y);
}

/* The same in binary64: class wide. */
static void one_row_wide(const hm_norm_variant_call *c, int64_t row, int64_t n, double *x, double *r, const double *w) {
    load_wide(&c->x, row, n, x);
    if (c->residual.dtype) {
        load_wide(&c->residual, row, n, r);
        for (int64_t i = 0; i < n; i++) x[i] += r[i];
        store_wide(&c->residual_out, row, n, x);
        if (reads_rounded(c)) hm_round_row(c->residual_out.dtype, n, x);
    }
    int64_t size = c->variance_size ? c->variance_size : n;
    double sum = 0;
    for (int64_t i = size - 1; i >= 0; i--) sum = fma(x[i], x[i], sum);
    double root = sqrt(sum / (double)size + (double)(float)c->eps);
    for (int64_t i = 0; i < n; i++) {
        double y = x[i] / root;
        if (c->round == HM_ROUND_NORM_FIRST) y = hm_round_to(c->x.dtype, y);
        x[i] = c->weight.dtype ? y * w[i] : y;
    }
    store_wide(&c->out, row, n, x);
}

hm_status hm_norm_variant_run(const hm_norm_variant *v, const hm_norm_variant_call *c) {
    int64_t n = c->x.shape[c->x.ndim - 1], rows = 1;
    for (int d = 0; d < c->x.ndim - 1; d++) rows *= c->x.shape[d];
    if (n == 0 || rows == 0) return HM_OK;
    scratch s;
    s.block = calloc((size_t)n * 6, sizeof *s.block);
    if (!s.block) return HM_NO_MEMORY;
    s.wide = s.block;
    float **part[] = {&s.x, &s.r, &s.norm, &s.weight, &s.y, &s.part};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) *part[i] = (float *)(s.block + n) + (int64_t)i * n;
    double *x = s.block + n, *r = x + n, *w = r + n;
    if (c->weight.dtype && v->wide) {
        hm_load_row(c->weight.dtype, c->weight.data, c->weight.stride[0], n, w);
        for (int64_t i = 0; i < n && c->weight_form == HM_WEIGHT_ONE_PLUS; i++) w[i] += 1;
    } else if (c->weight.dtype) {
        load(v, &c->weight, 0, n, &s, s.weight);
    }
    for (int64_t row = 0; row < rows; row++) {
        if (v->wide) one_row_wide(c, row, n, x, r, w);
        else one_row(v, c, row, n, &s);
    }
    free(s.block);
    return HM_OK;
}
