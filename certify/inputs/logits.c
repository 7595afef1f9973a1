#include "logits.h"

#include "../../op/dtype.h"
#include "../layout.h"

bool hm_inputs_stagnate_codes(const hm_case_spec *spec, const hm_tensor *t, int64_t heads) {
    int64_t n = hm_tensor_elements(t), width = t->shape[t->ndim - 1], size = (int64_t)hm_dtype_size(t->dtype);
    if (!hm_inputs_generator(spec, "stagnate") || t->dtype == HM_DTYPE_NONE) return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = heads > 0 ? (i / width / heads + (int64_t)(spec->seed % 4)) % 4 : -1;
        hm_store(t->dtype, (char *)t->data + hm_view_offset(t, i) * size,
                 hm_inputs_stagnate(row, i % width, width, HM_STAGNATE_LARGE, HM_STAGNATE_SMALL));
    }
    return true;
}

void hm_inputs_stagnate_cache(const hm_case_spec *spec, const hm_tensor *cache, hm_cache_layout layout,
                              hm_dtype format) {
    enum { D = HM_INDEXER_GROUP };
    const hm_indexer_cache c = {.layout = layout, .block_size = cache->shape[1], .head_dim = D, .groups = 1};
    if (!hm_inputs_generator(spec, "stagnate") || cache->shape[2] != HM_INDEXER_ENTRY) return;
    for (int64_t i = 0; i < cache->shape[0] * cache->shape[1] * D; i++) {
        double v = hm_inputs_stagnate(-1, i % D, D, HM_STAGNATE_LARGE, HM_STAGNATE_SMALL);
        int64_t token = i / D, first = token / c.block_size * c.block_size * HM_INDEXER_ENTRY;
        hm_inputs_put(cache, first + hm_indexer_code_byte(&c, token % c.block_size, i % D),
                      hm_store8(format, v, HM_OVERFLOW_SATURATE));
    }
}

bool hm_inputs_stagnate_weights(const hm_case_spec *spec, const hm_tensor *t) {
    if (!hm_inputs_generator(spec, "stagnate") || t->dtype == HM_DTYPE_NONE) return false;
    for (int64_t i = 0; i < hm_tensor_elements(t); i++)
        hm_store(t->dtype, (char *)t->data + hm_view_offset(t, i) * (int64_t)hm_dtype_size(t->dtype), 1);
    return true;
}
