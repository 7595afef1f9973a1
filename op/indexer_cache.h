/* indexer_cache.h: where the codes and scales of a token lie in a cache of indexer keys, for its writer and its readers.
 * <hallmark/indexer_cache.h> has the layout. */
#ifndef HM_OP_INDEXER_CACHE_H
#define HM_OP_INDEXER_CACHE_H

#include <hallmark/indexer_cache.h>
#include <stdbool.h>

enum { HM_CACHE_GROUP = 128, HM_CACHE_TILE = 16 }; /* codes a scale; tokens, and codes, of a tile */

typedef struct {
    uint8_t *data;
    int64_t blocks, block_size, head_dim, groups;
    int64_t block_stride; /* bytes */
    hm_cache_layout layout;
} hm_indexer_cache;

/* A cache for keys of head_dim: rank, dtype, entry, strides inside a block, layout. head_dim itself has to be a positive
 * multiple of 128; head_dim_of names the argument that it was taken from. */
hm_status hm_indexer_cache_check(const char *op, const char *name, const hm_tensor *t, int64_t head_dim,
                                 const char *head_dim_of, int layout, hm_indexer_cache *cache);
/* Codes of a mode: f8e4m3 or f8e4m3fnuz. */
hm_dtype hm_indexer_cache_codes(hm_cache_codes codes);

static inline int64_t hm_indexer_cache_entry(int64_t head_dim) { return head_dim + 4 * (head_dim / HM_CACHE_GROUP); }

/* Byte of code d (of group g's scale) of the token at `offset` in a block, from the start of the block. */
static inline int64_t hm_indexer_cache_code_in(const hm_indexer_cache *c, int64_t offset, int64_t d) {
    return c->layout == HM_CACHE_NORMAL ? offset * c->head_dim + d
                                        : offset / HM_CACHE_TILE * HM_CACHE_TILE * c->head_dim +
                                              d / HM_CACHE_TILE * HM_CACHE_TILE * HM_CACHE_TILE +
                                              offset % HM_CACHE_TILE * HM_CACHE_TILE + d % HM_CACHE_TILE;
}
static inline int64_t hm_indexer_cache_scale_in(const hm_indexer_cache *c, int64_t offset, int64_t g) {
    return c->block_size * c->head_dim + 4 * (offset * c->groups + g);
}
/* The same, as an address. */
static inline uint8_t *hm_indexer_cache_code(const hm_indexer_cache *c, int64_t block, int64_t offset, int64_t d) {
    return c->data + block * c->block_stride + hm_indexer_cache_code_in(c, offset, d);
}
static inline uint8_t *hm_indexer_cache_scale(const hm_indexer_cache *c, int64_t block, int64_t offset, int64_t g) {
    return c->data + block * c->block_stride + hm_indexer_cache_scale_in(c, offset, g);
}
/* Codes next to each other from any d that is a multiple of it. */
static inline int64_t hm_indexer_cache_run(const hm_indexer_cache *c) {
    return c->layout == HM_CACHE_NORMAL ? c->head_dim : HM_CACHE_TILE;
}

/* What a byte of a block holds: code d of the token at `offset`, or (scale) byte `d` of the scale of group `group`. */
typedef struct {
    int64_t offset, d, group;
    bool scale;
} hm_indexer_cache_byte;
hm_indexer_cache_byte hm_indexer_cache_what(const hm_indexer_cache *c, int64_t byte);

/* Element of an integer tensor (i32 or i64): of rank 1 at j, of rank 2 at [i, j]. */
int64_t hm_index_at(const hm_tensor *t, int64_t i, int64_t j);
/* Row `request` of a block table (i32, [requests, max_blocks]) names blocks that exist for the first `tokens` tokens;
 * entries past them are not read. BAD_VALUE otherwise. */
hm_status hm_block_table_check(const char *op, const char *name, const hm_tensor *table, int64_t request,
                               int64_t tokens, const hm_indexer_cache *cache);

#endif
