#include "fp8.h"

#include <math.h>

#include "../op/fp8.h"

/* ---- scales ---- */

/* A division, or a multiplication by a rounded reciprocal, in f32: within 2^-22. In ue8m0 that matters only next to a
 * power of two, and there only for operands of more than 16 bits: a 16-bit a over D = 448 or 224 (3 bits), or any a and
 * D whose quotient is a power of two exactly, is computed as that power or from its own side. For other pairs the
 * margin of 2^-21 covers both the quotient's error and that of a logarithm. */
hm_fp8_scales hm_fp8_scales_of(const hm_fp8_rule *rule, hm_dtype dtype, const void *x, int64_t stride, int64_t n,
                               hm_class c) {
    hm_fp8_scales s = {0};
    double amax = 0, D = rule->divisor;
    for (int64_t i = 0; i < n; i++) {
        double v = fabs(hm_load(dtype, (const char *)x + i * stride * (int64_t)hm_dtype_size(dtype)));
        s.nan |= isnan(v), s.infinite |= isinf(v);
        amax = v > amax ? v : amax;
    }
    if (s.nan || s.infinite) return s;
    bool floored = !rule->floor_on_scale && amax < rule->floor;
    if (floored) amax = rule->floor;
    double least = rule->floor_on_scale ? rule->floor : 0, q = amax / D;
    if (!rule->power_of_two) {
        double slack = c == HM_WIDE ? 0 : 0x1p-22;
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
        bool slack = c != HM_WIDE && (rule->operands_f32 || floored);
        if (slack && amax <= below * D * (1 + 0x1p-21)) low = below;
        if (slack && amax >= ideal * D * (1 - 0x1p-21)) high = 2 * ideal;
    }
    if (least > 0) least = hm_two_to(hm_ue8m0_exponent(least, 1));
    s.lo = low > least ? low : least, s.hi = high > least ? high : least;
    s.ideal = s.exact = ideal > least ? ideal : least;
    s.two = s.lo != s.hi;
    return s;
}

bool hm_fp8_admits_scale(const hm_fp8_scales *s, double stored) {
    return s->two ? stored == s->lo || stored == s->hi : stored >= s->lo && stored <= s->hi;
}

bool hm_fp8_usable(double scale) { return scale > 0 && scale < INFINITY; }

/* ---- codes ---- */

static bool power_of_two(double v) {
    int exponent;
    return frexp(v, &exponent) == 0.5;
}

/* x / S, or x times the reciprocal, before it is rounded to 8 bits; widens the ends to hold it. */
static void quotient(const hm_fp8_rule *rule, double x, double S, hm_class c, double *low, double *high) {
    double q = rule->reciprocal ? x * hm_round_to(HM_F32, 1 / S) : x / S, slack = 0;
    /* One f32 division; or one and a multiplication, of an operand that is itself off by 2^-24. Both are exact for a power
     * of two (a quotient below f32's normal numbers is far below the least code). */
    if (c != HM_WIDE && !power_of_two(S))
        slack = (rule->reciprocal ? 3 : 1) * 0x1p-24, q = rule->reciprocal ? x / S : q;
    double ends[2] = {q * (1 - slack), q * (1 + slack)};
    if (c != HM_WIDE && fabs(x) < 0x1p-126) ends[0] = copysign(0, x); /* an f32 subnormal may be read as 0 */
    for (int i = 0; i < 2; i++) {
        *low = ends[i] < *low ? ends[i] : *low;
        *high = ends[i] > *high ? ends[i] : *high;
    }
}

static uint8_t code(const hm_fp8_rule *rule, double x, double q) { /* a zero has x's sign */
    return hm_store8(rule->codes, q == 0 ? copysign(0, x) : q, rule->overflow);
}

void hm_fp8_codes_of(const hm_fp8_rule *rule, double x, double scale_lo, double scale_hi, hm_class c, uint8_t to[2]) {
    double low = INFINITY, high = -INFINITY;
    quotient(rule, x, scale_lo, c, &low, &high);
    quotient(rule, x, scale_hi, c, &low, &high);
    to[0] = code(rule, x, low), to[1] = code(rule, x, high);
}

uint8_t hm_fp8_ideal_code(const hm_fp8_rule *rule, double x, double scale) {
    uint8_t to[2];
    hm_fp8_codes_of(rule, x, scale, scale, HM_WIDE, to);
    return to[0];
}
