/* Legal ways to write the cache of latent attention. */
#include "../../op/concat_and_cache_mla.h"

#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "fp8.h"
#include "tables.h"

enum { TILE = HM_MLA_TILE };

typedef struct {
    hm_fp8_variant fp8;
    bool rope_first; /* written before the codes */
    bool by_bytes;   /* copies go byte by byte, from the last to the first */
} variation_t;

static const char *element(const hm_tensor *t, int64_t token, int64_t d) {
    return (const char *)t->data + (token * t->stride[0] + d * t->stride[1]) * (int64_t)hm_dtype_size(t->dtype);
}

static void copy(const variation_t *v, const hm_tensor *t, int64_t token, unsigned char *to, int64_t step) {
    int64_t n = t->shape[1], size = (int64_t)hm_dtype_size(t->dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t d = v->by_bytes ? n - 1 - i : i;
        if (!v->by_bytes) memcpy(to + d * step, element(t, token, d), (size_t)size);
        else
            for (int64_t b = size - 1; b >= 0; b--) to[d * step + b] = (unsigned char)element(t, token, d)[b];
    }
}

static void write_tile(const variation_t *v, const hm_concat_and_cache_mla_args *a, int64_t token, int64_t tile,
                       unsigned char *entry) {
    float amax = 0, x[TILE];
    for (int i = 0; i < TILE; i++) {
        x[i] = hm_fp8_variant_operand(&v->fp8, hm_load(a->kv_c.dtype, element(&a->kv_c, token, tile * TILE + i)));
        amax = fmaxf(amax, fabsf(x[i]));
    }
    float S =
        hm_fp8_variant_scale(&v->fp8, amax, 448, (float)hm_mla_floor(a->scale), true, a->scale == HM_MLA_SCALE_POW2);
    for (int k = 0; k < TILE; k++) {
        int i = v->fp8.backward ? TILE - 1 - k : k;
        entry[tile * TILE + i] =
            hm_store8(HM_F8E4M3, hm_fp8_variant_quotient(&v->fp8, x[i], S, false), HM_OVERFLOW_SATURATE);
    }
    memcpy(entry + hm_mla_scale_byte(tile), &S, sizeof S);
}

static void write_token(const variation_t *v, const hm_concat_and_cache_mla_args *a, const hm_mla_cache *c,
                        int64_t token) {
    int64_t slot = hm_slot_at(&a->slot_mapping, token);
    if (slot < 0) return;
    unsigned char *entry = hm_mla_row(c, slot);
    bool ds = c->format == HM_MLA_FP8_DS;
    int64_t step = ds ? 2 : c->element_stride, rope = ds ? HM_MLA_ROPE_AT : a->kv_c.shape[1] * step;
    if (v->rope_first) copy(v, &a->k_pe, token, entry + rope, step);
    if (!ds) copy(v, &a->kv_c, token, entry, step);
    for (int64_t i = 0; ds && i < HM_MLA_TILES; i++)
        write_tile(v, a, token, v->fp8.backward ? HM_MLA_TILES - 1 - i : i, entry);
    if (!v->rope_first) copy(v, &a->k_pe, token, entry + rope, step);
}

static hm_status run(const void *variation, const void *args) {
    const variation_t *v = variation;
    hm_concat_and_cache_mla_args a;
    hm_mla_cache c;
    hm_status status = hm_concat_and_cache_mla_read(args, &a, &c);
    int64_t tokens = status || !c.entry ? 0 : a.slot_mapping.shape[0];
    for (int64_t i = 0; i < tokens; i++) write_token(v, &a, &c, v->fp8.backward ? tokens - 1 - i : i);
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                                \
    {                                                                                                        \
        "concat_and_cache_mla." what, "concat_and_cache_mla", about, class_name, run, &(const variation_t) { \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
const hm_variant hm_concat_and_cache_mla_variants[] = {
    VARIANT("f32", "f32 divisions, exponent from the bits", "chain64", .rope_first = false),
    VARIANT("multiplied", "the maximum times the rounded reciprocal of 448", "chain64",
            .fp8 = {.ratio = RATIO_MULTIPLIED}),
    VARIANT("ratio_high", "an approximate division, high", "chain64", .fp8 = {.ratio = RATIO_HIGH}, .rope_first = true),
    VARIANT("ratio_low", "an approximate division, low", "chain64", .fp8 = {.ratio = RATIO_LOW}, .by_bytes = true),
    VARIANT("logarithm", "exponent by log2f and ceilf, backward", "chain64",
            .fp8 = {.power = POWER_BY_LOGARITHM, .ratio = RATIO_BEFORE, .backward = true}),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .fp8 = {.flush = true, .ratio = RATIO_NEXT, .code = CODE_WIDE}),
    VARIANT("wide", "binary64", "wide", .fp8 = {.ratio = RATIO_WIDE, .code = CODE_WIDE, .backward = true},
            .rope_first = true),
};
const int hm_concat_and_cache_mla_variant_count =
    sizeof hm_concat_and_cache_mla_variants / sizeof *hm_concat_and_cache_mla_variants;
