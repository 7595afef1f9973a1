#include "attention.h"

#include <math.h>
#include <string.h>

#include "check.h"
#include "dtype.h"
#include "indexer_cache.h"

hm_status hm_attention_check(const char *op, const hm_tensor *q, const hm_tensor *out, const hm_tensor *lse,
                             const hm_tensor *sink, int p, double *scale) {
    hm_status s;
    if ((s = hm_check_mode(op, "p", p, 2))) return s;
    if (q->dtype != HM_BF16 && q->dtype != HM_F16)
        return hm_fail(HM_BAD_DTYPE, "%s: q is %s; it has to be bf16 or f16", op, hm_dtype_name(q->dtype));
    if (out->dtype != q->dtype)
        return hm_fail(HM_BAD_DTYPE, "%s: out is %s; it has to be %s, as q", op, hm_dtype_name(out->dtype),
                       hm_dtype_name(q->dtype));
    if (lse->dtype && lse->dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: lse is %s; it has to be f32", op, hm_dtype_name(lse->dtype));
    if (sink->dtype && sink->dtype != HM_F32)
        return hm_fail(HM_BAD_DTYPE, "%s: attn_sink is %s; it has to be f32", op, hm_dtype_name(sink->dtype));
    if (q->ndim != 3)
        return hm_fail(HM_BAD_SHAPE, "%s: q has rank %d; it has to be 3: [tokens, heads, width]", op, q->ndim);
    if ((s = hm_check_extent(op, "out", out, 3, 0, q->shape[0], "the tokens of q"))) return s;
    if ((s = hm_check_extent(op, "out", out, 3, 1, q->shape[1], "the heads of q"))) return s;
    if (out->shape[2] > q->shape[2])
        return hm_fail(HM_BAD_SHAPE,
                       "%s: out has extent %lld in dimension 2; it has to be at most %lld, the width of q", op,
                       (long long)out->shape[2], (long long)q->shape[2]);
    if (lse->dtype) {
        if ((s = hm_check_extent(op, "lse", lse, 2, 0, q->shape[0], "the tokens of q"))) return s;
        if ((s = hm_check_extent(op, "lse", lse, 2, 1, q->shape[1], "the heads of q"))) return s;
    }
    if (sink->dtype && (s = hm_check_extent(op, "attn_sink", sink, 1, 0, q->shape[1], "the heads of q"))) return s;
    if (!isfinite((float)*scale))
        return hm_fail(HM_BAD_PARAM, "%s: scale is %g; it has to be finite in f32", op, *scale);
    if (q->shape[2] < 1) return hm_fail(HM_BAD_SHAPE, "%s: q has extent 0 in dimension 2; it has to be 1 or more", op);
    *scale = (double)(float)(*scale == 0 ? 1 / sqrt((double)q->shape[2]) : *scale);
    return HM_OK;
}

hm_status hm_attention_read_paged(const void *args, hm_attention_call *c) {
    *c = (hm_attention_call){.paged = true};
    hm_status s = hm_sparse_mla_decode_read(args, &c->pages, &c->cache);
    if (s) return s;
    const hm_sparse_mla_decode_args *a = &c->pages;
    c->out = a->out, c->lse = a->lse, c->q = a->q, c->sink = a->attn_sink, c->scale = a->scale, c->p = a->p;
    c->tokens = a->q.shape[0], c->heads = a->q.shape[1], c->width = a->q.shape[2], c->value_width = a->out.shape[2];
    return HM_OK;
}

hm_status hm_attention_read_flat(const void *args, hm_attention_call *c) {
    *c = (hm_attention_call){.paged = false};
    hm_status s = hm_mla_prefill_read(args, &c->flat);
    if (s) return s;
    const hm_mla_prefill_args *a = &c->flat;
    c->out = a->out, c->lse = a->lse, c->q = a->q, c->sink = a->attn_sink, c->scale = a->scale, c->p = a->p;
    c->tokens = a->q.shape[0], c->heads = a->q.shape[1], c->width = a->q.shape[2], c->value_width = a->out.shape[2];
    return HM_OK;
}

static int64_t first_of(const hm_mla_prefill_args *a, int64_t token) {
    int64_t first = a->key_start.dtype ? hm_integer_at(&a->key_start, token) : 0;
    return first < 0 ? 0 : first;
}

int64_t hm_attention_places(const hm_attention_call *c, int64_t token) {
    if (c->paged) {
        int64_t n =
            c->pages.topk_length.dtype ? hm_integer_at(&c->pages.topk_length, token) : c->pages.indices.shape[1];
        return n < 0 ? 0 : n;
    }
    const hm_mla_prefill_args *a = &c->flat;
    int64_t keys = a->kv.shape[0], first = first_of(a, token);
    int64_t end = a->key_end.dtype ? hm_integer_at(&a->key_end, token) : keys - c->tokens + token + 1;
    end = end < keys ? end : keys;
    return end > first ? end - first : 0;
}

bool hm_attention_there(const hm_attention_call *c, int64_t token, int64_t place) {
    return !c->paged || hm_integer_at2(&c->pages.indices, token, place) >= 0;
}

void hm_attention_key(const hm_attention_call *c, int64_t token, int64_t place, double *to) {
    if (!c->paged) {
        const hm_tensor *kv = &c->flat.kv;
        int64_t row = first_of(&c->flat, token) + place;
        hm_load_row(kv->dtype, (const char *)kv->data + row * kv->stride[0] * (int64_t)hm_dtype_size(kv->dtype),
                    kv->stride[1], c->width, to);
        return;
    }
    const unsigned char *row = hm_mla_row(&c->cache, hm_integer_at2(&c->pages.indices, token, place));
    if (c->cache.format == HM_MLA_BF16) {
        hm_load_row(c->cache.dtype, row, c->cache.element_stride / (int64_t)hm_dtype_size(c->cache.dtype), c->width,
                    to);
        return;
    }
    for (int64_t d = 0; d < HM_MLA_LATENT; d++)
        to[d] = hm_mla_dequantised(c->pages.dequant, row[d], hm_mla_scale_of(row, d / HM_MLA_TILE));
    uint16_t rope[HM_MLA_ROPE]; /* bytes may begin anywhere */
    memcpy(rope, row + HM_MLA_ROPE_AT, sizeof rope);
    hm_load_row(HM_BF16, rope, 1, HM_MLA_ROPE, to + HM_MLA_LATENT);
}

void hm_attention_query(const hm_attention_call *c, int64_t token, int64_t head, double *to) {
    const hm_tensor *q = &c->q;
    hm_load_row(q->dtype,
                (const char *)q->data + (token * q->stride[0] + head * q->stride[1]) * (int64_t)hm_dtype_size(q->dtype),
                q->stride[2], c->width, to);
}

double hm_attention_sink(const hm_attention_call *c, int64_t head) {
    if (!c->sink.dtype) return -INFINITY;
    return hm_load(HM_F32, (const char *)c->sink.data + head * c->sink.stride[0] * 4);
}
