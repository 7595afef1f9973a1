#include "indexer_cache.h"

#include <string.h>

#include "check.h"

hm_status hm_indexer_cache_check(const char *op, const char *name, const hm_tensor *t, int64_t head_dim,
                                 const char *head_dim_of, int layout, hm_indexer_cache *cache) {
    hm_status s;
    if (t->dtype != HM_U8)
        return hm_fail(HM_BAD_DTYPE, "%s: %s is %s; it has to be u8", op, name, hm_dtype_name(t->dtype));
    if ((s = hm_check_mode(op, "layout", layout, 2))) return s;
    if (head_dim < 1 || head_dim % HM_CACHE_GROUP)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has head_dim %lld; it has to be a positive multiple of %d", op,
                       head_dim_of, (long long)head_dim, HM_CACHE_GROUP);
    if (t->ndim != 3)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has rank %d; it has to be 3: [blocks, block_size, entry]", op, name,
                       t->ndim);
    int64_t block_size = t->shape[1], entry;
    if (__builtin_add_overflow(head_dim, 4 * (head_dim / HM_CACHE_GROUP), &entry) || t->shape[2] != entry)
        return hm_fail(HM_BAD_SHAPE,
                       "%s: %s has entries of %lld bytes; they have to have head_dim + 4 * (head_dim / %d) for the "
                       "head_dim of %lld of %s",
                       op, name, (long long)t->shape[2], HM_CACHE_GROUP, (long long)head_dim, head_dim_of);
    if (block_size < 1)
        return hm_fail(HM_BAD_SHAPE, "%s: %s has block_size %lld; it has to be positive", op, name,
                       (long long)block_size);
    if (t->stride[2] != 1 || (t->stride[1] != entry && block_size > 1))
        return hm_fail(HM_BAD_STRIDE,
                       "%s: %s has strides %lld, %lld inside a block; they have to be %lld, 1: a block is dense", op,
                       name, (long long)t->stride[1], (long long)t->stride[2], (long long)entry);
    if (layout == HM_CACHE_SHUFFLE && block_size % HM_CACHE_TILE)
        return hm_fail(HM_BAD_PARAM,
                       "%s: layout is shuffle and %s has block_size %lld; for tiles it has to be a multiple of %d", op,
                       name, (long long)block_size, HM_CACHE_TILE);
    *cache = (hm_indexer_cache){.data = t->data,
                                .blocks = t->shape[0],
                                .block_size = block_size,
                                .head_dim = head_dim,
                                .groups = head_dim / HM_CACHE_GROUP,
                                .block_stride = t->stride[0],
                                .layout = (hm_cache_layout)layout};
    return HM_OK;
}

hm_dtype hm_indexer_cache_codes(hm_cache_codes codes) { return codes == HM_CODES_E4M3FNUZ ? HM_F8E4M3FNUZ : HM_F8E4M3; }

hm_indexer_cache_byte hm_indexer_cache_what(const hm_indexer_cache *c, int64_t byte) {
    int64_t scales = c->block_size * c->head_dim, tiles = HM_CACHE_TILE * c->head_dim,
            tile = HM_CACHE_TILE * HM_CACHE_TILE;
    if (byte >= scales) {
        int64_t at = (byte - scales) / 4;
        return (hm_indexer_cache_byte){at / c->groups, (byte - scales) % 4, at % c->groups, true};
    }
    hm_indexer_cache_byte what = {byte / c->head_dim, byte % c->head_dim, 0, false};
    if (c->layout == HM_CACHE_SHUFFLE) {
        int64_t in_tiles = byte % tiles, in_tile = in_tiles % tile;
        what.offset = byte / tiles * HM_CACHE_TILE + in_tile / HM_CACHE_TILE;
        what.d = in_tiles / tile * HM_CACHE_TILE + in_tile % HM_CACHE_TILE;
    }
    what.group = what.d / HM_CACHE_GROUP;
    return what;
}

int64_t hm_index_at(const hm_tensor *t, int64_t i, int64_t j) {
    int64_t at = t->ndim == 2 ? i * t->stride[0] + j * t->stride[1] : j * t->stride[0], i64 = 0;
    int32_t i32;
    if (t->dtype == HM_I64) memcpy(&i64, (const char *)t->data + at * (int64_t)sizeof i64, sizeof i64);
    else memcpy(&i32, (const char *)t->data + at * (int64_t)sizeof i32, sizeof i32), i64 = i32;
    return i64;
}

hm_status hm_block_table_check(const char *op, const char *name, const hm_tensor *table, int64_t request,
                               int64_t tokens, const hm_indexer_cache *cache) {
    if (tokens <= 0) return HM_OK;
    int64_t needed = (tokens - 1) / cache->block_size + 1;
    if (needed > table->shape[1])
        return hm_fail(HM_BAD_VALUE, "%s: request %lld has %lld tokens in %lld blocks; %s has %lld entries a request",
                       op, (long long)request, (long long)tokens, (long long)needed, name, (long long)table->shape[1]);
    for (int64_t i = 0; i < needed; i++) {
        int64_t block = hm_index_at(table, request, i);
        if (block < 0 || block >= cache->blocks)
            return hm_fail(HM_BAD_VALUE, "%s: %s[%lld, %lld] is %lld; it has to be 0 to %lld, a block of the cache", op,
                           name, (long long)request, (long long)i, (long long)block, (long long)cache->blocks - 1);
    }
    return HM_OK;
}
