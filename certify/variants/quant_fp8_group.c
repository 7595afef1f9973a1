/* Legal ways to compute quant_fp8_group. */
#include <hallmark/quant_fp8_group.h>
#include <math.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/quant_fp8_group.h"
#include "fp8.h"
#include "tables.h"

static void quantise(const hm_fp8_variant *v, const hm_quant_fp8_group_args *a, int64_t row, int64_t group) {
    const hm_tensor *x = &a->x, *codes = &a->codes, *scale = &a->scale;
    int last = x->ndim - 1;
    int64_t size = (int64_t)hm_dtype_size(x->dtype), first = group * a->group_size;
    const char *from = (const char *)x->data + (hm_row_offset(x, row) + first * x->stride[last]) * size;
    uint8_t *to = (uint8_t *)codes->data + hm_row_offset(codes, row) + first * codes->stride[last];
    float amax = 0, floor_at = (float)a->floor, divisor = (float)a->divisor;
    for (int64_t i = 0; i < a->group_size; i++) {
        int64_t k = v->backward ? a->group_size - 1 - i : i;
        amax = fmaxf(amax, fabsf(hm_fp8_variant_operand(v, hm_load(x->dtype, from + k * x->stride[last] * size))));
    }
    float S = hm_fp8_variant_scale(v, amax, divisor, floor_at, a->floor_on == HM_FLOOR_SCALE,
                                   a->scale_format == HM_SCALE_UE8M0);
    hm_store(scale->dtype,
             (char *)scale->data +
                 (hm_row_offset(scale, row) + group * scale->stride[last]) * (int64_t)hm_dtype_size(scale->dtype),
             (double)S);
    hm_overflow overflow = a->overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    for (int64_t i = 0; i < a->group_size; i++) {
        int64_t k = v->backward ? a->group_size - 1 - i : i;
        float e = hm_fp8_variant_operand(v, hm_load(x->dtype, from + k * x->stride[last] * size));
        to[k * codes->stride[last]] =
            hm_store8(codes->dtype, hm_fp8_variant_quotient(v, e, S, a->divide == HM_QUANT_RECIPROCAL), overflow);
    }
}

static hm_status run(const void *variation, const void *args) {
    const hm_fp8_variant *v = variation;
    hm_quant_fp8_group_args a;
    hm_status status = hm_quant_fp8_group_read(args, &a);
    int64_t rows = status || !hm_tensor_elements(&a.x) ? 0 : hm_row_count(&a.x);
    int64_t groups = rows ? a.scale.shape[a.scale.ndim - 1] : 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++) quantise(v, &a, row, v->backward ? groups - 1 - g : g);
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                                       \
    {                                                                                                               \
        "quant_fp8_group." what, "quant_fp8_group", about, class_name, run, &(const hm_fp8_variant) { __VA_ARGS__ } \
    }
const hm_variant hm_quant_fp8_group_variants[] = {
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
const int hm_quant_fp8_group_variant_count = sizeof hm_quant_fp8_group_variants / sizeof *hm_quant_fp8_group_variants;
