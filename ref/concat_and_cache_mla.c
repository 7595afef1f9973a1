/* concat_and_cache_mla: token by token. */
#include "../op/concat_and_cache_mla.h"

#include <math.h>
#include <string.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "fp8.h"

static const char *row_at(const hm_tensor *t, int64_t row) {
    return (const char *)t->data + row * t->stride[0] * (int64_t)hm_dtype_size(t->dtype);
}

/* The elements of a row of t, to_stride bytes apart. */
static void copy(const hm_tensor *t, int64_t row, unsigned char *to, int64_t to_stride) {
    size_t size = hm_dtype_size(t->dtype);
    const char *from = row_at(t, row);
    int64_t step = t->stride[1] * (int64_t)size, n = t->shape[1];
    if (step == (int64_t)size && to_stride == step) {
        if (n > 0) memcpy(to, from, (size_t)n * size);
        return;
    }
    for (int64_t i = 0; i < n; i++) memcpy(to + i * to_stride, from + i * step, size);
}

static void write_tile(const hm_concat_and_cache_mla_args *a, int64_t token, int64_t tile, unsigned char *entry) {
    double v[HM_MLA_TILE], amax = 0;
    int64_t step = a->kv_c.stride[1];
    hm_load_row(a->kv_c.dtype,
                row_at(&a->kv_c, token) + tile * HM_MLA_TILE * step * (int64_t)hm_dtype_size(a->kv_c.dtype), step,
                HM_MLA_TILE, v);
    for (int i = 0; i < HM_MLA_TILE; i++) amax = fabs(v[i]) > amax ? fabs(v[i]) : amax; /* NaN is never larger */
    double S = hm_fp8_scale(amax, 448, hm_mla_floor(a->scale), true, a->scale == HM_MLA_SCALE_POW2);
    float stored = (float)S;
    for (int i = 0; i < HM_MLA_TILE; i++)
        entry[tile * HM_MLA_TILE + i] = hm_store8(HM_F8E4M3, v[i] / S, HM_OVERFLOW_SATURATE);
    memcpy(entry + hm_mla_scale_byte(tile), &stored, sizeof stored);
}

static void write_token(const hm_concat_and_cache_mla_args *a, const hm_mla_cache *c, int64_t token) {
    int64_t slot = hm_slot_at(&a->slot_mapping, token);
    if (slot < 0) return;
    unsigned char *entry = hm_mla_row(c, slot);
    if (c->format == HM_MLA_BF16) {
        copy(&a->kv_c, token, entry, c->element_stride);
        copy(&a->k_pe, token, entry + a->kv_c.shape[1] * c->element_stride, c->element_stride);
        return;
    }
    for (int64_t tile = 0; tile < HM_MLA_TILES; tile++) write_tile(a, token, tile, entry);
    copy(&a->k_pe, token, entry + HM_MLA_ROPE_AT, 2);
}

hm_status hm_concat_and_cache_mla_ref(const hm_concat_and_cache_mla_args *args) {
    hm_concat_and_cache_mla_args a;
    hm_mla_cache c;
    hm_status s = hm_concat_and_cache_mla_read(args, &a, &c);
    if (s) return s;
    if (a.kv_c.place != HM_HOST) return hm_fail(HM_UNSUPPORTED, "concat_and_cache_mla: ref works on host tensors only");
    int64_t tokens = a.kv_c.shape[0], elements = tokens * c.entry;
    if (c.entry == 0) return HM_OK;
#pragma omp parallel for schedule(static) if (elements > 16384)
    for (int64_t t = 0; t < tokens; t++) write_token(&a, &c, t);
    return HM_OK;
}
