#include "mla_cache.h"

#include <string.h>

#include "check.h"
#include "dtype.h"
#include "fp8.h"

hm_status hm_mla_cache_read(const char *op, const hm_tensor *t, hm_mla_format format, hm_mla_cache *c) {
    bool ds = format == HM_MLA_FP8_DS;
    if (ds && t->dtype != HM_U8)
        return hm_fail(HM_BAD_DTYPE, "%s: kv_cache is %s; with format fp8_ds_mla it has to be u8", op,
                       hm_dtype_name(t->dtype));
    if (t->ndim != 3)
        return hm_fail(HM_BAD_SHAPE, "%s: kv_cache has rank %d; it has to be 3: [num_blocks, block_size, entry]", op,
                       t->ndim);
    if (ds && t->shape[2] != HM_MLA_ENTRY)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: kv_cache has entries of %lld bytes; with format fp8_ds_mla it has to be 656: 512 codes, 4 "
                       "scales and 64 elements of 16 bits",
                       op, (long long)t->shape[2]);
    if (ds && hm_tensor_elements(t) > 0 && t->stride[2] != 1)
        return hm_fail(HM_BAD_STRIDE, "%s: kv_cache has a last stride of %lld; with format fp8_ds_mla it has to be 1",
                       op, (long long)t->stride[2]);
    int64_t size = (int64_t)hm_dtype_size(t->dtype);
    *c = (hm_mla_cache){.format = format,
                        .dtype = t->dtype,
                        .num_blocks = t->shape[0],
                        .block_size = t->shape[1],
                        .entry = t->shape[2],
                        .block_stride = t->stride[0] * size,
                        .entry_stride = t->stride[1] * size,
                        .element_stride = t->stride[2] * size,
                        .data = t->data};
    return HM_OK;
}

float hm_mla_scale_of(const unsigned char *row, int64_t tile) {
    float S;
    memcpy(&S, row + hm_mla_scale_byte(tile), sizeof S);
    return S;
}

double hm_mla_scale_seen(hm_mla_dequant mode, float S) {
    uint32_t bits;
    memcpy(&bits, &S, sizeof bits);
    if (S != S || mode == HM_MLA_DEQUANT_F32) return (double)S;
    if (mode == HM_MLA_DEQUANT_SM90) return hm_round_to(HM_BF16, (double)S);
    return bits >> 31 ? hm_two_to(-127) : hm_two_to((int)(bits >> 23) - 127);
}

double hm_mla_dequantised(hm_mla_dequant mode, unsigned char code, float S) {
    /* 4 and 24 bits: the product is exact */
    return hm_round_to(HM_BF16, hm_load8(HM_F8E4M3, code) * hm_mla_scale_seen(mode, S));
}
