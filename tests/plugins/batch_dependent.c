/* Right for every row, with other bits where a row is not the only one. */
#include "plain.h"

const int hm_plugin_abi = HM_PLUGIN_ABI;

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    hm_status s = plain_rms_norm(a);
    for (int64_t t = 0; !s && a->x.shape[0] > 1 && t < a->x.shape[0]; t++) {
        float *out =
            (float *)a->out.data + t * a->out.stride[0]; /* an ulp: well inside chain64, where f32 is 40 ulp wide */
        for (int64_t i = 0; i < a->x.shape[1]; i++)
            out[i * a->out.stride[1]] = nextafterf(out[i * a->out.stride[1]], 0);
    }
    return s;
}
