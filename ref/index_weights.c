/* index_weights: class wide in the order `any`. */
#include "../op/index_weights.h"

#include <math.h>

#include "../op/check.h"
#include "../op/dtype.h"

enum { CHUNK = 256 };

static double rounded(double v) { return hm_round_to(HM_F32, v); }

static void row(const hm_index_weights_args *a, int64_t t) {
    const hm_tensor *weights = &a->weights, *scale = &a->q_scale, *out = &a->out;
    int last = weights->ndim - 1;
    int64_t heads = weights->shape[last];
    double w[CHUNK], s[CHUNK], root = sqrt((double)a->head_dim * (double)heads);
    double of_dim = hm_inverse_root_f32(a->head_dim), of_heads = hm_inverse_root_f32(heads);
    for (int64_t i = 0; i < heads; i += CHUNK) {
        int64_t n = heads - i < CHUNK ? heads - i : CHUNK;
        hm_load_row(weights->dtype,
                    (const char *)weights->data + (hm_row_offset(weights, t) + i * weights->stride[last]) *
                                                      (int64_t)hm_dtype_size(weights->dtype),
                    weights->stride[last], n, w);
        for (int64_t k = 0; k < n; k++) s[k] = 1;
        if (scale->dtype)
            hm_load_row(scale->dtype,
                        (const char *)scale->data +
                            (hm_row_offset(scale, t) + i * scale->stride[last]) * (int64_t)hm_dtype_size(scale->dtype),
                        scale->stride[last], n, s);
        for (int64_t k = 0; k < n; k++) {
            if (a->order == HM_WEIGHTS_L2R) w[k] = rounded(rounded(w[k] * s[k]) * of_dim) * of_heads;
            else w[k] = w[k] * s[k] / root;
        }
        hm_store_row(HM_F32, (char *)out->data + (hm_row_offset(out, t) + i * out->stride[last]) * 4, out->stride[last],
                     n, w);
    }
}

hm_status hm_index_weights_ref(const hm_index_weights_args *args) {
    hm_index_weights_args a;
    hm_status s = hm_index_weights_read(args, &a);
    if (s) return s;
    if (a.out.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "index_weights: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.weights), rows = elements ? hm_row_count(&a.weights) : 0;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t t = 0; t < rows; t++) row(&a, t);
    return HM_OK;
}
