/* indexer_k_quant_and_cache: token by token. */
#include <math.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/indexer_cache.h"
#include "fp8.h"

enum { GROUP = HM_INDEXER_GROUP };

static void write_token(const hm_indexer_k_quant_and_cache_args *a, const hm_indexer_cache *c, int64_t token) {
    int64_t slot = hm_integer_at(&a->slot_mapping, token), size = (int64_t)hm_dtype_size(a->k.dtype);
    if (slot < 0) return;
    int64_t offset = slot % c->block_size, step = a->k.stride[1];
    unsigned char *block = hm_indexer_block(c, slot / c->block_size);
    const char *k = (const char *)a->k.data + token * a->k.stride[0] * size;
    bool fnuz = a->code_format == HM_CODE_E4M3FNUZ;
    for (int64_t g = 0; g < c->groups; g++) {
        double v[GROUP], amax = 0;
        hm_load_row(a->k.dtype, k + g * GROUP * step * size, step, GROUP, v);
        for (int d = 0; d < GROUP; d++) amax = fabs(v[d]) > amax ? fabs(v[d]) : amax; /* NaN is never larger */
        double S = hm_fp8_scale(amax, fnuz ? 224 : 448, a->floor, false, a->scale_format == HM_SCALE_UE8M0);
        float stored = (float)S;
        for (int d = 0; d < GROUP; d++)
            block[hm_indexer_code_byte(c, offset, g * GROUP + d)] =
                hm_store8(fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3, v[d] / S, HM_OVERFLOW_SATURATE);
        memcpy(block + hm_indexer_scale_byte(c, offset, g), &stored, sizeof stored);
    }
}

hm_status hm_indexer_k_quant_and_cache_ref(const hm_indexer_k_quant_and_cache_args *args) {
    hm_indexer_k_quant_and_cache_args a;
    hm_indexer_cache c;
    hm_status s = hm_indexer_k_quant_and_cache_read(args, &a, &c);
    if (s) return s;
    if (a.k.place != HM_HOST)
        return hm_fail(HM_UNSUPPORTED, "indexer_k_quant_and_cache: ref works on host tensors only");
    int64_t elements = hm_tensor_elements(&a.k), tokens = elements ? a.k.shape[0] : 0;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t t = 0; t < tokens; t++) write_token(&a, &c, t);
    return HM_OK;
}
