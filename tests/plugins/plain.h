/* plain.h: rms_norm for f32 as a plug-in may write it, for the plug-ins here to go wrong around. Declines everything
 * that the tests do not need. */
#ifndef PLAIN_H
#define PLAIN_H

#include <hallmark/rms_norm.h>
#include <math.h>

#ifdef ON_CUDA /* the same plug-in once more, for device memory */
const hm_place hm_plugin_place = HM_CUDA;
#endif

static inline int plain_declines(const hm_rms_norm_args *a) {
    return a->x.dtype != HM_F32 || a->x.ndim != 2 || a->weight.dtype != HM_DTYPE_NONE || a->variance_size != 0;
}

static inline hm_status plain_row(const hm_rms_norm_args *a, int64_t t) {
    const float *x = (const float *)a->x.data + t * a->x.stride[0];
    float *out = (float *)a->out.data + t * a->out.stride[0];
    double sum = 0;
    for (int64_t i = 0; i < a->x.shape[1]; i++) sum += (double)x[i * a->x.stride[1]] * x[i * a->x.stride[1]];
    float rs = (float)(1 / sqrt(sum / (double)a->x.shape[1] + (double)(float)a->eps));
    for (int64_t i = 0; i < a->x.shape[1]; i++) out[i * a->out.stride[1]] = x[i * a->x.stride[1]] * rs;
    return HM_OK;
}

static inline hm_status plain_rms_norm(const hm_rms_norm_args *a) {
    if (plain_declines(a)) return HM_UNSUPPORTED;
    for (int64_t t = 0; t < a->x.shape[0]; t++) plain_row(a, t);
    return HM_OK;
}

#endif
