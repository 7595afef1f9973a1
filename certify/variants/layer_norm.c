/* Legal ways to compute layer_norm, in genuine f32. */
#include <float.h>
#include <hallmark/layer_norm.h>
#include <math.h>
#include <stdlib.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/layer_norm.h"
#include "tables.h"

typedef struct {
    enum { STATISTICS_TWO_PASS = 0, STATISTICS_WELFORD, STATISTICS_SHIFTED, STATISTICS_CORRECTED } statistics;
    int lanes; /* interleaved accumulators, then a tree; 0: as many as elements */
    bool reciprocal_count, fma, flush, wide;
    enum { APPLY_IN_ORDER = 0, APPLY_WEIGHT_TIMES_ROOT, APPLY_SCALE_AND_SHIFT, APPLY_DIVIDE } apply;
    enum { ROOT_ROUNDED = 0, ROOT_RECIPROCAL, ROOT_HIGH, ROOT_LOW } root;
} variant_t;

typedef struct {
    float n, mean, squares; /* of the differences from the mean */
} moments;

static float f(const variant_t *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? 0 : a; }

static float tree(const variant_t *v, float *part, int64_t n) {
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t i = 0; i + step < n; i += 2 * step) part[i] = f(v, part[i] + part[i + step]);
    return part[0];
}

/* Sum of x - shift, or of its squares; lane: [lanes]. */
static float sum_of(const variant_t *v, const float *x, int64_t n, float shift, bool squared, float *lane) {
    int64_t lanes = v->lanes ? v->lanes : n;
    for (int64_t j = 0; j < lanes; j++) lane[j] = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = f(v, x[i] - shift), *to = &lane[i % lanes];
        if (!squared) *to = f(v, *to + d);
        else *to = v->fma ? f(v, fmaf(d, d, *to)) : f(v, *to + f(v, d * d));
    }
    return tree(v, lane, lanes);
}

static float over(const variant_t *v, float sum, int64_t n) {
    return f(v, v->reciprocal_count ? sum * (1 / (float)n) : sum / (float)n);
}

static moments merged(const variant_t *v, moments a, moments b) {
    if (a.n == 0 || b.n == 0) return a.n == 0 ? b : a;
    float n = a.n + b.n, d = f(v, b.mean - a.mean), share = b.n / n;
    return (moments){n, f(v, a.mean + f(v, d * share)), f(v, f(v, a.squares + b.squares) + f(v, d * d) * a.n * share)};
}

static void welford(const variant_t *v, const float *x, int64_t n, moments *lane, float *mean, float *variance) {
    int64_t lanes = v->lanes ? v->lanes : n;
    for (int64_t j = 0; j < lanes; j++) lane[j] = (moments){0, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        moments *m = &lane[i % lanes];
        float d = f(v, x[i] - m->mean);
        m->n++;
        m->mean = f(v, m->mean + f(v, d / m->n));
        m->squares = f(v, m->squares + f(v, d * f(v, x[i] - m->mean)));
    }
    for (int64_t step = 1; step < lanes; step *= 2)
        for (int64_t j = 0; j + step < lanes; j += 2 * step) lane[j] = merged(v, lane[j], lane[j + step]);
    *mean = lane[0].mean, *variance = over(v, lane[0].squares, n);
}

static void statistics(const variant_t *v, const float *x, int64_t n, void *scratch, float *mean, float *variance) {
    if (v->statistics == STATISTICS_WELFORD) {
        welford(v, x, n, scratch, mean, variance);
        return;
    }
    *mean = over(v, sum_of(v, x, n, 0, false, scratch), n);
    *variance = over(v, sum_of(v, x, n, *mean, true, scratch), n);
    if (v->statistics == STATISTICS_TWO_PASS) return;
    float rest = over(v, sum_of(v, x, n, *mean, false, scratch), n);
    *variance = f(v, *variance - rest * rest);
    if (*variance < 0) *variance = 0;
    if (v->statistics == STATISTICS_CORRECTED) *mean = f(v, *mean + rest);
}

static float root_of(const variant_t *v, float m) {
    double r = 1 / sqrt((double)m);
    if (v->root == ROOT_ROUNDED || !isfinite(r) || r == 0) return (float)r;
    if (v->root == ROOT_RECIPROCAL) return f(v, 1 / sqrtf(m));
    /* 2^-50 is more than what r itself may be off */
    double end = v->root == ROOT_HIGH ? r * (1 + 0x1p-22 - 0x1p-50) : r * (1 - 0x1p-22 + 0x1p-50);
    float y = (float)end;
    if (v->root == ROOT_HIGH) return (double)y > end ? nextafterf(y, 0) : y;
    return (double)y < end ? nextafterf(y, INFINITY) : y;
}

static float element(const variant_t *v, float x, float mean, float m, float rs, float w, float b) {
    float d = f(v, x - mean), s;
    switch (v->apply) {
        case APPLY_WEIGHT_TIMES_ROOT:
            s = f(v, d * f(v, rs * w));
            break;
        case APPLY_SCALE_AND_SHIFT:
            s = f(v, rs * w);
            return v->fma ? f(v, fmaf(x, s, f(v, fmaf(-mean, s, b)))) : f(v, f(v, x * s) + f(v, b - f(v, mean * s)));
        case APPLY_DIVIDE:
            s = f(v, f(v, d / f(v, sqrtf(m))) * w);
            break;
        default:
            if (v->fma) return f(v, fmaf(f(v, d * rs), w, b));
            s = f(v, f(v, d * rs) * w);
            break;
    }
    return f(v, s + b);
}

static void one_row(const variant_t *v, double *x, const double *w, const double *b, int64_t n, float eps,
                    float *narrow, void *scratch) {
    float mean, variance;
    for (int64_t i = 0; i < n; i++) narrow[i] = f(v, (float)x[i]);
    statistics(v, narrow, n, scratch, &mean, &variance);
    float m = f(v, f(v, variance) + f(v, eps)), rs = root_of(v, m);
    for (int64_t i = 0; i < n; i++)
        x[i] = (double)element(v, narrow[i], mean, m, rs, f(v, (float)w[i]), f(v, (float)b[i]));
}

/* Backward: class wide. */
static void one_row_wide(double *x, const double *w, const double *b, int64_t n, double eps) {
    double sum = 0, squares = 0;
    for (int64_t i = n - 1; i >= 0; i--) sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = n - 1; i >= 0; i--) squares = fma(x[i] - mean, x[i] - mean, squares);
    double root = sqrt(squares / (double)n + eps);
    for (int64_t i = 0; i < n; i++) x[i] = fma((x[i] - mean) / root, w[i], b[i]);
}

static void load(const hm_tensor *t, int64_t n, double absent, double *to) {
    if (t->dtype) hm_load_row(t->dtype, t->data, t->stride[0], n, to);
    for (int64_t i = 0; i < n && !t->dtype; i++) to[i] = absent;
}

static hm_status run(const void *variation, const void *args) {
    const variant_t *v = variation;
    hm_layer_norm_args a;
    hm_status status = hm_layer_norm_read(args, &a);
    if (status || !hm_tensor_elements(&a.x)) return status;
    int64_t n = a.x.shape[a.x.ndim - 1], rows = hm_row_count(&a.x), size = (int64_t)hm_dtype_size(a.x.dtype);
    int64_t lanes = v->lanes > n ? v->lanes : n;
    double *x = malloc((size_t)n * 3 * sizeof *x), *w = x + n, *b = w + n;
    float *narrow = malloc((size_t)n * sizeof *narrow);
    moments *scratch = malloc((size_t)lanes * sizeof *scratch);
    if (!x || !narrow || !scratch) status = HM_NO_MEMORY;
    if (!status) load(&a.weight, n, 1, w), load(&a.bias, n, 0, b);
    for (int64_t row = 0; row < rows && !status; row++) {
        hm_load_row(a.x.dtype, (char *)a.x.data + hm_row_offset(&a.x, row) * size, a.x.stride[a.x.ndim - 1], n, x);
        if (v->wide) one_row_wide(x, w, b, n, (double)(float)a.eps);
        else one_row(v, x, w, b, n, (float)a.eps, narrow, scratch);
        hm_store_row(a.out.dtype, (char *)a.out.data + hm_row_offset(&a.out, row) * size, a.out.stride[a.out.ndim - 1],
                     n, x);
    }
    free(x), free(narrow), free(scratch);
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                        \
    {                                                                                                \
        "layer_norm." what, "layer_norm", about, class_name, run, &(const variant_t) { __VA_ARGS__ } \
    }
const hm_variant hm_layer_norm_variants[] = {
    VARIANT("pairwise", "two passes, pairwise sums", "chain64", 0),
    VARIANT("warp", "two passes, 32 lanes with FMA, 1/n as a factor", "any", .lanes = 32, .fma = true,
            .reciprocal_count = true),
    VARIANT("block", "two passes, 256 lanes, weight times root", "chain64", .lanes = 256,
            .apply = APPLY_WEIGHT_TIMES_ROOT),
    VARIANT("sequential", "two passes, one accumulator, 1/sqrt", "any", .lanes = 1, .root = ROOT_RECIPROCAL),
    VARIANT("welford_sequential", "Welford's updates", "any", .lanes = 1, .statistics = STATISTICS_WELFORD),
    VARIANT("welford_lanes", "Welford's updates in 128 lanes, merged as a tree", "any", .lanes = 128,
            .statistics = STATISTICS_WELFORD, .fma = true),
    VARIANT("shifted", "squares about a first mean, less the square of what it was off", "chain64",
            .statistics = STATISTICS_SHIFTED, .root = ROOT_HIGH),
    VARIANT("corrected", "the same, and the mean corrected too", "chain64", .statistics = STATISTICS_CORRECTED,
            .root = ROOT_LOW, .apply = APPLY_DIVIDE),
    VARIANT("scale_and_shift", "x times a scale plus a shift", "chain64", .apply = APPLY_SCALE_AND_SHIFT),
    VARIANT("scale_and_shift_fma", "the same with FMA", "chain64", .apply = APPLY_SCALE_AND_SHIFT, .fma = true),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .flush = true),
    VARIANT("wide", "binary64, backward, with FMA and divisions", "wide", .wide = true),
};
const int hm_layer_norm_variant_count = sizeof hm_layer_norm_variants / sizeof *hm_layer_norm_variants;
