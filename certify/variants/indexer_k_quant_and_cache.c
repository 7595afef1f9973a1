/* Legal ways to write the indexer's cache. */
#include <hallmark/indexer_k_quant_and_cache.h>
#include <math.h>
#include <string.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/indexer_cache.h"
#include "fp8.h"
#include "tables.h"

enum { GROUP = HM_INDEXER_GROUP };

static void write_group(const hm_fp8_variant *v, const hm_indexer_k_quant_and_cache_args *a, const hm_indexer_cache *c,
                        int64_t token, int64_t slot, int64_t g) {
    unsigned char *block = hm_indexer_block(c, slot / c->block_size);
    int64_t offset = slot % c->block_size, size = (int64_t)hm_dtype_size(a->k.dtype);
    const char *k = (const char *)a->k.data + (token * a->k.stride[0] + g * GROUP * a->k.stride[1]) * size;
    bool fnuz = a->code_format == HM_CODE_E4M3FNUZ;
    float amax = 0, x[GROUP];
    for (int d = 0; d < GROUP; d++) {
        x[d] = hm_fp8_variant_operand(v, hm_load(a->k.dtype, k + d * a->k.stride[1] * size));
        amax = fmaxf(amax, fabsf(x[d]));
    }
    float S =
        hm_fp8_variant_scale(v, amax, fnuz ? 224 : 448, (float)a->floor, false, a->scale_format == HM_SCALE_UE8M0);
    for (int i = 0; i < GROUP; i++) {
        int d = v->backward ? GROUP - 1 - i : i;
        block[hm_indexer_code_byte(c, offset, g * GROUP + d)] = hm_store8(
            fnuz ? HM_F8E4M3FNUZ : HM_F8E4M3, hm_fp8_variant_quotient(v, x[d], S, false), HM_OVERFLOW_SATURATE);
    }
    memcpy(block + hm_indexer_scale_byte(c, offset, g), &S, sizeof S);
}

static hm_status run(const void *variation, const void *args) {
    const hm_fp8_variant *v = variation;
    hm_indexer_k_quant_and_cache_args a;
    hm_indexer_cache c;
    hm_status status = hm_indexer_k_quant_and_cache_read(args, &a, &c);
    int64_t tokens = status || !hm_tensor_elements(&a.k) ? 0 : a.k.shape[0];
    for (int64_t i = 0; i < tokens; i++) {
        int64_t token = v->backward ? tokens - 1 - i : i, slot = hm_integer_at(&a.slot_mapping, token);
        for (int64_t g = 0; g < c.groups && slot >= 0; g++) write_group(v, &a, &c, token, slot, g);
    }
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                   \
    {                                                                                           \
        "indexer_k_quant_and_cache." what, "indexer_k_quant_and_cache", about, class_name, run, \
            &(const hm_fp8_variant) {                                                           \
            __VA_ARGS__                                                                         \
        }                                                                                       \
    }
const hm_variant hm_indexer_k_quant_and_cache_variants[] = {
    VARIANT("f32", "f32 divisions, exponent from the bits", "chain64", 0),
    VARIANT("multiplied", "the maximum times the rounded reciprocal of the divisor", "chain64",
            .ratio = RATIO_MULTIPLIED),
    VARIANT("ratio_high", "an approximate division, high", "chain64", .ratio = RATIO_HIGH),
    VARIANT("ratio_low", "an approximate division, low", "chain64", .ratio = RATIO_LOW),
    VARIANT("logarithm", "exponent by log2f and ceilf, backward", "chain64", .power = POWER_BY_LOGARITHM,
            .ratio = RATIO_BEFORE, .backward = true),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .flush = true, .ratio = RATIO_NEXT, .code = CODE_WIDE),
    VARIANT("wide", "binary64", "wide", .ratio = RATIO_WIDE, .code = CODE_WIDE, .backward = true),
};
const int hm_indexer_k_quant_and_cache_variant_count =
    sizeof hm_indexer_k_quant_and_cache_variants / sizeof *hm_indexer_k_quant_and_cache_variants;
