/* cp_gather_indexer_k_quant_cache: every byte is one of the cache, or what was there before. */
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "indexer_cache.h"
#include "op.h"

enum { DST_K = 3 };

typedef struct {
    hm_cp_gather_indexer_k_quant_cache_args a;
    hm_indexer_cache cache;
    int64_t *byte; /* of element d: where it lies in a block, from the token's band of 16 (shuffled) or the token */
} context_t;

static void close_context(void *context) {
    free(((context_t *)context)->byte);
    free(context);
}

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_cp_gather_indexer_k_quant_cache_read(args, &c->a, &c->cache);
    int64_t codes = s ? 0 : c->cache.block_size * c->cache.head_dim;
    c->byte = malloc((size_t)codes * sizeof *c->byte + 1);
    if (s || !c->byte) {
        close_context(c);
        return s ? s : hm_fail(HM_NO_MEMORY, "golden: no memory");
    }
    /* The map from bytes to elements, turned round. */
    for (int64_t b = 0; b < codes; b++) {
        hm_indexer_place p = hm_indexer_place_of(&c->cache, b);
        c->byte[p.offset * c->cache.head_dim + p.d] = b;
    }
    *context = c;
    return HM_OK;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)class, (void)tier; /* a copy is the same in every arithmetic */
    const context_t *c = context;
    const hm_indexer_cache *cache = &c->cache;
    const hm_tensor *t = arg == DST_K ? &c->a.dst_k : &c->a.dst_scale;
    int64_t r = -1, requests = c->a.block_table.shape[0], n = t->shape[1], size = (int64_t)hm_dtype_size(t->dtype);
    while (r < requests && row >= hm_integer_at(&c->a.cu_seq_lens, r + 1)) r++;
    if (r < 0 || r >= requests) {
        hm_golden_copy(t->dtype, (const char *)t->data + row * t->stride[0] * size, t->stride[1], 0, n, out);
        return HM_OK;
    }
    int64_t position = row - hm_integer_at(&c->a.cu_seq_lens, r), offset = position % cache->block_size;
    const unsigned char *block =
        hm_indexer_block(cache, hm_integer_at2(&c->a.block_table, r, position / cache->block_size));
    if (arg != DST_K) {
        int64_t scales = cache->block_size * cache->head_dim + offset * 4 * cache->groups;
        hm_golden_copy(t->dtype, block + scales, 1, 0, n, out);
        return HM_OK;
    }
    for (int64_t d = 0; d < n; d++)
        hm_golden_copy(t->dtype, block + c->byte[offset * cache->head_dim + d], 1, d, d + 1, out);
    return HM_OK;
}

static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    (void)context, (void)arg, (void)row, (void)index, (void)got;
    return 0; /* never asked for: a copy has no distance */
}

const hm_golden_op hm_cp_gather_indexer_k_quant_cache_golden = {
    "cp_gather_indexer_k_quant_cache", open_context, close_context, row_of, distance, NULL};
