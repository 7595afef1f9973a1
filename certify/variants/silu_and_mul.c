/* Legal ways to compute silu_and_mul, in genuine f32. */
#include <float.h>
#include <hallmark/silu_and_mul.h>
#include <math.h>

#include "../../op/check.h"
#include "../../op/dtype.h"
#include "../../op/silu_and_mul.h"
#include "../../ref/math.h"
#include "tables.h"

typedef struct {
    enum { FORM_QUOTIENT = 0, FORM_SIGMOID, FORM_TWO_SIDED, FORM_UP_FIRST, FORM_EXP2, FORM_RECIPROCAL } form;
    int ulps; /* the exponential is this far off */
    bool flush, wide, backward;
} variant_t;

static float f(const variant_t *v, float a) { return v->flush && fabsf(a) < FLT_MIN ? copysignf(0, a) : a; }

static float off(float a, int ulps) {
    for (; ulps > 0 && isfinite(a) && a > 0; ulps--) a = nextafterf(a, INFINITY);
    for (; ulps < 0 && isfinite(a) && a > 0; ulps++) a = nextafterf(a, 0);
    return a;
}

static float exponential(const variant_t *v, float a) {
    if (v->form != FORM_EXP2) return f(v, off((float)hm_exp((double)a), v->ulps));
    float t = a * 0x1.715476p0f; /* log2 e in f32 */
    return f(v, off((float)hm_exp((double)t * 0x1.62e42fefa39efp-1), v->ulps));
}

static float sigmoid(const variant_t *v, float g) {
    if (v->form == FORM_TWO_SIDED && g < 0) {
        float e = exponential(v, g);
        return f(v, e / (1 + e));
    }
    float sum = 1 + exponential(v, -g);
    return v->form == FORM_RECIPROCAL && isfinite(sum) ? f(v, off(1 / sum, 1)) : f(v, 1 / sum);
}

static double element(const variant_t *v, hm_silu_round round, hm_dtype T, double g, double u) {
    if (v->wide) {
        double s = g * (1 / (1 + hm_exp(-g)));
        return round == HM_SILU_EACH ? hm_round_to(T, s) * u : s * u;
    }
    float x = f(v, (float)g), y = f(v, (float)u), s;
    if (v->form == FORM_QUOTIENT || v->form == FORM_EXP2) s = f(v, x / (1 + exponential(v, -x)));
    else s = f(v, x * sigmoid(v, x));
    if (round == HM_SILU_EACH) s = f(v, (float)hm_round_to(T, (double)s));
    return (double)f(v, v->form == FORM_UP_FIRST ? y * s : s * y);
}

static hm_status run(const void *variation, const void *args) {
    const variant_t *v = variation;
    hm_silu_and_mul_args a;
    hm_status status = hm_silu_and_mul_read(args, &a);
    if (status || !hm_tensor_elements(&a.out)) return status;
    const hm_tensor *x = &a.x, *out = &a.out;
    int last = x->ndim - 1;
    int64_t rows = hm_row_count(out), hidden = out->shape[last], size = (int64_t)hm_dtype_size(x->dtype);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < hidden; k++) {
            int64_t i = v->backward ? hidden - 1 - k : k;
            const char *from = (const char *)x->data + hm_row_offset(x, row) * size;
            double g = hm_load(x->dtype, from + i * x->stride[last] * size),
                   u = hm_load(x->dtype, from + (hidden + i) * x->stride[last] * size);
            hm_store(x->dtype, (char *)out->data + (hm_row_offset(out, row) + i * out->stride[last]) * size,
                     element(v, a.round, x->dtype, g, u));
        }
    return HM_OK;
}

#define VARIANT(what, about, class_name, ...)                                                            \
    {                                                                                                    \
        "silu_and_mul." what, "silu_and_mul", about, class_name, run, &(const variant_t) { __VA_ARGS__ } \
    }
const hm_variant hm_silu_and_mul_variants[] = {
    VARIANT("quotient", "as it is written", "chain64", 0),
    VARIANT("sigmoid", "the gate times its sigmoid", "chain64", .form = FORM_SIGMOID, .backward = true),
    VARIANT("two_sided", "the sigmoid from the exponential that does not overflow", "chain64", .form = FORM_TWO_SIDED),
    VARIANT("up_first", "operands in the other order", "chain64", .form = FORM_UP_FIRST, .ulps = 1),
    VARIANT("exp2", "exp2 of the product with log2 e", "chain64", .form = FORM_EXP2, .ulps = 1),
    VARIANT("exp_above", "an exponential 2 ulp too large", "chain64", .ulps = 2),
    VARIANT("exp_below", "an exponential 2 ulp too small", "chain64", .ulps = -2, .form = FORM_SIGMOID),
    VARIANT("reciprocal", "a reciprocal 1 ulp off", "chain64", .form = FORM_RECIPROCAL),
    VARIANT("flush", "f32 subnormals are 0", "chain64", .flush = true, .form = FORM_SIGMOID),
    VARIANT("wide", "binary64, the gate times its sigmoid", "wide", .wide = true),
};
const int hm_silu_and_mul_variant_count = sizeof hm_silu_and_mul_variants / sizeof *hm_silu_and_mul_variants;
