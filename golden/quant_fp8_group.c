/* quant_fp8_group: the admissible scales of a group, and the admissible codes for the scale that was stored; fp8.h
 * decides. */
#include "../op/quant_fp8_group.h"

#include <math.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "fp8.h"

typedef struct {
    hm_quant_fp8_group_args a;
    hm_fp8_rule rule;
    int64_t groups; /* of a row */
    double *stored; /* scales, row by row; NULL before they were seen */
} context_t;

enum { CODES = 2, SCALE = 1 }; /* arguments in the order of the description table */

static hm_status open_context(const void *args, int threads, void **context) {
    (void)threads;
    context_t *c = calloc(1, sizeof *c);
    if (!c) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    hm_status s = hm_quant_fp8_group_read(args, &c->a);
    if (s) {
        free(c);
        return s;
    }
    c->rule = (hm_fp8_rule){.codes = c->a.codes.dtype,
                            .divisor = c->a.divisor,
                            .floor = c->a.floor,
                            .floor_on_scale = c->a.floor_on == HM_FLOOR_SCALE,
                            .power_of_two = c->a.scale_format == HM_SCALE_UE8M0,
                            .operands_f32 = c->a.x.dtype == HM_F32,
                            .reciprocal = c->a.divide == HM_QUANT_RECIPROCAL,
                            .overflow = c->a.overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE};
    c->groups = c->a.scale.shape[c->a.scale.ndim - 1];
    *context = c;
    return HM_OK;
}

static void close_context(void *context) {
    free(((context_t *)context)->stored);
    free(context);
}

static hm_status observe(void *context, int arg, const hm_tensor *stored, int threads) {
    (void)threads;
    context_t *c = context;
    if (arg != SCALE) return HM_OK;
    int64_t rows = hm_tensor_elements(stored) ? hm_row_count(stored) : 0, step = stored->stride[stored->ndim - 1];
    if (!c->stored) c->stored = malloc((size_t)(rows * c->groups) * sizeof *c->stored + 1);
    if (!c->stored) return hm_fail(HM_NO_MEMORY, "golden: no memory for the scales");
    for (int64_t r = 0; r < rows; r++)
        hm_load_row(stored->dtype,
                    (const char *)stored->data + hm_row_offset(stored, r) * (int64_t)hm_dtype_size(stored->dtype), step,
                    c->groups, c->stored + r * c->groups);
    return HM_OK;
}

static double element(const context_t *c, int64_t row, int64_t i) {
    const hm_tensor *x = &c->a.x;
    return hm_load(x->dtype, (const char *)x->data + (hm_row_offset(x, row) + i * x->stride[x->ndim - 1]) *
                                                         (int64_t)hm_dtype_size(x->dtype));
}

static hm_fp8_scales scales_of(const context_t *c, int64_t row, int64_t group, hm_class class) {
    const hm_tensor *x = &c->a.x;
    int64_t step = x->stride[x->ndim - 1], at = hm_row_offset(x, row) + group * c->a.group_size * step;
    return hm_fp8_scales_of(&c->rule, x->dtype, (const char *)x->data + at * (int64_t)hm_dtype_size(x->dtype), step,
                            c->a.group_size, class);
}

static hm_status scale_row(const context_t *c, int64_t row, hm_class class, hm_golden_row *out) {
    for (int64_t g = 0; g < c->groups; g++) {
        hm_fp8_scales s = scales_of(c, row, g, class);
        out->lo[g] = s.lo, out->hi[g] = s.hi;
        out->flags[g] = s.nan || s.infinite ? HM_GOLD_UNSPECIFIED : 0;
        if (out->ideal) out->ideal[g] = s.ideal;
        if (out->exact) out->exact[g] = s.exact;
        if (!s.two) continue;
        out->flags[g] |= HM_GOLD_GAPS;
        hm_golden_parts parts = {.index = g, .n = 2, .lo = {s.lo, s.hi}, .hi = {s.lo, s.hi}};
        if (!hm_golden_add_parts(out, &parts)) return hm_fail(HM_NO_MEMORY, "golden: no memory");
    }
    return HM_OK;
}

/* ---- codes ---- */

static void specify(const context_t *c, const uint8_t code[2], int64_t i, hm_golden_row *out) {
    double v[2] = {hm_load8(c->rule.codes, code[0]), hm_load8(c->rule.codes, code[1])};
    out->lo[i] = v[0], out->hi[i] = v[1], out->flags[i] = 0;
    if (isnan(v[0]) && isnan(v[1])) out->flags[i] = HM_GOLD_NAN;
    else if (isnan(v[0]) || isnan(v[1])) out->flags[i] = HM_GOLD_UNSPECIFIED; /* NaN, or the largest value */
    else if (code[0] == code[1]) {
        out->flags[i] = HM_GOLD_BITS;
        if (out->bits) out->bits[i] = code[0];
    }
}

static hm_status codes_row(const context_t *c, int64_t row, hm_class class, hm_golden_row *out) {
    for (int64_t g = 0; g < c->groups; g++) {
        hm_fp8_scales s = scales_of(c, row, g, class);
        double S_low = s.lo, S_high = s.hi, S = s.ideal;
        if (c->stored) S_low = S_high = S = c->stored[row * c->groups + g];
        bool usable = hm_fp8_usable(S) && !s.nan && !s.infinite;
        for (int64_t k = 0; k < c->a.group_size; k++) {
            int64_t i = g * c->a.group_size + k;
            double x = element(c, row, i);
            uint8_t code[2];
            out->lo[i] = out->hi[i] = NAN, out->flags[i] = HM_GOLD_NAN;
            if (out->ideal) out->ideal[i] = NAN;
            if (out->exact) out->exact[i] = NAN;
            if (isnan(x)) continue;
            out->flags[i] = usable ? 0 : HM_GOLD_UNSPECIFIED;
            if (!usable) continue;
            hm_fp8_codes_of(&c->rule, x, S_low, S_high, class, code);
            specify(c, code, i, out);
            if (out->ideal) out->ideal[i] = hm_load8(c->rule.codes, hm_fp8_ideal_code(&c->rule, x, S));
            if (out->exact) out->exact[i] = x / S;
        }
    }
    return HM_OK;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)tier; /* binary64 decides everything: see above */
    return arg == SCALE ? scale_row(context, row, class, out) : codes_row(context, row, class, out);
}

/* numerator / (denominator ulp), got as near to n / d as it is: got d is exact in binary64, and the difference is
 * rounded once; one step up covers that and the division. */
static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    const context_t *c = context;
    int64_t g = arg == SCALE ? index : index / c->a.group_size;
    hm_fp8_scales s = scales_of(c, row, g, HM_WIDE);
    double S = c->stored ? c->stored[row * c->groups + g] : s.ideal;
    if (arg == SCALE) {
        double d = fabs(got - s.exact) / hm_ulp(c->a.scale.dtype, s.exact);
        return isfinite(got) ? hm_round_up4(d == 0 ? 0 : nextafter(d, INFINITY)) : INFINITY;
    }
    double x = element(c, row, index), d = fabs(got * S - x) / (S * hm_ulp(c->a.codes.dtype, x / S));
    return isfinite(d) ? hm_round_up4(d == 0 ? 0 : nextafter(d, INFINITY)) : INFINITY;
}

const hm_golden_op hm_quant_fp8_group_golden = {"quant_fp8_group", open_context, close_context, row_of,
                                                distance,          observe};
