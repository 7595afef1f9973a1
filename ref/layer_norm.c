/* layer_norm in binary64: class wide. A row is read for its mean, for its variance about that mean, and once more
 * behind which it is written chunk by chunk, so that out may be x. */
#include "../op/layer_norm.h"

#include <math.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"

enum { CHUNK = 512, LANES = 16 }; /* element i goes to lane i % 16, whatever the CPU */

HM_INLINE void add_body(const double *v, int64_t n, double *lanes) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += v[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += v[i + j];
}

HM_INLINE void add_squares_body(const double *v, double mean, int64_t n, double *lanes) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += (v[i + j] - mean) * (v[i + j] - mean);
    for (int j = 0; i + j < n; j++) lanes[j] += (v[i + j] - mean) * (v[i + j] - mean);
}

HM_INLINE void apply_body(double *v, double mean, double rs, const double *w, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) v[i] = (v[i] - mean) * rs * w[i] + b[i];
}

HM_DISPATCH(add, (const double *v, int64_t n, double *lanes), add_body, (v, n, lanes))
HM_DISPATCH(add_squares, (const double *v, double mean, int64_t n, double *lanes), add_squares_body,
            (v, mean, n, lanes))
HM_DISPATCH(apply, (double *v, double mean, double rs, const double *w, const double *b, int64_t n), apply_body,
            (v, mean, rs, w, b, n))

static double sum_of(double *lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* n elements of t from element i of its last dimension; base: the row's first element. absent: what stands for a
 * tensor that is not there. */
static void load(const hm_tensor *t, const char *base, int64_t i, int64_t n, double absent, double *to) {
    int64_t step = t->dtype ? t->stride[t->ndim - 1] : 0;
    if (t->dtype) hm_load_row(t->dtype, base + i * step * (int64_t)hm_dtype_size(t->dtype), step, n, to);
    for (int64_t k = 0; k < n && !t->dtype; k++) to[k] = absent;
}

static void row(const hm_layer_norm_args *a, int64_t t) {
    int64_t hidden = a->x.shape[a->x.ndim - 1], step = a->out.stride[a->out.ndim - 1];
    int64_t size = (int64_t)hm_dtype_size(a->x.dtype);
    const char *x = (const char *)a->x.data + hm_row_offset(&a->x, t) * size;
    char *y = (char *)a->out.data + hm_row_offset(&a->out, t) * size;
    double v[CHUNK], w[CHUNK], b[CHUNK], sums[LANES] = {0}, squares[LANES] = {0};

    for (int64_t i = 0; i < hidden; i += CHUNK) {
        int64_t n = hidden - i < CHUNK ? hidden - i : CHUNK;
        load(&a->x, x, i, n, 0, v);
        add(v, n, sums);
    }
    double mean = sum_of(sums) / (double)hidden;
    for (int64_t i = 0; i < hidden; i += CHUNK) {
        int64_t n = hidden - i < CHUNK ? hidden - i : CHUNK;
        load(&a->x, x, i, n, 0, v);
        add_squares(v, mean, n, squares);
    }
    double rs = 1 / sqrt(sum_of(squares) / (double)hidden + (double)(float)a->eps);
    for (int64_t i = 0; i < hidden; i += CHUNK) {
        int64_t n = hidden - i < CHUNK ? hidden - i : CHUNK;
        load(&a->x, x, i, n, 0, v);
        load(&a->weight, a->weight.data, i, n, 1, w);
        load(&a->bias, a->bias.data, i, n, 0, b);
        apply(v, mean, rs, w, b, n);
        hm_store_row(a->out.dtype, y + i * step * size, step, n, v);
    }
}

hm_status hm_layer_norm_ref(const hm_layer_norm_args *args) {
    hm_layer_norm_args a;
    hm_status s = hm_layer_norm_read(args, &a);
    if (s) return s;
    if (a.x.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "layer_norm: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.x), rows = elements ? hm_row_count(&a.x) : 0;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t t = 0; t < rows; t++) row(&a, t);
    return HM_OK;
}
