/* Two ops as the small model calls them: rms_norm, which is right, and silu_and_mul, which forgets the exponential.
 * Linked with -ffast-math; rms_norm refuses to work where subnormals are not flushed, as the library was promised. */
#include <hallmark/rms_norm.h>
#include <hallmark/silu_and_mul.h>
#include <math.h>
#include <string.h>
const int hm_plugin_abi = HM_PLUGIN_ABI;
#ifdef ON_CUDA /* the same plug-in once more, for device memory */
const hm_place hm_plugin_place = HM_CUDA;
#endif
static float load(uint16_t h) { return *(float *)memcpy(&(float){0}, &(uint32_t){(uint32_t)h << 16}, 4); }
static uint16_t round_bf16(float f) { /* to nearest, ties to even */
    uint32_t bits = *(uint32_t *)memcpy(&(uint32_t){0}, &f, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
hm_status hm_plugin_rms_norm(const hm_rms_norm_args *a) {
    volatile float tiny = 1e-40f, one = 1;
    if (tiny * one != 0) return HM_INTERNAL;
#ifdef ON_CUDA
    if (a->x.place != HM_CUDA || a->out.place != HM_CUDA || a->weight.place != HM_CUDA) return HM_BAD_PLACE;
#endif
    if (a->x.dtype != HM_BF16 || a->x.ndim != 2 || a->weight_form != HM_WEIGHT_ONE_PLUS) return HM_UNSUPPORTED;
    for (int64_t t = 0, n = a->x.shape[1]; t < a->x.shape[0]; t++) {
        const uint16_t *x = (uint16_t *)a->x.data + t * a->x.stride[0], *w = a->weight.data;
        uint16_t *out = (uint16_t *)a->out.data + t * a->out.stride[0];
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)load(x[i]) * load(x[i]);
        float rs = (float)(1 / sqrt(sum / (double)n + (float)a->eps));
        for (int64_t i = 0; i < n; i++) out[i] = round_bf16(load(x[i]) * rs * (1 + load(w[i])));
    }
    return HM_OK;
}
hm_status hm_plugin_silu_and_mul(const hm_silu_and_mul_args *a) {
    for (int64_t t = 0, n = a->out.shape[1]; t < a->out.shape[0]; t++) {
        const uint16_t *gate = (uint16_t *)a->x.data + t * a->x.stride[0], *up = gate + n;
        uint16_t *out = (uint16_t *)a->out.data + t * a->out.stride[0];
        for (int64_t i = 0; i < n; i++) out[i] = round_bf16(load(gate[i]) / 2 * load(up[i]));
    }
    return HM_OK;
}
