/* A plug-in that is right: rms_norm for bf16, one rounding at the end. It declines what it was not written for.
 *     cc -O2 -shared -fPIC -Iinclude examples/plugin_right.c -o right.so -lm
 *     build/release/hallmark certify --impl ./right.so --op rms_norm */
#include <hallmark/rms_norm.h>
#include <math.h>
#include <string.h>
const int hm_plugin_abi = HM_PLUGIN_ABI;
static float load(uint16_t h) { return *(float *)memcpy(&(float){0}, &(uint32_t){(uint32_t)h << 16}, 4); }
static uint16_t round_bf16(float f) { /* to nearest, ties to even; NaN stays NaN */
    uint32_t bits = *(uint32_t *)memcpy(&(uint32_t){0}, &f, 4);
    return f != f ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    hm_status bad = hm_rms_norm_check(a); /* the contract's errors; hallmark brings it along, nothing to link */
    if (bad) return bad;
    if (a->x.dtype != HM_BF16 || a->weight.dtype != HM_BF16 || a->x.ndim != 2) return HM_UNSUPPORTED;
    if (a->round != HM_ROUND_ONCE || a->weight_form != HM_WEIGHT_PLAIN || a->variance_size) return HM_UNSUPPORTED;
    for (int64_t t = 0, n = a->x.shape[1]; t < a->x.shape[0]; t++) {
        const uint16_t *x = (uint16_t *)a->x.data + t * a->x.stride[0], *w = a->weight.data;
        uint16_t *out = (uint16_t *)a->out.data + t * a->out.stride[0];
        double sum = 0; /* one long chain of f32 additions would leave class chain64 */
        for (int64_t i = 0; i < n; i++) sum += (double)load(x[i * a->x.stride[1]]) * load(x[i * a->x.stride[1]]);
        float rs = (float)(1 / sqrt(sum / (double)n + (float)a->eps));
        for (int64_t i = 0; i < n; i++)
            out[i * a->out.stride[1]] = round_bf16(load(x[i * a->x.stride[1]]) * rs * load(w[i * a->weight.stride[0]]));
    }
    return HM_OK;
}
