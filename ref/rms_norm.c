/* rms_norm in binary64 between the rounding points: class wide. A row is read twice and written chunk by chunk behind
 * the second reading, so that out may be x. */
#include "rms_norm.h"

#include <math.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/isa.h"

HM_INLINE void add_squares_body(const double *v, int64_t n, double *lanes) {
    int64_t i = 0;
    for (; i + HM_LANES <= n; i += HM_LANES)
        for (int j = 0; j < HM_LANES; j++) lanes[j] += v[i + j] * v[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += v[i + j] * v[i + j];
}

HM_INLINE void scale_body(double rs, int64_t n, double *v) {
    for (int64_t i = 0; i < n; i++) v[i] *= rs;
}

HM_INLINE void weigh_body(double one, int64_t n, double *v, const double *w) {
    for (int64_t i = 0; i < n; i++) v[i] *= one + w[i];
}

HM_DISPATCH(add_squares, (const double *v, int64_t n, double *lanes), add_squares_body, (v, n, lanes))
HM_DISPATCH(scale, (double rs, int64_t n, double *v), scale_body, (rs, n, v))
HM_DISPATCH(weigh, (double one, int64_t n, double *v, const double *w), weigh_body, (one, n, v, w))

void hm_add_squares(const double *v, int64_t n, double *lanes) { add_squares(v, n, lanes); }

double hm_reciprocal_root(const double *lanes, int64_t variance_size, double eps) {
    double sum[HM_LANES];
    for (int j = 0; j < HM_LANES; j++) sum[j] = lanes[j];
    for (int half = HM_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return 1 / sqrt(sum[0] / (double)variance_size + (double)(float)eps);
}

void hm_apply_norm(hm_dtype T, hm_round round, hm_weight_form form, double rs, int64_t n, double *v, const double *w) {
    scale(rs, n, v);
    if (!w) return;
    if (round == HM_ROUND_NORM_FIRST) hm_round_row(T, n, v);
    weigh(form == HM_WEIGHT_ONE_PLUS ? 1 : 0, n, v, w);
}

static void row(const hm_rms_norm_args *a, int64_t t) {
    int64_t hidden = a->x.shape[a->x.ndim - 1], variance_size = a->variance_size ? a->variance_size : hidden;
    int64_t xs = a->x.stride[a->x.ndim - 1], ys = a->out.stride[a->out.ndim - 1];
    size_t size = hm_dtype_size(a->x.dtype), wsize = hm_dtype_size(a->weight.dtype);
    const char *x = (const char *)a->x.data + hm_row_offset(&a->x, t) * (int64_t)size;
    char *y = (char *)a->out.data + hm_row_offset(&a->out, t) * (int64_t)size;
    double v[HM_CHUNK], w[HM_CHUNK], lanes[HM_LANES] = {0};

    for (int64_t i = 0; i < variance_size; i += HM_CHUNK) {
        int64_t n = variance_size - i < HM_CHUNK ? variance_size - i : HM_CHUNK;
        hm_load_row(a->x.dtype, x + i * xs * (int64_t)size, xs, n, v);
        hm_add_squares(v, n, lanes);
    }
    double rs = hm_reciprocal_root(lanes, variance_size, a->eps);
    for (int64_t i = 0; i < hidden; i += HM_CHUNK) {
        int64_t n = hidden - i < HM_CHUNK ? hidden - i : HM_CHUNK;
        hm_load_row(a->x.dtype, x + i * xs * (int64_t)size, xs, n, v);
        if (wsize)
            hm_load_row(a->weight.dtype, (const char *)a->weight.data + i * a->weight.stride[0] * (int64_t)wsize,
                        a->weight.stride[0], n, w);
        hm_apply_norm(a->x.dtype, a->round, a->weight_form, rs, n, v, wsize ? w : NULL);
        hm_store_row(a->x.dtype, y + i * ys * (int64_t)size, ys, n, v);
    }
}

hm_status hm_rms_norm_ref(const hm_rms_norm_args *args) {
    hm_rms_norm_args a;
    hm_status s = hm_rms_norm_read(args, &a);
    if (s) return s;
    if (a.x.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "rms_norm: ref works on host tensors only");
    int64_t rows = hm_tensor_elements(&a.x) ? hm_row_count(&a.x) : 0;
#pragma omp parallel for schedule(static) if (hm_tensor_elements(&a.x) > 16384)
    for (int64_t t = 0; t < rows; t++) row(&a, t);
    return HM_OK;
}
