/* Legal ways to compute linear: orders of the sum, wider arithmetic, an emulated tensor core. */
#include <float.h>
#include <hallmark/linear.h>
#include <math.h>
#include <stdlib.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/linear.h"
#include "tables.h"

typedef struct {
    enum {
        SUM_FORWARD = 0,
        SUM_BACKWARD,
        SUM_PAIRWISE,
        SUM_LANES,
        SUM_SPLIT,
        SUM_KAHAN,
        SUM_F64,
        SUM_TENSOR_CORE,
        SUM_FUSED /* product and sum rounded once */
    } sum;
    int block; /* lanes, parts, products of a step */
    bool bias_first, flush;
} variant_t;

static float f(const variant_t *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? copysignf(0, a) : a; }

static float pairwise(const float *t, int64_t n) {
    if (n == 0) return 0;
    return n == 1 ? t[0] : pairwise(t, n / 2) + pairwise(t + n / 2, n - n / 2);
}

static double cut(double v, int exponent) { return ldexp(trunc(ldexp(v, -exponent)), exponent); }

static int exponent_of(double v) {
    int e;
    frexp(v, &e);
    return e - 1;
}

/* Exact products are aligned to the largest of a block and the accumulator, cut to 23 bits below it, and added. */
static double tensor_core(const double *t, int64_t n, int block, double sum) {
    for (int64_t i = 0; i < n; i += block) {
        int64_t end = i + block < n ? i + block : n;
        double most = fabs(sum), next = 0;
        for (int64_t k = i; k < end; k++) most = fmax(most, fabs(t[k]));
        if (most == 0) continue;
        int unit = exponent_of(most) - 23;
        for (int64_t k = i; k < end; k++) next += cut(t[k], unit);
        next += cut(sum, unit);
        sum = next == 0 ? 0 : cut(next, exponent_of(next) - 23);
    }
    return sum;
}

/* t: [n] exact products, s: room for n values of f32. */
static double sum_of(const variant_t *v, const double *t, float *s, int64_t n, float first) {
    float sum = first, lost = 0, lane[64] = {0};
    double wide = (double)first;
    bool finite = true;
    for (int64_t k = 0; k < n; k++) s[k] = f(v, (float)t[k]), finite = finite && isfinite(t[k]);
    switch (v->sum) {
        case SUM_BACKWARD:
            for (int64_t k = n - 1; k >= 0; k--) sum += s[k];
            break;
        case SUM_PAIRWISE:
            return (double)(first + pairwise(s, n));
        case SUM_LANES:
            for (int64_t k = 0; k < n; k++) lane[k % v->block] += s[k];
            return (double)(first + pairwise(lane, v->block));
        case SUM_SPLIT:
            for (int64_t k = 0; k < n; k++) lane[k * v->block / n] += s[k];
            for (int p = 0; p < v->block; p++) sum += lane[p];
            break;
        case SUM_KAHAN:
            for (int64_t k = 0; k < n; k++) {
                float y = s[k] - lost, next = sum + y;
                lost = finite ? (next - sum) - y : 0;
                sum = next;
                if (!isfinite(lost)) lost = 0;
            }
            break;
        case SUM_F64:
            for (int64_t k = 0; k < n; k++) wide += t[k];
            return wide;
        case SUM_TENSOR_CORE:
            if (finite && isfinite(first)) return tensor_core(t, n, v->block, wide);
            for (int64_t k = 0; k < n; k++) sum += s[k];
            break;
        case SUM_FUSED:
            for (int64_t k = 0; k < n; k++) sum = (float)((double)sum + t[k]);
            break;
        default:
            for (int64_t k = 0; k < n; k++) sum = f(v, sum + s[k]);
    }
    return (double)sum;
}

static const char *element_at(const hm_tensor *t, int64_t offset) {
    return (const char *)t->data + offset * (int64_t)hm_dtype_size(t->dtype);
}

static hm_status run(const void *variation, const void *args) {
    const variant_t *v = variation;
    hm_linear_args a;
    hm_status status = hm_linear_read(args, &a);
    if (status || !hm_tensor_elements(&a.out)) return status;
    const hm_tensor *x = &a.x, *w = &a.weight, *bias = &a.bias, *out = &a.out;
    int64_t n = w->shape[1], rows = hm_row_count(out);
    double *p = malloc((size_t)(n + 1) * 3 * sizeof *p), *q = p + n, *t = q + n;
    float *s = malloc((size_t)(n + 1) * sizeof *s);
    for (int64_t row = 0; p && s && row < rows; row++) {
        hm_load_row(x->dtype, element_at(x, hm_row_offset(x, row)), x->stride[x->ndim - 1], n, p);
        for (int64_t i = 0; i < w->shape[0]; i++) {
            hm_load_row(w->dtype, element_at(w, i * w->stride[0]), w->stride[1], n, q);
            for (int64_t k = 0; k < n; k++)
                t[k] = v->flush ? (double)(f(v, (float)p[k]) * f(v, (float)q[k])) : p[k] * q[k];
            float b = bias->dtype ? f(v, (float)hm_load(bias->dtype, element_at(bias, i * bias->stride[0]))) : 0;
            double y = sum_of(v, t, s, n, v->bias_first ? b : 0);
            if (bias->dtype && !v->bias_first) y = v->sum == SUM_F64 ? y + (double)b : (double)((float)y + b);
            if (v->flush) y = (double)f(v, (float)y);
            hm_store(out->dtype, (char *)element_at(out, hm_row_offset(out, row) + i * out->stride[out->ndim - 1]), y);
        }
    }
    status = p && s ? HM_OK : HM_NO_MEMORY;
    free(p), free(s);
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                \
    {                                                                                        \
        "linear." what, "linear", about, class_name, run, &(const variant_t) { __VA_ARGS__ } \
    }
const hm_variant hm_linear_variants[] = {
    VARIANT("sequential", "f32, one accumulator", "any", 0),
    VARIANT("bias_first", "the accumulator starts at the bias", "any", .bias_first = true),
    VARIANT("backward", "from the last product to the first", "any", .sum = SUM_BACKWARD),
    VARIANT("fused", "product and sum rounded once", "any", .sum = SUM_FUSED, .bias_first = true),
    VARIANT("pairwise", "a tree", "chain64", .sum = SUM_PAIRWISE),
    VARIANT("lanes64", "64 accumulators, then a tree", "chain512", .sum = SUM_LANES, .block = 64),
    VARIANT("split4", "4 parts, then their sum", "any", .sum = SUM_SPLIT, .block = 4),
    VARIANT("kahan", "compensated", "chain64", .sum = SUM_KAHAN),
    VARIANT("flush", "f32 subnormals are 0", "any", .flush = true),
    VARIANT("tensor_core8", "23 fraction bits, 8 products a step", "tc23", .sum = SUM_TENSOR_CORE, .block = 8,
            .bias_first = true),
    VARIANT("tensor_core16", "23 fraction bits, 16 products a step", "tc23", .sum = SUM_TENSOR_CORE, .block = 16),
    VARIANT("wide", "binary64", "wide", .sum = SUM_F64),
};
const int hm_linear_variant_count = sizeof hm_linear_variants / sizeof *hm_linear_variants;
