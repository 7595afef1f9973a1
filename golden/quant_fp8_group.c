/* quant_fp8_group: the admissible scales of a group, and the admissible codes for the scale that was stored.
 *
 * Everything is decided in binary64 without a second tier. x, divisor, floor and a stored scale are f32 values (24 bits); a
 * product of two is exact. A quotient of two rounded to binary64 is rounded again to f32 or 8 bits only where the contract
 * asks for the quotient's rounding (wide), and then like the exact one: a boundary of the target has at most 25 bits, so
 * that quotient and boundary are equal or at least 2^-49 apart, relatively, and binary64 errs by 2^-53. */
#include "../op/quant_fp8_group.h"

#include <math.h>
#include <stdlib.h>

#include "../op/check.h"
#include "../op/dtype.h"
#include "../op/fp8.h"
#include "op.h"

typedef struct {
    hm_quant_fp8_group_args a;
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

/* ---- scales ---- */

typedef struct {
    double lo, hi; /* the ends; with `two`, the only two */
    double ideal, exact;
    bool two;
    bool nan, infinite; /* there is one in the group */
} scales;

/* A division, or a multiplication by a rounded reciprocal, in f32: within 2^-22. In ue8m0 that matters only next to a power
 * of two, and there only for operands of more than 16 bits: a 16-bit a over D = 448 or 224 (3 bits), or any a and D whose
 * quotient is a power of two exactly, is computed as that power or from its own side. For other pairs the margin of 2^-21
 * covers both the quotient's error and that of a logarithm. */
static scales scales_of(const context_t *c, int64_t row, int64_t group, hm_class class) {
    const hm_quant_fp8_group_args *a = &c->a;
    scales s = {0};
    double amax = 0, D = a->divisor;
    for (int64_t i = 0; i < a->group_size; i++) {
        double v = fabs(element(c, row, group * a->group_size + i));
        s.nan |= isnan(v), s.infinite |= isinf(v);
        amax = v > amax ? v : amax;
    }
    if (s.nan || s.infinite) return s;
    bool on_amax = a->floor_on == HM_FLOOR_AMAX, floored = on_amax && amax < a->floor;
    if (floored) amax = a->floor;
    double least = on_amax ? 0 : a->floor, q = amax / D;
    if (a->scale_format == HM_SCALE_F32) {
        double slack = class == HM_WIDE ? 0 : 0x1p-22;
        s.exact = q > least ? q : least;
        s.lo = hm_round_to(HM_F32, q * (1 - slack)), s.hi = hm_round_to(HM_F32, q * (1 + slack));
        s.ideal = hm_round_to(HM_F32, q);
        s.lo = s.lo > least ? s.lo : least, s.hi = s.hi > least ? s.hi : least;
        s.ideal = s.ideal > least ? s.ideal : least;
        return s;
    }
    double low = 0, high = 0, ideal = 0;
    if (amax > 0) {
        low = high = ideal = hm_two_to(hm_ue8m0_exponent(amax, D));
        double below = ideal / 2; /* the powers of two on either side of q; products of 24 and 22 bits are exact */
        bool wide_operand = a->x.dtype == HM_F32 || floored;
        if (class != HM_WIDE && wide_operand && amax <= below * D * (1 + 0x1p-21)) low = below;
        if (class != HM_WIDE && wide_operand && amax >= ideal * D * (1 - 0x1p-21)) high = 2 * ideal;
    }
    least = on_amax ? 0 : hm_two_to(hm_ue8m0_exponent(a->floor, 1));
    s.lo = low > least ? low : least, s.hi = high > least ? high : least;
    s.ideal = s.exact = ideal > least ? ideal : least;
    s.two = s.lo != s.hi;
    return s;
}

static hm_status scale_row(const context_t *c, int64_t row, hm_class class, hm_golden_row *out) {
    for (int64_t g = 0; g < c->groups; g++) {
        scales s = scales_of(c, row, g, class);
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

static bool power_of_two(double v) {
    int exponent;
    return frexp(v, &exponent) == 0.5;
}

/* x / S, or x times the reciprocal, before it is rounded to 8 bits; the ends for the class. */
static void quotient(const context_t *c, double x, double S, hm_class class, double *low, double *high) {
    bool reciprocal = c->a.divide == HM_QUANT_RECIPROCAL;
    double q = reciprocal ? x * hm_round_to(HM_F32, 1 / S) : x / S, slack = 0;
    /* One f32 division; or one and a multiplication, of an operand that is itself off by 2^-24. Both are exact for a power
     * of two (S is at least 2^-126, and a quotient below f32's normal numbers is far below the least code). */
    if (class != HM_WIDE && !power_of_two(S)) slack = (reciprocal ? 3 : 1) * 0x1p-24, q = reciprocal ? x / S : q;
    *low = q * (1 - slack), *high = q * (1 + slack);
    if (class != HM_WIDE && fabs(x) < 0x1p-126) *low = copysign(0, x); /* an f32 subnormal may be read as 0 */
    if (*low > *high) {
        double kept = *low;
        *low = *high, *high = kept;
    }
}

static void specify(const context_t *c, double x, double low, double high, int64_t i, hm_golden_row *out) {
    hm_dtype F = c->a.codes.dtype;
    hm_overflow overflow = c->a.overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    uint8_t code[2] = {hm_store8(F, low, overflow), hm_store8(F, high, overflow)};
    double v[2] = {hm_load8(F, code[0]), hm_load8(F, code[1])};
    if (low == 0 && high == 0) code[0] = code[1] = hm_store8(F, copysign(0, x), overflow); /* a zero has x's sign */
    out->lo[i] = v[0], out->hi[i] = v[1];
    if (isnan(v[0]) && isnan(v[1])) out->flags[i] = HM_GOLD_NAN;
    else if (isnan(v[0]) || isnan(v[1])) out->flags[i] = HM_GOLD_UNSPECIFIED; /* NaN, or the largest value */
    else if (code[0] == code[1]) {
        out->flags[i] = HM_GOLD_BITS;
        if (out->bits) out->bits[i] = code[0];
    }
}

static hm_status codes_row(const context_t *c, int64_t row, hm_class class, hm_golden_row *out) {
    hm_overflow overflow = c->a.overflow == HM_FP8_IEEE ? HM_OVERFLOW_IEEE : HM_OVERFLOW_SATURATE;
    for (int64_t g = 0; g < c->groups; g++) {
        scales s = scales_of(c, row, g, class);
        double S_low = s.lo, S_high = s.hi, S = s.ideal;
        if (c->stored) S_low = S_high = S = c->stored[row * c->groups + g];
        bool usable = S > 0 && S < INFINITY && !s.nan && !s.infinite;
        for (int64_t k = 0; k < c->a.group_size; k++) {
            int64_t i = g * c->a.group_size + k;
            double x = element(c, row, i), low, high, other[2];
            out->lo[i] = out->hi[i] = NAN, out->flags[i] = HM_GOLD_NAN;
            if (out->ideal) out->ideal[i] = NAN;
            if (out->exact) out->exact[i] = NAN;
            if (isnan(x)) continue;
            out->flags[i] = usable ? 0 : HM_GOLD_UNSPECIFIED;
            if (!usable) continue;
            quotient(c, x, S_high, class, &low, &high);
            quotient(c, x, S_low, class, &other[0], &other[1]);
            low = other[0] < low ? other[0] : low, high = other[1] > high ? other[1] : high;
            specify(c, x, low, high, i, out);
            quotient(c, x, S, HM_WIDE, &other[0], &other[1]);
            if (out->ideal) out->ideal[i] = hm_load8(c->a.codes.dtype, hm_store8(c->a.codes.dtype, other[0], overflow));
            if (out->exact) out->exact[i] = x / S;
        }
    }
    return HM_OK;
}

static hm_status row_of(const void *context, int arg, int64_t row, hm_class class, hm_tier tier, hm_golden_row *out) {
    (void)tier; /* binary64 decides everything: see above */
    return arg == SCALE ? scale_row(context, row, class, out) : codes_row(context, row, class, out);
}

/* numerator / (denominator ulp), got as near to n / d as it is: got d is exact in binary64, and the difference is rounded
 * once; one step up covers that and the division. */
static double distance(const void *context, int arg, int64_t row, int64_t index, double got) {
    const context_t *c = context;
    int64_t g = arg == SCALE ? index : index / c->a.group_size;
    scales s = scales_of(c, row, g, HM_WIDE);
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
