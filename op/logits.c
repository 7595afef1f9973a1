#include "logits.h"

#include <string.h>

#include "check.h"

hm_status hm_logits_read_flat(const void *args, hm_logits_call *call) {
    *call = (hm_logits_call){.paged = false};
    hm_status s = hm_fp8_mqa_logits_read(args, &call->flat);
    if (s) return s;
    const hm_fp8_mqa_logits_args *a = &call->flat;
    call->codes = a->q.dtype, call->rows = a->q.shape[0], call->heads = a->q.shape[1], call->head_dim = a->q.shape[2];
    call->width = a->logits.shape[1], call->outside = a->outside, call->logits = a->logits, call->weights = a->weights;
    return HM_OK;
}

hm_status hm_logits_read_paged(const void *args, hm_logits_call *call) {
    *call = (hm_logits_call){.paged = true};
    hm_status s = hm_fp8_paged_mqa_logits_read(args, &call->pages, &call->cache);
    if (s) return s;
    const hm_fp8_paged_mqa_logits_args *a = &call->pages;
    call->codes = a->q.dtype, call->rows = a->q.shape[0] * a->q.shape[1], call->heads = a->q.shape[2];
    call->head_dim = a->q.shape[3], call->width = a->logits.shape[1], call->outside = a->outside;
    call->logits = a->logits, call->weights = a->weights;
    return HM_OK;
}

void hm_logits_columns_of(const hm_logits_call *c, int64_t row, int64_t *first, int64_t *end, int64_t *shift) {
    *first = *shift = 0;
    if (c->paged) {
        const hm_tensor *lens = &c->pages.context_lens;
        int64_t next_n = c->pages.q.shape[1], b = row / next_n, j = row % next_n;
        *end = lens->ndim == 2 ? hm_integer_at2(lens, b, j) : hm_integer_at(lens, b) - next_n + j + 1;
    } else {
        int64_t ks = hm_integer_at(&c->flat.ks, row), ke = hm_integer_at(&c->flat.ke, row), keys = c->flat.k.shape[0];
        ke = ke < keys ? ke : keys;
        bool compressed = c->flat.columns == HM_COLUMNS_COMPRESSED;
        *first = compressed ? 0 : ks, *end = compressed ? ke - ks : ke, *shift = compressed ? ks : 0;
    }
    if (*end < *first) *first = *end = 0;
}

const uint8_t *hm_logits_query(const hm_logits_call *c, int64_t row, int64_t h, int64_t d) {
    const hm_tensor *q = c->paged ? &c->pages.q : &c->flat.q;
    int64_t next_n = c->paged ? q->shape[1] : 1,
            at = c->paged ? row / next_n * q->stride[0] + row % next_n * q->stride[1] : row * q->stride[0];
    return (const uint8_t *)q->data + at + h * q->stride[q->ndim - 2] + d * q->stride[q->ndim - 1];
}

float hm_logits_key(const hm_logits_call *c, int64_t row, int64_t key, uint8_t *to) {
    float scale;
    if (!c->paged) {
        const hm_tensor *k = &c->flat.k, *s = &c->flat.k_scale;
        for (int64_t d = 0; d < c->head_dim; d++)
            to[d] = ((const uint8_t *)k->data)[key * k->stride[0] + d * k->stride[1]];
        memcpy(&scale, (const char *)s->data + key * s->stride[0] * 4, sizeof scale);
        return scale;
    }
    int64_t b = row / c->pages.q.shape[1], offset = key % c->cache.block_size;
    const unsigned char *block =
        hm_indexer_block(&c->cache, hm_integer_at2(&c->pages.block_tables, b, key / c->cache.block_size));
    for (int64_t d = 0; d < c->head_dim; d++) to[d] = block[hm_indexer_code_byte(&c->cache, offset, d)];
    memcpy(&scale, block + hm_indexer_scale_byte(&c->cache, offset, 0), sizeof scale);
    return scale;
}

float hm_logits_weight(const hm_logits_call *c, int64_t row, int64_t h) {
    float w;
    memcpy(&w, (const char *)c->weights.data + (row * c->weights.stride[0] + h * c->weights.stride[1]) * 4, sizeof w);
    return w;
}
