/* Legal ways to compute quant_fp8_group: genuine f32 arithmetic, with every way to a scale that kernels take. */
#include <float.h>
#include <hallmark/quant_fp8_group.h>
#include <math.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/quant_fp8_group.h"
#include "tables.h"

typedef struct {
    enum {
        RATIO_DIVIDED = 0,
        RATIO_MULTIPLIED, /* by the rounded reciprocal of the divisor */
        RATIO_HIGH,       /* as far above as an approximate division may lie */
        RATIO_LOW,
        RATIO_NEXT, /* one step of f32 above */
        RATIO_WIDE
    } ratio;
    enum { POWER_BY_BITS = 0, POWER_BY_LOGARITHM } power;
    enum { CODE_F32 = 0, CODE_WIDE } code;
    bool backward; /* groups from the last to the first, elements as well */
    bool flush;    /* f32 subnormals are 0 */
} variant;

static float flushed(const variant *v, float x) { return v->flush && fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

static float ratio(const variant *v, float amax, float divisor) {
    float r = amax / divisor;
    switch (v->ratio) {
        case RATIO_MULTIPLIED:
            return amax * (1 / divisor);
        case RATIO_HIGH:
            return (float)((double)amax / (double)divisor * (1 + 0x1.fp-23));
        case RATIO_LOW:
            return (float)((double)amax / (double)divisor * (1 - 0x1.fp-23));
        case RATIO_NEXT:
            return nextafterf(r, INFINITY);
        case RATIO_WIDE:
            return (float)((double)amax / (double)divisor);
        default:
            return r;
    }
}

static float power_up(const variant *v, float r) {
    int exponent;
    if (v->power == POWER_BY_LOGARITHM) return exp2f(ceilf(log2f(r)));
    float fraction = frexpf(r, &exponent);
    return ldexpf(1, fraction == 0.5f ? exponent - 1 : exponent);
}

static void quantise(const variant *v, const hm_quant_fp8_group_args *a, int64_t row, int64_t group) {
    const hm_tensor *x = &a->x, *codes = &a->codes, *scale = &a->scale;
    int last = x->ndim - 1;
    int64_t size = (int64_t)hm_dtype_size(x->dtype), first = group * a->group_size;
    const char *from = (const char *)x->data + (hm_row_offset(x, row) + first * x->stride[last]) * size;
    uint8_t *to = (uint8_t *)codes->data + hm_row_offset(codes, row) + first * codes->stride[last];
    float amax = 0, floor_at = (float)a->floor, divisor = (float)a->divisor;
    for (int64_t i = 0; i < a->group_size; i++) {
        int64_t k = v->backward ? a->group_size - 1 - i : i;
        amax = fmaxf(amax, fabsf(flushed(v, (float)hm_load(x->dtype, from + k * x->stride[last] * size))));
    }
    if (a->floor_on == HM_FLOOR_AMAX) amax = fmaxf(amax, floor_at);
    float S = ratio(v, amax, divisor);
    /* Approximations are for scales that are not rounded up: a power of two needs the division itself. */
    if (a->scale_format == HM_SCALE_UE8M0 && v->ratio != RATIO_MULTIPLIED) S = amax / divisor;
    if (a->floor_on == HM_FLOOR_SCALE) S = fmaxf(S, floor_at);
    if (a->scale_format == HM_SCALE_UE8M0) S = power_up(v, S);
    hm_store(scale->dtype,
             (char *)scale->data +
                 (hm_row_offset(scale, row) + group * scale->stride[last]) * (int64_t)hm_dtype_size(scale->dtype),
             (double)S);
    float inverse = 1 / S;
    hm_overflow overflow = a->overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    for (int64_t i = 0; i < a->group_size; i++) {
        int64_t k = v->backward ? a->group_size - 1 - i : i;
        float e = flushed(v, (float)hm_load(x->dtype, from + k * x->stride[last] * size));
        double q = (double)(a->divide == HM_QUANT_RECIPROCAL ? e * inverse : e / S);
        if (v->code == CODE_WIDE)
            q = a->divide == HM_QUANT_RECIPROCAL ? (double)e * (double)inverse : (double)e / (double)S;
        to[k * codes->stride[last]] = hm_store8(codes->dtype, q, overflow);
    }
}

static hm_status run(const void *variation, const void *args) {
    const variant *v = variation;
    hm_quant_fp8_group_args a;
    hm_status status = hm_quant_fp8_group_read(args, &a);
    int64_t rows = status || !hm_tensor_elements(&a.x) ? 0 : hm_row_count(&a.x);
    int64_t groups = rows ? a.scale.shape[a.scale.ndim - 1] : 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++) quantise(v, &a, row, v->backward ? groups - 1 - g : g);
    return status;
}

#define VARIANT(what, about, class_name, ...)                                                                \
    {                                                                                                        \
        "quant_fp8_group." what, "quant_fp8_group", about, class_name, run, &(const variant) { __VA_ARGS__ } \
    }
const hm_variant hm_quant_fp8_group_variants[] = {
    VARIANT("f32", "f32 divisions, exponent from the bits", "chain64", 0),
    VARIANT("multiplied", "the maximum times the rounded reciprocal of the divisor", "chain64",
            .ratio = RATIO_MULTIPLIED),
    VARIANT("ratio_high", "an approximate division, high", "chain64", .ratio = RATIO_HIGH),
    VARIANT("ratio_low", "an approximate division, low", "chain64", .ratio = RATIO_LOW),
    VARIANT("logarithm", "exponent by log2f and ceilf, backward", "chain64", .power = POWER_BY_LOGARITHM,
            .backward = true),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .flush = true, .ratio = RATIO_NEXT, .code = CODE_WIDE),
    VARIANT("wide", "binary64", "wide", .ratio = RATIO_WIDE, .code = CODE_WIDE, .backward = true),
};
const int hm_quant_fp8_group_variant_count = sizeof hm_quant_fp8_group_variants / sizeof *hm_quant_fp8_group_variants;
