#include "indexer_cache.h"

#include <string.h>

#include "check.h"

hm_status hm_indexer_cache_read(const char *op, const hm_tensor *t, hm_cache_layout layout, hm_indexer_cache *c) {
    if (t->dtype != HM_U8)
        return hm_fail(HM_BAD_DTYPE, "%s: kv_cache is %s; it has to be u8", op, hm_dtype_name(t->dtype));
    if (t->ndim != 3)
        return hm_fail(HM_BAD_SHAPE, "%s: kv_cache has rank %d; it has to be 3: [num_blocks, block_size, entry]", op,
                       t->ndim);
    int64_t block_size = t->shape[1], entry = t->shape[2];
    if (entry % HM_INDEXER_ENTRY)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: kv_cache has entries of %lld bytes; it has to be a multiple of 132: 128 codes and a "
                       "scale for each group",
                       op, (long long)entry);
    if (layout == HM_LAYOUT_SHUFFLE && block_size % HM_INDEXER_TILE)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: kv_cache has blocks of %lld tokens; with layout shuffle that has to be a multiple of "
                       "16",
                       op, (long long)block_size);
    bool dense = (entry < 2 || t->stride[2] == 1) && (block_size < 2 || t->stride[1] == entry);
    if (hm_tensor_elements(t) > 0 && (!dense || (t->shape[0] > 1 && t->stride[0] < block_size * entry)))
        return hm_fail(HM_BAD_STRIDE,
                       "%s: kv_cache has strides %lld, %lld, %lld; a block has to be dense: at least %lld, then "
                       "%lld, then 1",
                       op, (long long)t->stride[0], (long long)t->stride[1], (long long)t->stride[2],
                       (long long)(block_size * entry), (long long)entry);
    *c = (hm_indexer_cache){.layout = layout,
                            .num_blocks = t->shape[0],
                            .block_size = block_size,
                            .groups = entry / HM_INDEXER_ENTRY,
                            .head_dim = entry / HM_INDEXER_ENTRY * HM_INDEXER_GROUP,
                            .entry = entry,
                            .block_stride = t->stride[0],
                            .data = t->data};
    return HM_OK;
}

int64_t hm_integer_at(const hm_tensor *t, int64_t i) {
    int32_t i32;
    int64_t i64;
    if (t->dtype == HM_I64) return memcpy(&i64, (const char *)t->data + 8 * i * t->stride[0], sizeof i64), i64;
    return memcpy(&i32, (const char *)t->data + 4 * i * t->stride[0], sizeof i32), i32;
}

int64_t hm_integer_at2(const hm_tensor *t, int64_t r, int64_t i) {
    hm_tensor row = *t;
    row.data = (char *)t->data + r * t->stride[0] * (int64_t)hm_dtype_size(t->dtype);
    row.stride[0] = t->stride[1];
    return hm_integer_at(&row, i);
}
