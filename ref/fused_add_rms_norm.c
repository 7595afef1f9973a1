/* fused_add_rms_norm in binary64 between the rounding points: class wide. The sum is formed twice: first for the mean
 * square, then, chunk by chunk, to be stored and normalised, so that out may be x and residual_out may be residual. */
#include <hallmark/fused_add_rms_norm.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "rms_norm.h"

/* One row: the address of its element 0 and the stride to the next, in bytes and elements. */
typedef struct {
    hm_dtype dtype;
    char *at;
    int64_t stride;
} row_view;

static row_view view(const hm_tensor *t, int64_t row) {
    return (row_view){t->dtype, (char *)t->data + hm_row_offset(t, row) * (int64_t)hm_dtype_size(t->dtype),
                      t->stride[t->ndim - 1]};
}
static char *element(const row_view *v, int64_t i) { return v->at + i * v->stride * (int64_t)hm_dtype_size(v->dtype); }

/* sum := x + residual over n elements from i. Exact in binary64 but for one rounding at 2^-53, which RN_R swallows:
 * RN_R of the rounded sum is RN_R of the sum, since binary64 has more than twice the bits of each R. */
static void add(const row_view *x, const row_view *residual, int64_t i, int64_t n, double *sum) {
    double r[HM_CHUNK];
    hm_load_row(x->dtype, element(x, i), x->stride, n, sum);
    hm_load_row(residual->dtype, element(residual, i), residual->stride, n, r);
    for (int64_t k = 0; k < n; k++) sum[k] += r[k];
}

static void row(const hm_fused_add_rms_norm_args *a, int64_t t) {
    int64_t hidden = a->x.shape[a->x.ndim - 1], variance_size = a->variance_size ? a->variance_size : hidden;
    hm_dtype R = a->residual_out.dtype;
    bool read_rounded = a->residual_read == HM_READ_ROUNDED || R == HM_F32;
    row_view x = view(&a->x, t), residual = view(&a->residual, t), out = view(&a->out, t),
             stored = view(&a->residual_out, t);
    row_view weight = {a->weight.dtype, a->weight.data, a->weight.stride[0]};
    double v[HM_CHUNK], z[HM_CHUNK], w[HM_CHUNK], lanes[HM_LANES] = {0};

    for (int64_t i = 0; i < variance_size; i += HM_CHUNK) {
        int64_t n = variance_size - i < HM_CHUNK ? variance_size - i : HM_CHUNK;
        add(&x, &residual, i, n, v);
        if (read_rounded) hm_round_row(R, n, v);
        hm_add_squares(v, n, lanes);
    }
    double rs = hm_reciprocal_root(lanes, variance_size, a->eps);
    for (int64_t i = 0; i < hidden; i += HM_CHUNK) {
        int64_t n = hidden - i < HM_CHUNK ? hidden - i : HM_CHUNK;
        add(&x, &residual, i, n, v);
        for (int64_t k = 0; k < n; k++) z[k] = v[k];
        hm_round_row(R, n, z);
        if (weight.dtype) hm_load_row(weight.dtype, element(&weight, i), weight.stride, n, w);
        if (read_rounded)
            for (int64_t k = 0; k < n; k++) v[k] = z[k];
        hm_apply_norm(a->x.dtype, a->round, a->weight_form, rs, n, v, weight.dtype ? w : NULL);
        hm_store_row(R, element(&stored, i), stored.stride, n, z);
        hm_store_row(a->x.dtype, element(&out, i), out.stride, n, v);
    }
}

hm_status hm_fused_add_rms_norm_ref(const hm_fused_add_rms_norm_args *args) {
    hm_fused_add_rms_norm_args a;
    hm_status s = hm_fused_add_rms_norm_read(args, &a);
    if (s) return s;
    if (a.x.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "fused_add_rms_norm: ref works on host tensors only");
    int64_t rows = hm_tensor_elements(&a.x) ? hm_row_count(&a.x) : 0;
#pragma omp parallel for schedule(static) if (hm_tensor_elements(&a.x) > 16384)
    for (int64_t t = 0; t < rows; t++) row(&a, t);
    return HM_OK;
}
