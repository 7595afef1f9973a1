/* indexer_cache.h: where the bytes of the indexer's paged cache are, for its writer and its readers. */
#ifndef HM_OP_INDEXER_CACHE_H
#define HM_OP_INDEXER_CACHE_H

#include <hallmark/cp_gather_indexer_k_quant_cache.h>

enum { HM_INDEXER_GROUP = 128, HM_INDEXER_ENTRY = HM_INDEXER_GROUP + 4, HM_INDEXER_TILE = 16 };

typedef struct {
    hm_cache_layout layout;
    int64_t num_blocks, block_size, groups, head_dim, entry; /* entry: bytes of a token, scales included */
    int64_t block_stride;                                    /* bytes */
    unsigned char *data;
} hm_indexer_cache;

/* Checks kv_cache against layout (a mode that is in range) and describes it. */
hm_status hm_indexer_cache_read(const char *op, const hm_tensor *kv_cache, hm_cache_layout layout, hm_indexer_cache *c);

/* Bytes from the first of a block: code d, or the scale of group g, of the token at `offset`. */
static inline int64_t hm_indexer_code_byte(const hm_indexer_cache *c, int64_t offset, int64_t d) {
    enum { T = HM_INDEXER_TILE };
    if (c->layout == HM_LAYOUT_NORMAL) return offset * c->head_dim + d;
    return offset / T * T * c->head_dim + d / T * T * T + offset % T * T + d % T;
}
static inline int64_t hm_indexer_scale_byte(const hm_indexer_cache *c, int64_t offset, int64_t g) {
    return c->block_size * c->head_dim + 4 * (offset * c->groups + g);
}
static inline unsigned char *hm_indexer_block(const hm_indexer_cache *c, int64_t block) {
    return c->data + block * c->block_stride;
}

hm_status hm_indexer_k_quant_and_cache_read(const hm_indexer_k_quant_and_cache_args *args,
                                            hm_indexer_k_quant_and_cache_args *full, hm_indexer_cache *cache);
hm_status hm_cp_gather_indexer_k_quant_cache_read(const hm_cp_gather_indexer_k_quant_cache_args *args,
                                                  hm_cp_gather_indexer_k_quant_cache_args *full,
                                                  hm_indexer_cache *cache);
/* Element i of a one-dimensional i32 or i64 tensor, element (r, i) of a two-dimensional one. */
int64_t hm_integer_at(const hm_tensor *t, int64_t i);
int64_t hm_integer_at2(const hm_tensor *t, int64_t r, int64_t i);

#endif
